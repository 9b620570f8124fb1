"""Bayesian online change points: how long ago did the present run of values begin?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from drift.detector import Input, Status, finite

Floats = NDArray[np.float64]
MOST_RUNS = 200  # that are kept: the likeliest
RECENT = 200  # rows: a run that began within them, and within half of the segment, is a change
MIN_ROWS = 30  # of a segment before anything is said
WARN = 3.0  # log odds below the threshold
EVEN = -4.0  # log odds at which there are alarms all the time


class Bocpd:
    """The posterior of the run length, and an alarm when most of it is recent and worse.

    ``hazard`` is the chance of a change in each row. Errors are Bernoulli with a Beta(1/2, 1/2)
    prior; other values are normal, of unknown mean and variance, with a normal-gamma prior as
    strong as one row. ``statistic`` is the log odds of a change within the newest 200 rows; a
    change for the better is no alarm. Some 50 us per row of errors, 100 of
    others: not for fast streams.

    Raises:
        ValueError: hazard outside (0, 1).

    Source: Adams & MacKay, Bayesian online changepoint detection, 2007 (arXiv 0710.3742),
    equations 1 to 5, with the runs pruned to the 200 likeliest.
    """

    __slots__ = (
        "_binary",
        "_count",
        "_mean",
        "_n",
        "_squares",
        "_start",
        "_total",
        "_weight",
        "hazard",
        "statistic",
        "threshold",
    )
    name = "bocpd"
    has_warning = True
    slow = True
    _weight: Floats
    _start: Floats
    _count: Floats
    _mean: Floats
    _squares: Floats

    def __init__(
        self, threshold: float = 3.0, hazard: float = 1e-3, *, binary: bool = True
    ) -> None:
        if not 0.0 < hazard < 1.0:
            raise ValueError(f"bocpd: hazard is {hazard}; expected between 0 and 1")
        self.threshold, self.hazard, self._binary = threshold, hazard, binary
        self.reset()

    @classmethod
    def for_signal(cls, signal: str, seed: int) -> Bocpd:
        """Bernoulli for errors, normal for all else."""
        return cls(binary=signal == "error")

    @property
    def input(self) -> Input:
        """Errors, or any losses."""
        return "error" if self._binary else "real"

    @property
    def level(self) -> float:
        """The threshold above ``EVEN``."""
        return self.threshold - EVEN

    def at(self, level: float) -> Bocpd:
        """A new one with the same settings; ``level`` is the threshold above ``EVEN``."""
        return Bocpd(EVEN + level, self.hazard, binary=self._binary)

    def update(self, value: float) -> Status:
        """Take the value of one row.

        Raises:
            ValueError: it is not finite.
        """
        value = finite(self.name, value)
        grown = self._weight + self._predictive(value) + math.log1p(-self.hazard)
        fresh = np.logaddexp.reduce(grown) + math.log(self.hazard) - math.log1p(-self.hazard)
        self._learn(value)
        self._append(grown, fresh)
        self._n += 1
        self._total += value
        if self._n < MIN_ROWS:
            return Status.STABLE
        self.statistic = self._odds()
        if self.statistic > self.threshold:
            self.reset()
            return Status.DRIFT
        return Status.WARNING if self.statistic > self.threshold - WARN else Status.STABLE

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._n, self._total = 0, 0.0
        self.statistic = -math.inf
        #: of each run: log weight, first row, rows, mean, sum of squares about the mean
        self._weight, self._start = np.zeros(1), np.zeros(1)
        self._count, self._mean, self._squares = np.zeros(1), np.zeros(1), np.zeros(1)

    def _predictive(self, value: float) -> Floats:
        """Log probability of ``value`` under each run."""
        n = self._count
        if self._binary:
            wrong = (n * self._mean + 0.5) / (n + 1.0)
            return np.log(wrong if value > 0.5 else 1.0 - wrong)
        # normal-gamma (mu 1, kappa 1, alpha 1, beta 1/2) after n rows: Student t
        centre = (n * self._mean + 1.0) / (n + 1.0)
        alpha = 1.0 + 0.5 * n
        beta = 0.5 + 0.5 * self._squares + 0.5 * n * (self._mean - 1.0) ** 2 / (n + 1.0)
        scale = beta * (n + 2.0) / (alpha * (n + 1.0))
        gammas = np.array([math.lgamma(a + 0.5) - math.lgamma(a) for a in alpha])
        told: Floats = gammas - 0.5 * np.log(2.0 * math.pi * alpha * scale)
        return told - (alpha + 0.5) * np.log1p((value - centre) ** 2 / (2.0 * alpha * scale))

    def _learn(self, value: float) -> None:
        self._count = self._count + 1.0
        above = value - self._mean
        self._mean = self._mean + above / self._count
        self._squares = self._squares + above * (value - self._mean)

    def _append(self, grown: Floats, fresh: float) -> None:
        """Add the run that begins with the next row; drop the least likely where there are many."""
        parts = (self._start, self._count, self._mean, self._squares)
        news = (self._n + 1.0, 0.0, 0.0, 0.0)
        weight = np.append(grown, fresh)
        keep = np.ones(len(weight), bool)
        if len(weight) > MOST_RUNS:
            keep[np.argmin(weight)] = False
        self._weight = weight[keep] - np.logaddexp.reduce(weight[keep])
        self._start, self._count, self._mean, self._squares = (
            np.append(part, new)[keep] for part, new in zip(parts, news, strict=True)
        )

    def _odds(self) -> float:
        """Log odds of a recent change for the worse: the likeliest of the recent runs has a higher
        mean than the rows before it."""
        recent = self._start > self._n - min(RECENT, self._n / 2)
        likeliest = int(np.where(recent, self._weight, -np.inf).argmax())
        rows, mean = self._count[likeliest], self._mean[likeliest]
        if not recent[likeliest] or mean * self._n <= self._total or rows == 0.0:
            return -math.inf
        chance = np.exp(self._weight)
        late, early = float(chance[recent].sum()), float(chance[~recent].sum())
        return math.log(max(late, 1e-300)) - math.log(max(early, 1e-300))
