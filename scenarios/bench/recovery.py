"""How long a model needs after a drift, and what the drift costs it.

After Shaker & Hüllermeier 2015 (Recovery analysis for adaptive learning from non-stationary data
streams, doi:10.1016/j.neucom.2014.09.076), from the losses alone. The level that counts as
recovered is the model's own before the drift: a poor model may recover soon, so these figures
stand beside its score, never instead of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scenarios.scenario import Span

BEFORE = 200  # rows before a drift that make the level, fewer where the segment is younger
WINDOW = 50  # rows whose mean must be back at the level
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
