"""A connection to NATS on an event loop in a thread of its own, as source and sink need it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from streammeta.errors import UsageError

TIMEOUT = 2.0  # seconds that one request may take
CANCELLED_WITHIN = 0.5  # seconds in which a task that was cancelled is expected to end

T = TypeVar("T")


class Loop:
    """An event loop that runs in a daemon thread until ``close``."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it there and do not wait."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def wake(self, event: asyncio.Event) -> None:
        """Set an event of this loop from another thread."""
        self._loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """Cancel what runs until it has ended, stop, and wait for the thread."""

        async def end() -> None:
            # more than once: before Python 3.12 wait_for forgets that it was cancelled when what
            # it waits for comes in the same moment (https://github.com/python/cpython/issues/86296)
            us = asyncio.current_task()
            while others := [task for task in asyncio.all_tasks() if task is not us]:
                for task in others:
                    task.cancel()
                ended, _ = await asyncio.wait(others, timeout=CANCELLED_WITHIN)
                await asyncio.gather(*ended, return_exceptions=True)  # their errors are not news

        self.call(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _RefusedError(Exception):
    """The server does not let us in."""


class Link:
    """What there is to know of the package ``nats-py``: how to connect, and which errors say what.

    Raises:
        UsageError: the package is missing.
    """

    def __init__(self, url: str) -> None:
        try:
            import nats
            from nats import errors
            from nats.js import errors as js_errors
        except ImportError as error:
            raise UsageError(
                "NATS needs the package nats-py: pip install streammeta[nats]"
            ) from error
        if not url.startswith(("nats://", "tls://", "ws://", "wss://")):
            raise UsageError("url is no address of a NATS server, expected nats://host:port")
        self._nats: Any = nats
        self._url = url
        self._last = ""
        self._nowhere = errors.NoServersError
        self.lost: tuple[type[BaseException], ...] = (errors.Error, OSError, asyncio.TimeoutError)
        self.idle: tuple[type[BaseException], ...] = (errors.TimeoutError, asyncio.TimeoutError)
        self.missing: type[BaseException] = js_errors.NotFoundError
        self.refused: type[Exception] = _RefusedError
        self.overtaken: type[BaseException] = js_errors.BadRequestError

    async def connect(self) -> Any:
        """A client that tries once; it closes when the connection is lost."""
        self._last = ""
        client = self._nats.NATS()
        try:
            await client.connect(
                self._url,
                allow_reconnect=False,
                connect_timeout=TIMEOUT,
                max_reconnect_attempts=1,  # to nats-py 0 is for ever
                reconnect_time_wait=0,
                error_cb=self._noted,
            )
        except BaseException as error:
            await client.close()  # nats-py leaves the socket of a refusal open
            told = f"{error} {self._last}"
            if "authorization" in told.lower():  # a class of its own it is only sometimes
                raise self.refused("Authorization Violation") from error
            raise
        return client

    def told(self, error: BaseException) -> BaseException:
        """The error, or what the server said before it hung up."""
        return ConnectionError(self._last) if isinstance(error, self._nowhere) else error

    async def _noted(self, error: Exception) -> None:
        self._last = str(error) or type(error).__name__
