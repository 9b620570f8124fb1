"""Whether losses are higher since a change than they were before it.

A loss that is compared with what has been usual of it seems to rise when it only stops falling: a
learner's first rows are its worst, and what was usual of them is too much for long. An alarm about
losses that are where they were before its onset is none.

Square roots of losses are compared: of |noise| that is normal their deviation is two fifths of
their mean. Roots from before the change count as ``FAR`` times their median at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from drift.stored import Stored

KEPT = 512  # newest rows whose losses are kept
BEFORE = 100  # rows before an onset that it is compared with, at most
FEWEST = 10  # and at least
#: Standard errors above what was before that are a rise; at 4, gradual changes were overlooked.
ERRORS = 3.0
FAR = 10.0  # so that one stray does not hide a rise
_LARGEST = 1e3  # logarithm: more than that of any number


class Rise(Stored):
    """The newest losses of several signals: their logarithms in half precision, for there is one
    of these for every key.

    >>> rise = Rise(2)
    >>> for row in range(60):
    ...     rise.add(row, [1.0 + row % 3, 1.0 + row % 3 + 4.0 * (row > 50)])
    >>> rise.since(51, 0), rise.since(51, 1)
    (False, True)
    """

    __slots__ = ("_logs", "_rows", "_taken")

    def __init__(self, signals: int) -> None:
        self._logs = np.zeros((KEPT, signals), np.float16)
        self._rows = np.zeros(KEPT, np.uint32)  # modulo 2**32
        self._taken = 0

    def add(self, row: int, losses: Sequence[float]) -> None:
        """Take a row's loss of each signal, whatever its sign; ``nan`` where there is none. Rows
        come in order."""
        slot = self._taken % KEPT
        self._logs[slot] = [math.log(abs(loss)) if loss else -math.inf for loss in losses]
        self._rows[slot] = row & 0xFFFFFFFF
        self._taken += 1

    def since(self, onset: int, signal: int) -> bool:
        """Whether losses of the signal at this place are higher from row ``onset`` on; so they are
        where too few of the rows before that are known."""
        slots = np.arange(max(0, self._taken - KEPT), self._taken) % KEPT
        logs = self._logs[slots, signal].astype(np.float64)
        heard = ~np.isnan(logs)
        new = (self._rows[slots] - np.uint32(onset & 0xFFFFFFFF) < 1 << 31)[heard]
        logs = np.clip(logs[heard], -_LARGEST, _LARGEST)
        if not new.any() or (~new).sum() < FEWEST:
            return True
        roots = np.exp(0.5 * (logs - logs.max()))
        before, after = roots[~new][-BEFORE:], roots[new]
        before = np.minimum(before, FAR * np.median(before))
        error = before.std() * math.sqrt(1.0 / len(before) + 1.0 / len(after))
        return not after.mean() - before.mean() <= ERRORS * error  # what is no number has risen

    def forget(self, signal: int) -> None:
        """The signal at this place is another one from now on."""
        self._logs[:, signal] = math.nan

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._logs[:] = 0.0
        self._rows[:] = 0
        self._taken = 0
