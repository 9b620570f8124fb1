"""What forecasters share that learn on a first part of a stream and choose on the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenarios.prequential import Model
from streammeta.errors import UsageError
from streammeta.events import Label, Value
from streammeta.experts.baselines import Answer, Baseline

Rows = NDArray[np.float64]

NEWEST = "target-0"


@dataclass(slots=True)
class Pairs:
    """Pairs in the order in which their labels came.

    ``known[i]`` is how many labels of the whole stream had come when question ``i`` was asked,
    taking labels to come in the order of questions.
    """

    rows: list[Rows] = field(default_factory=list)
    targets: list[float] = field(default_factory=list)
    known: list[int] = field(default_factory=list)

    def arrays(self) -> tuple[Rows, Rows]:
        """Features ``(n, features)`` and targets ``(n,)``."""
        return np.array(self.rows), np.array(self.targets)


class Forecaster(ABC):
    """The part that is fitted; ``SplitModel`` puts it into the loop of the bench.

    It reads rows of numbers: the target's last values, the newest first, then all other features
    by name, or with ``lags_only`` none of those.
    """

    lags_only = False

    def __init__(self, seed: int) -> None:
        self.seed = seed

    @abstractmethod
    def fit(self, train: Pairs, validation: Pairs) -> None:
        """Learn from ``train``, choose settings by ``validation``."""

    @abstractmethod
    def forecast(self, row: Rows) -> float:
        """The target for features ``row (features,)``; only called after ``fit``."""

    @abstractmethod
    def update(self, row: Rows, y: float) -> None:
        """Take a pair whose label came after ``fit``; a frozen forecaster passes over it."""


class SplitModel(Baseline):
    """A forecaster in the loop of the bench: ``first`` and ``second`` count questions.

    Labels that come before question ``first`` is asked are for learning, those that come before
    question ``second`` for choosing. So a pair belongs to the part in which its target lies, not
    its features: at a horizon ``H`` the last ``H`` questions before ``first`` do not train. Until
    ``second`` the answer is the newest value, ``target-0``.

    Missing features count as 0, the mean of a z-scored column.

    Raises:
        UsageError: on the first question without ``target-0``, on a feature that is a text, or at
            question ``second`` when no label has come in one of the two parts.
    """

    def __init__(
        self, name: str, forecaster: Forecaster, first: int, second: int, chunk: int = 1
    ) -> None:
        super().__init__("regression", chunk)
        self.name, self.forecaster = name, forecaster
        self.first, self.second = first, second
        self._train, self._validation = Pairs(), Pairs()
        self._columns: list[str] = []
        self._learned = 0
        self.fitted = False

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        if not self._columns:
            self._columns = self._names(x)
        self._fit_when_due()
        row = self._read(x)
        if not self.fitted:
            newest = x.get(NEWEST)
            return (None if newest is None else float(newest)), None
        return self.forecaster.forecast(row), None

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        self._fit_when_due()
        row, target = self._read(x), float(y)
        if self.fitted:
            self.forecaster.update(row, target)
        else:
            part = self._train if self._row < self.first else self._validation
            part.rows.append(row)
            part.targets.append(target)
            part.known.append(max(0, self._learned - len(self._pending)))
        self._learned += 1

    def _fit_when_due(self) -> None:
        if self.fitted or self._row < self.second:
            return
        counts = len(self._train.rows), len(self._validation.rows)
        if not all(counts):
            raise UsageError(
                f"model {self.name!r}: {counts[0]} labels came before question {self.first} and "
                f"{counts[1]} from there to question {self.second}, expected some in both"
            )
        self.forecaster.fit(self._train, self._validation)
        self._train, self._validation = Pairs(), Pairs()
        self.fitted = True

    def _names(self, x: Mapping[str, Value]) -> list[str]:
        """The features in a fixed order: the target's values newest first, then by name."""
        if NEWEST not in x:
            raise UsageError(
                f"model {self.name!r}: the stream has no feature {NEWEST!r} (it has "
                f"{', '.join(list(x)[:8])}); expected a forecast, such as forecast:regimes@24"
            )
        lags: list[str] = []
        while (lag := f"target-{len(lags)}") in x:
            lags.append(lag)
        return lags if self.forecaster.lags_only else lags + sorted(set(x) - set(lags))

    def _read(self, x: Mapping[str, Value]) -> Rows:
        return np.array([self._number(name, x.get(name)) for name in self._columns])

    def _number(self, name: str, value: Value) -> float:
        if value is None:
            return 0.0
        if isinstance(value, str):
            raise UsageError(
                f"model {self.name!r}: feature {name!r} is {value[:40]!r}, expected numbers only"
            )
        number = float(value)
        return 0.0 if isnan(number) else number


class SplitFactory:
    """A row of the table ``models``: ``NAME@FIRST:SECOND``."""

    def __init__(self, name: str, forecaster: type[Forecaster]) -> None:
        self.name, self.forecaster = name, forecaster

    def __call__(
        self, *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
    ) -> Model:
        """A fresh model.

        Raises:
            UsageError: classification, or ``argument`` is not two rising numbers.
        """
        name = f"{self.name}@{argument}"
        if task != "regression":
            raise UsageError(f"model {name!r} has no form for {task}; it forecasts numbers")
        first, colon, second = argument.partition(":")
        right = bool(colon) and first.isdecimal() and second.isdecimal()
        if not right or not 0 < int(first) < int(second):
            raise UsageError(
                f"model {name!r}: expected {self.name}@FIRST:SECOND, learning until question "
                f"FIRST and choosing until SECOND, such as {self.name}@3437:4308; in a bench "
                f"{self.name}@split takes them from the stream's card"
            )
        return SplitModel(name, self.forecaster(seed), int(first), int(second), chunk)
