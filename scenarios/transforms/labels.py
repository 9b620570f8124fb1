"""Transforms of labels and of when they come, on any scenario."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import hypot
from typing import ClassVar

from scenarios.generated import Generated, flipped_accuracy, gaussian_mae
from scenarios.scenario import Scenario
from scenarios.schedule import At, rows_of
from scenarios.transforms.step import (
    Step,
    changed,
    classes_of,
    keep_at,
    root,
    row_wise,
    stretch,
)
from streammeta.errors import UsageError
from streammeta.events import Event, Label
from streammeta.sources.labels import delayed


@dataclass(frozen=True)
class LabelSwap(Step):
    """From ``at`` on every class is called by the next one's name, the last by the first one's.

    In regression the label changes its sign. Each further row of ``at`` does it once more.
    """

    name: ClassVar[str] = "label_swap"
    at: At = 0.5

    def __post_init__(self) -> None:
        keep_at(self)

    def apply(self, base: Scenario) -> Scenario:
        starts = rows_of(self.at, base.card.rows)
        regression = base.card.task == "regression"
        classes = cache(lambda: classes_of(base))

        def tell(row: int, y: Label) -> Label:
            turns = stretch(row, starts)
            if not turns:
                return y
            if regression:
                return -y if turns % 2 else y  # type: ignore[operator]
            known = classes()
            return known[(known.index(y) + turns) % len(known)]

        told = "labels change their sign" if regression else "classes swap their names"
        return changed(base, self, lambda events: row_wise(events, tell=tell), told, starts)


@dataclass(frozen=True)
class LabelNoise(Step):
    """A share ``p`` of labels becomes another class, each of them as likely.

    In regression a Gaussian of standard deviation ``p``, in the label's unit, is added.
    """

    name: ClassVar[str] = "label_noise"
    constant: ClassVar[int] = 103
    p: float

    def __post_init__(self) -> None:
        if self.p < 0.0:
            raise UsageError(f"label_noise: p={self.p}: expected 0 or more")

    def apply(self, base: Scenario) -> Scenario:
        if base.card.task == "regression":
            return self._spread(base)
        if self.p > 1.0:
            raise UsageError(f"label_noise: p={self.p}: expected a share of the labels, 0 to 1")
        classes = cache(lambda: classes_of(base))
        inside = root(base)
        early = isinstance(inside, Generated) and inside.possible(0) != list(inside.family.labels)

        def change(events: Iterator[Event]) -> Iterator[Event]:
            draws = self.rng(base).random(base.card.rows)

            def tell(row: int, y: Label) -> Label:
                u = float(draws[row])
                if u >= self.p:
                    return y
                # A class that is held back must not be shown by noise.
                known = inside.possible(row) if early else classes()  # type: ignore[attr-defined]
                others = [label for label in known if label != y]
                return others[int(u / self.p * len(others))] if others else y

            return row_wise(events, tell=tell)

        best = base.card.best
        if best is not None:
            best = None if early else flipped_accuracy(best, self.p, len(classes()))
        told = f"{self.p:.4g} of the labels turned into another class"
        ceiling = "unknown" if best is None else f"accuracy {best:.4g} (label noise)"
        return changed(base, self, change, told, best=best, ceiling=ceiling)

    def _spread(self, base: Scenario) -> Scenario:
        def change(events: Iterator[Event]) -> Iterator[Event]:
            draws = self.rng(base).normal(0.0, self.p, base.card.rows)

            def tell(row: int, y: Label) -> Label:
                return float(y) + float(draws[row])

            return row_wise(events, tell=tell)

        best = None
        if isinstance(root(base), Generated) and base.card.best is not None:
            # Gaussians add up in their variances; only generators are known to have one.
            best = gaussian_mae(hypot(base.card.best / gaussian_mae(1.0), self.p))
        ceiling = "unknown" if best is None else f"mean absolute error {best:.4g} (noise)"
        told = f"Gaussian noise of spread {self.p:.4g} on the label"
        return changed(base, self, change, told, best=best, ceiling=ceiling)


@dataclass(frozen=True)
class Delay(Step):
    """Labels come ``n`` questions later, and up to ``jitter`` more (seeded), so out of order.

    At the end of the stream the remaining labels come.
    """

    name: ClassVar[str] = "delay"
    constant: ClassVar[int] = 107
    n: int
    jitter: int = 0

    def __post_init__(self) -> None:
        if self.n < 0 or self.jitter < 0:
            raise UsageError(f"delay: n={self.n}, jitter={self.jitter}: expected 0 or more rows")

    def apply(self, base: Scenario) -> Scenario:
        def change(events: Iterator[Event]) -> Iterator[Event]:
            if not self.jitter:
                return delayed(events, self.n)
            extra = self.rng(base).integers(0, self.jitter + 1, base.card.rows)
            return delayed(events, (self.n + extra).tolist())

        span = f"{self.n} to {self.n + self.jitter}" if self.jitter else str(self.n)
        return changed(base, self, change, f"labels come {span} questions later")


with_label_swap = LabelSwap
with_label_noise = LabelNoise
with_delay = Delay
