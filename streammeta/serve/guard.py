"""Who may ask, how often, and how much at once: refused before anything is looked at."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from time import monotonic

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streammeta.serve.body import JSON, LINES, refusal
from streammeta.serve.options import ServeConfig

OPEN = ("/livez", "/readyz")  # for whoever looks after the process, who has no token
ADDRESSES = 10_000  # whose rates are remembered
PASSED_OVER = 4 * 1024 * 1024  # bytes of a refused body that are read all the same
ASKS = 'Bearer realm="streammeta", Basic realm="streammeta"'


class Rates:
    """A token bucket for each address, of one second's worth: the oldest address is forgotten
    first."""

    def __init__(self, per_second: float, clock: Callable[[], float] = monotonic) -> None:
        self.per_second, self._clock = per_second, clock
        self._size = max(per_second, 1.0)
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, as of when

    def wait(self, address: str) -> float:
        """0, and a token is taken; or the seconds until there is one."""
        now = self._clock()
        left, then = self._left.pop(address, (self._size, now))
        left = min(left + (now - then) * self.per_second, self._size)
        enough = left >= 1.0
        self._left[address] = (left - enough, now)
        if len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return 0.0 if enough else (1.0 - left) / self.per_second


class TooLong(Exception):  # noqa: N818 - what it is, not a fault
    """A body without a length has turned out to be longer than allowed."""


class Guard:
    """ASGI middleware: the host's name, the rate, the token, the kind and the length of the body.

    The token is a bearer token, or the password of HTTP Basic (any user), which browsers can ask
    for. Without a token pages of other sites, which run in a browser on this machine, are kept out:
    a body has to say that it is JSON, which such a page may not send unasked, and on a loopback
    address the request has to be for an address or ``localhost``, not for a name that somebody has
    made to point here.
    """

    def __init__(self, app: ASGIApp, options: ServeConfig) -> None:
        self.app, self.options = app, options
        rate = options.requests_per_second
        self._rates = None if rate is None else Rates(rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            if not await _passed_over(headers, receive):
                refused.headers["Connection"] = "close"
            return await refused(scope, receive, send)
        answered, taken = False, 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.options.max_bytes:
                raise TooLong
            return message

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except TooLong:
            if not answered:
                response = self._too_long()
                response.headers["Connection"] = "close"
                await response(scope, receive, send)
        return None

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        options = self.options
        if options.token is None and options.loopback and not _here(headers.get("host", "")):
            return refusal(421, "ask for localhost, or for the address")
        if self._rates is not None:
            wait = self._rates.wait((scope.get("client") or ("",))[0])
            if wait:
                told = f"more than {options.requests_per_second:g} requests a second"
                return refusal(429, told, again=int(wait) + 1)
        if not (scope["path"] in OPEN or _let_in(headers, options.token)):
            response = refusal(401, "expected Authorization: Bearer TOKEN")
            response.headers["WWW-Authenticate"] = ASKS
            return response
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > options.max_bytes:
            return self._too_long()
        if scope["method"] == "POST" and (length != "0" or "transfer-encoding" in headers):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in (JSON, LINES):
                return refusal(415, f"expected Content-Type: {JSON}, or {LINES}")
        return None

    def _too_long(self) -> Response:
        return refusal(413, f"at most {self.options.max_bytes} bytes")


async def _passed_over(headers: Headers, receive: Receive) -> bool:
    """Whether the body could be read and thrown away: a client that is still sending when it is
    hung up on may never see the answer. What is very long is not worth it."""
    length, taken = headers.get("content-length", "0"), 0
    if not length.isdecimal() or int(length) > PASSED_OVER:
        return False
    while taken <= PASSED_OVER:
        message = await receive()
        taken += len(message.get("body", b""))
        if not message.get("more_body", False):
            return True
    return False


def _here(host: str) -> bool:
    """Whether a ``Host`` is an address or localhost."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _let_in(headers: Headers, token: str | None) -> bool:
    """Whether the token is there; compared in a time that tells nothing of it."""
    if token is None:
        return True
    given = headers.get("authorization", "")
    how, _, what = given.partition(" ")
    if how.lower() == "basic":
        try:
            what = base64.b64decode(what, validate=True).decode("latin-1").partition(":")[2]
        except (binascii.Error, ValueError):
            return False
    elif how.lower() != "bearer":
        return False
    return hmac.compare_digest(what.strip().encode("latin-1", "replace"), token.encode())
