"""Transforms of features, on any scenario; labels stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from scenarios.scenario import Scenario
from scenarios.schedule import At, rows_of
from scenarios.transforms.step import (
    Ask,
    Step,
    changed,
    is_number,
    keep_at,
    occurrences,
    row_wise,
    stretch,
    survey,
)
from streammeta.errors import UsageError
from streammeta.events import Event, Value


@dataclass(frozen=True)
class FeatureDrift(Step):
    """Numeric features move and labels do not, as when a sensor is mounted anew.

    From ``at`` on a value lies ``shift`` standard deviations further and ``scale`` times as far
    from the mean, both as in the first 500 rows; each further row of ``at`` does it once more.
    ``share`` of the numeric features are hit (at least one; which ones is seeded).
    """

    name: ClassVar[str] = "feature_drift"
    constant: ClassVar[int] = 79
    at: At = 0.5
    shift: float = 2.0
    scale: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        keep_at(self)
        if not 0.0 < self.share <= 1.0:
            raise UsageError(f"feature_drift: share={self.share}: expected above 0, at most 1")
        if self.shift == 0.0 and self.scale == 1.0:
            raise UsageError("feature_drift: shift=0 and scale=1 move nothing")
        if self.scale == 0.0:
            raise UsageError("feature_drift: scale=0 would leave one value; use vanishing_features")

    def apply(self, base: Scenario) -> Scenario:
        starts = rows_of(self.at, base.card.rows)
        numeric = _numeric(base, self, 1)
        names = self.rng(base).permutation(sorted(numeric)).tolist()
        hit = {name: numeric[name] for name in names[: max(1, round(self.share * len(names)))]}

        def ask(row: int, event: Event) -> dict[str, Value]:
            x = dict(event.x or {})
            for _ in range(stretch(row, starts)):
                for name, (mean, spread) in hit.items():
                    value = x.get(name)
                    if is_number(value):
                        x[name] = mean + self.scale * (value - mean) + self.shift * spread  # type: ignore[operator]
            return x

        return changed(
            base, self, _asking(lambda: ask), f"{len(hit)} numeric features move", starts
        )


@dataclass(frozen=True)
class Permutation(Step):
    """From ``at`` on the values of the numeric features stand in each other's columns.

    Every column gets another one's values, along one seeded cycle; each further row of ``at``
    applies another cycle on top.
    """

    name: ClassVar[str] = "permutation"
    constant: ClassVar[int] = 83
    at: At = 0.5

    def __post_init__(self) -> None:
        keep_at(self)

    def apply(self, base: Scenario) -> Scenario:
        starts = rows_of(self.at, base.card.rows)
        names = sorted(_numeric(base, self, 2))
        rng = self.rng(base)
        wires = [{name: name for name in names}]  # column -> whose values it shows
        for _ in starts:
            cycle = rng.permutation(names).tolist()
            after = dict(zip(cycle, cycle[1:] + cycle[:1], strict=True))
            wires.append({name: wires[-1][after[name]] for name in names})

        def ask(row: int, event: Event) -> dict[str, Value]:
            x = event.x or {}
            wire = wires[stretch(row, starts)]
            return {name: x.get(wire.get(name, name)) for name in x}

        return changed(
            base, self, _asking(lambda: ask), f"{len(names)} columns change places", starts
        )


@dataclass(frozen=True)
class Missing(Step):
    """Cells become ``None``: a share ``p`` of them, ``burst`` rows of a feature at a time.

    Outages of one feature are independent of the others', and of other keys'.
    """

    name: ClassVar[str] = "missing"
    constant: ClassVar[int] = 89
    p: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not 0.0 <= self.p < 1.0:
            raise UsageError(f"missing: p={self.p}: expected a share of cells, 0 to below 1")
        if self.burst < 1:
            raise UsageError(f"missing: burst={self.burst}: expected 1 row or more")

    def apply(self, base: Scenario) -> Scenario:
        # An outage starts where the feature is there, so that p of all cells fall into one.
        begins = self.p / (self.p + self.burst * (1.0 - self.p))

        def asking() -> Ask:
            rng = self.rng(base)
            left: dict[tuple[str, str], int] = {}  # rows that an outage still lasts

            def ask(row: int, event: Event) -> dict[str, Value]:
                x = dict(event.x or {})
                for name, u in zip(x, rng.random(len(x)).tolist(), strict=True):
                    cell = (event.key, name)
                    out = left.get(cell, 0) or (self.burst if u < begins else 0)
                    if out:
                        x[name] = None
                        left[cell] = out - 1
                return x

            return ask

        runs = f", {self.burst} rows at a time" if self.burst > 1 else ""
        told = f"{self.p:.4g} of the cells are missing{runs}"
        if not self.p:
            return changed(base, self, _asking(asking), told)
        return changed(base, self, _asking(asking), told, best=None, ceiling="unknown")


@dataclass(frozen=True)
class _Count(Step):
    """``n`` features more or fewer at each row of ``at``."""

    at: At = 0.5
    n: int = 1

    def __post_init__(self) -> None:
        keep_at(self)
        if self.n < 1:
            raise UsageError(f"{self.name}: n={self.n}: expected 1 feature or more")


@dataclass(frozen=True)
class NewFeatures(_Count):
    """From ``at`` on there are ``n`` more features, N(0, 1), that tell nothing about the label.

    Each further row of ``at`` brings ``n`` more.
    """

    name: ClassVar[str] = "new_features"
    constant: ClassVar[int] = 97

    def apply(self, base: Scenario) -> Scenario:
        starts = rows_of(self.at, base.card.rows)
        before = occurrences(base, type(self))
        prefix = f"new{before}_" if before else "new"
        known = survey(base).features

        def asking() -> Ask:
            rng = self.rng(base)

            def ask(row: int, event: Event) -> dict[str, Value]:
                values = rng.standard_normal(self.n * stretch(row, starts)).tolist()
                new = {f"{prefix}{i}": value for i, value in enumerate(values)}
                return {**(event.x or {}), **new}

            return ask

        taken = [name for i in range(self.n * len(starts)) if (name := f"{prefix}{i}") in known]
        if taken:
            raise UsageError(f"new_features: {base.card.name!r} has a feature {taken[0]!r} already")
        return changed(base, self, _asking(asking), f"new features: {self.n}", starts)


@dataclass(frozen=True)
class VanishingFeatures(_Count):
    """From ``at`` on ``n`` features (which ones is seeded) are gone; each further row: ``n`` more.

    Those of the first 500 rows are meant; one of them always stays.
    """

    name: ClassVar[str] = "vanishing_features"
    constant: ClassVar[int] = 101

    def apply(self, base: Scenario) -> Scenario:
        starts = rows_of(self.at, base.card.rows)
        known = sorted(survey(base).features)
        total = self.n * len(starts)
        if total >= len(known):
            raise UsageError(
                f"vanishing_features: {total} of {len(known)} features of {base.card.name!r} would "
                "vanish; expected fewer, so that one stays"
            )
        order: list[str] = self.rng(base).permutation(known).tolist()
        gone = [frozenset(order[: self.n * k]) for k in range(len(starts) + 1)]

        def ask(row: int, event: Event) -> dict[str, Value]:
            out = gone[stretch(row, starts)]
            return {name: value for name, value in (event.x or {}).items() if name not in out}

        told = f"vanishing features: {self.n}"
        if not starts:
            return changed(base, self, _asking(lambda: ask), told)
        return changed(base, self, _asking(lambda: ask), told, starts, best=None, ceiling="unknown")


with_feature_drift = FeatureDrift
with_permutation = Permutation
with_missing = Missing
with_new_features = NewFeatures
with_vanishing_features = VanishingFeatures


def _asking(make: Callable[[], Ask]) -> Callable[[Iterator[Event]], Iterator[Event]]:
    """A change of questions; ``make`` starts its random numbers anew for every iteration."""
    return lambda events: row_wise(events, ask=make())


def _numeric(base: Scenario, step: Step, needed: int) -> dict[str, tuple[float, float]]:
    """Mean and spread of each numeric feature."""
    numeric = dict(survey(base).numeric)
    if len(numeric) < needed:
        raise UsageError(
            f"{step.name} needs {needed} numeric features or more; {base.card.name!r} has "
            f"{', '.join(numeric) or 'none'}"
        )
    return numeric
