"""Transforms of event time, on any scenario: bursts and seasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from math import pi, sin
from typing import ClassVar

import numpy as np

from scenarios.scenario import Scenario
from scenarios.transforms.step import SURVEYED, Step, changed, is_number, row_wise, survey
from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value

BURST_STEP = 0.001  # seconds between two questions of a burst


@dataclass(frozen=True)
class Bursts(Step):
    """Questions come ``size`` at a time, a millisecond apart, then none for ``gap`` seconds.

    Only event time changes; a late label comes at the time of the question before it.
    """

    name: ClassVar[str] = "bursts"
    size: int = 50
    gap: float = 60.0

    def __post_init__(self) -> None:
        if self.size < 1 or self.gap <= 0.0:
            raise UsageError(f"bursts: size={self.size}, gap={self.gap}: expected both above 0")

    def apply(self, base: Scenario) -> Scenario:
        def change(events: Iterator[Event]) -> Iterator[Event]:
            row, first, now = 0, None, 0.0
            for event in events:
                if event.x is not None:
                    first = (event.ts or 0.0) if first is None else first
                    burst, within = divmod(row, self.size)
                    now = first + burst * (self.gap + self.size * BURST_STEP) + within * BURST_STEP
                    row += 1
                yield Event(event.id, event.x, event.y, event.key, now, event.error)

        return changed(base, self, change, f"bursts of {self.size} questions, {self.gap:g} s apart")


@dataclass(frozen=True)
class Seasonality(Step):
    """A sine of ``period`` rows: added to the label, or in classification to numeric features.

    ``amplitude`` counts in standard deviations (of the label, or of each feature) as in the first
    500 rows.
    """

    name: ClassVar[str] = "seasonality"
    period: int = 1000
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        if self.period < 2:
            raise UsageError(f"seasonality: period={self.period}: expected 2 rows or more")

    def apply(self, base: Scenario) -> Scenario:
        told = f"a season of {self.period:,} rows"
        if base.card.task == "regression":
            labels = (event.y for event in base.events() if event.y is not None)
            spread = float(np.std([float(y) for y in islice(labels, SURVEYED)] or [0.0]))

            def tell(row: int, y: Label) -> Label:
                return float(y) + spread * self._swing(row)

            return changed(base, self, lambda events: row_wise(events, tell=tell), told)
        spreads = {name: spread for name, (_, spread) in survey(base).numeric.items()}
        if not spreads:
            raise UsageError(f"seasonality: {base.card.name!r} has no numeric feature to swing")

        def ask(row: int, event: Event) -> dict[str, Value]:
            swing = self._swing(row)
            return {
                name: value + spreads[name] * swing  # type: ignore[operator]
                if name in spreads and is_number(value)
                else value
                for name, value in (event.x or {}).items()
            }

        return changed(base, self, lambda events: row_wise(events, ask=ask), told)

    def _swing(self, row: int) -> float:
        return self.amplitude * sin(2.0 * pi * row / self.period)


with_bursts = Bursts
with_seasonality = Seasonality
