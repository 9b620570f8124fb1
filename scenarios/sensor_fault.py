"""A camera whose colour channels get mis-wired, twice: real data, induced faults."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from scenarios.data_sets import licence_of
from scenarios.scenario import Card, Scenario
from streammeta.events import Label, Value

PASSES = 4
FIRST, SECOND, JITTER = 3_000, 6_200, 200  # rows; the seed adds 0 to JITTER to each
SWAPPED = {"first": ("red", "blue"), "second": ("red", "green")}
INVERTED = {"first": ("hue-mean",), "second": ("hue-mean", "saturation-mean")}


class SensorFault(Scenario):
    """River's ImageSegments (7 kinds of surface, 18 features), four passes, two sensor faults.

    First fault: the red and the blue wire are swapped (raw and excess channels) and the hue
    sensor reads upside down (max + min - value). Second, related fault, in place of the first:
    red and green are swapped, hue and saturation read upside down. Labels are true throughout.

    The 2,310 rows come again in every pass, in a new seeded order: a model that memorises rows is
    rewarded, as it would be by a machine that keeps making the same parts.
    """

    def __init__(self, seed: int = 0, rows: int | None = None) -> None:
        from river.datasets import ImageSegments

        self.seed = seed
        data = ImageSegments()  # type: ignore[no-untyped-call]
        self._rows = [(dict(x), str(y)) for x, y in data]
        rng = np.random.default_rng([seed, 29])
        self._orders = [rng.permutation(len(self._rows)) for _ in range(PASSES)]
        self.faults = tuple(int(row + rng.integers(0, JITTER + 1)) for row in (FIRST, SECOND))
        self._sums = {
            name: min(x[name] for x, _ in self._rows) + max(x[name] for x, _ in self._rows)
            for name in INVERTED["second"]
        }
        total = min(rows or PASSES * len(self._rows), PASSES * len(self._rows))
        told = {
            self.faults[0]: "FAULT camera wires red<->blue swapped, hue sensor upside down",
            self.faults[
                1
            ]: "FAULT camera wires red<->green swapped, hue and saturation upside down",
        }
        self.card = Card(
            name="sensor_fault",
            task="classification",
            rows=total,
            drifts=tuple((row, row) for row in self.faults if row < total),
            description="7 surfaces seen by a camera; two faults mis-wire its colour channels; "
            f"{PASSES} passes over the same 2,310 rows, each in a new order: rows repeat",
            ceiling="accuracy 1.0: no noise is added, labels are true",
            reference="ImageSegments, UCI (Brodley 1990), as bundled with River",
            default_rows=PASSES * len(self._rows),
            announcements={row: text for row, text in told.items() if row < total},
            best=1.0,  # rows that look alike have one label, and a fault can be undone
            source=f"bundled with River: {data.path.name}",
            licence=licence_of("ImageSegments"),
        )

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        row = 0
        for order in self._orders:
            for index in order.tolist():
                x, y = self._rows[index]
                yield self._seen(x, row), y
                row += 1

    def _seen(self, x: dict[str, Value], row: int) -> dict[str, Value]:
        """``x`` as the sensors report it at ``row``."""
        if row < self.faults[0]:
            return dict(x)
        fault = "first" if row < self.faults[1] else "second"
        left, right = SWAPPED[fault]
        seen = dict(x)
        for kind in ("raw", "ex"):
            a, b = f"{kind}{left}-mean", f"{kind}{right}-mean"
            seen[a], seen[b] = x[b], x[a]
        for name in INVERTED[fault]:
            seen[name] = self._sums[name] - float(x[name] or 0.0)
        return seen
