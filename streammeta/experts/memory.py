"""Memory: the nearest of the newest rows answer, by a metric that is learned as it goes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from streammeta.boxed import Box
from streammeta.encode import CLIP
from streammeta.experts.family import I64, PAST, Floats, Space, Stacked
from streammeta.experts.kernels import NOT_READ, REGRESSION, let_read

F32 = NDArray[np.float32]
Flags = NDArray[np.bool_]

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
#: Distances that are looked at together: mostly none of them is among the nearest.
STRETCH = 64
_FAR = 1e30


@kernel()
def place(raw: Floats, scaled: Floats, means: Floats, spreads: Floats, out: F32) -> None:
    """``out (D,)`` <- where a raw row ``(D,)`` lies, standardised; 0 for what is missing."""
    for c in range(len(raw)):
        z = raw[c] if scaled[c] != NOT_READ else np.nan
        if scaled[c] != 0.0:
            z = (z - means[c]) / np.sqrt(spreads[c] + 1e-12)
        out[c] = 0.0 if np.isnan(z) else min(max(z, -CLIP), CLIP)


@kernel(fastmath=True)
def _add_distances(at: np.float32, weight: np.float32, column: F32, out: F32) -> None:
    """``out (n,)`` grows by the squared distances of ``column (n,)`` from ``at``."""
    for r in range(len(out)):
        gap = at - column[r]
        out[r] += weight * gap * gap


@kernel(fastmath=True)
def _least(numbers: F32) -> float:
    least: float = numbers[0]
    for i in range(len(numbers)):
        least = min(least, numbers[i])
    return least


@njit(cache=True, nogil=True, error_model="numpy")
def find_nearest(
    at: F32, metric: Floats, kept: F32, varies: Flags, scaled: Floats, seen: int, reaches: I64,
    gaps: Floats, slots: I64,
) -> None:  # fmt: skip
    """``gaps``, ``slots (m, NEAREST)`` <- squared distances and places in the ring ``kept (D, R)``
    of those nearest to ``at (D,)`` within each reach; where there are fewer the gap is ``_FAR``.
    Columns that never ``varies (D,)`` are 0 in every row; those that are not read lie nowhere."""
    distances = np.zeros(min(seen, kept.shape[1]), np.float32)
    _search(at, metric, kept, varies, scaled, seen, reaches, distances, gaps, slots)


@kernel()
def _search(
    at: F32, metric: Floats, kept: F32, varies: Flags, scaled: Floats, seen: int, reaches: I64,
    distances: F32, gaps: Floats, slots: I64,
) -> None:  # fmt: skip
    """``find_nearest``, which is given zeros: ``distances (n,)`` <- those of all rows."""
    size = kept.shape[1]
    reach = min(seen, size, reaches[-1])
    for c in range(len(at)):
        if (varies[c] or at[c] != 0.0) and scaled[c] != NOT_READ:
            _add_distances(at[c], np.float32(metric[c]), kept[c, : len(distances)], distances)
    worst, farthest, back = _FAR, 0, 0
    for m in range(len(reaches)):
        own, where = gaps[m], slots[m]
        for j in range(NEAREST):  # those of the shorter reach may still be the nearest
            own[j], where[j] = (_FAR, 0) if m == 0 else (gaps[m - 1, j], slots[m - 1, j])
        while back < min(reach, reaches[m]):
            newest = (seen - 1 - back) % size  # a stretch that does not leap back in the ring
            n = min(min(reach, reaches[m]) - back, newest + 1, STRETCH)
            stretch = distances[newest + 1 - n : newest + 1]
            back += n
            if _least(stretch) >= worst:
                continue
            for i in range(n - 1, -1, -1):
                if stretch[i] < worst:
                    own[farthest], where[farthest] = stretch[i], newest + 1 - n + i
                    worst = -1.0
                    for j in range(NEAREST):
                        if own[j] > worst:
                            worst, farthest = own[j], j


@kernel()
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
    metric: Floats, kept: F32, varies: Flags, reaches: I64, raw: Floats, scaled: Floats,
    means: Floats, spreads: Floats, targets: Floats, seen: int, centre: float, scale: float,
    n_out: int, task: int, out: Floats, start: int,
) -> None:  # fmt: skip
    """``out (n, M, O)`` <- from row ``start`` on, what the neighbours of raw rows ``(n, D)`` say
    within each reach."""
    gaps = np.empty((len(reaches), NEAREST))
    slots, at = np.empty(gaps.shape, np.int64), np.empty(raw.shape[1], np.float32)
    for r in range(len(raw)):
        place(raw[r], scaled, means, spreads, at)
        find_nearest(at, metric, kept, varies, scaled, seen, reaches, gaps, slots)
        for m in range(len(reaches)):
            _ask(gaps[m], slots[m], targets, centre, scale, n_out, task, out[r, start + m])


@njit(cache=True, nogil=True, error_model="numpy")
def keep(
    kept: F32, varies: Flags, slot: int, raw: Floats, scaled: Floats, means: Floats, spreads: Floats
) -> None:
    """A raw row ``(D,)`` takes its place in the ring ``kept (D, R)``."""
    at = np.empty(len(raw), np.float32)
    place(raw, scaled, means, spreads, at)
    for c in range(len(raw)):
        kept[c, slot] = at[c]
        varies[c] |= at[c] != 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def learn_metric(
    metric: Floats, total: float, kept: F32, varies: Flags, scaled: Floats, reaches: I64,
    targets: Floats, seen: int, scale: float, task: int,
) -> None:  # fmt: skip
    """A step of ``metric (D,)`` on the newest row: up what lies between it and neighbours that are
    not its like, down what lies between it and those that are (neighbourhood components analysis,
    Goldberger et al. 2005, with a weight for each column; of values, the nearer the liker)."""
    newest = (seen - 1) % kept.shape[1]
    gaps = np.empty((len(reaches), NEAREST))
    slots = np.empty(gaps.shape, np.int64)
    at = kept[:, newest].copy()
    find_nearest(at, metric, kept, varies, scaled, seen - 1, reaches, gaps, slots)
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
        for i in range(NEAREST if scaled[c] != NOT_READ else 0):
            gap = kept[c, newest] - kept[c, where[i]]
            slope -= metric[c] * gap * gap / mean * q[i] * (like[i] / alike - 1.0 / q.sum())
        metric[c] *= np.exp(RATE * min(max(slope, -1.0), 1.0))
        mass += metric[c]
    for c in range(len(metric)):
        metric[c] = max(metric[c] * total / mass, LIGHTEST)


class _Table(NamedTuple):
    """``metric (K, D)``, which all members share; ``kept (K, D, R)``: where the rows of the ring
    lay when they came; ``varies (K, D)``: columns that are not always 0."""

    metric: Floats
    kept: F32
    varies: Flags


@njit(cache=True, nogil=True)
def _boxed(table: _Table) -> Box:
    return Box(table)  # type: ignore[no-untyped-call]


class Memory(Stacked[_Table]):
    """Nearest rows within several reaches; numbers and codes of labels weigh differently."""

    def __init__(self, space: Space) -> None:
        width, numbers = space[:2]
        self.width, self.numbers, self.first_label = width, numbers, width - space.lagged
        self.reaches = np.array(REACHES, np.int64)
        self.total = PLAIN * (width - numbers) + numbers
        self.names = tuple(f"memory@{reach}" for reach in REACHES)
        super().__init__()

    def _boxed(self, table: _Table) -> Box:
        found: Box = _boxed(table)
        return found

    def _fresh(self) -> _Table:
        metric = np.full(self.width, PLAIN)
        metric[: self.numbers] = 1.0
        return _Table(
            metric, np.zeros((self.width, PAST), np.float32), np.zeros(self.width, np.bool_)
        )

    def predict(self, key: int, raw: Floats, world: Box, out: Floats, at: int) -> None:
        """``out (n, M, O)`` <- from row ``at`` on, what is remembered of the like of
        ``raw (n, D)``."""
        ask(self.box, world, key, self.reaches, raw, out, at)

    def learn(self, key: int, world: Box) -> None:
        """Keep the newest row; one in ``LEARNED`` tells what should have been near it."""
        learn(self.box, world, key, self.reaches, self.total, self.first_label)

    def seed_class(self, index: int) -> None:
        """Nobody remembers it yet."""

    def widen_outputs(self, outputs: int) -> None:
        """Nothing depends on how many classes there are."""


@njit(cache=True, nogil=True, error_model="numpy")
def ask(own: Box, world: Box, key: int, reaches: I64, raw: Floats, out: Floats, at: int) -> None:
    t, w = own.of, world.of
    centre, scale = w.units[key]
    predict_memory(t.metric[key], t.kept[key], t.varies[key], reaches, raw, w.scaled,
                   w.means[key], w.spreads[key], w.targets[key], w.seen[key], centre, scale,
                   w.n_classes[0], w.task, out, at)  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def learn(own: Box, world: Box, key: int, reaches: I64, total: float, first_label: int) -> None:
    t, w = own.of, world.of
    seen, kept, varies = w.seen[key], t.kept[key], t.varies[key]
    slot, scaled = (seen - 1) % PAST, w.scaled.copy()
    let_read(scaled, first_label, w.task, True)  # one day they may be
    keep(kept, varies, slot, w.rows[key, slot], scaled, w.means[key], w.spreads[key])
    if seen % LEARNED == 0:
        learn_metric(t.metric[key], total, kept, varies, w.scaled, reaches, w.targets[key], seen,
                     w.units[key, 1], w.task)  # fmt: skip
