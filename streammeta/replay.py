"""What may be learned again: the rows of the current segment, and the tasks of all segments."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Rows of the current segment that are kept for each key.
SEGMENT_ROWS = 512


class SegmentRows:
    """The newest labelled rows of every key: rings ``(K, R, D)``, in time order when read."""

    def __init__(self, keys: int, width: int) -> None:
        self.raw = np.zeros((keys, SEGMENT_ROWS, width))
        self.y = np.zeros((keys, SEGMENT_ROWS))
        self.row = np.full((keys, SEGMENT_ROWS), -1, np.int64)
        self.count = np.zeros(keys, np.int64)
        #: how many of the newest rows belong to the current segment
        self.inside = np.zeros(keys, np.int64)
        #: how many of those are not part of a closed task yet
        self.open = np.zeros(keys, np.int64)

    def add(self, key: int, row: int, raw: NDArray[np.float64], y: float) -> None:
        """Append one labelled row of the current segment."""
        slot = self.count[key] % SEGMENT_ROWS
        self.raw[key, slot] = raw
        self.y[key, slot] = y
        self.row[key, slot] = row
        self.count[key] += 1
        self.inside[key] = min(self.inside[key] + 1, SEGMENT_ROWS)
        self.open[key] += 1

    def cut(self, key: int, onset: int) -> None:
        """A new segment starts at ``onset``: only rows from there on are inside."""
        kept = self._slots(key, int(self.inside[key]))
        chosen = kept[self.row[key, kept] >= onset]
        inside = len(chosen)
        # late labels come out of order: what belongs to the segment is made the newest
        newest = self._slots(key, inside)
        for array in (self.raw, self.y, self.row):
            array[key, newest] = array[key, chosen]
        self.inside[key] = inside
        self.open[key] = inside

    def newest(self, key: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The newest ``min(n, inside)`` rows of the segment in time order: ``(m, D)``, ``(m,)``."""
        slots = self._slots(key, min(n, int(self.inside[key])))
        return self.raw[key, slots], self.y[key, slots]

    def sample(
        self, key: int, rounds: int, n: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``rounds`` batches of ``n`` rows end to end: each the newest row of the segment, then
        ``n - 1`` drawn evenly from it (with replacement). ``(rounds * n, D)``, ``(rounds * n,)``.
        """
        back = rng.integers(0, self.inside[key], rounds * n)
        back[::n] = 0
        slots = (self.count[key] - 1 - back) % SEGMENT_ROWS
        return self.raw[key, slots], self.y[key, slots]

    def _slots(self, key: int, n: int) -> NDArray[np.int64]:
        last = int(self.count[key])
        return np.arange(last - n, last) % SEGMENT_ROWS

    FIELDS = ("raw", "y", "row", "count", "inside", "open")


class Tasks(NamedTuple):
    """Tasks drawn from memory: ``raw (B, L, D)``, ``y (B, L)`` in time order, ``key (B,)``."""

    raw: NDArray[np.float64]
    y: NDArray[np.float64]
    key: NDArray[np.int64]


def pose(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    support: NDArray[np.int64],
    query: NDArray[np.int64],
    at: int,
) -> list[NDArray[np.float32]]:
    """The six arrays of a ``Batch``: support before column ``at`` of ``x (B, L, D)``, query after.

    Of task ``i`` the newest ``support[i]`` rows before ``at`` count and the first ``query[i]`` from
    there on; what lies outside is padding.
    """
    before, after = np.arange(at), np.arange(y.shape[1] - at)
    asked = (before >= at - support[:, None]).astype(np.float32)
    judged = (after < query[:, None]).astype(np.float32)
    parts = [x[:, :at], y[:, :at], asked, x[:, at:], y[:, at:], judged]
    return [np.ascontiguousarray(part) for part in parts]


class TaskMemory:
    """Closed tasks as raw rows: half a ring of the newest, half a reservoir of all.

    The reservoir keeps every task ever closed with the same probability (Vitter 1985,
    algorithm R), so concepts of long ago stay; the ring follows the present.
    """

    FIELDS = ("raw", "y", "key")

    def __init__(self, capacity: int, length: int, width: int) -> None:
        self.half = max(1, capacity // 2)
        self.raw = np.zeros((2 * self.half, length, width))
        self.y = np.zeros((2 * self.half, length))
        self.key = np.zeros(2 * self.half, np.int64)
        self.seen = 0

    def __len__(self) -> int:
        return 2 * min(self.seen, self.half)

    def add(
        self,
        key: int,
        raw: NDArray[np.float64],
        y: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:
        """Keep a task ``raw (L, D)``, ``y (L,)``: in the ring always, in the reservoir by lot."""
        self._put(self.seen % self.half, key, raw, y)
        place = self.seen if self.seen < self.half else int(rng.integers(0, self.seen + 1))
        if place < self.half:
            self._put(self.half + place, key, raw, y)
        self.seen += 1

    def draw(self, n: int, rng: np.random.Generator) -> Tasks:
        """``n`` tasks, alternating between the ring and the reservoir.

        Raises:
            ValueError: the memory is empty.
        """
        if self.seen == 0:
            raise ValueError("the task memory is empty")
        filled = min(self.seen, self.half)
        slots = rng.integers(0, filled, n) + self.half * (np.arange(n) % 2)
        return Tasks(self.raw[slots], self.y[slots], self.key[slots])

    def since(self, seen: int) -> Tasks:
        """The tasks closed after the first ``seen`` ones, in order.

        Raises:
            ValueError: the ring has passed over some of them.
        """
        if self.seen - seen > self.half:
            raise ValueError(f"{self.seen - seen} tasks are newer, the ring holds {self.half}")
        slots = np.arange(seen, self.seen) % self.half
        return Tasks(self.raw[slots], self.y[slots], self.key[slots])

    def _put(self, slot: int, key: int, raw: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        self.raw[slot] = raw
        self.y[slot] = y
        self.key[slot] = key

    def to_info(self) -> dict[str, Any]:
        """JSON-ready counters; the arrays are in ``FIELDS``."""
        return {"seen": self.seen}
