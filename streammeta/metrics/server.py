"""The small server of a run that has no other: metrics and probes over HTTP."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from streammeta import __version__
from streammeta.errors import UsageError
from streammeta.metrics.recorder import Metrics


class MetricsServer:
    """``/metrics`` (OpenMetrics by negotiation), ``/livez``, ``/readyz`` in a thread of its own.

    ``/readyz`` answers 503 until ``metrics.ready`` is set. Port 0 takes any free port; ``port`` is
    the one in use.

    Raises:
        UsageError: the address cannot be used.
    """

    def __init__(self, metrics: Metrics, host: str = "127.0.0.1", port: int = 9108) -> None:
        try:
            self._server = _Server((host, port), _handler(metrics))
        except (OSError, OverflowError) as error:
            cause = getattr(error, "strerror", None) or error
            raise UsageError(
                f"metrics cannot be served at {host}:{port}: {cause}; choose another port, or 0 "
                f"for any free one"
            ) from error
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port; closing twice is fine."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = f"streammeta/{__version__}"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, *metrics.render(self.headers.get("Accept", "")))
            elif path == "/livez":
                self._answer(200, "text/plain; charset=utf-8", b"ok\n")
            elif path == "/readyz":
                ready = metrics.ready
                text = b"ready\n" if ready else b"not ready: no model is open yet\n"
                self._answer(200 if ready else 503, "text/plain; charset=utf-8", text)
            else:
                text = b"no such page; there are /metrics, /livez and /readyz\n"
                self._answer(404, "text/plain; charset=utf-8", text)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """A scrape every few seconds is no news."""

    return Handler
