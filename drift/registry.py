"""Detectors by name: River's, our own, and anybody's as ``module:Class``."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from drift.charts import Cusum, Ewma, Shewhart, Sprt
from drift.detector import Detector
from drift.river_detectors import Adwin, Ddm, Eddm, Fhddm, HddmA, HddmW, Kswin, PageHinkley
from drift.run_lengths import Bocpd

DETECTORS: Mapping[str, Any] = {
    kind.name: kind
    for kind in (
        Adwin, PageHinkley, Kswin, Ddm, Eddm, Fhddm, HddmA, HddmW,
        Cusum, Ewma, Shewhart, Sprt, Bocpd,
    )
}  # fmt: skip


def make_detector(name: str, signal: str = "error", seed: int = 0) -> Detector:
    """The detector called ``name`` with our defaults for ``signal`` ("error" or "ratio").

    ``module:Class`` is a class of one's own: made by its ``for_signal(signal, seed)`` where it has
    one, else without arguments.

    Raises:
        ValueError: no such detector (the nearest name is given), or it is not a ``Detector``.

    >>> make_detector("hdm_w")
    Traceback (most recent call last):
    ValueError: no detector is called 'hdm_w'; did you mean 'hddm_w'?
    >>> make_detector("drift.charts:Cusum").name
    'cusum'
    """
    kind = _imported(name) if ":" in name else DETECTORS.get(name)
    if kind is None:
        near = get_close_matches(name, DETECTORS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DETECTORS)}"
        raise ValueError(f"no detector is called {name!r}; {hint}")
    made = kind.for_signal(signal, seed) if hasattr(kind, "for_signal") else kind()
    if not isinstance(made, Detector):
        raise ValueError(
            f"{name} is no detector: expected name, input, has_warning, update(value) and reset()"
        )
    return made


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as fault:
        raise ValueError(f"no detector is called {name!r}: {fault}") from fault
