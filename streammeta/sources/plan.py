"""Which column plays which part, decided once per stream and followed by every row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streammeta.errors import RejectedEvent
from streammeta.events import Event, Value
from streammeta.sources.columns import Kind, label, typed
from streammeta.sources.times import ISO, Clock

LONGEST_DETAIL = 500  # characters: a record may be megabytes, what is told about it may not


@dataclass(frozen=True, slots=True)
class Plan:
    """The parts of the columns of one table.

    ``kinds`` has the columns that are features (at a horizon the target too), ``clocks`` those of
    them that hold times, and the time. ``label_kind`` is the kind of the target, ``needs_label``
    is False at a horizon, where a row without a target is still a question. ``name`` is the first
    part of the ids and of every message.
    """

    name: str
    kinds: Mapping[str, Kind]
    clocks: Mapping[str, Clock]
    target: str | None
    label_kind: Kind
    time: str | None
    key: str | None
    id: str | None
    ignore: frozenset[str]
    needs_label: bool
    target_is_feature: bool
    partition: str = "0"

    def id_of(self, offset: int | str) -> str:
        """The id of a record that has none of its own."""
        return f"{self.name}:{self.partition}:{offset}"

    def rejected(self, offset: int | str, place: str, reason: str, detail: str) -> Event:
        """The event that stands for a record that cannot be used."""
        where = f"{self.name} {place}: {detail[:LONGEST_DETAIL]}"
        return Event(self.id_of(offset), error=(reason, where))

    def record(
        self, offset: int | str, place: str, row: Mapping[str, Any], event: Event | None = None
    ) -> Event:
        """A typed record (JSON, Parquet) as an event.

        ``event`` brings the id, key and time of an envelope, which may be a question without a
        label. A column that the sniffed rows did not have is a new feature, taken as it comes.
        """
        out = event or Event(self.id_of(offset))
        x: dict[str, Value] = {}
        column = ""
        try:
            for column, value in row.items():
                if column == self.target:
                    out.y = label(value, self.label_kind)
                    if not self.target_is_feature:
                        continue
                elif column == self.time:
                    out.ts = self.clocks[column].seconds(value)
                    continue
                elif column == self.key:
                    out.key = "" if value is None else str(value)
                    continue
                elif column == self.id:
                    out.id = out.id if value in (None, "") else str(value)
                    continue
                elif column in self.ignore:
                    continue
                clock = self.clocks.get(column, ISO)
                x[column] = typed(value, self.kinds.get(column, "unknown"), clock)
        except RejectedEvent as fault:
            return self.rejected(offset, place, fault.reason, f"column {column!r} {fault.detail}")
        if out.y is None and self.target is not None and self.needs_label and event is None:
            return self.rejected(
                offset, place, "missing_target", f"target column {self.target!r} is empty"
            )
        out.x = x
        return out
