"""Few-shot sine regression as a stream: a new, related task after every switch."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi

import numpy as np

from scenarios.generated import gaussian_mae
from scenarios.scenario import Card, Scenario
from streammeta.events import Label, Value

TASK_ROWS = 200
TASKS = 300
FROM, TO = 6, 50  # events after a switch by which adapting is judged, the first after it being 1
NOISE = 0.05  # standard deviation added to y


class SineSwitch(Scenario):
    """y = A sin(x - phi) + N(0, .05); A ~ U[.1, 5], phi ~ U[0, pi], x ~ U[-5, 5] (Finn 2017).

    A new (A, phi) comes every 200 rows, without a sign of it in x. All tasks are related: only
    two numbers change, which a learner can discover from the tasks behind it.
    """

    def __init__(self, seed: int = 0, rows: int | None = None) -> None:
        self.seed = seed
        total = rows or TASKS * TASK_ROWS
        best = gaussian_mae(NOISE)
        switches = range(TASK_ROWS, total, TASK_ROWS)
        self.card = Card(
            name="sine_switch",
            task="regression",
            rows=total,
            drifts=tuple((row, row) for row in switches),
            description=f"a sine of new amplitude and phase every {TASK_ROWS} rows, noise {NOISE}",
            ceiling=f"mean squared error {NOISE**2:.4g} (noise), mean absolute error {best:.4g}",
            reference="Finn, Abbeel & Levine 2017, arXiv 1703.03400, section 5.1, as a stream",
            default_rows=TASKS * TASK_ROWS,
            best=best,
        )

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        rng = np.random.default_rng([self.seed, 17])
        for _ in range(0, self.card.rows, TASK_ROWS):
            amplitude, phase = rng.uniform(0.1, 5.0), rng.uniform(0.0, pi)
            xs = rng.uniform(-5.0, 5.0, TASK_ROWS)
            ys = amplitude * np.sin(xs - phase) + rng.normal(0.0, NOISE, TASK_ROWS)
            for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
                yield {"x": x}, y
