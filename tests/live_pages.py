"""A server with nothing but the live page, that can be stopped and started on the same port."""

from __future__ import annotations

import threading

import uvicorn
from servers import free_port
from starlette.applications import Starlette

from streammeta.live import Feed
from streammeta.live.page import page_routes


class Site:
    """Serves the page in a thread of its own; ``feed`` is what it shows."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.feed = Feed()
        config = uvicorn.Config(
            Starlette(routes=page_routes(self.feed)),
            port=self.port,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        self._server = uvicorn.Server(config)
        self._up = threading.Event()
        startup = self._server.startup

        async def told(sockets: object = None) -> None:
            await startup()
            self._up.set()

        self._server.startup = told  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        if not self._up.wait(30.0):
            raise AssertionError(f"no server at {self.url}")

    def stop(self) -> None:
        """End all streams and free the port."""
        self.feed.close()
        self._server.should_exit = True
        self._thread.join(30.0)
