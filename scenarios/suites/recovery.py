"""What a drift costs, and what meta-learning saves of it: online, offline, learner by learner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scenarios.bench import Book, Gate, Outcome, Record, Suite, Summary, loss_series
from scenarios.bench.tables import signed
from scenarios.open_stream import unavailable
from scenarios.pretrained import HISTORY_SHARE, PLAN
from streammeta.charts import Line

HORIZON = 200  # rows after a drift that count
LEAST = 40  # rows that a segment has at least
SETTLED = (20, 500)  # rows at the end of a segment, a quarter of it, that say what can be reached
SMOOTH = 10  # rows
LEFT = 0.1  # of the surprise: so much may be left of it when a model counts as recovered
EARLY, LATE = "first quarter", "later half"  # of the drifts, in time

OURS, RANDOM, RESET = "streammeta", "random_challengers", "reset"
TO_RANDOM, TO_RESET = 2.0, 3.0  # how many times the area of ours theirs must be
RELATED = (
    "sine_switch",
    "linear_switch",
    "sine | drift('recurring', every=200)",
    "stagger | drift('recurring', every=200)",
    "sensors",
)
OPEN = ("open:elec2", "open:weather", "open:interchanging_rbf")
LEARNERS = (
    "meta_sgd", "maml", "fomaml", "anil", "reptile", "cavia", "r2d2", "alpaca", "pcoc",
    "in_context",
)  # fmt: skip
#: Streams whose labels a learner is not for: classes, values.
NOT_FOR = {
    "learner@alpaca": ("sine | drift('recurring', every=200)",
                       "stagger | drift('recurring', every=200)"),
    "learner@pcoc": ("sine_switch", "linear_switch", "sensors"),
}  # fmt: skip
ROWS = 20_000
ABOUT = f"""
Area: the loss (errors, or units of the target) summed over the {HORIZON} rows after a drift,
above what the best of the models shown makes in the last quarter of the segments: what the
change cost.
Rows: until the mean loss after a drift, smoothed over {SMOOTH} rows, has lost
{1 - LEFT:.0%} of the surprise at the drift. Both over the {EARLY} of the drifts and over the
{LATE}: meta-parameters that are learned online help the later ones.

`random_challengers` adapts the same challengers and scouts from random weights, drawn anew each
time, `no_challengers` has none, `reset` starts anew at each alarm. `learner@NAME` is the default
with that meta-learner alone, learned online. `streammeta` itself learns online only; `offline` is
the same model, whose learner and partner were meta-trained on another stream of the scenario
({PLAN.iterations:,} outer steps at most) and learn no more of how to adapt; `offline_online` goes
on learning that; `fine_tuned` starts from a network trained on all tasks of that history alike. Of
recorded data the history is the first of {HISTORY_SHARE} parts, and all models are scored after it.
No stream is longer than {ROWS:,} rows. The segments of the first four are 200 rows long: nobody has
settled when the next drift comes.
"""


class Segment(NamedTuple):
    """The losses after one drift, up to ``HORIZON`` rows, and their mean at the segment's end."""

    start: int
    after: NDArray[np.float64]
    settled: float


def segments(outcome: Outcome) -> list[Segment]:
    """Of all keys, in the order of the rows at which they begin."""
    found = [part for losses, spans in loss_series(outcome) for part in _cut(losses, spans)]
    return sorted(found, key=lambda part: part.start)


def _cut(losses: NDArray[np.float64], spans: Sequence[tuple[int, int]]) -> Iterator[Segment]:
    starts = [start for start, _ in spans if 0 <= start < len(losses)]
    for start, end in pairwise([*starts, len(losses)]):
        if end - start < LEAST:
            continue
        last = min(max(SETTLED[0], (end - start) // 4), SETTLED[1])
        after = losses[start : min(end, start + HORIZON)]
        tail = losses[end - last : end]
        if np.isfinite(after).all() and np.isfinite(tail).all():
            yield Segment(start, after, float(tail.mean()))


def extra(outcome: Outcome) -> dict[str, Any]:
    """Over both parts of the drifts: mean loss in each row after a drift, mean number of rows that
    count, and mean loss once settled."""
    found = segments(outcome)
    if not found:
        return {}
    parts = {EARLY: found[: max(1, len(found) // 4)], LATE: found[len(found) // 2 :]}
    return {name: _described(part) for name, part in parts.items()}


def _described(part: Sequence[Segment]) -> dict[str, Any]:
    curve = np.full((len(part), HORIZON), np.nan)
    for row, segment in zip(curve, part, strict=True):
        row[: len(segment.after)] = segment.after
    counts = np.isfinite(curve).sum(0)
    sums = np.nansum(curve, 0)
    reached = counts > 0
    return {
        "drifts": len(part),
        "total": float(sums.sum() / len(part)),
        "rows": float(counts.sum() / len(part)),
        "settled": float(np.mean([segment.settled for segment in part])),
        "curve": [round(float(value), 5) for value in sums[reached] / counts[reached]],
    }


class Cost(NamedTuple):
    """What a drift costs a model in one part of a run: area, and rows until it has recovered."""

    area: float
    rows: float


def costs(book: Book, stream: str, part: str) -> dict[str, list[Cost]]:
    """Of every model, seed by seed; the level is the lowest that any model of the seed settles at,
    the surprise the highest that any has in the first rows."""
    found: dict[str, list[Cost]] = {}
    for seed in dict.fromkeys(run.seed for run in book.of(stream=stream)):
        runs = [r for r in book.of(stream=stream) if r.seed == seed and part in r.extra]
        if not runs:
            continue
        told = {run.model: run.extra[part] for run in runs}
        level = min(one["settled"] for one in told.values())
        height = max(float(np.mean(one["curve"][:3])) for one in told.values())
        for model, one in told.items():
            area = one["total"] - level * one["rows"]
            rows = recovered(one["curve"], level + LEFT * (height - level))
            found.setdefault(model, []).append(Cost(area, rows))
    return found


def recovered(curve: Sequence[float], enough: float) -> float:
    """The first row from which the mean of ``SMOOTH`` losses is at most ``enough``, or all rows.

    >>> recovered([1.0] * 30 + [0.0] * 30, 0.05)
    30.0
    """
    smooth = np.convolve(curve, np.full(SMOOTH, 1.0 / SMOOTH), "valid")
    low = np.flatnonzero(smooth <= enough)
    return float(low[0]) if len(low) else float(len(curve))


def summarise(book: Book) -> list[Summary]:
    """A table for each stream with drifts, and one of scores for those without."""
    drifting = [stream for stream in book.streams if costs(book, stream, LATE)]
    rest = [stream for stream in book.streams if stream not in drifting]
    tables = [_recoveries(book, stream) for stream in drifting]
    return [*tables, *([_scores(book, rest)] if rest else [])]


def _recoveries(book: Book, stream: str) -> Summary:
    early, late = costs(book, stream, EARLY), costs(book, stream, LATE)
    ours = _area(late.get(OURS, []))
    rows, lines = [], []
    for model, found in late.items():
        runs = book.of(stream=stream, model=model)
        first, last = _area(early[model]), _area(found)
        rows.append([
            model, f"{book.mean(model, stream):.4f}", f"{last:.2f}", _times(last, ours),
            f"{first:.2f}", _times(first, last),
            f"{_rows(early[model]):.0f}", f"{_rows(found):.0f}",
        ])  # fmt: skip
        if model in (OURS, RANDOM, RESET, "no_challengers", "offline_online"):
            lines.append(Line(model, *_curve(runs)))
    head = [
        "model", runs[0].main, f"area, {LATE}", "to ours", f"area, {EARLY}", "fell by",
        f"rows, {EARLY}", f"rows, {LATE}",
    ]  # fmt: skip
    seeds, drifts = len({run.seed for run in runs}), runs[0].extra[LATE]["drifts"]
    title = f"{stream}: what a drift costs, {LATE}: {drifts} drifts, seeds: {seeds}"
    return Summary(
        title, head, rows, "", lines,
        x_label=f"row after a drift, {LATE}, smoothed over {SMOOTH}", y_label="mean loss",
    )  # fmt: skip


def _scores(book: Book, streams: Sequence[str]) -> Summary:
    rows = []
    for stream in streams:
        for model in book.models:
            pair = book.pair(model, stream)
            if pair is not None:
                bounds = f"[{signed(pair.low)}, {signed(pair.high)}]"
                mean = f"{book.mean(model, stream):.4f}"
                rows.append([stream, model, mean, signed(pair.difference), bounds])
    head = ["stream", "model", "score", f"{OURS} better by", "95 % interval"]
    title = "streams whose drifts nobody knows: the whole score"
    return Summary(title, head, rows)


def gates(book: Book) -> list[Gate]:
    """Both ratios of areas on every stream of related tasks."""
    found = []
    for stream in RELATED:
        late = costs(book, stream, LATE) if stream in book.streams else {}
        for model, bar in ((RANDOM, TO_RANDOM), (RESET, TO_RESET)) if late else ():
            ratio = _ratio(_area(late.get(model, [])), _area(late.get(OURS, [])))
            text = f"{stream}: {model} / ours = {ratio:.2f} in area, at least {bar:g}"
            found.append(Gate(text, ratio >= bar))
    return found


def leaves_out(stream: str, model: str) -> bool:
    """On recorded data only what the default is compared with, and what a history is worth; a
    learner for values is left out on classes, and the other way round."""
    recorded = stream in OPEN and model.startswith("learner@")
    return recorded or stream in NOT_FOR.get(model, ())


def _ratio(above: float, below: float) -> float:
    """nan where there is nothing to compare with: what costs nothing is no unit."""
    return above / below if below > 0.0 else float("nan")


def _times(above: float, below: float) -> str:
    ratio = _ratio(above, below)
    return f"{ratio:.2f}x" if ratio == ratio else "-"


def _area(found: Sequence[Cost]) -> float:
    return float(np.mean([cost.area for cost in found])) if found else float("nan")


def _rows(found: Sequence[Cost]) -> float:
    return float(np.mean([cost.rows for cost in found]))


def _curve(runs: Sequence[Record]) -> tuple[Sequence[float], Sequence[float]]:
    curves = [run.extra[LATE]["curve"] for run in runs]
    length = min(map(len, curves))
    mean = np.mean([curve[:length] for curve in curves], 0)
    smooth = np.convolve(mean, np.full(SMOOTH, 1.0 / SMOOTH), "valid")
    return list(range(len(smooth))), smooth.tolist()


SUITE = Suite(
    name="recovery",
    summary="what meta-learning buys after a drift, online and offline",
    minutes=105,
    streams=(*RELATED, *OPEN),
    models=(
        OURS,
        RANDOM,
        "no_challengers",
        RESET,
        *(f"learner@{name}" for name in LEARNERS),
        "offline",
        "offline_online",
        "fine_tuned",
    ),
    seeds=(0, 1, 2),
    rows=ROWS,
    quick_rows=4_000,
    protocol="pretrained",
    summarise=summarise,
    gates=gates,
    extra=extra,
    unavailable=unavailable,
    about=ABOUT,
    leaves_out=leaves_out,
)
