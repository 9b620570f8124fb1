"""Intervals that hold the asked coverage while the stream changes, around any predictions.

The half width is a product: what the newest |residuals| were like, times a quantile of |residual|
over that, times a correction. Four experts remember |residuals| for 5, 20, 100 and 1,000 rows and
track a quantile each; they are weighed by the pinball loss of what they said, and speak as a
geometric mean. So the width follows the noise, within rows where it jumps, and is steady where it
is. The correction alone promises coverage: it grows a little with every miss and shrinks with every
hit, so that over any n rows the share of misses is off by (its logarithm at the end - at the
beginning) / (``PACE`` n), whatever the predictions and the labels are, while that logarithm stays
within its bounds.

Sources: adaptive conformal inference (Gibbs & Candes 2021, NeurIPS); its quantile tracker, and the
bound above, are the P part of conformal PID control (Angelopoulos, Candes & Tibshirani 2023,
NeurIPS), here on logarithms, which have no unit; experts at several speeds, weighed by pinball
loss with fixed share, as in DtACI (Gibbs & Candes 2024, JMLR 25).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from streammeta.errors import ConfigError

Floats = NDArray[np.float64]

#: How much of a |residual| is left a row later, for each expert.
MEMORIES = (0.8, 0.95, 0.99, 0.999)
#: Steps of the experts' log quantiles and of the log correction, for each miss less its share.
STEP, PACE = 0.01, 0.02
#: Of the experts' log weights, for each unit of pinball loss; what of their weight is shared out.
RATE, SHARE = 0.1, 1e-3
#: No row costs an expert more pinball loss than this, in units of what all of them said.
WORST = 5.0
#: The log correction stays within ``FARTHEST`` of 0, and a residual of exactly 0, which any width
#: covers, does not carry it below -``AT_REST``: it would be long in coming back.
FARTHEST, AT_REST = 3.0, 1.0
#: Numbers in ``tally``: rows learned, those of them with a residual at all, the log correction.
ROWS, TOLD, CORRECTION = range(3)
_TINY, _HIGHEST = 1e-300, 50.0  # what logarithms are taken of, and exponentials


@njit(cache=True, nogil=True, error_model="numpy")
def _half_widths(
    scales: Floats, told: float, quantiles: Floats, log_weights: Floats, out: Floats
) -> float:
    """``out (E,)`` <- the log half width of each expert; the weighted mean of them is returned."""
    top, mass, total = log_weights.max(), 0.0, 0.0
    for e in range(len(MEMORIES)):
        age = 1.0 - MEMORIES[e] ** told
        out[e] = quantiles[e] + np.log(max(scales[e] / age, _TINY))
        weight = np.exp(log_weights[e] - top)
        mass += weight
        total += weight * out[e]
    return total / mass


@njit(cache=True, nogil=True, error_model="numpy")
def _half_width(scales: Floats, quantiles: Floats, log_weights: Floats, tally: Floats) -> float:
    """The half width that all of them stand for; infinite before anything has been learned."""
    if tally[ROWS] == 0.0:
        return np.inf
    if tally[TOLD] == 0.0:
        return 0.0
    said = np.empty(len(MEMORIES))
    mean = _half_widths(scales, tally[TOLD], quantiles, log_weights, said)
    half: float = np.exp(mean + tally[CORRECTION])
    return half


@njit(cache=True, nogil=True, error_model="numpy")
def _judge(
    scales: Floats, told: float, quantiles: Floats, log_weights: Floats, gap: float, rate: float
) -> None:
    """Experts are weighed by what they said of ``gap`` > 0, and their quantiles take a step."""
    said = np.empty(len(MEMORIES))
    mean = _half_widths(scales, told, quantiles, log_weights, said)
    found, top = np.log(gap), -np.inf
    for e in range(len(said)):
        over = np.exp(min(found - mean, _HIGHEST)) - np.exp(min(said[e] - mean, _HIGHEST))
        log_weights[e] -= RATE * min(max((1.0 - rate) * over, -rate * over), WORST)
        quantiles[e] += STEP * ((1.0 if found > said[e] else 0.0) - rate)
        top = max(top, log_weights[e])
    mass = np.exp(log_weights - top).sum()
    for e in range(len(said)):
        weight = np.exp(log_weights[e] - top) / mass
        log_weights[e] = np.log((1.0 - SHARE) * weight + SHARE / len(said))


@njit(cache=True, nogil=True, error_model="numpy")
def _learn(
    scales: Floats, quantiles: Floats, log_weights: Floats, tally: Floats, gap: float,
    missed: bool, rate: float,
) -> None:  # fmt: skip
    """The |residual| of a row was ``gap``; ``rate``: the share of misses that is asked for.

    A residual of exactly 0 says nothing about a scale: only the correction learns from it.
    """
    if tally[TOLD] > 0.0:
        if gap > 0.0:
            _judge(scales, tally[TOLD], quantiles, log_weights, gap, rate)
        moved = tally[CORRECTION] + PACE * ((1.0 if missed else 0.0) - rate)
        least = -FARTHEST if gap > 0.0 else min(tally[CORRECTION], -AT_REST)
        tally[CORRECTION] = min(max(moved, least), FARTHEST)
    tally[ROWS] += 1.0
    if gap > 0.0:
        tally[TOLD] += 1.0
        for e in range(len(MEMORIES)):
            scales[e] = MEMORIES[e] * scales[e] + (1.0 - MEMORIES[e]) * gap


class Intervals:
    """Prediction intervals of a regressor, of the asked coverage through every change.

    ``ask`` before the label, ``learn`` with the interval that was given then; both take constant
    time and memory. Intervals are symmetric about the prediction. They know nothing of a row but
    when it comes: what noise depends on shows in them only as far as it lasts for some rows.
    Where more than three predictions in four are exactly right, more than is asked lies inside.

    Args:
        coverage: share of labels that shall lie inside, above 0 and below 1.

    Raises:
        ConfigError: it is not.

    >>> intervals, inside = Intervals(0.9), 0
    >>> rng = np.random.default_rng(0)
    >>> for row in range(4_000):
    ...     y = rng.normal(0.0, 1.0 if row < 2_000 else 10.0)
    ...     given = intervals.ask(0.0)
    ...     inside += given[0] <= y <= given[1]
    ...     intervals.learn(0.0, given, y)
    >>> round(inside / 4_000, 2)
    0.9
    """

    def __init__(self, coverage: float = 0.9) -> None:
        if not 0.0 < coverage < 1.0:
            raise ConfigError(f"coverage is {coverage!r}; expected above 0 and below 1")
        self.coverage = coverage
        # of Gaussian residuals, in units of their mean size
        first = NormalDist().inv_cdf(0.5 + 0.5 * coverage) * math.sqrt(0.5 * math.pi)
        self._scales = np.zeros(len(MEMORIES))
        self._quantiles = np.full(len(MEMORIES), math.log(first))
        self._log_weights = np.zeros(len(MEMORIES))
        self._tally = np.zeros(3)

    def ask(self, prediction: float) -> tuple[float, float]:
        """(lower, upper) about ``prediction``; changes nothing.

        Before the first label nothing is known: (-inf, inf).
        """
        half = _half_width(self._scales, self._quantiles, self._log_weights, self._tally)
        return prediction - half, prediction + half

    def learn(self, prediction: float, given: tuple[float, float], y: float) -> None:
        """The label of ``prediction`` is ``y``; ``given`` is what ``ask`` said about it then.

        What is not finite is passed over.
        """
        gap = abs(float(y) - prediction)
        if math.isfinite(gap):
            _learn(
                self._scales, self._quantiles, self._log_weights, self._tally, gap,
                not given[0] <= y <= given[1], 1.0 - self.coverage,
            )  # fmt: skip

    def tensors(self) -> dict[str, NDArray[Any]]:
        """All that has been learned, as copies: ``scales``, ``quantiles`` (logarithms) and
        ``log_weights``, each (experts,), and ``tally`` (rows, rows with a residual, correction)."""
        return {
            "scales": self._scales.copy(),
            "quantiles": self._quantiles.copy(),
            "log_weights": self._log_weights.copy(),
            "tally": self._tally.copy(),
        }

    def load(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """What ``tensors`` returned."""
        self._scales = np.array(tensors["scales"])
        self._quantiles = np.array(tensors["quantiles"])
        self._log_weights = np.array(tensors["log_weights"])
        self._tally = np.array(tensors["tally"])
