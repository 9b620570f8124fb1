"""JSON lines, plain or gzipped: flat rows, or event envelopes with ``x`` and ``y``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streammeta.errors import RejectedEvent, SourceError
from streammeta.events import Event
from streammeta.sources.cells import show
from streammeta.sources.columns import Kind, sniff_values
from streammeta.sources.csv_table import lines_of, open_text
from streammeta.sources.plan import Plan
from streammeta.sources.times import ISO

ENVELOPE = frozenset(["id", "ts", "key", "x", "y"])


def is_envelope(row: dict[str, Any]) -> bool:
    """True when the row is an event of its own: ``x`` is an object and no key is foreign.

    >>> is_envelope({"x": {"a": 1}, "y": 2}), is_envelope({"x": 1.5, "y": 2})
    (True, False)
    """
    return isinstance(row.get("x"), dict) and row.keys() <= ENVELOPE


class JsonlTable:
    """One file of JSON lines. Where the first rows have envelopes, a row with only ``id``, ``ts``,
    ``key`` and ``y`` is a late label."""

    typed = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.envelopes = False
        names: dict[str, None] = {}
        for row in self.sample(1000):
            names.update(dict.fromkeys(row))
        self.columns = list(names)
        if not names:
            raise SourceError(f"{path}: no line is a JSON object, expected one object per line")

    def sample(self, n: int) -> list[dict[str, Any]]:
        """The first ``n`` readable rows, the features of envelopes with their ``y`` beside them."""
        rows: list[dict[str, Any]] = []
        with open_text(self.path) as file:
            for line in lines_of(self.path, file):
                if len(rows) == n:
                    break
                try:
                    row = json.loads(line) if line.strip() else None
                except (ValueError, RecursionError):
                    continue
                if not isinstance(row, dict):
                    continue
                if is_envelope(row):
                    self.envelopes = True
                    row = {**row["x"], **({"y": row["y"]} if "y" in row else {})}
                elif self.envelopes and "y" in row and row.keys() <= ENVELOPE:
                    row = {"y": row["y"]}
                rows.append(row)
        return rows

    def kind(self, values: list[Any]) -> Kind:
        """The kind of a column by its sniffed values."""
        return sniff_values(values)

    def events(self, plan: Plan, skip: int) -> Iterator[Event]:
        """One event per line that is not blank, from row ``skip`` on."""
        offset = 0
        with open_text(self.path) as file:
            for number, line in enumerate(lines_of(self.path, file), 1):
                if not line.strip():
                    continue
                if offset >= skip:
                    yield json_event(plan, offset, f"line {number}", line, self.envelopes)
                offset += 1


def json_event(plan: Plan, offset: int | str, place: str, text: str | bytes, late: bool) -> Event:
    """One JSON text as an event: an envelope, a flat row or, where ``late``, an answer alone.

    An answer alone has no ``x``, a ``y`` and nothing that an envelope does not have. A text that
    cannot be used is an event with an ``error``; ``place`` says where it stood.
    """
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        detail = f"not JSON: {error.msg} (character {error.pos + 1})"
        return plan.rejected(offset, place, "malformed", detail)
    except (ValueError, RecursionError) as error:
        return plan.rejected(offset, place, "malformed", f"not JSON: {error}")
    if not isinstance(row, dict):
        detail = f"{type(row).__name__}, expected an object"
        return plan.rejected(offset, place, "malformed", detail)
    if _has_surrogates(text):
        row = _encodable(row)
    late = late and "x" not in row and "y" in row and row.keys() <= ENVELOPE
    if not late and not is_envelope(row):
        return plan.record(offset, place, row)
    try:
        event = _envelope(row, plan.id_of(offset))
    except RejectedEvent as fault:
        return plan.rejected(offset, place, fault.reason, fault.detail)
    if not late:
        label = {"y": row["y"]} if "y" in row else {}
        return plan.record(offset, place, {**row["x"], **label}, event)
    answer = plan.record(offset, place, {"y": row["y"]}, event)
    answer.x = None
    if answer.y is None and answer.error is None:
        return plan.rejected(offset, place, "missing_target", f"'y' of {answer.id} is empty")
    return answer


def _has_surrogates(text: str | bytes) -> bool:
    """Whether there may be an escape that is half a character; such text fits into no file."""
    if isinstance(text, str):
        return "\\ud" in text or "\\uD" in text
    return b"\\ud" in text or b"\\uD" in text


def _encodable(value: Any) -> Any:
    """The same with every half of a character readable as ``\\ud800``; lists stay as they are."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(v) for name, v in value.items()}
    return value


def _envelope(row: dict[str, Any], derived: str) -> Event:
    own, key = row.get("id"), row.get("key")
    for name, value in (("id", own), ("key", key)):
        if value is not None and not isinstance(value, (str, int)):
            raise RejectedEvent("wrong_type", f"{name!r} is {show(value)}, expected a text")
    try:
        ts = ISO.seconds(row.get("ts"))
    except RejectedEvent as fault:
        raise RejectedEvent(fault.reason, f"'ts' {fault.detail}") from None
    return Event(
        derived if own in (None, "") else str(own), None, None, "" if key is None else str(key), ts
    )
