"""Two sources as one."""

from __future__ import annotations

import contextlib

from streammeta.errors import SourceError
from streammeta.events import Event
from streammeta.sources.base import Forgets, Live, Position, Source, SourceStatus


class MergedSource:
    """A stream and what comes in beside it: each read takes of both, at least half of it of the
    stream where that has so many.

    Which of two events that were there at once comes first depends on when somebody looked: a run
    that reads the two again may find another order. Nothing is lost or doubled by that.

    The position is that of both, ``{"stream": ..., "beside": ...}``.

    >>> from streammeta.sources import IterableSource
    >>> stream = IterableSource(lambda: [({"a": 1.0}, 0), ({"a": 2.0}, 1)], "s")
    >>> both = MergedSource(stream, IterableSource(lambda: [({"a": 3.0}, 0)], "b"))
    >>> events, position = both.read(both.start(), 3)
    >>> [event.id for event in events], both.finished(position)
    (['b:0:0', 's:0:0', 's:0:1'], True)
    """

    def __init__(self, stream: Source, beside: Source) -> None:
        self.stream, self.beside = stream, beside
        self.name = stream.name

    def start(self) -> Position:
        """Before the first event of either."""
        return {"stream": self.stream.start(), "beside": self.beside.start()}

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` events after ``position``.

        Raises:
            SourceError: one of the two cannot be read, or the position is not of two.
        """
        stream, beside = self._both(position)
        found, beside = self.beside.read(beside, (n + 1) // 2)
        more, stream = self.stream.read(stream, n - len(found))
        found += more
        if 0 < len(found) < n:
            more, beside = self.beside.read(beside, n - len(found))
            found += more
        return found, {"stream": stream, "beside": beside}

    def finished(self, position: Position) -> bool:
        """True when both are."""
        stream, beside = self._both(position)
        return self.stream.finished(stream) and self.beside.finished(beside)

    def status(self) -> SourceStatus:
        """The faults and gaps of both; how many events wait, where both know it."""
        both = [s.status() for s in (self.stream, self.beside) if isinstance(s, Live)]
        lags = [status.lag for status in both if status.lag is not None]
        faults = "; ".join(status.fault for status in both if status.fault)
        return SourceStatus(faults, sum(lags) if lags else None, sum(s.gaps for s in both))

    def forget(self, position: Position) -> None:
        """Nothing before ``position`` will be asked for again."""
        for source, own in zip((self.stream, self.beside), self._both(position), strict=True):
            if isinstance(source, Forgets):
                source.forget(own)

    def close(self) -> None:
        """Close both."""
        with contextlib.closing(self.beside):
            self.stream.close()

    def _both(self, position: Position) -> tuple[Position, Position]:
        try:
            return position["stream"], position["beside"]
        except (KeyError, TypeError):
            raise SourceError(
                f"{self.name}: position is {position!r}, expected one of a stream and one of what "
                f"comes in beside it: were events taken over HTTP when it was committed?"
            ) from None
