"""What a detector is fed: the error of a classifier, or the residual of a regressor.

A residual has the units of its target, and a detector's threshold must not. ``RatioSignal``
therefore divides it by what has been usual in the current segment.
"""

from __future__ import annotations

from typing import Protocol

_WINDOW = 200
_MIN_COUNT = 10
CLIP = 10.0


class Signal(Protocol):
    """Turns the loss of one row into the number that the detectors read."""

    @property
    def name(self) -> str:
        """The name it is asked for by."""

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

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0

    def update(self, value: float) -> float:
        """The ratio of this row, in [0, 10]."""
        size = -value if value < 0.0 else value
        if not size < 1e300:  # infinite, absurd or not a number; must not enter the mean
            return CLIP
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
        return CLIP if size > 0.0 else 1.0

    def reset(self) -> None:
        """Start a new segment with a new mean."""
        self._count = 0
        self._mean = 0.0


SIGNALS: dict[str, type[ErrorSignal] | type[RatioSignal]] = {
    "error": ErrorSignal,
    "ratio": RatioSignal,
}
