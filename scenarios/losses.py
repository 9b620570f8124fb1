"""Streams of losses with known drifts: what a drift detector is shown, without any model.

A model that is surprised learns: after a drift the losses rise at once (or over a while) and fall
back with a half-life of 100 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scenarios.scenario import Span
from streammeta.errors import UsageError

Floats = NDArray[np.float64]
EVERY = 2_000  # rows between two drifts
CALM = 4_000  # rows before the first
HALF_LIFE = 100  # rows in which half of the surprise is unlearned
WIDTH = 500  # rows of a gradual drift
USUAL = 0.1  # errors while nothing changes
MOST = 10.0  # a residual in units of the usual one, as detectors are shown it
LONG, SHORT = 4_000_000, 50_000  # rows of a stream without and with drifts, where none are asked


class LossStream(NamedTuple):
    """``values (rows,)``: 0 or 1 = wrong (``signal`` "error"), or |residual| in units of the usual
    one ("ratio"); ``drifts``: first and last row of each change."""

    name: str
    values: Floats
    drifts: tuple[Span, ...]
    signal: str


@lru_cache(maxsize=1)
def losses(name: str, rows: int | None = None, seed: int = 0) -> LossStream:
    """The stream called ``name``; the newest is kept, for the next detector.

    Raises:
        UsageError: there is none.
    """
    if name not in STREAMS:
        raise UsageError(f"no stream of losses is called {name!r}; known: {', '.join(STREAMS)}")
    kind = STREAMS[name]
    rows = rows or (SHORT if kind.rise else LONG)
    rng = np.random.default_rng(seed)
    drifts, surprise = _drifts(rows, kind.width if kind.rise else None)
    values = kind.make(rng, kind.rise * surprise)
    values.flags.writeable = False  # it is shared
    return LossStream(name, values, drifts, kind.signal)


def _drifts(rows: int, width: int | None) -> tuple[tuple[Span, ...], Floats]:
    """The spans of the drifts, and how much of each is felt in every row: 1 at its end."""
    surprise = np.zeros(rows)
    if width is None:
        return (), surprise
    spans = []
    for start in range(CALM, rows, EVERY):
        end = min(start + width, rows - 1)
        spans.append((start, end))
        t = np.arange(min(EVERY, rows - start))
        felt = 0.5 ** (np.maximum(t - width, 0) / HALF_LIFE)
        surprise[start : start + len(t)] = np.minimum((t + 1) / (width + 1), 1.0) * felt
    return tuple(spans), surprise


def _independent(rng: np.random.Generator, level: Floats) -> Floats:
    return _drawn(rng, USUAL + level)


def _drawn(rng: np.random.Generator, share: Floats) -> Floats:
    return np.array(rng.random(len(share)) < share, np.float64)


def _clustered(rng: np.random.Generator, level: Floats) -> Floats:
    """Errors whose rate wanders: an AR(1) of .99 on the scale of its logit."""
    logit = np.log(USUAL / (1.0 - USUAL)) - 0.1 + 0.5 * _ar1(rng, len(level), 0.99)
    return _drawn(rng, 1.0 / (1.0 + np.exp(-logit)))


def _normal(rng: np.random.Generator, level: Floats) -> Floats:
    return _ratio(rng.normal(size=len(level)) * (1.0 + level), 0.798)


def _autocorrelated(rng: np.random.Generator, level: Floats) -> Floats:
    return _ratio(_ar1(rng, len(level), 0.8), 0.798)


def _heavy(rng: np.random.Generator, level: Floats) -> Floats:
    return _ratio(rng.standard_t(3, len(level)), 1.103)


def _ratio(residuals: Floats, mean: float) -> Floats:
    """In units of their mean size."""
    return np.minimum(np.abs(residuals) / mean, MOST)


def _ar1(rng: np.random.Generator, rows: int, memory: float) -> Floats:
    """Unit variance."""
    found = np.empty(rows)
    last = 0.0
    for row, noise in enumerate((rng.normal(size=rows) * np.sqrt(1.0 - memory**2)).tolist()):
        last = memory * last + noise
        found[row] = last
    return found


class _Kind(NamedTuple):
    signal: str
    make: Callable[[np.random.Generator, Floats], Floats]
    rise: float = 0.0
    width: int = 0


STREAMS: Mapping[str, _Kind] = {
    "errors": _Kind("error", _independent),
    "errors_clustered": _Kind("error", _clustered),
    "residuals": _Kind("ratio", _normal),
    "residuals_ar1": _Kind("ratio", _autocorrelated),
    "residuals_t3": _Kind("ratio", _heavy),
    "errors_abrupt": _Kind("error", _independent, rise=0.4),
    "errors_small": _Kind("error", _independent, rise=0.15),
    "errors_gradual": _Kind("error", _independent, rise=0.4, width=WIDTH),
    "residuals_abrupt": _Kind("ratio", _normal, rise=3.0),
    "residuals_small": _Kind("ratio", _normal, rise=1.0),
}
STATIONARY = tuple(name for name, kind in STREAMS.items() if not kind.rise)
DRIFTING = tuple(name for name, kind in STREAMS.items() if kind.rise)
