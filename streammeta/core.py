"""The core: ``step(state, events, metas) -> (state, outputs)``.

It uses no clock, thread, file, socket, metric or global random numbers. It consumes the state
it is given (arrays are written in place); if it raises, reload the last commit.

Every question of the events is answered first, with the state as it was before any of their
labels; then the labels are scored and learned in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from drift import KNOWN, Alarm
from streammeta import challengers, choosing, guard, mixture, pooling, together
from streammeta.encode import GRACE, LARGEST
from streammeta.errors import RejectedEvent
from streammeta.events import (
    DriftDetected,
    Event,
    Label,
    LabelExpired,
    Losses,
    Output,
    Predicted,
    Rejected,
    SchemaChanged,
    Scored,
    TaskClosed,
    Value,
)
from streammeta.experts.baselines import Answer
from streammeta.experts.family import KEYS
from streammeta.experts.kernels import REGRESSION
from streammeta.experts.wild import is_wild
from streammeta.meta.parameters import MetaParameters
from streammeta.pending import Asked, Fate
from streammeta.state import State
from streammeta.units import inputs, standard_targets
from streammeta.watching import explain, freeze, frozen_loss, look, loss_of, watch, watched

Floats = NDArray[np.float64]

#: A task is closed this many rows late, so that an alarm can still cut it off at the onset.
HELD_BACK = 32
#: Characters of an id, a key or a class, and of what is told about an event that was refused.
LONGEST_NAME, LONGEST_DETAIL = 1000, 600
#: The end of the year 9999: a time after it is nobody's clock, and would let every label expire.
LAST_TIME = 253_402_300_800.0
#: Questions in a row that are older than their time to live, by which a clock is known to have been
#: set back.
SET_BACK = 64
#: More classes than this are refused: networks grow with every one of them.
MAX_CLASSES = 1000
#: Told the name of a stage when that has been at work since the last call: who is told may look at
#: a clock, which nobody here does.
Lap = Callable[[str], None]


def untimed(stage: str) -> None:
    """Nobody wants to know."""


def step(
    state: State,
    events: Sequence[Event],
    metas: Sequence[MetaParameters],
    lap: Lap = untimed,
) -> tuple[State, list[Output]]:
    """Answer and learn one chunk of events; ``metas`` is empty before the first event."""
    outputs: list[Output] = []
    refused: set[int] = set()
    asked = ask(state, events, refused, outputs, lap)
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
                outputs.append(unmatched(state, event.id))
                continue
        answer(state, question, event, metas, outputs, lap)
    for gone, reason in state.pending.expire(state.last_ts):
        name = state.key_names[gone.key]
        state.ended.add(gone.id, Fate.EXPIRED)
        outputs.append(LabelExpired(gone.id, name, gone.row, reason))
    return state, outputs


#: Why a label meets no waiting question, by how the question with its id ended.
UNMATCHED = {
    Fate.ANSWERED: ("duplicate_label", "it has had its label"),
    Fate.EXPIRED: ("late_label", "it had waited too long and was dropped"),
    None: ("unknown_label", "it was never asked, or long ago"),
}


def unmatched(state: State, name: str) -> Rejected:
    """The output for a label whose question does not wait."""
    reason, why = UNMATCHED[state.ended.fate(name)]
    detail = f"label for id {name!r}: no question with this id is waiting: {why}"
    return Rejected(name, "join", reason, detail)


# -- questions -------------------------------------------------------------------------------


def ask(
    state: State,
    events: Sequence[Event],
    refused: set[int],
    outputs: list[Output],
    lap: Lap = untimed,
) -> list[Asked | None]:
    """Answer every question of the chunk with the state as it is; one batch for each key.

    The places of events that cannot be used go to ``refused``.
    """
    accepted: dict[int, list[tuple[int, int, Floats]]] = {}
    waiting: set[str] = set()
    row = state.rows
    for place, event in enumerate(events):
        try:
            features = accept(state, event, waiting)
        except RejectedEvent as reject:
            name, detail = event.id[:LONGEST_NAME], reject.detail[:LONGEST_DETAIL]
            outputs.append(Rejected(name, "decode", reject.reason, detail))
            refused.add(place)
            if reject.reason == "missing_target":
                give_up(state, event.id, outputs)
            continue
        advance(state, event.ts, asks=features is not None)
        if features is not None:
            accepted.setdefault(state.key_index(event.key), []).append((place, row, features))
            row += 1
            if event.y is None:
                waiting.add(event.id)
    asked: list[Asked | None] = [None] * len(events)
    spoken: list[list[float]] = [[] for _ in events]  # the answers, ``(O,)``
    if not accepted:
        return asked
    state.learn_columns()
    stop = state.config.freeze_at
    for key, rows in accepted.items():
        moving = len(rows) if stop is None else sum(row < stop for _, row, _ in rows)
        found = predict(state, key, [x for _, _, x in rows], moving)
        raw, members, said, centre, scale, wild = found
        note_clipped(state, key, raw, wild)
        births, answered = state.bank.births[key].copy(), said[:, pooling.ANSWER].tolist()
        for i, (place, row, _) in enumerate(rows):
            event, spoken[place] = events[place], answered[i]
            label = decide(state, answered[i], centre, scale)
            asked[place] = Asked(
                event.id, key, row, event.ts, raw[i], members[i], births, label, said[i],
                centre, scale,
            )  # fmt: skip
    for event, question, mixed in zip(events, asked, spoken, strict=True):
        if question is None:
            continue
        state.rows += 1
        outputs.append(report(state, question, event.key, mixed))
        if event.y is None:
            state.pending.add(question)
        tell_changes(state, event.key, question.row, outputs)
        if stop is None or question.row < stop:
            lap("predict")
            alarm = look(state, question)
            if alarm is not None:
                open_segment(state, question.key, alarm, outputs)
                choosing.choose(state, question.key)
            lap("detect")
    return asked


def note_clipped(state: State, key: int, raw: Floats, wild: NDArray[np.int64]) -> None:
    """Notice numbers of rows ``(n, D)`` that lie far outside of what their features have been, in
    columns ``wild (n,)``, -1 for none; the moments moved but little."""
    columns = state.columns
    for row, at in enumerate(wild.tolist()):
        if 0 <= at < columns.width:
            feature, value = columns.feature_of(at), raw[row, at]
            mean, deviation = state.means[key, at], math.sqrt(state.spreads[key, at])
            told = f"{feature!r} is {value:.4g}, usual is {mean:.4g} +- {deviation:.4g}: clipped"
            columns.note_clipped(feature, told)


def tell_changes(state: State, key: str, row: int, outputs: list[Output]) -> None:
    """What was noticed about the features becomes outputs."""
    for kind, feature, detail in state.columns.take_changes():
        outputs.append(SchemaChanged(key, row, kind, feature, detail))


def give_up(state: State, name: str, outputs: list[Output]) -> None:
    """The label of a waiting question will never come."""
    gone = state.pending.take(name)
    if gone is not None:
        state.ended.add(name, Fate.EXPIRED)
        key = state.key_names[gone.key]
        outputs.append(LabelExpired(gone.id, key, gone.row, "missing_target"))


def advance(state: State, ts: float | None, *, asks: bool) -> None:
    """Event time goes forward only, and never to where no clock can be. But where ``SET_BACK``
    questions in a row are older than any label may be, the clock has been set back: else nothing
    would be given up any more, or all at once, until the old time is there again. Labels do not
    tell: a producer that sends a stretch again is known by its questions, which are refused."""
    if ts is None or not ts <= LAST_TIME:
        return
    if state.last_ts is None or ts > state.last_ts:
        state.last_ts = ts
    if not asks:
        return
    ttl = state.config.label_ttl
    state.behind = 0 if ttl is None or state.last_ts - ts <= ttl else state.behind + 1
    if state.behind == SET_BACK:
        state.last_ts, state.behind = ts, 0
        state.pending.turn_back(ts)


def accept(state: State, event: Event, waiting: set[str]) -> Floats | None:
    """The features ``(F,)`` of a question, ``None`` for a pure label; ``waiting``: asked in this
    chunk.

    Raises:
        RejectedEvent: the event cannot be used.
    """
    if event.error is not None:
        raise RejectedEvent(*event.error)
    for what, name in (("id", event.id), ("key", event.key)):
        if len(name) > LONGEST_NAME:
            detail = f"the {what} has {len(name):,} characters, expected {LONGEST_NAME} at most"
            raise RejectedEvent("too_long", detail)
    if event.y is not None:
        check_label(state, event.y)
    if event.x is None:
        if event.y is None:
            raise RejectedEvent("malformed", f"event {event.id!r} has neither features nor label")
        return None
    if event.id in state.pending or event.id in waiting:
        detail = f"event {event.id!r}: a question with this id is waiting for its label"
        raise RejectedEvent("duplicate_id", detail)
    if state.ended.fate(event.id) is not None:
        detail = f"event {event.id!r}: there was a question with this id before"
        raise RejectedEvent("duplicate_id", detail)
    features = state.columns.row(event.x)
    if not state.allocated:
        state.allocate()
    return features


def check_label(state: State, label: object) -> None:
    """Refuse labels that the task cannot use, and a class too many."""
    if isinstance(label, (bool, int, float, np.integer, np.floating, np.bool_)):
        if not -LARGEST <= label <= LARGEST:  # refuses NaN as well
            raise RejectedEvent("not_finite", f"target is not a number within {LARGEST:g} of 0")
    elif state.task == REGRESSION or not isinstance(label, str):
        kind = "a number" if state.task == REGRESSION else "a string, number or boolean"
        raise RejectedEvent("wrong_type", f"target is {str(label)[:40]!r}, expected {kind}")
    if isinstance(label, str) and len(label) > LONGEST_NAME:
        raise RejectedEvent(
            "too_long", f"the class {label[:40]!r}... has {len(label):,} characters"
        )
    if len(state.classes) >= MAX_CLASSES and label not in state.class_index:
        detail = f"{str(label)[:40]!r} would be class {MAX_CLASSES + 1:,}: is the target an id?"
        raise RejectedEvent("too_many_classes", detail)


def predict(
    state: State, key: int, features: Sequence[Floats], moving: int = 0
) -> tuple[Floats, Floats, Floats, float, float, NDArray[np.int64]]:
    """Raw rows ``(n, D)`` of ``features (F,)`` each, what every member says, ``(n, M, O)``, and
    what is made of it, ``(n, SAID, O)``, in units of (centre, scale). By the first ``moving`` of
    them the running moments move, and it is said which column of each was far out (``(n,)``, -1
    for none); else nothing changes."""
    several, foreign = len(state.keys) > 1, state.foreign if key < KEYS else ()
    leaning, of_all = state.leaning(key), state.together
    rows = features[0].reshape(1, -1) if len(features) == 1 else np.stack(features)
    whole = not foreign
    raw, members, said, centre, scale, wild = together.ask(
        of_all, key, rows, leaning, several, whole, moving
    )
    if foreign:
        if state.n_classes:
            for place, family in foreign:
                family.predict(key, raw, state.world, members, place)
        wild = together.answer(of_all, key, raw, leaning, moving, members, said)
    return raw, members, said, centre, scale, wild


def answers(state: State, rows: Sequence[Mapping[str, Value]], key: str) -> list[Answer]:
    """For each of ``rows`` of a key the prediction and, in classification, the probability of every
    class seen so far; changes nothing. (``None``, ``None``) before the key's first row.

    Raises:
        RejectedEvent: a value cannot be used.
    """
    if not (rows and state.allocated and key in state.keys):
        return [(None, None)] * len(rows)
    features = [state.columns.row(x, grow=False) for x in rows]
    return answers_to(state, state.keys[key], features)


def answers_to(state: State, key: int, features: Sequence[Floats]) -> list[Answer]:
    """The same for rows ``(width,)`` of the column map."""
    _, _, said, centre, scale, _ = predict(state, key, features)
    found: list[Answer] = []
    for mixed in said[:, pooling.ANSWER].tolist():
        label, shares = decide(state, mixed, centre, scale), None
        if state.task != REGRESSION and state.classes:
            shares = dict(zip(state.classes, mixed, strict=False))
        found.append((label, shares))
    return found


def decide(state: State, mixed: list[float], centre: float, scale: float) -> Label | None:
    """The class or the value that an answer ``mixed (O,)`` stands for; ``None`` before any
    label."""
    if state.task == REGRESSION:
        return centre + scale * mixed[0]
    if not state.classes:
        return None
    of_classes = mixed[: len(state.classes)]
    return state.classes[of_classes.index(max(of_classes))]


def report(state: State, question: Asked, key: str, mixed: list[float]) -> Predicted:
    """What the outside sees of an answered question, to which the answer is ``mixed (O,)``."""
    probabilities = None
    if state.task != REGRESSION:
        probabilities = dict(zip(state.classes, mixed, strict=False))
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
    event: Event,
    metas: Sequence[MetaParameters],
    outputs: list[Output],
    lap: Lap = untimed,
) -> None:
    """A label has come: score, watch for drift, learn, close tasks, adapt challengers."""
    key, label = question.key, event.y
    assert label is not None  # whoever calls has looked
    if isinstance(label, np.generic):
        label = label.item()  # a snapshot is JSON, which knows no numpy
    learns = state.config.freeze_at is None or question.row < state.config.freeze_at
    known = label in state.class_index
    state.ended.add(question.id, Fate.ANSWERED)
    if state.task == REGRESSION:
        target = float(label)
    elif learns or label in state.class_index:
        target = float(state.add_class(label))
        if not known and state.labels >= GRACE:
            state.columns.note(
                "class_added", "", f"a class that was not there: {str(label)[:40]!r}"
            )
    else:
        target = -1.0
    scored = score(state, question, label, target)
    if event.ts is not None and question.ts is not None:
        scored.delay_seconds = event.ts - question.ts
    outputs.append(scored)
    if not learns:
        if target >= 0 or state.task == REGRESSION:
            pooling.remember(state.beliefs, key, target, False)
        state.startled[key] = False  # nobody is judged any more
        return
    state.labels += 1
    heard = watched(state, question)
    losses, *shown = judge(state, question, target, heard)
    scored.experts = Losses(state.member_names, losses)
    lap("learn")
    alarm = watch(state, question, shown[0], shown[1:]) if heard else None
    if alarm is not None:
        open_segment(state, key, alarm, outputs)
    lap("detect")
    kept, age, unclosed = learn(state, question, target)
    freeze(state, key, age)
    if unclosed >= state.config.support + state.config.query + HELD_BACK:
        close_task(state, question, outputs)
    lap("learn")
    if metas:
        challengers.grow(state, key, question.row, metas, outputs)
        if kept:
            challengers.scout(state, key, question.row, metas, outputs)
        lap("adapt")
    if state.traces is not None:
        choosing.hear(state, state.traces, question, target)
        if alarm is not None:
            choosing.choose(state, key)
    tell_changes(state, state.key_names[key], question.row, outputs)


def score(state: State, asked: Asked, label: Label, target: float) -> Scored:
    """What the prediction made then is worth."""
    loss = loss_of(asked.prediction, label, state.task)
    if state.task == REGRESSION:
        log_loss = loss * loss
    else:
        known = 0 <= target < asked.said.shape[1]
        p = asked.said.item(pooling.ANSWER, int(target)) if known else 0.0
        log_loss = -math.log(max(p, 1e-15))
    delay = state.rows - 1 - asked.row
    name = state.key_names[asked.key]
    return Scored(
        asked.id, name, asked.row, label, asked.prediction, loss, log_loss, delay,
        frozen_loss=frozen_loss(state, asked, target),
    )  # fmt: skip


def judge(
    state: State, asked: Asked, target: float, heard: bool
) -> tuple[Floats, float, float, float]:
    """Every member that was awake then is judged, and believed more or less: their losses ``(M,)``,
    and where detectors have ``heard`` of the row, what these are shown."""
    key, several = asked.key, len(state.keys) > 1
    members, said = asked.members, asked.said
    outputs = state.net.sizes[-1]
    if members.shape[1] != outputs:
        members, said = fit_outputs(members, outputs), fit_outputs(said, outputs)
    before = state.log_weights[key].copy() if several else None
    found: tuple[Floats, float, float, float] = together.judge(
        state.together, key, asked.raw, members, asked.births, said, target, asked.centre,
        asked.scale, heard,
    )  # fmt: skip
    if "surprise" not in state.config.corrections:
        state.startled[key] = False
    if before is not None:
        awake = state.bank.live[key] & (asked.births == state.bank.births[key])
        gained = state.log_weights[key] - mixture.DISCOUNT * before
        pool = (mixture.DISCOUNT * state.pool_weights + gained)[awake]
        state.pool_weights[awake] = np.maximum(pool - pool.max(initial=-1e300), mixture.WORST)
    return found


def fit_outputs(members: Floats, outputs: int) -> Floats:
    """Predictions made when there was room for fewer classes, padded with zeros."""
    return np.pad(members, ((0, 0), (0, outputs - members.shape[1])))


def learn(state: State, asked: Asked, target: float) -> tuple[bool, int, int]:
    """One online step for every expert that learns, one rehearsal step for the replay experts.

    Returns whether the row is of the current segment, and was kept; how many labelled rows that
    has, and how many of them are in no closed task.
    """
    key = asked.key
    if state.task == REGRESSION:
        count, mean, spread = state.y_moments[key].tolist()
        if is_wild(target, count, mean, spread):
            usual = f"usual is {mean:.4g} +- {math.sqrt(spread):.4g}"
            state.columns.note_clipped("", f"the target is {target:.4g}, {usual}: clipped")
    kept = bool(asked.row >= state.segment_start[key])
    age, unclosed = together.learn(
        state.together, key, asked.row, asked.raw, target, kept, len(state.keys) > 1
    )
    if kept and key < KEYS:
        for _, family in state.foreign:
            family.learn(key, state.world)
    return kept, age, unclosed


# -- drift, tasks, adaptation ----------------------------------------------------------------


def adapt(state: State, key: str, metas: Sequence[MetaParameters]) -> list[Output]:
    """Somebody asks for challengers now; nothing where nobody can be adapted."""
    outputs: list[Output] = []
    if key in state.keys and metas and not frozen(state):
        challengers.adapt_now(state, state.keys[key], metas, outputs)
    return outputs


def open_segment(state: State, key: int, alarm: Alarm, outputs: list[Output]) -> None:
    """A new segment: cut the rows, and make room for challengers (or reset everything)."""
    onset = max(alarm.onset, int(state.segment_start[key]))
    explanation = None if alarm.detector == KNOWN else explain(state, key, alarm, onset)
    like = None if explanation is None else explanation.like
    state.references.close(key, int(state.segment[key]), like)
    state.segment[key] = alarm.segment
    state.drifts += 1
    if state.traces is not None:
        state.traces.segment(key, state.rows, explanation)
    state.segment_start[key] = onset
    state.segment_rows.cut(key, onset)
    if key < KEYS:
        before = int(state.past.inside[key])
        state.past.shorten(key, onset)
        if state.config.on_drift != "reset":  # which forgets everything
            challengers.close(state, key, before - int(state.past.inside[key]))
    state.segment_labels[key] = state.segment_rows.inside[key]
    state.guard_losses[key] *= guard.LEFT
    state.hosts[key] = -1
    name = state.key_names[key]
    now = state.rows - 1  # later than the alarm's own row where labels are late
    outputs.append(
        DriftDetected(name, now, onset, alarm.segment, alarm.detector, alarm.signal, explanation)
    )
    if state.config.on_drift == "reset":
        state.start(key)


def settle(state: State) -> None:
    """Do what ended segments have left to do, where there is anything."""
    if state.unsettled:
        challengers.settle(state)


def close_task(state: State, asked: Asked, outputs: list[Output]) -> None:
    """Enough rows of one segment have come: they become a task for replay."""
    length = state.config.support + state.config.query
    rows, key = state.segment_rows, asked.key
    raw, y = rows.newest(key, int(rows.open[key]))
    rows.open[key] -= length
    raw, y = raw[:length], y[:length]
    sketch = state.sketch(inputs(state, key, raw), standard_targets(state, key, y))
    state.memory.add(key, raw, y, sketch, state.rng)
    segment = int(state.segment[key])
    outputs.append(TaskClosed(state.key_names[key], asked.row, segment, length))
