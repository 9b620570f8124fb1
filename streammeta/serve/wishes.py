"""What somebody wants of the model's own thread: adapt now, commit now."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Literal, NamedTuple

from streammeta.errors import StreamMetaError
from streammeta.events import to_record
from streammeta.runtime import ShardHost
from streammeta.serve.inlet import QueueFull
from streammeta.serve.published import PublishedModel

AT_ONCE = 16  # wishes that may wait


class Declined(Exception):  # noqa: N818 - what it is, not a fault
    """The model cannot do that as things are; the text says why."""


class _Wish(NamedTuple):
    what: Literal["adapt", "snapshot"]
    key: str
    granted: asyncio.Future[dict[str, Any]]
    loop: asyncio.AbstractEventLoop


class Wishes:
    """A short queue between the event loop, which asks, and the model's thread, which ``grant``s
    between two chunks of events."""

    def __init__(self) -> None:
        self._waiting: deque[_Wish] = deque()
        self._closed = False

    async def ask(self, what: Literal["adapt", "snapshot"], key: str = "") -> dict[str, Any]:
        """Wait until it is done; what there is to say about it.

        Raises:
            QueueFull: too many wait.
            Declined: it cannot be done.
        """
        if self._closed:
            raise Declined("the run is ending")
        if len(self._waiting) >= AT_ONCE:
            raise QueueFull(f"{AT_ONCE} requests wait for the model")
        loop = asyncio.get_running_loop()
        wish = _Wish(what, key, loop.create_future(), loop)
        self._waiting.append(wish)
        return await wish.granted

    def grant(self, host: ShardHost, model: PublishedModel) -> None:
        """In the model's thread: do what is wanted.

        An adaptation is committed before it is answered: it came of no event, so that no resumed
        run could repeat it.

        Raises:
            StoreError: a commit could not be written; the host has dropped its shard.
        """
        while self._waiting:
            wish = self._waiting.popleft()
            try:
                done = _adapt(host, model, wish.key) if wish.what == "adapt" else _commit(host)
            except Declined as reason:
                _tell(wish, reason)
            except StreamMetaError as fault:
                _tell(wish, Declined(f"the commit failed: {fault}"))
                raise
            else:
                _tell(wish, done)

    def close(self) -> None:
        """The model's thread is at its end."""
        self._closed = True
        while self._waiting:
            _tell(self._waiting.popleft(), Declined("the run is ending"))


def _adapt(host: ShardHost, model: PublishedModel, key: str) -> dict[str, Any]:
    outputs = model.adapt(key)
    if not outputs:
        raise Declined(
            f"nobody can be adapted for key {key!r}: it has no label in its segment yet, learning "
            f"is frozen, or the config has no challengers"
        )
    host.add(outputs)
    host.commit()
    return {"adapted": [to_record(output) for output in outputs], "epoch": host.statistics().epoch}


def _commit(host: ShardHost) -> dict[str, Any]:
    if host.store is None:
        raise Declined("this run keeps no commits: its config has no section checkpoint")
    host.commit()
    here = host.statistics()
    return {"epoch": here.epoch, "events": here.events}


def _tell(wish: _Wish, what: dict[str, Any] | Exception) -> None:
    def tell() -> None:
        if wish.granted.done():
            return
        if isinstance(what, Exception):
            wish.granted.set_exception(what)
        else:
            wish.granted.set_result(what)

    if not wish.loop.is_closed():
        wish.loop.call_soon_threadsafe(tell)
