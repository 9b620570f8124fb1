"""JSON lines on stdin as a source."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, BinaryIO

from pydantic import Field

from streammeta.errors import SourceError
from streammeta.events import Event
from streammeta.sources.base import Position
from streammeta.sources.journal import Fsync
from streammeta.sources.journaled import Inbox, JournaledSource
from streammeta.sources.wire import Records

_CHUNK = 65536  # bytes taken from the pipe at once: what a kill can lose
_NAP = 0.2  # seconds between two looks whether there is room


class StdinSource(JournaledSource):
    """Lines from a pipe, journaled before they are read: ``producer | streammeta run CONFIG``.

    A thread takes what is in the pipe, at most 64 KiB at a time, and syncs it to the journal; only
    what it held at that moment is lost when the process is killed. While ``queue`` lines wait it
    takes nothing, and the producer is held up. The stream ends with the pipe; a run that goes on
    later reads the rest of the journal first, then its own stdin.

    Args:
        journal: folder of the journal.
        target: column to predict; ``None``: envelopes (see ``sources.wire``).
        time: column with the event time.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        queue: lines in the journal that nobody has read, at most, but for 64 KiB.
        fsync: ``always``, or ``never`` to leave it to the system.
        name: the first part of the ids ``name:0:record``.
        stream: where the lines come from; stdin by default.

    Raises:
        UsageError: a column is given two parts.
    """

    def __init__(
        self,
        journal: str,
        *,
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        queue: Annotated[int, Field(ge=1)] = 10_000,
        fsync: Fsync = "always",
        name: str = "stdin",
        stream: BinaryIO | None = None,
    ) -> None:
        records = Records(name, target=target, time=time, key=key, id=id, ignore=ignore)
        super().__init__(name, records, journal, queue, fsync)
        self._stream = stream
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._wake = (-1, -1)
        self._rest = b""  # of a line that has not ended yet
        self._ended = False
        self._failed: SourceError | None = None

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` journaled lines after ``position``.

        Raises:
            SourceError: as every journaled source, and when the journal cannot be written.
        """
        if self._failed is not None:
            raise self._failed
        return super().read(position, n)

    def finished(self, position: Position) -> bool:
        """True when the pipe has ended and every line was read."""
        return self._ended and position.get("record") == self._open().journal.end

    def _listen(self, inbox: Inbox) -> None:
        handle = (self._stream or sys.stdin.buffer).fileno()
        self._stop.clear()
        self._wake = os.pipe()
        self._thread = threading.Thread(
            target=self._guarded, args=(inbox, handle), name=f"{self.name}-lines", daemon=True
        )
        self._thread.start()

    def _hush(self) -> None:
        self._stop.set()
        os.write(self._wake[1], b"x")
        if self._thread is not None:
            self._thread.join()
        for end in self._wake:
            os.close(end)

    def _guarded(self, inbox: Inbox, handle: int) -> None:
        try:
            self._take(inbox, handle)
        except SourceError as error:
            self._failed = error
        except OSError as error:
            self._failed = SourceError(f"{self.name}: cannot be read: {error}")

    def _take(self, inbox: Inbox, handle: int) -> None:
        while not self._ended:
            if not inbox.room():
                inbox.wait_for_room(_NAP)
            elif self._wake[0] in select.select([handle, self._wake[0]], [], [])[0]:
                return
            else:
                self._add(inbox, os.read(handle, _CHUNK))
            if self._stop.is_set():
                return

    def _add(self, inbox: Inbox, data: bytes) -> None:
        """Journal the lines that are whole; at the end of the pipe what is left is a line too."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data:
            lines, self._rest = [*lines, self._rest], b""
        records = [line for line in (line.strip() for line in lines) if line]
        if records:
            inbox.journal.append(records)  # there was room, and they are out of the pipe
        self._ended = not data
