"""Evidence that a mean has changed, as what a gambler would have won who bets on it.

A bet e is a number >= 0 with mean 1 at most while nothing changes; R <- (R + 1) e starts a gambler
at every row and lets all of them go on. Whatever the distribution, R then exceeds a threshold A
at most once in A rows on average, and so does the mean of several R, however they depend on each
other: thresholds need no simulation.

Source: Shin, Ramdas & Rinaldo, E-detectors: a nonparametric framework for sequential change
detection, New England Journal of Statistics in Data Science 2024 (arXiv 2203.03532), with the bets
e = 1 + lambda (v - mean) of bounded means and R of Shiryaev and Roberts. Our own: mean and
deviation are those of the segment so far, and where values follow each other up and down, the
logarithm of a bet is divided by how much longer such a series has to be to say as much as
independent values.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit

Floats = NDArray[np.float64]
#: A shift of the mean, in deviations, that each gambler bets on.
SHIFTS = np.array([0.25, 0.5, 1.0, 2.0])
MIN_ROWS = 30  # of a segment before its mean and deviation are trusted
MEMORY = 2_000  # rows: from then on a row weighs no less than it does here
SPREAD = 1.0  # the distance of a value from the mean that counts as seen
STAKE = 0.9  # of what a bet can lose at most
LONGEST = 0.9  # the autocorrelation that is made up for, at most
TAMED = 2.0  # deviations: what goes farther says as much about autocorrelation and no more
#: Columns of what has been usual: values, mean, variance; the last distance in deviations, tamed,
#: the mean product of neighbours and the mean square of these.
N, MEAN, VARIANCE, LAST, PRODUCT, SQUARE = range(6)
USUAL = 6
RICHEST = 1e100  # a gambler can get: no evidence is infinite
UP, DOWN = 0, 1


@njit(cache=True, error_model="numpy")
def learn_usual(u: Floats, value: float) -> None:
    """Count ``value`` in ``u (USUAL,)``; the n-th row of a segment weighs n: a learner's first rows
    are its worst, and not what is usual."""
    above = value - u[MEAN]
    tamed = min(max(above / usual_deviation(u), -TAMED), TAMED)
    u[N] += 1.0
    gain = 2.0 / (min(u[N], MEMORY) + 1.0)
    u[MEAN] += gain * above
    u[VARIANCE] = (1.0 - gain) * (u[VARIANCE] + gain * above * above)
    u[PRODUCT] += gain * (tamed * u[LAST] - u[PRODUCT])
    u[SQUARE] += gain * (tamed * tamed - u[SQUARE])
    u[LAST] = tamed


@njit(cache=True, error_model="numpy")
def usual_deviation(u: Floats) -> float:
    """The standard deviation, never 0: a value counts as seen so far from the mean."""
    return math.sqrt(u[VARIANCE] + SPREAD * SPREAD / (min(u[N], MEMORY) + 1.0))


@njit(cache=True, error_model="numpy")
def times_longer(u: Floats) -> float:
    """How many times longer the series has to be to say as much as independent values: that of an
    AR(1) of its autocorrelation, which has to be twice its standard error to be believed."""
    n = min(u[N], MEMORY)
    r = u[PRODUCT] / (u[SQUARE] + 1.0 / n) - 2.0 / math.sqrt(0.75 * n)  # as many rows weigh alike
    r = min(r, LONGEST)
    return (1.0 + r) / (1.0 - r) if r > 0.0 else 1.0


@njit(cache=True, error_model="numpy")
def bet(
    u: Floats, won: Floats, climb: Floats, since: Floats, value: float, least: float,
    most: float, row: int, deviation: float, longer: float,
) -> None:  # fmt: skip
    """Every gambler bets on ``value`` in [``least``, ``most``]: ``won (S, J)`` <- R.

    ``climb (S, J)`` <- the log likelihood ratio of normal values that have shifted since the
    likeliest row, 0 at least (Page 1954), ``since`` <- that row. ``S`` sides: up, and down where
    there are two.
    """
    for side in range(won.shape[0]):
        gap = value - u[MEAN] if side == UP else u[MEAN] - value
        room = u[MEAN] - least if side == UP else most - u[MEAN]
        for j in range(len(SHIFTS)):
            e = 1.0 + min(SHIFTS[j] / deviation, STAKE / max(room, 1e-9)) * gap
            if longer != 1.0:
                e = math.exp(math.log(e) / longer)
            won[side, j] = min((won[side, j] + 1.0) * e, RICHEST)
            if climb[side, j] <= 0.0:
                climb[side, j], since[side, j] = 0.0, row
            climb[side, j] += SHIFTS[j] * (gap / deviation - 0.5 * SHIFTS[j])


def best_since(climb: Floats, since: Floats) -> int:
    """The row and the shift that are likeliest: the row."""
    return int(since.flat[climb.argmax()])
