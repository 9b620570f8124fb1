"""Outputs as entries of a Redis stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Annotated, TypeVar

from pydantic import Field

from streammeta.errors import SinkError
from streammeta.events import Output
from streammeta.sinks.base import Position
from streammeta.sinks.jsonl import kept, to_line
from streammeta.sources.clock import Clock
from streammeta.sources.outage import Outage
from streammeta.sources.redis_stream import Connection

FIELD = b"data"
BATCH = 1000  # entries in one round trip
FOREIGN = 10**11  # ids from here on are times: this one, in milliseconds, is March 1973

T = TypeVar("T")


class RedisStreamSink:
    """One entry per output: field ``data`` holds the JSON line; record n has the id ``n-0``.

    The ids are what makes every record stand there once: Redis refuses an id that it has given
    before, so that a write whose answer was lost can be repeated. After a crash the records that
    come again are compared with those that stand there: readers of the stream see each of them
    once. Where they differ, what stands there is dropped first.

    How safe a flushed record is depends on Redis's ``appendfsync``. What it lost is written again
    as far as the last commit reaches; a stream that ends before that is an error.

    While the server is gone a write waits, at most ``give_up_after`` seconds.

    Args:
        url: ``redis://[[user]:password@]host:port/db``, ``rediss://`` or ``unix://``.
        stream: the key of the stream; opened without a commit it is emptied.
        kinds: names of the outputs to keep; all by default.
        maxlen: keep about so many entries, the newest; all by default.
        give_up_after: seconds without the server after which ``SinkError`` is raised.
        name: by which commits know the sink; the key of the stream by default.
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
        kinds: Sequence[str] | None = None,
        *,
        maxlen: Annotated[int, Field(ge=1)] | None = None,
        give_up_after: Annotated[float, Field(ge=0)] = 30.0,
        name: str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = name or stream
        self._stream, self._maxlen = stream, maxlen
        self._kinds = kept(kinds)
        self._redis = Connection(url)
        self._what = f"redis stream {stream!r}"
        self._outage = Outage(self._what, SinkError, give_up_after, clock, random)
        self._records = 0  # written, or found written
        self._standing: dict[int, bytes] = {}  # after the commit, by number, to be compared

    def check(self) -> None:
        """Ask the server for the newest id; an unreachable server is a fault at once."""
        outage = Outage(self._what, SinkError, 0.0)
        self._own(self._call(self._newest, outage))

    def open(self, resume_at: Position | None) -> None:
        """Empty the stream, or go on after the record that ``resume_at`` names.

        Raises:
            SinkError: the server cannot be reached or refuses, or the stream ends before
                ``resume_at``.
        """
        self._standing = {}
        self._records = 0 if resume_at is None else int(resume_at["records"])
        newest = self._own(self._call(self._newest))
        if resume_at is None:
            self._call(lambda: self._redis.client.delete(self._stream))
            return
        if newest < self._records:
            raise SinkError(
                f"{self._what}: has {newest} records, the commit knows {self._records}: was it "
                f"removed, or has Redis lost its data? Start fresh, or put the stream back"
            )
        self._standing = self._call(self._tail)

    def write(self, outputs: Sequence[Output]) -> int:
        """Add the outputs of the kinds that are kept; returns how many."""
        lines = [to_line(o).rstrip().encode() for o in outputs if isinstance(o, self._kinds)]
        for i in range(0, len(lines), BATCH):
            self._add(lines[i : i + BATCH])
        return len(lines)

    @property
    def failures(self) -> int:
        """Tries to reach the server that failed, so far."""
        return self._outage.failures

    def position(self) -> Position:
        """The number of records so far."""
        return {"records": self._records}

    def flush(self) -> None:
        """Nothing is held back: every write has been answered."""

    def close(self) -> None:
        """Let go of the connection."""
        self._redis.client.close()

    def _add(self, lines: list[bytes]) -> None:
        first = self._records + 1
        numbered = list(enumerate(lines, first))
        if self._standing:
            if any(self._standing.get(n, line) != line for n, line in numbered):
                self._call(self._drop_tail)
                self._standing = {}
            else:
                numbered = [(n, line) for n, line in numbered if n not in self._standing]
                for n in range(first, first + len(lines)):
                    self._standing.pop(n, None)
        if numbered:
            self._call(lambda: self._append(numbered))
        self._records += len(lines)

    def _append(self, numbered: list[tuple[int, bytes]]) -> None:
        pipe = self._redis.client.pipeline(transaction=False)
        for n, line in numbered:
            pipe.xadd(self._stream, {FIELD: line}, id=f"{n}-0", maxlen=self._maxlen)
        replies = pipe.execute(raise_on_error=False)
        for (n, line), reply in zip(numbered, replies, strict=True):
            if isinstance(reply, Exception):
                self._accept(n, line, reply)

    def _accept(self, n: int, line: bytes, fault: Exception) -> None:
        """A refused id is fine where the same record stands there: its answer was lost."""
        if not isinstance(fault, self._redis.answered) or "ID specified" not in str(fault):
            raise fault
        found = self._redis.client.xrange(self._stream, f"{n}-0", f"{n}-0")
        if found and found[0][1].get(FIELD) != line:
            raise SinkError(
                f"{self._what}: record {n} is another one already: does a second run write to it?"
            )

    def _own(self, newest: int) -> int:
        if newest >= FOREIGN:
            raise SinkError(
                f"{self._what}: holds entries with ids by the clock, which this sink never wrote; "
                f"choose a key of its own"
            )
        return newest

    def _newest(self) -> int:
        if not self._redis.client.exists(self._stream):
            return 0
        name = self._redis.client.xinfo_stream(self._stream)["last-generated-id"]
        return int(name.partition(b"-")[0])

    def _tail(self) -> dict[int, bytes]:
        found = self._redis.client.xrange(self._stream, f"{self._records + 1}-0", "+")
        return {int(name.partition(b"-")[0]): fields.get(FIELD, b"") for name, fields in found}

    def _drop_tail(self) -> None:
        """Take away what stands after the last record, its ids included."""
        pipe = self._redis.client.pipeline(transaction=True)
        for n in self._standing:
            pipe.xdel(self._stream, f"{n}-0")
        pipe.execute_command("XSETID", self._stream, f"{self._records}-0")
        pipe.execute()

    def _call(self, ask: Callable[[], T], outage: Outage | None = None) -> T:
        redis = self._redis
        try:
            return (outage or self._outage).insist(lambda: redis.ask(ask), redis.lost)
        except redis.wrong as error:
            raise SinkError(f"{self._what}: {error}") from error
