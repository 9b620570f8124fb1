"""An hourly series that changes its level, its amplitude or its phase at known rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import pi, sqrt

import numpy as np
from numpy.typing import NDArray

ROWS = 12_000
CALM = 0.3  # share of the rows before any change: those to learn and to choose on, and some more
KINDS = ("level", "amplitude", "phase")
TIMES_EACH = 2  # changes of each kind
DAY, WEEK = 24, 168  # rows of a season
WEEKLY = 0.8  # amplitude of the week's wave, with the day's at 2 and its half-day's at 0.7
DAILY, HALF_DAILY = 2.0, 0.7
MEMORY, SHOCK = 0.8, 0.5  # noise(t) = MEMORY noise(t-1) + SHOCK N(0, 1)
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday


@dataclass(frozen=True, slots=True)
class Change:
    """What is different from ``row`` on: level, amplitude (a factor) and phase in hours."""

    row: int
    kind: str
    level: float
    amplitude: float
    phase: float


class Regimes:
    """y(t) = level + amplitude (day(t + phase) + week(t)) + AR(1) noise.

    Six changes, two of each kind in a seeded order, each at a seeded row in the middle half of
    its share of the rows after the first 30 %: the level moves by 2 to 4, the amplitude is
    multiplied or divided by 1.6 to 2.4 (and the other way the next time), the day starts 4 to 12
    hours earlier. What changed stays so until a later change of the same kind.
    """

    def __init__(self, seed: int, rows: int | None = None) -> None:
        self.seed = seed
        self.rows = rows or ROWS
        self.changes = _changes(np.random.default_rng([seed, 72]), self.rows)

    def values(self) -> NDArray[np.float64]:
        """The series ``(rows,)``."""
        rng = np.random.default_rng([self.seed, 71])
        shocks = rng.normal(0.0, SHOCK, self.rows)
        noise = np.empty(self.rows)
        before = rng.normal(0.0, SHOCK / sqrt(1.0 - MEMORY**2))  # as if it had always run
        for row, shock in enumerate(shocks):
            before = noise[row] = MEMORY * before + shock
        return self.season() + noise

    def season(self) -> NDArray[np.float64]:
        """The series without its noise ``(rows,)``."""
        t = np.arange(self.rows, dtype=float)
        level, amplitude, phase = np.zeros(self.rows), np.ones(self.rows), np.zeros(self.rows)
        for change in self.changes:
            level[change.row :] = change.level
            amplitude[change.row :] = change.amplitude
            phase[change.row :] = change.phase
        hour = 2.0 * pi * (t + phase) / DAY
        day = DAILY * np.sin(hour) + HALF_DAILY * np.sin(2.0 * hour + 1.0)
        shape: NDArray[np.float64] = day + WEEKLY * np.sin(2.0 * pi * t / WEEK)
        return level + amplitude * shape

    def times(self) -> tuple[datetime, ...]:
        """Each row's moment, one an hour."""
        return tuple(BEGIN + timedelta(hours=row) for row in range(self.rows))

    def noise(self, horizon: int) -> float:
        """E|y(t+H) - E y(t+H)| given all up to t: the shocks that are still to come.

        Their sum has the variance SHOCK^2 (1 - MEMORY^2H) / (1 - MEMORY^2); the mean absolute
        value of a normal variable is sqrt(2 / pi) of its standard deviation.
        """
        variance = SHOCK**2 * (1.0 - MEMORY ** (2 * horizon)) / (1.0 - MEMORY**2)
        return sqrt(2.0 / pi * variance)


def _changes(rng: np.random.Generator, rows: int) -> tuple[Change, ...]:
    kinds = [str(kind) for kind in rng.permutation(KINDS * TIMES_EACH)]
    share = (1.0 - CALM) * rows / len(kinds)
    level, amplitude, phase = 0.0, 1.0, 0.0
    made: list[Change] = []
    for number, kind in enumerate(kinds):
        row = int(CALM * rows + (number + rng.uniform(0.25, 0.75)) * share)
        if kind == "level":
            level += rng.choice((-1.0, 1.0)) * rng.uniform(2.0, 4.0)
        elif kind == "amplitude":
            factor = rng.uniform(1.6, 2.4)
            up = amplitude < 1.0 or (amplitude == 1.0 and rng.random() < 0.5)
            amplitude = amplitude * factor if up else amplitude / factor
        else:
            phase += float(rng.integers(4, 13))
        made.append(Change(row, kind, float(level), float(amplitude), phase))
    return tuple(made)
