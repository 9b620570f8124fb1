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
from numpy.typing import NDArray

from drift.compiled import njit
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


#: Columns of a bank's table, a row for each signal: its newest value, the ends of its range, how
#: many times surer it has to be for two votes, its evidence, and what ``drift.evidence`` keeps.
VALUE, LEAST, MOST, TWICE, VOTE = range(5)
SIDES, BETS = 2, 2 * len(SHIFTS)
_USUAL = slice(5, 5 + USUAL)
_WON, _CLIMB, _SINCE = (
    slice(_USUAL.stop + i * BETS, _USUAL.stop + (i + 1) * BETS) for i in range(3)
)
COLUMNS = _SINCE.stop


@njit(cache=True, error_model="numpy")
def update_bank(
    table: Floats, kept: NDArray[np.float32], rows: NDArray[np.int64], row: int, threshold: float,
    warning: float, alone: bool,
) -> int:  # fmt: skip
    """Take the ``table[:, VALUE]`` of ``row``: a ``Status``. ``table (C, COLUMNS)``; the newest
    values ``kept (KEPT, C)`` and their ``rows (KEPT + 1,)``, the last: how many were taken."""
    slot = rows[KEPT] % KEPT
    rows[slot] = row
    rows[KEPT] += 1
    voters, alarm, warn = 0, 0, 0
    for c in range(len(table)):
        own = table[c]
        kept[slot, c] = own[VALUE]
        usual, sure = own[_USUAL], math.log(max(own[VOTE], 1.0))
        if not np.isnan(own[VALUE]):
            value = min(max(own[VALUE], own[LEAST]), own[MOST])
            if usual[N] >= MIN_ROWS:
                won = own[_WON].reshape(SIDES, len(SHIFTS))
                sides = won if own[LEAST] < 0.0 else won[:1]
                bet(usual, sides, own[_CLIMB].reshape(SIDES, len(SHIFTS)),
                    own[_SINCE].reshape(SIDES, len(SHIFTS)), value, own[LEAST], own[MOST], row,
                    usual_deviation(usual), times_longer(usual))  # fmt: skip
                own[VOTE] = sides.mean()
                sure = math.log(max(own[VOTE], 1.0))
            if sure < warning:  # else it may be of another world
                learn_usual(usual, value)
        voters += usual[N] >= MIN_ROWS
        alarm += (sure > threshold) + (sure > own[TWICE] * threshold)
        warn += (sure > warning) + (sure > own[TWICE] * warning)
    if voters == 0:
        return _STABLE
    voters = 1 if alone else voters
    if 2 * alarm > voters:
        return _DRIFT
    return _WARNING if 2 * warn > voters else _STABLE


@njit(cache=True, error_model="numpy")
def _count(
    sample: Floats, rows: int, seed: int, table: Floats, kept: NDArray[np.float32],
    places: NDArray[np.int64], threshold: float, alone: bool,
) -> int:  # fmt: skip
    alarms = 0
    for row in range(rows):
        table[:, VALUE] = sample[drawn(seed + row, len(sample))]
        if update_bank(table, kept, places, row, threshold, threshold, alone) == _DRIFT:
            alarms += 1
            table[:, VOTE:] = 0.0
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
        "_kept", "_rows", "_table", "_threshold", "_warning", "alone", "expected",
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
        self.expected, self.alone = float(expected), alone
        parts = len(bounds) if alone else 1
        self._threshold = math.log(max(expected * parts, MIN_EXPECTED))
        self._warning = WARN * self._threshold
        self._table = np.zeros((len(bounds), COLUMNS))
        self._table[:, LEAST : MOST + 1] = bounds
        self._table[:, TWICE] = twice or 2.0
        self._kept = np.zeros((KEPT, len(bounds)), np.float32)
        self._rows = np.zeros(KEPT + 1, np.int64)

    @property
    def votes(self) -> Floats:
        """``(signals,)`` the evidence of each: what was won for a stake of one a row."""
        found: Floats = self._table[:, VOTE]
        return found

    def update(self, row: int, values: Sequence[float], share: float = 1.0) -> Status:
        """Take one value of each signal at ``row``; ``nan`` where there is none. ``share``: of the
        false alarms may be the bank's.

        Unlike a detector it does not reset itself, so that the votes can be looked at.

        Raises:
            ValueError: there are more or fewer values than signals.
        """
        table = self._table
        if len(values) != len(table):
            raise ValueError(f"{len(values)} values; expected one for each of {len(table)} signals")
        for place, value in enumerate(values):
            table[place, VALUE] = value
        threshold = self._threshold if share == 1.0 else self._threshold - math.log(share)
        return _STATUSES[update_bank(
            table, self._kept, self._rows, row, threshold, self._warning, self.alone
        )]  # fmt: skip

    def count_alarms(self, sample: Floats, rows: int, seed: int = 0) -> int:
        """How many alarms a new bank like this one raises in ``rows`` independent draws from the
        rows of ``sample (n, signals)``, starting over after each."""
        table = self._table
        bounds, twice = table[:, LEAST : MOST + 1].tolist(), table[:, TWICE].tolist()
        like = VotingBank(bounds, self.expected, twice, alone=self.alone)
        drawn_from = np.ascontiguousarray(sample, np.float64)
        return int(_count(
            drawn_from, rows, start_of(seed), like._table, like._kept, like._rows,
            like._threshold, like.alone,
        ))  # fmt: skip

    @property
    def threshold(self) -> float:
        """Evidence, in nats, that gives a signal a vote."""
        return self._threshold

    @property
    def suspects(self) -> bool:
        """Whether any signal is nearly sure of a change."""
        return bool(math.log(max(self.votes.max(), 1.0)) > self._warning)

    def onset(self) -> int:
        """The likeliest row for the change to have begun at, by the surest signal."""
        best = self._table[int(self.votes.argmax())]
        return best_since(best[_CLIMB], best[_SINCE])

    def recent(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The newest rows since the last reset, at most ``KEPT``, in order: ``(n,)``, and their
        values ``(n, signals)``."""
        seen = int(self._rows[KEPT])
        slots = np.arange(max(0, seen - KEPT), seen) % KEPT
        return self._rows[slots], self._kept[slots]

    def renew(self, signal: int) -> None:
        """The signal at this place is another one from now on: forget what was usual of it."""
        self._table[signal, VOTE:] = 0.0

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._table[:, VOTE:] = 0.0
        self._rows[KEPT] = 0


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
