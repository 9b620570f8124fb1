"""What every drift detector looks like, whoever wrote it."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Literal, Protocol, runtime_checkable

Input = Literal["error", "real"]
WARN = 0.7  # of the level of an alarm: where detectors whose warning can be chosen warn


class Status(IntEnum):
    """What a detector thinks after one value; larger is more alarming.

    >>> max(Status.STABLE, Status.WARNING) is Status.WARNING
    True
    """

    STABLE = 0
    WARNING = 1
    DRIFT = 2


@runtime_checkable
class Detector(Protocol):
    """Reads one number per row and says whether the stream got worse.

    One convention for all: a value is a loss, so larger is worse, and 1 is a wrong prediction.
    Values are finite (``RatioSignal`` makes them so): charts refuse others, River's go deaf.
    After it has returned ``Status.DRIFT`` a detector has already reset itself and starts
    over with the next value. Detectors pickle; equal histories pickle to equal bytes.
    """

    @property
    def name(self) -> str:
        """The name it is asked for by, for example ``"adwin"``."""

    @property
    def input(self) -> Input:
        """``"error"``: only 0 and 1 (wrong); ``"real"``: any loss >= 0."""

    @property
    def has_warning(self) -> bool:
        """Whether ``Status.WARNING`` can come before ``Status.DRIFT``."""

    def update(self, value: float) -> Status:
        """Take the value of one row."""

    def reset(self) -> None:
        """Forget everything, as if just made."""


def finite(name: str, value: float) -> float:
    """The loss as a float.

    Raises:
        ValueError: it is not finite; ``name`` is the detector that was shown it.
    """
    value = float(value)
    if not -math.inf < value < math.inf:
        raise ValueError(f"{name}: a loss is {value}; expected a finite number")
    return value
