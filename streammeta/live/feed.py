"""The newest snapshot, from the thread that owns the model to those that show it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from streammeta.live.collector import Snapshot

INTERVAL = 0.2  # seconds between two snapshots: at most five a second
IDLE = 2.0  # the same while nobody looks


class Feed:
    """One writer, any number of readers; nobody waits for anybody.

    The writer asks ``due`` now and then (it is cheap), and if so calls ``take``. Readers take
    ``latest``, which is never changed afterwards.

    >>> feed = Feed()
    >>> feed.due(now=0.0), feed.due(now=1.0)      # nobody looks: every two seconds
    (True, False)
    >>> with feed.watching():
    ...     feed.due(now=1.1)
    True
    """

    def __init__(self) -> None:
        self.latest: Snapshot | None = None
        self.closed = False
        self._watching = 0
        self._lock = Lock()
        self._last = float("-inf")
        self._encoded: tuple[Snapshot | None, str] = (None, "null")

    def due(self, now: float) -> bool:
        """Whether a new snapshot is wanted; ``now`` in seconds of any clock."""
        if now - self._last < (INTERVAL if self._watching else IDLE):
            return False
        self._last = now
        return True

    def take(self, snapshot: Snapshot) -> None:
        """What readers see from now on."""
        self.latest = snapshot

    def encoded(self) -> tuple[Snapshot | None, str]:
        """``latest`` with its JSON, which is made once however many readers there are."""
        latest = self.latest
        if self._encoded[0] is not latest and latest is not None:
            text = json.dumps(latest.to_json(), separators=(",", ":"), allow_nan=False)
            self._encoded = (latest, text)
        return self._encoded

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While somebody looks."""
        with self._lock:
            self._watching += 1
        try:
            yield
        finally:
            with self._lock:
                self._watching -= 1

    def close(self) -> None:
        """No more is coming: readers that stream end."""
        self.closed = True
