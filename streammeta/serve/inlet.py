"""What is sent over HTTP becomes events: journaled first, acknowledged then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streammeta.errors import SourceError
from streammeta.sources.journal import Fsync
from streammeta.sources.journaled import Inbox, JournaledSource
from streammeta.sources.wire import Records

NAME = "api"


class ApiSource(JournaledSource):
    """The events that ``streammeta.serve`` has taken; ids are ``api:0:record`` where none is given.

    Args:
        journal: folder of the journal.
        queue: events in the journal that nobody has read, at most.
        fsync: ``always``, or ``never`` to leave it to the system.
    """

    def __init__(self, journal: str, queue: int = 10_000, fsync: Fsync = "always") -> None:
        super().__init__(NAME, Records(NAME), journal, queue, fsync)

    @property
    def inbox(self) -> Inbox:
        """Where the server puts what it is sent.

        Raises:
            SourceError: the source is closed.
        """
        if self._inbox is None:
            raise SourceError(f"{self.name}: takes no events any more")
        return self._inbox

    def _listen(self, inbox: Inbox) -> None:
        """The server listens."""

    def _hush(self) -> None:
        """It is stopped by whoever has started it."""


class QueueFull(Exception):  # noqa: N818 - what it is, not a fault
    """As much waits as may wait: come back a little later."""


class Inlet:
    """Records of many requests at once go to the journal in one write, and one sync.

    All calls come from the event loop; the journal is written in another thread.

    Args:
        source: whose journal it is.
        waiting: requests that may wait at once.
    """

    def __init__(self, source: ApiSource, waiting: int) -> None:
        self.source, self.waiting = source, waiting
        self._jobs: list[tuple[Sequence[bytes], asyncio.Future[int]]] = []
        self._at_work: asyncio.Task[None] | None = None

    async def put(self, records: Sequence[bytes]) -> int:
        """Number of the first of them in the journal; when this returns they are safe.

        Raises:
            QueueFull: none was taken, too much waits.
            SourceError: none was taken, the journal cannot be written.
        """
        if len(self._jobs) >= self.waiting:
            raise QueueFull(f"{self.waiting} requests wait for the journal")
        taken: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._jobs.append((records, taken))
        if self._at_work is None or self._at_work.done():
            self._at_work = asyncio.create_task(self._work())
        return await taken

    async def _work(self) -> None:
        while self._jobs:
            jobs, self._jobs = self._jobs, []
            numbers = await asyncio.to_thread(self._write, [records for records, _ in jobs])
            for (_, taken), number in zip(jobs, numbers, strict=True):
                if taken.done():
                    continue  # who asked is gone; the records are there all the same
                if isinstance(number, int):
                    taken.set_result(number)
                else:
                    taken.set_exception(number)

    def _write(self, jobs: list[Sequence[bytes]]) -> list[int | Exception]:
        """The number of the first record of each job, or why it was not taken."""
        try:
            inbox = self.source.inbox
            room, whole = inbox.room(), list[bytes]()
            places: list[int | None] = []
            for records in jobs:
                fits = len(whole) + min(len(records), inbox.queue) <= room
                places.append(len(whole) if fits else None)
                if fits:
                    whole += records
            first = inbox.put(whole) if whole else 0
        except SourceError as error:
            return [error] * len(jobs)
        full = QueueFull(f"{inbox.queue} events wait to be read")
        return [full if place is None or first is None else first + place for place in places]
