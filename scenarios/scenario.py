"""What a scenario is: a seeded stream with a card that tells what is known about it.

A scenario is one class in one file and one row of the registry. It is built with a ``seed`` and,
if wanted, ``rows``; the same seed gives the same events on every machine. ``events()`` may be
called again and starts from the first event each time. Iterating over a scenario gives (x, y)
pairs, as River's data sets do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value
from streammeta.registry import components, find


@dataclass(frozen=True, slots=True)
class Card:
    """What is known about a stream before any model sees it.

    ``drifts`` are intervals of 0-based rows: an abrupt drift starts and ends at the first row of
    the new concept, a gradual one ends when the new concept is all there is. ``ceiling`` says what
    a model that knew everything would score, in words. ``announcements`` maps a row to the line
    that a live run shows when that row passes.
    """

    name: str
    task: str
    rows: int
    drifts: tuple[tuple[int, int], ...]
    description: str
    ceiling: str
    reference: str
    default_rows: int
    announcements: dict[int, str] = field(default_factory=dict)


class Scenario(ABC):
    """A seeded stream of events with known drifts."""

    seed: int
    card: Card

    @abstractmethod
    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        """Features and label of every row from the first, ``card.rows`` of them."""

    def events(self) -> Iterator[Event]:
        """Questions with their label, ids ``name:0:row``, event time one second per row."""
        for row, (x, y) in enumerate(islice(self.pairs(), self.card.rows)):
            yield Event(f"{self.card.name}:0:{row}", x, y, ts=float(row))

    def __iter__(self) -> Iterator[tuple[dict[str, Value], Label]]:
        return islice(self.pairs(), self.card.rows)


def scenario(name: str, *, seed: int = 0, rows: int | None = None) -> Scenario:
    """The scenario called ``name``; ``open:elec2`` gives the family ``open`` its argument.

    Raises:
        UsageError: no such scenario, or it cannot be built from what was given.
    """
    if seed < 0 or (rows is not None and rows < 1):
        raise UsageError(f"seed={seed}, rows={rows}: expected seed >= 0 and rows >= 1")
    family, colon, argument = name.partition(":")
    given: dict[str, Any] = {"seed": seed, "rows": rows}
    if colon and family in components("scenarios"):
        made = find("scenarios", family).load()(argument, **given)
    else:
        made = find("scenarios", name).load()(**given)
    if not isinstance(made, Scenario):
        raise UsageError(f"scenario {name!r} gave a {type(made).__name__}, expected a Scenario")
    return made
