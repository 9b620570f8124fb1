"""Transforms of a generated stream's concepts: they work inside the generator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scenarios.scenario import Scenario
from scenarios.schedule import At, Schedule, rows_of
from scenarios.transforms.step import Step, generated, keep_at, stretch
from streammeta.errors import UsageError
from streammeta.events import Label


@dataclass(frozen=True)
class Drift(Step):
    """Another schedule for a generated stream; the arguments are those of ``Schedule``.

    ``drift('gradual', width=500)``, ``drift('recurring', every=1000, order='random')``,
    ``drift('blips')``, ``drift('none')``.
    """

    name: ClassVar[str] = "drift"
    kind: str = "abrupt"
    every: int | None = None
    at: At = ()
    width: int | None = None
    concepts: tuple[int, ...] = ()
    order: str = "cyclic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "concepts", tuple(self.concepts))
        object.__setattr__(self, "at", self.schedule.at)

    @property
    def schedule(self) -> Schedule:
        """When concepts change."""
        return Schedule(self.kind, self.every, self.at, self.width, self.concepts, self.order)

    def apply(self, base: Scenario) -> Scenario:
        return generated(base, self).changed(str(self), schedule=self.schedule)


@dataclass(frozen=True)
class PriorDrift(Step):
    """From ``at`` on one class has ``share`` of the true labels (prior drift, p(x | y) stays).

    Labels are turned over afterwards: with noise, the class is shown less often (or more).

    At each further row of ``at`` it is the next class in the family's order; ``label`` names the
    first one. Rows of the concept are drawn until one has the label that is due.
    """

    name: ClassVar[str] = "prior_drift"
    at: At = 0.5
    share: float = 0.9
    label: Label | None = None

    def __post_init__(self) -> None:
        keep_at(self)
        if not 0.0 < self.share < 1.0:
            raise UsageError(f"prior_drift: share={self.share}: expected a number between 0 and 1")

    def apply(self, base: Scenario) -> Scenario:
        stream = generated(base, self)
        labels = _labels(base, self, stream.family.labels, self.label)
        first = 0 if self.label is None else labels.index(self.label)
        starts = rows_of(self.at, base.card.rows)
        order = labels[first:] + labels[:first]
        admission = Priors(starts, order, self.share)
        told = f"one class has {self.share:.0%} of the true labels {_from(starts)}"
        return stream.changed(
            str(self),
            admissions=(*stream.admissions, admission),
            notes=(*stream.notes, told),
        )


@dataclass(frozen=True)
class NewClasses(Step):
    """A class is held back until row ``at``; with several rows, one class until each of them.

    They are the last of the family's classes, or ``classes``, in the order in which they come.
    """

    name: ClassVar[str] = "new_classes"
    at: At = 0.5
    classes: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        keep_at(self)
        object.__setattr__(self, "classes", tuple(self.classes))

    def apply(self, base: Scenario) -> Scenario:
        stream = generated(base, self)
        number = len(self.at) if isinstance(self.at, tuple) else 1
        labels = _labels(base, self, stream.family.labels, *self.classes)
        held = self.classes or labels[len(labels) - number :]
        if len(held) != number or len(labels) <= number:
            raise UsageError(
                f"new_classes at {number} rows: {len(held)} to hold back of {len(labels)} classes; "
                "expected one per row, and one that is there from the start"
            )
        starts = rows_of(self.at, base.card.rows)
        admission = Withheld(starts, held)
        told = f"{number} new class{'es' if number > 1 else ''} {_from(starts)}"
        return stream.changed(
            str(self),
            admissions=(*stream.admissions, admission),
            notes=(*stream.notes, told),
        )


@dataclass(frozen=True, slots=True)
class Priors:
    """After ``starts[k]`` the class ``labels[k]`` has ``share`` of the true labels."""

    starts: tuple[int, ...]
    labels: tuple[Label, ...]
    share: float

    def admits(self, row: int, label: Label, chance: float) -> bool:
        """By chance the favoured class only, or any other; all before the first start."""
        number = stretch(row, self.starts)
        if not number:
            return True
        favoured = self.labels[(number - 1) % len(self.labels)]
        return (label == favoured) == (chance < self.share)

    def possible(self, row: int, label: Label) -> bool:
        """Noise is not what this is about."""
        return True


@dataclass(frozen=True, slots=True)
class Withheld:
    """The class ``labels[k]`` is not there before ``starts[k]``."""

    starts: tuple[int, ...]
    labels: tuple[Label, ...]

    def admits(self, row: int, label: Label, chance: float) -> bool:
        """Whether the class has come."""
        return self.possible(row, label)

    def possible(self, row: int, label: Label) -> bool:
        """Whether the class has come; noise must not show it earlier."""
        return label not in self.labels[stretch(row, self.starts) :]


with_drift = Drift
with_prior_drift = PriorDrift
with_new_classes = NewClasses


def _labels(
    base: Scenario, step: Step, known: tuple[Label, ...], *named: Label | None
) -> tuple[Label, ...]:
    """The classes to choose from, ``named`` ones among them."""
    if base.card.task != "classification":
        raise UsageError(f"{step.name} needs classes; {base.card.name!r} is a regression")
    if not known:
        raise UsageError(f"{step.name}: nobody said which classes {base.card.name!r} has")
    for label in named:
        if label is not None and label not in known:
            told = ", ".join(map(repr, known))
            raise UsageError(
                f"{step.name}: {base.card.name!r} has no class {label!r}; it has {told}"
            )
    return known


def _from(starts: tuple[int, ...]) -> str:
    return "from row " + ", ".join(f"{row:,}" for row in starts) if starts else "after the end"
