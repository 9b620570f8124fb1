"""Drift detectors judged on streams of losses, and the default model's on streams of data.

On a stream of losses (``scenarios.losses``) a job's model is a detector: ``NAME`` with our
settings, ``NAME@ROWS`` calibrated to so many rows between two false alarms by the first losses
(``warm_up``), or a dummy: ``every@ROWS`` raises an alarm every so many rows, ``at_random`` as often
as there are drifts, ``never`` none. None is shown the losses that calibrate. On any other stream it
is a model, which brings its own detectors. On ``keys`` a detector is stacked over many keys, and
on ``bank`` the default bank is timed.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from drift import (
    DETECTORS,
    Detector,
    RatioSignal,
    Report,
    Status,
    calibrated,
    evaluate,
    every,
    make_detector,
    never,
)
from scenarios import bank_cost, many_keys
from scenarios.bench.jobs import Outcome, run_stream
from scenarios.bench.suite import Job
from scenarios.losses import STREAMS, Floats, LossStream, losses
from scenarios.models import at_drift, build
from scenarios.prequential import Progress, Result, events_of, peak_rss_mb, prequential
from scenarios.scenario import Card, Scenario, Span, scenario
from streammeta.errors import UsageError
from streammeta.scores import Measured
from streammeta.sources import FileSource

#: Losses that calibrate a detector, and that none is shown, at most; as a share of all, at most;
#: and at least. Of few, rates and tails are known badly, and so are rows between false alarms.
WARM_UP, WARM_SHARE, WARM_LEAST = 2_000, 0.25, 30
STILL = "hyperplane | drift('none')"  # a stream of data in which nothing changes
STILL_ROWS = 200_000
MAX_DELAY = 1_000
DUMMIES = ("every", "at_random", "never")


class Detecting:
    """A job is a detector on a stream of losses, or a model on a stream of data."""

    def card(self, job: Job) -> Card:
        """What can be said of the stream."""
        if job.stream == many_keys.STREAM:
            rows = many_keys.KEYS * (job.rows or many_keys.ROWS)
            facts = f"{many_keys.KEYS:,} keys, one call a row"
            return Card(job.stream, "regression", rows, (), facts, "", "scenarios.many_keys", rows)
        if job.stream == bank_cost.STREAM:
            rows = job.rows or bank_cost.ROWS
            facts = f"the default detectors on {bank_cost.BANKS[job.model]}"
            return Card(job.stream, "regression", rows, (), facts, "", "scenarios.bank_cost", rows)
        if job.stream not in STREAMS:
            return _stream(job).card
        stream = losses(job.stream, job.rows, job.seed)
        rows = len(stream.values)
        return Card(
            job.stream, "regression", rows, stream.drifts, "losses without a model", "f1 1",
            "scenarios.losses", rows,
        )  # fmt: skip

    def check(self, job: Job) -> None:
        """Refuse what cannot be done, before any work.

        Raises:
            UsageError: no such detector or model, or one that does not fit the stream.
        """
        if job.stream not in (*STREAMS, many_keys.STREAM, bank_cost.STREAM):
            card = self.card(job)
            build(at_drift(job.model, card), task=card.task, seed=job.seed, chunk=job.chunk)
            return
        name, _ = named(job.model)
        if name not in (*DUMMIES, *bank_cost.BANKS):
            made(name, "error", job.seed)
        if not fits(job.stream, job.model):
            raise UsageError(f"{job.model!r} cannot be asked of {job.stream}")

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Show every loss to the detector, or every event to the model."""
        card = self.card(job)
        if job.stream == many_keys.STREAM:
            timed = many_keys.measure(job.model, rows=job.rows or many_keys.ROWS, seed=job.seed)
            return Outcome(job, card, Result(job.model, job.seed, 1, "regression", timed))
        if job.stream == bank_cost.STREAM:
            timed = bank_cost.measure(job.model, job.rows or bank_cost.ROWS, job.seed)
            return Outcome(job, card, Result(job.model, job.seed, 1, "regression", timed))
        if job.stream not in STREAMS:
            return Outcome(job, card, run_stream(job, _stream(job), progress, card))
        shown = losses(job.stream, job.rows, job.seed)
        found = judged(job.model, shown, job.seed)
        scores = found.scores()
        result = Result(job.model, job.seed, job.chunk, "regression", scores, found.seconds)
        result.events, result.peak_rss_mb = found.report.rows, peak_rss_mb()
        result.drifts, result.watches = found.alarms, True
        result.rows, result.losses = array("q", [0]), array("d", [1.0 - found.report.f1])
        result.keys = array("l", [0]) * card.rows  # how many rows there were
        if progress is not None:
            progress(card.rows, result.scores, 0)
        return Outcome(job, card, result)


def _stream(job: Job) -> Scenario:
    rows = job.rows or (STILL_ROWS if job.stream == STILL else None)
    return scenario(job.stream, seed=job.seed, rows=rows)


class Judgement(NamedTuple):
    """The rows of the alarms, what they are worth from row ``warm_up`` on, and the seconds that
    all updates took (0 of a dummy)."""

    alarms: list[int]
    report: Report
    seconds: float
    warm_up: int

    @property
    def micros(self) -> float | None:
        """Microseconds of an update; None of a dummy."""
        return 1e6 * self.seconds / self.report.rows if self.seconds else None

    def scores(self) -> Measured:
        """F1 and the rest of what ``drift.evaluate`` says; nan where there was nothing to say."""
        r = self.report
        told = {
            "f1": r.f1,
            "precision": r.precision,
            "recall": r.recall,
            "episode_recall": r.episode_recall,
            "mean_delay": r.mean_delay,
            "normalised_delay": r.normalised_delay,
            "false_alarms_per_1000": r.false_alarms_per_1000,
            "between_false_alarms": r.between_false_alarms,
            "mean_time_ratio": r.mean_time_ratio,
            "us_per_update": self.micros,
        }
        values = {name: float("nan") if value is None else value for name, value in told.items()}
        return Measured(values, r.rows, higher_is_better=True)


def warm_up(shown: LossStream) -> int:
    """How many of the first losses calibrate: none from a drift on.

    Raises:
        UsageError: they would be less than 30.
    """
    rows = len(shown.values)
    first = min((start for start, _ in shown.drifts), default=rows)
    found = min(WARM_UP, int(WARM_SHARE * rows), first)
    if found >= WARM_LEAST:
        return found
    why = f"{rows} losses" if first > found else f"the first drift is at row {first}"
    raise UsageError(
        f"{shown.name}: {why}; the first {WARM_LEAST} at least, and no more than a quarter, "
        "calibrate and are not judged"
    )


def judged(model: str, shown: LossStream, seed: int, max_delay: int = MAX_DELAY) -> Judgement:
    """Show the losses from row ``warm_up`` on to a detector or dummy, and judge its alarms.

    Raises:
        UsageError: too few losses, a drift among the first 30 or after the last, no such detector,
            or one that cannot read or be calibrated by these losses.
    """
    for start, end in shown.drifts:
        if not start <= end < len(shown.values):
            raise UsageError(
                f"a drift from row {start} to {end}: expected rows below {len(shown.values)}, the "
                "first not after the last"
            )
    skipped = warm_up(shown)
    raised, seconds = _alarms(model, shown, seed, skipped)
    spans = [(start - skipped, end - skipped) for start, end in shown.drifts]
    rows = len(shown.values) - skipped
    try:
        report = evaluate([row - skipped for row in raised], spans, rows, max_delay)
    except ValueError as fault:
        raise UsageError(f"{fault} (rows counted from the {skipped}th)") from None
    return Judgement(raised, report, seconds, skipped)


def _alarms(model: str, shown: LossStream, seed: int, skipped: int) -> tuple[list[int], float]:
    name, expected = named(model)
    if name in DUMMIES:
        return [row for row in _dummy(name, expected, shown, seed) if row >= skipped], 0.0
    detector = made(name, shown.signal, seed)
    if detector.input == "error" and shown.signal != "error":
        raise UsageError(f"detector {name!r} reads 0/1 errors, {shown.name} has other losses")
    if expected is not None:
        warm = shown.values[:skipped]
        try:
            detector = calibrated(detector, warm, expected, shown.signal, seed)
        except (ValueError, TypeError) as fault:
            raise UsageError(str(fault)) from None
    return _raised(detector, shown.values[skipped:].tolist(), skipped)


def _dummy(name: str, apart: float | None, shown: LossStream, seed: int) -> Sequence[int]:
    rows = len(shown.values)
    usual = rows / max(1, len(shown.drifts))
    if name == "every":
        return every(int(apart or usual), rows)
    if name == "never":
        return never()
    chances = np.random.default_rng(seed).random(rows)
    raised: list[int] = np.flatnonzero(chances * (apart or usual) < 1.0).tolist()
    return raised


def _raised(detector: Detector, values: Sequence[float], first: int) -> tuple[list[int], float]:
    update, drift = detector.update, Status.DRIFT
    begun = perf_counter()
    raised = [row for row, value in enumerate(values, first) if update(value) is drift]
    return raised, perf_counter() - begun


def read_losses(path: Path, column: str, drifts: tuple[Span, ...]) -> LossStream:
    """The losses of a column of a file: errors where all are 0 or 1, else sizes of residuals, each
    over the mean size of those before it.

    Raises:
        SourceError: the file cannot be read or has no such column.
        UsageError: it has a value that is no number.
    """
    source = FileSource(path, target=column)
    try:
        told = [event.y for event in events_of(source)]
    finally:
        source.close()
    values = np.empty(len(told))
    for row, value in enumerate(told):
        if isinstance(value, str) or value is None:
            raise UsageError(f"{path}, row {row}: {column} is {value!r}, expected a number")
        values[row] = float(value)
    return _shown(path.name, values, drifts)


def losses_of(stream: Scenario, model: str, seed: int) -> LossStream:
    """The losses of ``model`` on a stream of data, whose drifts are known.

    Raises:
        UsageError: no such model.
    """
    card = stream.card
    learner = build(at_drift(model, card), task=card.task, seed=seed)
    result = prequential(learner, stream.events(), task=card.task, name=model, seed=seed)
    order = np.argsort(np.array(result.rows), kind="stable")
    values = np.array(result.losses)[order]
    spans = tuple((a, min(b, len(values) - 1)) for a, b in card.drifts if a < len(values))
    return _shown(card.name, values, spans)


def _shown(name: str, values: Floats, drifts: tuple[Span, ...]) -> LossStream:
    if set(values.tolist()) <= {0.0, 1.0}:
        return LossStream(name, values, drifts, "error")
    signal = RatioSignal()
    ratios = np.array([signal.update(value) for value in values.tolist()])
    return LossStream(name, ratios, drifts, "ratio")


def fits(stream: str, model: str) -> bool:
    """Detectors fit losses that they can read, models fit streams of data.

    Raises:
        UsageError: a detector that does not exist.
    """
    name, _ = named(model)
    if stream == bank_cost.STREAM or model in bank_cost.BANKS:
        return stream == bank_cost.STREAM and model in bank_cost.BANKS
    if stream == many_keys.STREAM:
        return many_keys.stacks(model)
    detects = name in (*DETECTORS, *DUMMIES) or "(" in name
    detects = detects or (":" in name and stream in STREAMS)
    if (stream in STREAMS) != detects:
        return False
    if not detects or name in DUMMIES:
        return True
    signal = STREAMS[stream].signal
    return made(name, signal, 0).input == "real" or signal == "error"


def named(model: str) -> tuple[str, float | None]:
    """``NAME`` or ``NAME@ROWS``: a detector, and the rows between two false alarms.

    Raises:
        UsageError: the rows of a dummy are no whole number from 1 on.
    """
    name, at, told = model.partition("@")
    if not at:
        return name, None
    try:
        rows = float(told)
    except ValueError:
        return model, None  # a model of the bench, such as sgd@best
    if name in DUMMIES and not (rows >= 1 and rows.is_integer()):
        raise UsageError(f"{model}: expected a whole number of rows")
    return name, rows


def made(name: str, signal: str, seed: int) -> Any:
    """The detector called ``name``.

    Raises:
        UsageError: there is none, or it cannot be made.
    """
    try:
        return make_detector(name, signal, seed)
    except (ValueError, TypeError) as fault:
        raise UsageError(str(fault)) from None


DETECTING = Detecting()
