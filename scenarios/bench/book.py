"""The book of a bench: one record per run, one comparison per model and stream.

Everything that is shown (tables, gates, RESULTS.md) is made from the book alone, and the book is
what ``--json`` writes: a table in the results can be had again from the file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift import Report
from drift import evaluate as judge_alarms
from scenarios.bench.jobs import Outcome
from scenarios.bench.recovery import Recovery, recovery
from scenarios.bench.statistics import Interval, bootstrap, student
from scenarios.bench.suite import Suite
from scenarios.prequential import Result
from scenarios.scenario import Card, Span
from streammeta.errors import SourceError

DEFAULT = "streammeta"  # the model that the others are compared with
MAX_DELAY = 500  # rows after a drift in which an alarm counts as its detection
ENOUGH_SEEDS = 3  # from here on the interval of a mean is that of the runs
ENOUGH_ROWS = 30  # with fewer there is no interval
RUN, PAIR = "run", "paired"


@dataclass(frozen=True, slots=True)
class Record:
    """One run: what a line of ``"kind": "run"`` holds.

    ``interval`` is the 95 % interval of the main score by moving-block bootstrap over the rows.
    ``watches`` says whether the model could raise alarms at all; ``growth_mb`` is the peak of
    memory above what the process held before. ``asked`` is the job's own wish for rows, ``cap``,
    delay and ``overrides`` of the default model's settings; ``rows`` are those scored.
    ``provenance`` holds commit, versions and machine.
    """

    suite: str
    stream: str
    model: str
    seed: int
    chunk: int
    rows: int
    main: str
    higher_is_better: bool
    metric: dict[str, float | None]
    interval: list[float] | None
    events_per_second: float
    seconds: float
    peak_rss_mb: float
    growth_mb: float
    latency_us: dict[str, float]
    drifts: list[int]
    watches: bool
    rejected: int
    experts: dict[str, float | None]
    drift_report: dict[str, Any] | None
    recovery: dict[str, Any] | None
    card: dict[str, Any]
    provenance: dict[str, Any]
    command: str
    asked: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def score(self) -> float:
        """The main score; nan where it is not defined."""
        return self.value(self.main)

    def value(self, name: str) -> float:
        """The score called ``name``; nan where it is not defined."""
        found = self.metric.get(name)
        return float("nan") if found is None else found


@dataclass(frozen=True, slots=True)
class Pair:
    """``against`` minus ``model``, in loss: positive where ``against`` is better.

    The losses of the same rows of the same seeds are subtracted; ``difference`` is the mean over
    seeds of each seed's mean, and ``low`` and ``high`` bound its 95 % interval by moving-block
    bootstrap over the rows within every seed. It tells whether the two differ on these rows, not
    how much another seed would change. Where the rows are the same for every seed, they are
    averaged over the seeds first: more seeds make no more rows.
    """

    suite: str
    stream: str
    model: str
    against: str
    chunk: int
    seeds: list[int]
    rows: int
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``win`` of ``against``, ``loss`` or ``draw`` where the interval holds 0."""
        if self.low > 0.0:
            return "win"
        return "loss" if self.high < 0.0 else "draw"


@dataclass(frozen=True)
class Book:
    """Records and pairs, in the order of the jobs."""

    runs: Sequence[Record]
    pairs: Sequence[Pair] = ()

    @cached_property
    def streams(self) -> list[str]:
        """Every stream once."""
        return list(dict.fromkeys(run.stream for run in self.runs))

    @cached_property
    def models(self) -> list[str]:
        """Every model once."""
        return list(dict.fromkeys(run.model for run in self.runs))

    @cached_property
    def chunk(self) -> int:
        """The smallest chunk: the one that means and ranks are of."""
        return min((run.chunk for run in self.runs), default=1)

    def of(
        self, *, stream: str | None = None, model: str | None = None, chunk: int | None = None
    ) -> list[Record]:
        """The runs that match what is given."""
        return [
            run
            for run in self.runs
            if (stream is None or run.stream == stream)
            and (model is None or run.model == model)
            and (chunk is None or run.chunk == chunk)
        ]

    def mean(self, model: str, stream: str) -> float:
        """The main score of ``model`` on ``stream``, mean over seeds; nan where it did not run.

        Runs at another than the smallest chunk of the book do not count.
        """
        runs = self.of(stream=stream, model=model, chunk=self.chunk)
        return float(np.mean([run.score for run in runs])) if runs else float("nan")

    def pair(self, model: str, stream: str, chunk: int | None = None) -> Pair | None:
        """How the default compares with ``model`` on ``stream``, at the smallest chunk or this."""
        wanted = (model, stream, self.chunk if chunk is None else chunk)
        return next((p for p in self.pairs if (p.model, p.stream, p.chunk) == wanted), None)

    def lines(self) -> Iterable[str]:
        """The JSON lines of the book."""
        for run in self.runs:
            yield json.dumps({"kind": RUN, **asdict(run)}, allow_nan=False)
        for pair in self.pairs:
            yield json.dumps({"kind": PAIR, **asdict(pair)}, allow_nan=False)


def read_book(path: Path) -> Book:
    """The book in a file of JSON lines.

    Raises:
        SourceError: it cannot be read, or a line is none of a book's, or of an earlier version's.
    """
    runs: list[Record] = []
    pairs: list[Pair] = []
    number = 0
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            number += 1
            told = json.loads(line)
            kind = told.pop("kind", None)
            if kind is None and {"suite", "stream", "model", "seed"} <= set(told):
                raise SourceError(
                    f"{path} line {number}: written by an earlier version, which kept less: run "
                    f"streammeta bench {told['suite']} --json {path} again"
                )
            if kind == RUN:
                runs.append(Record(**told))
            elif kind == PAIR:
                pairs.append(Pair(**told))
            else:
                raise ValueError(f"kind {kind!r}")
    except OSError as fault:
        raise SourceError(f"cannot read {path}: {fault.strerror or fault}") from fault
    except (ValueError, TypeError, AttributeError) as fault:
        raise SourceError(f"{path} line {number}: no record of a bench ({fault})") from fault
    return Book(runs, pairs)


def interval_of(runs: Sequence[Record]) -> Interval:
    """The mean main score over seeds with its 95 % interval.

    Student's t over the seeds from ``ENOUGH_SEEDS`` on, where each has rows of its own: what
    another seed would give. Else moving-block bootstrap over the rows, those that are the same
    for every seed counting once.
    """
    scores = [run.score for run in runs]
    centre = float(np.mean(scores))
    same_rows = bool(runs[0].card["fixed"])
    if len(runs) >= ENOUGH_SEEDS and not same_rows:
        return student(scores)
    sides = [
        (run.score - run.interval[0], run.interval[1] - run.score) for run in runs if run.interval
    ]
    if len(sides) < len(runs):
        return Interval(centre, float("nan"), float("nan"))
    below, above = np.array(sides).T
    if same_rows:
        return Interval(centre, centre - float(below.mean()), centre + float(above.mean()))
    low, high = (float(np.sqrt((side**2).sum())) / len(runs) for side in (below, above))
    return Interval(centre, centre - low, centre + high)


@dataclass(slots=True)
class Done:
    """A finished run: its record, and its losses ``(rows,)`` by row for comparisons."""

    record: Record
    rows: NDArray[np.int64]
    losses: NDArray[np.float64]


def finish(outcome: Outcome, suite: Suite, command: str) -> Done:
    """What is kept of an outcome."""
    from scenarios.bench.provenance import provenance

    job, card, result = outcome.job, outcome.card, outcome.result
    told = result.to_json()
    rows = np.array(result.rows, np.int64)
    losses = np.array(result.losses, np.float64)
    order = np.argsort(rows, kind="stable")
    rows, losses = rows[order], losses[order]
    record = Record(
        **{name: told[name] for name in _SAME},
        suite=suite.name,
        stream=job.stream,
        main=result.scores.main,
        higher_is_better=result.scores.higher_is_better,
        interval=_interval(losses, result.scores.higher_is_better),
        watches=result.watches,
        drift_report=drift_report(outcome),
        recovery=_recovery(outcome),
        card=_card(card),
        provenance=provenance(),
        command=command,
        asked={
            "rows": job.rows,
            "cap": job.cap,
            "label_delay": job.label_delay,
            "overrides": json.loads(json.dumps(dict(job.overrides))),  # as a file gives it back
        },
        extra=suite.extra(outcome) if suite.extra else {},
        note=result.note,
    )
    return Done(record, rows, losses)


_SAME = (  # fields of a record that a result's JSON has too
    "model",
    "seed",
    "chunk",
    "rows",
    "metric",
    "events_per_second",
    "seconds",
    "peak_rss_mb",
    "growth_mb",
    "latency_us",
    "drifts",
    "rejected",
    "experts",
)


def compare(done: Sequence[Done], against: str = DEFAULT) -> list[Pair]:
    """Every other model against the default, over the rows and seeds that both have."""
    ours = {_place(d): d for d in done if d.record.model == against}
    groups: dict[tuple[str, str, int], list[tuple[Done, Done]]] = {}
    for d in done:
        other = ours.get(_place(d))
        if other is not None and d.record.model != against:
            name = (d.record.stream, d.record.model, d.record.chunk)
            groups.setdefault(name, []).append((other, d))
    made = []
    for (stream, model, chunk), both in groups.items():
        series = [_differences(mine, theirs) for mine, theirs in both]
        if min(len(values) for values, _ in series) < ENOUGH_ROWS:
            continue
        first = both[0][0].record
        fixed = bool(first.card["fixed"])
        value = _mean_difference(series, fixed)
        seeds = [theirs.record.seed for _, theirs in both]
        counts = [len(values) for values, _ in series]
        rows = min(counts) if fixed else sum(counts)
        figures = [round(v, 6) for v in value]
        made.append(Pair(first.suite, stream, model, against, chunk, seeds, rows, *figures))
    return made


Series = tuple[NDArray[np.float64], NDArray[np.int64]]  # differences, and their rows


def _mean_difference(series: Sequence[Series], same_rows: bool) -> Interval:
    if same_rows:
        common = reduce(np.intersect1d, (rows for _, rows in series))
        return bootstrap(
            np.mean([values[np.isin(rows, common)] for values, rows in series], axis=0)
        )
    return bootstrap(*(values for values, _ in series))


def _place(done: Done) -> tuple[str, int, int]:
    return done.record.stream, done.record.seed, done.record.chunk


def _differences(mine: Done, theirs: Done) -> Series:
    """Their loss minus mine, on the rows that both have scored."""
    rows, i, j = np.intersect1d(mine.rows, theirs.rows, assume_unique=True, return_indices=True)
    return theirs.losses[j] - mine.losses[i], rows


def _interval(losses: NDArray[np.float64], higher_is_better: bool) -> list[float] | None:
    if len(losses) < ENOUGH_ROWS:
        return None
    value = bootstrap(losses)
    bounds = (1.0 - value.high, 1.0 - value.low) if higher_is_better else (value.low, value.high)
    return [round(bound, 6) for bound in bounds]


def drift_report(outcome: Outcome) -> dict[str, Any] | None:
    """Alarms against the true drifts; ``None`` where the stream has no known ones.

    Where keys drift on their own, each key's alarms are held against that key's drifts, in rows
    of the key, and summed up.
    """
    card, result = outcome.card, outcome.result
    if not card.drifts:
        return None
    if card.key_drifts:
        counts = np.bincount(np.array(result.keys, np.int64), minlength=len(result.key_names))
        asked = dict(zip(result.key_names, counts.tolist(), strict=True))
        reports = [
            _judge(result.key_alarms.get(key, []), card.key_drifts.get(key, ()), n)
            for key, n in asked.items()
        ]
    else:
        reports = [_judge(result.drifts, card.drifts, len(result.keys))]
    delays = [delay for report in reports for delay in report.delays]
    return {
        "found": sum(r.found for r in reports),
        "missed": sum(r.missed for r in reports),
        "false_alarms": sum(r.false_alarms for r in reports),
        "mean_delay": sum(delays) / len(delays) if delays else None,
        "max_delay": MAX_DELAY,
    }


class FoundDrift(NamedTuple):
    """A true drift: the row of the stream at which it begins, what it is, and the row of the first
    alarm that counts as its detection, so many rows (of its key) later; ``None``: missed."""

    row: int
    what: str
    alarm: int | None
    later: int | None

    def cells(self) -> list[str]:
        """As a table shows it."""
        found = "missed" if self.alarm is None else f"{self.alarm:,}"
        return [f"{self.row:,}", self.what, found, "" if self.later is None else f"{self.later:,}"]


def found_drifts(outcome: Outcome) -> list[FoundDrift]:
    """The true drifts of a stream in their order, each with the alarm that found it.

    As ``drift_report``: where keys drift on their own, only an alarm of the same key counts.
    """
    card, result = outcome.card, outcome.result
    keys = np.array(result.keys, np.int64)
    parts = [(np.arange(len(keys)), card.drifts, result.drifts)]
    if card.key_drifts:
        parts = [
            (
                np.flatnonzero(keys == i),
                card.key_drifts.get(key, ()),
                result.key_alarms.get(key, []),
            )
            for i, key in enumerate(result.key_names)
        ]
    found = []
    for rows, drifts, alarms in parts:
        seen = [span for span in drifts if span[0] < len(rows)]
        for i, (start, end) in enumerate(seen):
            before = seen[i + 1][0] if i + 1 < len(seen) else len(rows)
            limit = min(end + MAX_DELAY, before - 1)
            alarm = next((a for a in alarms if start <= a <= limit), None)
            row, until = int(rows[start]), int(rows[min(end, len(rows) - 1)])
            what = card.announcements.get(
                row, f"gradual, until {until:,}" if end > start else "abrupt"
            )
            told = (None, None) if alarm is None else (int(rows[alarm]), alarm - start)
            found.append(FoundDrift(row, what, *told))
    return sorted(found, key=lambda drift: drift.row)


def _judge(alarms: Sequence[int], drifts: Sequence[Span], rows: int) -> Report:
    """Alarms against the drifts within the rows that were asked."""
    seen = [(start, min(end, rows - 1)) for start, end in drifts if start < rows]
    return judge_alarms(alarms, seen, rows, MAX_DELAY)


def loss_series(outcome: Outcome) -> Iterator[tuple[NDArray[np.float64], tuple[Span, ...]]]:
    """Of every key (or of the stream, where there are none): its losses, each in the row of the
    value that it was asked for, nan where no row was scored; and its drifts in those rows."""
    card = outcome.card
    return series_of(outcome.result, card.drifts, card.key_drifts, card.horizon)


def series_of(
    result: Result,
    drifts: Sequence[Span],
    key_drifts: Mapping[str, Sequence[Span]],
    ahead: int = 0,
) -> Iterator[tuple[NDArray[np.float64], tuple[Span, ...]]]:
    """The same for any drifts: those of the stream, or of keys in rows of the key.

    ``ahead``: rows between a question and the value that it asks for.
    """
    rows, losses = np.array(result.rows, np.int64), np.array(result.losses, np.float64)
    if not len(rows):
        return
    if not key_drifts:
        first = int(rows.min()) + ahead
        whole = np.full(int(rows.max()) + ahead + 1, np.nan)
        whole[rows + ahead] = losses
        yield whole[first:], tuple((a - first, b - first) for a, b in drifts)
        return
    keys = np.array(result.keys, np.int64)
    places = np.array(result.key_rows, np.int64)
    for number, key in enumerate(result.key_names):
        mine = np.full(int((keys == number).sum()) + ahead, np.nan)
        scored = keys[rows] == number
        mine[places[rows[scored]] + ahead] = losses[scored]
        yield mine, tuple(key_drifts.get(key, ()))


def _recovery(outcome: Outcome) -> dict[str, Any] | None:
    """The recovery of the losses, over the drifts of all keys."""
    if not outcome.card.drifts:
        return None
    found = [_known(losses, spans) for losses, spans in loss_series(outcome)]
    parts = [part for part in found if part is not None]
    n = sum(p.drifts for p in parts)
    if not n:
        return None
    rows_back = sum(p.drifts * p.rows for p in parts) / n
    area = sum(p.drifts * p.area for p in parts) / n
    return _rounded(Recovery(n, sum(p.recovered for p in parts), rows_back, area))


def _rounded(found: Recovery) -> dict[str, Any]:
    return {name: round(value, 4) for name, value in found._asdict().items()}


def _known(losses: NDArray[np.float64], drifts: Sequence[tuple[int, int]]) -> Recovery | None:
    """``recovery`` where a row without a label counts as the mean of all."""
    gaps = np.isnan(losses)
    if gaps.all():
        return None
    if gaps.any():
        losses = np.where(gaps, np.nanmean(losses), losses)
    return recovery(losses, [(start, end) for start, end in drifts if start > 0])


def _card(card: Card) -> dict[str, Any]:
    """What the tables say of the stream."""
    return {
        "task": card.task,
        "rows": card.rows,
        "drifts": len(card.drifts),
        "keys": len(card.key_drifts),
        "fixed": card.fixed,
        "ceiling": card.ceiling,
        "best": card.best,
        "checksum": card.checksum,
    }
