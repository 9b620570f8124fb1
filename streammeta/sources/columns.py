"""What the columns of a table hold: kinds sniffed from the first rows, values parsed by kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from streammeta.errors import RejectedEvent, UsageError
from streammeta.events import Label, Value
from streammeta.sources.cells import MISSING, as_float, finite, is_number, show
from streammeta.sources.times import ISO, Clock, time_layouts

Kind = Literal["number", "integer", "boolean", "category", "time", "unknown", "given"]
"""``integer`` is used for targets only (a feature that holds integers is a number); ``unknown`` is
a column without a single value in the sniffed rows: its values are taken as they come; ``given`` is
a target whose type the sender of a record has chosen: 3 is an integer, "3" a text."""

NUMERIC_SHARE = 0.95  # a column with fewer parsing values than this is a category
MAX_CLASSES = 50  # distinct whole numbers up to which a target is taken for a class label
_BOOLEANS = {"true": True, "True": True, "TRUE": True}
_BOOLEANS |= {"false": False, "False": False, "FALSE": False}


def sniff_text(values: Iterable[str]) -> Kind:
    """The kind of a column of text cells.

    >>> sniff_text(["1", "2.5", "?"]), sniff_text(["yes", "1"]), sniff_text(["true", "false"])
    ('number', 'category', 'boolean')
    >>> sniff_text(["2024-01-31 10:00", "2024-02-01"]), sniff_text(["3", "4", ""])
    ('time', 'integer')
    """
    present = [v for v in (value.strip() for value in values) if v not in MISSING]
    if not present:
        return "unknown"
    numeric = [v for v in present if is_number(v)]
    if len(numeric) >= NUMERIC_SHARE * len(present):
        return "integer" if all(v.lstrip("+-").isdigit() for v in numeric) else "number"
    if all(v in _BOOLEANS for v in present):
        return "boolean"
    return "category" if time_layouts(present) is None else "time"


def sniff_values(values: Iterable[Any]) -> Kind:
    """The kind of a column of typed values (JSON, Parquet)."""
    present = [v for v in values if v is not None and v == v]
    if not present:
        return "unknown"
    if all(isinstance(v, bool) for v in present):
        return "boolean"
    if all(isinstance(v, date) for v in present):
        return "time"
    numeric = [v for v in present if isinstance(v, (int, float, Decimal))]
    if len(numeric) >= NUMERIC_SHARE * len(present):
        return "integer" if all(isinstance(v, int) for v in numeric) else "number"
    texts = [v for v in present if isinstance(v, str)]
    dates = len(texts) == len(present) and time_layouts(texts) is not None
    return "time" if dates else "category"


def number(text: str) -> float | None:
    """A finite number or None for a missing one; ``RejectedEvent`` otherwise."""
    text = text.strip()
    if text in MISSING:
        return None
    try:
        value = float(text)
    except ValueError:
        raise RejectedEvent("wrong_type", f"is {show(text)}, expected a number") from None
    return finite(value, text)


def category(text: str) -> str | None:
    """The stripped text, or None for a missing one."""
    text = text.strip()
    return None if text in MISSING else text


def boolean(text: str) -> Value:
    """True or False; other text stays text (a new category)."""
    text = text.strip()
    return None if text in MISSING else _BOOLEANS.get(text, text)


def unknown(text: str) -> Value:
    """A number where the text is one, else a category."""
    return number(text) if is_number(text) else category(text)


TEXT: dict[Kind, Callable[[str], Value]] = {
    "number": number,
    "integer": number,
    "boolean": boolean,
    "category": category,
    "unknown": unknown,
}
"""How a feature's text cell becomes a value, by the kind of its column (times: by its clock)."""


def typed(value: Any, kind: Kind, clock: Clock = ISO) -> Value:
    """A feature's typed value (JSON, Parquet) checked against the kind of its column."""
    if value is None:
        return None
    if kind == "time" and isinstance(value, (str, date)):
        return clock.seconds(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)):
        if kind == "category":
            return str(value)
        return finite(as_float(value), value)
    if isinstance(value, str):
        if kind in ("number", "integer"):
            raise RejectedEvent("wrong_type", f"is {show(value)}, expected a number")
        return value
    expected = "a number, a text, true, false or null"
    raise RejectedEvent("wrong_type", f"is {show(value)}, expected {expected}")


def label(value: Any, kind: Kind) -> Label | None:
    """A target as it is learned: integers stay integers, None where it is missing."""
    if isinstance(value, str):
        value = value.strip()
        if value in MISSING:
            return None
        if kind in ("number", "integer"):
            return _numeric_label(value, kind)
        if kind == "unknown" and is_number(value):
            return float(value)
        if kind == "boolean":
            return _BOOLEANS.get(value, str(value))
        return str(value)
    if value is None:
        return None
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, (int, float, Decimal)):
        if kind == "category":
            return str(value)
        if kind in ("integer", "given") and isinstance(value, int):
            return int(value)
        return finite(as_float(value), value)
    raise RejectedEvent("wrong_type", f"is {show(value)}, expected a number, a text or a boolean")


def _numeric_label(text: str, kind: Kind) -> Label | None:
    if kind == "integer":
        try:
            return int(text)
        except ValueError:
            pass  # "3.0" or "3.5" among integers: still a number
    value = number(text)
    if kind == "integer" and value is not None and value.is_integer():
        return int(value)
    return value


def decide_task(labels: Sequence[Label]) -> tuple[Literal["classification", "regression"], str]:
    """What a target asks for, and a sentence saying why.

    Texts, booleans, or at most 50 distinct whole numbers are classes; all else is regression.

    Raises:
        UsageError: there is no label to decide by.

    >>> decide_task([0, 1, 1])
    ('classification', 'the target has 2 distinct whole numbers (0, 1) in its first 3 values')
    >>> decide_task([0.25, 1.0])
    ('regression', 'the target has numbers that are not whole, such as 0.25')
    """
    if not labels:
        raise UsageError("the target has no values in the first rows: say --task yourself")
    for value in labels:
        if isinstance(value, str):
            return "classification", f"the target has texts, such as {show(value)}"
    if all(isinstance(value, bool) for value in labels):
        return "classification", "the target is true or false"
    for value in labels:
        if isinstance(value, float) and not value.is_integer():
            return "regression", f"the target has numbers that are not whole, such as {value!r}"
    distinct = sorted(set(labels), key=float)
    n = len(distinct)
    if n > MAX_CLASSES:
        return "regression", f"the target has {n} distinct whole numbers, more than {MAX_CLASSES}"
    names = ", ".join(map(str, distinct[:5])) + (", ..." if n > 5 else "")
    why = f"the target has {n} distinct whole numbers ({names}) in its first {len(labels)} values"
    return "classification", why
