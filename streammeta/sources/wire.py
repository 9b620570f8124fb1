"""Records that somebody sends: each is an event of its own, and there is no file to look ahead in.

A record is JSON: an envelope (``{"id", "ts", "key", "x", "y"}``), an answer alone (``{"id", "y"}``)
or a flat row, of which ``target``, ``time``, ``key`` and ``id`` name the columns. Values keep the
types that the sender gave them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streammeta.errors import UsageError
from streammeta.events import Event, Value
from streammeta.sources.cells import MISSING, is_number
from streammeta.sources.jsonl_table import json_event
from streammeta.sources.plan import Plan
from streammeta.sources.times import ISO


class Records:
    """Turns payloads into events.

    Args:
        name: the first part of the ids ``name:partition:offset``.
        target: the column to predict, in flat rows; ``None``: labels come in envelopes.
        time: column with the event time.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        partition: the second part of the ids.

    Raises:
        UsageError: a column is given two parts.

    >>> records = Records("q", target="sold", key="store")
    >>> records.event(7, "message 7", b'{"store": "s1", "temp": 21.5, "sold": 3}')
    Event(id='q:0:7', x={'temp': 21.5}, y=3, key='s1', ts=None, error=None)
    >>> Records("q").event(8, "message 8", b'{"id": "a", "y": 3}')
    Event(id='a', x=None, y=3, key='', ts=None, error=None)
    """

    def __init__(
        self,
        name: str,
        *,
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        partition: str = "0",
    ) -> None:
        parts = [part for part in (target, time, key, id, *ignore) if part is not None]
        for part in parts:
            if parts.count(part) > 1:
                raise UsageError(f"{name}: column {part!r} is given two parts at once")
        self._late = target is None
        self.plan = Plan(
            name=name,
            kinds={},
            clocks={} if time is None else {time: ISO},
            target="y" if target is None else target,
            label_kind="given",
            time=time,
            key=key,
            id=id,
            ignore=frozenset(ignore),
            needs_label=False,
            target_is_feature=False,
            partition=partition,
        )

    def event(self, offset: int | str, place: str, payload: str | bytes) -> Event:
        """The event in a JSON payload; ``place`` is how messages name it."""
        event = json_event(self.plan, offset, place, payload, self._late)
        return event if self._late else _answered(event)

    def row(self, offset: int | str, place: str, cells: Mapping[str, str]) -> Event:
        """The event in named cells of text: numbers where they read as numbers.

        >>> Records("q", target="y").row(1, "entry 1", {"a": "2.5", "d": "mon", "y": "1"}).x
        {'a': 2.5, 'd': 'mon'}
        """
        own = (self.plan.id, self.plan.key, self.plan.time)
        typed = {name: _own(cell) if name in own else _value(cell) for name, cell in cells.items()}
        return _answered(self.plan.record(offset, place, typed))


def _answered(event: Event) -> Event:
    """A row with a label and without a single feature is the answer to an earlier question."""
    if event.x is not None and not event.x and event.y is not None:
        event.x = None
    return event


def _own(cell: str) -> str | None:
    """An id, a key or a time: text as it is, or nothing."""
    return None if cell.strip() in MISSING else cell


_WORDS: dict[str, Any] = {"true": True, "True": True, "false": False, "False": False}


def _value(cell: str) -> Value:
    text = cell.strip()
    if text in MISSING:
        return None
    if text in _WORDS:
        return bool(_WORDS[text])
    if not is_number(text):
        return text
    return int(text) if text.lstrip("+-").isdecimal() else float(text)
