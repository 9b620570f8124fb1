"""Outputs as messages of a NATS JetStream stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import Annotated, Any, TypeVar

from pydantic import Field

from streammeta.errors import SinkError
from streammeta.events import Output
from streammeta.sinks.base import Position
from streammeta.sinks.jsonl import kept, to_line
from streammeta.sources.clock import Clock
from streammeta.sources.nats_link import TIMEOUT, Link, Loop
from streammeta.sources.outage import Outage

BATCH = 200  # messages sent before their answers are awaited
EXPECTED = "Nats-Expected-Last-Subject-Sequence"

T = TypeVar("T")


class JetStreamSink:
    """One message per output, a JSON line, on a subject of its own.

    Every message says which sequence it expects to be the subject's last, so that nothing gets in
    between or is written twice, and a batch whose answers were lost is looked up before it is sent
    again. After a crash the records that come again are compared with those that stand there:
    subscribers see each of them once. From the first difference on, what stands there is deleted.

    How safe a flushed record is depends on the stream: JetStream syncs its files now and then.
    While the server is gone a write waits, at most ``give_up_after`` seconds.

    Args:
        url: ``nats://[user:password@]host:port``.
        stream: the stream; made, for this subject alone, where it is missing.
        subject: the subject; opened without a commit it is purged.
        kinds: names of the outputs to keep; all by default.
        give_up_after: seconds without the server after which ``SinkError`` is raised.
        name: by which commits know the sink; the subject by default.
        clock: time; the machine's own by default.
        random: for the jitter between tries.

    Raises:
        UsageError: the package is missing, or the address is none.
    """

    durable = True

    def __init__(
        self,
        url: str,
        stream: str,
        subject: str,
        kinds: Sequence[str] | None = None,
        *,
        give_up_after: Annotated[float, Field(ge=0)] = 30.0,
        name: str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = name or subject
        self._stream, self._subject = stream, subject
        self._kinds = kept(kinds)
        self._link = Link(url)
        self._what = f"jetstream subject {subject!r}"
        self._outage = Outage(self._what, SinkError, give_up_after, clock, random)
        self._loop: Loop | None = None
        self._client: Any = None
        self._records = 0
        self._seq = 0  # of the last record, in the stream
        self._standing: deque[tuple[int, bytes]] = deque()  # after it: (sequence, payload)

    def check(self) -> None:
        """Ask for the stream; an unreachable server is a fault at once."""
        self._call(self._state, Outage(self._what, SinkError, 0.0))

    def open(self, resume_at: Position | None) -> None:
        """Purge the subject, or go on after the message that ``resume_at`` names.

        Raises:
            SinkError: the server cannot be reached or refuses, or the stream ends before
                ``resume_at``.
        """
        self._standing.clear()
        if resume_at is None:
            self._records = self._seq = 0
            self._call(self._begin)
            return
        self._records, self._seq = int(resume_at["records"]), int(resume_at["seq"])
        last = self._call(self._state)
        if last < self._seq:
            raise SinkError(
                f"{self._what}: its stream ends at {last}, the commit knows {self._seq}: was it "
                f"removed? Start fresh, or put the stream back"
            )
        self._call(self._load_tail)

    def write(self, outputs: Sequence[Output]) -> int:
        """Publish the outputs of the kinds that are kept; returns how many."""
        lines = [to_line(o).rstrip().encode() for o in outputs if isinstance(o, self._kinds)]
        for i in range(0, len(lines), BATCH):
            self._add(lines[i : i + BATCH])
        return len(lines)

    @property
    def failures(self) -> int:
        """Tries to reach the server that failed, so far."""
        return self._outage.failures

    def position(self) -> Position:
        """The number of records, and the sequence of the last one."""
        return {"records": self._records, "seq": self._seq}

    def flush(self) -> None:
        """Nothing is held back: every write has been answered."""

    def close(self) -> None:
        """Let go of the connection; closing twice is fine."""
        if self._loop is not None:
            if self._client is not None:
                self._loop.call(self._client.close())
            self._loop.close()
            self._loop = self._client = None

    def _add(self, lines: list[bytes]) -> None:
        left = deque(lines)
        while left:
            self._match(left)
            if left and self._standing:
                self._call(self._drop_tail)
            if left:
                done = self._call(partial(self._publish, lines=list(left)))
                left = deque() if done else left

    def _match(self, left: deque[bytes]) -> None:
        """Take what stands there already, in the same order, for written."""
        while left and self._standing and self._standing[0][1] == left[0]:
            left.popleft()
            self._seq = self._standing.popleft()[0]
            self._records += 1

    async def _publish(self, jetstream: Any, lines: list[bytes]) -> bool:
        """Send a batch. False: it was begun before; what stands there has to be looked at."""
        last = await self._last(jetstream)
        if last > self._seq:
            await self._load_tail(jetstream)
            if self._standing[0][1] != lines[0]:
                raise SinkError(f"{self._what}: somebody else has written to it, at {last}")
            return False
        send = jetstream.publish_async
        try:
            answer = await send(self._subject, lines[0], headers=_after(last))
            first = await asyncio.wait_for(answer, TIMEOUT)
            sent = [
                await send(self._subject, line, headers=_after(first.seq + i))
                for i, line in enumerate(lines[1:])
            ]
        except self._link.overtaken:
            return False
        answers = await asyncio.wait_for(
            asyncio.gather(*sent, return_exceptions=True), TIMEOUT + len(lines) / 100
        )
        faults = [answer for answer in answers if isinstance(answer, BaseException)]
        if any(not isinstance(fault, self._link.overtaken) for fault in faults):
            raise faults[0]
        if faults:
            return False  # messages of other subjects came in between: what is left is sent anew
        self._records += len(lines)
        self._seq = first.seq + len(sent)
        return True

    async def _last(self, jetstream: Any) -> int:
        """The sequence of the newest message on the subject; 0 where there is none."""
        try:
            return int((await jetstream.get_last_msg(self._stream, self._subject)).seq)
        except self._link.missing:
            return 0

    async def _state(self, jetstream: Any) -> int:
        """The stream's last sequence; 0 where there is no stream yet."""
        try:
            return int((await jetstream.stream_info(self._stream)).state.last_seq)
        except self._link.missing:
            return 0

    async def _begin(self, jetstream: Any) -> None:
        try:
            await jetstream.stream_info(self._stream)
        except self._link.missing:
            await jetstream.add_stream(name=self._stream, subjects=[self._subject])
        await jetstream.purge_stream(self._stream, subject=self._subject)

    async def _load_tail(self, jetstream: Any) -> None:
        self._standing.clear()
        seq = self._seq + 1
        while True:
            try:
                found = await jetstream.get_msg(
                    self._stream, seq=seq, subject=self._subject, next=True
                )
            except self._link.missing:
                return
            self._standing.append((found.seq, found.data or b""))
            seq = found.seq + 1

    async def _drop_tail(self, jetstream: Any) -> None:
        while self._standing:
            seq, _ = self._standing[-1]
            with suppress(self._link.missing):  # an earlier try may have deleted it
                await jetstream.delete_msg(self._stream, seq)
            self._standing.pop()

    def _call(self, ask: Callable[..., Awaitable[T]], outage: Outage | None = None) -> T:
        """Run it against the server, connected anew where that is needed, until it works."""
        if self._loop is None:
            self._loop = Loop(f"{self.name}-sink")
        loop = self._loop
        try:
            return (outage or self._outage).insist(
                lambda: loop.call(self._connected(ask)), self._link.lost
            )
        except self._link.refused as error:
            raise SinkError(f"{self._what}: NATS refuses: {error}") from error

    async def _connected(self, ask: Callable[..., Awaitable[T]]) -> T:
        if self._client is None or self._client.is_closed:
            self._client = await self._link.connect()
        return await ask(self._client.jetstream(timeout=TIMEOUT))


def _after(seq: int) -> dict[str, str]:
    return {EXPECTED: str(seq)}
