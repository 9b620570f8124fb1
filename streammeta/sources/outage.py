"""A server that cannot be reached: when to try again, and when to give up."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

import structlog

from streammeta.errors import StreamMetaError
from streammeta.sources.clock import Clock, SystemClock

FIRST_WAIT = 0.1  # seconds before the second try
LONGEST_WAIT = 5.0  # seconds between two tries, however long it has been

T = TypeVar("T")
_log = structlog.get_logger("streammeta.outage")


class Outage:
    """Tries are spaced out exponentially with jitter: half of the span is fixed, half is drawn.

    The span doubles from 0.1 s up to 5 s; the drawn half keeps clients that lost the same server
    from coming back in step ("equal jitter", M. Brooker, Exponential Backoff and Jitter, 2015).
    After ``give_up_after`` seconds of nothing but failures the fault is raised.

    Args:
        what: the server, as messages name it.
        raises: the error to give up with.
        give_up_after: seconds; 0 raises at the first failure.
        clock: time; the machine's own by default.
        random: where the jitter comes from.

    >>> from streammeta.errors import SourceError
    >>> from streammeta.testing import FakeClock
    >>> clock = FakeClock()
    >>> outage = Outage("nats", SourceError, 9.0, clock, Random(1))
    >>> outage.failed(OSError("refused")); outage.due(), outage.fault
    (False, 'nats: cannot be reached: refused')
    >>> clock.sleep(0.1); outage.due()
    True
    """

    def __init__(
        self,
        what: str,
        raises: type[StreamMetaError],
        give_up_after: float,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.fault = ""
        self.failures = 0  # of all tries so far
        self._what, self._raises = what, raises
        self._give_up_after = give_up_after
        self._clock = clock or SystemClock()
        self._random = random or Random()
        self._since: float | None = None
        self._tries = 0
        self._next = 0.0

    def due(self) -> bool:
        """True while all is well, and when it is time for another try."""
        return self._since is None or self._clock.now() >= self._next

    def failed(self, error: BaseException) -> None:
        """A try has failed; one that has an attribute ``after`` asks for so many seconds of peace.

        Raises:
            The error class given as ``raises``: it has failed for too long.
        """
        self.failures += 1
        now = self._clock.now()
        self._since = now if self._since is None else self._since
        cause = str(error) or type(error).__name__
        self.fault = f"{self._what}: cannot be reached: {cause}"
        if now - self._since >= self._give_up_after:
            waited = f" (for {now - self._since:.0f} s)" if now > self._since else ""
            raise self._raises(f"{self.fault}{waited}") from error
        span = min(FIRST_WAIT * 2.0 ** min(self._tries, 30), LONGEST_WAIT)
        self._tries += 1
        self._next = now + span * (0.5 + 0.5 * self._random.random())
        asked = min(now + getattr(error, "after", 0.0), self._since + self._give_up_after)
        self._next = max(self._next, asked)

    def wait(self) -> float:
        """Seconds until another try is due."""
        return 0.0 if self._since is None else max(self._next - self._clock.now(), 0.0)

    def over(self) -> None:
        """A try has succeeded."""
        self.fault, self._since, self._tries = "", None, 0

    def insist(self, attempt: Callable[[], T], lost: tuple[type[BaseException], ...]) -> T:
        """Call ``attempt`` until it raises none of ``lost``, waiting in between.

        Whoever waits here can tell nobody: the log says so.

        Raises:
            The error class given as ``raises``: it has failed for too long.
        """
        while True:
            try:
                result = attempt()
            except lost as error:
                begun = self._since is None
                self.failed(error)
                if begun:
                    _log.warning(f"{self.fault}; trying again")
                self._clock.sleep(self.wait())
            else:
                if self._since is not None:
                    _log.warning(f"{self._what}: is back")
                self.over()
                return result
