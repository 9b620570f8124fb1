"""How long a model needs after a drift, and what the drift costs it.

After Shaker & Hüllermeier 2015 (Recovery analysis for adaptive learning from non-stationary data
streams, doi:10.1016/j.neucom.2014.09.076), from the losses alone. The level that counts as
recovered is the model's own before the drift: a poor model may recover soon, so these figures
stand beside its score, never instead of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scenarios.scenario import Span

BEFORE = 200  # rows before a drift that make the level, fewer where the segment is younger
WINDOW = 50  # rows whose mean must be back at the level
LEAST = 20  # rows that a segment must have on both sides to be judged


class Recovery(NamedTuple):
    """Over the drifts of a run: ``drifts`` judged, ``recovered`` of them.

    ``rows``: mean rows from a drift until the model has recovered; one that has not counts with
    the whole segment. ``area``: mean sum, over the segment, of the loss above the level before
    the drift: errors (classification) or units of the target that the drift cost.
    """

    drifts: int
    recovered: int
    rows: float
    area: float


def recovery(losses: NDArray[np.float64], drifts: Sequence[Span]) -> Recovery | None:
    """The recovery of a series of losses, in row order; ``None`` where no drift can be judged.

    Recovered is the first row at which the mean of the last ``WINDOW`` losses, all of them after
    the drift's start, is at most the mean before plus one standard error of a mean of so many.

    >>> calm, rough = np.full(300, 0.0), np.full(100, 1.0)
    >>> recovery(np.concatenate([calm, rough, calm]), [(300, 300)])
    Recovery(drifts=1, recovered=1, rows=150.0, area=100.0)
    """
    starts = [0, *sorted({start for start, _ in drifts if start < len(losses)}), len(losses)]
    judged = []
    for before, (start, end) in zip(starts, pairwise(starts[1:]), strict=False):
        if min(start - before, end - start) >= LEAST:
            judged.append(_after(losses[max(before, start - BEFORE) : start], losses[start:end]))
    return average(judged)


def average(judged: Sequence[tuple[bool, float, float]]) -> Recovery | None:
    """The mean over drifts of (recovered, rows, area)."""
    if not judged:
        return None
    done, rows, area = zip(*judged, strict=True)
    return Recovery(len(judged), sum(done), float(np.mean(rows)), float(np.mean(area)))


def _after(before: NDArray[np.float64], after: NDArray[np.float64]) -> tuple[bool, float, float]:
    """Whether and when ``after`` is back at the level of ``before``, and the area above it."""
    level = float(before.mean())
    window = min(WINDOW, len(after))
    sums = np.concatenate(([0.0], np.cumsum(after)))
    rolling = (sums[window:] - sums[:-window]) / window
    back = np.flatnonzero(rolling <= level + float(before.std()) / sqrt(window) + 1e-12)
    rows = float(back[0] + window) if len(back) else float(len(after))
    return bool(len(back)), rows, float((after - level).sum())
