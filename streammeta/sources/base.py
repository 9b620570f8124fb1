"""What a source is: something that can be read from any position, again and again."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from streammeta.events import Event

Position = dict[str, Any]
"""Where to go on reading; JSON-able, kept inside every commit."""


@runtime_checkable
class Source(Protocol):
    """A stream of events that can be resumed exactly.

    ``name`` is the first part of the ids that the source makes up: ``name:partition:offset``.
    Reading twice from the same position gives the same events with the same ids.

    A connector of your own needs nothing but these methods: name its class in a config as
    ``kind = "module:Class"``, where the section's other fields become its arguments, and put it
    through ``streammeta.testing.check_source`` in your tests.
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


class SourceStatus(NamedTuple):
    """How a live source is doing.

    ``fault`` is empty while all is well; else it says what is wrong, in words. ``lag`` is the
    number of events that wait to be read, where that is known. ``gaps`` counts how often events
    were found to be lost before they could be read, and reading went on (``on_gap``).
    """

    fault: str = ""
    lag: int | None = None
    gaps: int = 0


@runtime_checkable
class Live(Protocol):
    """What a source that depends on a server or a sender has besides: it can be asked how it is."""

    def status(self) -> SourceStatus:
        """As of the last ``read``; asks nobody."""
        ...


@runtime_checkable
class Queues(Protocol):
    """What a source that takes events in before they are read has besides."""

    @property
    def queued(self) -> int:
        """Events that are in this process, or its journal, and wait to be read."""
        ...


@runtime_checkable
class Forgets(Protocol):
    """What a source that keeps events itself has besides: it can be told what nobody needs."""

    def forget(self, position: Position) -> None:
        """Nothing before ``position`` will be asked for again; it may be removed."""
        ...
