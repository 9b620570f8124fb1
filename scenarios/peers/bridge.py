"""CapyMOA's learners by name, and the way to them: out, answered over there, scored here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from scenarios.peers import capymoa_loop
from scenarios.prequential import Latency, Progress, Result, prequential
from scenarios.scenario import Scenario
from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value
from streammeta.experts.baselines import Answer, Baseline, with_key
from streammeta.scores import scores_for

PREFIX = "capymoa."
VARIABLE = "STREAMMETA_PEERS"  # the environment's Python, or its folder
FOLDER = ".venv-peers"  # where `make peers` puts it


@dataclass(frozen=True, slots=True)
class Peer:
    """A learner of CapyMOA: its class for either task, ``None`` where there is none.

    ``label_when_asked``: see ``capymoa_loop``. ``fills``: the tasks for which it cannot take
    missing values (it fails, or its distances are no numbers): the last known value of the
    column stands in for them, or 0 before there is one.
    """

    classifier: str | None
    regressor: str | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    label_when_asked: bool = False
    fills: tuple[str, ...] = ()

    def form(self, task: str) -> str | None:
        """Its class for ``task``."""
        return self.regressor if task == "regression" else self.classifier


_TEN = {"ensemble_size": 10}
_FORESTS = ("AdaptiveRandomForestClassifier", "AdaptiveRandomForestRegressor")

# What each of them is stands in the registry, where `components show models` reads it. Ensembles
# have 10 learners as River's; all other settings are CapyMOA's own.
NAMES: dict[str, Peer] = {
    "arf": Peer(*_FORESTS, _TEN, fills=("regression",)),
    "arf30": Peer(*_FORESTS, {"ensemble_size": 30}, fills=("regression",)),
    "srp": Peer("StreamingRandomPatches", None, _TEN),
    "levbag": Peer("LeveragingBagging", None, _TEN),
    "samknn": Peer("SAMkNN", None, label_when_asked=True, fills=("classification",)),
    "knn": Peer("KNN", "KNNRegressor"),
    "hat": Peer("HoeffdingAdaptiveTree", None),
    "soknl": Peer(None, "SOKNL", _TEN, fills=("regression",)),
    "fimtdd": Peer(None, "FIMTDD", fills=("regression",)),
}


def run(
    name: str,
    stream: Scenario,
    seed: int = 0,
    *,
    rows: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """Test-then-train of the peer ``name`` (``capymoa.arf``) on the first ``rows`` of ``stream``.

    ``seconds`` and ``latency`` are taken around predicting and learning over there, the
    conversion of rows to Java's instances included; ``peak_rss_mb`` is that of the peer's
    process, which holds the whole stream. ``note`` names the versions.

    Raises:
        UsageError: no such peer, it has no form for the stream's task, its environment or Java is
            missing, the stream's labels come late, or the peer failed; the message quotes it.
    """
    peer = _named(name)
    task = stream.card.task
    kind = peer.form(task)
    if kind is None:
        able = [short for short, other in NAMES.items() if other.form(task)]
        raise UsageError(f"{name} has no form for {task}; use another of {_listed(able)}")
    require(name)
    found = python()
    assert found is not None  # or require would have said so
    learner = {
        "learner": "capymoa",
        "class": kind,
        "settings": dict(peer.settings),
        "label_when_asked": peer.label_when_asked,
        "fill": task in peer.fills,
    }
    return judged(found, learner, stream, name=name, seed=seed, rows=rows, progress=progress)


def missing(name: str) -> str:
    """Why the peer ``name`` cannot run on this machine, or nothing.

    Raises:
        UsageError: no peer is called so.
    """
    _named(name)
    told = os.environ.get(VARIABLE)
    if python() is None:
        where = f"{VARIABLE}={told} is no Python" if told else f"there is no {FOLDER}"
        return f"CapyMOA lives in an environment of its own and {where}: run `make peers`"
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else "java"
    if shutil.which(java) is None:
        return f"CapyMOA needs Java 17 or later and there is no {java}: install a Java runtime"
    return ""


def require(name: str) -> None:
    """Refuse the peer ``name`` where it cannot run.

    Raises:
        UsageError: with the reason, as ``missing`` gives it.
    """
    if why := missing(name):
        raise UsageError(f"model {name!r}: {why}")


def python() -> Path | None:
    """The Python of the peers' environment: STREAMMETA_PEERS, or that of ``make peers``."""
    told = os.environ.get(VARIABLE)
    checkout = Path(__file__).parents[2]
    folders = [Path(told)] if told else [Path(FOLDER), checkout / FOLDER]
    for folder in folders:
        found = folder if folder.is_file() else folder / "bin" / "python"
        if found.is_file() and os.access(found, os.X_OK):
            return found.absolute()  # not resolved: the link's own folder makes the environment
    return None


def _named(name: str) -> Peer:
    short = name.removeprefix(PREFIX)
    if short in NAMES:
        return NAMES[short]
    near = get_close_matches(short, NAMES, n=3)
    hint = f"did you mean {_listed(near)}?" if near else f"known: {_listed(list(NAMES))}"
    raise UsageError(f"no peer is called {name!r}; {hint}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(PREFIX + name for name in names)


# -- out, answered over there, scored here -----------------------------------------------------


def judged(
    interpreter: Path,
    learner: Mapping[str, Any],
    stream: Scenario,
    *,
    name: str,
    seed: int = 0,
    rows: int | None = None,
    progress: Progress | None = None,
) -> Result:
    """``learner`` (fields of the job, see ``capymoa_loop``) run by ``interpreter``.

    The events that the loop of this process would refuse are not shown to it, and the scores are
    those of this process, so a peer is judged on the same rows as everybody else.

    Raises:
        UsageError: the stream's labels come late, or the peer failed.
    """
    card = stream.card
    table = Table(card.task)
    events = table.read(stream.events(), rows)
    with TemporaryDirectory(prefix="streammeta-peer-") as name_of_folder:
        folder = Path(name_of_folder)
        table.write(folder, {**learner, "name": name, "seed": seed})
        _converse(interpreter, folder, name, card.task, progress)
        with np.load(folder / "answers.npz") as answers:
            script = Script(card.task, table.classes, answers)
            seconds = answers["seconds"].tolist()
        about = json.loads((folder / "about.json").read_text())
    result = prequential(
        script,
        islice(stream.events(), events),
        task=card.task,
        chunk=1,
        name=name,
        seed=seed,
        score_from=card.score_from,
    )
    result.seconds = sum(seconds)
    result.latency = Latency.of(seconds)
    result.peak_rss_mb = about["peak_rss_mb"]
    result.growth_mb = result.peak_rss_mb  # a process of its own: all of it is new
    result.note = ", ".join(f"{part} {version}" for part, version in about["versions"].items())
    return result


class Table(Baseline):
    """Takes down the rows that any baseline would be asked; its own answers are nothing."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self._rows: list[Mapping[str, Value]] = []
        self._labels: list[Label] = []

    @property
    def classes(self) -> list[Label]:
        """Every class of the stream, in order of first appearance."""
        return list(dict.fromkeys(self._labels))

    def read(self, events: Iterator[Event], rows: int | None) -> int:
        """Take the first ``rows`` questions; how many events that took.

        Raises:
            UsageError: a question came before the label of the one before.
        """
        taken = 0
        for event in events:
            if rows is not None and len(self._rows) == rows and event.x is not None:
                break
            self.observe([event])
            taken += 1
        self._on_time()
        return taken

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        self._on_time()
        self._rows.append(with_key(x, key))
        return None, None

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        self._labels.append(y)

    def _on_time(self) -> None:
        if len(self._labels) < len(self._rows):
            raise UsageError(
                f"the label of row {len(self._labels)} of this stream does not come before the "
                "next row: CapyMOA's learners are run without label delay or horizon only"
            )

    def columns(self) -> dict[str, list[Value] | None]:
        """Every feature in order of first appearance: its categories, ``None`` if it is numeric.

        One text makes a feature nominal.
        """
        seen: dict[str, dict[Value, None]] = {}
        texts: set[str] = set()
        for x in self._rows:
            for name, value in x.items():
                values = seen.setdefault(name, {})
                if isinstance(value, str):
                    texts.add(name)
                if _known(value):
                    values[value] = None
        return {name: list(values) if name in texts else None for name, values in seen.items()}

    def write(self, folder: Path, job: Mapping[str, Any]) -> None:
        """``job.json`` and ``stream.npz``, as ``capymoa_loop`` reads them."""
        columns = self.columns()
        codes = {
            name: {value: float(i) for i, value in enumerate(values)}
            for name, values in columns.items()
            if values is not None
        }
        x = np.full((len(self._rows), len(columns)), np.nan)
        places = {name: i for i, name in enumerate(columns)}
        for row, features in enumerate(self._rows):
            for name, value in features.items():
                if _known(value):
                    code = codes.get(name)
                    x[row, places[name]] = float(value) if code is None else code[value]  # type: ignore[arg-type]
        if job.get("fill"):
            fill_forward(x)
        told = {n: None if v is None else [str(value) for value in v] for n, v in columns.items()}
        header: dict[str, Any] = {"task": self.task, "columns": told}
        if self.task == "regression":
            y = np.array(self._labels, float)
        else:
            numbers = {label: i for i, label in enumerate(self.classes)}
            y = np.array([numbers[label] for label in self._labels], np.int64)
            header["classes"] = [str(label) for label in numbers]
        np.savez(folder / "stream.npz", x=x, y=y)
        (folder / "job.json").write_text(json.dumps({**job, **header}))


def fill_forward(x: NDArray[np.float64]) -> None:
    """Put the column's last known value, or 0, where ``x`` (rows, columns) has NaN, in place."""
    last = np.zeros(x.shape[1])
    for row in x:
        gaps = np.isnan(row)
        row[gaps] = last[gaps]
        last = row


def _known(value: Value) -> bool:
    return value is not None and value == value  # NaN is missing too


class Script(Baseline):
    """Says again what a peer has answered, row by row."""

    def __init__(
        self, task: str, classes: Sequence[Label], answers: Mapping[str, NDArray[Any]]
    ) -> None:
        super().__init__(task)
        self._classes = list(classes)
        self._predictions = answers["predictions"].tolist()
        self._probabilities = answers["probabilities"]

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        told = self._predictions[self._row]
        if self.task == "regression":
            return (told if told == told else None), None
        shares = self._probabilities[self._row].tolist()
        probabilities = dict(zip(self._classes, shares, strict=True)) if any(shares) else None
        return (self._classes[told] if told >= 0 else None), probabilities

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        """Nothing: it is all said already."""


def _converse(
    interpreter: Path, folder: Path, name: str, task: str, progress: Progress | None
) -> None:
    """Run the loop over there to its end."""
    command = [str(interpreter), str(Path(capymoa_loop.__file__)), str(folder)]
    with (
        TemporaryFile("w+") as said,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closed when this process ends, however it does
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=folder,  # CapyMOA makes a folder for data sets where it runs
            env={**os.environ, "OMP_NUM_THREADS": "1", "CAPYMOA_DATASETS_DIR": str(folder)},
        ) as peer,
    ):
        try:
            _follow(peer.stdout, task, progress)
            code = peer.wait()
        finally:
            peer.kill()
        if code:
            said.seek(0)
            last = [line.strip() for line in said.read().splitlines() if line.strip()][-3:]
            raise UsageError(f"{name} failed over there ({' | '.join(last) or f'exit {code}'})")


def _follow(lines: IO[str] | None, task: str, progress: Progress | None) -> None:
    """Hand on how many rows are done; the scores are known at the end only."""
    unknown = scores_for(task)
    for line in lines or ():
        word, _, count = line.partition(" ")
        if progress is not None and word == "rows":
            with suppress(ValueError):
                progress(int(count), unknown, 0)
