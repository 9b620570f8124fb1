"""Memory: the nearest of the newest rows answer, by a metric that is learned as it goes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streammeta.encode import CLIP
from streammeta.experts.family import PAST, Floats, Stacked, World
from streammeta.experts.kernels import REGRESSION

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: Rows that each member looks back, and how many nearest of those it asks.
REACHES, NEAREST = (100, 500, 4000), 10
#: What a column of no numbers weighs at birth, and the learning rate of the metric.
PLAIN, RATE = 0.25, 0.1
#: Rows of which one is learned from.
LEARNED = 4
#: No column weighs less than this.
LIGHTEST = 1e-3
#: In units of the root mean square distance: what is added to each, so that none answers alone.
BLUR = 0.1
#: Votes of a neighbour at no distance that all classes share.
DOUBT = 0.02
_FAR = 1e30


@njit(cache=True, nogil=True, error_model="numpy")
def place(raw: Floats, scaled: Floats, means: Floats, spreads: Floats, out: F32) -> None:
    """``out (D,)`` <- where a raw row ``(D,)`` lies, standardised; 0 for what is missing."""
    for c in range(len(raw)):
        z = raw[c]
        if scaled[c] != 0.0:
            z = (z - means[c]) / np.sqrt(spreads[c] + 1e-12)
        out[c] = 0.0 if np.isnan(z) else min(max(z, -CLIP), CLIP)


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _distances(at: F32, metric: F32, kept: F32, out: F32) -> None:
    """``out (n,)`` <- squared distances of ``kept (n, D)`` from ``at (D,)``."""
    for r in range(len(kept)):
        total = np.float32(0.0)
        for c in range(len(at)):
            gap = at[c] - kept[r, c]
            total += metric[c] * gap * gap
        out[r] = total


@njit(cache=True, nogil=True, error_model="numpy")
def find_nearest(
    at: F32, metric: Floats, kept: F32, seen: int, reaches: I64, gaps: Floats, slots: I64
) -> None:
    """``gaps``, ``slots (m, NEAREST)`` <- squared distances and places in the ring ``kept (R, D)``
    of those nearest to ``at (D,)`` within each reach; where there are fewer the gap is ``_FAR``."""
    size = len(kept)
    reach = min(seen, size, reaches[-1])
    distances = np.empty(size, np.float32)
    _distances(at, metric.astype(np.float32), kept[: min(seen, size)], distances)
    own, where = np.full(NEAREST, _FAR), np.zeros(NEAREST, np.int64)
    worst, farthest, member = _FAR, 0, 0
    slot = (seen - 1) % size
    for b in range(reach):
        while b == reaches[member]:
            gaps[member], slots[member] = own, where
            member += 1
        if distances[slot] < worst:
            own[farthest], where[farthest] = distances[slot], slot
            worst = -1.0
            for i in range(NEAREST):
                if own[i] > worst:
                    worst, farthest = own[i], i
        slot = slot - 1 if slot > 0 else size - 1
    for m in range(member, len(reaches)):
        gaps[m], slots[m] = own, where


@njit(cache=True, nogil=True, error_model="numpy")
def _ask(
    gaps: Floats, slots: I64, targets: Floats, centre: float, scale: float, n_out: int, task: int,
    out: Floats,
) -> None:  # fmt: skip
    """``out (O,)`` <- the votes of neighbours, by one over their distance."""
    mean, n = 0.0, 0
    for i in range(len(gaps)):
        if gaps[i] < _FAR:
            mean, n = mean + gaps[i], n + 1
    mean = mean / max(n, 1) + 1e-12
    out[:n_out] = 0.0
    mass, value = DOUBT * n_out, 0.0
    for i in range(len(gaps)):
        if gaps[i] < _FAR:
            vote = 1.0 / (np.sqrt(gaps[i] / mean) + BLUR)
            mass += vote
            if task == REGRESSION:
                value += vote * (targets[slots[i]] - centre) / scale
            else:
                out[int(targets[slots[i]])] += vote
    if task == REGRESSION:
        out[0] = value / (mass - DOUBT * n_out) if n else 0.0
        return
    for k in range(n_out):
        out[k] = (out[k] + DOUBT) / mass


@njit(cache=True, nogil=True, error_model="numpy")
def predict_memory(
    metric: Floats, kept: F32, reaches: I64, raw: Floats, scaled: Floats, means: Floats,
    spreads: Floats, targets: Floats, seen: int, centre: float, scale: float, n_out: int, task: int,
    out: Floats,
) -> None:  # fmt: skip
    """``out (n, m, O)`` <- what the neighbours of raw rows ``(n, D)`` say within each reach."""
    gaps = np.empty((len(reaches), NEAREST))
    slots, at = np.empty(gaps.shape, np.int64), np.empty(raw.shape[1], np.float32)
    for r in range(len(raw)):
        place(raw[r], scaled, means, spreads, at)
        find_nearest(at, metric, kept, seen, reaches, gaps, slots)
        for m in range(len(reaches)):
            _ask(gaps[m], slots[m], targets, centre, scale, n_out, task, out[r, m])


@njit(cache=True, nogil=True, error_model="numpy")
def learn_metric(
    metric: Floats, total: float, kept: F32, reaches: I64, targets: Floats, seen: int, scale: float,
    task: int,
) -> None:  # fmt: skip
    """A step of ``metric (D,)`` on the newest row: up what lies between it and neighbours that are
    not its like, down what lies between it and those that are (neighbourhood components analysis,
    Goldberger et al. 2005, with a weight for each column; of values, the nearer the liker)."""
    newest = (seen - 1) % len(kept)
    gaps = np.empty((len(reaches), NEAREST))
    slots = np.empty(gaps.shape, np.int64)
    find_nearest(kept[newest], metric, kept, seen - 1, reaches, gaps, slots)
    near, where = gaps[-1], slots[-1]
    if near.max() >= _FAR:
        return
    mean, alike, mass = near.mean() + 1e-12, 0.0, 0.0
    like, q = np.empty(NEAREST), np.exp(-near / mean)
    for i in range(NEAREST):
        apart = abs(targets[where[i]] - targets[newest])
        like[i] = np.exp(-apart / scale) if task == REGRESSION else (1.0 if apart == 0.0 else 0.0)
        alike += q[i] * like[i]
    if not 1e-6 < alike / q.sum() < 1.0 - 1e-6:
        return
    for c in range(len(metric)):
        slope = 0.0
        for i in range(NEAREST):
            gap = kept[newest, c] - kept[where[i], c]
            slope -= metric[c] * gap * gap / mean * q[i] * (like[i] / alike - 1.0 / q.sum())
        metric[c] *= np.exp(RATE * min(max(slope, -1.0), 1.0))
        mass += metric[c]
    for c in range(len(metric)):
        metric[c] = max(metric[c] * total / mass, LIGHTEST)


class Memory(Stacked):
    """Nearest rows within several reaches; all share ``metric (K, D)``. ``kept (K, R, D)``: where
    the rows of the ring lay when they came.

    Args:
        width: raw columns.
        numbers: the first of them are features, the others codes of labels before.
    """

    FIELDS = ("metric", "kept")
    metric: Floats
    kept: F32

    def __init__(self, width: int, numbers: int) -> None:
        self.width, self.numbers = width, numbers
        self.reaches = np.array(REACHES, np.int64)
        self.total = PLAIN * (width - numbers) + numbers
        self.names = tuple(f"memory@{reach}" for reach in REACHES)
        self._allocate()

    def _fresh(self) -> dict[str, NDArray[Any]]:
        metric = np.full(self.width, PLAIN)
        metric[: self.numbers] = 1.0
        return {"metric": metric, "kept": np.zeros((PAST, self.width), np.float32)}

    def predict(self, key: int, raw: Floats, world: World, out: Floats) -> None:
        """``out (n, m, O)`` <- what is remembered of the like of raw rows ``(n, D)``."""
        predict_memory(
            self.metric[key], self.kept[key], self.reaches, raw, world.scaled, world.means,
            world.spreads, world.targets, world.seen, world.centre, world.scale, world.n_classes,
            world.task, out,
        )  # fmt: skip

    def learn(self, key: int, world: World) -> None:
        """Keep the newest row; one in ``LEARNED`` tells what should have been near it."""
        slot, kept = (world.seen - 1) % PAST, self.kept[key]
        place(world.rows[slot], world.scaled, world.means, world.spreads, kept[slot])
        if world.seen % LEARNED == 0:
            learn_metric(
                self.metric[key], self.total, kept, self.reaches, world.targets, world.seen,
                world.scale, world.task,
            )  # fmt: skip

    def seed_class(self, index: int) -> None:
        """Nobody remembers it yet."""

    def widen_outputs(self, outputs: int) -> None:
        """Nothing depends on how many classes there are."""
