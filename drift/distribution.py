"""Has the distribution of features, or of predictions, changed? Needs no label.

Every column's mean and its spread about the usual are taken over blocks of rows, and gamblers bet
on both in both directions (``drift.evidence``). Blocks cost less than rows, and series that follow
themselves up and down a little look wide rather than changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drift.bank import EXPECTED
from drift.compiled import njit
from drift.detector import Status
from drift.evidence import (
    MEAN,
    SHIFTS,
    USUAL,
    VARIANCE,
    N,
    best_since,
    bet,
    learn_usual,
    times_longer,
    usual_deviation,
)
from drift.stored import Stored

Floats = NDArray[np.float64]
BLOCK = 8  # rows
EARLY = 10  # blocks of a segment before mean and deviation of a column are taken for usual
MIN_BLOCKS = 20  # and of their distances from it, before anything is bet on those
CLIP = 4.0  # deviations: a block that is farther away counts as if it were as far
SUSPECT = 3e3  # won by a gambler: blocks are no longer trusted to tell what is usual
_TINY = 1e-12


@njit(cache=True, error_model="numpy")
def _add(x: Floats, sums: Floats, first: int) -> None:
    """``sums (V, 3)``: values that are there, their sum and that of their squares; those of the
    columns from ``first`` on get ``x``."""
    for v in range(len(x)):
        if not np.isnan(x[v]):
            own = sums[first + v]
            own[0] += 1.0
            own[1] += x[v]
            own[2] += x[v] * x[v]


@njit(cache=True, error_model="numpy")
def _close(
    sums: Floats, usual: Floats, won: Floats, climb: Floats, since: Floats,
    votes: Floats, row: int,
) -> float:  # fmt: skip
    """End a block that began at ``row``: bets on ``usual (V, 2, 3, USUAL)``; the mean vote.

    Of each column's mean and spread, what is usual of it, and of how far it lies above and below:
    what is rarely far to one side can be bet on more boldly than what is of both signs.
    """
    total = 0.0
    for v in range(len(sums)):
        n = sums[v, 0]
        if n > 0.0:
            mean = sums[v, 1] / n
            centre = usual[v, 0, 0, MEAN] if usual[v, 0, 0, N] > 0.0 else mean
            square = max(sums[v, 2] / n - 2.0 * mean * centre + centre * centre, 0.0)
            for moment in range(2):
                value = mean if moment == 0 else math.sqrt(square)
                u = usual[v, moment]
                deviation = math.sqrt(u[0, VARIANCE])
                if u[0, N] >= EARLY and deviation > 1e-9 * abs(u[0, MEAN]) + _TINY:
                    far = (value - u[0, MEAN]) / deviation
                    for side in range(2):
                        part = min(max(far if side == 0 else -far, 0.0), CLIP)
                        w, u_side = won[v, moment, side : side + 1], u[1 + side]
                        if u_side[N] >= MIN_BLOCKS:
                            bet(u_side, w, climb[v, moment, side : side + 1],
                                since[v, moment, side : side + 1], part, 0.0, CLIP, row,
                                usual_deviation(u_side), times_longer(u_side))  # fmt: skip
                        if w.max() < SUSPECT:  # else it may be of another world
                            learn_usual(u_side, part)
                    votes[v, moment] = won[v, moment].mean()
                if won[v, moment].max() < SUSPECT:
                    learn_usual(u[0], value)
        total += votes[v, 0] + votes[v, 1]
    sums[:] = 0.0
    return total / (2.0 * len(sums))


class DistributionWatch(Stored):
    """Mean and spread of ``columns`` columns, over blocks of 8 rows.

    Args:
        columns: how many, >= 1.
        expected: rows between two false alarms of all columns together, >= 1.

    Raises:
        ValueError: no column, or ``expected`` < 1.

    >>> watch = DistributionWatch(2)
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(2000, 2)) + [[0.0, 2.0 * (row >= 1500)] for row in range(2000)]
    >>> next(row for row, x in enumerate(rows) if watch.update(row, x) is Status.DRIFT)
    1543
    >>> watch.surest()
    (1, 1496)
    """

    __slots__ = (
        "_climb", "_first", "_rows", "_since", "_sums", "_threshold", "_usual",
        "_votes", "_won",
    )  # fmt: skip
    name = "distribution"

    def __init__(self, columns: int, expected: float = EXPECTED) -> None:
        if columns < 1:
            raise ValueError("expected at least one column")
        if not expected >= 1:
            raise ValueError(f"expected is {expected}; expected at least 1 row")
        self._threshold = expected / BLOCK
        self._sums = np.zeros((columns, 3))
        self._usual = np.zeros((columns, 2, 3, USUAL))
        shape = (columns, 2, 2, len(SHIFTS))
        self._won, self._climb = np.zeros(shape), np.zeros(shape)
        self._since = np.zeros(shape)
        self._votes = np.zeros((columns, 2))
        self._first, self._rows = 0, 0

    @property
    def columns(self) -> int:
        """How many there are."""
        return len(self._votes)

    @property
    def votes(self) -> Floats:
        """``(columns,)``: the evidence of each, of mean and spread together."""
        found: Floats = self._votes.mean(1)
        return found

    def update(self, row: int, *parts: Sequence[float] | Floats) -> Status:
        """Take the columns of one row, in one array or several; ``nan`` where there is nothing.
        Does not reset itself.

        ``DRIFT`` can come at the end of a block only.
        """
        if self._rows == 0:
            self._first = row
        first = 0
        for part in parts:
            _add(np.asarray(part, np.float64), self._sums, first)
            first += len(part)
        self._rows += 1
        if self._rows < BLOCK:
            return Status.STABLE
        self._rows = 0
        mean = _close(
            self._sums, self._usual, self._won, self._climb, self._since, self._votes, self._first
        )
        return Status.DRIFT if mean > self._threshold else Status.STABLE

    def surest(self, of: slice = slice(None)) -> tuple[int, int]:
        """The column with the most evidence ``of`` those, and the first row of the block in which
        its change is likeliest to have begun."""
        columns = np.arange(self.columns)[of]
        column = int(columns[self._votes[columns].max(1).argmax()])
        return column, best_since(self._climb[column], self._since[column])

    def reset(self) -> None:
        """Forget everything, as if just made."""
        for array in (self._sums, self._usual, self._won, self._climb, self._since, self._votes):
            array[...] = 0
        self._rows = 0
