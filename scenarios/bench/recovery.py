"""How long a model needs after a drift, and what the drift costs it.

After Shaker & Hüllermeier 2015 (Recovery analysis for adaptive learning from non-stationary data
streams, doi:10.1016/j.neucom.2014.09.076), from the losses alone. The level that counts as
recovered is the model's own before the drift: a poor model may recover soon, so these figures
stand beside its score, never instead of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scenarios.scenario import Span

BEFORE = 200  # rows before a drift that make the level, fewer where the segment is younger
WINDOW = 50  # rows whose mean must be back at the level
AROUND = (100, 400)  # rows before and after a drift that a curve shows
BINS = 80  # points of a curve at most
VALUES = 40  # losses behind each of its points at least
ENOUGH = 3  # drifts from which on there is an interval
LEAST = 20  # rows that a segment must have before a drift, and after its end, to be judged


class Recovery(NamedTuple):
    """Over the drifts of a run: ``drifts`` judged, ``recovered`` of them.

    ``rows``: mean rows from a drift's start until the model has recovered; one that has not counts
    with the whole segment. ``area``: mean sum, over the segment, of the loss above the level
    before the drift: errors (classification) or units of the target that the drift cost.
    """

    drifts: int
    recovered: int
    rows: float
    area: float


def recovery(losses: NDArray[np.float64], drifts: Sequence[Span]) -> Recovery | None:
    """The recovery of a series of losses, in row order; ``None`` where no drift can be judged.

    Recovered is the first row, not before the drift's end, from which on the loss is back: the
    mean of the next ``WINDOW`` losses and the mean of all that are left of the segment both lie
    at the mean before the drift or at most one standard error above it. Left must be as many rows
    as made the level, or half of those after the drift's end: the second condition keeps a lucky
    stretch from passing for a recovery.

    >>> calm, rough = np.full(300, 0.0), np.full(100, 1.0)
    >>> recovery(np.concatenate([calm, rough, calm]), [(300, 300)])
    Recovery(drifts=1, recovered=1, rows=100.0, area=100.0)
    """
    spans = sorted(span for span in drifts if span[0] < len(losses))
    starts = [0, *(start for start, _ in spans), len(losses)]
    judged = []
    for i, (start, end) in enumerate(spans):
        before, after = starts[i], starts[i + 2]
        if min(start - before, after - end) >= LEAST:
            level = losses[max(before, start - BEFORE) : start]
            judged.append(_after(level, losses[start:after], end - start))
    return average(judged)


def average(judged: Sequence[tuple[bool, float, float]]) -> Recovery | None:
    """The mean over drifts of (recovered, rows, area)."""
    if not judged:
        return None
    done, rows, area = zip(*judged, strict=True)
    return Recovery(len(judged), sum(done), float(np.mean(rows)), float(np.mean(area)))


def _after(
    before: NDArray[np.float64], after: NDArray[np.float64], width: int
) -> tuple[bool, float, float]:
    """Whether and from when on ``after`` is back at the level of ``before``, and the area."""
    level, deviation = float(before.mean()), float(before.std())
    n = len(after)
    sums = np.concatenate(([0.0], np.cumsum(after)))
    left = min(len(before), (n - width + 1) // 2)
    froms = np.arange(width, n - left + 1)
    ends = np.minimum(froms + WINDOW, n)
    window = (sums[ends] - sums[froms]) / (ends - froms)
    rest = (sums[n] - sums[froms]) / (n - froms)
    back = (window <= level + deviation / np.sqrt(ends - froms) + _TINY) & (
        rest <= level + deviation / np.sqrt(len(before)) + _TINY
    )
    found = np.flatnonzero(back)
    rows = float(froms[found[0]]) if len(found) else float(n)
    return bool(len(found)), rows, float((after - level).sum())


_TINY = 1e-9  # sums of floats


class Aligned(NamedTuple):
    """Losses around drifts: ``rows`` of the middle of each bin, counted from the drift's start;
    ``mean`` over the drifts with ``low`` and ``high``, its 95 % interval (normal approximation),
    all of shape (bins,). With fewer than three drifts there is no interval: both are the mean.
    """

    drifts: int
    rows: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def aligned(
    series: Sequence[tuple[NDArray[np.float64], Sequence[Span]]],
    before: int = AROUND[0],
    after: int = AROUND[1],
    bins: int = BINS,
) -> Aligned | None:
    """The losses of all series from ``before`` rows before every drift to ``after`` rows behind it.

    A drift's rows end where the segment ends, on both sides: at the neighbours. Where half of the
    segments are shorter than that, the curve ends at their median. ``None`` where there is no
    drift with ``LEAST`` rows on both sides.

    >>> losses = np.repeat([0.0, 1.0, 0.0], [100, 40, 160])
    >>> found = aligned([(losses, [(100, 100)])], before=80, after=120, bins=5)
    >>> found.rows, found.mean
    (array([-60., -20.,  20.,  60., 100.]), array([0., 0., 1., 0., 0.]))
    """
    pieces = [
        (losses, start, last, end)
        for losses, spans in series
        for last, start, end in _segments(len(losses), spans)
    ]
    if not pieces:
        return None
    after = min(after, int(np.median([end - start for _, start, _, end in pieces])))
    before = min(before, int(np.median([start - last for _, start, last, _ in pieces])))
    width = max(1, -(-(before + after) // bins), -(-VALUES // len(pieces)))
    left, right = before // width, after // width
    found = np.full((len(pieces), left + right), np.nan)
    for i, (losses, start, last, end) in enumerate(pieces):
        cut = np.full((left + right) * width, np.nan)
        begin = start - left * width
        low, high = max(begin, last), min(start + right * width, end)
        cut[low - begin : high - begin] = losses[low:high]
        boxes = cut.reshape(left + right, width)
        seen = np.isfinite(boxes).sum(1)
        np.divide(np.nansum(boxes, 1), seen, out=found[i], where=seen > 0)
    seen = np.isfinite(found).sum(0)
    kept = seen > 0
    found, seen = found[:, kept], seen[kept]
    mean = np.nansum(found, 0) / seen
    wide = np.nansum((found - mean) ** 2, 0) / np.maximum(seen - 1, 1)
    side = np.where(seen >= ENOUGH, 1.96 * np.sqrt(wide / seen), 0.0)
    rows = ((np.arange(left + right) - left + 0.5) * width)[kept]
    return Aligned(len(pieces), rows, mean, mean - side, mean + side)


def _segments(n: int, spans: Sequence[Span]) -> Iterator[tuple[int, int, int]]:
    """Of every drift that can be judged: the drift before it, its start, and the one behind it."""
    starts = sorted({start for start, _ in spans if 0 < start < n})
    edges = [0, *starts, n]
    for last, start, end in zip(edges, starts, edges[2:], strict=False):
        if min(start - last, end - start) >= LEAST:
            yield last, start, end
