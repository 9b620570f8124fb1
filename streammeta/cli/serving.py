"""The HTTP API of ``streammeta run``: what the run and its server have to do with each other."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import TYPE_CHECKING

from streammeta.live import Collector
from streammeta.live.feed import Feed
from streammeta.live.page import page_routes
from streammeta.serve.app import Api
from streammeta.serve.inlet import Inlet
from streammeta.serve.outlet import Outlet
from streammeta.serve.published import Published, PublishedModel, warm_up
from streammeta.serve.server import ApiServer
from streammeta.sources.base import Live

if TYPE_CHECKING:
    from streammeta.cli.assembly import Parts
    from streammeta.events import Output
    from streammeta.metrics import Metrics
    from streammeta.runtime import ShardHost
    from streammeta.serve.options import ServeConfig
    from streammeta.snapshot import Snapshot


class Serving:
    """Everything but ``start`` and ``close`` is called in the model's thread.

    ``make`` is what the host builds its model with, and ``outlet`` one of its sinks. ``stopping``
    says whether the run has been told to end.
    """

    def __init__(
        self,
        options: ServeConfig,
        parts: Parts,
        metrics: Metrics | None,
        stopping: Callable[[], bool],
    ) -> None:
        self.outlet = Outlet(parts.model.task, options.streams)
        inlet = None if parts.inlet is None else Inlet(parts.inlet, options.waiting)
        self.api = Api(
            options, Published(), self.outlet, inlet=inlet, metrics=metrics, stopping=stopping
        )
        self._parts, self._config = parts, parts.model
        self._model: PublishedModel | None = None
        self._host: ShardHost | None = None
        self._server: ApiServer | None = None
        self._collector = Collector(parts.source.name, parts.model.task)
        self._feed = Feed()
        self._epoch = 0

    def make(self, *, new: bool = False) -> Callable[[Snapshot | None], PublishedModel]:
        """What the host calls for an engine, ``new`` or taken up again, that publishes itself."""
        make = self._parts.make(new=new)

        def made(snapshot: Snapshot | None) -> PublishedModel:
            self._model = PublishedModel(make(snapshot), self.api.published)
            return self._model

        return made

    def start(self, host: ShardHost) -> None:
        """Answer requests; ``host`` is open.

        Raises:
            SinkError: the address cannot be used.
        """
        self._host = host
        warm_up(self._config)
        gc.collect()
        gc.freeze()  # code is never garbage: to look through all of it stops everybody for .2 s
        self.sample(host)
        self._server = ApiServer(self.api, more=lambda api: page_routes(self._feed))

    @property
    def address(self) -> str:
        """Where it answers, once it has started."""
        return "" if self._server is None else self._server.address

    def turn(self) -> None:
        """Between two polls: do what was asked for."""
        if self._host is not None and self._model is not None:
            self.api.wishes.grant(self._host, self._model)

    def take(self, outputs: Sequence[Output]) -> None:
        """What came of some events, for the live page."""
        self._collector.record(outputs)
        if self._collector.curious and self._model is not None:
            self._collector.sample(self._model.statistics())

    def pause(self) -> None:
        """After a poll, and whenever there is nothing to do: let everybody see what was learned."""
        if self._model is not None:
            self._model.publish()
        if self._feed.due(monotonic()):
            self._feed.take(self._collector.look(time()))

    def sample(self, host: ShardHost) -> None:
        """A look at the model and its source, for ``/v1/status``."""
        assert self._model is not None  # the host is open
        here, source = host.statistics(), host.source
        told = {
            "source": source.name,
            "events": here.events,
            "epoch": here.epoch,
            "last_event": here.ts,
            "model": self._model.statistics()._asdict(),
        }
        if here.epoch > self._epoch:
            self._epoch = here.epoch
            self._collector.committed(time())
        if isinstance(source, Live):
            self._collector.lag(source.status().lag)
            told |= {"fault": source.status().fault, "lag": source.status().lag}
        self.api.sampled = told

    def close(self) -> None:
        """Stop answering; closing twice is fine."""
        self._feed.close()
        if self._server is not None:
            self._server.close()
            self._server = None
