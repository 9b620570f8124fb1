"""What a scenario is: a seeded stream with a card that tells what is known about it.

A scenario is one class in one file and one row of the registry. It is built with a ``seed`` and,
if wanted, ``rows``; the same seed gives the same events on every machine. ``events()`` may be
called again and starts from the first event each time. Iterating over a scenario gives (x, y)
pairs, as River's data sets do.

Scenarios are changed by transforms, which compose with ``|``, in Python and in a name::

    scenario("sea") | with_drift("gradual", width=500) | with_delay(100)
    scenario("sea | drift('gradual', width=500) | delay(100)")
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, overload

from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value
from streammeta.registry import components, find

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Card:
    """What is known about a stream before any model sees it.

    ``drifts`` are intervals of 0-based rows: an abrupt drift starts and ends at the first row of
    the new concept, a gradual one ends when the new concept is all there is. ``blips`` are
    intervals too, [first, last], after which the old concept is back: outliers, not drifts.
    Where keys drift on their own, ``key_drifts`` has each key's drifts counted in rows of that
    key, and ``drifts`` all of them in rows of the stream.

    ``ceiling`` says what a model that knew everything would score, in words, and ``best`` as a
    number: accuracy, or mean absolute error; ``None`` where nobody knows. Rows before
    ``score_from`` are predicted and learned, but not scored; a model that learns once fits itself
    to those before ``train_until`` and chooses its settings on the others of them.
    ``announcements`` maps a row to the line that a live run shows when that row passes.
    ``horizon``: rows between a question and the row whose value it asks for. Drifts are rows of
    the values, so what a drift costs begins with questions ``horizon`` rows before it.

    ``fixed``: the rows are the same for every seed, as those of recorded data are.
    ``source``, ``licence`` and ``checksum`` (SHA-256 of the file) belong to recorded data.
    """

    name: str
    task: str
    rows: int
    drifts: tuple[Span, ...]
    description: str
    ceiling: str
    reference: str
    default_rows: int
    announcements: Mapping[int, str] = field(default_factory=dict)
    best: float | None = None
    blips: tuple[Span, ...] = ()
    key_drifts: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    score_from: int = 0
    train_until: int = 0
    horizon: int = 0
    fixed: bool = False
    source: str = ""
    licence: str = ""
    checksum: str = ""


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
            yield Event(f"{self._origin}:0:{row}", x, y, ts=float(row))

    def __iter__(self) -> Iterator[tuple[dict[str, Value], Label]]:
        return islice(self.pairs(), self.card.rows)

    @property
    def _origin(self) -> str:
        """What the ids begin with."""
        return self.card.name

    def __or__(self, transform: Transform) -> Scenario:
        return transform.apply(self)


class Transform(ABC):
    """What makes another scenario of one; a row of the registry's table ``transforms``."""

    @abstractmethod
    def apply(self, base: Scenario) -> Scenario:
        """The changed scenario, with a card that tells of the change; ``base`` stays as it is.

        Raises:
            UsageError: this kind of scenario cannot be changed so.
        """

    @overload
    def __or__(self, after: Transform) -> Transform: ...
    @overload
    def __or__(self, after: Any) -> Any: ...
    def __or__(self, after: Any) -> Any:
        return Chain((self, after)) if isinstance(after, Transform) else NotImplemented


@dataclass(frozen=True, slots=True)
class Chain(Transform):
    """Transforms one after the other, the first one first."""

    parts: tuple[Transform, ...]

    def apply(self, base: Scenario) -> Scenario:
        for part in self.parts:
            base = part.apply(base)
        return base


def scenario(name: str, *, seed: int = 0, rows: int | None = None) -> Scenario:
    """The scenario called ``name``; ``open:elec2`` gives the family ``open`` its argument.

    Transforms follow after ``|``, by name, with literal arguments:
    ``"sea | drift('gradual', width=500) | missing(0.1)"``.

    Raises:
        UsageError: no such scenario or transform, or it cannot be built from what was given.
        SourceError: its data is not on this machine.
    """
    if seed < 0 or (rows is not None and rows < 1):
        raise UsageError(f"seed={seed}, rows={rows}: expected seed >= 0 and rows >= 1")
    first, *steps = (part.strip() for part in name.split("|"))
    family, colon, argument = first.partition(":")
    given: dict[str, Any] = {"seed": seed, "rows": rows}
    if colon and family in components("scenarios"):
        made = find("scenarios", family).load()(argument, **given)
    else:
        made = find("scenarios", first).load()(**given)
    if not isinstance(made, Scenario):
        raise UsageError(f"scenario {first!r} gave a {type(made).__name__}, expected a Scenario")
    for step in steps:
        made = made | transform(step)
    return made


def transform(text: str) -> Transform:
    """The transform that ``text`` calls: ``missing(0.1)``, or ``drift`` with its defaults.

    Raises:
        UsageError: no such transform, or it does not take these arguments.
    """
    try:
        call: ast.expr = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Name):
            call = ast.Call(call, [], [])
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
            raise ValueError(text)
        positional = [ast.literal_eval(argument) for argument in call.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as fault:
        raise UsageError(
            f"transform {text!r}: expected a name with literal arguments, such as missing(0.1)"
        ) from fault
    make = find("transforms", call.func.id.removeprefix("with_")).load()
    try:
        made: Transform = make(*positional, **named)
    except (TypeError, ValueError) as fault:
        raise UsageError(f"transform {text!r}: {fault}") from fault
    return made
