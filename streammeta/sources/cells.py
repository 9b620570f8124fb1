"""What a single cell says, whatever its column: missing or not, a finite number or not."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite, isnan
from typing import Any

from streammeta.errors import RejectedEvent

MISSING = frozenset(
    ["", "?", "NA", "na", "N/A", "n/a", "nan", "NaN", "NAN", "null", "NULL", "Null", "<NA>"]
)


def is_number(text: str) -> bool:
    """True when the text reads as a number.

    >>> is_number("-1e3"), is_number("1_0"), is_number("x")
    (True, False, False)
    """
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # float("1_0") is 10.0, but such a cell is a name


def as_float(value: float | Decimal) -> float:
    """The number as a float; ``RejectedEvent`` where it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        raise RejectedEvent("not_finite", f"is {show(value)}, too large for a float") from None


def finite(value: float, shown: Any) -> float | None:
    """The number, None for nan; ``RejectedEvent`` for an infinite one."""
    if isfinite(value):
        return value
    if isnan(value):
        return None
    raise RejectedEvent("not_finite", f"is {show(shown)}, expected a finite number")


def show(value: Any) -> str:
    """A value as messages quote it, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
