"""What comes of the events: a sink that shows outputs to whoever listens."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from streammeta.events import DriftDetected, Output, to_record
from streammeta.scores import scores_for
from streammeta.serve.inlet import QueueFull
from streammeta.sinks.base import Position

DRIFTS = 200  # newest alarms that are told
BEHIND = 1000  # outputs that a reader may be behind; older ones are lost to it
HEARTBEAT = 15.0  # seconds without news after which a reader is told that there are none


class Reader:
    """One reader of the outputs; all calls come from the event loop."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self.kinds = kinds
        self.lost = 0
        self._held: deque[tuple[int, dict[str, Any]]] = deque()
        self._news = asyncio.Event()
        self._closed = False

    def give(self, number: int, record: dict[str, Any]) -> None:
        """There is an output."""
        if self.kinds and record["kind"] not in self.kinds:
            return
        if len(self._held) >= BEHIND:
            self._held.popleft()
            self.lost += 1
        self._held.append((number, record))
        self._news.set()

    def close(self) -> None:
        """There will be no more."""
        self._closed = True
        self._news.set()

    async def batches(self, seconds: float) -> AsyncIterator[list[tuple[int, dict[str, Any]]]]:
        """What has come since, as soon as there is something; an empty list every ``HEARTBEAT``
        without. Ends after ``seconds``, or with the outputs."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not (self._closed and not self._held):
            left = until - loop.time()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(min(left, HEARTBEAT)):
                    await self._news.wait()
            except TimeoutError:
                if left <= HEARTBEAT:
                    return
            held = list(self._held)
            self._held.clear()
            if not self._closed:
                self._news.clear()
            yield held


class Outlet:
    """A sink that is not durable: outputs go to the readers at once, and the newest drifts, the
    scores and the counts are kept.

    ``write`` and ``close`` come from the model's thread, ``readers`` belong to the event loop.
    ``drifts`` (records, oldest first) and ``counts`` begin with this process.
    """

    name = "api stream"
    durable = False

    def __init__(self, task: str, streams: int) -> None:
        self.scores = scores_for(task)
        self.drifts: deque[dict[str, Any]] = deque(maxlen=DRIFTS)
        self.counts: Counter[str] = Counter()
        self.streams = streams
        self._readers: set[Reader] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._given = 0
        self._closed = False

    def open(self, resume_at: Position | None) -> None:
        """Nothing to take back."""

    def write(self, outputs: Sequence[Output]) -> int:
        """Show them; all are taken."""
        self.scores.observe(outputs)
        self.counts.update(type(output).__name__ for output in outputs)
        self.drifts.extend(to_record(o) for o in outputs if isinstance(o, DriftDetected))
        if self._readers:
            self._tell([to_record(output) for output in outputs])
        return len(outputs)

    def position(self) -> Position:
        """Nobody goes back."""
        return {}

    def flush(self) -> None:
        """They are gone already."""

    def close(self) -> None:
        """Tell the readers that there will be no more."""
        self._closed = True
        self._tell(None)

    def join(self, kinds: frozenset[str]) -> Reader:
        """A new reader of ``kinds`` of outputs, all where empty; in the event loop.

        Raises:
            QueueFull: there are as many as there may be.
        """
        if len(self._readers) >= self.streams:
            raise QueueFull(f"{self.streams} streams are open")
        self._loop = asyncio.get_running_loop()
        reader = Reader(kinds)
        self._readers.add(reader)
        if self._closed:
            reader.close()
        return reader

    def leave(self, reader: Reader) -> None:
        """It reads no more."""
        self._readers.discard(reader)

    def _tell(self, records: list[dict[str, Any]] | None) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._give, records)

    def _give(self, records: list[dict[str, Any]] | None) -> None:
        for reader in self._readers:
            if records is None:
                reader.close()
                continue
            for number, record in enumerate(records, self._given):
                reader.give(number, record)
        self._given += len(records or ())
