"""Events that an HTTP server sends as a stream (server-sent events), as a source."""

from __future__ import annotations

import socket
import ssl
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from random import Random
from typing import Annotated
from urllib.parse import urljoin, urlsplit

from pydantic import Field

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.clock import Clock
from streammeta.sources.event_stream import EventStream, Message
from streammeta.sources.journal import Fsync
from streammeta.sources.journaled import Inbox
from streammeta.sources.pulled import CONNECT, PulledSource, header_lines
from streammeta.sources.wire import Records

REMEMBERED = 10_000  # newest records whose ids are known again when a server repeats them
REDIRECTS = 5
BLOCK = 65_536  # bytes read at once
_HEADER = struct.Struct("<QHH")  # of a record: bytes of its data, of its id, of its type
_FOLLOW = (301, 302, 303, 307, 308)
NOTHING_MORE = 204


class SseSource(PulledSource):
    """``GET url`` with ``Accept: text/event-stream``; each message is an event, its data JSON.

    Messages are journaled and synced before they are read. When the connection breaks, or the
    process was killed, the stream is asked for again with the id of the last message in the journal
    as ``Last-Event-ID``: a server that keeps a history goes on right after it, and nothing is
    lost. One that repeats older messages instead is heard out without taking them twice, as far as
    the ids of the last 10,000 go. Of a server that gives no ids, or keeps nothing, what it sends
    while we are away is lost; nothing that came is.

    While ``queue`` messages wait to be read nothing is taken from the connection, and the server
    has to wait. It is asked again ``retry`` milliseconds (the server's own word, else a second)
    after the stream has ended; the answer 204 means that there will be no more.

    Args:
        url: ``http://`` or ``https://``; redirects are followed, without the token to other hosts.
        journal: folder of the journal.
        events: types of the messages to take; all by default.
        token: where given, sent as ``Authorization: Bearer TOKEN``.
        headers: further headers, as ``Name: value``.
        target: column to predict; ``None``: envelopes (see ``sources.wire``).
        time: column with the event time.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        max_bytes: longest data of a message; a longer one is a rejected event.
        idle: seconds of silence after which the connection is taken for dead; comments count.
        queue: messages in the journal that nobody has read, at most.
        fsync: ``always``, or ``never`` to leave it to the system.
        give_up_after: seconds without the server after which ``SourceError`` is raised.
        name: the first part of the ids ``name:0:record``.
        clock: time; the machine's own by default.
        random: for the jitter between tries.

    Raises:
        UsageError: the address or a header is none, or a column is given two parts.
    """

    def __init__(
        self,
        url: str,
        journal: str,
        *,
        events: Sequence[str] | None = None,
        token: str | None = None,
        headers: Sequence[str] = (),
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        max_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024,
        idle: Annotated[float, Field(gt=0)] = 300.0,
        queue: Annotated[int, Field(ge=1)] = 10_000,
        fsync: Fsync = "always",
        give_up_after: Annotated[float, Field(ge=0)] = 300.0,
        name: str = "sse",
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"{name}: url is {url!r}, expected http://... or https://...")
        records = Records(name, target=target, time=time, key=key, id=id, ignore=ignore)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        super().__init__(name, records, journal, queue, fsync, shown, give_up_after, clock, random)
        self._url, self._headers = url, header_lines(headers, token)
        self._types = None if events is None else frozenset(events)
        self._max_bytes, self._idle = max_bytes, idle
        self._known: OrderedDict[str, None] = OrderedDict()  # ids, the newest last
        self._socket: socket.socket | None = None

    def _event(self, number: int, record: bytes) -> Event:
        size, _, data = _opened(record)
        place = f"record {number}"
        if size > len(data):
            told = f"{size} bytes, of which max_bytes let in {len(data)}"
            return self._records.plan.rejected(number, place, "malformed", told)
        return self._records.event(number, place, data)

    def _listen(self, inbox: Inbox) -> None:
        self._known.clear()
        journal = inbox.journal
        first = max(journal.end - REMEMBERED, journal.first)
        for record in journal.read(first, REMEMBERED):
            self._remember(_opened(record)[1])
        super()._listen(inbox)

    def _interrupt(self) -> None:
        link = self._socket
        if link is not None:
            with suppress(OSError):  # it may have gone by itself
                link.shutdown(socket.SHUT_RDWR)

    def _session(self, inbox: Inbox) -> None:
        try:
            with self._asked(self._url) as answer:
                if answer.status == NOTHING_MORE:
                    self._ended = True
                    return
                self._check(answer)
                self._connected()
                self._take(inbox, answer)
        except (HTTPException, ValueError) as error:  # ValueError: of a link that was closed
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        finally:
            self._socket = None

    @contextmanager
    def _asked(self, url: str) -> Iterator[HTTPResponse]:
        """The answer to the request, after redirects."""
        headers: dict[str, str | bytes] = {"Accept": "text/event-stream", **self._headers}
        headers["Cache-Control"] = "no-store"
        if self._known:
            headers["Last-Event-ID"] = next(reversed(self._known)).encode()
        for _ in range(REDIRECTS + 1):
            parts = urlsplit(url)
            with closing(_link(url)) as link:
                link.connect()
                self._socket = link.sock
                if self._stop.is_set():
                    raise ConnectionError("stopped")
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                link.request("GET", target, headers=headers)
                with closing(link.getresponse()) as answer:
                    where = answer.getheader("Location")
                    if answer.status not in _FOLLOW or where is None:
                        yield answer
                        return
            url = urljoin(url, where)
            if urlsplit(url).netloc != parts.netloc:
                headers.pop("Authorization", None)
            if urlsplit(url).scheme not in ("http", "https"):
                break
        raise SourceError(f"{self._server}: redirects to {url}: too many times, or to nowhere")

    def _check(self, answer: HTTPResponse) -> None:
        if answer.status != 200:
            raise self._refused(answer.status, f"answers {answer.status} {answer.reason}")
        kind = answer.getheader("Content-Type", "nothing").partition(";")[0].strip()
        if kind.lower() != "text/event-stream":
            raise self._refused(0, f"answers with {kind}, expected text/event-stream")

    def _take(self, inbox: Inbox, answer: HTTPResponse) -> None:
        stream = EventStream(self._max_bytes)
        repeats = bool(self._known)  # until something comes that is new
        if self._socket is not None:
            self._socket.settimeout(self._idle)
        while data := answer.read1(BLOCK):
            records = []
            for message in stream.feed(data):
                if self._types is not None and message.event not in self._types:
                    continue
                if repeats and message.id is not None:
                    if message.id in self._known:
                        continue
                    repeats = False
                records.append(message)
            self._keep(inbox, [_closed(message) for message in records])
            for message in records:
                self._remember(message.id or "")
            if stream.retry is not None:
                self._pause = stream.retry / 1000
            if self._stop.is_set():
                return

    def _remember(self, own: str) -> None:
        if own:
            self._known.pop(own, None)
            self._known[own] = None
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


def _link(url: str) -> HTTPConnection:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return HTTPSConnection(host, parts.port, timeout=CONNECT, context=context)
    return HTTPConnection(host, parts.port, timeout=CONNECT)


def _closed(message: Message) -> bytes:
    own = (message.id or "").encode()[:0xFFFF]
    event = message.event.encode()[:0xFFFF]
    return _HEADER.pack(message.size, len(own), len(event)) + own + event + message.data


def _opened(record: bytes) -> tuple[int, str, bytes]:
    """How long the data was, the id, the data."""
    size, own, event = _HEADER.unpack_from(record)
    start = _HEADER.size + own
    return size, record[_HEADER.size : start].decode(errors="replace"), record[start + event :]
