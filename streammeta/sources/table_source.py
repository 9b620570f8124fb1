"""Rows with columns as a source, whatever they are kept in: a file, or a table in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches
from itertools import islice
from typing import Any, Protocol

from streammeta.errors import RejectedEvent, SourceError, UsageError
from streammeta.events import Event, Label
from streammeta.sources.cells import show
from streammeta.sources.columns import Kind, label, typed
from streammeta.sources.jsonl_table import JsonlTable
from streammeta.sources.labels import at_horizon, delayed
from streammeta.sources.plan import Plan
from streammeta.sources.stream import EventStream
from streammeta.sources.times import WANTED, Clock, clock_of

SNIFFED_ROWS = 1_000  # rows that decide the kinds of the features
SNIFFED_TARGETS = 10_000  # rows that decide the kind of the target


class Table(Protocol):
    """Rows with columns: what the formats of files and of frames share."""

    columns: list[str]

    def sample(self, n: int) -> list[dict[str, Any]]: ...
    def kind(self, values: list[Any]) -> Kind: ...
    def events(self, plan: Plan, skip: int) -> Iterator[Event]: ...


@dataclass(frozen=True, slots=True)
class Sniff:
    """What the first rows of a table say.

    ``columns`` maps all columns to their kinds in their order, ``features`` are those that a model
    sees, ``targets`` the labels among the first 10,000 rows (for ``decide_task``).
    """

    columns: dict[str, Kind]
    features: tuple[str, ...]
    targets: list[Label]
    plan: Plan


class TableSource(EventStream, ABC):
    """Rows whose columns are sniffed before the first event; a subclass opens the table.

    Args:
        place: how messages name the table.
        name: the first part of the ids ``name:0:row``.
        target: the column to predict; ``None``: questions without labels, or the ``y`` of event
            envelopes.
        time: column with epoch times (s, ms, us, ns) or dates; becomes ``Event.ts``.
        key: column that names the stream a row belongs to; becomes ``Event.key``.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        horizon: 0, or predict the target this many rows ahead (see ``labels.at_horizon``).
        label_delay: questions that pass before a label arrives (see ``labels.delayed``).
        rows: read at most this many rows.

    Raises:
        SourceError: there is nothing to read.
        UsageError: a column is not in the table.
    """

    what = "table"

    def __init__(
        self,
        place: str,
        name: str,
        *,
        target: str | None,
        time: str | None,
        key: str | None,
        id: str | None,  # noqa: A002 - the name of the flag and of the field
        ignore: Sequence[str],
        horizon: int,
        label_delay: int,
        rows: int | None,
    ) -> None:
        for option, value in (("horizon", horizon), ("label_delay", label_delay), ("rows", rows)):
            if value is not None and value < 0:
                raise UsageError(f"{option} is {value}, expected 0 or more")
        if horizon and target is None:
            raise UsageError(f"horizon is {horizon} but no target column is given")
        super().__init__(name, self._replay_rows)
        self._place = place
        self.target, self.time, self.key, self.id = target, time, key, id
        self.ignore = tuple(ignore)
        self.horizon, self.label_delay, self.rows = horizon, label_delay, rows
        self._table: Table | None = None
        self._sniff: Sniff | None = None

    @abstractmethod
    def _open(self) -> Table:
        """The table, as it is now."""

    def sniff(self) -> Sniff:
        """Read the first rows, decide which column is what, check every option against them."""
        if self._sniff is None:
            self._table = self._open()
            self._sniff = self._decide(self._table)
        return self._sniff

    def _decide(self, table: Table) -> Sniff:
        sample = table.sample(min(SNIFFED_TARGETS, self.rows or SNIFFED_TARGETS))
        if not sample:
            raise SourceError(
                f"{self._place}: no usable row after the header, expected at least one"
            )
        target = self.target
        if isinstance(table, JsonlTable) and table.envelopes and target is None:
            target = "y"
        columns = list(table.columns)
        self._check_columns(columns, target)
        parts = {self.time, self.key, self.id, *self.ignore}
        if not self.horizon:
            parts.add(target)
        first = sample[:SNIFFED_ROWS]
        kinds = {c: table.kind([row.get(c) for row in first if c in row]) for c in columns}
        label_kind: Kind = "unknown"
        labels: list[Label] = []
        if target is not None:
            values = [row[target] for row in sample if target in row]
            label_kind = _label_kind(table.kind(values))
            labels = list(_labels(values, label_kind))
            if not labels and target in table.columns:
                raise UsageError(f"{self._place}: target column {target!r} has no values at all")
        features = {c: kinds[c] for c in columns if c not in parts}
        values_of = {c: [row.get(c) for row in first] for c in columns}
        self._check_features({c: values_of[c] for c in features})
        clocks = {c: clock_of(values_of[c]) for c, kind in features.items() if kind == "time"}
        if self.time is not None:
            clocks[self.time] = self._clock(values_of[self.time])
        plan = Plan(
            name=self.name,
            kinds=features,
            clocks=clocks,
            target=target,
            label_kind=label_kind,
            time=self.time,
            key=self.key,
            id=self.id,
            ignore=frozenset(self.ignore),
            needs_label=not self.horizon,
            target_is_feature=self.horizon > 0,
        )
        return Sniff(kinds, tuple(features), labels, plan)

    def _check_columns(self, columns: list[str], target: str | None) -> None:
        asked = [("target", target), ("time", self.time), ("key", self.key), ("id", self.id)]
        asked += [("ignore", name) for name in self.ignore]
        for part, name in asked:
            if name is None or name in columns or (part == "target" and self.target is None):
                continue
            near = get_close_matches(name, columns, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            shown = ", ".join(columns[:40]) + (", ..." if len(columns) > 40 else "")
            raise UsageError(
                f"{self._place}: {part} column {name!r} is not in the {self.what}{hint}; "
                f"columns: {shown}"
            )
        single = [name for part, name in asked[:4] if name is not None]
        for name in single:
            if single.count(name) > 1 or name in self.ignore:
                raise UsageError(f"{self._place}: column {name!r} is given two parts at once")

    def _check_features(self, columns: dict[str, list[Any]]) -> None:
        """A column of lists or objects would reject every row: better to say so at once."""
        for name, values in columns.items():
            present = [v for v in values if v is not None]
            if present and not any(map(_usable, present)):
                raise UsageError(
                    f"{self._place}: column {name!r} holds values such as {show(present[0])}, "
                    "expected numbers, texts, times, true or false; leave it out with ignore"
                )

    def _clock(self, values: list[Any]) -> Clock:
        clock = clock_of(values)
        fault = ""
        for value in values:
            try:
                if clock.seconds(value) is not None:
                    return clock
            except RejectedEvent as error:
                fault = fault or error.detail
        found = fault or f"is empty, expected {WANTED}"
        raise UsageError(f"{self._place}: time column {self.time!r} {found}")

    def _replay_rows(self, skip: int) -> Iterator[Event]:
        plan = self.sniff().plan
        table = self._table
        assert table is not None
        if not self.horizon and not self.label_delay:
            left = None if self.rows is None else max(self.rows - skip, 0)
            return islice(table.events(plan, skip), left)
        events: Iterator[Event] = islice(table.events(plan, 0), self.rows)
        if self.horizon:
            events = at_horizon(events, self.horizon)
        if self.label_delay:
            events = delayed(events, self.label_delay)
        return islice(events, skip, None)


def _label_kind(kind: Kind) -> Kind:
    return "category" if kind == "time" else kind


def _usable(value: Any) -> bool:
    try:
        typed(value, "time" if isinstance(value, date) else "unknown")
    except RejectedEvent as fault:
        return fault.reason != "wrong_type"
    return True


def _labels(values: list[Any], kind: Kind) -> Iterator[Label]:
    for value in values:
        try:
            found = label(value, kind)
        except RejectedEvent:
            continue  # counted and named when the stream comes to this row
        if found is not None:
            yield found
