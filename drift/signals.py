"""What a detector is fed: errors and Brier scores of classifiers, residuals of regressors.

A residual has the units of its target, and a detector's threshold must not. ``RatioSignal`` and
``ResidualSignal`` therefore divide it by what has been usual in the current segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

_WINDOW = 200
_MIN_COUNT = 10
CLIP = 10.0


class Signal(Protocol):
    """Turns the loss of one row into the number that the detectors read."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest number."""

    def update(self, value: float) -> float:
        """The number for this row; what was learned from it counts from the next row on."""

    def reset(self) -> None:
        """Start a new segment."""


class ErrorSignal:
    """0 (right) or 1 (wrong), passed on as it is.

    >>> ErrorSignal().update(1)
    1.0
    """

    __slots__ = ()
    name = "error"
    bounds = (0.0, 1.0)

    def update(self, value: float) -> float:
        """``value`` as a float."""
        return float(value)

    def reset(self) -> None:
        """Nothing to forget."""


class RatioSignal:
    """|residual| over the mean |residual| of the segment so far: about 1 while all is usual.

    The mean is that of all rows up to 200, then forgets at 1/200 per row, and takes in clipped
    residuals, so that one wild row does not hide the next. The ratio is 1.0 for the first 10
    rows of a segment and never above 10. It is 10 for a residual that is not finite (the model
    has lost its way, which is news and not a number), and for any residual but 0 when all
    before were exactly 0.

    >>> signal = RatioSignal()
    >>> [signal.update(r) for r in [2.0, -2.0] * 5][-1]
    1.0
    >>> signal.update(-6.0), signal.update(1e9), signal.update(float("nan"))
    (3.0, 10.0, 10.0)
    """

    __slots__ = ("_count", "_mean")
    name = "ratio"
    bounds = (0.0, CLIP)

    most: ClassVar[float] = CLIP

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0

    @property
    def early(self) -> bool:
        """Whether there are too few rows yet to say what is usual."""
        return self._count < _MIN_COUNT

    def update(self, value: float) -> float:
        """The ratio of this row, in [0, ``most``]."""
        size = -value if value < 0.0 else value
        if not size < 1e300:  # infinite, absurd or not a number; must not enter the mean
            return self.most
        count = self._count
        mean = self._mean
        if count < _WINDOW:
            count += 1
            self._count = count
            if count <= _MIN_COUNT:
                self._mean = mean + (size - mean) / count
                return 1.0
        bound = CLIP * mean
        if size < bound:
            self._mean = mean + (size - mean) / count
            return size / mean
        self._mean = mean + (bound - mean) / count
        if mean > 0.0:
            return min(size / mean, self.most)
        return self.most if size > 0.0 else 1.0

    def reset(self) -> None:
        """Start a new segment with a new mean."""
        self._count = 0
        self._mean = 0.0


class WideRatioSignal(RatioSignal):
    """The same up to 100, for detectors that a few wild rows do not take in."""

    __slots__ = ()
    name = "wide_ratio"
    most = 100.0
    bounds = (0.0, most)


class BrierSignal(ErrorSignal):
    """Half the Brier score, in [0, 1]: see ``half_brier``. It says more than an error."""

    __slots__ = ()
    name = "brier"


def half_brier(probabilities: Sequence[float], truth: int) -> float:
    """Half of sum (p - 1[truth])^2 over classes (Brier 1950), in [0, 1]; ``truth`` may be none of
    them.

    >>> half_brier([1.0, 0.0], 0), half_brier([0.5, 0.5], 1), half_brier([1.0, 0.0], 7)
    (0.0, 0.25, 1.0)
    """
    total = 1.0
    for p in probabilities:
        total += p * p
    if 0 <= truth < len(probabilities):
        total -= 2.0 * probabilities[truth]
    return min(max(0.5 * total, 0.0), 1.0)


class ResidualSignal:
    """A residual with its sign, over the mean |residual| of the segment so far, in [-4, 4].

    A model that starts to err to one side is news, though its errors may be no larger. The mean
    is that of ``RatioSignal``; the number is 0 for the first 10 rows of a segment and for what is
    not finite, of which ``RatioSignal`` tells.

    >>> signal = ResidualSignal()
    >>> [signal.update(r) for r in [2.0, -2.0] * 5][-1]
    0.0
    >>> signal.update(-3.0), signal.update(1e9)
    (-1.5, 4.0)
    """

    __slots__ = ("_ratio",)
    name = "residual"
    bounds = (-4.0, 4.0)

    def __init__(self) -> None:
        self._ratio = RatioSignal()

    def update(self, value: float) -> float:
        """The number of this row."""
        if not abs(value) < 1e300:
            return 0.0
        early = self._ratio.early
        size = min(self._ratio.update(value), self.bounds[1])
        if early or value == 0.0:
            return 0.0
        return size if value > 0.0 else -size

    def reset(self) -> None:
        """Start a new segment with a new mean."""
        self._ratio.reset()


SIGNALS: dict[str, type[ErrorSignal] | type[RatioSignal] | type[ResidualSignal]] = {
    kind.name: kind
    for kind in (ErrorSignal, RatioSignal, WideRatioSignal, BrierSignal, ResidualSignal)
}
