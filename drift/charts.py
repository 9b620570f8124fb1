"""Control charts that start themselves: CUSUM, EWMA, Shewhart and SPRT.

Every chart compares a value with the mean and the deviation of the segment so far, so none has to
be told what is usual. ``statistic`` is what it compares with ``threshold``: an alarm is raised
when the one exceeds the other, a warning when it exceeds ``WARN`` of it. Thresholds come from
``drift.calibration``; those here are for one chart alone and some 100,000 rows between false
alarms, of 10 % errors or of ratios of normal residuals.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

from drift.detector import WARN, Input, Status, finite

MIN_ROWS = 30  # of a segment before its mean and deviation are trusted
MEMORY = 2_000  # rows: the mean and the deviation forget at one over this
_STABLE, _WARNING, _DRIFT = Status.STABLE, Status.WARNING, Status.DRIFT
_Kind = TypeVar("_Kind", bound="Chart")


class Chart(ABC):
    """A statistic of how far values lie above what has been usual, and a threshold.

    Args:
        threshold: of the statistic, > 0.
        spread: one value that counts as seen, so far above the mean: it keeps the deviation from
            0 while all values are alike.

    Raises:
        ValueError: threshold or spread is not above 0.
    """

    __slots__ = ("_mean", "_n", "_squares", "spread", "statistic", "threshold", "warning")
    name: ClassVar[str] = ""
    input: Input = "real"
    has_warning = True
    #: thresholds for errors and for ratios
    usual: ClassVar[tuple[float, float]] = (0.0, 0.0)
    #: settings of its own, by name
    own: ClassVar[tuple[str, ...]] = ()
    _n: int
    _mean: float
    _squares: float
    statistic: float

    def __init__(self, threshold: float | None = None, spread: float = 1.0) -> None:
        threshold = self.usual[0] if threshold is None else threshold
        for name, value in (("threshold", threshold), ("spread", spread)):
            if not value > 0.0:
                raise ValueError(f"{self.name}: {name} is {value}; expected above 0")
        self.threshold, self.spread = threshold, spread
        self.warning = WARN * threshold
        self.reset()

    @classmethod
    def for_signal(cls: type[_Kind], signal: str, seed: int) -> _Kind:
        """The usual threshold for ``signal``, "error" or any other."""
        return cls(cls.usual[signal != "error"])

    @property
    def level(self) -> float:
        """The threshold."""
        return self.threshold

    def at(self: _Kind, level: float) -> _Kind:
        """A new one with the same settings and the threshold ``level``."""
        return type(self)(level, self.spread, **{name: getattr(self, name) for name in self.own})

    def update(self, value: float) -> Status:
        """Take the value of one row.

        Raises:
            ValueError: it is not finite.
        """
        value = finite(self.name, value)
        n, mean = self._n, self._mean
        if n >= MIN_ROWS:
            self._test(value, mean, math.sqrt((self._squares + self.spread**2) / (n + 1)))
            if self.statistic > self.threshold:
                self.reset()
                return _DRIFT
        above = value - mean
        if n < MEMORY:
            self._n = n = n + 1
            self._mean = mean = mean + above / n
            self._squares += above * (value - mean)
        else:  # as much is forgotten as is learned
            self._mean = mean = mean + above / n
            self._squares += above * (value - mean) - self._squares / n
        return _WARNING if self.statistic > self.warning else _STABLE

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._n, self._mean, self._squares = 0, 0.0, 0.0
        self.statistic = 0.0

    @abstractmethod
    def _test(self, value: float, mean: float, deviation: float) -> None:
        """Bring ``statistic`` up to date."""


class Cusum(Chart):
    """CUSUM: the sum of what exceeds the mean by more than ``slack`` deviations, never below 0.

    Source: Page, Continuous inspection schemes, Biometrika 1954; self-starting as in Hawkins,
    Self-starting cusum charts for location and scale, The Statistician 1987.
    """

    __slots__ = ("slack",)
    name = "cusum"
    own = ("slack",)
    usual = (15.5, 12.3)

    def __init__(
        self, threshold: float | None = None, spread: float = 1.0, slack: float = 0.5
    ) -> None:
        self.slack = slack
        super().__init__(threshold, spread)

    def _test(self, value: float, mean: float, deviation: float) -> None:
        self.statistic = max(0.0, self.statistic + (value - mean) / deviation - self.slack)


class Ewma(Chart):
    """EWMA: the exponentially weighted mean, in its own standard deviations above the mean.

    Sources: Roberts, Control chart tests based on geometric moving averages, Technometrics 1959;
    for errors, Ross et al., Exponentially weighted moving average charts for detecting concept
    drift, Pattern Recognition Letters 2012.
    """

    __slots__ = ("_left", "_smooth", "weight")
    name = "ewma"
    own = ("weight",)
    usual = (5.1, 4.5)

    def __init__(
        self, threshold: float | None = None, spread: float = 1.0, weight: float = 0.05
    ) -> None:
        if not 0.0 < weight <= 1.0:
            raise ValueError(f"ewma: weight is {weight}; expected above 0 and at most 1")
        self.weight = weight
        super().__init__(threshold, spread)

    def reset(self) -> None:
        """Forget everything, as if just made."""
        super().reset()
        self._smooth, self._left = 0.0, 1.0

    def _test(self, value: float, mean: float, deviation: float) -> None:
        weight = self.weight
        if self._left == 1.0:
            self._smooth = mean
        self._smooth += weight * (value - self._smooth)
        self._left *= (1.0 - weight) * (1.0 - weight)
        share = weight / (2.0 - weight) * (1.0 - self._left)
        self.statistic = (self._smooth - mean) / (deviation * math.sqrt(share))


class Shewhart(Chart):
    """Shewhart: the mean of each ``group`` of rows, in its standard deviations above the mean.

    Tested at the end of each group, so it is quick with large changes only.

    Source: Shewhart, Economic control of quality of manufactured product, 1931.
    """

    __slots__ = ("_rows", "_sum", "group")
    name = "shewhart"
    own = ("group",)
    usual = (4.4, 3.9)

    def __init__(
        self, threshold: float | None = None, spread: float = 1.0, group: int = 20
    ) -> None:
        if group < 1:
            raise ValueError(f"shewhart: group is {group}; expected at least 1")
        self.group = group
        super().__init__(threshold, spread)

    def reset(self) -> None:
        """Forget everything, as if just made."""
        super().reset()
        self._rows, self._sum = 0, 0.0

    def _test(self, value: float, mean: float, deviation: float) -> None:
        self._sum += value - mean
        self._rows += 1
        if self._rows == self.group:
            self.statistic = self._sum / (deviation * math.sqrt(self.group))
            self._rows, self._sum = 0, 0.0


class Sprt(Chart):
    """SPRT, over and over: the log likelihood ratio of a mean ``shift`` deviations higher.

    Below ``accept`` the mean is taken to be as it was, and the test begins anew; the ratio is that
    of normal values of one deviation.

    Source: Wald, Sequential tests of statistical hypotheses, Annals of Math. Statistics 1945.
    """

    __slots__ = ("accept", "shift")
    name = "sprt"
    own = ("shift", "accept")
    usual = (14.8, 11.5)

    def __init__(
        self,
        threshold: float | None = None,
        spread: float = 1.0,
        shift: float = 1.0,
        accept: float = -2.3,
    ) -> None:
        if not shift > 0.0 > accept:
            raise ValueError(
                f"sprt: shift is {shift} and accept {accept}; expected above 0 and below 0"
            )
        self.shift, self.accept = shift, accept
        super().__init__(threshold, spread)

    def _test(self, value: float, mean: float, deviation: float) -> None:
        told = self.shift * ((value - mean) / deviation - 0.5 * self.shift)
        statistic = self.statistic + told
        self.statistic = 0.0 if statistic < self.accept else statistic
