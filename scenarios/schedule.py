"""Which concept rules which row: the one place where drift points are decided.

A ``Schedule`` is what a person asks for; its ``plan`` for a number of rows is exact: the first row
of every stretch, the concept of every stretch, and the intervals that a card tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from math import exp
from typing import NamedTuple

import numpy as np

from streammeta.errors import UsageError

Span = tuple[int, int]
At = int | float | tuple[int | float, ...]

KINDS = ("abrupt", "gradual", "incremental", "recurring", "blips", "none")
ORDERS = ("cyclic", "random")
STRETCHES = 5  # of equal length, where nothing is said
RECURRING = 3  # concepts that come back
STEEPNESS = 10.0  # the sigmoid goes from .7 % to 99.3 % of the new concept over the width


class Ruling(NamedTuple):
    """One row: ``weight`` in (0, 1] is what the concept ``new`` has of it, ``old`` has the rest."""

    old: int
    new: int
    weight: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """When concepts change, and how.

    ``kind``:

    - ``abrupt``: concepts one after the other, from one row to the next;
    - ``gradual``: over ``width`` rows each row comes from the new concept with a probability that
      rises as a sigmoid, as in MOA's ConceptDriftStream (Bifet et al. 2010), but cut off, so that
      before the interval the old concept is all there is, and after it the new one;
    - ``incremental``: over ``width`` rows the concept's parameters move in a straight line;
    - ``recurring``: few concepts come back again and again, in cyclic order or (``order="random"``)
      in a seeded random order that never repeats a concept at once; abrupt, or gradual with a
      ``width``;
    - ``blips``: excursions of ``width`` rows to another concept, then the old one is back;
    - ``none``: the first concept for ever.

    Changes come every ``every`` rows, or at the rows ``at`` (shares in (0, 1) of all rows are
    fine too), or else so that there are five stretches of equal length. ``at`` is where a change
    begins; it must be over before the next one. ``width`` is by default a quarter of the shortest
    stretch (blips: a twentieth). ``concepts`` names the concepts in their order, over and over; by
    default 0, 1, 2, ... as far as there are any, and three of them to recur.

    Raises:
        UsageError: no such kind or order, or numbers that cannot be.
    """

    kind: str = "abrupt"
    every: int | None = None
    at: At = ()
    width: int | None = None
    concepts: tuple[int, ...] = ()
    order: str = "cyclic"

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, KINDS)
        _one_of("order", self.order, ORDERS)
        if self.every is not None and self.at != ():
            raise UsageError(f"every={self.every}, at={self.at}: expected one of the two")
        if self.every is not None and self.every < 1:
            raise UsageError(f"every={self.every}: expected rows between two changes, 1 or more")
        if self.width is not None and self.width < 1:
            raise UsageError(f"width={self.width}: expected 1 row or more")
        if self.width is not None and self.kind in ("abrupt", "none"):
            raise UsageError(f"width={self.width}: {self.kind!r} has none; use kind 'gradual'")
        if self.order == "random" and self.kind != "recurring":
            raise UsageError(f"order='random': only for kind 'recurring', not {self.kind!r}")
        object.__setattr__(self, "at", checked(self.at))

    def plan(self, rows: int, available: int | None, seed: int = 0) -> Plan:
        """The exact course of ``rows`` rows; ``available`` concepts, ``None`` is endless.

        Changes at or after the end do not happen. ``seed`` matters to a random order only.

        Raises:
            UsageError: a concept that is not there, or two changes nearer than ``width``.
        """
        self._check_concepts(available)
        starts = (0, *self._changes(rows))
        if len(starts) > 1 and available is not None and available < 2:
            raise UsageError(
                f"schedule {self.kind!r}: there is one concept, nothing to drift to; "
                "permutation and label_swap change any scenario"
            )
        width = self._width(starts, rows)
        self._check_room(starts, width)
        if self.kind == "blips":
            return _with_blips(rows, starts, width, self._sequence(len(starts), available, seed))
        concepts = self._sequence(len(starts), available, seed)
        same = [at for (one, two), at in zip(pairwise(concepts), starts[1:], strict=True)
                if one == two]  # fmt: skip
        if same:
            raise UsageError(f"concepts={self.concepts}: nothing would change at row {same[0]}")
        drifts = tuple((start, min(start + width, rows - 1)) for start in starts[1:])
        return Plan(rows, starts, concepts, width, self.kind == "incremental", drifts)

    def _changes(self, rows: int) -> tuple[int, ...]:
        if self.kind == "none":
            return ()
        if self.every is not None:
            return tuple(range(self.every, rows, self.every))
        if self.at != ():
            return rows_of(self.at, rows)
        return rows_of(tuple(k / STRETCHES for k in range(1, STRETCHES)), rows)

    def _width(self, starts: tuple[int, ...], rows: int) -> int:
        if self.width is not None:
            return self.width
        if self.kind in ("gradual", "incremental", "blips") and len(starts) > 1:
            shortest = self.every or min(b - a for a, b in pairwise((*starts, rows)))
            return max(1, shortest // 20) if self.kind == "blips" else shortest // 4
        return 0

    def _check_room(self, starts: tuple[int, ...], width: int) -> None:
        for one, two in pairwise(starts[1:]):
            if width and one + width >= two:
                raise UsageError(
                    f"width={width}: the change at row {one} would last until the next, row {two}"
                )

    def _check_concepts(self, available: int | None) -> None:
        for concept in self.concepts:
            if concept < 0 or (available is not None and concept >= available):
                top = "or more" if available is None else f"to {available - 1}"
                raise UsageError(f"concepts={self.concepts}: no concept {concept}; known: 0 {top}")

    def _sequence(self, stretches: int, available: int | None, seed: int) -> tuple[int, ...]:
        """The concept of each stretch."""
        few = RECURRING if self.kind == "recurring" else stretches
        known = self.concepts or tuple(range(min(few, available or few)))
        if self.order == "cyclic":
            return tuple(known[k % len(known)] for k in range(stretches))
        if len(set(known)) < 2:
            raise UsageError(f"concepts={known}: a random order needs two different ones")
        rng = np.random.default_rng([seed, 53])
        order = [known[0]]
        while len(order) < stretches:
            others = [concept for concept in known if concept != order[-1]]
            order.append(others[int(rng.integers(len(others)))])
        return tuple(order)


@dataclass(frozen=True, slots=True)
class Plan:
    """The exact course of a stream of ``rows`` rows.

    ``starts[k]`` is the first row of stretch ``k`` (0 first), ``concepts[k]`` its concept; for
    ``width`` rows from there the one before still has a share. ``drifts`` and ``blips`` are
    intervals as a ``Card`` tells them.
    """

    rows: int
    starts: tuple[int, ...]
    concepts: tuple[int, ...]
    width: int = 0
    moving: bool = False
    drifts: tuple[Span, ...] = ()
    blips: tuple[Span, ...] = ()

    def rulings(self) -> Iterator[Ruling]:
        """One ruling for every row from the first."""
        ends = (*self.starts[1:], self.rows)
        old = self.concepts[0]
        for start, end, new in zip(self.starts, ends, self.concepts, strict=True):
            pure = Ruling(new, new, 1.0)
            for row in range(start, end):
                mixed = start > 0 and row < start + self.width
                yield Ruling(old, new, self._weight(row - start)) if mixed else pure
            old = new

    def _weight(self, since: int) -> float:
        """What the new concept has of the row ``since`` rows after the change began."""
        if self.moving:
            return (since + 1) / (self.width + 1)
        return 1.0 / (1.0 + exp(-STEEPNESS * (since / self.width - 0.5)))


def rows_of(at: At, rows: int) -> tuple[int, ...]:
    """The rows that ``at`` means in a stream of ``rows`` rows, ascending; later ones are left out.

    >>> rows_of((100, 0.5), 1000), rows_of(7, 5)
    ((100, 500), ())
    """
    named = at if isinstance(at, tuple) else (at,)
    exact = {max(1, round(one * rows)) if isinstance(one, float) else one for one in named}
    return tuple(sorted(row for row in exact if row < rows))


def checked(at: At | list[int | float]) -> At:
    """``at`` as it is kept: one row or share bare, several in a tuple.

    Raises:
        UsageError: something in it is neither a row from 1 nor a share in (0, 1).
    """
    named = tuple(at) if isinstance(at, (tuple, list)) else (at,)
    for one in named:
        row = isinstance(one, int) and not isinstance(one, bool) and one >= 1
        share = isinstance(one, float) and 0.0 < one < 1.0
        if not (row or share):
            raise UsageError(f"at={at!r}: expected rows (1, 2, ...) or shares between 0.0 and 1.0")
    return named[0] if len(named) == 1 else named


def _with_blips(rows: int, changes: tuple[int, ...], width: int, concepts: tuple[int, ...]) -> Plan:
    """Excursions at all ``changes`` but the first, each back to the first concept."""
    home = concepts[0]
    away = [concept for concept in dict.fromkeys(concepts) if concept != home]
    if len(changes) > 1 and not away:
        raise UsageError(f"concepts={concepts}: blips need a second concept to go to")
    starts, ruling, blips = [0], [home], []
    for number, start in enumerate(changes[1:]):
        starts.append(start)
        ruling.append(away[number % len(away)])
        blips.append((start, min(start + width, rows) - 1))
        if start + width < rows:
            starts.append(start + width)
            ruling.append(home)
    return Plan(rows, tuple(starts), tuple(ruling), blips=tuple(blips))


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        near = get_close_matches(value, known, n=1) or known
        raise UsageError(f"{field}={value!r}: did you mean {', '.join(near)}?")
