"""What journaled sources share that connect to somebody and ask."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from random import Random

from streammeta.errors import SourceError, StreamMetaError, UsageError
from streammeta.events import Event
from streammeta.sources.base import Position, SourceStatus
from streammeta.sources.clock import Clock
from streammeta.sources.journal import Fsync
from streammeta.sources.journaled import Inbox, JournaledSource
from streammeta.sources.outage import Outage
from streammeta.sources.wire import Records

CONNECT = 5.0  # seconds that a connection may take to come about
PAUSE = 1.0  # seconds before a stream that has ended is asked for again
TURN = 0.1  # seconds between two looks whether there is room, or whether to stop
BUSY = (408, 425, 429)  # answers by which a server asks us to come again; and all from 500 on


class PulledSource(JournaledSource):
    """A thread that connects, journals what comes, and connects again: see ``_session``.

    What a server refuses before it has ever answered well is a fault at once (a wrong address, a
    missing token); later on it is an outage like any other, since servers have bad days: tries are
    spaced out, and after ``give_up_after`` seconds the fault is raised.
    """

    def __init__(
        self,
        name: str,
        records: Records,
        folder: str,
        queue: int,
        fsync: Fsync,
        server: str,
        give_up_after: float,
        clock: Clock | None,
        random: Random | None,
    ) -> None:
        super().__init__(name, records, folder, queue, fsync)
        self._server = server
        self._outage = Outage(server, SourceError, give_up_after, clock, random)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed: StreamMetaError | None = None
        self._answered = False  # well, once at least
        self._pause = PAUSE
        self._ended = False  # the server says that nothing will follow

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` journaled messages after ``position``.

        Raises:
            SourceError: as every journaled source; the server has been gone for too long or
                refuses us.
        """
        events, after = super().read(position, n)
        if self._failed is not None and not events:
            raise self._failed
        return events, after

    def finished(self, position: Position) -> bool:
        """True when the server has said that nothing will follow, and everything was read."""
        return self._ended and position.get("record") == self._open().journal.end

    def status(self) -> SourceStatus:
        """How the connection is; ``lag`` counts what is in the journal and was not read."""
        return SourceStatus(self._outage.fault, super().status().lag)

    def _listen(self, inbox: Inbox) -> None:
        self._stop.clear()
        self._failed, self._ended = None, False
        self._thread = threading.Thread(
            target=self._guarded, args=(inbox,), name=f"{self.name}-pull", daemon=True
        )
        self._thread.start()

    def _hush(self) -> None:
        self._stop.set()
        self._interrupt()
        if self._thread is not None:
            self._thread.join()

    def _guarded(self, inbox: Inbox) -> None:
        try:
            while not self._stop.is_set() and not self._ended:
                self._once(inbox)
        except StreamMetaError as error:
            self._failed = error
        except Exception as error:  # noqa: BLE001 - else it would look like a quiet stream
            self._failed = SourceError(f"{self.name}: {type(error).__name__}: {error}")
            self._failed.__cause__ = error

    def _once(self, inbox: Inbox) -> None:
        try:
            self._session(inbox)
        except OSError as error:
            if not self._stop.is_set():
                self._outage.failed(error)
                self._stop.wait(self._outage.wait())
        else:
            if not self._ended:
                self._stop.wait(self._pause)

    def _connected(self) -> None:
        """To be called by a session once the server has agreed."""
        self._answered = True
        self._outage.over()

    def _refused(self, status: int, told: str) -> Exception:
        """What to raise for an answer that is not the one we want."""
        fault = f"{self._server}: {told}"
        if self._answered or status in BUSY or status >= 500:
            return ConnectionError(told)
        return SourceError(fault)

    def _keep(self, inbox: Inbox, records: Sequence[bytes]) -> None:
        """Journal them as there is room; where we are stopped before that, all that is left.

        They were sent to us and to nobody else, so the bound has to give way.
        """
        while records and not self._stop.is_set():
            room = inbox.room()
            if room:
                inbox.put(records[:room])
                records = records[room:]
            else:
                inbox.wait_for_room(TURN)
        if records:
            inbox.journal.append(records)

    @abstractmethod
    def _session(self, inbox: Inbox) -> None:
        """Connect and take what comes until the stream ends (return) or breaks (``OSError``)."""

    @abstractmethod
    def _interrupt(self) -> None:
        """Wake the session up, from another thread, so that it sees ``_stop``."""


def header_lines(lines: Sequence[str], token: str | None) -> dict[str, str]:
    """Headers of a request from ``Name: value`` texts and a bearer token.

    Raises:
        UsageError: a line is none.

    >>> header_lines(["X-Plant: 7"], "secret")
    {'X-Plant': '7', 'Authorization': 'Bearer secret'}
    """
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or "\n" in line or "\r" in line:
            raise UsageError(f"header {line!r}: expected 'Name: value'")
        found[name.strip()] = value.strip()
    return found if token is None else {**found, "Authorization": f"Bearer {token}"}
