"""What a sink is: where outputs go, with a position that a commit can name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from streammeta.events import Output

Position = dict[str, Any]


@runtime_checkable
class Sink(Protocol):
    """A place for outputs.

    A ``durable`` sink gets outputs only after the commit that covers them and can be taken back
    to an earlier ``position``, so that after a crash everything is in it exactly once. A sink that
    is not durable gets outputs at once; after a crash it may see some of them again, with the
    same ids. ``streammeta.testing.check_sink`` puts a sink through all of this.
    """

    name: str
    durable: bool

    def open(self, resume_at: Position | None) -> None:
        """Start empty (``None``), or drop all that was written after ``resume_at``.

        Raises:
            SinkError: it cannot be opened, or does not reach ``resume_at`` any more.
        """
        ...

    def write(self, outputs: Sequence[Output]) -> int:
        """Take the outputs in order, those of kinds it does not keep are left out.

        Returns the number of records taken.

        Raises:
            SinkError: they could not be written.
        """
        ...

    def position(self) -> Position:
        """Where the next record will stand; JSON-able."""
        ...

    def flush(self) -> None:
        """Make everything written so far survive a power cut."""
        ...

    def close(self) -> None:
        """Flush and let go."""
        ...


@runtime_checkable
class Checks(Protocol):
    """What a sink has that can be tried before anything is forgotten or written."""

    def check(self) -> None:
        """Try to reach the place, and change nothing that is there.

        Raises:
            SinkError: it cannot be opened as things are.
        """
        ...
