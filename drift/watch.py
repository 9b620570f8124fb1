"""Everything the default bank listens to for one key, with labels and without."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drift.bank import EXPECTED, VotingBank
from drift.detector import Status
from drift.distribution import DistributionWatch
from drift.rise import Rise
from drift.signals import BrierSignal, ErrorSignal, ResidualSignal, Signal, WideRatioSignal

Floats = NDArray[np.float64]
REFERENCE = "reference"
#: By the main signal: the names and kinds of all that vote. The reference's is a loss like another.
VOTERS: dict[str, tuple[tuple[str, type[Signal]], ...]] = {
    "error": (("error", ErrorSignal), ("brier", BrierSignal), (REFERENCE, BrierSignal)),
    "ratio": (
        ("ratio", WideRatioSignal),
        ("residual", ResidualSignal),
        (REFERENCE, WideRatioSignal),
    ),
}
#: Of residuals, those whose size must have risen for an alarm. One with its sign tells of errors to
#: one side, which may be no larger.
RISING = ("ratio", REFERENCE)
#: Where one vote is enough: no voter is there that calls out again and again.
ALONE = ("ratio",)
#: How many times surer than for one vote each has to be for two: an error and a frozen reference
#: keep to their distributions, what the mixture is confident of does not.
TWICE = (1.4, 2.0, 1.6)
EVERY = 2  # rows of which one is looked at without its label
SURE = 100.0  # won by a feature: it has moved
FEATURES, PREDICTIONS = "features", "predictions"
NAN = math.nan


class Watch:
    """The bank of one key: losses vote row by row, and while labels are late so do distributions.

    Args:
        signal: the main one, "error" or "ratio".
        expected: rows between two false alarms of all of it.

    Raises:
        ValueError: no such signal, or ``expected`` not above 0.

    >>> watch = Watch("error")
    >>> errors = [float(row % 10 == 0 or row > 500) for row in range(600)]
    >>> next(row for row, e in enumerate(errors) if watch.update(row, e) is Status.DRIFT)
    506
    >>> watch.onset(), watch.signal
    (500, 'error')
    """

    __slots__ = (
        "_bank",
        "_distribution",
        "_features",
        "_names",
        "_rise",
        "_signals",
        "_skipped",
        "expected",
    )
    name = "bank"

    def __init__(self, signal: str, expected: float = EXPECTED) -> None:
        if signal not in VOTERS:
            raise ValueError(f"no bank listens to {signal!r}; expected {' or '.join(VOTERS)}")
        voters = VOTERS[signal]
        self.expected = expected
        self._names = tuple(name for name, _ in voters)
        self._signals = [kind() for _, kind in voters]
        bounds = [kind().bounds for _, kind in voters]
        self._bank = VotingBank(bounds, expected, TWICE, alone=signal in ALONE)
        self._rise = Rise(len(RISING)) if signal == "ratio" else None
        self._distribution: DistributionWatch | None = None
        self._features = self._skipped = 0

    def update(
        self, row: int, value: float, more: Sequence[float] = (), *, late: bool = False
    ) -> Status:
        """Take the loss, and the raw values of the other voters in their order; ``nan`` where there
        is none. While labels are ``late`` every part needs twice the evidence, for each may raise
        false alarms of its own. Of a loss that is no higher since the onset no alarm is raised:
        what is usual of it is learned anew."""
        values = [NAN] * len(self._names)
        values[0] = self._signals[0].update(value)
        for place, other in enumerate(more[: len(values) - 1], 1):
            values[place] = other if other != other else self._signals[place].update(other)
        found = self._bank.update(row, values, 0.5 if late else 1.0)
        if self._rise is None:
            return found
        self._rise.add(row, (value, more[1] if len(more) > 1 else NAN))
        risen = self.signal if found is Status.DRIFT else ""
        if risen not in RISING or self._rise.since(self.onset(), RISING.index(risen)):
            return found
        self._bank.renew(self._names.index(risen))
        return Status.WARNING if self._bank.suspects else Status.STABLE

    def look_due(self) -> bool:
        """Whether the row that comes is to be looked at: one in ``EVERY``."""
        self._skipped = (self._skipped + 1) % EVERY
        return self._skipped == 0

    def look(
        self, row: int, features: Floats, predictions: Floats, *, late: bool = False
    ) -> Status:
        """Take a row whose label is not known yet, one in ``EVERY`` (``look_due``): features
        ``(D,)`` and predictions ``(O,)``.

        ``DRIFT`` is said only while labels are ``late``: features may move and the learner be none
        the worse, and where they are now is usual from then on. Another number of predictions
        makes them new ones.
        """
        columns = len(features) + len(predictions)
        watch = self._distribution
        if watch is None or watch.columns != columns:
            watch = self._distribution = DistributionWatch(columns, 2.0 / EVERY * self.expected)
            self._features = len(features)
        found = watch.update(row, features, predictions)
        if found is Status.DRIFT and not late:
            watch.reset()
            return Status.STABLE
        return found

    @property
    def signal(self) -> str:
        """The signal with the most evidence of those that read labels."""
        return self._names[int(self._bank.votes.argmax())]

    @property
    def suspects(self) -> bool:
        """Whether any signal that reads labels is nearly sure of a change."""
        return self._bank.suspects

    def onset(self) -> int:
        """Where the change began by that signal."""
        return self._bank.onset()

    def moved(self) -> tuple[str, int]:
        """``features``, or ``predictions`` where no feature is sure, and the onset by that: what is
        predicted moves with what is learned, too."""
        assert self._distribution is not None
        features = slice(0, self._features)
        column, row = self._distribution.surest(features)
        if self._features and self._distribution.votes[column] > SURE:
            return FEATURES, row
        return PREDICTIONS, self._distribution.surest(slice(self._features, None))[1]

    def votes(self) -> dict[str, float]:
        """The evidence of every signal, in nats, 0 at least."""
        found = dict(zip(self._names, self._bank.votes.tolist(), strict=True))
        if self._distribution is not None:
            of = self._distribution.votes
            parts = {FEATURES: of[: self._features], PREDICTIONS: of[self._features :]}
            found |= {name: float(part.mean()) for name, part in parts.items() if len(part)}
        return {name: round(math.log(max(vote, 1.0)), 3) for name, vote in found.items()}

    def evidence(self) -> tuple[float, float]:
        """That of the surest signal of those that read labels, in nats, 0 at least, and what gives
        a signal a vote."""
        return math.log(max(float(self._bank.votes.max()), 1.0)), self._bank.threshold

    def recent(self) -> tuple[NDArray[np.int64], Floats]:
        """The newest rows, and the values of the signal with the most evidence, where it had one
        in each; of the main signal otherwise."""
        rows, values = self._bank.recent()
        best = values[:, int(self._bank.votes.argmax())]
        return rows, (values[:, 0] if np.isnan(best).any() else best).astype(np.float64)

    def renew(self) -> None:
        """The reference is another one from now on."""
        place = self._names.index(REFERENCE)
        self._bank.renew(place)
        if self._rise is not None:
            self._rise.forget(RISING.index(REFERENCE))
        self._signals[place].reset()

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._bank.reset()
        if self._rise is not None:
            self._rise.reset()
        for signal in self._signals:
            signal.reset()
        if self._distribution is not None:
            self._distribution.reset()
