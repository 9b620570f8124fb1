"""What happens to a run when its server goes away, told once for all servers."""

from __future__ import annotations

from collections.abc import Callable

import servers
from running_mean import RunningMean

from streammeta.events import Predicted
from streammeta.runtime import ShardHost, run_local
from streammeta.sinks import ListSink
from streammeta.sources import Source
from streammeta.sources.base import Live
from streammeta.store import MemoryStore
from streammeta.testing import FakeClock


class Mends(FakeClock):
    """Starts the server again while somebody waits for it."""

    def __init__(self, server: servers.Server) -> None:
        super().__init__()
        self._server = server

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if not self._server.running:
            self._server.start()


def host_of(source: Source, store: MemoryStore, sink: ListSink) -> ShardHost:
    return ShardHost(source, RunningMean, store, [sink], commit_every=50)


def killed_server_and_killed_run(
    server: servers.Server, make: Callable[[], Source], fill: Callable[[int, int], None]
) -> list[str]:
    """400 rows, the server dies when 130 are learned, comes back with 300 more; then the run dies.

    What was learned and delivered must be what an uninterrupted run makes of the 700 rows.
    Returns the ids of the questions.
    """
    fill(400, 1)
    store, sink, told = MemoryStore(), ListSink(), []
    source = make()
    assert isinstance(source, Live)
    host = host_of(source, store, sink)
    host.open()

    def kill_it(outputs: object) -> None:
        if host.statistics().events >= 130 and server.running and not told:
            server.kill()

    def bring_it_back() -> None:
        if not server.running and source.status().fault:
            told.append(source.status().fault)
            server.start()
            fill(300, 401)

    run_local(host, pace="1000/s", max_events=560, on_outputs=kill_it, on_wait=bring_it_back)
    assert len(told) == 1
    assert "cannot be reached" in told[0]
    host = host_of(make(), store, sink)
    assert host.open()
    run_local(host, max_events=10)  # waits for a source that reads ahead in a thread
    host = host_of(make(), store, sink)
    host.open()
    while not host.poll(33):
        pass
    host.drop()  # as by kill -9: these were learned and never committed
    host = host_of(make(), store, sink)
    host.open()
    run_local(host, max_events=130)
    whole, wholly = MemoryStore(), ListSink()
    host = host_of(make(), whole, wholly)
    host.open()
    run_local(host, max_events=700)
    assert store.latest(0).snapshot.to_bytes() == whole.latest(0).snapshot.to_bytes()
    assert sink.outputs == wholly.outputs
    return [output.id for output in sink.outputs if isinstance(output, Predicted)]
