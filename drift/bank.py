"""A bank of signals that vote on whether the stream has changed.

Each signal has its own evidence (``drift.evidence``), and votes for a change while that exceeds a
threshold; an alarm is raised when there are more votes than half of the signals. One that is twice
as sure, in nats, has two votes: the better a learner recovers from a change, the less its own
losses tell of it, and only a frozen reference can. The threshold is the rows that are to lie
between two false alarms, whatever the distributions; were mean and deviation known, there would be
no fewer, and tests hold a classifier's to 1 to 4 times as many. A signal that does not keep to its
distribution, such as the confidence of a learner, seldom raises an alarm alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from drift.detector import WARN, Input, Status, finite
from drift.evidence import (
    MIN_ROWS,
    SHIFTS,
    USUAL,
    N,
    best_since,
    bet,
    learn_usual,
    times_longer,
    usual_deviation,
)
from drift.signals import CLIP
from drift.stacked import drawn, start_of
from drift.stored import Stored

Floats = NDArray[np.float64]
EXPECTED = 100_000  # rows between two false alarms
SHARE = 0.65  # of the rows asked for, of one signal alone: tests hold it to a factor of 2
MIN_EXPECTED = 1.1  # rows: with fewer there is nothing to be sure of
KEPT = 256  # newest rows whose values are kept, to look at when there is an alarm
_STATUSES = tuple(Status)
_STABLE, _WARNING, _DRIFT = int(Status.STABLE), int(Status.WARNING), int(Status.DRIFT)


@njit(cache=True, error_model="numpy")
def _update(
    values: Floats, least: Floats, most: Floats, usual: Floats, won: Floats, climb: Floats,
    since: NDArray[np.int64], votes: Floats, kept: NDArray[np.float32], rows: NDArray[np.int64],
    seen: NDArray[np.int64], row: int, threshold: float, warning: float, twice: Floats, alone: bool,
) -> int:  # fmt: skip
    slot = seen[0] % rows.shape[0]
    rows[slot] = row
    seen[0] += 1
    voters = 0
    for c in range(len(values)):
        kept[slot, c] = values[c]
        value = values[c]
        if not np.isnan(value):
            value = min(max(value, least[c]), most[c])
            if usual[c, N] >= MIN_ROWS:
                longer = times_longer(usual[c])
                sides = won[c] if least[c] < 0.0 else won[c, :1]
                bet(usual[c], sides, climb[c], since[c], value, least[c], most[c], row,
                    usual_deviation(usual[c]), longer)  # fmt: skip
                votes[c] = sides.mean()
            if votes[c] < 1.0 or math.log(votes[c]) < warning:  # else it may be of another world
                learn_usual(usual[c], value)
        voters += usual[c, N] >= MIN_ROWS
    if voters == 0:
        return _STABLE
    alarm, warn = 0, 0
    for c in range(len(values)):
        sure = math.log(max(votes[c], 1.0))
        alarm += (sure > threshold) + (sure > twice[c] * threshold)
        warn += (sure > warning) + (sure > twice[c] * warning)
    voters = 1 if alone else voters
    if 2 * alarm > voters:
        return _DRIFT
    return _WARNING if 2 * warn > voters else _STABLE


@njit(cache=True, error_model="numpy")
def _count(
    sample: Floats, rows: int, seed: int, least: Floats, most: Floats, usual: Floats, won: Floats,
    climb: Floats, since: NDArray[np.int64], votes: Floats, kept: NDArray[np.float32],
    places: NDArray[np.int64], seen: NDArray[np.int64], threshold: float, twice: Floats,
    alone: bool,
) -> int:  # fmt: skip
    alarms = 0
    for row in range(rows):
        values = sample[drawn(seed + row, len(sample))]
        status = _update(values, least, most, usual, won, climb, since, votes, kept, places, seen,
                         row, threshold, threshold, twice, alone)  # fmt: skip
        if status == _DRIFT:
            alarms += 1
            usual[:], won[:], climb[:], votes[:] = 0.0, 0.0, 0.0, 0.0
    return alarms


class VotingBank(Stored):
    """Signals of which more than half have to be sure, or fewer surer; those count that have been
    heard.

    Args:
        bounds: for each signal the range of its values ``(least, most)``; values outside count as
            its ends. One whose range goes below 0 is watched on both sides, any other for rises.
        expected: rows between two false alarms of the whole bank, > 0.
        twice: how many times surer than for one vote, in nats, each signal has to be for two.
        alone: one vote is enough; it then takes as much more evidence as there are signals.

    Raises:
        ValueError: no signal, an empty range, or ``expected`` not above 0.

    >>> bank = VotingBank([(0.0, 1.0), (0.0, 1.0)])
    >>> errors = [float(row % 10 == 0 or row > 500) for row in range(600)]
    >>> next(row for row, e in enumerate(errors) if bank.update(row, [e, e]) is Status.DRIFT)
    506
    >>> bank.onset()
    500
    """

    __slots__ = (
        "_bounds", "_climb", "_kept", "_least", "_most", "_rows", "_seen", "_since", "_threshold",
        "_twice", "_usual", "_warning", "_won", "alone", "expected", "votes",
    )  # fmt: skip

    def __init__(
        self,
        bounds: Sequence[tuple[float, float]],
        expected: float = EXPECTED,
        twice: Sequence[float] | None = None,
        *,
        alone: bool = False,
    ) -> None:
        if not bounds:
            raise ValueError("a bank needs at least one signal")
        if not expected > 0:
            raise ValueError(f"expected is {expected}; expected more than 0 rows")
        for least, most in bounds:
            if not -math.inf < least < most < math.inf:
                raise ValueError(f"the range {least} to {most} is empty or has no end")
        self._bounds, self.expected = tuple(bounds), float(expected)
        self._least, self._most = (np.array(side, np.float64) for side in zip(*bounds, strict=True))
        self._twice = np.array(twice or [2.0] * len(bounds), np.float64)
        self.alone = alone
        parts = len(bounds) if alone else 1
        self._threshold = math.log(max(expected * parts, MIN_EXPECTED))
        self._warning = WARN * self._threshold
        signals = len(bounds)
        self._usual = np.zeros((signals, USUAL))
        shape = (signals, 2, len(SHIFTS))
        self._won, self._climb = np.zeros(shape), np.zeros(shape)
        self._since = np.zeros(shape, np.int64)
        self._kept = np.zeros((KEPT, signals), np.float32)
        self._rows = np.zeros(KEPT, np.int64)
        self._seen = np.zeros(1, np.int64)
        #: ``(signals,)`` the evidence of each: what was won for a stake of one a row
        self.votes = np.zeros(signals)

    def update(self, row: int, values: Sequence[float], share: float = 1.0) -> Status:
        """Take one value of each signal at ``row``; ``nan`` where there is none. ``share``: of the
        false alarms may be the bank's.

        Unlike a detector it does not reset itself, so that the votes can be looked at.
        """
        found = _update(
            np.array(values, np.float64), self._least, self._most, self._usual, self._won,
            self._climb, self._since, self.votes, self._kept, self._rows, self._seen, row,
            self._threshold - math.log(share), self._warning, self._twice,
            self.alone,
        )  # fmt: skip
        return _STATUSES[found]

    def count_alarms(self, sample: Floats, rows: int, seed: int = 0) -> int:
        """How many alarms a new bank like this one raises in ``rows`` independent draws from the
        rows of ``sample (n, signals)``, starting over after each."""
        like = VotingBank(self._bounds, self.expected, self._twice.tolist(), alone=self.alone)
        drawn_from = np.ascontiguousarray(sample, np.float64)
        return int(_count(
            drawn_from, rows, start_of(seed), like._least, like._most, like._usual, like._won,
            like._climb, like._since, like.votes, like._kept, like._rows, like._seen,
            like._threshold, like._twice, like.alone,
        ))  # fmt: skip

    @property
    def suspects(self) -> bool:
        """Whether any signal is nearly sure of a change."""
        return bool(math.log(max(self.votes.max(), 1.0)) > self._warning)

    def onset(self) -> int:
        """The likeliest row for the change to have begun at, by the surest signal."""
        best = int(self.votes.argmax())
        return best_since(self._climb[best], self._since[best])

    def recent(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The newest rows since the last reset, at most ``KEPT``, in order: ``(n,)``, and their
        values ``(n, signals)``."""
        seen = int(self._seen[0])
        slots = np.arange(max(0, seen - KEPT), seen) % KEPT
        return self._rows[slots], self._kept[slots]

    def renew(self, signal: int) -> None:
        """The signal at this place is another one from now on: forget what was usual of it."""
        for array in (self._usual, self._won, self._climb, self._since, self.votes):
            array[signal] = 0

    def reset(self) -> None:
        """Forget everything, as if just made."""
        for array in (self._usual, self._won, self._climb, self._since, self.votes, self._seen):
            array[...] = 0


class Evidence:
    """A ``VotingBank`` of one signal as a detector.

    Args:
        expected: rows between two false alarms, > 0.
        most: the highest value that counts; 1 of errors.
    """

    __slots__ = ("_bank", "_row", "expected", "most")
    name = "evidence"
    input: Input = "real"
    has_warning = True

    def __init__(self, expected: float = EXPECTED, most: float = 1.0) -> None:
        self.expected, self._row, self.most = float(expected), 0, most
        self._bank = VotingBank([(0.0, most)], SHARE * expected)

    @classmethod
    def for_signal(cls, signal: str, seed: int) -> Evidence:
        """For ``signal``, "error" or any other."""
        return cls(most=1.0 if signal == "error" else CLIP)

    @property
    def level(self) -> float:
        """The logarithm of the rows between two false alarms."""
        return math.log(self.expected)

    def at(self, level: float) -> Evidence:
        """A new one with the same settings, and e ** ``level`` rows between two false alarms."""
        return Evidence(math.exp(level), self.most)

    def update(self, value: float) -> Status:
        """Take the value of one row.

        Raises:
            ValueError: it is not finite.
        """
        value = finite(self.name, value)
        self._row += 1
        found = self._bank.update(self._row, (value,))
        if found is Status.DRIFT:
            self._bank.reset()
        return found

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._bank.reset()
        self._row = 0
