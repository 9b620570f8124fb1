"""Detectors over many keys at once: a row of state for each key, one compiled loop over them.

The same alarms at the same rows as one detector per key: ``PageHinkley``, ``Ddm`` and ``HddmA``
as River computes them, ``Cusum``, ``Ewma``, ``Shewhart`` and ``Sprt`` as ``drift.charts`` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift.charts import MEMORY, MIN_ROWS, Chart, Cusum, Ewma, Shewhart, Sprt
from drift.compiled import njit
from drift.detector import Detector, Status
from drift.river_detectors import Ddm, HddmA, PageHinkley

Floats = NDArray[np.float64]
_STABLE, _WARNING, _DRIFT = int(Status.STABLE), int(Status.WARNING), int(Status.DRIFT)
_PAGE_HINKLEY, _DDM, _HDDM_A, _CUSUM, _EWMA, _SHEWHART, _SPRT = range(7)
_FIRST_CHART = _CUSUM
# Columns of a state. The statistic is what calibration looks at; a detector's own come after it.
_N, _MEAN, _STATISTIC, _A, _B, _C = range(6)
WIDTH = 6
# Columns of the parameters: alarm, warning, and a detector's own.
_ALARM, _WARN, _P, _Q = range(4)


@njit(cache=True, error_model="numpy")
def _page_hinkley(s: Floats, p: Floats, value: float) -> int:
    """River's, upwards only: ``p`` is (threshold, -, delta, rows at least, alpha)."""
    s[_N] += 1.0
    s[_MEAN] += (1.0 / s[_N]) * (value - s[_MEAN])
    s[_A] = p[_Q + 1] * s[_A] + (value - s[_MEAN]) - p[_P]
    s[_B] = min(s[_B], s[_A])
    s[_STATISTIC] = s[_A] - s[_B] if s[_N] >= p[_Q] else 0.0
    return _DRIFT if s[_STATISTIC] > p[_ALARM] else _STABLE


@njit(cache=True, error_model="numpy")
def _ddm(s: Floats, p: Floats, value: float) -> int:
    """River's: ``p`` is (threshold, of warnings, rows at least); ``s`` has p and s at their least,
    and the sum of both."""
    s[_N] += 1.0
    s[_MEAN] += (1.0 / s[_N]) * (value - s[_MEAN])
    if s[_N] <= p[_P]:
        return _STABLE
    rate = s[_MEAN]
    deviation = math.sqrt(rate * (1.0 - rate) / s[_N])
    if rate + deviation <= s[_C]:
        s[_A], s[_B], s[_C] = rate, deviation, rate + deviation
    over = rate + deviation - s[_A]
    s[_STATISTIC] = over / s[_B] if s[_B] > 0.0 else (math.inf if over > 0.0 else 0.0)
    if rate + deviation > s[_A] + p[_ALARM] * s[_B]:
        return _DRIFT
    return _WARNING if rate + deviation > s[_A] + p[_WARN] * s[_B] else _STABLE


@njit(cache=True, error_model="numpy")
def _hddm_a(s: Floats, p: Floats, value: float) -> int:
    """River's: ``p`` is log(2 / confidence) of alarm and warning, and log(1 / confidence) of the
    cut; ``s`` has rows and mean at the cut."""
    s[_N] += 1.0
    s[_MEAN] += (1.0 / s[_N]) * (value - s[_MEAN])
    if s[_A] == 0.0:
        s[_A], s[_B] = s[_N], s[_MEAN]
    now = math.sqrt(1.0 / (2.0 * s[_N]) * p[_P])
    then = math.sqrt(1.0 / (2.0 * s[_A]) * p[_P])
    if s[_B] + then >= s[_MEAN] + now:
        s[_A], s[_B] = s[_N], s[_MEAN]
    s[_STATISTIC] = 0.0
    if s[_A] == s[_N]:
        return _STABLE
    m = (s[_N] - s[_A]) / s[_A] * (1.0 / s[_N])
    rise = s[_MEAN] - s[_B]
    if rise > 0.0:
        s[_STATISTIC] = 2.0 * rise * rise / m
    if rise >= math.sqrt(m / 2.0 * p[_ALARM]):
        return _DRIFT
    return _WARNING if rise >= math.sqrt(m / 2.0 * p[_WARN]) else _STABLE


@njit(cache=True, error_model="numpy")
def _chart(kind: int, s: Floats, p: Floats, value: float) -> int:
    """``drift.charts``: ``p`` is (threshold, warning, a parameter, another, spread squared); ``s``
    has the sum of squares last."""
    n, mean = s[_N], s[_MEAN]
    if n >= MIN_ROWS:
        deviation = math.sqrt((s[_C] + p[_Q + 1]) / (n + 1))
        if kind == _CUSUM:
            s[_STATISTIC] = max(0.0, s[_STATISTIC] + (value - mean) / deviation - p[_P])
        elif kind == _EWMA:
            if s[_B] == 1.0:
                s[_A] = mean
            s[_A] += p[_P] * (value - s[_A])
            s[_B] *= (1.0 - p[_P]) * (1.0 - p[_P])
            share = p[_P] / (2.0 - p[_P]) * (1.0 - s[_B])
            s[_STATISTIC] = (s[_A] - mean) / (deviation * math.sqrt(share))
        elif kind == _SHEWHART:
            s[_A] += value - mean
            s[_B] += 1.0
            if s[_B] == p[_P]:
                s[_STATISTIC] = s[_A] / (deviation * math.sqrt(p[_P]))
                s[_A], s[_B] = 0.0, 0.0
        else:
            found = s[_STATISTIC] + p[_P] * ((value - mean) / deviation - 0.5 * p[_P])
            s[_STATISTIC] = 0.0 if found < p[_Q] else found
        if s[_STATISTIC] > p[_ALARM]:
            return _DRIFT
    above = value - mean
    if n < MEMORY:
        s[_N] = n + 1.0
        s[_MEAN] = mean + above / (n + 1.0)
        s[_C] += above * (value - s[_MEAN])
    else:
        s[_MEAN] = mean + above / n
        s[_C] += above * (value - s[_MEAN]) - s[_C] / n
    return _WARNING if s[_STATISTIC] > p[_WARN] else _STABLE


@njit(cache=True, error_model="numpy")
def _advance(kind: int, s: Floats, p: Floats, value: float) -> int:
    if kind >= _FIRST_CHART:
        return _chart(kind, s, p, value)
    if kind == _PAGE_HINKLEY:
        return _page_hinkley(s, p, value)
    if kind == _DDM:
        return _ddm(s, p, value)
    return _hddm_a(s, p, value)


@njit(cache=True, error_model="numpy")
def _update(
    kind: int, state: Floats, p: Floats, new: Floats, keys: NDArray[np.int64], values: Floats,
    out: NDArray[np.int8],
) -> None:  # fmt: skip
    for i in range(len(values)):
        s = state[keys[i]]
        out[i] = _advance(kind, s, p, values[i])
        if out[i] == _DRIFT:
            s[:] = new


@njit(cache=True, error_model="numpy")
def drawn(random: int, n: int) -> int:
    """A place in [0, n) by splitmix64 (Steele, Lea, Flood 2014) at ``random``: no generator of
    anybody else is touched."""
    z = np.uint64(random) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = (z ^ (z >> np.uint64(31))) >> np.uint64(11)
    return int(np.float64(z) * 2.0**-53 * n)


@njit(cache=True, error_model="numpy")
def _highest(
    kind: int, p: Floats, new: Floats, sample: Floats, rows: int, seed: int, out: Floats
) -> None:
    s = new.copy()
    random = seed
    for k in range(len(out)):
        s[:] = new
        for _ in range(rows):
            random += 1
            _advance(kind, s, p, sample[drawn(random, len(sample))])
            if s[_STATISTIC] > out[k]:
                out[k] = s[_STATISTIC]


@njit(cache=True, error_model="numpy")
def _alarms(
    kind: int, p: Floats, new: Floats, sample: Floats, rows: int, series: int, seed: int
) -> int:
    s = new.copy()
    random, alarms = seed, 0
    for _ in range(series):
        s[:] = new
        for _ in range(rows):
            random += 1
            if _advance(kind, s, p, sample[drawn(random, len(sample))]) == _DRIFT:
                alarms += 1
                s[:] = new
    return alarms


class StackedDetectors:
    """One detector for each of ``keys`` keys, all like ``like``.

    Args:
        like: a ``PageHinkley``, ``Ddm``, ``HddmA``, ``Cusum``, ``Ewma``, ``Shewhart`` or
            ``Sprt``, whose settings are taken; it is not changed.
        keys: how many, >= 1.

    Raises:
        ValueError: ``keys`` < 1.
        TypeError: there is no stacked form of ``like``.

    >>> stacked = StackedDetectors(Ddm(), keys=2)
    >>> for row in range(200):
    ...     found = stacked.update([float(row % 10 == 0), float(row % 10 == 0 or row > 150)])
    ...     if Status.DRIFT in found:
    ...         print(row, found.tolist())
    157 [0, 2]
    """

    def __init__(self, like: Detector, keys: int) -> None:
        if keys < 1:
            raise ValueError(f"keys is {keys}; expected at least 1")
        self.name, self.input = like.name, like.input
        self._kind, self._params, self._new = _laid_out(like)
        self._state = np.tile(self._new, (keys, 1))
        self._all = np.arange(keys)

    def update(self, values: Any, keys: NDArray[np.int64] | None = None) -> NDArray[np.int8]:
        """The statuses ``(n,)`` after losses ``values (n,)`` of ``keys (n,)``, in their order (all
        keys where they are not told); after ``DRIFT`` a key's detector has started over.

        Raises:
            ValueError: there is not one value for each key, or one that is not finite.
            IndexError: a key is outside [0, keys).
        """
        values = np.asarray(values, np.float64)
        keys = self._all if keys is None else self._checked(keys)
        if values.shape != keys.shape:
            raise ValueError(f"values have shape {values.shape} and keys {keys.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{self.name}: a loss is not finite")
        out = np.empty(len(values), np.int8)
        _update(self._kind, self._state, self._params, self._new, keys, values, out)
        return out

    def reset(self, keys: NDArray[np.int64] | None = None) -> None:
        """Forget everything about ``keys``, or about all.

        Raises:
            IndexError: a key is outside [0, keys).
        """
        self._state[self._all if keys is None else self._checked(keys)] = self._new

    def _checked(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        keys, last = np.asarray(keys, np.int64), len(self._all) - 1
        if len(keys) and (keys.min() < 0 or keys.max() > last):
            raise IndexError(f"keys {keys.min()} to {keys.max()}; expected 0 to {last}")
        return keys


def highest(like: Detector, sample: Any, rows: int, series: int, seed: int = 0) -> Floats:
    """The highest that the statistic of ``like`` gets in each of ``series`` series of ``rows``
    independent draws from ``sample (n,)``, whatever its threshold: an alarm is where it exceeds
    that.

    The statistics: of charts, their own; of Page-Hinkley the sum above its least; of DDM the rise
    in deviations; of HDDM_A log(2 / confidence), with the cut of ``like``'s confidence.

    Raises:
        TypeError: there is no stacked form of ``like``.
    """
    kind, params, new = _laid_out(like)
    params[_ALARM] = params[_WARN] = math.inf
    out = np.zeros(series)
    _highest(kind, params, new, np.asarray(sample, np.float64), rows, start_of(seed), out)
    return out


def count_alarms(like: Detector, sample: Any, rows: int, series: int, seed: int = 0) -> int:
    """How many alarms detectors like ``like`` raise in ``series`` series of ``rows`` independent
    draws from ``sample (n,)``, starting over after each.

    Raises:
        TypeError: there is no stacked form of ``like``.
    """
    kind, params, new = _laid_out(like)
    drawn_from = np.asarray(sample, np.float64)
    return int(_alarms(kind, params, new, drawn_from, rows, series, start_of(seed)))


def start_of(seed: int) -> int:
    """Where the draws of a seed begin: far from those of any other."""
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> np.uint64(2))


def stackable(like: Detector) -> bool:
    """Whether there is a stacked form of it."""
    return type(like) in _LAYOUTS


def _laid_out(like: Detector) -> tuple[int, Floats, Floats]:
    """Kind, parameters and the state of a new detector."""
    layout = _LAYOUTS.get(type(like))
    if layout is None:
        known = ", ".join(kind.name for kind in _LAYOUTS)
        raise TypeError(f"{like.name!r} has no stacked form; expected one of {known}")
    kind, params, new = layout(like)
    return kind, np.array(params, np.float64), np.array([*new, *(0.0,) * (WIDTH - len(new))])


_Layout = tuple[int, tuple[float, ...], tuple[float, ...]]


def _of_page_hinkley(like: Any) -> _Layout:
    p = like.params
    rows, delta = p["min_instances"], p["delta"]
    return _PAGE_HINKLEY, (p["threshold"], 0.0, delta, rows, p["alpha"]), (0, 0, 0, 0, math.inf)


def _of_ddm(like: Any) -> _Layout:
    p = like.params
    alarm, warn = p["drift_threshold"], p["warning_threshold"]
    return _DDM, (alarm, warn, p["warm_start"]), (0, 0, 0, 0, 0, math.inf)


def _of_hddm_a(like: Any) -> _Layout:
    alarm, warn = like.params["drift_confidence"], like.params["warning_confidence"]
    return _HDDM_A, (math.log(2.0 / alarm), math.log(2.0 / warn), math.log(1.0 / alarm)), ()


def _of_chart(kind: int, first: str, second: str | None = None) -> Callable[[Any], _Layout]:
    def layout(like: Chart) -> _Layout:
        own = getattr(like, first), getattr(like, second) if second else 0.0
        start = (0, 0, 0, 0, 1) if kind == _EWMA else ()
        return kind, (like.threshold, like.warning, *own, like.spread**2), start

    return layout


_LAYOUTS: dict[Any, Callable[[Any], _Layout]] = {
    PageHinkley: _of_page_hinkley,
    Ddm: _of_ddm,
    HddmA: _of_hddm_a,
    Cusum: _of_chart(_CUSUM, "slack"),
    Ewma: _of_chart(_EWMA, "weight"),
    Shewhart: _of_chart(_SHEWHART, "group"),
    Sprt: _of_chart(_SPRT, "shift", "accept"),
}
