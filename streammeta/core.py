"""The core: ``step(state, events, metas) -> (state, outputs)``.

It uses no clock, thread, file, socket, metric or global random numbers. It consumes the state
it is given (arrays are written in place); if it raises, reload the last commit.

Every question of the events is answered first, with the state as it was before any of their
labels; then the labels are scored and learned in order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drift import KNOWN, Alarm
from streammeta import challengers, mixture, pooling
from streammeta.encode import LARGEST, MOMENT_FLOOR
from streammeta.errors import RejectedEvent
from streammeta.events import (
    DriftDetected,
    Event,
    Label,
    LabelExpired,
    Output,
    Predicted,
    Rejected,
    Scored,
    TaskClosed,
)
from streammeta.experts import kernels
from streammeta.experts.bank import ask_bank, learn_bank, rehearse
from streammeta.experts.family import KEYS
from streammeta.experts.kernels import REGRESSION
from streammeta.meta.parameters import MetaParameters
from streammeta.pending import Asked
from streammeta.replay import keep
from streammeta.state import LAG_COLUMNS, State
from streammeta.units import inputs, standard_targets, units, update_target_moments
from streammeta.watching import explain, freeze, look, loss_of, watch

#: A task is closed this many rows late, so that an alarm can still cut it off at the onset.
HELD_BACK = 32


def step(
    state: State, events: Sequence[Event], metas: Sequence[MetaParameters]
) -> tuple[State, list[Output]]:
    """Answer and learn one chunk of events; ``metas`` is empty before the first event."""
    outputs: list[Output] = []
    refused: set[int] = set()
    asked = ask(state, events, refused, outputs)
    ahead = {question.id for question in asked if question is not None}
    for place, (event, question) in enumerate(zip(events, asked, strict=True)):
        if question is not None:
            ahead.discard(question.id)
        if event.y is None or place in refused:
            continue
        if question is None:
            # a label that stands before its question in the stream does not know it
            question = None if event.id in ahead else state.pending.take(event.id)
            if question is None:
                detail = f"label for id {event.id!r}: no question with this id is waiting"
                outputs.append(Rejected(event.id, "join", "unmatched_label", detail))
                continue
        answer(state, question, event.y, metas, outputs)
    for gone, reason in state.pending.expire(state.last_ts):
        name = state.key_names[gone.key]
        outputs.append(LabelExpired(gone.id, name, gone.row, reason))
    return state, outputs


# -- questions -------------------------------------------------------------------------------


def ask(
    state: State, events: Sequence[Event], refused: set[int], outputs: list[Output]
) -> list[Asked | None]:
    """Answer every question of the chunk with the state as it is; one batch for each key.

    The places of events that cannot be used go to ``refused``.
    """
    accepted: dict[int, list[tuple[int, int, NDArray[np.float64]]]] = {}
    waiting: set[str] = set()
    row = state.rows
    for place, event in enumerate(events):
        try:
            raw = accept(state, event, waiting)
        except RejectedEvent as reject:
            outputs.append(Rejected(event.id, "decode", reject.reason, reject.detail))
            refused.add(place)
            if reject.reason == "missing_target":
                give_up(state, event.id, outputs)
            continue
        advance(state, event.ts)
        if raw is not None:
            accepted.setdefault(state.key_index(event.key), []).append((place, row, raw))
            row += 1
            if event.y is None:
                waiting.add(event.id)
    asked: list[Asked | None] = [None] * len(events)
    if not accepted:
        return asked
    state.learn_columns()
    for key, rows in accepted.items():
        raws = np.array([raw for _, _, raw in rows])
        members, said, centre, scale = predict(state, key, raws)
        births = state.bank.births[key].copy()
        for i, (place, row, raw) in enumerate(rows):
            event = events[place]
            label = decide(state, said[i, pooling.ANSWER], centre, scale)
            asked[place] = Asked(
                event.id, key, row, event.ts, raw, members[i], births, label, said[i],
                centre, scale,
            )  # fmt: skip
    for event, question in zip(events, asked, strict=True):
        if question is None:
            continue
        state.rows += 1
        outputs.append(report(state, question, event.key))
        if event.y is None:
            state.pending.add(question)
        if not frozen(state):
            kernels.move_moments(state.world, question.key, question.raw, MOMENT_FLOOR)
            alarm = look(state, question)
            if alarm is not None:
                open_segment(state, question.key, alarm, outputs)
    return asked


def give_up(state: State, name: str, outputs: list[Output]) -> None:
    """The label of a waiting question will never come."""
    gone = state.pending.take(name)
    if gone is not None:
        key = state.key_names[gone.key]
        outputs.append(LabelExpired(gone.id, key, gone.row, "missing_target"))


def advance(state: State, ts: float | None) -> None:
    """Event time goes forward only, and never to where no clock can be."""
    if ts is not None and math.isfinite(ts) and (state.last_ts is None or ts > state.last_ts):
        state.last_ts = ts


def accept(state: State, event: Event, waiting: set[str]) -> NDArray[np.float64] | None:
    """The raw row of a question, ``None`` for a pure label; ``waiting``: asked in this chunk.

    Raises:
        RejectedEvent: the event cannot be used.
    """
    if event.error is not None:
        raise RejectedEvent(*event.error)
    if event.y is not None:
        check_label(state, event.y)
    if event.x is None:
        if event.y is None:
            raise RejectedEvent("malformed", f"event {event.id!r} has neither features nor label")
        return None
    if event.id in state.pending or event.id in waiting:
        detail = f"event {event.id!r}: a question with this id is waiting for its label"
        raise RejectedEvent("duplicate_id", detail)
    features = state.columns.row(event.x)
    if not state.allocated:
        state.allocate()
    return with_lags(state, state.key_index(event.key), features)


def check_label(state: State, label: object) -> None:
    """Refuse labels that the task cannot use."""
    if isinstance(label, (bool, int, float, np.integer, np.floating, np.bool_)):
        if not -LARGEST <= label <= LARGEST:  # refuses NaN as well
            raise RejectedEvent("not_finite", f"target is not a number within {LARGEST:g} of 0")
    elif state.task == REGRESSION or not isinstance(label, str):
        kind = "a number" if state.task == REGRESSION else "a string, number or boolean"
        raise RejectedEvent("wrong_type", f"target is {str(label)[:40]!r}, expected {kind}")


def with_lags(state: State, key: int, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features and then the labels that have arrived for this key, newest first."""
    raw: NDArray[np.float64] = kernels.join_lags(
        features, state.lags[key], state.config.lags, state.width, LAG_COLUMNS, state.task
    )
    return raw


def predict(
    state: State, key: int, raw: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    """Every member ``(n, M, O)`` and what is made of them ``(n, SAID, O)``, in units of (centre,
    scale)."""
    centre, scale = units(state, key)
    n, outputs = len(raw), state.net.sizes[-1]
    members = np.zeros((n, state.log_weights.shape[1], outputs))
    said = np.zeros((n, pooling.SAID, outputs))
    if state.n_classes == 0:
        return members, said, centre, scale
    world, scouts = state.world, state.bank.scouts
    ask_bank(state.experts, world, key, raw, members)
    if key < KEYS:
        place = len(state.bank.rates)
        for family in state.families:
            family.predict(key, raw, world, members, place)
            place += len(family.names)
    pooling.answer_members(
        state.beliefs, world, key, state.leaning(key), scouts.start, scouts.stop, members, said
    )
    return members, said, centre, scale


def decide(state: State, mixed: NDArray[np.float64], centre: float, scale: float) -> Label | None:
    """The class or the value that the mixture stands for; ``None`` before any label."""
    if state.task == REGRESSION:
        return float(centre + scale * mixed[0])
    if not state.classes:
        return None
    return state.classes[int(mixed[: len(state.classes)].argmax())]


def report(state: State, question: Asked, key: str) -> Predicted:
    """What the outside sees of an answered question."""
    probabilities = None
    if state.task != REGRESSION:
        probabilities = dict(zip(state.classes, question.mixed.tolist(), strict=False))
    return Predicted(
        question.id, key, question.row, question.ts, question.prediction, probabilities
    )


# -- answers ---------------------------------------------------------------------------------


def frozen(state: State) -> bool:
    """Whether all learning has stopped."""
    stop = state.config.freeze_at
    return stop is not None and state.rows > stop


def answer(
    state: State,
    question: Asked,
    label: Label,
    metas: Sequence[MetaParameters],
    outputs: list[Output],
) -> None:
    """A label has come: score, watch for drift, learn, close tasks, adapt challengers."""
    key = question.key
    if isinstance(label, np.generic):
        label = label.item()  # a snapshot is JSON, which knows no numpy
    learns = state.config.freeze_at is None or question.row < state.config.freeze_at
    known = label in state.class_index
    if state.task == REGRESSION:
        target = float(label)
    elif known or learns:
        target = float(state.add_class(label))
    else:
        target = -1.0
    scored = score(state, question, label, target, learns)
    outputs.append(scored)
    if learns:
        state.labels += 1
        alarm = watch(state, question, target)
        if alarm is not None:
            open_segment(state, key, alarm, outputs)
        added = learn(state, question, target)
        freeze(state, key)
        close_task(state, question, outputs)
        if metas:
            challengers.grow(state, key, question.row, metas, outputs)
            if added:
                challengers.scout(state, key, question.row, metas, outputs)
    if target >= 0 or state.task == REGRESSION:
        pooling.remember(state.beliefs, key, target, learns and state.task != REGRESSION)


def score(state: State, asked: Asked, label: Label, target: float, learns: bool) -> Scored:
    """Judge the prediction made then, and every member that was awake then."""
    key = asked.key
    loss = loss_of(asked.prediction, label, state.task)
    if state.task == REGRESSION:
        log_loss = loss * loss
    else:
        p = asked.mixed[int(target)] if 0 <= target < len(asked.mixed) else 0.0
        log_loss = -math.log(max(float(p), 1e-15))
    experts: dict[str, float] | None = None
    if learns:
        members, said = (
            fit_outputs(part, state.net.sizes[-1]) for part in (asked.members, asked.said)
        )
        losses = np.empty(len(members))
        before = state.log_weights[key].copy() if len(state.keys) > 1 else None
        truth = (target - asked.centre) / asked.scale
        pooling.judge_members(
            state.beliefs, state.world, key, members, asked.births, said, truth, losses
        )
        if before is not None:
            heard = state.bank.live[key] & (asked.births == state.bank.births[key])
            gained = state.log_weights[key] - mixture.DISCOUNT * before
            pool = (mixture.DISCOUNT * state.pool_weights + gained)[heard]
            state.pool_weights[heard] = np.maximum(pool - pool.max(initial=-1e300), mixture.WORST)
        values = (losses * asked.scale).tolist()
        experts = {n: v for n, v in zip(state.member_names, values, strict=True) if v == v}
    delay = state.rows - 1 - asked.row
    name = state.key_names[key]
    return Scored(
        asked.id, name, asked.row, label, asked.prediction, loss, log_loss, delay, experts
    )


def fit_outputs(members: NDArray[np.float64], outputs: int) -> NDArray[np.float64]:
    """Predictions made when there was room for fewer classes, padded with zeros."""
    if members.shape[1] == outputs:
        return members
    return np.pad(members, ((0, 0), (0, outputs - members.shape[1])))


def learn(state: State, asked: Asked, target: float) -> bool:
    """One online step for every expert that learns, one rehearsal step for the replay experts.

    Returns whether the row is of the current segment, and was kept.
    """
    key = asked.key
    if state.task == REGRESSION:
        update_target_moments(state, key, target)
        units(state, key)
    learn_bank(state.experts, state.world, key, asked.raw, target)
    added = bool(asked.row >= state.segment_start[key])
    if added:
        keep(state.experts, state.world, key, asked.row, asked.raw, target)
        state.segment_labels[key] += 1
        if key < KEYS:
            for family in state.families:
                family.learn(key, state.world)
        if state.config.replay:
            rehearse(state.experts, state.world, key, state.chances)
    return added


# -- drift, tasks, adaptation ----------------------------------------------------------------


def open_segment(state: State, key: int, alarm: Alarm, outputs: list[Output]) -> None:
    """A new segment: cut the rows, and make room for challengers (or reset everything)."""
    onset = max(alarm.onset, int(state.segment_start[key]))
    explanation = None if alarm.detector == KNOWN else explain(state, key, alarm, onset)
    like = None if explanation is None else explanation.like
    state.references.close(key, int(state.segment[key]), like)
    state.segment[key] = alarm.segment
    state.segment_start[key] = onset
    state.segment_rows.cut(key, onset)
    if key < KEYS:
        before = int(state.past.inside[key])
        state.past.shorten(key, onset)
        if state.config.on_drift != "reset":  # which forgets everything
            challengers.close(state, key, before - int(state.past.inside[key]))
    state.segment_labels[key] = state.segment_rows.inside[key]
    state.hosts[key] = -1
    name = state.key_names[key]
    now = state.rows - 1  # later than the alarm's own row where labels are late
    outputs.append(
        DriftDetected(name, now, onset, alarm.segment, alarm.detector, alarm.signal, explanation)
    )
    if state.config.on_drift == "reset":
        state.start(key)


def close_task(state: State, asked: Asked, outputs: list[Output]) -> None:
    """Enough rows of one segment have come: they become a task for replay."""
    length = state.config.support + state.config.query
    rows, key = state.segment_rows, asked.key
    if rows.open[key] < length + HELD_BACK:
        return
    raw, y = rows.newest(key, int(rows.open[key]))
    rows.open[key] -= length
    raw, y = raw[:length], y[:length]
    sketch = state.sketch(inputs(state, key, raw), standard_targets(state, key, y))
    state.memory.add(key, raw, y, sketch, state.rng)
    segment = int(state.segment[key])
    outputs.append(TaskClosed(state.key_names[key], asked.row, segment, length))
