"""Messages of a WebSocket server as a source."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from time import monotonic
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field

from streammeta.errors import UsageError
from streammeta.events import Event
from streammeta.sources.clock import Clock
from streammeta.sources.journal import Fsync
from streammeta.sources.journaled import Inbox
from streammeta.sources.pulled import CONNECT, TURN, PulledSource, header_lines
from streammeta.sources.wire import Records

AT_ONCE = 1000  # messages that one sync of the journal covers, at most
QUIET = 20.0  # seconds without a message after which the server is asked whether it is there
TOO_BIG = 1009  # the code by which a connection is closed over a message's length
_WHOLE, _CUT = b"\0", b"\1"  # first byte of a record: a message, or why there is none


class WebSocketSource(PulledSource):
    """Messages that a server sends, journaled before they are read; each is JSON.

    What was sent while nobody was connected is lost, as is what was on its way when the connection
    or the process ended: WebSockets know no way to ask for it again. Nothing that was read from the
    connection is lost or taken twice.
    While ``queue`` messages wait to be read nothing is taken from the connection; most servers then
    close it.

    The server is asked for again a second after it has closed the connection, and with growing
    spaces where it cannot be reached. A message that is too long is a rejected event, and costs the
    connection.

    Args:
        url: ``ws://`` or ``wss://``.
        journal: folder of the journal.
        subscribe: texts to send after every connecting, such as ``{"op": "subscribe"}``.
        token: where given, sent as ``Authorization: Bearer TOKEN``.
        headers: further headers of the handshake, as ``Name: value``.
        target: column to predict; ``None``: envelopes (see ``sources.wire``).
        time: column with the event time.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        max_bytes: longest message.
        queue: messages in the journal that nobody has read, at most.
        fsync: ``always``, or ``never`` to leave it to the system.
        give_up_after: seconds without the server after which ``SourceError`` is raised.
        name: the first part of the ids ``name:0:record``.
        clock: time; the machine's own by default.
        random: for the jitter between tries.

    Raises:
        UsageError: the package is missing, the address or a header is none, or a column is given
            two parts.
    """

    def __init__(
        self,
        url: str,
        journal: str,
        *,
        subscribe: Sequence[str] = (),
        token: str | None = None,
        headers: Sequence[str] = (),
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        max_bytes: Annotated[int, Field(ge=1)] = 1024 * 1024,
        queue: Annotated[int, Field(ge=1)] = 10_000,
        fsync: Fsync = "always",
        give_up_after: Annotated[float, Field(ge=0)] = 300.0,
        name: str = "websocket",
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        try:
            import websockets.sync.client as client
            from websockets import exceptions
        except ImportError as error:
            raise UsageError(
                "WebSockets need the package websockets: pip install streammeta[websocket]"
            ) from error
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise UsageError(f"{name}: url is {url!r}, expected ws://... or wss://...")
        records = Records(name, target=target, time=time, key=key, id=id, ignore=ignore)
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        super().__init__(name, records, journal, queue, fsync, shown, give_up_after, clock, random)
        self._client, self._faults = client, exceptions
        self._url, self._headers = url, header_lines(headers, token)
        self._subscribe, self._max_bytes = tuple(subscribe), max_bytes

    def _event(self, number: int, record: bytes) -> Event:
        if record[:1] == _CUT:
            told = record[1:].decode()
            return self._records.plan.rejected(number, f"record {number}", "malformed", told)
        return self._records.event(number, f"record {number}", record[1:])

    def _interrupt(self) -> None:
        """Nothing to do: the session looks up often enough."""

    def _session(self, inbox: Inbox) -> None:
        faults = self._faults
        try:
            with self._client.connect(
                self._url,
                additional_headers=self._headers,
                max_size=self._max_bytes,
                open_timeout=CONNECT,
                close_timeout=TURN,
                ping_interval=None,  # asked below: while we do not read, no answer comes
            ) as link:
                for text in self._subscribe:
                    link.send(text)
                self._connected()
                self._take(inbox, link)
        except faults.InvalidStatus as error:
            status = error.response.status_code
            raise self._refused(status, f"answers {status}") from error
        except faults.ConnectionClosed as error:
            if error.sent is not None and error.sent.code == TOO_BIG:
                told = f"a message of more than {self._max_bytes} bytes, the connection is lost"
                self._keep(inbox, [_CUT + told.encode()])
            elif not isinstance(error, faults.ConnectionClosedOK):
                raise ConnectionError(str(error)) from error
        except faults.WebSocketException as error:
            raise ConnectionError(f"{type(error).__name__}: {error}") from error

    def _take(self, inbox: Inbox, link: Any) -> None:
        heard, answer = monotonic(), None
        while not self._stop.is_set():
            messages = self._some(link)
            if messages:
                self._keep(inbox, messages)
                heard, answer = monotonic(), None
            elif answer is not None and answer.is_set():
                heard, answer = monotonic(), None
            elif monotonic() - heard > QUIET:
                if answer is not None:
                    raise ConnectionError(f"no answer to a ping in {QUIET:g} s")
                heard, answer = monotonic(), link.ping()

    def _some(self, link: Any) -> list[bytes]:
        """What is there; waits a moment for the first of them."""
        found: list[bytes] = []
        try:
            while len(found) < AT_ONCE:
                message = link.recv(timeout=0 if found else TURN)
                found.append(_WHOLE + (message.encode() if isinstance(message, str) else message))
        except TimeoutError:
            pass
        except self._faults.ConnectionClosed:
            if not found:
                raise
        return found
