"""A fleet of sensors: one family of response curves, each sensor with a drift of its own."""

from __future__ import annotations

from math import pi, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scenarios.keyed.fleet import (
    Change,
    Floats,
    KeyedScenario,
    Series,
    Turns,
    changes,
    in_rounds,
    joining,
    path,
)

JOIN = (20, 150)  # rounds in which late sensors come
QUIET = (80, 240)  # rows of a sensor between two of its drifts
AGEING = 60  # rows that ageing takes
MINUTE = 60.0
DAY = 96  # rounds after which the temperature comes round


class Sensors(KeyedScenario):
    """True value from what a sensor reads and the temperature; every sensor reports each round.

    y = offset + gain tanh(2 r) + bend r^2 + heat t + N(0, noise), r ~ U[-1, 1] the reading, t the
    temperature, which all sensors share but for N(0, .3). Four numbers make a sensor. An abrupt
    recalibration gives it another offset (at least .6 away), gain and bend; ageing takes 60 rows
    to wear down its gain and to bend its curve.

    Args:
        seed: what makes another fleet.
        rows: rows of the whole stream; 600 per sensor by default.
        keys: number of sensors.
        late: share of the sensors that join in a round between 20 and 150.
        noise: standard deviation of the noise.
    """

    name = "sensors"
    task: Literal["classification", "regression"] = "regression"
    prefix = "sensor"
    summary = "a fleet of sensors of one kind, each recalibrated and ageing on its own"
    reference = "made here: linear in four numbers per sensor"
    rows_per_key = 600
    usual_noise = 0.1

    def _set_up(self, keys: int, late: float, rows: int) -> tuple[Turns, NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 101])
        joined = joining(rng, keys, late, JOIN)
        return in_rounds(rng, joined, rows, MINUTE), joined

    def _noise_is(self) -> str:
        return f"noise {self.noise:g} on the label"

    def _series_of(self, key: int, n: int) -> Series:
        rng = [np.random.default_rng([self.seed, 103, key, part]) for part in range(4)]
        way = changes(rng[0], n, QUIET, _following)
        numbers = path(_numbers(rng[1], way), way, n)
        random = rng[2].random((n, 2))
        reading = np.round(2.0 * random[:, 0] - 1.0, 6)
        noise = rng[3].standard_normal((n, 2))
        season = np.sin(2.0 * pi * (np.arange(n) + self._joined[key]) / DAY)
        temperature = np.round(season + 0.3 * noise[:, 0], 6)
        ideal = np.sum(numbers * basis(reading, temperature), axis=1)
        return Series(
            {"reading": reading.tolist(), "temperature": temperature.tolist()},
            (ideal + self.noise * noise[:, 1]).tolist(),
            ideal.tolist(),
            n * self.noise * sqrt(2.0 / pi),
            way,
        )


def basis(reading: Floats, temperature: Floats) -> Floats:
    """What a sensor's offset, gain, bend and heat are multiplied with, ``(n, 4)``."""
    parts = [np.ones_like(reading), np.tanh(2.0 * reading), reading**2, temperature]
    return np.stack(parts, axis=1)


def _following(rng: np.random.Generator, last: str) -> tuple[str, int]:
    """A sensor that has aged is recalibrated next: it cannot wear down to nothing."""
    return ("ages", AGEING) if last != "ages" and rng.random() < 0.5 else ("recalibrated", 0)


def _numbers(rng: np.random.Generator, way: tuple[Change, ...]) -> list[Floats]:
    """(offset, gain, bend, heat) before the first change and after each."""
    found = [rng.uniform([-1.5, 0.6, -0.5, -0.5], [1.5, 2.4, 0.5, 0.5])]
    for change in way:
        offset, gain, bend, heat = found[-1]
        if change.what == "ages":
            gain, bend = gain * rng.uniform(0.4, 0.65), bend + rng.uniform(0.5, 1.0)
        else:
            step = rng.uniform(0.6, 1.5)
            offset = offset - step if offset > 0.0 else offset + step
            gain, bend = rng.uniform([0.6, -0.5], [2.4, 0.5])
        found.append(np.array([offset, gain, bend, heat]))
    return found


sensors = Sensors.of
