"""The routes of the HTTP API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from streammeta import __version__
from streammeta.errors import RejectedEvent, SourceError
from streammeta.events import KINDS
from streammeta.serve.asking import Desk
from streammeta.serve.body import (
    BadRequest,
    answer,
    dumped,
    lines_of,
    object_of,
    only,
    parsed,
    refusal,
    text,
    text_of,
)
from streammeta.serve.guard import Guard
from streammeta.serve.inlet import Inlet, QueueFull
from streammeta.serve.openapi import description
from streammeta.serve.options import ServeConfig
from streammeta.serve.outlet import Outlet, Reader
from streammeta.serve.published import Published
from streammeta.serve.wishes import Declined, Wishes
from streammeta.sources.times import ISO

QUESTION = frozenset(["id", "key", "ts", "x"])
LABEL = frozenset(["id", "ts", "y"])
LONGEST = 86400.0  # seconds that a stream stays open
#: What an endpoint may raise on purpose.
FAULTS = (BadRequest, RejectedEvent, Declined, QueueFull, SourceError)
READ_ONLY = "this processor takes no events over HTTP: set serve.journal in its config"


class Exposed(Protocol):
    """What is shown at ``/metrics``, and whether the run is ready; ``Metrics`` is it."""

    @property
    def registry(self) -> CollectorRegistry: ...
    @property
    def ready(self) -> bool: ...


@dataclass
class Api:
    """What the routes have to do with: made by whoever runs the model.

    ``sampled`` is what the model's thread said of itself last; it is replaced, never changed.
    ``inlet`` is there where events may come, ``metrics`` where the run has them. ``stopping`` says,
    from any thread, whether the run has been told to end.
    """

    options: ServeConfig
    published: Published
    outlet: Outlet
    wishes: Wishes = field(default_factory=Wishes)
    inlet: Inlet | None = None
    metrics: Exposed | None = None
    sampled: dict[str, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time)
    stopping: Callable[[], bool] = lambda: False

    def status(self) -> dict[str, Any]:
        """What ``/v1/status`` tells."""
        scores, waiting = self.outlet.scores, None
        if self.inlet is not None:
            waiting = self.inlet.source.status().lag
        return {
            "version": __version__,
            "started": self.begun,
            "score": {"labels": scores.n, "rolling": scores.rolling, **scores.values()},
            "outputs": dict(self.outlet.counts),
            "queue": waiting,
            "copy": self.published.statistics()._asdict(),
            **self.sampled,
        }


def make_app(api: Api, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application; ``more`` routes stand behind the same guard, and go before its own."""
    desk = Desk(api.published, api.options.waiting)
    posts: dict[str, Callable[[bytes], Awaitable[Response]]] = {
        "/v1/predict": lambda body: predict(api, desk, body),
        "/v1/labels": lambda body: labels(api, body),
        "/v1/events": lambda body: events(api, body),
        "/v1/adapt": lambda body: adapt(api, body),
        "/v1/snapshot": lambda body: snapshot(api, body),
    }
    gets: dict[str, Callable[[Request], Response]] = {
        "/v1/status": lambda request: status(api, request),
        "/v1/drifts": lambda request: drifts(api, request),
        "/v1/stream": lambda request: stream(api, request),
        "/openapi.json": lambda request: answer(200, description(__version__)),
        "/metrics": lambda request: metrics(api, request),
        "/livez": lambda request: PlainTextResponse("ok\n"),
        "/readyz": lambda request: ready(api),
    }
    routes = [Route(path, _posted(take), methods=["POST"]) for path, take in posts.items()]
    routes += [Route(path, _asked(take), methods=["GET"]) for path, take in gets.items()]
    return Starlette(
        routes=[*more, *routes],
        middleware=[Middleware(Guard, options=api.options)],
        exception_handlers={HTTPException: _http_fault},
    )


# -- questions and answers -----------------------------------------------------------------------


async def predict(api: Api, desk: Desk, body: bytes) -> Response:
    """What the published copy says; with an ``id`` a question of the stream besides."""
    asked = object_of(body)
    only(asked, QUESTION)
    name, key = text(asked, "id"), text(asked, "key") or ""
    x = asked.get("x")
    if not isinstance(x, dict):
        raise BadRequest(422, "the body needs 'x', an object of features")
    ISO.seconds(asked.get("ts"))
    (prediction, shares), rows = await desk.ask((x, key))
    told: dict[str, Any] = {"prediction": prediction, "rows": rows}
    if shares is not None:
        told["probabilities"] = {str(label): share for label, share in shares.items()}
    if name is not None:
        told |= {"id": name, "record": await _inlet(api).put([body.replace(b"\n", b" ")])}
    return answer(200, told)


async def labels(api: Api, body: bytes) -> Response:
    """One answer or a list of them, each of which a question with its ``id`` waits for."""
    found = parsed(text_of(body))
    rows = found if isinstance(found, list) else [found]
    for number, row in enumerate(rows, 1):
        place = f"label {number}"
        if not isinstance(row, dict):
            raise BadRequest(422, f"{place}: expected an object with 'id' and 'y'")
        only(row, LABEL, place)
        ISO.seconds(row.get("ts"))
        if not text(row, "id", place):
            raise BadRequest(422, f"{place}: 'id' is missing: which question does it answer?")
        if not isinstance(row.get("y"), (str, int, float, bool)):
            raise BadRequest(422, f"{place}: 'y' is missing, or neither text, number nor boolean")
    return await _take(api, [json.dumps(row).encode() for row in rows])


async def events(api: Api, body: bytes) -> Response:
    """One event or row per line."""
    return await _take(api, [line.encode() for line, _ in lines_of(body)])


async def _take(api: Api, records: list[bytes]) -> Response:
    inlet = _inlet(api)
    if not records:
        raise BadRequest(422, "the body is empty, expected one event at least")
    first = await inlet.put(records)
    return answer(200, {"accepted": len(records), "first": first})


def _inlet(api: Api) -> Inlet:
    if api.inlet is None:
        raise Declined(READ_ONLY)
    return api.inlet


# -- the model's thread --------------------------------------------------------------------------


async def adapt(api: Api, body: bytes) -> Response:
    """Adapt now, whatever the detectors say."""
    wanted = object_of(body) if body.strip() else {}
    only(wanted, frozenset(["key"]))
    return answer(200, await api.wishes.ask("adapt", text(wanted, "key") or ""))


async def snapshot(api: Api, body: bytes) -> Response:
    """Commit now."""
    only(object_of(body) if body.strip() else {}, frozenset())
    return answer(200, await api.wishes.ask("snapshot"))


# -- what is told --------------------------------------------------------------------------------


def status(api: Api, request: Request) -> Response:
    """How it goes."""
    asks_only(request)
    return answer(200, api.status())


def drifts(api: Api, request: Request) -> Response:
    """The newest alarms, the last one first."""
    asks_only(request, "limit")
    known, limit = list(api.outlet.drifts), request.query_params.get("limit", "50")
    if not (limit.isascii() and limit.isdecimal()) or len(limit) > 9:
        raise BadRequest(422, f"limit is {limit[:40]!r}, expected a whole number")
    return answer(200, {"since": api.begun, "drifts": known[::-1][: int(limit)]})


def stream(api: Api, request: Request) -> Response:
    """Outputs as server-sent events."""
    asks_only(request, "kinds", "seconds")
    named = [kind for kind in request.query_params.get("kinds", "").split(",") if kind]
    for kind in named:
        if kind not in KINDS:
            told = f"kinds: no output is called {kind[:40]!r}; known: {', '.join(KINDS)}"
            raise BadRequest(422, told)
    try:
        seconds = float(request.query_params.get("seconds", LONGEST))
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= LONGEST:
        raise BadRequest(422, f"seconds: expected a number from 0 to {LONGEST:g}")
    seconds = 0.0 if request.method == "HEAD" else seconds
    return _Stream(api.outlet, api.outlet.join(frozenset(named)), seconds)


def asks_only(request: Request, *known: str) -> None:
    """Refuse a query parameter that would have no effect: it may be a known one with a slip.

    Raises:
        BadRequest: there is one.
    """
    for name in request.query_params:
        if name not in known:
            told = f"known: {', '.join(known)}" if known else "none is known here"
            raise BadRequest(422, f"no query parameter is called {name[:40]!r}; {told}")


class _Stream(StreamingResponse):
    """A reader's outputs; however it ends, the reader leaves."""

    def __init__(self, outlet: Outlet, reader: Reader, seconds: float) -> None:
        self._outlet, self._reader = outlet, reader
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_sent(reader, seconds), headers=headers, media_type="text/event-stream")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._outlet.leave(self._reader)


async def _sent(reader: Reader, seconds: float) -> AsyncIterator[str]:
    yield ": outputs as they come\n\n"
    lost = 0
    async for batch in reader.batches(seconds):
        if reader.lost > lost:
            yield f'event: lost\ndata: {{"outputs":{reader.lost - lost}}}\n\n'
            lost = reader.lost
        yield (
            "".join(
                f"id: {number}\nevent: {record['kind']}\ndata: {dumped(record)}\n\n"
                for number, record in batch
            )
            or ": nothing new\n\n"
        )


def ready(api: Api) -> Response:
    """Whether to send requests here: not while the run drains. Nobody asks before there is a model:
    the server starts after that."""
    if api.stopping():
        return refusal(503, "the run has been told to end")
    return PlainTextResponse("ready\n")


def metrics(api: Api, request: Request) -> Response:
    """What Prometheus scrapes."""
    if api.metrics is None:
        return refusal(404, "metrics are switched off")
    encode, kind = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(api.metrics.registry), headers={"Content-Type": kind})


# -- around the routes ---------------------------------------------------------------------------


def _posted(take: Callable[[bytes], Awaitable[Response]]) -> Callable[..., Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await take(await request.body())
        except FAULTS as fault:
            return _told(fault)

    return endpoint


def _asked(take: Callable[[Request], Response]) -> Callable[..., Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return take(request)
        except FAULTS as fault:
            return _told(fault)

    return endpoint


def _told(fault: Exception) -> Response:
    """The answer that says what is wrong."""
    match fault:
        case BadRequest():
            return refusal(fault.status, str(fault))
        case RejectedEvent():
            return refusal(422, fault.detail)
        case Declined():
            return refusal(409, str(fault))
        case QueueFull():
            return refusal(429, str(fault), again=1)
    return refusal(503, str(fault), again=5)


def _http_fault(request: Request, fault: Exception) -> Response:
    assert isinstance(fault, HTTPException)
    response = refusal(fault.status_code, fault.detail)
    response.headers.update(fault.headers or {})
    return response
