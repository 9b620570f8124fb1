"""Questions that wait for their label, with everything needed to score and learn later."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streammeta.events import Label


class Asked(NamedTuple):
    """One question as it stood when it was answered.

    ``raw (D,)`` features, ``members (M, O)`` every member's prediction and ``mixed (O,)`` the
    mixture's, in units of ``(y - centre) / scale``; ``heard`` what the mixture without its scouts
    would have predicted; ``births (M,)`` when each member was born
    (a member born later sleeps on this question).
    """

    id: str
    key: int
    row: int
    ts: float | None
    raw: NDArray[np.float64]
    members: NDArray[np.float64]
    births: NDArray[np.int64]
    prediction: Label | None
    heard: Label | None
    mixed: NDArray[np.float64]
    centre: float
    scale: float


class Pending:
    """Insertion-ordered table of ``Asked`` by id, bounded in number and in event time."""

    def __init__(self, limit: int, ttl: float | None) -> None:
        self.limit = limit
        self.ttl = ttl
        self.table: dict[str, Asked] = {}
        self._timed: dict[str, float] = {}  # those with an event time, which alone can be late

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, question: str) -> bool:
        return question in self.table

    def add(self, asked: Asked) -> None:
        """Remember a question; its id must not be in the table."""
        self.table[asked.id] = asked
        if asked.ts is not None and math.isfinite(asked.ts):
            self._timed[asked.id] = asked.ts

    def take(self, question: str) -> Asked | None:
        """Remove and return the question, or ``None`` if it is not waiting."""
        self._timed.pop(question, None)
        return self.table.pop(question, None)

    def expire(self, now: float | None) -> list[tuple[Asked, str]]:
        """Drop the oldest questions over the limit and those past their time to live.

        A question that came with an earlier time than those before it waits for them to go.
        """
        gone: list[tuple[Asked, str]] = []
        while len(self.table) > self.limit:
            gone.append((self._drop(next(iter(self.table))), "table_full"))
        if self.ttl is not None and now is not None:
            while self._timed:
                oldest = next(iter(self._timed))
                if now - self._timed[oldest] <= self.ttl:
                    break
                gone.append((self._drop(oldest), "time_to_live"))
        return gone

    def _drop(self, question: str) -> Asked:
        self._timed.pop(question, None)
        return self.table.pop(question)

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], list[list[Any]]]:
        """Tensors stacked over the waiting questions, and a JSON-ready row for each."""
        rows = list(self.table.values())
        if not rows:
            return {}, []
        outputs = max(len(r.mixed) for r in rows)
        tensors = {
            "raw": np.stack([r.raw for r in rows]),
            "members": np.stack([_padded(r.members, outputs) for r in rows]),
            "births": np.stack([r.births for r in rows]),
            "mixed": np.stack([_padded(r.mixed, outputs) for r in rows]),
        }
        return tensors, [
            [r.id, r.key, r.row, r.ts, r.prediction, r.heard, r.centre, r.scale, len(r.mixed)]
            for r in rows
        ]

    def load_parts(self, tensors: dict[str, NDArray[Any]], info: list[list[Any]]) -> None:
        """Refill the table from what ``to_parts`` returned."""
        self.table, self._timed = {}, {}
        for i, (name, key, row, ts, prediction, heard, centre, scale, outputs) in enumerate(info):
            raw, births = tensors["raw"][i], tensors["births"][i]
            members, mixed = tensors["members"][i, :, :outputs], tensors["mixed"][i, :outputs]
            asked = Asked(
                name, key, row, ts, raw, members, births, prediction, heard, mixed, centre, scale
            )
            self.add(asked)


def _padded(array: NDArray[np.float64], outputs: int) -> NDArray[np.float64]:
    """Zeros for the classes that came after the question: a wider network asked later ones."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, outputs - array.shape[-1])])
