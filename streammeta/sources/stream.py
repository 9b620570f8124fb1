"""A source over any sequence of events that can be produced again from its start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from streammeta.errors import SourceError
from streammeta.events import Event
from streammeta.sources.base import Position


class EventStream:
    """Positions count emitted events: ``{"emitted": 120}`` stands after the 120th.

    ``replay(skip)`` makes the sequence anew without its first ``skip`` events. Reading on from
    where the last read ended costs nothing; any other position starts a new sequence.
    """

    #: What positions are in, where that has a name: one in something else is refused.
    _of: str | None = None

    def __init__(self, name: str, replay: Callable[[int], Iterator[Event]]) -> None:
        self.name = name
        self._replay = replay
        self._events: Iterator[Event] | None = None
        self._at = 0
        self._ahead: list[Event] = []

    def start(self) -> Position:
        """The position before the first event."""
        return self._position(0)

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` events after ``position``; an empty list at the end."""
        events = self._from(position)
        batch, self._ahead = self._ahead[:n], self._ahead[n:]
        batch += islice(events, n - len(batch))
        self._at += len(batch)
        return batch, self._position(self._at)

    def finished(self, position: Position) -> bool:
        """True at the end of the sequence."""
        events = self._from(position)
        if not self._ahead:
            self._ahead = list(islice(events, 1))
        return not self._ahead

    def close(self) -> None:
        """Drop the sequence in progress."""
        self._events, self._ahead = None, []

    def _position(self, count: int) -> Position:
        return {"emitted": count} if self._of is None else {"emitted": count, "of": self._of}

    def _from(self, position: Position) -> Iterator[Event]:
        wanted = _emitted(self.name, position)
        of = position.get("of", self._of)  # older commits do not say
        if wanted and of != self._of:
            raise SourceError(
                f"{self.name}: the last commit stands after event {wanted:,} of {of}, which is "
                f"another stream: begin again with --fresh, or give this one folders of its own"
            )
        if self._events is None or wanted != self._at:
            # One event earlier, so that a stream which has become too short is noticed.
            self._events = self._replay(max(wanted - 1, 0))
            if wanted and next(self._events, None) is None:
                self.close()
                raise SourceError(
                    f"{self.name}: position {wanted} lies beyond its end: has the data been cut?"
                )
            self._at, self._ahead = wanted, []
        return self._events


def _emitted(name: str, position: Position) -> int:
    count = position.get("emitted")
    if not isinstance(count, int) or count < 0:
        raise SourceError(
            f"{name}: position is {position!r}, expected a count like {{'emitted': 0}}"
        )
    return count
