"""All members of a mixture in one call: asked, judged, taught.

A call from Python to compiled code costs as much as some of the members' work, and the Python
around it more. So what an event needs of the networks, of the families that are compiled, of the
mixtures and the pool stands here in three functions; families that are not compiled come between
the first and the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from streammeta.boxed import Box
from streammeta.encode import CLIP, MOMENT_FLOOR
from streammeta.experts import archive, hats, heads, memory, trees
from streammeta.experts.archive import Archive
from streammeta.experts.bank import ask_bank, learn_bank, rehearse
from streammeta.experts.family import Family, Space
from streammeta.experts.hats import Hats
from streammeta.experts.heads import Heads
from streammeta.experts.kernels import (
    REGRESSION,
    join_lags,
    judge_both,
    let_read,
    update_moments,
)
from streammeta.experts.memory import Memory
from streammeta.experts.trees import Trees
from streammeta.experts.wild import wildest
from streammeta.lags import AHEAD, READ, weigh
from streammeta.mixture import VARIANCE_FLOOR
from streammeta.pooling import SAID, STEADY, answer_members, judge_members, remember
from streammeta.replay import keep

Floats = NDArray[np.float64]
I64 = NDArray[np.int64]
F32 = NDArray[np.float32]

#: Families that are compiled, in the order in which ``Together`` has them.
NATIVE: tuple[type[Any], ...] = (Hats, Heads, Memory, Trees, Archive)
#: Columns that code the class of one lagged label (class index modulo this).
LAG_COLUMNS = 8
#: No value beyond those of the key by more than this share of their range is said, once there are
#: ``FEW``: what extrapolates wildly is no answer.
REACH, FEW = 0.25, 10
#: The scale of a target of which nothing is known yet.
UNKNOWN = 1.0
#: A key leans on what all keys have in common as if it had seen that many rows of theirs.
BORROWED = 4.0


class Frozen(NamedTuple):
    """What compiled code reads of ``streammeta.reference.References``."""

    theta: F32
    means: Floats
    spreads: Floats
    scaled: Floats
    about: Floats
    loss: Floats


class Together(NamedTuple):
    """Every table of a state, boxed: who is ``believed`` (``pooling.Beliefs``), the ``world``, the
    ``bank``, the ``frozen`` references, and the families in the order of ``NATIVE``, whose members
    begin at ``places (5,)``, -1 where there is no such family; then what those are made with.

    ``y_moments (K, 3)`` and ``pool_y (3,)``: count, mean and variance of the target, ``y_range
    (K, 2)``: the least and the greatest; ``scales (K,)``: the unit of members' variances, 0 before
    there is one; ``labels (K,)``: labelled rows of each segment;
    ``scouts (2,)``: the first one, and the first member behind them; ``worth (2,)`` of reading the
    ``lags`` labels that are in a row (``streammeta.lags``).
    """

    believed: Box
    world: Box
    bank: Box
    frozen: Box
    hats: Box
    heads: Box
    memory: Box
    trees: Box
    archive: Box
    places: I64
    hat_rates: F32
    hat_batches: I64
    hat_chances: int
    hat_inputs: int
    hat_reader: int
    first_label: int
    forgets: Floats
    reaches: I64
    total: float
    shelf_inputs: int
    y_moments: Floats
    pool_y: Floats
    y_range: Floats
    scales: Floats
    labels: I64
    scouts: I64
    worth: Floats
    lags: int
    chances: int
    rehearses: bool


@njit(cache=True, nogil=True)
def _boxed_frozen(table: Frozen) -> Box:
    return Box(table)  # type: ignore[no-untyped-call]


@njit(cache=True, nogil=True)
def _boxed(table: Together) -> Box:
    return Box(table)  # type: ignore[no-untyped-call]


class Native(NamedTuple):
    """The families that are compiled; of those that take no part one without keys."""

    hats: Hats
    heads: Heads
    memory: Memory
    trees: Trees
    archive: Archive

    @classmethod
    def among(cls, families: Sequence[Family], space: Space) -> Native:
        """Those of ``families``, the others fresh."""
        have: dict[type, Any] = {type(family): family for family in families}
        return cls(*(have[kind] if kind in have else kind(space) for kind in NATIVE))

    def places(self, families: Sequence[Family], first: int) -> I64:
        """Where the members of each begin ``(5,)`` if those of ``families`` begin at ``first``; -1
        of those that take no part."""
        found = np.full(len(self), -1)
        for family in families:
            if type(family) in NATIVE:
                found[NATIVE.index(type(family))] = first
            first += len(family.names)
        return found


def boxed_together(
    tables: tuple[Box, Box, Box], frozen: Frozen, native: Native, places: I64,
    arrays: tuple[Floats, Floats, Floats, Floats, I64, I64, Floats], lags: int, chances: int,
    rehearses: bool,
) -> Box:  # fmt: skip
    """For compiled code; ``tables``: ``believed``, ``world`` and ``bank``; ``arrays``:
    ``y_moments``, ``pool_y``, ``y_range``, ``scales``, ``labels``, ``scouts`` and ``worth``."""
    hat, head, near, tree, shelf = native
    y_moments, pool_y, y_range, scales, labels, scouts, worth = arrays
    made: Box = _boxed(Together(
        *tables, _boxed_frozen(frozen), hat.box, head.box, near.box, tree.box, shelf.box, places,
        hat.rates, hat.batches, hat.chances, hat.inputs, hat.reader, hat.first_label, head.forgets,
        near.reaches, float(near.total), shelf.inputs, y_moments, pool_y, y_range, scales, labels,
        scouts, worth, lags, chances, rehearses,
    ))  # fmt: skip
    return made


# -- questions -------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def ask(
    together: Box, key: int, features: Floats, leaning: Floats, many: bool, whole: bool,
    moving: int,
) -> tuple[Floats, Floats, Floats, float, float, I64]:  # fmt: skip
    """Rows ``raw (n, D)`` of ``features (n, F)`` and the labels before them, what every member says
    to them, ``(n, M, O)``, what is made of that, ``(n, SAID, O)`` (where this is the ``whole`` and
    nobody else is to be asked first), and centre and scale of the target.

    ``leaning (M,)``: log weights of the quick mixture; ``many``: whether the key has others to
    borrow from. By the first ``moving`` rows the running moments move, once all are answered;
    last, of each row, which column lies far out (``answer``).
    """
    t = together.of
    b, w = t.believed.of, t.world.of
    n, members, outputs = len(features), b.live.shape[1], t.bank.of.sizes[-1]
    raw = np.empty((n, w.means.shape[1]))
    for r in range(n):
        raw[r] = join_lags(features[r], b.lags[key], t.lags, raw.shape[1], LAG_COLUMNS, w.task)
    said, made = np.zeros((n, members, outputs)), np.zeros((n, SAID, outputs))
    find_units(together, key, many)
    if w.n_classes[0] > 0:
        ask_bank(t.bank, t.world, key, raw, said)
        if key < len(w.rows):
            _ask_families(together, key, raw, said)
    wild = np.full(n, -1)
    if whole:
        wild = answer(together, key, raw, leaning, moving, said, made)
    return raw, said, made, w.units[key, 0], w.units[key, 1], wild


@njit(cache=True, nogil=True, error_model="numpy")
def _ask_families(together: Box, key: int, raw: Floats, said: Floats) -> None:
    t = together.of
    places = t.places
    if places[0] >= 0:
        hats.ask(t.hats, t.world, key, t.hat_inputs, t.hat_reader, t.first_label, raw, said,
                 places[0])  # fmt: skip
    if places[1] >= 0:
        heads.ask(t.heads, t.world, key, raw, said, places[1])
    if places[2] >= 0:
        memory.ask(t.memory, t.world, key, t.reaches, raw, said, places[2])
    if places[3] >= 0:
        trees.ask(t.trees, t.world, key, raw, said, places[3])
    if places[4] >= 0:
        archive.ask(t.archive, t.world, key, t.shelf_inputs, raw, said, places[4])


@njit(cache=True, nogil=True, error_model="numpy")
def answer(
    together: Box, key: int, raw: Floats, leaning: Floats, moving: int, said: Floats, made: Floats
) -> I64:
    """``made (n, SAID, O)`` <- what mixtures and pool make of what members ``said (n, M, O)``;
    running moments move by the first ``moving`` rows, of each of which it is returned which column
    lies far outside of what is usual (``wild.wildest``; -1: none)."""
    t = together.of
    w = t.world.of
    if w.task == REGRESSION:
        bring_within_reach(together, key, said)
    if w.n_classes[0] > 0:
        answer_members(t.believed, t.world, key, leaning, t.scouts[0], t.scouts[1], said, made)
    wild = np.full(len(raw), -1)
    counts, means, spreads = w.counts[key], w.means[key], w.spreads[key]
    for r in range(min(moving, len(raw))):
        wild[r] = wildest(raw[r], w.scaled, counts, means, spreads)
        update_moments(raw[r], w.scaled, counts, means, spreads, MOMENT_FLOOR)
    return wild


@njit(cache=True, nogil=True, error_model="numpy")
def bring_within_reach(together: Box, key: int, said: Floats) -> None:
    """Values ``said (n, M, O)`` that lie too far from all that there have been are drawn back."""
    t = together.of
    if t.y_moments[key, 0] < FEW:
        return
    least, most = t.y_range[key]
    centre, scale = t.world.of.units[key]
    bottom = (least - REACH * (most - least) - centre) / scale
    top = (most + REACH * (most - least) - centre) / scale
    for r in range(said.shape[0]):
        for m in range(said.shape[1]):
            if said[r, m, 0] < bottom:  # what is not a number stays so
                said[r, m, 0] = bottom
            elif said[r, m, 0] > top:
                said[r, m, 0] = top


@njit(cache=True, nogil=True, error_model="numpy")
def find_units(together: Box, key: int, many: bool) -> None:
    """Centre and scale of the target, where the world has them: 0 and 1 for classes, running
    moments for numbers. Of ``many`` keys a young one borrows the others'."""
    t = together.of
    w = t.world.of
    if w.task != REGRESSION:
        return
    count, mean, variance = t.y_moments[key]
    if many:
        part = BORROWED / (count + BORROWED)
        mean = (1.0 - part) * mean + part * t.pool_y[1]
        variance = (1.0 - part) * variance + part * t.pool_y[2]
        count = t.pool_y[0]
    w.units[key, 0] = mean
    w.units[key, 1] = np.sqrt(variance) if count > 1.0 and variance > 0.0 else UNKNOWN


# -- labels ----------------------------------------------------------------------------------


@njit(cache=True, nogil=True, error_model="numpy")
def judge(
    together: Box, key: int, raw: Floats, said: Floats, births: I64, made: Floats, target: float,
    centre: float, scale: float, watched: bool,
) -> tuple[Floats, float, float, float]:  # fmt: skip
    """A label has come to a row ``(D,)``: each member's loss ``(M,)``, by what they ``said
    (M, O)``, who were born at ``births (M,)``; then, where the row is ``watched``, two losses of
    the quick mixture without its scouts and that of the reference (``kernels.judge_both``)."""
    t = together.of
    w, f = t.world.of, t.frozen.of
    losses = np.empty(len(said))
    if w.task != REGRESSION or scale != UNKNOWN:
        truth = (target - centre) / scale
        _weigh_labels(together, key, said, births, truth)
        judge_members(t.believed, t.world, key, said, births, made, truth, losses)
        losses *= scale
    else:  # nobody could know: nobody is believed the less for it
        live, born = t.believed.of.live[key], t.believed.of.births[key]
        for m in range(len(said)):
            awake = live[m] and births[m] == born[m]
            losses[m] = abs(target - said[m, 0] * scale - centre) if awake else np.nan
    first, second, third = np.nan, np.nan, np.nan
    if watched:
        first, second, third = judge_both(
            made[STEADY], centre, scale, w.n_classes[0], f.theta, t.bank.of.sizes, raw, f.scaled,
            f.means, f.spreads, CLIP, f.about, target, w.task, f.loss, key,
        )  # fmt: skip
    return losses, first, second, third


@njit(cache=True, nogil=True, error_model="numpy")
def _weigh_labels(together: Box, key: int, said: Floats, births: I64, truth: float) -> None:
    """Whether labels that have arrived are read follows from what the two networks said that differ
    in this alone. What is frozen goes on reading as it did."""
    t = together.of
    b, w, one = t.believed.of, t.world.of, t.places[0] + t.hat_reader
    if t.places[0] < 0 or t.first_label == len(w.scaled) or t.worth[AHEAD] == np.inf:
        return
    for m in range(one, one + 2):
        if not b.live[key, m] or births[m] != b.births[key, m]:
            return
    if weigh(t.worth, said[one], said[one + 1], b.variances[key, one : one + 2],
             b.ages[key, one : one + 2], truth, w.n_classes[0], w.task):  # fmt: skip
        let_read(w.scaled, t.first_label, w.task, t.worth[READ] != 0.0)


@njit(cache=True, nogil=True, error_model="numpy")
def learn(
    together: Box, key: int, row: int, raw: Floats, target: float, kept: bool, many: bool
) -> tuple[int, int]:
    """One step for all that learn online; a row that is ``kept``, of the current segment, is also
    learned by the families and may be rehearsed.

    How many labelled rows the segment has, and how many of those are in no closed task.
    """
    t = together.of
    w = t.world.of
    if w.task == REGRESSION:
        take_target(together, key, target, many)
    learn_bank(t.bank, t.world, key, raw, target)
    if kept:
        keep(t.bank, t.world, key, row, raw, target)
        t.labels[key] += 1
        if key < len(w.rows):
            _teach_families(together, key)
        if t.rehearses:
            rehearse(t.bank, t.world, key, t.chances)
    remember(t.believed, key, target, w.task != REGRESSION)
    return t.labels[key], t.bank.of.open[key]


@njit(cache=True, nogil=True, error_model="numpy")
def take_target(together: Box, key: int, target: float, many: bool) -> None:
    """Units move with a target; the variances of those who answer in them are restated."""
    t = together.of
    b, w = t.believed.of, t.world.of
    t.y_range[key, 0] = min(t.y_range[key, 0], target)
    t.y_range[key, 1] = max(t.y_range[key, 1], target)
    value, all_of = np.full(1, target), np.ones(1)
    for moments in (t.y_moments[key], t.pool_y):
        update_moments(value, all_of, moments[0:1], moments[1:2], moments[2:3], MOMENT_FLOOR)
    find_units(together, key, many)
    scale = w.units[key, 1]
    if scale == UNKNOWN:
        return
    if t.scales[key] > 0.0:
        ratio = (t.scales[key] / scale) ** 2
        for variances in (b.variances[key], b.voice_variances[key], b.trust_variances[key]):
            for m in range(len(variances)):
                variances[m] = max(ratio * variances[m], VARIANCE_FLOOR)
        b.guard_losses[key] *= np.sqrt(ratio)
        b.guard_gap[key] *= np.sqrt(ratio)
    t.scales[key] = scale


@njit(cache=True, nogil=True, error_model="numpy")
def _teach_families(together: Box, key: int) -> None:
    t = together.of
    places = t.places
    if places[0] >= 0:
        hats.learn(t.hats, t.world, key, t.hat_rates, t.hat_batches, t.hat_inputs, t.hat_reader,
                   t.first_label, t.hat_chances)  # fmt: skip
    if places[1] >= 0:
        heads.learn(t.heads, t.world, key, t.forgets)
    if places[2] >= 0:
        memory.learn(t.memory, t.world, key, t.reaches, t.total, t.first_label)
    if places[3] >= 0:
        trees.learn(t.trees, t.world, key)
