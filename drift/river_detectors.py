"""River's detectors behind one ``Detector`` with one convention: 1 is wrong, larger is worse.

==============  ==================  =======  =========================================
name            reads               warns    River's own convention, and what we do
==============  ==================  =======  =========================================
``adwin``       losses              no       two-sided: improvements are dropped
``page_hinkley``  losses            no       ``mode="up"``: rises only
``kswin``       losses              no       two-sided: improvements are dropped
``ddm``         0/1                 yes      1 = wrong
``eddm``        0/1                 yes      1 = wrong
``fhddm``       0/1                 no       looks for a fall of the mean (1 = correct,
                                             whatever its docstring says): flipped
``hddm_a``      0/1                 yes      1 = wrong
``hddm_w``      0/1                 yes      1 = wrong
==============  ==================  =======  =========================================

Only a change for the worse is an alarm: a learner that improves needs no help. River is
imported when the first detector is made, not with this module.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from importlib import import_module
from typing import Any, ClassVar, TypeVar

from drift.detector import WARN, Input, Status
from drift.signals import CLIP

_STABLE, _WARNING, _DRIFT = Status.STABLE, Status.WARNING, Status.DRIFT


def _river_class(*spellings: str) -> Any:
    """River's class of the first spelling that the installed version knows."""
    for module in ("river.drift.binary", "river.drift"):
        found = import_module(module)
        for spelling in spellings:
            if hasattr(found, spelling):
                return getattr(found, spelling)
    raise ImportError(f"the installed river has no detector {' or '.join(spellings)}")


_Kind = TypeVar("_Kind", bound="_River")


class _River(ABC):
    """A River detector and ``params``, the parameters to make it anew."""

    __slots__ = ("_river", "params")
    name: str = ""
    input: Input = "real"
    has_warning: bool = False
    slow: ClassVar[bool] = False
    _spellings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **params: Any) -> None:
        self.params: dict[str, Any] = params
        self.reset()

    @classmethod
    def for_signal(cls, signal: str, seed: int) -> _River:
        """The defaults for ``signal`` ("error" or "ratio"); ``seed`` where there is chance."""
        return cls()

    def at(self: _Kind, level: float) -> _Kind:
        """A new one with the same settings, which raises the fewer alarms the higher ``level``:
        the threshold, or minus the logarithm of what stands for a chance of false alarms."""
        return type(self)(**{**self._settings(), **self._level(level)})

    @property
    @abstractmethod
    def level(self) -> float:
        """What ``at`` takes."""

    def _settings(self) -> dict[str, Any]:
        """What it was made with."""
        return self.params

    @abstractmethod
    def _level(self, level: float) -> dict[str, float]:
        """The settings that make up a level."""

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._river: Any = _river_class(*self._spellings)(**self.params)


class Adwin(_River):
    """ADWIN: a window that drops its older part when the means of the two parts differ.

    A cut is an alarm only if it raised the mean of the window. ``scale`` multiplies the values:
    ADWIN's bound holds for [0, 1]. It tests every 8 rows, not River's 32: found 10 % to 50 %
    errors after 42 rows, not 55, still without a false alarm in 200,000 rows.

    Source: Bifet & Gavalda, Learning from time-changing data with adaptive windowing, 2007.
    """

    __slots__ = ("_count", "_scale", "_total")
    name = "adwin"
    _spellings = ("ADWIN",)

    def __init__(self, delta: float = 0.002, clock: int = 8, scale: float = 1.0) -> None:
        self._scale = scale
        super().__init__(delta=delta, clock=clock)

    @classmethod
    def for_signal(cls, signal: str, seed: int) -> Adwin:
        """Ratios are brought into [0, 1]."""
        return cls(scale=1.0 / CLIP) if signal == "ratio" else cls()

    def _settings(self) -> dict[str, Any]:
        return {**self.params, "scale": self._scale}

    @property
    def level(self) -> float:
        """What ``at`` takes."""
        return -math.log(self.params["delta"])

    def _level(self, level: float) -> dict[str, float]:
        return {"delta": math.exp(-level)}

    def update(self, value: float) -> Status:
        """Take the value of one row."""
        value *= self._scale
        self._count += 1
        self._total += value
        river = self._river
        river.update(value)
        if not river.drift_detected:
            return _STABLE
        # River empties its window at the next update, so counting starts over here as well.
        worse = river.estimation > self._total / self._count
        self.reset()
        return _DRIFT if worse else _STABLE

    def reset(self) -> None:
        """Forget everything, as if just made."""
        self._count = 0
        self._total = 0.0
        super().reset()


class PageHinkley(_River):
    """Page-Hinkley: the sum of what exceeds the mean by more than ``delta``.

    The defaults are for ``RatioSignal``. Simulated with a ``Segmenter``, false alarms per 20,000
    rows (400,000 rows each): residuals normal 0, exponential 0, Student t with 3 degrees of
    freedom 0.65. A ratio of 10 is found at its 2nd row; residuals that grow 20, 10, 5, 3 and
    2 times after 3, 4, 7, 17 and 25 rows on average (the last one in one case of five).

    ``alpha`` below 1 is a trap: River fades the sum, not the mean, and in a long segment
    that takes ``delta`` back: with 0.9999 even normal residuals gave 0.8 alarms per 20,000.

    Source: Page, Continuous inspection schemes, Biometrika 1954.
    """

    __slots__ = ()
    name = "page_hinkley"
    _spellings = ("PageHinkley",)

    def __init__(
        self,
        min_instances: int = 10,
        delta: float = 0.75,
        threshold: float = 15.0,
        alpha: float = 1.0,
    ) -> None:
        super().__init__(
            min_instances=min_instances, delta=delta, threshold=threshold, alpha=alpha, mode="up"
        )

    @classmethod
    def for_signal(cls, signal: str, seed: int) -> PageHinkley:
        """Errors move by less than 1, so they take a smaller delta and threshold."""
        return cls(min_instances=30, delta=0.2, threshold=8.0) if signal == "error" else cls()

    def _settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.params.items() if name != "mode"}

    @property
    def level(self) -> float:
        """What ``at`` takes."""
        return float(self.params["threshold"])

    def _level(self, level: float) -> dict[str, float]:
        return {"threshold": level}

    def update(self, value: float) -> Status:
        """Take the value of one row."""
        river = self._river
        river.update(value)
        if river.drift_detected:
            self.reset()
            return _DRIFT
        return _STABLE


class Kswin(_River):
    """KSWIN: Kolmogorov-Smirnov test between the newest rows and a sample of older ones.

    An alarm only if the newest rows' mean is above that of the older ones. Its sample is drawn
    with ``seed``. About 0.3 ms per row: not for fast streams.

    Source: Raab, Heusinger & Schleif, Reactive soft prototype computing, 2020.
    """

    __slots__ = ("_window",)
    name = "kswin"
    slow = True
    _spellings = ("KSWIN",)

    def __init__(
        self, alpha: float = 0.0005, window_size: int = 100, stat_size: int = 30, seed: int = 0
    ) -> None:
        super().__init__(alpha=alpha, window_size=window_size, stat_size=stat_size, seed=seed)

    @classmethod
    def for_signal(cls, signal: str, seed: int) -> Kswin:
        """The same for both signals: the test reads ranks."""
        return cls(seed=seed)

    @property
    def level(self) -> float:
        """What ``at`` takes."""
        return -math.log(self.params["alpha"])

    def _level(self, level: float) -> dict[str, float]:
        return {"alpha": math.exp(-level)}

    def update(self, value: float) -> Status:
        """Take the value of one row."""
        self._window.append(value)
        self._river.update(value)
        if not self._river.drift_detected:
            return _STABLE
        newest = self.params["stat_size"]
        values = list(self._window)
        older = values[:-newest]
        worse = sum(values[-newest:]) * len(older) > sum(older) * newest
        self.reset()
        return _DRIFT if worse else _STABLE

    def reset(self) -> None:
        """Forget everything, as if just made; the sampling starts from its seed again."""
        self._window: deque[float] = deque(maxlen=self.params["window_size"])
        super().reset()


class _Binary(_River):
    """A River detector of 0/1 errors, with or without a warning zone."""

    __slots__ = ()
    input: Input = "error"
    has_warning = True

    def update(self, value: float) -> Status:
        """Take the error of one row, 1 = wrong."""
        river = self._river
        river.update(value)
        if river.drift_detected:
            self.reset()
            return _DRIFT
        return _WARNING if river.warning_detected else _STABLE


class Ddm(_Binary):
    """DDM: the error rate against its lowest point so far, in standard deviations.

    Raises 0.5 false alarms in the first 1,000 rows of 10 % errors, and alarms at the first error
    that follows a perfect start. Here to compare with.

    Source: Gama et al., Learning with drift detection, SBIA 2004.
    """

    __slots__ = ()
    name = "ddm"
    _spellings = ("DDM",)

    def __init__(
        self, warm_start: int = 30, warning_threshold: float = 2.0, drift_threshold: float = 3.0
    ) -> None:
        super().__init__(
            warm_start=warm_start,
            warning_threshold=warning_threshold,
            drift_threshold=drift_threshold,
        )

    @property
    def level(self) -> float:
        """What ``at`` takes."""
        return float(self.params["drift_threshold"])

    def _level(self, level: float) -> dict[str, float]:
        return {"drift_threshold": level, "warning_threshold": 2.0 / 3.0 * level}


class Eddm(_Binary):
    """EDDM: the distance between errors against its largest so far.

    Raises many false alarms in short streams: 0.6 per 1,000 rows of 10 % errors with these
    thresholds (River's .95 and .9: 2 per 1,000). Here to compare with.

    Source: Baena-Garcia et al., Early drift detection method, 2006.
    """

    __slots__ = ()
    name = "eddm"
    _spellings = ("EDDM",)

    def __init__(self, warm_start: int = 30, alpha: float = 0.8, beta: float = 0.7) -> None:
        super().__init__(warm_start=warm_start, alpha=alpha, beta=beta)

    @property
    def level(self) -> float:
        """What ``at`` takes."""
        return -math.log(self.params["beta"])

    def _level(self, level: float) -> dict[str, float]:
        return {"alpha": math.exp(-0.6 * level), "beta": math.exp(-level)}


class Fhddm(_Binary):
    """FHDDM: the accuracy of the last 100 rows against its best so far (Hoeffding's bound).

    Source: Pesaranghader & Viktor, Fast Hoeffding drift detection method, ECML-PKDD 2016.
    """

    __slots__ = ()
    name = "fhddm"
    has_warning = False
    _spellings = ("FHDDM",)

    def __init__(self, sliding_window_size: int = 100, confidence_level: float = 1e-6) -> None:
        super().__init__(sliding_window_size=sliding_window_size, confidence_level=confidence_level)

    def update(self, value: float) -> Status:
        """Take the error of one row, 1 = wrong; River's FHDDM counts the right ones."""
        return super().update(1.0 - value)

    @property
    def level(self) -> float:
        """What ``at`` takes."""
        return -math.log(self.params["confidence_level"])

    def _level(self, level: float) -> dict[str, float]:
        return {"confidence_level": math.exp(-level)}


class HddmA(_Binary):
    """HDDM_A: means before and after the best cut (Hoeffding's bound).

    In segments of 500 rows, where it is most nervous, it and ADWIN raise 0, 0.8 and 0.4 false
    alarms per 20,000 rows of 10, 30 and 50 % errors (River's 1e-3: 0, 1.8 and 1.2). It slows
    down in long segments: 10 % to 50 % takes 70 rows after 5,000.

    Source: Frias-Blanco et al., IEEE TKDE 27(3), 2014.
    """

    __slots__ = ()
    name = "hddm_a"
    _spellings = ("HDDMA", "HDDM_A")

    def __init__(self, drift_confidence: float = 3e-4, warning_confidence: float = 0.005) -> None:
        super().__init__(drift_confidence=drift_confidence, warning_confidence=warning_confidence)

    @property
    def level(self) -> float:
        """What ``at`` takes."""
        return math.log(2.0 / self.params["drift_confidence"])

    def _level(self, level: float) -> dict[str, float]:
        """Of log(2 / confidence), which is what the bound has."""
        return {
            "drift_confidence": min(2.0 * math.exp(-level), 0.999),
            "warning_confidence": min(2.0 * math.exp(-WARN * level), 0.999),
        }


class HddmW(_Binary):
    """HDDM_W: exponentially weighted means before and after the best cut (McDiarmid's bound).

    10 % to 50 % found after 45 rows. False alarms per 20,000 rows of 10, 30 and 50 % errors: 0, 2
    and 4; with River's own ``drift_confidence`` of 1e-3: 30 rows, and 8 at 30 %.

    Source: Frias-Blanco et al., IEEE TKDE 27(3), 2014.
    """

    __slots__ = ()
    name = "hddm_w"
    _spellings = ("HDDMW", "HDDM_W")

    def __init__(
        self,
        drift_confidence: float = 1e-4,
        warning_confidence: float = 0.005,
        lambda_val: float = 0.05,
    ) -> None:
        super().__init__(
            drift_confidence=drift_confidence,
            warning_confidence=warning_confidence,
            lambda_val=lambda_val,
        )

    @property
    def level(self) -> float:
        """What ``at`` takes."""
        return -math.log(self.params["drift_confidence"])

    def _level(self, level: float) -> dict[str, float]:
        return {"drift_confidence": math.exp(-level), "warning_confidence": math.exp(-WARN * level)}
