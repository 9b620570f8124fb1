"""Detectors by name: River's, our own, and anybody's as ``module:Class``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from drift.bank import Evidence
from drift.charts import Cusum, Ewma, Shewhart, Sprt
from drift.combined import AnyOf, Vote, Warned
from drift.detector import Detector
from drift.river_detectors import Adwin, Ddm, Eddm, Fhddm, HddmA, HddmW, Kswin, PageHinkley
from drift.run_lengths import Bocpd

DETECTORS: Mapping[str, Any] = {
    kind.name: kind
    for kind in (
        Adwin, PageHinkley, Kswin, Ddm, Eddm, Fhddm, HddmA, HddmW,
        Cusum, Ewma, Shewhart, Sprt, Bocpd, Evidence,
    )
}  # fmt: skip


COMBINED: Mapping[str, Any] = {
    "any_of": AnyOf,
    "vote": Vote,
    "warned": lambda members: Warned(*members),
}
_CALL = re.compile(r"\s*(\w+)\s*\((.*)\)\s*", re.DOTALL)


def make_detector(name: str, signal: str = "error", seed: int = 0) -> Detector:
    """The detector called ``name`` with our defaults for ``signal`` ("error" or "ratio").

    ``any_of(a, b)``, ``vote(a, b, c)`` and ``warned(a)`` combine others. ``module:Class`` is a
    class of one's own: made by its ``for_signal(signal, seed)`` where it has one, else without
    arguments.

    Raises:
        ValueError: no such detector (the nearest name is given), or it is not a ``Detector``.

    >>> make_detector("hdm_w")
    Traceback (most recent call last):
    ValueError: no detector is called 'hdm_w'; did you mean 'hddm_w'?
    >>> make_detector("drift.charts:Cusum").name
    'cusum'
    >>> make_detector("vote(cusum, ewma, warned(adwin))").has_warning
    True
    """
    call = _CALL.fullmatch(name)
    if call is not None:
        return _combined(call[1], call[2], signal, seed)
    if "(" in name:
        raise ValueError(f"{name!r}: expected {' or '.join(COMBINED)} with names in parentheses")
    kind = _imported(name) if ":" in name else DETECTORS.get(name)
    if kind is None:
        near = get_close_matches(name, DETECTORS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DETECTORS)}"
        if name == "bank":
            hint = "the bank hears several signals at once; each by itself: 'evidence'"
        raise ValueError(f"no detector is called {name!r}; {hint}")
    made = kind.for_signal(signal, seed) if hasattr(kind, "for_signal") else kind()
    if not isinstance(made, Detector):
        raise ValueError(
            f"{name} is no detector: expected name, input, has_warning, update(value) and reset()"
        )
    return made


def _combined(kind: str, inside: str, signal: str, seed: int) -> Detector:
    if kind not in COMBINED:
        raise ValueError(f"detectors are combined by {', '.join(COMBINED)}, not by {kind!r}")
    members = [make_detector(part, signal, seed) for part in split_names(inside)]
    if kind == "warned" and len(members) != 1:
        raise ValueError(f"warned({inside}): expected one detector, found {len(members)}")
    made: Detector = COMBINED[kind](members)
    return made


def split_names(text: str) -> list[str]:
    """The names in ``text``, cut at the commas that stand in no parentheses.

    >>> split_names("adwin, vote(cusum, ewma)")
    ['adwin', 'vote(cusum, ewma)']
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as fault:
        raise ValueError(f"no detector is called {name!r}: {fault}") from fault
