"""NATS JetStream as a source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, Literal

import structlog
from pydantic import Field

from streammeta.errors import SourceError, StreamMetaError
from streammeta.events import Event
from streammeta.sources.base import Position, SourceStatus
from streammeta.sources.clock import Clock
from streammeta.sources.nats_link import Link, Loop
from streammeta.sources.outage import Outage
from streammeta.sources.wire import Records

FETCH = 256  # messages asked for at once
WAIT = 1.0  # seconds that one fetch waits for a message
ABANDONED = 30.0  # seconds after which the server forgets a consumer that nobody uses
NEW = "new"

_log = structlog.get_logger("streammeta.sources")


@dataclass(slots=True)
class _Message:
    seq: int
    data: bytes
    ts: float
    pending: int


@dataclass(slots=True)
class _Gap:
    """Messages after ``after`` are gone; the stream has ``first`` to ``last``."""

    after: int
    first: int
    last: int

    def told(self) -> str:
        if self.last < self.after:
            return f"the stream was made anew: it ends at {self.last}, we have read {self.after}"
        return (
            f"up to {self.first - self.after - 1:,} messages after {self.after} were removed "
            f"before they were read"
        )


class _Pump:
    """Reads a stream on the loop's thread into a bounded queue, from one position on.

    A pull consumer without acknowledgements delivers in order. Whatever goes wrong, a new one is
    made after the last message that is in the queue; a message that got lost on its way shows in
    the numbers that the consumer counts by, and is asked for again.
    """

    def __init__(self, owner: JetStreamSource, after: int | str) -> None:
        self.queue: deque[_Message | _Gap] = deque()
        self.begun: int | None = None if after == NEW else int(after)
        self.fatal: StreamMetaError | None = None
        self._owner = owner
        self._after = self.begun
        self._room = asyncio.Event()
        self._loop = Loop(f"{owner.name}-pump")
        self._loop.start(self._guarded())

    def make_room(self) -> None:
        """The reader has taken messages."""
        self._loop.wake(self._room)

    def close(self) -> None:
        """Stop; what is in the queue is forgotten."""
        self._loop.close()

    async def _guarded(self) -> None:
        try:
            await self._run()
        except StreamMetaError as error:
            self.fatal = error
        except Exception as error:  # noqa: BLE001 - else it would look like a quiet stream
            name = self._owner.name
            self.fatal = SourceError(f"{name}: {type(error).__name__}: {error}")
            self.fatal.__cause__ = error

    async def _run(self) -> None:
        outage, link = self._owner.outage, self._owner.link
        while True:
            client = None
            try:
                client = await link.connect()
                await self._read(client)
            except link.refused as error:
                raise SourceError(f"{self._owner.name}: NATS refuses: {error}") from error
            except link.lost as error:
                outage.failed(link.told(error))
            finally:
                if client is not None:
                    await client.close()
            await asyncio.sleep(outage.wait())

    async def _read(self, client: Any) -> None:
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        owner = self._owner
        jetstream = client.jetstream(timeout=2.0)
        state = (await jetstream.stream_info(owner.stream)).state
        if self._after is None:
            self.begun = self._after = state.last_seq
        after = self._after
        if after > 0 and (state.first_seq > after + 1 or state.last_seq < after):
            after = await self._over_the_gap(_Gap(after, state.first_seq, state.last_seq))
        owner.outage.over()
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=ABANDONED,
            mem_storage=True,
        )
        subscription = await jetstream.pull_subscribe(
            owner.subject, stream=owner.stream, config=config
        )
        expected = 1
        while True:
            await self._wait_for_room()
            try:
                messages = await subscription.fetch(owner.queue - len(self.queue), timeout=WAIT)
            except owner.link.idle:
                if client.is_closed:
                    raise ConnectionError("the connection was closed") from None
                if await self._overtaken(jetstream):
                    return  # the server has forgotten our consumer: make another
                continue
            for message in messages:
                meta = message.metadata
                if meta.sequence.consumer != expected:
                    return
                expected += 1
                if await self._lost_since(jetstream, meta.sequence.stream):
                    return
                self._after = meta.sequence.stream
                self.queue.append(
                    _Message(
                        meta.sequence.stream,
                        message.data,
                        meta.timestamp.timestamp(),
                        int(meta.num_pending or 0),
                    )
                )

    async def _wait_for_room(self) -> None:
        while len(self.queue) >= self._owner.queue:
            self._room.clear()
            if len(self.queue) >= self._owner.queue:
                await self._room.wait()

    async def _overtaken(self, jetstream: Any) -> bool:
        """Whether the stream holds a message for us, though a fetch has brought none."""
        if self._owner.subject:
            return False
        state = (await jetstream.stream_info(self._owner.stream)).state
        return bool(state.messages and state.last_seq > (self._after or 0))

    async def _lost_since(self, jetstream: Any, seq: int) -> bool:
        """Whether messages between the last one and ``seq`` have expired while we were reading."""
        after = self._after or 0
        if seq == after + 1 or not after or self._owner.subject:
            return False
        state = (await jetstream.stream_info(self._owner.stream)).state
        return bool(state.first_seq > after + 1)

    async def _over_the_gap(self, gap: _Gap) -> int:
        self.queue.append(gap)
        if self._owner.on_gap == "fail":
            await asyncio.Event().wait()  # the reader raises, and closes us
        self._after = gap.last if self._owner.on_gap == "latest" else max(gap.first - 1, 0)
        return self._after


class JetStreamSource:
    """The messages of a JetStream stream, by their sequence; needs no durable consumer.

    A thread keeps a bounded queue filled; a read takes from it and never waits. The position is
    the sequence of the last message read, kept in the commits: the server remembers nothing about
    us. While it is gone a read gives what is queued and then nothing, and ``status`` says why;
    after ``give_up_after`` seconds the fault is raised.

    Messages that the limits of the stream removed before they were read are a gap, found by the
    stream's first sequence; so is a stream that was purged or made anew. With ``subject`` only
    what is found missing at the start or after an outage is told, for the numbers of other
    subjects are missing anyway. The payload is JSON (see ``sources.wire``).

    Args:
        url: ``nats://[user:password@]host:port``.
        stream: the stream's name.
        subject: only messages of this subject; all by default.
        target: column to predict; ``None``: envelopes.
        time: column with the event time; the time of arrival in the stream where not given.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        begin: where a run without a commit begins, at the ``earliest`` message or after the
            ``latest``.
        on_gap: ``fail``, or go on at the ``earliest`` message left, or after the ``latest``.
        queue: messages that wait in memory, at most.
        give_up_after: seconds without the server, or without the stream, after which
            ``SourceError`` is raised.
        name: the first part of the ids; the stream's name by default.
        clock: time; the machine's own by default.
        random: for the jitter between tries.

    Raises:
        UsageError: the package is missing, or an argument cannot be used.
    """

    def __init__(
        self,
        url: str,
        stream: str,
        *,
        subject: str = "",
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        begin: Literal["earliest", "latest"] = "earliest",
        on_gap: Literal["fail", "earliest", "latest"] = "fail",
        queue: Annotated[int, Field(ge=1)] = 1000,
        give_up_after: Annotated[float, Field(ge=0)] = 300.0,
        name: str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = name or stream
        self.stream, self.subject, self.queue, self.on_gap = stream, subject, queue, on_gap
        self.link = Link(url)
        self.outage = Outage(f"jetstream {stream!r}", SourceError, give_up_after, clock, random)
        self._records = Records(self.name, target=target, time=time, key=key, id=id, ignore=ignore)
        self._begin = begin
        self._pump: _Pump | None = None
        self._at: int | str | None = None  # where the head of the queue goes on
        self._latest: int | None = None
        self._lag: int | None = None
        self._gaps = 0

    def start(self) -> Position:
        """Before the earliest message, or after the newest one at the first read."""
        return {"seq": 0 if self._begin == "earliest" else NEW}

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """What is queued of the messages after ``position``, at most ``n``; it never waits.

        Raises:
            SourceError: the server has been gone for too long, the position is not one of ours, or
                messages are lost and ``on_gap`` is ``fail``.
        """
        seq = position.get("seq")
        if seq != NEW and (not isinstance(seq, int) or isinstance(seq, bool) or seq < 0):
            raise SourceError(
                f"{self.name}: position is {position!r}, expected a sequence like {{'seq': 7}}"
            )
        pump = self._pump_at(seq)
        events: list[Event] = []
        while pump.queue and len(events) < n:
            head = pump.queue[0]
            if isinstance(head, _Gap):
                if not events:
                    self._at = self._over(pump, head)
                break
            pump.queue.popleft()
            events.append(self._event(head))
            self._at = head.seq
            self._lag = head.pending
        if pump.fatal is not None and not events:
            raise pump.fatal
        pump.make_room()
        return events, {"seq": self._at}

    def finished(self, position: Position) -> bool:
        """Never: somebody may publish."""
        return False

    def status(self) -> SourceStatus:
        """How the thread is doing; ``lag`` is the number of messages after the last one read."""
        return SourceStatus(self.outage.fault, self._lag, self._gaps)

    @property
    def queued(self) -> int:
        """Messages that the thread has fetched and nobody has read."""
        return 0 if self._pump is None else len(self._pump.queue)

    def close(self) -> None:
        """Stop the thread and let go of the connection; the next read starts another."""
        if self._pump is not None:
            self._pump.close()
            self._pump = None
            self.outage.over()

    def _pump_at(self, seq: int | str) -> _Pump:
        if seq == NEW and self._latest is not None:
            seq = self._latest  # of the moment when it was first asked for
        if self._pump is None or seq != self._at:
            self.close()
            self._pump, self._at = _Pump(self, seq), seq
        if self._at == NEW and self._pump.begun is not None:
            self._at = self._latest = self._pump.begun
        return self._pump

    def _over(self, pump: _Pump, gap: _Gap) -> int:
        told = f"{self.name}: {gap.told()}"
        if self.on_gap == "fail":
            self.close()
            raise SourceError(
                f"{told}: keep more (max_age, max_msgs, max_bytes of the stream), or go on without "
                f'them: on_gap = "earliest" or "latest"'
            )
        pump.queue.popleft()
        self._gaps += 1
        _log.warning("gap", source=self.name, told=told, on_gap=self.on_gap)
        return gap.last if self.on_gap == "latest" else max(gap.first - 1, 0)

    def _event(self, message: _Message) -> Event:
        event = self._records.event(message.seq, f"message {message.seq}", message.data)
        if event.ts is None:
            event.ts = message.ts
        return event
