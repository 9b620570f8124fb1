"""Families whose concepts are points of a vector space: a new vector per stretch.

All concepts are related, so that a learner can discover from the ones behind it what the next may
be, and there is always something between two of them: they can drift incrementally.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import cos, pi, radians, sin

import numpy as np

from scenarios.generated import ROWS, Between, Family, Generated, Row, Vector
from scenarios.schedule import Schedule

NOISE = 0.05  # standard deviation added to y
TASK_ROWS = 200
TASKS = 300
LINEAR_FEATURES = 4
DEGREE = 3
TURN = 60.0  # degrees from one concept of rotating_plane to the next


def linear_switch(seed: int = 0, rows: int | None = None) -> Generated:
    """y = b + w.x + N(0, .05); x ~ U[-1, 1]^4, b and w ~ U[-2, 2], new ones every 200 rows."""

    def parameters(concept: int, seed: int) -> Vector:
        return np.random.default_rng([seed, 15, concept]).uniform(-2.0, 2.0, LINEAR_FEATURES + 1)

    def row(weights: Vector, rng: np.random.Generator) -> Row:
        x = rng.uniform(-1.0, 1.0, LINEAR_FEATURES)
        y = float(weights[0] + weights[1:] @ x) + NOISE * float(rng.standard_normal())
        return {f"x{i}": value for i, value in enumerate(x.tolist())}, y

    return _switch("linear_switch", "a new linear function", Between(parameters, row), seed, rows)


def polynomial_switch(seed: int = 0, rows: int | None = None) -> Generated:
    """A cubic of x ~ U[-1.5, 1.5], coefficients ~ U[-2, 2], plus N(0, .05); new every 200 rows."""

    def parameters(concept: int, seed: int) -> Vector:
        return np.random.default_rng([seed, 16, concept]).uniform(-2.0, 2.0, DEGREE + 1)

    def row(coefficients: Vector, rng: np.random.Generator) -> Row:
        x = float(rng.uniform(-1.5, 1.5))
        y = 0.0
        for coefficient in coefficients[::-1].tolist():  # Horner
            y = y * x + coefficient
        return {"x": x}, y + NOISE * float(rng.standard_normal())

    return _switch("polynomial_switch", "a new cubic", Between(parameters, row), seed, rows)


def rotating_plane(seed: int = 0, rows: int | None = None, *, noise: float = 0.10) -> Generated:
    """On which side of a line through the origin? Two of four features U[-1, 1] matter.

    The first line has a seeded angle, each later concept stands 60 degrees further, which changes
    the label of one row in three.
    """

    def parameters(concept: int, seed: int) -> Vector:
        first = float(np.random.default_rng([seed, 18]).uniform(0.0, 2.0 * pi))
        return np.array([first + concept * radians(TURN)])

    def row(angle: Vector, rng: np.random.Generator) -> Row:
        x = rng.uniform(-1.0, 1.0, 4).tolist()
        label = cos(angle[0]) * x[0] + sin(angle[0]) * x[1] > 0.0
        return {f"x{i}": value for i, value in enumerate(x)}, label

    between = Between(parameters, row)
    family = Family(
        name="rotating_plane",
        task="classification",
        description=f"on which side of a line that turns by {TURN:.0f} degrees",
        reference="made here, after Hulten, Spencer & Domingos 2001",
        rows=_rows(between, 19),
        labels=(False, True),
        noise=noise,
        between=between,
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def _switch(name: str, what: str, between: Between, seed: int, rows: int | None) -> Generated:
    family = Family(
        name=name,
        task="regression",
        description=f"{what} in each stretch, noise {NOISE}",
        reference="made here, after the sine tasks of Finn, Abbeel & Levine 2017",
        rows=_rows(between, 20),
        noise=NOISE,
        between=between,
    )
    total = TASKS * TASK_ROWS
    return Generated(family, Schedule(every=TASK_ROWS), seed, rows or total, default_rows=total)


def _rows(between: Between, constant: int) -> Callable[[int, int], Iterator[Row]]:
    """A concept's rows at its own parameters."""

    def stream(concept: int, seed: int) -> Iterator[Row]:
        parameters = between.parameters(concept, seed)
        rng = np.random.default_rng([seed, constant, concept])
        while True:
            yield between.row(parameters, rng)

    return stream
