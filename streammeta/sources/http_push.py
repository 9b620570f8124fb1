"""Events that are posted to us over HTTP."""

from __future__ import annotations

import hmac
import json
import sys
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any

import structlog
from pydantic import Field

from streammeta.errors import SourceError
from streammeta.sources.journal import Fsync
from streammeta.sources.journaled import Inbox, JournaledSource
from streammeta.sources.wire import Records

CONNECTIONS = 64  # served at once; more wait to be accepted
IDLE = 10.0  # seconds after which a silent connection is closed
_log = structlog.get_logger("streammeta.sources")


class HttpSource(JournaledSource):
    """``POST /events`` with one JSON event or row per line; the answer comes when they are safe.

    The lines of a request are journaled and synced before the answer: 200 with their numbers,
    ``{"accepted": 2, "first": 40}``. Otherwise none of them was taken: 401 without the token, 404
    for another path, 405 for another method, 411 without a length, 413 for too long a body, 429
    while ``queue`` events wait to be read (come back after the seconds in ``Retry-After``), 503
    when the journal cannot be written. A line that is no event is taken, and becomes a rejected
    event.

    An answer may get lost on its way: whoever posts again should give events an ``id``.

        curl --data-binary '{"id": "a", "x": {"temp": 21.5}}' http://127.0.0.1:8787/events

    Args:
        journal: folder of the journal.
        host: address to listen at.
        port: 0 takes any free one, see ``address``.
        path: the path of the requests.
        token: where given, requests need ``Authorization: Bearer TOKEN``.
        max_bytes: longest body.
        target: column to predict; ``None``: envelopes (see ``sources.wire``).
        time: column with the event time.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        queue: events in the journal that nobody has read, at most.
        fsync: ``always``, or ``never`` to leave it to the system.
        name: the first part of the ids ``name:0:record``.

    Raises:
        UsageError: a column is given two parts.
    """

    def __init__(
        self,
        journal: str,
        *,
        host: str = "127.0.0.1",
        port: Annotated[int, Field(ge=0, le=65535)] = 8787,
        path: str = "/events",
        token: str | None = None,
        max_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024,
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        queue: Annotated[int, Field(ge=1)] = 10_000,
        fsync: Fsync = "always",
        name: str = "http",
    ) -> None:
        records = Records(name, target=target, time=time, key=key, id=id, ignore=ignore)
        super().__init__(name, records, journal, queue, fsync)
        self._host, self._port = host, port
        self.path, self.token, self.max_bytes = path, token, max_bytes
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where to post to; known once the first read has started the server."""
        if self._server is None:
            return f"http://{self._host}:{self._port}{self.path}"
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}{self.path}"

    def _listen(self, inbox: Inbox) -> None:
        try:
            self._server = _Server((self._host, self._port), _handler(self, inbox))
        except OSError as error:
            raise SourceError(
                f"{self.name}: cannot listen at {self._host}:{self._port}: {error.strerror}"
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=f"{self.name}-post", daemon=True
        )
        self._thread.start()

    def _hush(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None


class _Server(ThreadingHTTPServer):
    """One thread per connection, so many at most: the next one waits in the listen queue."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._free.acquire()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is no news; anything else is."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            _log.error("request failed", error=repr(error))


def _handler(source: HttpSource, inbox: Inbox) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = IDLE

        def do_POST(self) -> None:
            if self.path.partition("?")[0] != source.path:
                return self._refuse(404, f"post to {source.path}")
            if source.token is not None and not self._let_in(source.token):
                return self._refuse(401, "expected Authorization: Bearer TOKEN")
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                return self._refuse(411, "expected Content-Length")
            if int(length) > source.max_bytes:
                return self._refuse(413, f"at most {source.max_bytes} bytes")
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                return self._refuse(400, "the body is shorter than its Content-Length")
            lines = [line for line in map(bytes.strip, body.split(b"\n")) if line]
            return self._take(lines)

        def _take(self, lines: list[bytes]) -> None:
            try:
                first = inbox.put(lines)
            except SourceError as error:
                return self._answer(503, {"error": str(error)})
            if first is None:
                told = f"{inbox.queue} events wait to be read"
                return self._answer(429, {"error": told}, {"Retry-After": "1"})
            return self._answer(200, {"accepted": len(lines), "first": first})

        def _let_in(self, token: str) -> bool:
            given = self.headers.get("Authorization", "")
            return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())

        def _other(self) -> None:
            self._refuse(405, "expected POST")

        do_GET = do_PUT = do_DELETE = _other  # noqa: N815 - so the base class calls them

        def _refuse(self, status: int, told: str) -> None:
            """Answer without having read the body: the connection cannot go on."""
            self.close_connection = True
            self._answer(status, {"error": told}, {"Connection": "close"})

        def _answer(
            self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            data = json.dumps(body).encode() + b"\n"
            self.send_response(status)
            fixed = {"Content-Type": "application/json", "Content-Length": str(len(data))}
            for name, value in {**fixed, **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Every request is an event, or refused: the sender knows."""

    return Handler
