"""Compiled networks on hat-basis inputs: most of them are zero, and cost nothing.

A number x of a column is coded by itself, standardised, and by hats: piecewise-linear bumps over
knots t_1 < ... < t_B that add up to 1, of which two at most are not 0. A unit that reads them is a
piecewise-linear function of the column, whose value at a knot is its weight; so knots can be moved
by reading the function at the new ones. Columns are inputs
``[x_0, hats of x_0, x_1, ..., then those without hats]``.

Networks have one hidden layer of ReLU units; parameters are flat: weights ``(N, H)``, bias
``(H,)``, weights ``(H, O)``, bias ``(O,)``. Steps are those of ``kernels.normalised_step``, and
touch only what has a gradient.

A network may doubt labels: a share of them follows no rule and is drawn evenly from all classes,
the others are as the network says (forward correction, Patrini et al. 2017, CVPR, of symmetric
noise). What contradicts it strongly then moves it little, so that a border between classes can be
sharp though some labels on either side of it are wrong. The share is learned with the rest.

What is compiled with ``fastmath`` calls nothing that looks for NaN: numba hands the option down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from streammeta.encode import CLIP
from streammeta.experts.kernels import (
    CLASSIFICATION,
    DECAY,
    EPS,
    HUBER,
    NOT_READ,
    draw_slots,
    softmax,
)

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: Rows of a segment before any is rehearsed, and labels from one rehearsal to the next.
ENOUGH, REST = 8, 2
#: Share of labels that stray, to a network which doubts: at birth, least and most; and by how much
#: of the way it goes to what one more label says of it.
AT_BIRTH, LEAST, MOST = np.float32(0.05), np.float32(0.001), np.float32(0.3)
HEARS = np.float32(0.005)
#: With fewer knots a column is read as it is.
FEWEST_KNOTS = 3
#: Share of the values beyond the first and the last knot.
BEYOND = 0.005


def at_birth(task: int, doubt: bool) -> float:
    """The share of labels that stray, to a network that may ``doubt``; values are never doubted."""
    return float(AT_BIRTH) if doubt and task == CLASSIFICATION else 0.0


@kernel()
def place_of(column: int, hatted: int, bins: int) -> int:
    """The first input of a column, of which the first ``hatted`` have ``bins`` hats."""
    return column * (1 + bins) if column < hatted else hatted * bins + column


@kernel()
def encode(
    raw: F64, scaled: F64, means: F64, spreads: F64, knots: F64, n_knots: I64, places: I64,
    values: F32,
) -> int:  # fmt: skip
    """The inputs of a raw row ``(D,)`` that are not 0: how many, their ``places``, which ascend,
    and ``values``, both ``(3 D,)``. ``knots (C, B)`` of the first C columns, ``n_knots (C,)`` of
    them in use."""
    hatted, bins = knots.shape
    n = 0
    for c in range(len(raw)):
        value = raw[c]
        if np.isnan(value) or scaled[c] == NOT_READ:
            continue
        z = value
        if scaled[c] != 0.0:
            z = (value - means[c]) / np.sqrt(spreads[c] + 1e-12)
        z = min(max(z, -CLIP), CLIP)
        place = place_of(c, hatted, bins)
        if z != 0.0:
            places[n], values[n] = place, z
            n += 1
        if c >= hatted or n_knots[c] < FEWEST_KNOTS:
            continue
        own, last = knots[c], n_knots[c] - 1
        low, high = 0, last
        while high - low > 1:
            middle = (low + high) // 2
            if value >= own[middle]:
                low = middle
            else:
                high = middle
        share = min(max((value - own[low]) / (own[high] - own[low]), 0.0), 1.0)
        if share < 1.0:
            places[n], values[n] = place + 1 + low, 1.0 - share
            n += 1
        if share > 0.0:
            places[n], values[n] = place + 1 + high, share
            n += 1
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def find_knots(column: F64, bins: int, out: F64) -> int:
    """``out (bins,)`` <- the values of ``column (n,)`` where they are few, else quantiles of it;
    how many there are."""
    ordered = np.sort(column[~np.isnan(column)])
    n = 0
    if bins < FEWEST_KNOTS:
        return 0
    for i in range(len(ordered)):
        if n == 0 or ordered[i] > out[n - 1]:
            if n == bins:
                break
            out[n] = ordered[i]
            n += 1
        if i == len(ordered) - 1:
            return n
    n = 0
    for k in range(bins if len(ordered) else 0):
        at = (BEYOND + (1.0 - 2.0 * BEYOND) * k / (bins - 1)) * (len(ordered) - 1)
        low = int(at)
        high = min(low + 1, len(ordered) - 1)
        value = ordered[low] + (at - low) * (ordered[high] - ordered[low])
        if n == 0 or value > out[n - 1]:
            out[n] = value
            n += 1
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def move_knots(weights: F32, old: F64, n_old: int, new: F64, n_new: int) -> None:
    """``weights (B, H)`` of one column's hats at ``old`` knots <- those of the same function at
    ``new`` ones; 0 where there were none."""
    before = weights[: len(old)].copy()
    weights[:] = 0.0
    if n_old < FEWEST_KNOTS:
        return
    low = 0
    for k in range(n_new):
        while low < n_old - 2 and old[low + 1] <= new[k]:
            low += 1
        share = min(max((new[k] - old[low]) / (old[low + 1] - old[low]), 0.0), 1.0)
        for j in range(weights.shape[1]):
            weights[k, j] = (1.0 - share) * before[low, j] + share * before[low + 1, j]


@njit(cache=True, nogil=True, error_model="numpy")
def renew_knots(
    rows: F64, scaled: F64, knots: F64, n_knots: I64, theta: F32, second: F32, hidden: int
) -> None:
    """Move the knots of every scaled column to quantiles of ``rows (n, D)``; what networks ``theta
    (E, P)`` compute there is kept, and so are the mean squares ``second`` of their gradients."""
    hatted, bins = knots.shape
    new = np.empty(bins)
    for c in range(hatted):
        if scaled[c] == 0.0:
            continue
        n = find_knots(rows[:, c].copy(), bins, new)
        if n < FEWEST_KNOTS:
            continue
        start = (c * (1 + bins) + 1) * hidden
        for e in range(len(theta)):
            for array in (theta, second):
                hats = array[e, start : start + bins * hidden].reshape(bins, hidden)
                move_knots(hats, knots[c], n_knots[c], new, n)
        knots[c, :n] = new[:n]
        n_knots[c] = n


@kernel(fastmath=True)
def _forward(
    theta: F32, inputs: int, places: I64, values: F32, n: int, turned: F32, h: F32, out: F32
) -> None:
    """Hidden units ``h (H,)`` and the first outputs ``out (o,)``; ``turned (o, H)``: the weights
    between them."""
    hidden, outputs = turned.shape[1], (len(theta) - (inputs + 1) * len(h)) // (len(h) + 1)
    bias = inputs * hidden
    first = theta[:bias].reshape(inputs, hidden)
    for j in range(hidden):
        h[j] = theta[bias + j]
    i = 0
    while i + 1 < n:  # two at a time: units are read and written half as often
        one, other = first[places[i]], first[places[i + 1]]
        a, b = values[i], values[i + 1]
        for j in range(hidden):
            h[j] += a * one[j] + b * other[j]
        i += 2
    if i < n:
        one, a = first[places[i]], values[i]
        for j in range(hidden):
            h[j] += a * one[j]
    for j in range(hidden):
        h[j] = max(h[j], np.float32(0.0))
    last = bias + hidden + hidden * outputs
    for k in range(len(out)):
        total = theta[last + k]
        for j in range(hidden):
            total += h[j] * turned[k, j]
        out[k] = total


@kernel(fastmath=True)
def _turn(theta: F32, start: int, outputs: int, turned: F32) -> None:
    """``turned (o, H)`` <- the weights ``(H, O)`` that stand at ``start``, of the first outputs."""
    for k in range(turned.shape[0]):
        for j in range(turned.shape[1]):
            turned[k, j] = theta[start + j * outputs + k]


@kernel()
def before(places: I64, n: int, end: int) -> int:
    """How many of the first ``n`` of ``places``, which ascend, lie before ``end``."""
    while n > 0 and places[n - 1] >= end:
        n -= 1
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def predict_hats(
    theta: F32, inputs: int, hidden: int, ends: I64, raw: F64, scaled: F64, means: F64,
    spreads: F64, knots: F64, n_knots: I64, n_out: int, task: int, strays: F32, out: F64, at: int,
) -> None:  # fmt: skip
    """``out (n, M, O)`` <- from row ``at`` on, what networks ``theta (E, P)`` with ``strays (E,)``
    say to raw rows ``(n, D)``, of which each reads the inputs before its own of ``ends (E,)``."""
    places, values = np.empty(3 * raw.shape[1], np.int64), np.empty(3 * raw.shape[1], np.float32)
    h, logits = np.empty(hidden, np.float32), np.empty(n_out, np.float32)
    turned, start = np.empty((len(theta), n_out, hidden), np.float32), (inputs + 1) * hidden
    for e in range(len(theta)):
        _turn(theta[e], start, (theta.shape[1] - start) // (hidden + 1), turned[e])
    for r in range(len(raw)):
        n = encode(raw[r], scaled, means, spreads, knots, n_knots, places, values)
        _say(theta, inputs, ends, places, values, n, turned, h, logits, task, strays, out[r, at:])


@kernel(fastmath=True)
def _say(
    theta: F32, inputs: int, ends: I64, places: I64, values: F32, n: int, turned: F32, h: F32,
    logits: F32, task: int, strays: F32, out: F64,
) -> None:  # fmt: skip
    """``out (E, O)`` <- what each network says to a row given by its ``n`` inputs."""
    one = np.float32(1.0)
    for e in range(len(theta)):
        read = before(places, n, ends[e])
        _forward(theta[e], inputs, places, values, read, turned[e], h, logits)
        if task == CLASSIFICATION:
            softmax(logits, len(logits))
            even = strays[e] / np.float32(len(logits))
            for k in range(len(logits)):
                logits[k] = even + (one - strays[e]) * logits[k]
        for k in range(len(logits)):
            out[e, k] = logits[k]


@kernel(fastmath=True)
def _step(theta: F32, second: F32, grad: F32, rate: np.float32, scale: np.float32) -> None:
    """``kernels.normalised_step`` with ``scale`` = 1 / correction."""
    rest = np.float32(1.0) - DECAY
    for k in range(len(theta)):
        g = grad[k]
        s = DECAY * second[k] + rest * g * g
        s = s if g != 0.0 else second[k]
        second[k] = s
        theta[k] -= rate * g / (np.sqrt(s * scale) + EPS)


class Room(NamedTuple):
    """Where ``learn_batch`` works, of batches of ``n`` rows with ``W`` inputs each at most:
    ``turned``, ``by_turned (o, H)``: weights behind the hidden units, and their slopes; ``grad``:
    all slopes behind the first layer; ``first (n W, H)``: those of the inputs that are ``touched
    (n W,)``; ``slot_of (inputs,)``: which of these each is, -1 for none; ``h``, ``delta (H,)``,
    ``out (o,)``: of one row."""

    turned: F32
    by_turned: F32
    grad: F32
    first: F32
    touched: I64
    slot_of: I64
    h: F32
    delta: F32
    out: F32


@njit(cache=True, nogil=True, error_model="numpy")
def room_for(inputs: int, hidden: int, outputs: int, n_out: int, most: int) -> Room:
    """For batches with ``most`` inputs in all, of which ``inputs`` differ at most."""
    behind, most = hidden + (hidden + 1) * outputs, min(most, inputs)
    return Room(
        np.empty((n_out, hidden), np.float32), np.empty((n_out, hidden), np.float32),
        np.empty(behind, np.float32), np.empty((most, hidden), np.float32),
        np.empty(most, np.int64), np.full(inputs, -1), np.empty(hidden, np.float32),
        np.empty(hidden, np.float32), np.empty(n_out, np.float32),
    )  # fmt: skip


@kernel(fastmath=True)
def follows(said: np.float32, n_out: int, stray: np.float32) -> np.float32:
    """The chance that a label of which a network has ``said`` how likely it is among those that
    follow the rule is one of these; by so much smaller are its slopes than if none strayed."""
    ruled = (np.float32(1.0) - stray) * said
    return ruled / (ruled + stray / np.float32(n_out))


@kernel(fastmath=True)
def hear(strays: F32, chance: np.float32) -> None:
    """``strays (1,)`` after a label that follows the rule by this ``chance``: a step of expectation
    maximisation."""
    found = strays[0] + HEARS * (np.float32(1.0) - chance - strays[0])
    strays[0] = min(max(found, LEAST), MOST)


@kernel(fastmath=True)
def learn_batch(
    theta: F32, second: F32, steps: int, rate: np.float32, inputs: int, outputs: int, room: Room,
    places: I64, values: F32, counts: I64, targets: F64, task: int, strays: F32,
) -> None:  # fmt: skip
    """The ``steps``-th step of one network ``(P,)`` on the mean gradient of rows given by their
    inputs: ``places (n, W)``, ``values (n, W)``, ``counts (n,)``, ``targets (n,)``. The first one
    tells of ``strays (1,)``; where that is 0, no label is doubted."""
    turned, by_turned, grad, first, touched, slot_of, h, delta, out = room
    n_out, hidden = turned.shape
    cut = inputs * hidden
    _turn(theta, cut + hidden, outputs, turned)
    by_turned[:] = np.float32(0.0)
    grad[:] = np.float32(0.0)
    share, n_touched, stray = np.float32(1.0 / len(counts)), 0, strays[0]
    for r in range(len(counts)):
        _forward(theta, inputs, places[r], values[r], counts[r], turned, h, out)
        weight = share
        if task == CLASSIFICATION:
            softmax(out, n_out)
            if stray > np.float32(0.0):
                chance = follows(out[int(targets[r])], n_out, stray)
                weight *= chance
                if r == 0:
                    hear(strays, chance)
            out[int(targets[r])] -= np.float32(1.0)
        else:
            out[0] = min(max(out[0] - np.float32(targets[r]), -HUBER), HUBER)
        delta[:] = np.float32(0.0)
        for k in range(n_out):
            gap = out[k] * weight
            grad[hidden + hidden * outputs + k] += gap
            for j in range(hidden):
                by_turned[k, j] += h[j] * gap
                delta[j] += turned[k, j] * gap
        for j in range(hidden):
            delta[j] = delta[j] if h[j] > np.float32(0.0) else np.float32(0.0)
            grad[j] += delta[j]
        for i in range(counts[r]):
            place, a = places[r, i], values[r, i]
            slot = slot_of[place]
            if slot < 0:
                slot = n_touched
                slot_of[place], touched[slot] = slot, place
                first[slot] = np.float32(0.0)
                n_touched += 1
            row = first[slot]
            for j in range(hidden):
                row[j] += a * delta[j]
    for k in range(n_out):
        for j in range(hidden):
            grad[hidden + j * outputs + k] = by_turned[k, j]
    scale = np.float32(1.0) / (np.float32(1.0) - DECAY ** np.float32(steps))
    for i in range(n_touched):
        at = touched[i] * hidden
        _step(theta[at : at + hidden], second[at : at + hidden], first[i], rate, scale)
        slot_of[touched[i]] = -1
    _step(theta[cut:], second[cut:], grad, rate, scale)


@njit(cache=True, nogil=True, error_model="numpy")
def learn_hats(
    theta: F32, second: F32, steps: I64, rates: F32, batches: I64, inputs: int, hidden: int,
    ends: I64, past: F64, past_y: F64, count: int, inside: int, scaled: F64, means: F64,
    spreads: F64, knots: F64, n_knots: I64, n_out: int, task: int, centre: float, scale: float,
    strays: F32, chances: int,
) -> None:  # fmt: skip
    """One step of each network ``theta (E, P)`` with ``strays (E,)`` on the newest row of ``past
    (R, D)`` and, of those with ``batches`` above 1, on so many, every ``REST``-th time: the others
    are drawn from the ``inside`` newest, as soon as there are ``ENOUGH``. Each reads the inputs
    before its own of ``ends (E,)``."""
    most, width = 1, 3 * past.shape[1]
    outputs = (theta.shape[1] - (inputs + 1) * hidden) // (hidden + 1)
    if inside >= ENOUGH and count % REST == 0:
        most = batches.max()
    places, values = np.empty((most, width), np.int64), np.empty((most, width), np.float32)
    counts, targets = np.empty(most, np.int64), np.empty(most)
    slots, read = np.empty(most, np.int64), np.empty(most, np.int64)
    draw_slots(chances, count, inside, len(past), slots)
    for i, slot in enumerate(slots):
        counts[i] = encode(past[slot], scaled, means, spreads, knots, n_knots, places[i], values[i])
        targets[i] = (past_y[slot] - centre) / scale
    room = room_for(inputs, hidden, outputs, n_out, most * width)
    for e in range(len(theta)):
        n = min(batches[e], most)
        if n < batches[e] and inside >= ENOUGH:
            continue
        steps[e] += 1
        for i in range(n):
            read[i] = before(places[i], counts[i], ends[e])
        learn_batch(theta[e], second[e], steps[e], rates[e], inputs, outputs, room, places[:n],
                    values[:n], read[:n], targets[:n], task, strays[e : e + 1])  # fmt: skip
