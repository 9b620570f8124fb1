"""Questions that wait for their label, with everything needed to score and learn later."""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import IntEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streammeta.events import Label
from streammeta.pooling import STEADY

#: Questions whose end is remembered: so far back a label or a question that comes again is known.
REMEMBERED = 16_384


class Fate(IntEnum):
    """How a question ended."""

    ANSWERED = 0
    EXPIRED = 1


class Ended:
    """How the newest questions ended, by a hash of their ids: what is delivered twice is known.

    Of ``limit`` questions a wrong one is recognised with a chance of ``limit / 2**64``.

    >>> ended = Ended(limit=2)
    >>> for name in "abc":
    ...     ended.add(name, Fate.ANSWERED)
    >>> ended.fate("a"), ended.fate("c")
    (None, <Fate.ANSWERED: 0>)
    """

    def __init__(self, limit: int = REMEMBERED) -> None:
        self.limit = limit
        self._fates: OrderedDict[int, Fate] = OrderedDict()
        self._hashed = ("", _digest(""))  # what was asked for last: soon it is added

    def __len__(self) -> int:
        return len(self._fates)

    def add(self, question: str, fate: Fate) -> None:
        """Remember how a question ended; the oldest is forgotten when there are too many."""
        self._fates[self._hash(question)] = fate
        if len(self._fates) > self.limit:
            self._fates.popitem(last=False)

    def fate(self, question: str) -> Fate | None:
        """How it ended; ``None`` when it is unknown or was forgotten."""
        return self._fates.get(self._hash(question)) if self._fates else None

    def _hash(self, question: str) -> int:
        if question != self._hashed[0]:
            self._hashed = (question, _digest(question))
        return self._hashed[1]

    def to_array(self) -> NDArray[np.int64]:
        """``(n, 2)``: hashes and fates, oldest first."""
        return np.array(list(self._fates.items()), np.int64).reshape(-1, 2)

    def load_array(self, array: NDArray[np.int64]) -> None:
        """The inverse of ``to_array``."""
        self._fates = OrderedDict((name, Fate(fate)) for name, fate in array.tolist())


def _digest(question: str) -> int:
    # ids from JSON can carry lone surrogates, which plain UTF-8 refuses
    data = question.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little", signed=True)


class Asked(NamedTuple):
    """One question as it stood when it was answered.

    ``raw (D,)`` features, ``members (M, O)`` every member's prediction and ``said (SAID, O)`` what
    mixtures and pool made of them (``streammeta.pooling``), in units of ``(y - centre) / scale``;
    ``births (M,)`` when each member was born (a member born later sleeps on this question).
    """

    id: str
    key: int
    row: int
    ts: float | None
    raw: NDArray[np.float64]
    members: NDArray[np.float64]
    births: NDArray[np.int64]
    prediction: Label | None
    said: NDArray[np.float64]
    centre: float
    scale: float

    @property
    def steady(self) -> NDArray[np.float64]:
        """``(O,)``: that of the quick mixture without its scouts, which detectors listen to."""
        steady: NDArray[np.float64] = self.said[STEADY]
        return steady


class Pending:
    """Insertion-ordered table of ``Asked`` by id, bounded in number and in event time."""

    def __init__(self, limit: int, ttl: float | None) -> None:
        self.limit = limit
        self.ttl = ttl
        self.table: dict[str, Asked] = {}
        self._timed: dict[str, float] = {}  # those with an event time, which alone can be late
        self._of: dict[int, int] = {}  # how many there are of each key

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, question: str) -> bool:
        return question in self.table

    def add(self, asked: Asked) -> None:
        """Remember a question; its id must not be in the table. Arrays are copied: they may be
        parts of those of a whole chunk, which would stay in memory with them."""
        self.table[asked.id] = asked._replace(
            raw=asked.raw.copy(), members=asked.members.copy(), births=asked.births.copy(),
            said=asked.said.copy(),
        )  # fmt: skip
        self._of[asked.key] = self._of.get(asked.key, 0) + 1
        if asked.ts is not None and math.isfinite(asked.ts):
            self._timed[asked.id] = asked.ts

    def take(self, question: str) -> Asked | None:
        """Remove and return the question, or ``None`` if it is not waiting."""
        return self._drop(question) if question in self.table else None

    def waiting(self, key: int) -> int:
        """How many questions of ``key`` wait."""
        return self._of.get(key, 0)

    def of_key(self, key: int) -> list[Asked]:
        """The questions of ``key`` that wait, in the order in which they came."""
        return [asked for asked in self.table.values() if asked.key == key]

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

    def turn_back(self, now: float) -> None:
        """The clock has been set back to ``now``: what came later by the old one came now."""
        self._timed = {name: min(ts, now) for name, ts in self._timed.items()}

    def _drop(self, question: str) -> Asked:
        self._timed.pop(question, None)
        asked = self.table.pop(question)
        self._of[asked.key] -= 1
        return asked

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], list[list[Any]]]:
        """Tensors stacked over the waiting questions, and a JSON-ready row for each."""
        rows = list(self.table.values())
        if not rows:
            return {}, []
        outputs = max(r.said.shape[1] for r in rows)
        tensors = {
            "raw": np.stack([r.raw for r in rows]),
            "members": np.stack([_padded(r.members, outputs) for r in rows]),
            "births": np.stack([r.births for r in rows]),
            "said": np.stack([_padded(r.said, outputs) for r in rows]),
            "since": np.array([self._timed.get(r.id, math.nan) for r in rows]),
        }
        return tensors, [
            [r.id, r.key, r.row, r.ts, r.prediction, r.centre, r.scale, r.said.shape[1]]
            for r in rows
        ]

    def load_parts(self, tensors: dict[str, NDArray[Any]], info: list[list[Any]]) -> None:
        """Refill the table from what ``to_parts`` returned."""
        self.table, self._timed, self._of = {}, {}, {}
        for i, (name, key, row, ts, prediction, centre, scale, outputs) in enumerate(info):
            raw, births, members = (tensors[n][i] for n in ("raw", "births", "members"))
            said = tensors["said"][i, :, :outputs]
            asked = Asked(
                name, key, row, ts, raw, members[:, :outputs], births, prediction, said, centre,
                scale,
            )  # fmt: skip
            self.add(asked)
            if name in self._timed:
                self._timed[name] = float(tensors["since"][i])


def _padded(array: NDArray[np.float64], outputs: int) -> NDArray[np.float64]:
    """Zeros for the classes that came after the question: a wider network asked later ones."""
    return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, outputs - array.shape[-1])])
