"""An archive of past segments: networks that know one each, never change, and always answer.

When a segment ends, a network on hat-basis inputs is fitted to its newest rows and put on a shelf,
with the moments, knots and units by which it reads and answers. If the old concept comes back, one
of the shelf is right from its first row on, and the mixtures hear it within tens of events.

The shelf keeps what differs: of a full one, and the newcomer, the two that say the most alike are
found, and the older of them goes. So a concept that has returned often takes one place, not all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from streammeta.boxed import Box
from streammeta.experts.family import I64, Floats, Space, Stacked
from streammeta.experts.hat_kernels import (
    at_birth,
    encode,
    learn_batch,
    predict_hats,
    renew_knots,
    room_for,
)
from streammeta.experts.hats import BINS, initial
from streammeta.experts.kernels import REGRESSION
from streammeta.meta.net import Net, refit

#: Places on the shelf, of which one is free for the next network; units of their hidden layer.
PLACES, HIDDEN = 7, 64
#: Fewest rows of a segment that is kept, and most rows of it that are looked at.
LEAST, MOST = 200, 4_000
#: A network is fitted in so many passes over its rows, in steps on so many rows each, of a size
#: that falls evenly from this one to 0.
PASSES, BATCH, RATE = 4, 16, 1e-2
#: Rows by which it is told who says the same.
PROBES = 256


class _Table(NamedTuple):
    """Networks ``theta (K, S, P)`` of S places, kept at the row ``kept (K, S)`` of the key, 0 where
    there is none; each reads columns where ``scaled``, by ``means`` and ``spreads (K, S, D)``, and
    ``knots (K, S, C, B)``, ``n_knots (K, S, C)``; it knows ``classes (K, S)`` of them, and answers
    in ``units (K, S, 2)``; of its labels a share of ``strays (K, S)`` follows no rule. ``ended (K,
    2)``: first row of a segment that waits to be fitted to, and the one behind its last; none where
    they are the same."""

    theta: NDArray[np.float32]
    kept: I64
    scaled: Floats
    means: Floats
    spreads: Floats
    knots: Floats
    n_knots: I64
    classes: I64
    units: Floats
    strays: NDArray[np.float32]
    ended: I64


@njit(cache=True, nogil=True)
def _boxed(table: _Table) -> Box:
    return Box(table)  # type: ignore[no-untyped-call]


class Archive(Stacked[_Table]):
    """Networks of past segments; the seed is of the weights from which they are fitted."""

    unread = ("ended",)

    def __init__(self, space: Space) -> None:
        width, hatted, outputs, task, seed = space[:5]
        self.stray = at_birth(task, space.doubt)
        self.width, self.hatted, self.seed = width, hatted, seed
        self.inputs = width + hatted * BINS
        self.net = Net((self.inputs, HIDDEN, outputs))
        self.names = tuple(f"archive-{place + 1}" for place in range(PLACES))
        super().__init__()

    def _boxed(self, table: _Table) -> Box:
        found: Box = _boxed(table)
        return found

    def _fresh(self) -> _Table:
        return _Table(
            np.zeros((PLACES, self.net.n_params), np.float32),
            np.zeros(PLACES, np.int64),
            np.zeros((PLACES, self.width)),
            np.zeros((PLACES, self.width)),
            np.zeros((PLACES, self.width)),
            np.zeros((PLACES, self.hatted, BINS)),
            np.zeros((PLACES, self.hatted), np.int64),
            np.zeros(PLACES, np.int64),
            np.zeros((PLACES, 2)),
            np.zeros(PLACES, np.float32),
            np.zeros(2, np.int64),
        )

    def awake(self, key: int) -> NDArray[np.bool_]:
        """Where on the shelf there is a network."""
        return np.asarray(self.table.kept[key] > 0)

    def predict(self, key: int, raw: Floats, world: Box, out: Floats, at: int) -> None:
        """``out (n, M, O)`` <- from row ``at`` on, what each network says to ``raw (n, D)``; an
        empty place says nothing, and its rows stay as they are."""
        ask(self.box, world, key, self.inputs, raw, out, at)

    def learn(self, key: int, world: Box) -> None:
        """What is on the shelf never changes."""

    def close(self, key: int, world: Box, ended: int) -> None:
        """The ``ended`` rows before the segment wait to be fitted to, if they are enough."""
        rows = min(ended, MOST)
        if rows >= LEAST:
            _note(self.box, world, key, rows)

    def settle(self, key: int, world: Box) -> I64:
        """A network of the rows that wait; in which place it stands ``(0 or 1,)``."""
        first, end = self.table.ended[key]
        if first == end:
            return np.empty(0, np.int64)
        start = initial(self.net, self.width, self.hatted, 1, self.seed)[0]
        place = _keep(self.box, world, key, self.inputs, start, self.stray)
        self.table.ended[key] = 0
        return np.full(1, place)

    def seed_class(self, index: int) -> None:
        """Networks of the past know no new class."""

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""
        wide = Net((self.inputs, HIDDEN, outputs))
        self.table = self.table._replace(theta=refit(self.table.theta, self.net, wide))
        self.net = wide


@njit(cache=True, nogil=True, error_model="numpy")
def ask(own: Box, world: Box, key: int, inputs: int, raw: Floats, out: Floats, at: int) -> None:
    t, w = own.of, world.of
    every = np.full(1, inputs)
    for s in range(t.kept.shape[1]):
        if t.kept[key, s] == 0:
            continue
        predict_hats(t.theta[key, s : s + 1], inputs, HIDDEN, every, raw, t.scaled[key, s],
                     t.means[key, s], t.spreads[key, s], t.knots[key, s], t.n_knots[key, s],
                     t.classes[key, s], w.task, t.strays[key, s : s + 1], out, at + s)  # fmt: skip
        if w.task == REGRESSION:
            centre, scale = w.units[key]
            for r in range(len(raw)):
                value = t.units[key, s, 0] + t.units[key, s, 1] * out[r, at + s, 0]
                out[r, at + s, 0] = (value - centre) / scale


@njit(cache=True, nogil=True, error_model="numpy")
def _read(rows: Floats, own: Box, world: Box, key: int, s: int, theta: NDArray[np.float32]) -> None:
    """How the network in place ``s`` reads its ``rows (n, D)``: by the moments of now; a column
    that does not vary says nothing, whatever it may be later."""
    t, w = own.of, world.of
    n_knots = t.n_knots[key, s]
    n_knots[:] = 0
    t.scaled[key, s], t.means[key, s] = w.scaled, w.means[key]
    t.spreads[key, s] = w.spreads[key]
    unused = np.zeros_like(theta)
    renew_knots(rows, w.scaled, t.knots[key, s], n_knots, theta.reshape(1, -1),
                unused.reshape(1, -1), HIDDEN)  # fmt: skip
    for c in range(rows.shape[1]):
        low, high = np.inf, -np.inf
        for value in rows[:, c]:
            if not np.isnan(value):
                low, high = min(low, value), max(high, value)
        if not low < high:
            t.scaled[key, s, c], t.means[key, s, c], t.spreads[key, s, c] = 1.0, 0.0, np.inf
            if c < len(n_knots):
                n_knots[c] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _fit(own: Box, world: Box, key: int, s: int, inputs: int, rows: Floats, truths: Floats) -> None:
    """Fit the network in place ``s``, from what its weights are, to ``rows (n, D)`` and ``truths
    (n,)``; each step is on rows from all over them."""
    t, w = own.of, world.of
    theta, n, width = t.theta[key, s], len(rows), 3 * rows.shape[1]
    outputs = (len(theta) - (inputs + 1) * HIDDEN) // (HIDDEN + 1)
    second = np.zeros_like(theta)
    places, values = np.empty((n, width), np.int64), np.empty((n, width), np.float32)
    counts = np.empty(n, np.int64)
    for i in range(n):
        counts[i] = encode(rows[i], t.scaled[key, s], t.means[key, s], t.spreads[key, s],
                           t.knots[key, s], t.n_knots[key, s], places[i], values[i])  # fmt: skip
    apart = n // BATCH
    steps = PASSES * apart
    room = room_for(inputs, HIDDEN, outputs, w.n_classes[0], (n // apart + 1) * width)
    strays = t.strays[key, s : s + 1]
    for step in range(steps):
        chosen = np.arange(step % apart, n, apart)
        rate = np.float32(RATE * (1.0 - step / steps))
        learn_batch(theta, second, step + 1, rate, inputs, outputs, room, places[chosen],
                    values[chosen], counts[chosen], truths[chosen], w.task, strays)  # fmt: skip


@kernel()
def most_alike(said: Floats, kept: I64) -> int:
    """Of the two members whose answers ``said (n, M, O)`` differ least, summed over rows and
    outputs, the one ``kept (M,)`` for longer."""
    members = said.shape[1]
    best, found = np.inf, 0
    for one in range(members):
        for other in range(one):
            gap = 0.0
            for r in range(len(said)):
                for k in range(said.shape[2]):
                    gap += abs(said[r, one, k] - said[r, other, k])
            if gap < best:
                best, found = gap, one if kept[one] < kept[other] else other
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _note(own: Box, world: Box, key: int, rows: int) -> None:
    """The ``rows`` before the segment wait, unless a longer segment does."""
    ended, w = own.of.ended[key], world.of
    end = w.seen[key] - w.inside[key]
    if rows >= ended[1] - ended[0]:
        ended[0], ended[1] = end - rows, end


@njit(cache=True, nogil=True, error_model="numpy")
def _keep(
    own: Box, world: Box, key: int, inputs: int, start: NDArray[np.float32], stray: float
) -> int:
    """Fit a network to the rows that wait, as far as they are still there, of whose labels a share
    of ``stray`` is thought to follow no rule at first; the place in which it stands. The last free
    place is cleared again for the next one."""
    t, w = own.of, world.of
    ring, seen, kept = w.rows[key], w.seen[key], t.kept[key]
    place = int(kept.argmin())
    slots = np.arange(max(t.ended[key, 0], seen - len(ring)), t.ended[key, 1]) % len(ring)
    rows, theta = ring[slots], start.copy()
    centre, scale = w.units[key]
    _read(rows, own, world, key, place, theta)
    t.theta[key, place], t.classes[key, place] = theta, w.n_classes[0]
    t.units[key, place], kept[place], t.strays[key, place] = w.units[key], seen, stray
    _fit(own, world, key, place, inputs, rows, (w.targets[key][slots] - centre) / scale)
    if kept.min() > 0:
        count = min(seen, len(ring))
        probes = ring[np.arange(0, count, max(1, count // PROBES))]
        said = np.zeros((len(probes), len(kept), w.n_classes[0]))
        ask(own, world, key, inputs, probes, said, 0)
        kept[most_alike(said, kept)] = 0
    return place
