"""Any Python iterable of rows as a source: River's data sets, scenarios, generators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value
from streammeta.sources.labels import delayed
from streammeta.sources.stream import EventStream

Row = tuple[Mapping[str, Value], Label | None] | Event


class IterableSource(EventStream):
    """Rows ``(x, y)`` or ready events from ``make()``, which is called again to seek.

    Every call of ``make`` must give the same rows: that is what makes a resumed run exact.
    ``label_delay`` and ``rows`` are those of ``FileSource``.

    >>> source = IterableSource(lambda: [({"a": 1.0}, 0), ({"a": 2.0}, 1)], "two")
    >>> events, position = source.read({"emitted": 1}, 10)
    >>> events[0].id, events[0].y, source.finished(position)
    ('two:0:1', 1, True)
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Row]],
        name: str,
        *,
        label_delay: int = 0,
        rows: int | None = None,
    ) -> None:
        if label_delay < 0:
            raise UsageError(f"label_delay is {label_delay}, expected 0 or more")
        super().__init__(name, self._replay_rows)
        self._make = make
        self.label_delay = label_delay
        self.rows = rows

    def _replay_rows(self, skip: int) -> Iterator[Event]:
        rows = islice(self._make(), self.rows)
        if not self.label_delay:
            return self._events_of(islice(rows, skip, None), skip)
        return islice(delayed(self._events_of(rows, 0), self.label_delay), skip, None)

    def _events_of(self, rows: Iterable[Row], first: int) -> Iterator[Event]:
        prefix = f"{self.name}:0:"
        for offset, row in enumerate(rows, first):
            if isinstance(row, Event):
                yield row
            else:
                yield Event(f"{prefix}{offset}", row[0], row[1])
