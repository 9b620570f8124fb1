"""Time as a parameter."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What runners and connectors need of time; ``streammeta.testing.FakeClock`` is another one."""

    def now(self) -> float:
        """Seconds from any fixed moment, never going back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The machine's own monotonic clock."""

    def now(self) -> float:
        """Seconds since some moment before the program started."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""
        time.sleep(seconds)
