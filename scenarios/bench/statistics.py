"""Intervals, paired differences and ranks: what a difference between two models is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES = 1_000
_SEED = 20_061  # of the resampling: the same losses always give the same interval


class Interval(NamedTuple):
    """A mean with the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """The distance from the mean to the farther bound."""
        return max(self.high - self.mean, self.mean - self.low)


def block_length(rows: int) -> int:
    """Rows in a block of the bootstrap: the square root of all rows, rounded up.

    Longer than the n^(1/3) that is best for weak dependence (Hall, Horowitz & Jing 1995,
    doi:10.1093/biomet/82.3.561), because losses stay high together after a drift.

    >>> block_length(10_000), block_length(3)
    (100, 2)
    """
    return max(1, ceil(sqrt(rows)))


def bootstrap_means(
    values: NDArray[np.float64], resamples: int = RESAMPLES, seed: int = _SEED
) -> NDArray[np.float64]:
    """Means of ``resamples`` moving-block resamples of a series ``(n,)`` (Künsch 1989).

    Blocks of ``block_length(n)`` consecutive values are drawn with replacement, so that the
    dependence between neighbours stays in; the series is closed to a circle, so that its ends
    weigh as much as its middle (Politis & Romano 1992).

    Raises:
        ValueError: ``values`` is empty.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values to resample")
    block = min(block_length(n), n)
    sums = np.concatenate(([0.0], np.cumsum(np.concatenate([values, values[: block - 1]]))))
    blocks = sums[block:] - sums[:-block]
    count = max(1, round(n / block))
    rng = np.random.default_rng([seed, n])
    drawn = np.empty(resamples)
    for i in range(resamples):
        drawn[i] = blocks[rng.integers(0, n, count)].sum() / (count * block)
    return drawn


def bootstrap(*series: NDArray[np.float64]) -> Interval:
    """The mean over series ``(n,)`` of their means and its 95 % interval.

    The interval lies between quantiles of the resamples, which draw blocks within each series and
    on its own: it is for these series, such as the rows of some seeds, not for others like them.

    Raises:
        ValueError: there is no series, or one is empty.

    >>> bootstrap(np.ones(50))
    Interval(mean=1.0, low=1.0, high=1.0)
    >>> bootstrap(np.ones(50), np.full(80, 2.0))
    Interval(mean=1.5, low=1.5, high=1.5)
    """
    if not series:
        raise ValueError("no series to resample")
    tail = 100.0 * (1.0 - CONFIDENCE) / 2.0
    means = [bootstrap_means(values, seed=_SEED + i) for i, values in enumerate(series)]
    low, high = np.percentile(np.mean(means, axis=0), [tail, 100.0 - tail])
    return Interval(mean([float(values.mean()) for values in series]), float(low), float(high))


def student(values: Sequence[float]) -> Interval:
    """The mean of independent runs and its 95 % interval by Student's t (n - 1 degrees).

    Raises:
        ValueError: fewer than two values.

    >>> student([0.9, 0.9, 0.9])
    Interval(mean=0.9, low=0.9, high=0.9)
    """
    from scipy.stats import t

    if len(values) < 2:
        raise ValueError(f"{len(values)} values; expected at least 2")
    centre = mean(values)
    half = float(t.ppf(0.5 + CONFIDENCE / 2.0, len(values) - 1)) * stdev(values) / sqrt(len(values))
    return Interval(centre, centre - half, centre + half)


def mean_ranks(scores: Mapping[str, Sequence[float]], higher_is_better: bool) -> dict[str, float]:
    """The mean rank of each model over streams; 1 is best, ties share the mean of their ranks.

    ``scores[model][i]`` is its score on stream ``i``.

    >>> mean_ranks({"a": [0.9, 0.8], "b": [0.7, 0.8]}, True)
    {'a': 1.25, 'b': 1.75}
    """
    from scipy.stats import rankdata

    table = np.array(list(scores.values()))
    ranks = rankdata(-table if higher_is_better else table, axis=0)
    return dict(zip(scores, ranks.mean(axis=1).tolist(), strict=True))


def critical_difference(models: int, streams: int) -> float:
    """How far two mean ranks must lie apart to differ at 5 % (Nemenyi 1963; Demsar 2006).

    CD = q sqrt(k (k + 1) / (6 N)) for k models on N streams, with q the 95 % quantile of the
    studentised range over k groups divided by the square root of 2.

    >>> round(critical_difference(4, 14), 3)
    1.254
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(CONFIDENCE, models, np.inf)) / sqrt(2.0)
    return q * sqrt(models * (models + 1) / (6.0 * streams))
