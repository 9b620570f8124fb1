"""What a source is: something that can be read from any position, again and again."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from streammeta.events import Event

Position = dict[str, Any]
"""Where to go on reading; JSON-able, kept inside every commit."""


@runtime_checkable
class Source(Protocol):
    """A stream of events that can be resumed exactly.

    ``name`` is the first part of the ids that the source makes up: ``name:partition:offset``.
    Reading twice from the same position gives the same events with the same ids.
    """

    name: str

    def start(self) -> Position:
        """The position before the first event."""
        ...

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` events after ``position``, and the position after the last of them.

        Never blocks: an empty list means that there is nothing yet. A record that cannot be used
        is an event whose ``error`` is set.

        Raises:
            SourceError: the source cannot be opened, or does not reach ``position`` any more.
        """
        ...

    def finished(self, position: Position) -> bool:
        """True when nothing will ever follow ``position``."""
        ...

    def close(self) -> None:
        """Let go of files and connections; ``read`` may be called again and opens them anew."""
        ...
