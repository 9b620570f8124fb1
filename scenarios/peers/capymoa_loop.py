"""Test-then-train of one CapyMOA learner; run by the Python of the peers' environment alone.

It imports neither ``streammeta`` nor ``scenarios``, only numpy and what the job names::

    python capymoa_loop.py FOLDER

``FOLDER/job.json`` tells what a MOA header tells, and nothing else is known beforehand::

    {"learner": "capymoa", "name": "arf", "task": "classification", "seed": 0,
     "settings": {"ensemble_size": 10}, "columns": {"temp": null, "day": ["mon", "tue"]},
     "classes": ["up", "down"]}

``FOLDER/stream.npz`` has ``x`` (rows, columns), NaN where a value is missing and the number of
the category in a nominal column, and ``y`` (rows,): the number of the class, or the value.

The answers go to ``FOLDER/answers.npz``: ``predictions`` (the number of the class, -1 for none;
or the value, NaN for none), ``probabilities`` (rows, classes; zeros for none; classification
only) and ``seconds`` per row; ``FOLDER/about.json`` gets the versions and the peak memory in MB.
Lines ``rows N`` on stdout tell how far it is. It ends when its stdin is closed.

With ``"label_when_asked": true`` the question carries its label: SAM-kNN notes there which of its
memories was right, after it has made up its votes, and would otherwise never know. Whether it
keeps to that is tested from outside: another label must leave the answer to its own row alone.

``learner`` may also be ``module:factory``: a callable that takes the job and returns an object
with ``predict``, ``learn`` and ``versions`` as ``CapyMOA`` below has them.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np

TELL = 0.2  # seconds between two lines on stdout

Answer = tuple[float | None, Any]  # class number or value, probabilities


class CapyMOA:
    """A learner of CapyMOA behind ``predict`` and ``learn``.

    A question is an instance whose class is missing, so that no learner can look at it, but for
    those that must have it (see above).
    """

    def __init__(self, job: dict[str, Any]) -> None:
        import capymoa
        from capymoa.core import Instance, LabeledInstance, RegressionInstance
        from capymoa.stream import Schema

        self._regression = job["task"] == "regression"
        # MOA's names and values cannot hold every character: numbers stand for them
        names = [f"x{i}" for i in range(len(job["columns"]))]
        nominal = {
            name: [str(i) for i in range(len(values))]
            for name, values in zip(names, job["columns"].values(), strict=True)
            if values is not None
        }
        if not self._regression:
            nominal["y"] = [str(i) for i in range(len(job["classes"]))]
        self._schema = Schema.from_custom([*names, "y"], "y", nominal, "stream")
        self._ask = Instance.from_array
        self._tell = (RegressionInstance if self._regression else LabeledInstance).from_array
        kind = import_module("capymoa.regressor" if self._regression else "capymoa.classifier")
        make = getattr(kind, job["class"])
        # CapyMOA's own seed is 1: that is seed 0 here
        self._learner = make(schema=self._schema, random_seed=1 + job["seed"], **job["settings"])
        self._version = str(capymoa.__version__)

    def predict(self, x: Any, label: float | None = None) -> Answer:
        """The answer to one row of features; ``label`` is for ``label_when_asked`` alone."""
        question = self._ask(self._schema, x)
        if label is not None:
            question = self._tell(self._schema, x, label)
        if self._regression:
            value = self._learner.predict(question)
            return (None if value is None else float(value)), None
        shares = self._learner.predict_proba(question)
        return (None, None) if shares is None else (int(np.argmax(shares)), shares)

    def learn(self, x: Any, y: float) -> None:
        """Take the label of one row."""
        self._learner.train(self._tell(self._schema, x, y))

    def versions(self) -> dict[str, str]:
        """What did this, by name."""
        import jpype

        java = jpype.java.lang.System.getProperty("java.version")
        return {"capymoa": self._version, "java": str(java)}


def main(folder: Path) -> None:
    """Do the job of ``folder``."""
    job = json.loads((folder / "job.json").read_text())
    stream = np.load(folder / "stream.npz")
    answers, learner = loop(_maker(job["learner"])(job), stream["x"], stream["y"], job)
    np.savez(folder / "answers.npz", **answers)
    about = {"versions": learner.versions(), "peak_rss_mb": _peak_rss_mb()}
    (folder / "about.json").write_text(json.dumps(about))


def loop(learner: Any, x: Any, y: Any, job: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Every row is answered first and learned then; ``answers`` as in ``answers.npz``."""
    n, regression = len(x), job["task"] == "regression"
    labelled = bool(job.get("label_when_asked"))
    predictions = np.full(n, np.nan) if regression else np.full(n, -1, np.int64)
    probabilities = np.zeros((n, 0 if regression else len(job["classes"])))
    seconds = np.zeros(n)
    told = monotonic()
    for row in range(n):
        start = perf_counter()
        answer, shares = learner.predict(x[row], y[row]) if labelled else learner.predict(x[row])
        learner.learn(x[row], y[row])
        seconds[row] = perf_counter() - start
        if answer is not None:
            predictions[row] = answer
        if shares is not None:
            probabilities[row, : len(shares)] = shares
        if monotonic() - told >= TELL or row + 1 == n:
            told = monotonic()
            _say(f"rows {row + 1}")
    return {"predictions": predictions, "probabilities": probabilities, "seconds": seconds}, learner


def _maker(learner: str) -> Callable[[dict[str, Any]], Any]:
    if learner == "capymoa":
        return CapyMOA
    module, _, attribute = learner.partition(":")
    made: Callable[[dict[str, Any]], Any] = getattr(import_module(module), attribute)
    return made


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _peak_rss_mb() -> float:
    """The most memory this process ever held, the JVM's included, in MB (10^6 bytes)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _end_with_parent() -> None:
    """A parent that was killed closes our stdin: nobody would read the answers."""
    while os.read(0, 1024):  # not sys.stdin: its lock would be held when the interpreter ends
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main(Path(sys.argv[1]))
