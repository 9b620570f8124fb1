"""Bayesian linear heads on hat-basis inputs: exact after every row, with forgetting.

What a row says replaces what earlier rows said of the same direction of the inputs, and of no
other: inputs that are not shown are not forgotten (directional forgetting, Kulhavy 1987,
Automatica 23). Along a row x with covariance P and r = x'Px it leaves r / (1 + r) / lambda. A row
is of one direction out of d: for a memory of so many rows, lambda is 1 - d / rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from streammeta.experts.family import Floats, Stacked, World
from streammeta.experts.hat_kernels import FEWEST_KNOTS, encode, find_knots, softmax
from streammeta.experts.kernels import REGRESSION

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

#: Rows that a head remembers, and the least that is left of what it knew of a direction.
MEMORIES, LEFT = (10_000, 1_000), 0.5
RIDGE = 1.0
#: Inputs that a head has room for, those that were first not 0; and hats of a column, fewer where
#: there are so many columns that they would not fit. Of more columns than that some are not read.
ROOM, BINS = 192, 10
#: Labels at which knots are put anew, then at each fourfold; the heads learn again what is kept.
RENEWED, TIMES = 64, 4
#: Bounds of how sharply classes are told apart, at birth, and the step by which it is learned.
SHARP_AT_BIRTH, SHARPEST, BLUNTEST, SHARPENING = 4.0, 20.0, 0.5, 0.01


@njit(cache=True, nogil=True, error_model="numpy")
def _inputs(
    raw: Floats, scaled: Floats, means: Floats, spreads: Floats, knots: Floats, n_knots: I64,
    slots: I64, places: I64, values: F32, grow: bool,
) -> int:  # fmt: skip
    """``places``, ``values`` <- the inputs of a row ``(D,)`` that a head has room for, a constant
    first: how many. ``slots[0]`` are taken; ``slots[1 + i]`` is that of input i, 0 where none."""
    n = encode(raw, scaled, means, spreads, knots, n_knots, places, values)
    kept = 0
    for i in range(n):
        slot = slots[1 + places[i]]
        if slot == 0 and grow and slots[0] < ROOM - 1:
            slots[0] += 1
            slot = slots[1 + places[i]] = slots[0]
        if slot > 0:
            places[kept], values[kept] = slot, values[i]
            kept += 1
    places[kept], values[kept] = 0, 1.0
    return kept + 1


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _say(weights: Floats, places: I64, values: F32, n: int, n_out: int, out: Floats) -> None:
    for k in range(n_out):
        total = 0.0
        for i in range(n):
            total += values[i] * weights[places[i], k]
        out[k] = total


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _learn(
    weights: Floats, cover: Floats, used: int, places: I64, values: F32, n: int, target: float,
    n_out: int, task: int, memory: float, said: Floats,
) -> None:  # fmt: skip
    """Recursive least squares with directional forgetting: ``weights (ROOM, O)``, covariance
    ``cover (ROOM, ROOM)``, of both the first ``used`` rows; ``said (O,)``: the answer before."""
    gain, spread = np.zeros(used), 0.0
    for i in range(n):
        row = cover[places[i]]
        for j in range(used):
            gain[j] += values[i] * row[j]
    for i in range(n):
        spread += values[i] * gain[places[i]]
    for k in range(n_out):
        truth = target if task == REGRESSION else (1.0 if k == int(target) else 0.0)
        step = (truth - said[k]) / (1.0 + spread)
        for j in range(used):
            weights[j, k] += step * gain[j]
    kept = max(1.0 - used / memory, LEFT) * (1.0 + spread)
    part = (kept - 1.0) / (kept * max(spread, 1e-12))
    for j in range(used):
        row, own = cover[j], part * gain[j]
        for k in range(used):
            row[k] -= own * gain[k]


@njit(cache=True, nogil=True, error_model="numpy")
def _probabilities(said: Floats, sharp: float, n_out: int, out: Floats) -> None:
    for k in range(n_out):
        out[k] = sharp * said[k]
    softmax(out, n_out)


@njit(cache=True, nogil=True, error_model="numpy")
def predict_heads(
    weights: Floats, sharp: Floats, slots: I64, raw: Floats, scaled: Floats, means: Floats,
    spreads: Floats, knots: Floats, n_knots: I64, n_out: int, task: int, out: Floats,
) -> None:  # fmt: skip
    """``out (n, E, O)`` <- what heads ``weights (E, ROOM, O)`` say to raw rows ``(n, D)``."""
    places = np.empty(3 * raw.shape[1] + 1, np.int64)
    values = np.empty(3 * raw.shape[1] + 1, np.float32)
    said = np.empty(weights.shape[2])
    for r in range(len(raw)):
        n = _inputs(raw[r], scaled, means, spreads, knots, n_knots, slots, places, values, False)
        for e in range(len(weights)):
            _say(weights[e], places, values, n, n_out, said)
            if task == REGRESSION:
                out[r, e, 0] = said[0]
            else:
                _probabilities(said, sharp[e], n_out, out[r, e])


@njit(cache=True, nogil=True, error_model="numpy")
def learn_heads(
    weights: Floats, cover: Floats, sharp: Floats, slots: I64, memories: Floats, raw: Floats,
    target: float, scaled: Floats, means: Floats, spreads: Floats, knots: Floats, n_knots: I64,
    n_out: int, task: int,
) -> None:  # fmt: skip
    """One row ``(D,)``, and a step of how sharp the heads are on their log loss of it."""
    places, values = np.empty(3 * len(raw) + 1, np.int64), np.empty(3 * len(raw) + 1, np.float32)
    said, p = np.empty(weights.shape[2]), np.empty(weights.shape[2])
    n = _inputs(raw, scaled, means, spreads, knots, n_knots, slots, places, values, True)
    for e in range(len(weights)):
        _say(weights[e], places, values, n, n_out, said)
        if task != REGRESSION:
            _probabilities(said, sharp[e], n_out, p)
            slope = said[int(target)]
            for k in range(n_out):
                slope -= p[k] * said[k]
            sharp[e] = min(
                max(sharp[e] * np.exp(SHARPENING * sharp[e] * slope), BLUNTEST), SHARPEST
            )
        _learn(weights[e], cover[e], slots[0] + 1, places, values, n, target, n_out, task,
               memories[e], said)  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def renew_heads(
    weights: Floats, cover: Floats, sharp: Floats, slots: I64, memories: Floats, rows: Floats,
    targets: Floats, scaled: Floats, means: Floats, spreads: Floats, knots: Floats, n_knots: I64,
    n_out: int, task: int,
) -> None:  # fmt: skip
    """Knots at quantiles of ``rows (n, D)``, and everything learned again from them."""
    for c in range(len(knots)):
        if scaled[c] != 0.0:
            found = find_knots(rows[:, c].copy(), knots.shape[1], knots[c])
            n_knots[c] = found if found >= FEWEST_KNOTS else 0
    weights[:], cover[:], slots[:], sharp[:] = 0.0, 0.0, 0, SHARP_AT_BIRTH
    for j in range(cover.shape[1]):
        cover[:, j, j] = 1.0 / RIDGE
    for i in range(len(rows)):
        learn_heads(weights, cover, sharp, slots, memories, rows[i], targets[i], scaled, means,
                    spreads, knots, n_knots, n_out, task)  # fmt: skip


class Heads(Stacked):
    """Ridge regression of the value, or of each class against the others, on hats.

    Args:
        width: raw columns.
        hatted: the first C of them are numbers, or may be.
        outputs: room for so many classes, 1 for values.
    """

    FIELDS = ("weights", "cover", "sharp", "slots", "knots", "n_knots")
    weights: Floats
    cover: Floats
    sharp: Floats
    slots: I64
    knots: Floats
    n_knots: I64

    def __init__(self, width: int, hatted: int, outputs: int) -> None:
        bins = min(BINS, (ROOM - 1 - width) // max(hatted, 1))
        self.bins = bins if bins >= FEWEST_KNOTS else 0
        self.inputs, self.hatted, self.outputs = width + hatted * self.bins, hatted, outputs
        self.names = tuple(f"head@{rows}" for rows in MEMORIES)
        self.memories = np.array(MEMORIES, np.float64)
        self._allocate()

    def _fresh(self) -> dict[str, NDArray[Any]]:
        heads = len(MEMORIES)
        return {
            "weights": np.zeros((heads, ROOM, self.outputs)),
            "cover": np.tile(np.eye(ROOM) / RIDGE, (heads, 1, 1)),
            "sharp": np.full(heads, SHARP_AT_BIRTH),
            "slots": np.zeros(1 + self.inputs, np.int64),
            "knots": np.zeros((self.hatted, self.bins)),
            "n_knots": np.zeros(self.hatted, np.int64),
        }

    def predict(self, key: int, raw: Floats, world: World, out: Floats) -> None:
        """``out (n, m, O)`` <- what each head says to raw rows ``(n, D)``."""
        predict_heads(
            self.weights[key], self.sharp[key], self.slots[key], raw, world.scaled, world.means,
            world.spreads, self.knots[key], self.n_knots[key], world.n_classes, world.task, out,
        )  # fmt: skip

    def learn(self, key: int, world: World) -> None:
        """The newest row; where knots are due for renewal, all rows that are kept."""
        own = (self.weights[key], self.cover[key], self.sharp[key], self.slots[key])
        read = (world.scaled, world.means, world.spreads, self.knots[key], self.n_knots[key])
        size = len(world.rows)
        if _due(world.seen):
            kept = np.arange(max(0, world.seen - size), world.seen) % size
            targets = (world.targets[kept] - world.centre) / world.scale
            renew_heads(*own, self.memories, world.rows[kept], targets, *read, world.n_classes,
                        world.task)  # fmt: skip
            return
        newest = (world.seen - 1) % size
        target = (world.targets[newest] - world.centre) / world.scale
        learn_heads(*own, self.memories, world.rows[newest], target, *read, world.n_classes,
                    world.task)  # fmt: skip

    def seed_class(self, index: int) -> None:
        """Of a new class nothing is known: its weights are 0."""

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""
        more = ((0, 0), (0, 0), (0, 0), (0, outputs - self.outputs))
        self.weights, self.outputs = np.pad(self.weights, more), outputs


def _due(count: int) -> bool:
    """Whether ``count`` is ``RENEWED`` times a power of ``TIMES``."""
    while count > RENEWED and count % TIMES == 0:
        count //= TIMES
    return count == RENEWED
