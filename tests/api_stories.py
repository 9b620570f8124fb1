"""A run with its HTTP API in this process, and a client: for stories about ``[serve]``."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streammeta.cli.assembly import assemble
from streammeta.cli.serving import Serving
from streammeta.config_file import load_config
from streammeta.engine import Engine
from streammeta.metrics import Metrics
from streammeta.runtime import ShardHost, run_local

PATIENCE = 60.0  # seconds until something that has to come is given up
ALONE = """
[serve]
port = 0
journal = "journal"
fsync = "never"
{serve}

[model]
task = "{task}"
seed = 3

[metrics]
enabled = false
{more}
"""


def config(folder: Path, serve: str = "", more: str = "", task: str = "classification") -> Path:
    """A config with the API alone."""
    path = folder / "run.toml"
    path.write_text(ALONE.format(serve=serve, more=more, task=task))
    return path


class Running:
    """An open run; ``drive`` starts the thread in which its model works."""

    def __init__(self, path: Path) -> None:
        settings = load_config(path).config
        assert settings.serve is not None
        self.parts = assemble(path, settings)
        self.metrics = Metrics("streammeta", self.parts.model.task)
        self._stop = threading.Event()
        self.serving = Serving(settings.serve, self.parts, self.metrics, self._stop.is_set)
        every = settings.checkpoint.every_events if settings.checkpoint else 1000
        self.host = ShardHost(
            self.parts.source,
            self.serving.make(),
            self.parts.store,
            [*self.parts.sinks, self.serving.outlet],
            commit_every=every,
            observer=self.metrics,
        )
        self.parts.source.read(self.parts.source.start(), 0)
        self.host.open()
        self.metrics.ready = True
        self.serving.start(self.host)
        self.token: str | None = settings.serve.token
        self._thread: threading.Thread | None = None

    @property
    def engine(self) -> Engine:
        model = self.serving._model
        assert model is not None
        return model.engine

    @property
    def state(self) -> bytes:
        """Everything that the model is."""
        return self.engine.snapshot().to_bytes()

    def drive(self) -> Running:
        self._thread = threading.Thread(
            target=run_local,
            args=(self.host,),
            kwargs={
                "stop": self._stop.is_set,
                "on_outputs": lambda outputs: self.serving.pause(),
                "on_wait": self._rest,
                "on_turn": self.serving.turn,
            },
        )
        self._thread.start()
        return self

    def _rest(self) -> None:
        self.serving.pause()
        self.serving.sample(self.host)

    def stop(self) -> None:
        """What SIGTERM does: the run ends after its chunk; the server is still there."""
        self._stop.set()

    def close(self) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()
        else:
            self.host.close()
        self.serving.close()

    # -- the client ------------------------------------------------------------------------------

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, JSON (or text) and headers of an answer."""
        host, _, port = self.serving.address.removeprefix("http://").rpartition(":")
        link = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
        sent = {"Content-Type": "application/json"} if body is not None else {}
        if self.token is not None:
            sent["Authorization"] = f"Bearer {self.token}"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            link.request(method, path, data, {n: v for n, v in sent.items() if v})
            answer = link.getresponse()
            told = answer.read()
            kind = answer.getheader("Content-Type", "")
            found = json.loads(told) if kind.startswith("application/json") else told.decode()
            return answer.status, found, {n.lower(): v for n, v in answer.getheaders()}
        finally:
            link.close()

    def get(self, path: str, **headers: str) -> Any:
        status, told, _ = self.ask("GET", path, **headers)
        assert status == 200, told
        return told

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        status, told, _ = self.ask("POST", path, body, **headers)
        assert status == 200, told
        return told

    def send(self, events: list[dict[str, Any]]) -> Any:
        """Events by ``/v1/events``."""
        lines = b"".join(json.dumps(event).encode() + b"\n" for event in events)
        return self.post("/v1/events", lines, Content_Type="application/x-ndjson")

    def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first status of which something is ``true``."""
        end = time.monotonic() + PATIENCE
        while not true(status := self.get("/v1/status")):
            assert time.monotonic() < end, status
            time.sleep(0.01)
        return status

    def learned(self, labels: int) -> dict[str, Any]:
        """Wait until so many labels are learned and shown."""
        return self.until(
            lambda told: told["score"]["labels"] >= labels and not told["copy"]["stale"]
        )
