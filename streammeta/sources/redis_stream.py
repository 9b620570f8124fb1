"""Redis Streams as a source, and the connection that the sink shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import structlog
from pydantic import Field

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.base import Position, SourceStatus
from streammeta.sources.clock import Clock
from streammeta.sources.outage import Outage
from streammeta.sources.wire import Records

TIMEOUT = 2.0  # seconds that one round trip may take
FIRST = "0-0"  # before every entry
OnGap = Literal["fail", "earliest", "latest"]
T = TypeVar("T")
_log = structlog.get_logger("streammeta.sources")


class Connection:
    """A client that tries once and never again by itself, and the errors it raises.

    Raises:
        UsageError: the package ``redis`` is missing, or the address is none.
    """

    def __init__(self, url: str) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise UsageError(
                "Redis needs the package redis: pip install streammeta[redis]"
            ) from error
        try:
            self.client: Any = redis.Redis.from_url(
                url,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            # the address itself may hold a password
            raise UsageError(f"url is no address of a Redis server: {error}") from error
        self.lost = (redis.ConnectionError, redis.TimeoutError, OSError)
        self.wrong = redis.RedisError
        self.answered = redis.ResponseError
        self._refused = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)

    def ask(self, question: Callable[[], T]) -> T:
        """Call it; a refusal, to redis-py a lost connection, is told from one."""
        try:
            return question()
        except self._refused as error:
            raise self.wrong(f"Redis refuses: {error}") from error


class _Reply(NamedTuple):
    """``entries`` after a position; ``whole``: its own entry is still there; ``info`` or None."""

    entries: list[tuple[str, dict[bytes, bytes]]]
    whole: bool
    info: dict[str, Any] | None


class RedisStreamSource:
    """The entries of a Redis stream, read by id with ``XRANGE``: no group, nothing to acknowledge.

    A read is one round trip of at most 2 seconds and never waits for entries. The position is the
    id of the last entry read, kept in the commits; Redis itself remembers nothing about us. While
    the server is gone a read gives nothing and ``status`` says why; tries are spaced out, and
    after ``give_up_after`` seconds the fault is raised.

    Entries that ``MAXLEN``, ``MINID`` or ``XTRIM`` removed before they were read are a gap, found
    by counting (``entries-added``, Redis 7); so is a stream that was deleted or made anew. Entries
    that ``XDEL`` took out one by one are counted as lost only once the trimming has passed us.

    Args:
        url: ``redis://[[user]:password@]host:port/db``, ``rediss://`` or ``unix://``.
        stream: the key of the stream.
        field: the field of an entry that holds the event as JSON (see ``sources.wire``); empty:
            the fields are the columns of a row, as text.
        target: column to predict; ``None``: envelopes.
        time: column with the event time; the entries' own time where it is not given.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        begin: where a run without a commit begins, at the ``earliest`` entry or after the
            ``latest``.
        on_gap: ``fail``, or go on at the ``earliest`` entry that is left, or after the ``latest``.
        give_up_after: seconds without the server after which ``SourceError`` is raised.
        name: the first part of the ids; the key of the stream by default.
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
        field: str = "data",
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        begin: Literal["earliest", "latest"] = "earliest",
        on_gap: OnGap = "fail",
        give_up_after: Annotated[float, Field(ge=0)] = 300.0,
        name: str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = name or stream
        self._records = Records(self.name, target=target, time=time, key=key, id=id, ignore=ignore)
        self._stream, self._field = stream, field
        self._begin, self._on_gap = begin, on_gap
        self._redis = Connection(url)
        self._what = f"redis stream {stream!r}"
        self._outage = Outage(self._what, SourceError, give_up_after, clock, random)
        self._latest: Position | None = None
        self._gaps = 0
        self._lag: int | None = None

    def start(self) -> Position:
        """Before the earliest entry, or after the newest one at the first read."""
        return {"after": FIRST if self._begin == "earliest" else "$", "count": None}

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` entries after ``position``; nothing while the server is gone.

        Raises:
            SourceError: the server has been gone for too long or refuses us, the position is not
                one of ours, or entries are lost and ``on_gap`` is ``fail``.
        """
        after, count = _checked(self._what, position)
        if not self._outage.due():
            return [], position
        redis = self._redis
        try:
            if after == "$":
                position = redis.ask(self._resolved)
                after, count = position["after"], position["count"]
            reply = redis.ask(lambda: self._ask(after, n))
        except redis.lost as error:
            self._outage.failed(error)
            return [], position
        except redis.wrong as error:
            raise SourceError(f"{self._what}: {error}") from error
        self._outage.over()
        if (lost := _gap(reply, after, count)) is not None:
            return [], self._over_the_gap(lost, after, reply.info)
        return self._taken(reply, after, count)

    def finished(self, position: Position) -> bool:
        """Never: somebody may add an entry."""
        return False

    def status(self) -> SourceStatus:
        """How the last read went; ``lag`` is the number of entries after it."""
        return SourceStatus(self._outage.fault, self._lag, self._gaps)

    def close(self) -> None:
        """Let go of the connection."""
        self._redis.client.close()

    def _ask(self, after: str, n: int) -> _Reply:
        """The position's own entry, ``n`` more, and what the stream knows of itself, at one go."""
        pipe = self._redis.client.pipeline(transaction=True)
        pipe.xrange(self._stream, after, "+", count=n + 1)
        pipe.xinfo_stream(self._stream)
        found, info = pipe.execute(raise_on_error=False)
        if isinstance(found, Exception):
            raise found
        if isinstance(info, Exception):  # "no such key": the only fault that XRANGE does not share
            info = None
        entries = [(name.decode(), fields) for name, fields in found]
        whole = bool(entries) and entries[0][0] == after
        return _Reply(entries[whole : n + whole], whole, info)

    def _resolved(self) -> Position:
        """After the newest entry of the moment when it was first asked for."""
        if self._latest is None:
            info = self._ask(FIRST, 1).info
            self._latest = _end(info) if info else {"after": FIRST, "count": 0}
        return self._latest

    def _taken(self, reply: _Reply, after: str, count: int | None) -> tuple[list[Event], Position]:
        info, entries = reply.info, reply.entries
        if info is None:
            self._lag = 0
            return [], {"after": after, "count": count}
        added = info.get("entries-added")
        if after == FIRST and added is not None:
            count = added - info["length"]  # what was trimmed before anybody came is no gap
        events = [self._event(name, fields) for name, fields in entries]
        if entries:
            after = entries[-1][0]
            count = None if count is None else count + len(entries)
        if after == _text(info["last-generated-id"]):
            count = added  # exact again, where single entries had been deleted
        self._lag = None if added is None or count is None else added - count
        return events, {"after": after, "count": count}

    def _event(self, name: str, fields: dict[bytes, bytes]) -> Event:
        place = f"entry {name}"
        if not self._field:
            cells = {_text(f): _text(value) for f, value in fields.items()}
            event = self._records.row(name, place, cells)
        elif (payload := fields.get(self._field.encode())) is not None:
            event = self._records.event(name, place, payload)
        else:
            names = ", ".join(_text(f) for f in fields)
            detail = f"has no field {self._field!r}; fields: {names}"
            event = self._records.plan.rejected(name, place, "malformed", detail)
        if event.ts is None:
            event.ts = int(name.partition("-")[0]) / 1000.0
        return event

    def _over_the_gap(self, lost: str, after: str, info: dict[str, Any] | None) -> Position:
        told = f"{self._what}: {lost} after {after} were removed before they were read"
        if self._on_gap == "fail":
            raise SourceError(
                f'{told}: keep more (MAXLEN, MINID), or go on without them: on_gap = "earliest" '
                f'or "latest"'
            )
        self._gaps += 1
        _log.warning("gap", source=self.name, told=told, on_gap=self._on_gap)
        if info is None or self._on_gap == "earliest":
            return {"after": FIRST, "count": None}
        return _end(info)


def _checked(what: str, position: Position) -> tuple[str, int | None]:
    after = position.get("after")
    if not isinstance(after, str) or (after != "$" and not _is_id(after)):
        raise SourceError(
            f"{what}: position is {position!r}, expected an id like {{'after': '1700000000000-0'}}"
        )
    return after, position.get("count")


def _is_id(text: str) -> bool:
    left, dash, right = text.partition("-")
    return bool(dash) and left.isdecimal() and right.isdecimal()


def _end(info: dict[str, Any]) -> Position:
    return {"after": _text(info["last-generated-id"]), "count": info.get("entries-added")}


def _gap(reply: _Reply, after: str, count: int | None) -> str | None:
    """What was lost between ``after`` and the first entry of the reply; ``None`` for nothing.

    Trimming takes the oldest entries, so where the position's own entry still stands none after it
    is missing. Else all that was added after it must still be there.
    """
    if after == FIRST or reply.whole:
        return None
    info = reply.info
    if info is None or _order(_text(info["last-generated-id"])) < _order(after):
        return "all entries (the stream was deleted, or Redis lost its data)"
    first, added = info["first-entry"], info.get("entries-added")
    if first and _order(_text(first[0])) < _order(after):
        return None  # older ones are left: it was deleted by itself
    if added is None or count is None:
        newest = _text(info["last-generated-id"])
        return None if newest == after else "an unknown number of entries"
    missing = (added - count) - info["length"]
    return f"{missing:,} entries" if missing else None


def _order(name: str) -> tuple[int, int]:
    left, _, right = name.partition("-")
    return int(left), int(right)


def _text(value: str | bytes) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
