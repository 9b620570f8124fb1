"""Networks on hat-basis inputs: online at several rates, and one that rehearses its segment.

This one, and one of those online, doubt labels of classes (see ``hat_kernels``).

Two of them, the last, are like twins but for what they read: one all labels that have arrived, one
none. What the others read follows from which of both is ahead (``streammeta.lags``). Where no
labels are inputs there is only the first.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from drift.stacked import start_of
from streammeta.boxed import Box
from streammeta.experts.family import I64, Floats, Space, Stacked
from streammeta.experts.hat_kernels import (
    at_birth,
    learn_hats,
    place_of,
    predict_hats,
    renew_knots,
)
from streammeta.experts.kernels import NOT_READ, let_read
from streammeta.meta.net import Net, refit, seed_class

#: Step sizes of the networks that learn from each row once, of the one among them that doubts, of
#: those that rehearse the segment, and of the twins.
RATES, DOUBTING, REHEARSING, TWINS = (1e-3, 1e-2), 3e-3, (4e-3,), 3e-3
#: Rows of a step of those that rehearse: the newest, and others of the segment.
BATCH = 16
BINS, HIDDEN = 10, 64
#: Labels at which knots are put where the newest rows lie: the first times, and then every so many.
RENEWED, EVERY, LOOKED_AT = (64, 256, 1024), 2048, 2048
#: Of the initial weights behind the hidden units: an answer begins near even.
HEAD = 0.1


def initial(net: Net, width: int, hatted: int, networks: int, seed: int) -> NDArray[np.float32]:
    """Weights ``(networks, P)`` on ``width`` columns, of which the first ``hatted`` have hats.

    Those start at 0: a column is a straight line until it is known how it is not."""
    rng = np.random.default_rng(seed)
    inputs, hidden, outputs = net.sizes
    theta = np.zeros((networks, net.n_params), np.float32)
    linear = [place_of(c, hatted, BINS) for c in range(width)]
    cut = inputs * hidden
    for own in theta:
        first = own[:cut].reshape(inputs, hidden)
        first[linear] = rng.normal(0.0, np.sqrt(2.0 / max(4, width)), (width, hidden))
        head = own[cut + hidden : cut + hidden + hidden * outputs]
        head[:] = rng.normal(0.0, HEAD * np.sqrt(2.0 / hidden), len(head))
    return theta


class _Table(NamedTuple):
    """Networks ``theta (K, E, P)`` and the mean squares of their gradients, ``second``, after
    ``steps (K, E)``; the ``knots (K, C, B)`` that they read columns by, of which ``n_knots (K, C)``
    are in use; and the share of labels that stray, ``strays (K, E)``, to each that doubts."""

    theta: NDArray[np.float32]
    second: NDArray[np.float32]
    steps: I64
    knots: Floats
    n_knots: I64
    strays: NDArray[np.float32]


@njit(cache=True, nogil=True)
def _boxed(table: _Table) -> Box:
    return Box(table)  # type: ignore[no-untyped-call]


class Hats(Stacked[_Table]):
    """Networks on hat-basis inputs, stacked over keys; the seed is of their initial weights and of
    what is rehearsed."""

    unread = ("second", "steps")

    def __init__(self, space: Space) -> None:
        width, hatted, outputs, task, seed, replay, lagged, doubt = space
        self.width, self.hatted, self.seed = width, hatted, seed
        self.first_label = width - lagged
        self.chances = start_of(seed)
        self.inputs = width + hatted * BINS
        self.net = Net((self.inputs, HIDDEN, outputs))
        rehearsing = REHEARSING if replay else ()
        stray = at_birth(task, doubt)
        doubting = (DOUBTING,) if stray else ()
        twins = ("hat", "hat-bare") if lagged else ("hat",)
        networks = [(f"hat@{rate:g}", rate, 1, 0.0) for rate in RATES]
        networks += [(f"hat-doubting@{rate:g}", rate, 1, stray) for rate in doubting]
        networks += [(f"hat-replay@{rate:g}", rate, BATCH, stray) for rate in rehearsing]
        self.reader = len(networks)
        networks += [(f"{name}@{TWINS:g}", TWINS, 1, 0.0) for name in twins]
        self.names, rates, batches, strays = zip(*networks, strict=True)
        self.rates, self.batches = np.array(rates, np.float32), np.array(batches)
        self.strays = np.array(strays, np.float32)
        super().__init__()

    def _boxed(self, table: _Table) -> Box:
        found: Box = _boxed(table)
        return found

    def _fresh(self) -> _Table:
        shape = (len(self.rates), self.net.n_params)
        theta = initial(self.net, self.width, self.hatted, shape[0], self.seed)
        theta[self.reader :] = theta[self.reader]
        return _Table(
            theta,
            np.zeros(shape, np.float32), np.zeros(len(self.rates), np.int64),
            np.zeros((self.hatted, BINS)), np.zeros(self.hatted, np.int64), self.strays,
        )  # fmt: skip

    def predict(self, key: int, raw: Floats, world: Box, out: Floats, at: int) -> None:
        """``out (n, M, O)`` <- from row ``at`` on, what each network says to ``raw (n, D)``."""
        ask(self.box, world, key, self.inputs, self.reader, self.first_label, raw, out, at)

    def learn(self, key: int, world: Box) -> None:
        """One step of each network, on the newest row or on a batch of its segment."""
        learn(self.box, world, key, self.rates, self.batches, self.inputs, self.reader,
              self.first_label, self.chances)  # fmt: skip

    def seed_class(self, index: int) -> None:
        """Class ``index`` starts from the mean of the classes before it."""
        seed_class(self.table.theta, self.net, index)

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""
        wide = Net((self.inputs, HIDDEN, outputs))
        theta, second = (refit(a, self.net, wide) for a in (self.table.theta, self.table.second))
        self.table = self.table._replace(theta=theta, second=second)
        self.net = wide


@njit(cache=True, nogil=True, error_model="numpy")
def _views(
    scaled: Floats, bins: int, inputs: int, hatted: int, reader: int, networks: int,
    first_label: int, task: int,
) -> tuple[Floats, I64]:  # fmt: skip
    """``scaled (D,)`` with labels let read, and before which input each of the ``networks`` ends:
    the first twin reads labels, the second none, the others as ``scaled`` has it."""
    view, ends = scaled.copy(), np.full(networks, inputs)
    if first_label < len(scaled):
        let_read(view, first_label, task, True)
        label = place_of(first_label, hatted, bins)
        if scaled[first_label] == NOT_READ:
            ends[:reader] = label
        ends[reader + 1 :] = label
    return view, ends


@njit(cache=True, nogil=True, error_model="numpy")
def ask(
    own: Box, world: Box, key: int, inputs: int, reader: int, first_label: int, raw: Floats,
    out: Floats, at: int,
) -> None:  # fmt: skip
    t, w = own.of, world.of
    theta, knots = t.theta[key], t.knots[key]
    scaled, ends = _views(w.scaled, knots.shape[1], inputs, len(knots), reader, len(theta),
                          first_label, w.task)  # fmt: skip
    predict_hats(theta, inputs, HIDDEN, ends, raw, scaled, w.means[key], w.spreads[key], knots,
                 t.n_knots[key], w.n_classes[0], w.task, t.strays[key], out, at)  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def learn(
    own: Box, world: Box, key: int, rates: NDArray[np.float32], batches: I64, inputs: int,
    reader: int, first_label: int, chances: int,
) -> None:  # fmt: skip
    t, w = own.of, world.of
    theta, second, knots, n_knots = t.theta[key], t.second[key], t.knots[key], t.n_knots[key]
    rows, seen = w.rows[key], w.seen[key]
    scaled, ends = _views(w.scaled, knots.shape[1], inputs, len(knots), reader, len(theta),
                          first_label, w.task)  # fmt: skip
    due = seen % EVERY == 0
    for times in RENEWED:
        due = due or seen == times
    if due:
        newest = np.arange(max(0, seen - LOOKED_AT), seen) % len(rows)
        renew_knots(rows[newest], scaled, knots, n_knots, theta, second, HIDDEN)
    learn_hats(theta, second, t.steps[key], rates, batches, inputs, HIDDEN, ends, rows,
               w.targets[key], seen, w.inside[key], scaled, w.means[key], w.spreads[key], knots,
               n_knots, w.n_classes[0], w.task, w.units[key, 0], w.units[key, 1],
               t.strays[key], chances)  # fmt: skip
