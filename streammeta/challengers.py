"""Who is adapted from the meta-parameters, and when: challengers after a drift, scouts always.

Two challengers join at every drift. The first is adapted again whenever the young segment has
grown enough, the second leaves early and rehearses the segment. Scouts stand by: whatever the
detectors say, each is adapted on the newest few rows, over and over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streammeta import mixture, pooling
from streammeta.events import Adapted, Output
from streammeta.experts import kernels
from streammeta.meta.learner import PlainSteps, RidgeHead
from streammeta.meta.parameters import MetaParameters
from streammeta.replay import SEGMENT_ROWS
from streammeta.state import State
from streammeta.units import inputs, standard_targets, units

#: A new segment's challenger is adapted again from the meta-parameters when this many labelled
#: rows are inside it; after the last it goes on learning by itself.
GROWTH = (
    1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 26, 32, 40, 50, 64, 80, 100, 128, 160, 200, 256, 320, 400,
    SEGMENT_ROWS,
)  # fmt: skip
#: Without a partner the first challenger learns on its own from this many rows on; no other looks
#: at more rows than these.
GROWN = 64
#: From this many rows on the second challenger leaves the first and learns on its own.
SETTLED = 16
#: What adapts by a plan.
COMPILED: dict[type, Any] = {PlainSteps: kernels.adapt_rows, RidgeHead: kernels.ridge_head}
#: Share of the mixture with which a scout starts.
SCOUT_SHARE = 0.01
#: Nats by which the quick mixture is ahead when something has stirred; in calm scouts adapt so many
#: times more rarely.
STIRRED, CALM = 0.5, 8


def adapt_now(
    state: State, key: int, metas: Sequence[MetaParameters], outputs: list[Output]
) -> None:
    """Somebody asks for it: newcomers take the two least useful slots, as at a drift."""
    state.hosts[key] = -1
    grow(state, key, state.rows - 1, metas, outputs, asked=True)


def grow(
    state: State,
    key: int,
    row: int,
    metas: Sequence[MetaParameters],
    outputs: list[Output],
    *,
    asked: bool = False,
) -> None:
    """Adapt from the meta-parameters whenever the young segment's support has grown enough, or
    when somebody ``asked`` for it."""
    inside = int(state.segment_labels[key])
    fresh = state.hosts[key, 0] < 0
    if len(state.bank.challengers) < 2 or inside == 0:
        return
    # a late label of an older segment does not let this one grow
    if not fresh and (inside not in GROWTH or row < state.segment_start[key]):
        return
    trigger = "growth"
    if fresh:
        trigger = "request" if asked else "drift" if state.segment[key] else "start"
        hire(state, key)
    bank = state.bank
    for host, (meta, until, then) in zip(state.hosts[key], plans(state, metas), strict=True):
        if not fresh and inside > until:
            continue
        raw, targets = state.segment_rows.newest(key, max(until, GROWN))
        x, y = inputs(state, key, raw), standard_targets(state, key, targets)
        start = random_start(state)
        theta = adapted(state, meta, x, y, start)
        if theta is None:
            if fresh:
                bank.live[key, host] = False  # what was there has been dismissed
            continue
        role = then if inside >= until else "waits"
        bank.place(key, int(host), theta, x, y, state.n_classes, role)
        start = meta.start if start is None else start
        outputs.append(told(state, key, row, trigger, int(host), x, y, start, theta))


def told(
    state: State,
    key: int,
    row: int,
    trigger: str,
    slot: int,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    start: NDArray[np.float32],
    theta: NDArray[np.float32],
) -> Adapted:
    """What the outside hears of an adaptation from ``start (P,)`` to ``theta (P,)``."""
    before, after = (
        kernels.mean_loss(weights, state.bank.sizes, x, y, state.n_classes, state.task)
        for weights in (start, theta)
    )
    segment, name = int(state.segment[key]), state.key_names[key]
    return Adapted(name, row, segment, state.bank.names[slot], trigger, len(x), before, after)


def plans(state: State, metas: Sequence[MetaParameters]) -> list[tuple[MetaParameters, int, str]]:
    """For both challengers of a drift: from which parameters, up to how many rows it is adapted
    again and again, and what it does from then on.

    The partner's keeps to its parameters as long as rows are kept; the learner's soon leaves.
    """
    grown = SEGMENT_ROWS if len(metas) > 1 else GROWN
    settled = "rehearses" if state.config.replay else "learns"
    learner, partner = (meta.matching(state.net, state.n_classes) for meta in (metas[0], metas[-1]))
    return [(partner, grown, "learns"), (learner, SETTLED, settled)]


def scout(
    state: State, key: int, row: int, metas: Sequence[MetaParameters], outputs: list[Output]
) -> None:
    """Adapt the scouts of a key on its newest rows, whatever their segment; the first time is told.

    Right after a change a scout's few rows are all of the new concept before any detector can
    know of it. That the quick mixture is ahead of the slow one is the first sign of it: then they
    adapt ``CALM`` times as often.
    """
    rows, windows = state.segment_rows, state.config.scouts
    scouts, every = state.bank.scouts, state.config.scout_every
    if not scouts or rows.count[key] % every:
        return
    voices, joined = state.voices[key], state.bank.live[key, scouts[-1]]
    calm = joined and voices[pooling.QUICK] - voices[pooling.SLOW] < STIRRED
    if calm and rows.count[key] % (CALM * every):
        return
    fitting = [meta.matching(state.net, state.n_classes) for meta in metas]
    for slot, (meta, window) in zip(scouts, product(fitting, windows), strict=False):
        raw, targets = rows.latest(key, window)
        x, y = inputs(state, key, raw), standard_targets(state, key, targets)
        start = random_start(state)
        theta = adapted(state, meta, x, y, start, few=True)  # no device is faster
        if theta is None:
            continue
        if not state.bank.live[key, slot]:
            enlist(state, key, slot)
            start = meta.start if start is None else start
            outputs.append(told(state, key, row, "scout", slot, x, y, start, theta))
        state.bank.place(key, slot, theta, x, y, state.n_classes, "waits")


def adapted(
    state: State,
    meta: MetaParameters,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    start: NDArray[np.float32] | None,
    *,
    few: bool = False,
) -> NDArray[np.float32] | None:
    """Fast weights ``(P,)`` for a support ``x (S, D)``, ``y (S,)``; ``None`` if not finite.

    Compiled on the CPU where the meta-parameters live there or the rows are ``few``, and the
    learner allows it: a test holds both ways together.
    """
    n_classes = state.n_classes
    plan = meta.plan(start) if few or meta.device.type == "cpu" else None
    if plan is None:
        theta, _ = meta.adapt(x, y, n_classes, start)
    else:
        theta = np.empty_like(plan.theta)
        COMPILED[type(plan)](*plan, state.bank.sizes, x, y, n_classes, state.task, theta)
    return theta if np.isfinite(theta).all() else None


def random_start(state: State) -> NDArray[np.float32] | None:
    """Random weights in the place of the meta-parameters, where the config wants those."""
    if state.config.challenger_init == "random":
        return state.net.init(state.rng)
    return None


def enlist(state: State, key: int, slot: int) -> None:
    """A scout joins the mixture with ``SCOUT_SHARE`` of the weight: it has proved nothing yet."""
    join(state, key, np.array([slot]), state.bank.live[key], SCOUT_SHARE)


def close(state: State, key: int, ended: int) -> None:
    """A segment with ``ended`` rows in the ring is over."""
    for family in state.families:
        family.close(key, state.world, ended)
    state.unsettled.add(key)


def settle(state: State) -> None:
    """What families have left to do since segments ended: some members may be others after it, and
    begin like scouts; some may have nothing more to say."""
    for key in sorted(state.unsettled):
        live, place = state.bank.live[key], len(state.bank.rates)
        units(state, key)  # which families read
        for family in state.families:
            born = place + family.settle(key, state.world)
            here = slice(place, place + len(family.names))
            if len(born):
                live[here] = family.awake(key)
                live[born] = False
                join(state, key, born, live, SCOUT_SHARE)
                live[born] = True
            place = here.stop
    state.unsettled.clear()


def hire(state: State, key: int) -> None:
    """Free the two least useful challenger slots; newcomers start with an even share."""
    slots = np.array(state.bank.challengers)
    standing = np.where(state.bank.live[key, slots], state.log_weights[key, slots], -np.inf)
    chosen = np.sort(slots[np.argsort(standing, kind="stable")[:2]])
    state.hosts[key] = chosen
    live = state.bank.live[key].copy()
    live[chosen] = False
    join(state, key, chosen, live, 1.0 / (live.sum() + 2))


def join(
    state: State, key: int, slots: NDArray[np.int64], live: NDArray[np.bool_], share: float
) -> None:
    """Newcomers in ``slots`` get a ``share`` of both mixtures beside those ``live (M,)``; the pool
    has yet to learn what to make of them."""
    for weights in (state.log_weights[key], state.slow_weights[key]):
        weights[:] = np.log(np.maximum(mixture.weights(weights, live), 1e-12))
        weights[slots] = math.log(share)
    state.exponents[key, slots] = 0.0
    state.squares[key, slots] = pooling.SQUARE_AT_BIRTH
    state.variances[key, slots] = mixture.VARIANCE_AT_BIRTH
    state.ages[key, slots] = 0
    state.bank.births[key, slots] = state.rows
