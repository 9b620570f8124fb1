"""Streams made of concepts: a family of concepts x a schedule x a seed x a number of rows.

Every concept is an endless stream of its own, opened when the schedule first asks for it and read
on when the concept comes back. All that is random is drawn from generators of its own, so the rows
before a drift are the same bytes as those of the stream that never drifts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import pi, sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scenarios.scenario import Card, Scenario, Span
from scenarios.schedule import Plan, Ruling, Schedule
from streammeta.errors import UsageError
from streammeta.events import Label, Value

Row = tuple[dict[str, Value], Label]
Vector = NDArray[np.float64]

ROWS = 20_000
PATIENCE = 10_000  # rows of a concept thrown away in a row before it is called hopeless
_CHOICE, _FLIP, _MOVE, _ADMIT = 61, 67, 71, 73  # one constant per thing that is drawn


@dataclass(frozen=True, slots=True)
class Between:
    """What a family needs for incremental drift: concepts that are points of a vector space.

    ``parameters(concept, seed)`` is a concept's vector, ``row(parameters, rng)`` draws one row of
    the concept at any vector, those between two concepts among them.
    """

    parameters: Callable[[int, int], Vector]
    row: Callable[[Vector, np.random.Generator], Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Concepts that belong together.

    ``rows(concept, seed)`` is an endless iterator over rows (x, y) of one concept with true
    labels; ``concepts`` is how many there are, ``None`` for endlessly many. ``labels`` are all
    classes, in order. ``noise`` is the share of labels that the stream turns into another class
    (classification), or the standard deviation of the Gaussian that ``rows`` has added already
    (regression). ``clean`` is the accuracy that is possible without ``noise`` (``None``: unknown),
    and ``limits`` says in words why it is no higher.
    """

    name: str
    task: str
    description: str
    reference: str
    rows: Callable[[int, int], Iterator[Row]]
    concepts: int | None = None
    labels: tuple[Label, ...] = ()
    noise: float = 0.0
    clean: float | None = 1.0
    limits: str = "labels are true"
    between: Between | None = None

    def __post_init__(self) -> None:
        if self.task not in ("classification", "regression"):
            raise UsageError(f"task={self.task!r}: expected classification or regression")
        if self.noise < 0.0 or (self.task == "classification" and self.noise > 1.0):
            raise UsageError(f"noise={self.noise}: expected a share of labels, 0 to 1, or a spread")

    @property
    def best(self) -> float | None:
        """What knowing everything but the noise scores: accuracy, or mean absolute error."""
        if self.clean is None:
            return None
        if self.task == "regression":
            return gaussian_mae(self.noise)
        return flipped_accuracy(self.clean, self.noise, len(self.labels))


class Admission(Protocol):
    """Which rows of a concept get into the stream; true labels are looked at, before any noise."""

    starts: tuple[int, ...]  # rows at which the admission changes

    def admits(self, row: int, label: Label, chance: float) -> bool:
        """Whether a row with this label may be row ``row``; ``chance`` in [0, 1) is the row's."""

    def possible(self, row: int, label: Label) -> bool:
        """Whether noise may make this label at ``row``."""


@dataclass(frozen=True, eq=False)
class Generated(Scenario):
    """A family's concepts in the order of a schedule.

    ``admissions`` filter rows inside the generator, so that drift rows stay exact.

    Raises:
        UsageError: the family cannot follow the schedule.
    """

    family: Family
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    rows: int = ROWS
    admissions: tuple[Admission, ...] = ()
    steps: tuple[str, ...] = ()  # the transforms that made it, as they are written
    notes: tuple[str, ...] = ()  # what they did, in words
    default_rows: int = ROWS
    card: Card = field(init=False)
    plan: Plan = field(init=False)

    def __post_init__(self) -> None:
        family = self.family
        if self.schedule.kind == "incremental" and family.between is None:
            raise UsageError(
                f"{family.name} has nothing between two concepts: use drift('gradual') instead of "
                "'incremental'"
            )
        plan = self.schedule.plan(self.rows, family.concepts, self.seed)
        object.__setattr__(self, "plan", plan)
        object.__setattr__(self, "card", self._card(plan))

    def pairs(self) -> Iterator[Row]:
        concepts = _Concepts(self.family, self.seed)
        flips = self._rng(_FLIP)
        choices = self._rng(_CHOICE)
        chances = [self._rng(_ADMIT, number) for number in range(len(self.admissions))]
        for row, ruling in enumerate(self.plan.rulings()):
            draw = self._drawer(concepts, ruling, choices)
            drawn = tuple(float(rng.random()) for rng in chances)
            x, y = self._admitted(draw, row, drawn) if drawn else draw()
            if self.family.noise and self.family.task == "classification":
                y = self._flipped(y, row, float(flips.random()))
            yield x, y

    @property
    def _origin(self) -> str:
        """The family, so that a row has one id under every schedule."""
        return self.family.name

    def changed(self, step: str, **changes: Any) -> Generated:
        """The same with other fields; ``step`` is how the change is written."""
        return replace(self, steps=(*self.steps, step), **changes)

    def _drawer(
        self, concepts: _Concepts, ruling: Ruling, choices: np.random.Generator
    ) -> Callable[[], Row]:
        if ruling.weight == 1.0:
            return concepts.stream(ruling.new).__next__
        if self.plan.moving:
            return concepts.between(ruling)
        new = choices.random() < ruling.weight
        return concepts.stream(ruling.new if new else ruling.old).__next__

    def _admitted(self, draw: Callable[[], Row], row: int, drawn: tuple[float, ...]) -> Row:
        for _ in range(PATIENCE):
            x, y = draw()
            if all(
                admission.admits(row, y, chance)
                for admission, chance in zip(self.admissions, drawn, strict=True)
            ):
                return x, y
        raise UsageError(
            f"{self.card.name}: {PATIENCE:,} rows drawn for row {row}, and none has a label that "
            "is admitted; name other labels"
        )

    def _flipped(self, y: Label, row: int, u: float) -> Label:
        """``y``, or another class where ``u`` in [0, 1) lies below the noise."""
        if u >= self.family.noise:
            return y
        others = [label for label in self.possible(row) if label != y]
        return others[int(u / self.family.noise * len(others))] if others else y

    def possible(self, row: int) -> list[Label]:
        """The classes that row ``row`` may have."""
        return [
            label
            for label in self.family.labels
            if all(admission.possible(row, label) for admission in self.admissions)
        ]

    def _rng(self, *constants: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *constants])

    def _card(self, plan: Plan) -> Card:
        best = self._best()
        return Card(
            name=" | ".join((self.family.name, *self.steps)),
            task=self.family.task,
            rows=self.rows,
            drifts=merged(plan.drifts, [s for a in self.admissions for s in a.starts], self.rows),
            description="; ".join((self.family.description, self._course(), *self.notes)),
            ceiling=self._ceiling(best),
            reference=self.family.reference,
            default_rows=self.default_rows,
            best=best,
            blips=plan.blips,
        )

    def _course(self) -> str:
        changes = len(self.plan.blips or self.plan.drifts)
        if not changes:
            return "one concept, no drift"
        width = f" over {self.plan.width:,} rows each" if self.plan.width else ""
        word = "blip" if self.plan.blips else f"{self.schedule.kind} drift"
        return f"{changes} {word}{'s' if changes > 1 else ''}{width}"

    def _best(self) -> float | None:
        """The family's, unless admissions change what noise can do."""
        family = self.family
        if not self.admissions or family.best is None or family.task == "regression":
            return family.best
        if family.clean != 1.0:
            return None
        edges = sorted({0, *(s for a in self.admissions for s in a.starts), self.rows})
        right = 0.0
        for start, end in pairwise(edges):
            part = flipped_accuracy(1.0, family.noise, len(self.possible(start)))
            assert part is not None  # of true labels it is known
            right += (end - start) * part
        return right / self.rows

    def _ceiling(self, best: float | None) -> str:
        if best is None:
            return "unknown"
        if self.family.task == "regression":
            noise = self.family.noise
            return f"mean squared error {noise**2:.4g} (noise), mean absolute error {best:.4g}"
        flips = f"{self.family.noise:.0%} of labels flipped"
        return f"accuracy {best:.4g} ({flips if self.family.noise else self.family.limits})"


class _Concepts:
    """The open streams of a family's concepts."""

    def __init__(self, family: Family, seed: int) -> None:
        self._family = family
        self._seed = seed
        self._open: dict[int, Iterator[Row]] = {}
        self._vectors: dict[int, Vector] = {}
        self._rng = np.random.default_rng([seed, _MOVE])

    def stream(self, concept: int) -> Iterator[Row]:
        """The concept's rows, from where they were left."""
        if concept not in self._open:
            self._open[concept] = iter(self._family.rows(concept, self._seed))
        return self._open[concept]

    def between(self, ruling: Ruling) -> Callable[[], Row]:
        """Draws rows of the concept that lies ``weight`` of the way from old to new."""
        between = self._family.between
        assert between is not None  # or the scenario would not have been built
        for concept in (ruling.old, ruling.new):
            if concept not in self._vectors:
                self._vectors[concept] = between.parameters(concept, self._seed)
        old, new = self._vectors[ruling.old], self._vectors[ruling.new]
        here = old + ruling.weight * (new - old)
        return lambda: between.row(here, self._rng)


def from_streams(
    *streams: Iterable[tuple[Mapping[Any, Any], Any]],
    task: str,
    rows: int = ROWS,
    seed: int = 0,
    schedule: Schedule | None = None,
    name: str = "streams",
) -> Generated:
    """A user's own streams as the concepts: anything that iterates over pairs (x, y).

    River's data sets, scenarios and lists all do. A stream that ends starts over, so its rows
    repeat. Feature names that are integers become ``x0``, ``x1``, ...; labels stay as they are,
    and the seed decides only the mixing.

    Raises:
        UsageError: no stream, or one that can be read only once, such as a generator.
    """
    if not streams:
        raise UsageError("from_streams() needs one stream or more, each an iterable of (x, y)")
    for number, stream in enumerate(streams):
        if iter(stream) is stream:
            raise UsageError(
                f"stream {number} is a {type(stream).__name__}, which can be read only once: "
                "give a list, or an object whose __iter__ starts again"
            )

    def concept(number: int, seed: int) -> Iterator[Row]:
        while True:
            row = None
            for row in named(streams[number]):
                yield row
            if row is None:
                raise UsageError(f"stream {number} has no rows")

    family = Family(
        name=name,
        task=task,
        description=f"{len(streams)} streams as concepts",
        reference="the user's own",
        rows=concept,
        concepts=len(streams),
        clean=None,
    )
    usual = Schedule() if len(streams) > 1 else Schedule("none")
    return Generated(family, schedule or usual, seed, rows)


def named(rows: Iterable[tuple[Mapping[Any, Any], Any]]) -> Iterator[Row]:
    """River's rows: integer feature names become ``x0``, ``x1``, ..."""
    for x, y in rows:
        yield {f"x{k}" if isinstance(k, int) else str(k): v for k, v in x.items()}, y


def derived(seed: int, *path: int) -> int:
    """A seed of 64 bits for Python's own generator, one per path."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1, np.uint64)[0])


def merged(drifts: Iterable[Span], rows: Iterable[int], total: int) -> tuple[Span, ...]:
    """``drifts`` and abrupt ones at ``rows``: ascending, one per first row (the longest)."""
    spans = dict(sorted([*drifts, *((row, row) for row in rows if 0 < row < total)]))
    return tuple(spans.items())


def flipped_accuracy(best: float, share: float, classes: int) -> float | None:
    """The accuracy that is left of ``best`` when ``share`` of labels become another class.

    Where so many are turned that the class thought least likely is right most often, it is that
    class's: known of two classes, or where ``best`` is 1, and else ``None``.

    >>> flipped_accuracy(1.0, 0.9, 2), flipped_accuracy(1.0, 1.0, 3), flipped_accuracy(0.9, 0.7, 3)
    (0.9, 0.5, None)
    """
    if classes < 2:
        return best  # there is no other class

    def right(p: float) -> float:
        """How often an answer is right that was so with probability ``p``."""
        return p * (1.0 - share) + (1.0 - p) * share / (classes - 1)

    if share * classes <= classes - 1:
        return right(best)
    if classes == 2:
        return right(1.0 - best)
    return right(0.0) if best == 1.0 else None


def gaussian_mae(spread: float) -> float:
    """The mean absolute value of a centred Gaussian with standard deviation ``spread``."""
    return spread * sqrt(2.0 / pi)
