"""Bayesian linear heads: some forget, some know their segment alone, one reads no hats.

Of values they are exact after every row. Of classes what they say are logits, and a row is a step
of Newton's up its likelihood (an extended Kalman filter), as far as its label is thought to follow
a rule at all; all classes share one covariance, by a bound of the curvature.

What a row says replaces what earlier rows said of the same direction of the inputs, and of no
other: inputs that are not shown are not forgotten (directional forgetting, Kulhavy 1987,
Automatica 23). Along a row x with covariance P, r = x'Px and c the curvature of its likelihood (of
values 1) it leaves r / (1 + c r) / lambda. A row is of one direction out of d: for a memory of so
many rows, lambda is 1 - d / rows, of classes nearer to 1 the less the row tells.

Values are learned in units of the target, which move with every label. A head is linear, so it is
restated in the new ones exactly: what it has learned stays right (see ``_restate``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from streammeta.boxed import Box
from streammeta.experts.family import I64, Floats, Space, Stacked
from streammeta.experts.hat_kernels import FEWEST_KNOTS, encode, find_knots
from streammeta.experts.kernels import REGRESSION, softmax

F32 = NDArray[np.float32]

#: Rows that a head remembers (of classes more, where it is sure of them), and the least that is
#: left of what it knew of a direction.
MEMORIES, LEFT = (10_000, 1_000), 0.5
#: The two heads behind these begin anew with each segment and forget nothing. The second one reads
#: no hats.
OF_SEGMENT, PLAIN = len(MEMORIES), len(MEMORIES) + 1
RIDGE = 1.0
#: Inputs that a head has room for, those that were first not 0; and hats of a column, fewer where
#: there are so many columns that they would not fit. Of more columns than that some are not read.
ROOM, BINS = 192, 10
#: Labels at which knots are put anew, then at each fourfold; the heads learn again what is kept.
RENEWED, TIMES = 64, 4
#: What makes probabilities of what a head says is its link: by how much its logits are multiplied,
#: and the share of labels that follow no rule; at birth, and bounds. Were more labels thought to
#: stray, a head would believe itself and not those of a new concept. As it is, one that forgets
#: turns the more slowly the longer its world has lasted: those of the segment are who is quick.
SHARP, STRAY = 0, 1
LINK_AT_BIRTH, LEAST_LINK, MOST_LINK = (1.0, 0.02), (0.1, 1e-3), (10.0, 0.2)
#: Both are learned by steps of their logarithms, each slope divided by the sum of squares of all,
#: which begins at ``SQUARES``: the online Newton step (Hazan, Agarwal & Kale 2007, Machine Learning
#: 69), diagonal, with forgetting. However small slopes are, they go as far; a step is bounded.
SQUARES, FADES, LONGEST = 10.0, 0.998, 0.2
#: The least curvature of a label's likelihood, by which covariances stay bounded; and that of a row
#: which makes forget as much as one of a value does: less where a row tells less.
FLATTEST, TELLS_ALL = 1e-3, 0.25


@njit(cache=True, nogil=True, error_model="numpy")
def _inputs(
    raw: Floats, scaled: Floats, means: Floats, spreads: Floats, knots: Floats, n_knots: I64,
    slots: I64, places: I64, values: F32, grow: bool,
) -> tuple[int, int]:  # fmt: skip
    """``places``, ``values`` <- the inputs of a row ``(D,)`` that a head has room for, a constant
    first and hats last: how many, and how many of them are no hats. ``slots[0]`` are taken;
    ``slots[1 + i]`` is that of input i, 0 where none."""
    found, read = np.empty_like(places), np.empty_like(values)
    n = encode(raw, scaled, means, spreads, knots, n_knots, found, read)
    hatted, of_column = len(knots), 1 + knots.shape[1]
    places[0], values[0] = 0, 1.0
    kept = lines = 1
    for hats in (False, True):
        for i in range(n):
            if hats != (found[i] < hatted * of_column and found[i] % of_column != 0):
                continue
            slot = slots[1 + found[i]]
            if slot == 0 and grow and slots[0] < ROOM - 1:
                slots[0] += 1
                slot = slots[1 + found[i]] = slots[0]
            if slot > 0:
                places[kept], values[kept] = slot, read[i]
                kept += 1
        if not hats:
            lines = kept
    return kept, lines


@kernel(fastmath=True)
def _say(weights: Floats, places: I64, values: F32, n: int, n_out: int, out: Floats) -> None:
    for k in range(n_out):
        total = 0.0
        for i in range(n):
            total += values[i] * weights[places[i], k]
        out[k] = total


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _learn(
    weights: Floats, cover: Floats, used: int, places: I64, values: F32, n: int, gaps: Floats,
    curved: float, forgets: float,
) -> None:  # fmt: skip
    """A Newton step with directional forgetting: ``weights (ROOM, O)``, covariance ``cover (ROOM,
    ROOM)``, of both the first ``used`` rows; ``gaps (O,)``: the slopes of the log likelihood by
    what is said, and how ``curved`` it is there. For values that is recursive least squares."""
    gain, spread = np.zeros(used), 0.0
    for i in range(n):
        row = cover[places[i]]
        for j in range(used):
            gain[j] += values[i] * row[j]
    for i in range(n):
        spread += values[i] * gain[places[i]]
    for k in range(len(gaps)):
        step = gaps[k] / (1.0 + curved * spread)
        for j in range(used):
            weights[j, k] += step * gain[j]
    forgotten = used * forgets * min(1.0, curved / TELLS_ALL)
    kept = max(1.0 - forgotten, LEFT) * (1.0 + curved * spread)
    part = (kept - 1.0) / (kept * max(spread, 1e-12))
    for j in range(used):
        if gain[j] == 0.0:  # an input that this head does not read
            continue
        row, own = cover[j], part * gain[j]
        for k in range(used):
            row[k] -= own * gain[k]


@kernel()
def _probabilities(said: Floats, link: Floats, n_out: int, out: Floats) -> None:
    """``out (O,)`` <- a softmax, as sharp as ``link`` says, but for labels that stray."""
    for k in range(n_out):
        out[k] = link[SHARP] * said[k]
    softmax(out, n_out)
    for k in range(n_out):
        out[k] = (1.0 - link[STRAY]) * out[k] + link[STRAY] / n_out


@kernel()
def _slopes(link: Floats, said: Floats, p: Floats, truth: int, n_out: int) -> tuple[float, float]:
    """Of the log likelihood of a label, by the logarithms of sharpness and share of strays;
    ``p (O,)``: the probabilities of ``said (O,)``."""
    sharp, stray, centre = link[SHARP], link[STRAY], 0.0
    for k in range(n_out):
        centre += (p[k] - stray / n_out) / (1.0 - stray) * said[k]
    by_rule = (p[truth] - stray / n_out) / p[truth]  # the share of p that is no stray
    return sharp * by_rule * (said[truth] - centre), 1.0 - by_rule / (1.0 - stray)


@kernel()
def _learn_link(link: Floats, said: Floats, p: Floats, truth: int, n_out: int) -> None:
    """A step up the likelihood of a label; ``link (4,)``, the squares of slopes last."""
    for i, slope in enumerate(_slopes(link, said, p, truth, n_out)):
        link[2 + i] = FADES * link[2 + i] + slope * slope
        step = min(max(slope / link[2 + i], -LONGEST), LONGEST)
        link[i] = min(max(link[i] * np.exp(step), LEAST_LINK[i]), MOST_LINK[i])


@njit(cache=True, nogil=True, error_model="numpy")
def predict_heads(
    weights: Floats, links: Floats, slots: I64, raw: Floats, scaled: Floats, means: Floats,
    spreads: Floats, knots: Floats, n_knots: I64, n_out: int, task: int, plain: int, out: Floats,
    at: int,
) -> None:  # fmt: skip
    """``out (n, M, O)`` <- from row ``at`` on, what heads ``weights (E, ROOM, O)`` say to raw rows
    ``(n, D)``; head ``plain`` reads no hats."""
    places = np.empty(3 * raw.shape[1] + 1, np.int64)
    values = np.empty(3 * raw.shape[1] + 1, np.float32)
    said = np.empty(weights.shape[2])
    for r in range(len(raw)):
        n, lines = _inputs(
            raw[r], scaled, means, spreads, knots, n_knots, slots, places, values, False
        )
        for e in range(len(weights)):
            _say(weights[e], places, values, lines if e == plain else n, n_out, said)
            if task == REGRESSION:
                out[r, at + e, 0] = said[0]
            else:
                _probabilities(said, links[e], n_out, out[r, at + e])


@njit(cache=True, nogil=True, error_model="numpy")
def learn_heads(
    weights: Floats, cover: Floats, links: Floats, slots: I64, forgets: Floats, raw: Floats,
    target: float, scaled: Floats, means: Floats, spreads: Floats, knots: Floats, n_knots: I64,
    n_out: int, task: int, plain: int,
) -> None:  # fmt: skip
    """One row ``(D,)``, and of classes a step of ``links (E, 4)``; with a row heads forget the
    shares ``forgets (E,)`` of what they know, for each input. Head ``plain`` reads no hats; -1:
    none."""
    places, values = np.empty(3 * len(raw) + 1, np.int64), np.empty(3 * len(raw) + 1, np.float32)
    said, p = np.empty(weights.shape[2]), np.empty(weights.shape[2])
    gaps = np.empty(1 if task == REGRESSION else n_out)
    n, lines = _inputs(raw, scaled, means, spreads, knots, n_knots, slots, places, values, True)
    for e in range(len(weights)):
        read = lines if e == plain else n
        _say(weights[e], places, values, read, n_out, said)
        curved = 1.0
        if task == REGRESSION:
            gaps[0] = target - said[0]
        else:
            curved = _logistic(links[e], said, int(target), n_out, gaps)
            _probabilities(said, links[e], n_out, p)
            _learn_link(links[e], said, p, int(target), n_out)
        _learn(weights[e], cover[e], slots[0] + 1, places, values, read, gaps, curved, forgets[e])


@njit(cache=True, nogil=True, error_model="numpy")
def _logistic(link: Floats, said: Floats, truth: int, n_out: int, gaps: Floats) -> float:
    """``gaps (O,)`` <- the slopes of a label's log likelihood by logits ``said (O,)``, as far as
    the label is thought to follow the rule; and a bound of its curvature (Gershgorin). Sharpness
    corrects what is told, not what is learned."""
    top, mass = said[:n_out].max(), 0.0
    for k in range(n_out):
        gaps[k] = np.exp(said[k] - top)
        mass += gaps[k]
    own = (1.0 - link[STRAY]) * gaps[truth] / mass
    follows = own / (own + link[STRAY] / n_out)
    most = 0.0
    for k in range(n_out):
        share = gaps[k] / mass
        most = max(most, share * (1.0 - share))
        gaps[k] = follows * ((1.0 if k == truth else 0.0) - share)
    bound: float = max(2.0 * follows * most, FLATTEST)
    return bound


@kernel()
def _empty(weights: Floats, cover: Floats, links: Floats) -> None:
    """Heads that know nothing."""
    weights[:], cover[:] = 0.0, 0.0
    links[:, SHARP], links[:, STRAY] = LINK_AT_BIRTH
    links[:, 2:] = SQUARES
    for j in range(cover.shape[1]):
        cover[:, j, j] = 1.0 / RIDGE


@njit(cache=True, nogil=True, error_model="numpy")
def renew_heads(
    weights: Floats, cover: Floats, links: Floats, slots: I64, forgets: Floats, rows: Floats,
    targets: Floats, inside: int, scaled: Floats, means: Floats, spreads: Floats, knots: Floats,
    n_knots: I64, n_out: int, task: int,
) -> None:  # fmt: skip
    """Knots at quantiles of ``rows (n, D)``, and everything learned again from them; by the heads
    of the segment only from the newest ``inside``."""
    for c in range(len(knots)):
        if scaled[c] != 0.0:
            found = find_knots(rows[:, c].copy(), knots.shape[1], knots[c])
            n_knots[c] = found if found >= FEWEST_KNOTS else 0
    _empty(weights, cover, links)
    slots[:] = 0
    for i in range(len(rows)):
        end = len(weights) if i >= len(rows) - inside else OF_SEGMENT
        learn_heads(weights[:end], cover[:end], links[:end], slots, forgets[:end], rows[i],
                    targets[i], scaled, means, spreads, knots, n_knots, n_out, task,
                    PLAIN)  # fmt: skip


class _Table(NamedTuple):
    """``weights (K, E, ROOM, O)`` and covariances ``cover (K, E, ROOM, ROOM)`` of the heads, their
    ``links (K, E, 4)``; ``slots (K, 1 + N)`` of the inputs (``_inputs``); their ``knots (K, C,
    B)``, of which ``n_knots (K, C)`` are in use; centre and scale ``units (K, 2)`` in which values
    were learned."""

    weights: Floats
    cover: Floats
    links: Floats
    slots: I64
    knots: Floats
    n_knots: I64
    units: Floats


@njit(cache=True, nogil=True)
def _boxed(table: _Table) -> Box:
    return Box(table)  # type: ignore[no-untyped-call]


class Heads(Stacked[_Table]):
    """Ridge regression of the value, or logistic regression of the class, on hats.

    After a change a linear rule is known from little more rows than it has inputs, but not by who
    remembers the old one as well: so two know their segment alone, and forget nothing of it (but
    where knots are put anew, all heads learn again from the rows that are kept). Hats make eleven
    inputs of a column; one of the two reads none, and needs fewer rows for a line.
    """

    unread = ("cover",)

    def __init__(self, space: Space) -> None:
        width, hatted, outputs = space[:3]
        bins = min(BINS, (ROOM - 1 - width) // max(hatted, 1))
        self.bins = bins if bins >= FEWEST_KNOTS else 0
        self.inputs, self.hatted, self.outputs = width + hatted * self.bins, hatted, outputs
        self.names = (*(f"head@{rows}" for rows in MEMORIES), "head@segment", "head@line")
        self.forgets = np.zeros(len(self.names))
        self.forgets[:OF_SEGMENT] = 1.0 / np.array(MEMORIES)
        super().__init__()

    def _boxed(self, table: _Table) -> Box:
        found: Box = _boxed(table)
        return found

    def _fresh(self) -> _Table:
        heads = len(self.names)
        return _Table(
            np.zeros((heads, ROOM, self.outputs)),
            np.tile(np.eye(ROOM) / RIDGE, (heads, 1, 1)),
            np.tile([*LINK_AT_BIRTH, SQUARES, SQUARES], (heads, 1)),
            np.zeros(1 + self.inputs, np.int64),
            np.zeros((self.hatted, self.bins)),
            np.zeros(self.hatted, np.int64),
            np.array([0.0, 1.0]),
        )

    def predict(self, key: int, raw: Floats, world: Box, out: Floats, at: int) -> None:
        """``out (n, M, O)`` <- from row ``at`` on, what each head says to ``raw (n, D)``."""
        ask(self.box, world, key, raw, out, at)

    def learn(self, key: int, world: Box) -> None:
        """The newest row; where knots are due for renewal, all rows that are kept."""
        learn(self.box, world, key, self.forgets)

    def settle(self, key: int, world: Box) -> I64:
        """The heads of the segment begin anew with its rows."""
        _restart(self.box, world, key, self.forgets)
        return np.arange(OF_SEGMENT, len(self.names))

    def seed_class(self, index: int) -> None:
        """Of a new class nothing is known: its weights are 0."""

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""
        more = ((0, 0), (0, 0), (0, 0), (0, outputs - self.outputs))
        self.outputs = outputs
        self.table = self.table._replace(weights=np.pad(self.table.weights, more))


@njit(cache=True, nogil=True, error_model="numpy")
def ask(own: Box, world: Box, key: int, raw: Floats, out: Floats, at: int) -> None:
    t, w = own.of, world.of
    predict_heads(t.weights[key], t.links[key], t.slots[key], raw, w.scaled, w.means[key],
                  w.spreads[key], t.knots[key], t.n_knots[key], w.n_classes[0], w.task,
                  PLAIN, out, at)  # fmt: skip
    if w.task == REGRESSION and w.seen[key] >= RENEWED:
        centre, scale = t.units[key]
        for r in range(len(raw)):
            for e in range(at, at + t.weights.shape[1]):
                out[r, e, 0] = (scale * out[r, e, 0] + centre - w.units[key, 0]) / w.units[key, 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _restate(own: Box, world: Box, key: int) -> None:
    """All heads say the same in the units of now as they did in theirs; but of a young key, of
    whose values next to nothing is known, they are nearer to the mean of now."""
    t, w = own.of, world.of
    if w.task == REGRESSION and w.seen[key] > RENEWED:
        centre, scale = w.units[key]
        t.weights[key] *= t.units[key, 1] / scale
        t.weights[key, :, 0] += (t.units[key, 0] - centre) / scale
    t.units[key] = w.units[key]


@njit(cache=True, nogil=True, error_model="numpy")
def learn(own: Box, world: Box, key: int, forgets: Floats) -> None:
    t, w = own.of, world.of
    _restate(own, world, key)
    weights, cover, links, slots = t.weights[key], t.cover[key], t.links[key], t.slots[key]
    means, spreads, knots, n_knots = w.means[key], w.spreads[key], t.knots[key], t.n_knots[key]
    rows, targets, seen = w.rows[key], w.targets[key], w.seen[key]
    centre, scale = w.units[key]
    if _due(seen):
        kept = np.arange(max(0, seen - len(rows)), seen) % len(rows)
        renew_heads(weights, cover, links, slots, forgets, rows[kept],
                    (targets[kept] - centre) / scale, w.inside[key], w.scaled, means, spreads,
                    knots, n_knots, w.n_classes[0], w.task)  # fmt: skip
        return
    newest = (seen - 1) % len(rows)
    learn_heads(weights, cover, links, slots, forgets, rows[newest],
                (targets[newest] - centre) / scale, w.scaled, means, spreads, knots, n_knots,
                w.n_classes[0], w.task, PLAIN)  # fmt: skip


@kernel()
def _due(count: int) -> bool:
    """Whether ``count`` is ``RENEWED`` times a power of ``TIMES``."""
    while count > RENEWED and count % TIMES == 0:
        count //= TIMES
    return count == RENEWED


@njit(cache=True, nogil=True, error_model="numpy")
def _restart(own: Box, world: Box, key: int, forgets: Floats) -> None:
    t, w = own.of, world.of
    _restate(own, world, key)
    rows, targets, seen = w.rows[key], w.targets[key], w.seen[key]
    centre, scale = w.units[key]
    weights, cover = t.weights[key, OF_SEGMENT:], t.cover[key, OF_SEGMENT:]
    links = t.links[key, OF_SEGMENT:]
    _empty(weights, cover, links)
    links[:, STRAY] = t.links[key, 0, STRAY]  # of labels more than of a rule
    for i in range(max(0, seen - min(len(rows), w.inside[key])), seen):
        at = i % len(rows)
        learn_heads(weights, cover, links, t.slots[key], forgets[OF_SEGMENT:],
                    rows[at], (targets[at] - centre) / scale, w.scaled, w.means[key],
                    w.spreads[key], t.knots[key], t.n_knots[key], w.n_classes[0], w.task,
                    PLAIN - OF_SEGMENT)  # fmt: skip
