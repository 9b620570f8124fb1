"""What all transforms share: how one is written, the changed scenario, changes row by row."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from itertools import count, islice
from typing import Any, ClassVar, Final

import numpy as np

from scenarios.generated import Generated, merged
from scenarios.scenario import Card, Scenario, Span, Transform
from scenarios.schedule import At, checked
from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value

SURVEYED = 500  # rows from which spreads, names and numeric features are learned

# Whose concepts drift in every way that a schedule knows, by task.
EVERY_KIND = {
    "classification": "rotating_plane and hyperplane",
    "regression": "linear_switch and polynomial_switch",
}

Change = Callable[[Iterator[Event]], Iterator[Event]]
Ask = Callable[[int, Event], Mapping[str, Value]]
Tell = Callable[[int, Label], Label]


class Step(Transform):
    """A transform that is one word with arguments; a frozen dataclass of these arguments.

    ``constant`` seeds what it draws, so that no two kinds of transform draw the same numbers.
    """

    name: ClassVar[str]
    constant: ClassVar[int] = 0

    def __str__(self) -> str:
        """How it is written after ``|``; arguments that have their default are left out."""
        told = []
        for position, field in enumerate(fields(self)):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                told.append(repr(value) if position == 0 else f"{field.name}={value!r}")
        return f"{self.name}({', '.join(told)})" if told else self.name

    def rng(self, base: Scenario) -> np.random.Generator:
        """Random numbers for this step on ``base``; the same step once more draws others."""
        return np.random.default_rng([base.seed, self.constant, occurrences(base, type(self))])


class Changed(Scenario):
    """A scenario whose events pass through a change; ``base`` stays as it is."""

    def __init__(self, base: Scenario, step: Step, card: Card, change: Change) -> None:
        self.base: Final = base
        self.step: Final = step
        self.seed = base.seed
        self.card = card
        self._change = change

    def events(self) -> Iterator[Event]:
        """The base's events, changed; ids stay those of the base."""
        return self._change(self.base.events())

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        """Questions joined with their labels by id, in the order of the questions.

        A row is held until the label of every row before it has come; rows without one are left
        out at the end.
        """
        waiting: dict[str, dict[str, Value]] = {}  # questions in their order
        labels: dict[str, Label] = {}
        for event in self.events():
            if event.x is not None:
                waiting[event.id] = dict(event.x)
            if event.y is not None and event.id in waiting:
                labels[event.id] = event.y
            while waiting and (first := next(iter(waiting))) in labels:
                yield waiting.pop(first), labels.pop(first)
        yield from ((x, labels[id_]) for id_, x in waiting.items() if id_ in labels)


def changed(
    base: Scenario, step: Step, change: Change, told: str, drifts: Iterable[int] = (), **card: Any
) -> Changed:
    """``base`` after ``step``: ``told`` says on the card what happens, ``drifts`` at which rows.

    Further keywords replace fields of the card.
    """
    rows = tuple(drifts)
    old = base.card
    new = replace(
        old,
        name=f"{old.name} | {step}",
        description=f"{old.description}; {told}",
        drifts=merged(old.drifts, rows, old.rows),
        key_drifts=_key_drifts(base, rows) if old.key_drifts and rows else old.key_drifts,
        **card,
    )
    return Changed(base, step, new, change)


def row_wise(
    events: Iterator[Event], *, ask: Ask | None = None, tell: Tell | None = None
) -> Iterator[Event]:
    """Change features by ``ask(row, question)`` and labels by ``tell(row, label)``.

    ``row`` counts the questions from 0; a late label is told with the row of its question.
    """
    rows: dict[str, int] = {}  # questions whose label is still to come
    numbers = count()
    for event in events:
        x, y, row = event.x, event.y, None
        if x is not None:
            row = next(numbers)
            if y is None:
                rows[event.id] = row
            x = ask(row, event) if ask else x
        elif y is not None:
            row = rows.pop(event.id, None)
        if tell and y is not None and row is not None:
            y = tell(row, y)
        yield Event(event.id, x, y, event.key, event.ts, event.error)


def generated(base: Scenario, step: Step) -> Generated:
    """``base`` if concepts are drawn in it.

    Raises:
        UsageError: it is a recording, or a generated scenario that was changed already.
    """
    if isinstance(base, Generated):
        return base
    inside = root(base)
    why = (
        f"it must follow {inside.card.name!r} at once, before the other transforms"
        if isinstance(inside, Generated)
        else "only generated scenarios have concepts to draw from, of the same task for example "
        f"{EVERY_KIND[base.card.task]}, which take every kind of drift; any scenario takes "
        "permutation, label_swap or feature_drift"
    )
    raise UsageError(f"{step.name} cannot change {base.card.name!r}: {why}")


def root(base: Scenario) -> Scenario:
    """The scenario below all transforms."""
    while isinstance(base, Changed):
        base = base.base
    return base


def occurrences(base: Scenario, kind: type[Step]) -> int:
    """How many steps of this kind ``base`` has behind it."""
    n = 0
    while isinstance(base, Changed):
        n += isinstance(base.step, kind)
        base = base.base
    return n


def classes_of(base: Scenario) -> tuple[Label, ...]:
    """All classes, ascending: those of the family, or all that the stream ever shows."""
    inside = root(base)
    if isinstance(inside, Generated) and inside.family.labels:
        return inside.family.labels
    seen = {event.y for event in inside.events() if event.y is not None}
    return tuple(sorted(seen, key=lambda label: (isinstance(label, str), label)))


@dataclass(frozen=True, slots=True)
class Survey:
    """What the first rows of a stream show.

    ``features`` are all names in order of appearance; ``numeric`` has the mean and the standard
    deviation of those that held nothing but numbers.
    """

    features: tuple[str, ...]
    numeric: Mapping[str, tuple[float, float]]


def survey(base: Scenario) -> Survey:
    """Look at the first ``SURVEYED`` questions; every iteration starts anew, so nothing is lost."""
    questions = (event.x for event in base.events() if event.x is not None)
    columns: dict[str, list[Value]] = {}
    for x in islice(questions, SURVEYED):
        for name, value in x.items():
            columns.setdefault(name, []).append(value)
    numeric = {}
    for name, values in columns.items():
        numbers = [value for value in values if value is not None]
        if numbers and all(is_number(value) for value in numbers):
            column = np.array(numbers, dtype=float)
            numeric[name] = (float(column.mean()), float(column.std()))
    return Survey(tuple(columns), numeric)


def is_number(value: Value) -> bool:
    """Whether it can be computed with; booleans are categories."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def stretch(row: int, starts: tuple[int, ...]) -> int:
    """How many of ``starts`` the row has reached."""
    return bisect_right(starts, row)


def keep_at(step: Step) -> None:
    """Check the field ``at`` and keep it in its one form."""
    at: At = step.at  # type: ignore[attr-defined]
    object.__setattr__(step, "at", checked(at))
    if at in ((), []):
        raise UsageError(f"{step.name}: at={at!r}: expected a row, a share, or a tuple of them")


def _key_drifts(base: Scenario, rows: tuple[int, ...]) -> dict[str, tuple[Span, ...]]:
    """Every key's drifts, with those that befall all keys at ``rows`` of the stream."""
    own: dict[str, int] = {}  # rows of each key so far
    hit: dict[str, list[int]] = {}
    pending: dict[str, int] = {}  # key -> changes that its next row will be the first to show
    number = 0
    for event in base.events():
        if event.x is None:
            continue
        if number in rows:
            pending = dict.fromkeys(own, 1)
        if pending.pop(event.key, 0):
            hit.setdefault(event.key, []).append(own[event.key])
        own[event.key] = own.get(event.key, 0) + 1
        number += 1
    old = base.card.key_drifts
    return {key: merged(old.get(key, ()), hit.get(key, ()), n) for key, n in own.items()}
