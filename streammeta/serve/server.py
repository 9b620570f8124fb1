"""The server of the HTTP API, in a thread of its own."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from streammeta.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from streammeta.serve.app import Api

BACKLOG = 128  # connections that wait to be taken
#: Seconds after which a thread that waits for the interpreter gets it. Python's own 5 ms add up:
#: the model's thread lets go of it in every compiled call, some twenty times a drift.
SWITCH = 0.0005
LAST = 2  # seconds that requests may take to end when the server stops


def check_extra() -> None:
    """Whether the packages are there.

    Raises:
        ConfigError: the extra ``serve`` is not installed.
    """
    missing = [name for name in ("starlette", "uvicorn", "bokeh") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"serve: the HTTP API needs {' and '.join(missing)}: pip install 'streammeta[serve]'"
        )


class ApiServer:
    """Serves ``api`` from when it is made until ``close``; ``port`` is the one in use.

    Args:
        api: what is served.
        more: makes further routes, for the same port and behind the same guard.

    Raises:
        SinkError: the address cannot be used.
    """

    def __init__(self, api: Api, more: Callable[[Api], Sequence[BaseRoute]] | None = None) -> None:
        import uvicorn

        from streammeta.serve.app import make_app

        self.host = api.options.host
        self._api = api
        self._socket = _listening(self.host, api.options.port)
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            make_app(api, () if more is None else more(api)),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=LAST,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="api", daemon=True
        )
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    def close(self) -> None:
        """Let requests end, then stop; closing twice is fine."""
        self._api.wishes.close()
        self._api.outlet.close()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        sys.setswitchinterval(self._interval)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(place)
            made.listen(BACKLOG)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise SinkError(
            f"serve: cannot listen at {host}:{port}: {error.strerror}; choose another port, or 0 "
            f"for any free one"
        ) from error
    return made
