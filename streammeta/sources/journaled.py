"""What sources share that are told things once: every record goes to a journal first."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from streammeta.errors import SourceError
from streammeta.events import Event
from streammeta.sources.base import Position, SourceStatus
from streammeta.sources.journal import Fsync, Journal
from streammeta.sources.wire import Records


class Inbox:
    """A journal with room for so many records that nobody has read: what receivers write to.

    A receiver calls ``put`` from its own thread; the record is safe when that returns. ``read``
    moves the bound on.
    """

    def __init__(self, folder: str | Path, queue: int, fsync: Fsync) -> None:
        self.journal = Journal(folder, fsync=fsync)
        self.queue = queue
        self._read = self.journal.first
        self._moved = threading.Condition()

    def room(self) -> int:
        """How many more records may come before some are read."""
        return max(self.queue - (self.journal.end - self._read), 0)

    def put(self, records: Sequence[bytes]) -> int | None:
        """Journal them, and give the number of the first; ``None``, nothing done: no room.

        A batch longer than the whole queue is taken when nothing else waits.
        """
        with self._moved:
            if self.room() < min(len(records), self.queue):
                return None
            return self.journal.append(records)

    def wait_for_room(self, seconds: float) -> None:
        """Until something was read, or for so long."""
        with self._moved:
            if not self.room():
                self._moved.wait(seconds)

    def read(self, number: int, n: int) -> list[bytes]:
        """Records from ``number`` on; reading frees their room."""
        found = self.journal.read(number, n)
        with self._moved:
            self._read = number + len(found)
            self._moved.notify_all()
        return found

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()


class JournaledSource(ABC):
    """The part of a source that reads: a subclass brings the receiver, ``_listen`` and ``_hush``.

    The position is the number of a record in the journal, ``{"record": 7}``. The receiver is
    started by the first read and stopped by ``close``. Segments of the journal go when no commit
    needs them any more (``forget``).
    """

    def __init__(self, name: str, records: Records, folder: str, queue: int, fsync: Fsync) -> None:
        self.name = name
        self._records = records
        self._folder, self._queue, self._fsync = Path(folder), queue, fsync
        self._inbox: Inbox | None = None
        self._listening = False
        self._fault = ""
        self._at = 0

    def start(self) -> Position:
        """Before the oldest record that the journal has: a fresh run learns those anew."""
        return {"record": self._open().journal.first}

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` journaled records after ``position``.

        Raises:
            SourceError: the journal does not have ``position``, or the receiver cannot be started.
        """
        number = position.get("record")
        if not isinstance(number, int) or isinstance(number, bool):
            raise SourceError(
                f"{self.name}: position is {position!r}, expected a record like {{'record': 7}}"
            )
        inbox = self._open()
        if not self._listening:
            self._listen(inbox)
            self._listening = True
        found = inbox.read(number, n)
        self._at = number + len(found)
        events = [self._event(number + i, record) for i, record in enumerate(found)]
        return events, {"record": self._at}

    def finished(self, position: Position) -> bool:
        """Never: somebody may send something."""
        return False

    def forget(self, position: Position) -> None:
        """Let the journal drop what is before ``position``."""
        self._open().journal.forget(int(position["record"]))

    def status(self) -> SourceStatus:
        """``lag`` is the number of records in the journal after the last one read."""
        return SourceStatus(self._fault, None if self._inbox is None else self.queued)

    @property
    def queued(self) -> int:
        """The same; 0 while the journal is closed."""
        return 0 if self._inbox is None else self._inbox.journal.end - self._at

    def close(self) -> None:
        """Stop the receiver and close the journal; the next read starts both again."""
        if self._listening:
            self._hush()
            self._listening = False
        if self._inbox is not None:
            self._inbox.close()
            self._inbox = None

    def _open(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self._folder, self._queue, self._fsync)
        return self._inbox

    def _event(self, number: int, record: bytes) -> Event:
        return self._records.event(number, f"record {number}", record)

    @abstractmethod
    def _listen(self, inbox: Inbox) -> None:
        """Start the receiver; what it is sent goes to ``inbox``."""

    @abstractmethod
    def _hush(self) -> None:
        """Stop it."""
