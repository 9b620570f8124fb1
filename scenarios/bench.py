"""The bench: models x streams x seeds, each measured prequentially, several processes at once.

A suite is one object and one row of the registry. Its ``summarise`` turns the outcomes into
tables and pictures; without one the bench prints the mean and the spread of the main score.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import active_children, get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from drift import evaluate as judge_alarms
from scenarios.models import build
from scenarios.prequential import Progress, Result, prequential
from scenarios.scenario import Card, scenario
from streammeta.errors import UsageError
from streammeta.report import Line
from streammeta.sources.labels import delayed

MAX_DELAY = 500  # rows after a drift in which an alarm counts as its detection
QUICK_ROWS = 3_000
QUICK_SEEDS = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one stream with one seed; ``rows`` None means all of them.

    ``frozen@drift`` stands for frozen at the first true drift, which depends on the seed.
    """

    model: str
    stream: str
    seed: int
    rows: int | None = None
    chunk: int = 1
    overrides: tuple[tuple[str, Any], ...] = ()  # fields of ModelConfig, for the default's variants
    label_delay: int = 0  # rows by which labels come later


@dataclass(slots=True)
class Outcome:
    """What a job gave; ``result.model`` is the job's model as it was named."""

    job: Job
    card: Card
    result: Result

    def to_json(self, suite: str, command: str) -> dict[str, Any]:
        """The JSON line of this outcome, with all that is needed to get it again."""
        return {
            "suite": suite,
            "stream": self.job.stream,
            **self.result.to_json(),
            "drift_report": self.drift_report(),
            **provenance(),
            "command": command,
        }

    def drift_report(self) -> dict[str, Any] | None:
        """Alarms against the true drifts; ``None`` where the stream has no known ones."""
        if not self.card.drifts:
            return None
        rows = max(self.card.rows, max(self.result.drifts, default=0) + 1)
        found = judge_alarms(self.result.drifts, self.card.drifts, rows, MAX_DELAY)
        return {
            "found": found.found,
            "missed": found.missed,
            "false_alarms": found.false_alarms,
            "mean_delay": found.mean_delay,
            "max_delay": MAX_DELAY,
        }


@dataclass(frozen=True, slots=True)
class Summary:
    """One table of a summary, and perhaps a picture; ``note`` stands below the table."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    lines: Sequence[Line] = ()
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """One claim that a suite must keep: ``text`` with its figure, and whether it holds."""

    text: str
    ok: bool


@dataclass(frozen=True, slots=True)
class Suite:
    """A named set of jobs; ``minutes`` is the wall time on two cores, roughly.

    ``gates`` turns the outcomes into claims that ``bench --check`` holds the suite to; one that
    the outcomes cannot answer, because a model was left out, does not hold.
    """

    name: str
    summary: str
    minutes: float
    streams: tuple[str, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    summarise: Callable[[Sequence[Outcome]], list[Summary]] | None = None
    quick_rows: int = QUICK_ROWS
    unavailable: Callable[[str], str] = field(default=lambda stream: "")
    overrides: tuple[tuple[str, Any], ...] = ()  # fields of ModelConfig, for the default's variants
    gates: Callable[[Sequence[Outcome]], list[Gate]] | None = None

    def jobs(
        self,
        *,
        models: Sequence[str] = (),
        seeds: int | None = None,
        quick: bool = False,
    ) -> list[Job]:
        """The jobs of this suite, without streams that are not available here."""
        numbers = self.seeds if seeds is None else tuple(range(seeds))
        if quick:
            numbers = numbers[:QUICK_SEEDS]
        return [
            Job(model, stream, seed, self.quick_rows if quick else None, overrides=self.overrides)
            for stream in self.streams
            if not self.unavailable(stream)
            for seed in numbers
            for model in (models or self.models)
        ]


def run_job(job: Job, progress: Progress | None = None) -> Outcome:
    """Do one job in this process."""
    stream = scenario(job.stream, seed=job.seed, rows=job.rows)
    card = stream.card
    model = build(
        at_drift(job.model, card),
        task=card.task,
        seed=job.seed,
        chunk=job.chunk,
        overrides=dict(job.overrides),
    )
    events = stream.events()
    result = prequential(
        model,
        delayed(events, job.label_delay) if job.label_delay else events,
        task=card.task,
        chunk=job.chunk,
        name=job.model,
        seed=job.seed,
        progress=progress,
    )
    result.predictions.clear()  # nobody reads them, and they travel between processes
    return Outcome(job, card, result)


def at_drift(name: str, card: Card) -> str:
    """``frozen@drift`` with the row of the stream's first true drift; other names as they are."""
    if not name.endswith("@drift"):
        return name
    first = card.drifts[0][0] if card.drifts else card.rows
    return f"{name.removesuffix('drift')}{first}"


def run_jobs(jobs: Sequence[Job], processes: int = 1) -> Iterator[Outcome]:
    """The outcomes as they come in; with one process in the order of the jobs.

    Raises:
        UsageError: a model or a stream of a job cannot be built.
    """
    if processes <= 1:
        for job in jobs:
            yield run_job(job)
        return
    with pool(processes) as workers:
        waiting = [workers.submit(run_job, job) for job in jobs]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            for future in waiting:
                future.cancel()


def pool(processes: int) -> ProcessPoolExecutor:
    """Fresh, polite processes of one thread each, that leave Ctrl-C to their parent."""
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_begin)


def stop_now(workers: ProcessPoolExecutor) -> None:
    """End a pool without waiting for the jobs at hand."""
    workers.shutdown(wait=False, cancel_futures=True)
    for child in active_children():
        child.terminate()


def _begin() -> None:
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.nice(10)


def in_order(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes in the order of their jobs."""
    place = {job: i for i, job in enumerate(jobs)}
    return sorted(outcomes, key=lambda outcome: place[outcome.job])


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Mean and sample standard deviation of the values that are defined.

    >>> spread([0.9, 0.92]), spread([0.5]), spread([float("nan")])
    ('0.9100 ± 0.0141', '0.5000', '-')
    """
    values = [value for value in values if value == value]
    if not values:
        return "-"
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


def main_score(outcome: Outcome) -> float:
    """Accuracy or mean absolute error over the whole stream."""
    return outcome.result.metric[outcome.result.scores.main]


def mean_score(outcomes: Sequence[Outcome], model: str, stream: str) -> float:
    """The main score of ``model`` on ``stream``, mean over the seeds; nan where it did not run."""
    scores = [main_score(o) for o in outcomes if (o.job.model, o.job.stream) == (model, stream)]
    return mean(scores) if scores else float("nan")


def leaderboard(outcomes: Sequence[Outcome]) -> list[Summary]:
    """The main score of every model on every stream, over the seeds."""
    tables = []
    for stream in unique(o.job.stream for o in outcomes):
        here = [o for o in outcomes if o.job.stream == stream]
        score = here[0].result.scores
        rows = []
        for model in unique(o.job.model for o in here):
            ours = [o for o in here if o.job.model == model]
            second = list(ours[0].result.metric)[1:3]
            speed = mean(o.result.events / max(o.result.seconds, 1e-9) for o in ours)
            rows.append(
                [
                    model,
                    spread([main_score(o) for o in ours]),
                    *(spread([o.result.metric[name] for o in ours]) for name in second),
                    *_drift_cells(ours),
                    f"{speed:,.0f}",
                ]
            )
        names = [score.main, *list(here[0].result.metric)[1:3]]
        head = ["model", *(n.replace("_", "-") for n in names), "drifts found", "false alarms"]
        tables.append(Summary(_title(here), [*head, "events/s"], rows, _drift_note(here)))
    return tables


def unique(values: Iterator[str]) -> list[str]:
    """Each value once, in order of first appearance."""
    return list(dict.fromkeys(values))


def _title(outcomes: Sequence[Outcome]) -> str:
    card, seeds = outcomes[0].card, sorted({o.job.seed for o in outcomes})
    chunk = outcomes[0].job.chunk
    told = ", ".join(str(seed) for seed in seeds)
    return f"{outcomes[0].job.stream}: {card.rows:,} rows, chunk {chunk}, seeds {told}"


def _drift_cells(outcomes: Sequence[Outcome]) -> list[str]:
    reports = [r for o in outcomes if (r := o.drift_report())]
    alarms = mean(len(o.result.drifts) for o in outcomes)
    if not reports:
        return ["-", f"{alarms:.1f} alarms"]
    true = reports[0]["found"] + reports[0]["missed"]
    found = mean(r["found"] for r in reports)
    false = mean(r["false_alarms"] for r in reports)
    return [f"{found:.1f} of {true}", f"{false:.1f}"]


def _drift_note(outcomes: Sequence[Outcome]) -> str:
    if not outcomes[0].card.drifts:
        return "true drifts: unknown"
    return f"a drift counts as found within {MAX_DELAY} rows; best possible: " + (
        outcomes[0].card.ceiling
    )


@cache
def provenance() -> dict[str, Any]:
    """Commit of the code (``None`` outside a checkout) and versions of what the numbers hang on."""
    packages = ("streammeta", "torch", "river", "numpy", "numba")
    versions = {"python": platform.python_version()}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"commit": _commit(), "versions": versions}


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
        told = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


def command_line() -> str:
    """The command that is running, as it can be typed again."""
    from shlex import join

    return join(["streammeta", *sys.argv[1:]])


def check(jobs: Sequence[Job]) -> None:
    """Refuse names that do not exist before any work is done.

    Raises:
        UsageError: there is nothing to do, or a model's name cannot be used.
    """
    if not jobs:
        raise UsageError("nothing to run: no stream of the suite is available on this machine")
    for model in unique(job.model for job in jobs):
        row = model.removesuffix("drift") + "1" if model.endswith("@drift") else model
        build(row, task="classification")
