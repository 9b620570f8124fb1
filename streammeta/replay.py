"""What may be learned again: the rows of the current segment, and the tasks of all segments."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from streammeta.boxed import Box

Floats = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Rows of the current segment that are kept for each key.
SEGMENT_ROWS = 512


@kernel()
def add_row(
    raws: Floats, ys: Floats, numbers: I64, count: I64, inside: I64, key: int, row: int,
    raw: Floats, y: float,
) -> None:  # fmt: skip
    """Append one labelled row ``(D,)`` of the current segment to the ring of a key."""
    size = raws.shape[1]
    slot = count[key] % size
    for c in range(len(raw)):
        raws[key, slot, c] = raw[c]
    ys[key, slot], numbers[key, slot] = y, row
    count[key] += 1
    inside[key] = min(inside[key] + 1, size)


@njit(cache=True, nogil=True, error_model="numpy")
def keep(bank: Box, world: Box, key: int, row: int, raw: Floats, y: float) -> None:
    """Append it to all that is kept of the key."""
    b, w = bank.of, world.of
    if len(raw) != b.raw.shape[2]:
        raise ValueError("a row is as wide as those that are kept")
    add_row(b.raw, b.y, b.row, b.seen, b.inside, key, row, raw, y)
    b.open[key] += 1
    if key < len(w.rows):
        add_row(w.rows, w.targets, w.numbers, w.seen, w.inside, key, row, raw, y)


class SegmentRows:
    """The ``size`` newest labelled rows of every key: rings ``(K, R, D)``, in time order when
    read."""

    def __init__(self, keys: int, width: int, size: int = SEGMENT_ROWS) -> None:
        self.size = size
        self.raw = np.zeros((keys, size, width))
        self.y = np.zeros((keys, size))
        self.row = np.full((keys, size), -1, np.int64)
        self.count = np.zeros(keys, np.int64)
        #: how many of the newest rows belong to the current segment
        self.inside = np.zeros(keys, np.int64)
        #: how many of those are not part of a closed task yet
        self.open = np.zeros(keys, np.int64)

    def add(self, key: int, row: int, raw: NDArray[np.float64], y: float) -> None:
        """Append one labelled row ``(D,)`` of the current segment.

        Raises:
            ValueError: it is of another width.
        """
        if raw.shape != self.raw.shape[2:]:
            raise ValueError(f"a row is {raw.shape}, expected {self.raw.shape[2:]}")
        add_row(self.raw, self.y, self.row, self.count, self.inside, key, row, raw, y)
        self.open[key] += 1

    def cut(self, key: int, onset: int) -> None:
        """A new segment starts at ``onset``: only rows from there on are inside."""
        slots = self._slots(key, int(self.inside[key]))
        stays = self.row[key, slots] >= onset
        inside = int(stays.sum())
        # late labels come out of order: what belongs to the segment is made the newest
        order = np.concatenate([slots[~stays], slots[stays]])
        for array in (self.raw, self.y, self.row):
            array[key, slots] = array[key, order]
        self.inside[key] = inside
        self.open[key] = inside

    def shorten(self, key: int, onset: int) -> None:
        """The same, where rows have to keep their places: of late labels fewer are inside."""
        slots = self._slots(key, int(self.inside[key]))[::-1]
        older = np.flatnonzero(self.row[key, slots] < onset)
        self.inside[key] = older[0] if len(older) else len(slots)

    def newest(self, key: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The newest ``min(n, inside)`` rows of the segment in time order: ``(m, D)``, ``(m,)``."""
        slots = self._slots(key, min(n, int(self.inside[key])))
        return self.raw[key, slots], self.y[key, slots]

    def all_inside(
        self, key: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Row numbers, rows and labels of the segment that are kept: ``(m,)``, ``(m, D)``,
        ``(m,)``."""
        slots = self._slots(key, int(self.inside[key]))
        return self.row[key, slots], self.raw[key, slots], self.y[key, slots]

    def latest(self, key: int, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The ``min(n, all)`` rows that came last, in the order in which they came, whatever their
        segment; rows of the current one stand behind those of the segment before."""
        slots = self._slots(key, min(n, int(self.count[key]), self.size))
        return self.raw[key, slots], self.y[key, slots]

    def _slots(self, key: int, n: int) -> NDArray[np.int64]:
        last = int(self.count[key])
        return np.arange(last - n, last) % self.size

    def grown(self, keys: int) -> SegmentRows:
        """The same with room for ``keys`` keys."""
        wide = SegmentRows(keys, self.raw.shape[2], self.size)
        for name in self.FIELDS:
            old = getattr(self, name)
            getattr(wide, name)[: len(old)] = old
        return wide

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


class Sketch:
    """Where a task lies among tasks: the mean of random Fourier features of its rows.

    The distance of two sketches approximates the maximum mean discrepancy of the joint
    distributions of inputs and label (Gretton et al. 2012, JMLR 13; features of Rahimi & Recht
    2007): it sees another relation between the two, and other inputs.
    """

    SIZE = 64

    def __init__(self, width: int, labels: int) -> None:
        """For ``width`` inputs and class indices modulo ``labels``; 1 stands for values."""
        rng = np.random.default_rng([width, labels])
        self._by_x = rng.normal(0.0, 1.0 / np.sqrt(max(width, 1)), (width, self.SIZE))
        self._by_y = rng.normal(0.0, 1.0, (labels, self.SIZE))
        self._phase = rng.uniform(0.0, 2.0 * np.pi, self.SIZE)

    def __call__(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        """``(SIZE,)`` for standardised rows ``x (L, D)``, ``y (L,)``."""
        labels = len(self._by_y)
        of_y = y[:, None] * self._by_y if labels == 1 else self._by_y[y.astype(int) % labels]
        angles = x.astype(np.float64) @ self._by_x + of_y + self._phase
        found: NDArray[np.float32] = np.cos(angles).mean(0).astype(np.float32)
        return found


class TaskMemory:
    """Closed tasks as raw rows, in three parts of one size that are kept apart.

    ``recent`` is a ring of the newest, which follows the present. ``reservoir`` keeps every task
    ever closed with the same probability (Vitter 1985, algorithm R): what is common stays common.
    ``diverse`` keeps tasks that lie far from each other, so that what was rare stays too.
    """

    FIELDS = ("raw", "y", "key", "sketches")

    def __init__(self, capacity: int, length: int, width: int) -> None:
        self.part = max(1, capacity // 3)
        self.raw = np.zeros((3 * self.part, length, width))
        self.y = np.zeros((3 * self.part, length))
        self.key = np.zeros(3 * self.part, np.int64)
        self.sketches = np.zeros((self.part, Sketch.SIZE), np.float32)  # of the diverse ones
        self._gaps: NDArray[np.float32] | None = None  # between those, made when first needed
        self.seen = 0

    def __len__(self) -> int:
        return min(self.seen, 3 * self.part)

    def add(
        self,
        key: int,
        raw: NDArray[np.float64],
        y: NDArray[np.float64],
        sketch: NDArray[np.float32],
        rng: np.random.Generator,
    ) -> None:
        """Keep a task ``raw (L, D)``, ``y (L,)``, ``sketch (SIZE,)``: among the newest always, in
        the reservoir by lot, among the diverse if it is not too near to one of them."""
        full = self.seen >= self.part
        self._put(self.seen % self.part, key, raw, y)
        place = int(rng.integers(0, self.seen + 1)) if full else self.seen
        if place < self.part:
            self._put(self.part + place, key, raw, y)
        apart = self._crowded(sketch) if full else self.seen
        if apart is not None:
            self._put(2 * self.part + apart, key, raw, y)
            self._sketch(apart, sketch)
        self.seen += 1

    def draw(self, n: int, rng: np.random.Generator) -> Tasks:
        """``n`` tasks, from the three parts in turn.

        Raises:
            ValueError: the memory is empty.
        """
        if self.seen == 0:
            raise ValueError("the task memory is empty")
        filled = min(self.seen, self.part)
        return self._at(rng.integers(0, filled, n) + self.part * (np.arange(n) % 3))

    def since(self, seen: int) -> Tasks:
        """The tasks closed after the first ``seen`` ones, in order.

        Raises:
            ValueError: the ring has passed over some of them.
        """
        if self.seen - seen > self.part:
            raise ValueError(f"{self.seen - seen} tasks are newer, the ring holds {self.part}")
        return self._at(np.arange(seen, self.seen) % self.part)

    def _crowded(self, sketch: NDArray[np.float32]) -> int | None:
        """Which of the diverse tasks makes room: one of the two that lie nearest to each other,
        the one whose next neighbour is nearer. ``None`` where a new one would lie nearer still.
        """
        gaps = self._gaps
        if gaps is None:
            gaps = np.stack([_gaps(self.sketches, at) for at in self.sketches])
            np.fill_diagonal(gaps, np.inf)
            self._gaps = gaps
        closest = int(gaps.argmin())
        if self.part == 1 or _gaps(self.sketches, sketch).min() <= gaps.flat[closest]:
            return None
        one, other = divmod(closest, self.part)
        next_gaps = np.partition(gaps[[one, other]], 1, axis=1)[:, 1]
        return one if next_gaps[0] <= next_gaps[1] else other

    def _sketch(self, at: int, sketch: NDArray[np.float32]) -> None:
        self.sketches[at] = sketch
        if self._gaps is not None:
            self._gaps[at] = self._gaps[:, at] = _gaps(self.sketches, sketch)
            self._gaps[at, at] = np.inf

    def _at(self, slots: NDArray[np.int64]) -> Tasks:
        return Tasks(self.raw[slots], self.y[slots], self.key[slots])

    def _put(self, slot: int, key: int, raw: NDArray[np.float64], y: NDArray[np.float64]) -> None:
        self.raw[slot] = raw
        self.y[slot] = y
        self.key[slot] = key

    def to_info(self) -> dict[str, Any]:
        """JSON-ready counters; the arrays are in ``FIELDS``."""
        return {"seen": self.seen}


def _gaps(sketches: NDArray[np.float32], sketch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances ``(n,)``."""
    squared: NDArray[np.float32] = ((sketches - sketch) ** 2).sum(1)
    return squared
