"""How sensitive may a detector be? Said as rows between two false alarms.

Nobody has to know what delta or lambda mean: give the losses of a while in which nothing changed,
and how many rows may lie between two false alarms. Draws from those losses stand for a stream
without a change, so that the shape of their distribution counts; that they may depend on each
other does not. Losses that follow each other up and down raise more alarms.

Detectors that compare a statistic with a threshold are calibrated by the highest values that the
statistic takes (with a hazard of 1 / expected per row, a threshold is not exceeded in T rows with
probability exp(-T / expected)) and then by counting their alarms. ``Evidence`` has its threshold
from those rows themselves. All others are run at looser settings, where alarms are not so rare, and
the logarithm of the rows between two of them is carried on along a straight line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from drift.bank import EXPECTED, Evidence
from drift.detector import Detector, Status
from drift.registry import make_detector
from drift.stacked import count_alarms, highest, stackable

Floats = NDArray[np.float64]
LEAST, MOST = 100, 1_000_000  # of them
FEWEST = 30  # losses to calibrate by
ROWS = 20_000  # of a series of draws, at most
ENOUGH = 40  # times as many rows as are asked for are drawn, in all series
COUNTS, CLOSE = 10, 0.15  # times that alarms are counted, until rows between two are so close
WIDER = 1.5  # times as many rows between alarms tell how steeply they rise with the level
MEASURED = 1_000_000  # rows at each looser level, at most; of a detector that is slow a fiftieth
ALARMS, FEWEST_ALARMS = 60, 20  # at a looser level: so many are enough, with fewer none counts
LOOSEST, STRICTER, LEVELS = 0.02, 1.3, 40  # the first level, the factor to the next, and how many
FARTHEST = 3.0  # times the strictest of them the line is carried on
LINE = 3  # levels, those about the goal or the strictest that count, that the line goes through


@runtime_checkable
class Adjustable(Detector, Protocol):
    """A detector whose sensitivity can be chosen."""

    def at(self, level: float) -> Detector:
        """A new one with the same settings, which raises the fewer alarms the higher ``level``."""


def calibrated(
    detector: str | Detector,
    losses: Sequence[float] | Floats,
    expected: float = EXPECTED,
    signal: str = "error",
    seed: int = 0,
) -> Any:
    """A new detector that raises an alarm every ``expected`` rows on average, while losses are as
    ``losses`` and independent.

    ``detector``: a name, or one whose other settings are kept.

    Raises:
        ValueError: no such detector, less than 30 losses, one that is not finite, ``expected``
            outside 100 to 1,000,000, or a detector that never raises so many alarms, or always
            more.
        TypeError: a detector of one's own without ``at``.

    >>> errors = [0.0] * 90 + [1.0] * 10
    >>> calibrated("cusum", errors, 1_000).threshold < calibrated("cusum", errors).threshold
    True
    """
    sample = np.asarray(losses, np.float64)
    if len(sample) < FEWEST or not np.isfinite(sample).all():
        raise ValueError(f"{len(sample)} losses; expected at least {FEWEST}, all of them finite")
    if not LEAST <= expected <= MOST:
        raise ValueError(f"expected is {expected}; expected {LEAST} to {MOST:,} rows")
    like = make_detector(detector, signal, seed) if isinstance(detector, str) else detector
    if not isinstance(like, Adjustable):
        raise TypeError(f"{like.name!r} cannot be calibrated: it has no at(level)")
    if isinstance(like, Evidence):
        return like.at(math.log(expected))
    if not stackable(like):
        return like.at(_searched(like, sample, expected, seed))
    return like.at(_counted(like, sample, expected, seed))


def _counted(like: Adjustable, sample: Floats, expected: float, seed: int) -> float:
    """The level at which as many alarms are raised as were asked for: Newton's steps, within what
    is known to be too loose and too strict."""
    rows = int(max(ROWS, expected))
    series = max(1, round(ENOUGH * expected / rows))
    level, slope = _exceeded(like, sample, expected, seed)
    loose, strict = 0.0, math.inf
    for number in range(COUNTS):
        alarms = count_alarms(like.at(level), sample, rows, series, seed + number + 1)
        off = math.log(rows * series / max(alarms, 0.5) / expected)
        if abs(off) < CLOSE:
            break
        loose, strict = (level, strict) if off < 0.0 else (loose, level)
        step = level - off / slope
        middle = 0.5 * (loose + min(strict, 2.0 * level))
        level = step if loose < step < min(strict, 2.0 * level) else middle
    return level


def _exceeded(like: Detector, sample: Floats, expected: float, seed: int) -> tuple[float, float]:
    """The level that series of draws exceed every ``expected`` rows, and how the logarithm of the
    rows between two alarms rises with the level there."""
    rows = int(min(ROWS, expected))
    tops = highest(like, sample, rows, max(200, round(ENOUGH * expected / rows)), seed)
    shares = [math.exp(-rows / part) for part in (expected, WIDER * expected)]
    level, higher = (float(v) for v in np.quantile(tops, shares, method="higher"))
    if not 0.0 < level < math.inf:
        raise ValueError(
            f"{like.name} cannot have {expected:,.0f} rows between two alarms on such losses "
            f"(their mean is {sample.mean():.3g})"
        )
    rise = min(max(higher - level, 0.01 * level), level)
    return level, math.log(WIDER) / rise


def _searched(like: Adjustable, sample: Floats, expected: float, seed: int) -> float:
    """The level at which a straight line through looser ones reaches ``expected``."""
    rows = MEASURED // 50 if getattr(like, "slow", False) else MEASURED
    draws = np.random.default_rng(seed).choice(sample, rows).tolist()
    tried: list[tuple[float, float]] = []
    level = LOOSEST
    for _ in range(LEVELS):
        alarms, seen = _alarms(like.at(level), draws)
        if alarms < FEWEST_ALARMS:
            break
        tried.append((level, math.log(seen / alarms)))
        level *= STRICTER
    if len(tried) < 2:
        raise ValueError(
            f"{like.name} raises {alarms} alarms in {seen:,} rows of such losses (their mean is "
            f"{sample.mean():.3g}) at a level of {level:.2g}: too few to calibrate it"
        )
    goal = math.log(expected)
    if tried[0][1] > goal:
        raise ValueError(
            f"{like.name} never raises more than one alarm in {math.exp(tried[0][1]):,.0f} rows of "
            f"such losses (their mean is {sample.mean():.3g})"
        )
    stricter = next((i for i, (_, log) in enumerate(tried) if log >= goal), len(tried))
    first = max(0, min(stricter - 1, len(tried) - LINE))
    levels, logs = np.array(tried[first : first + LINE]).T
    slope, start = np.polyfit(levels, logs, 1)
    found = (goal - start) / slope
    if not 0.0 < found < FARTHEST * levels[-1]:
        raise ValueError(
            f"{like.name} raises one alarm in {math.exp(logs[-1]):,.0f} rows of such losses (their "
            f"mean is {sample.mean():.3g}) at a level of {levels[-1]:.2g}: how many at a higher "
            "one cannot be said"
        )
    return float(found)


def _alarms(detector: Detector, draws: Sequence[float]) -> tuple[int, int]:
    """Alarms, and the rows that they took: all there are, or those until ``ALARMS``."""
    alarms = 0
    for row, value in enumerate(draws, 1):
        if detector.update(value) is Status.DRIFT:
            alarms += 1
            if alarms == ALARMS:
                return alarms, row
    return alarms, len(draws)
