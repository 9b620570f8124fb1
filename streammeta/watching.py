"""What the detectors are shown, and what an alarm is about."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drift import Alarm, Explanation, features_that_moved
from streammeta.events import Label
from streammeta.experts.kernels import REGRESSION
from streammeta.pending import Asked
from streammeta.scores import FROZEN_EVERY
from streammeta.state import State
from streammeta.units import units

Floats = NDArray[np.float64]
#: Questions of a key that wait for their labels from which on labels count as late.
LATE = 100
#: Labelled rows of a segment at which it may have doubled its length: every so many.
LOOKED = 16
#: 2**32 over the golden ratio: multiples of it are spread evenly over 32 bits, whatever the step.
SPREAD = 0x9E3779B1


def loss_of(prediction: Label | None, label: Label, task: int) -> float:
    """Absolute error, or 1 for a wrong class and 0 for the right one."""
    if task == REGRESSION:
        return abs(float(label) - float(prediction or 0.0))
    return 0.0 if prediction == label else 1.0


def late(state: State, key: int) -> bool:
    """Whether the labels of a key lag behind."""
    return state.pending.waiting(key) >= LATE


def look(state: State, asked: Asked) -> Alarm | None:
    """Show a question to the detectors that need no label."""
    segmenter = state.segmenters[asked.key]
    if not segmenter.look_due() or state.config.on_drift == "ignore":
        return None
    features = asked.raw[: state.columns.width]
    return segmenter.look(asked.row, features, asked.steady, late=late(state, asked.key))


def watched(state: State, asked: Asked) -> bool:
    """Whether the detectors are shown the loss: not of a question older than the segment."""
    current: bool = asked.row >= state.segment_start[asked.key]
    return current and state.config.on_drift != "ignore"


def watch(state: State, asked: Asked, loss: float, more: Sequence[float]) -> Alarm | None:
    """Show the loss of the mixture without its scouts to the detectors, and what else votes
    (``drift.watch.VOTERS``).

    A known drift goes before them: it is due while the key's segment began before it.
    """
    key = asked.key
    start = int(state.segment_start[key])
    segmenter = state.segmenters[key]
    known = state.config.known_drifts
    passed = bisect_right(known, asked.row) if known else 0
    if not known or not passed or known[passed - 1] <= start:
        return segmenter.update(asked.row, loss, more, late=late(state, key))
    alarm = segmenter.told(asked.row, known[passed - 1])
    segmenter.update(asked.row, loss)  # in its warm-up: never an alarm
    return alarm


def freeze(state: State, key: int, age: int) -> None:
    """Freeze the best network of a segment that has doubled its length, and has ``age`` labelled
    rows now, as the reference."""
    references = state.references
    if age % LOOKED:
        return
    segmenter = state.segmenters[key]
    if not references.due(key, age) or not segmenter.looks or segmenter.suspects:
        return  # while a change is suspected the old reference is the witness
    bank = state.bank
    own = slice(bank.scouts.start)
    if not bank.live[key, own].any():
        return  # nobody can be frozen
    weights = np.where(bank.live[key, own], state.log_weights[key, own], -math.inf)
    best = bank.theta[key, int(weights.argmax())]
    references.freeze(
        key, best, state.means[key], state.spreads[key], state.scaled, age, state.n_classes,
        units(state, key),
    )  # fmt: skip
    segmenter.renew_reference()


def compared(row: int) -> bool:
    """Whether a row is shown to the frozen network, for comparison: one in ``FROZEN_EVERY``, at no
    step that keys in turn or a season could share (multiplicative hashing, Knuth, TAOCP 3, 6.4)."""
    return (row * SPREAD & 0xFFFFFFFF) * FROZEN_EVERY < 1 << 32


def frozen_loss(state: State, asked: Asked, target: float) -> float | None:
    """The loss, as ``loss_of``, of the network that was frozen in the segment before the last drift
    (in this one, while there was no other): what not adapting would cost. ``None`` for most rows,
    and while there is no such network."""
    if not compared(asked.row):
        return None
    return state.references.frozen_loss(asked.key, asked.raw, target)


# -- explanations ----------------------------------------------------------------------------


def explain(state: State, key: int, alarm: Alarm, onset: int) -> Explanation:
    """What moved at ``onset``, how fast, and whether it leads back to a past context; called
    before the rows of the old segment are given up."""
    rows, raw, y = state.segment_rows.all_inside(key)
    like = state.references.known(key, raw[rows >= onset], y[rows >= onset])
    if late(state, key):  # the rows behind the onset have no label yet
        waiting = state.pending.of_key(key)
        rows = np.concatenate((rows, [question.row for question in waiting]))
        raw = np.concatenate((raw, [question.raw for question in waiting]))
    new = rows >= onset
    before, after = (state.columns.by_name(raw[side]) for side in (~new, new))
    moved, sizes = features_that_moved(before, after), (int((~new).sum()), int(new.sum()))
    shape = "" if not alarm.votes else "gradual" if alarm.width else "abrupt"
    context = "" if like is None else "new" if like < 0 else "known"
    same = like if context == "known" else None
    return Explanation(alarm.votes, moved, sizes, shape, alarm.width, context, same)
