"""Classification with abrupt and gradual drifts between four concepts."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, pi, sin

import numpy as np

from scenarios.scenario import Card, Scenario
from streammeta.events import Label, Value

FLIPPED = 0.10  # share of labels turned over
WIDTH = 1_000  # rows over which a gradual drift mixes the old and the new concept
ROWS = 20_000
CHANGES = ((4_000, 0), (8_000, WIDTH), (12_500, 0), (16_000, WIDTH))  # (first row, width)
_STEEPNESS = 10.0  # the sigmoid goes from .7 % to 99.3 % of the new concept over the width


class ConceptMix(Scenario):
    """Four features U[0, 1], two classes, 10 % of labels flipped; five stretches, four concepts.

    Concepts: a plane (SEA-like, Street & Kim 2001), a sine (SINE1, Gama et al. 2004), the sine
    upside down, a band between two planes, and the first plane again. Two changes are abrupt; two
    are gradual: each row comes from the new concept with a probability that rises as a sigmoid
    over 1,000 rows, as in MOA's ConceptDriftStream (Bifet et al. 2010).
    """

    def __init__(self, seed: int = 0, rows: int | None = None) -> None:
        self.seed = seed
        total = rows or ROWS
        self.card = Card(
            name="concept_mix",
            task="classification",
            rows=total,
            drifts=tuple(
                (start, min(start + width, total - 1)) for start, width in CHANGES if start < total
            ),
            description="plane, sine, sine upside down, band, plane again; two abrupt changes, "
            f"two gradual over {WIDTH:,} rows, {FLIPPED:.0%} of labels flipped",
            ceiling=f"accuracy {1 - FLIPPED:.2f} (label noise)",
            reference="made here from the SEA and SINE concepts of the literature",
            default_rows=ROWS,
            best=1 - FLIPPED,
        )

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        rng = np.random.default_rng([self.seed, 41])
        for row in range(self.card.rows):
            x = rng.random(4).tolist()
            choice, flip = rng.random(2)
            label = _concept(self._stretch(row, choice), x) != (flip < FLIPPED)
            yield {f"x{i}": value for i, value in enumerate(x)}, "up" if label else "down"

    @staticmethod
    def _stretch(row: int, choice: float) -> int:
        """Which stretch's concept rules the row; ``choice`` in [0, 1) decides while they mix."""
        at = 0
        for number, (start, width) in enumerate(CHANGES, 1):
            if row >= start + width:
                at = number
            elif row >= start:
                middle = (row - start) / width - 0.5
                at = number if choice < 1.0 / (1.0 + exp(-_STEEPNESS * middle)) else number - 1
        return at


def _concept(stretch: int, x: list[float]) -> bool:
    if stretch in (0, 4):
        return x[0] + x[1] > 0.9
    if stretch in (1, 2):
        below = x[1] < 0.5 + 0.35 * sin(2.0 * pi * x[0])
        return below if stretch == 1 else not below
    return abs(x[0] - x[2]) < 0.3
