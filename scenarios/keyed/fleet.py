"""What keyed scenarios share: who asks when, who comes late, whose drift is where.

A key's rows come from random numbers of its own, so that neither the number of keys nor the order
in which they ask changes what one key does; and more rows only add rows at the end.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from scenarios.scenario import Card, Scenario, Span
from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value

Floats = NDArray[np.float64]

KEYS = 20
LATE = 0.2


class Change(NamedTuple):
    """One drift of one key: first and last row of the way, counted in rows of that key."""

    start: int
    end: int
    what: str


class Turns(NamedTuple):
    """Whose turn it is, row by row: number of the key and event time (s), each ``(rows,)``."""

    keys: NDArray[np.int64]
    ts: Floats


@dataclass(frozen=True, slots=True)
class Series:
    """All rows of one key.

    ``ideal`` is the best answer that anybody could give to each row, ``expected_loss`` the sum of
    what the noise costs that answer: absolute errors, or the share of labels turned over.
    """

    features: dict[str, list[Value]]
    labels: list[Label]
    ideal: list[Label]
    expected_loss: float
    changes: tuple[Change, ...]


class KeyedScenario(Scenario):
    """A stream of many keys; ``events()`` is what it is, ``pairs()`` loses the keys.

    Args:
        seed: what makes another fleet.
        rows: rows of the whole stream; ``rows_per_key`` for each key by default.
        keys: number of keys.
        late: share of the keys that come later than the first row, in [0, 1).
        noise: what it measures is the subclass's to say; ``usual_noise`` by default.

    Raises:
        UsageError: no fleet can be made of these.
    """

    name: str
    task: Literal["classification", "regression"]
    prefix: str  # a key is called prefix-007
    summary: str
    reference: str
    rows_per_key: int
    usual_noise: float
    most_noise: float = inf  # there must be less

    def __init__(
        self,
        seed: int = 0,
        rows: int | None = None,
        *,
        keys: int = KEYS,
        late: float = LATE,
        noise: float | None = None,
    ) -> None:
        self.seed = seed
        self.noise = self.usual_noise if noise is None else noise
        _check(keys, late, self.noise, self.most_noise)
        default = keys * self.rows_per_key
        self._turns, self._joined = self._set_up(keys, late, rows or default)
        seen = [int(key) for key in np.unique(self._turns.keys)]
        self._places = {key: np.flatnonzero(self._turns.keys == key) for key in seen}
        self._series = {key: self._series_of(key, len(at)) for key, at in self._places.items()}
        self.card = self._describe(np.flatnonzero(self._joined).tolist(), default)

    @classmethod
    def of(cls, argument: str = "", *, keys: int = KEYS, **options: Any) -> Self:
        """As many keys as the argument of a name such as ``sensors:200`` says.

        Raises:
            UsageError: it is no whole number above 0.
        """
        return cls(keys=_count_in(argument, keys), **options)

    @abstractmethod
    def _set_up(self, keys: int, late: float, rows: int) -> tuple[Turns, NDArray[np.int64]]:
        """Draw what all keys share: whose turn each row is, and when each key comes ``(keys,)``."""

    @abstractmethod
    def _series_of(self, key: int, n: int) -> Series:
        """The first ``n`` rows of key number ``key``."""

    @abstractmethod
    def _noise_is(self) -> str:
        """What keeps anybody from the best score, in words."""

    def events(self) -> Iterator[Event]:
        """Questions with their label, ids ``name:0:row``; the key is set."""
        done = dict.fromkeys(self._series, 0)
        whose, when = self._turns.keys.tolist(), self._turns.ts.tolist()
        for row, (key, ts) in enumerate(zip(whose, when, strict=True)):
            series, at = self._series[key], done[key]
            done[key] = at + 1
            x = {name: column[at] for name, column in series.features.items()}
            yield Event(f"{self.name}:0:{row}", x, series.labels[at], self.called(key), ts)

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        for event in self.events():
            assert event.x is not None
            assert event.y is not None
            yield dict(event.x), event.y

    def ideal(self) -> Iterator[Label]:
        """What a model that knew every key's numbers would answer, row by row."""
        done = dict.fromkeys(self._series, 0)
        for key in self._turns.keys.tolist():
            yield self._series[key].ideal[done[key]]
            done[key] += 1

    def called(self, key: int) -> str:
        """The name of key number ``key``."""
        return f"{self.prefix}-{key:03d}"

    def _describe(self, late: Sequence[int], default_rows: int) -> Card:
        rows = len(self._turns.keys)
        key_drifts: dict[str, tuple[Span, ...]] = {}
        drifts: list[Span] = []
        told: dict[int, str] = {}
        for key, places in self._places.items():
            own: list[Span] = []
            if key in late:
                told[int(places[0])] = f"{self.called(key)}: first row"
            for change in self._series[key].changes:
                span = change.start, min(change.end, len(places) - 1)
                own.append(span)
                drifts.append((int(places[span[0]]), int(places[span[1]])))
                told[int(places[span[0]])] = f"{self.called(key)}: {change.what}"
            key_drifts[self.called(key)] = tuple(own)
        loss = sum(series.expected_loss for series in self._series.values()) / rows
        best = loss if self.task == "regression" else 1.0 - loss
        measure = "mean absolute error" if self.task == "regression" else "accuracy"
        came = sum(key in self._places for key in late)
        return Card(
            name=self.name,
            task=self.task,
            rows=rows,
            drifts=tuple(sorted(drifts)),
            description=f"{self.summary}; {len(self._places)} keys ({came} late), "
            f"{len(drifts)} drifts, each of one key",
            ceiling=f"{measure} {best:.4f} ({self._noise_is()})",
            reference=self.reference,
            default_rows=default_rows,
            announcements=dict(sorted(told.items())),
            best=best,
            key_drifts=key_drifts,
        )


def _count_in(argument: str, default: int) -> int:
    if not argument:
        return default
    if not argument.isdecimal() or not int(argument):
        raise UsageError(f"{argument!r} keys: expected a whole number above 0, as in sensors:200")
    return int(argument)


def _check(keys: int, late: float, noise: float, most: float) -> None:
    if keys < 1 or not 0.0 <= late < 1.0 or noise < 0.0:
        raise UsageError(
            f"keys={keys}, late={late}, noise={noise}: "
            "expected keys >= 1, 0 <= late < 1, noise >= 0"
        )
    if noise >= most:
        raise UsageError(f"noise={noise}: expected a share of answers below {most:g}")


def joining(rng: np.random.Generator, keys: int, late: float, window: Span) -> NDArray[np.int64]:
    """When each key comes, ``(keys,)``: 0, or for a share ``late`` of them a moment in ``window``.

    At least one key is there from the start.
    """
    joined = np.zeros(keys, dtype=np.int64)
    some = rng.permutation(keys)[: min(round(late * keys), keys - 1)]
    joined[some] = rng.integers(window[0], window[1] + 1, len(some))
    return joined


def in_rounds(
    rng: np.random.Generator, joined: NDArray[np.int64], rows: int, seconds: float
) -> Turns:
    """Every key that has come takes one turn per round, in an order that changes each time."""
    whose: list[NDArray[np.int64]] = []
    total = number = 0
    while total < rows:
        whose.append(rng.permutation(np.flatnonzero(joined <= number)))
        total += len(whose[-1])
        number += 1
    when = [np.full(len(keys), at * seconds) for at, keys in enumerate(whose)]
    return Turns(np.concatenate(whose)[:rows], np.concatenate(when)[:rows])


def by_rate(
    rng: np.random.Generator, rates: Floats, joined: NDArray[np.int64], rows: int, seconds: float
) -> Turns:
    """Turns fall to the keys that have come by row ``joined``, in proportion to their ``rates``.

    ``seconds`` is the mean time between two turns, which is exponential.
    """
    draws = rng.random((rows, 2))
    keys = np.empty(rows, dtype=np.int64)
    borders = sorted({0, *(int(row) for row in joined if row < rows), rows})
    for begin, end in pairwise(borders):
        weights = np.cumsum(np.where(joined <= begin, rates, 0.0))
        keys[begin:end] = np.searchsorted(weights, draws[begin:end, 0] * weights[-1], side="right")
    return Turns(keys, np.cumsum(-np.log1p(-draws[:, 1])) * seconds)


def changes(
    rng: np.random.Generator,
    n: int,
    quiet: Span,
    following: Callable[[np.random.Generator, str], tuple[str, int]],
) -> tuple[Change, ...]:
    """The drifts among the first ``n`` rows of a key, ``quiet`` rows (least, most) between them.

    ``following(rng, last)`` says what comes after the drift called ``last`` (``""`` at first) and
    over how many rows it takes place, 0 for an abrupt one.
    """
    found: list[Change] = []
    what, row = "", 0
    while (row := row + int(rng.integers(quiet[0], quiet[1] + 1))) < n:
        what, width = following(rng, what)
        found.append(Change(row, row + width, what))
        row += width
    return tuple(found)


def path(numbers: Sequence[Floats], way: Sequence[Change], n: int) -> Floats:
    """A key's numbers row by row, ``(n, d)``: ``numbers[i]`` rule before ``way[i]``.

    On the way from one to the next they move in equal steps: the first row of the change has
    taken the first step, the last row the last.
    """
    rows = np.arange(n)[:, None]
    out = np.tile(numbers[0], (n, 1))
    for change, (before, after) in zip(way, pairwise(numbers), strict=True):
        steps = (rows - change.start + 1) / (change.end - change.start + 1)
        out += np.clip(steps, 0.0, 1.0) * (after - before)
    return out
