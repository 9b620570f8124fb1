"""Labels that have arrived are inputs while they tell something."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
from engine_stories import CLASSES, NUMBERS, both_tasks, late, of, run
from hypothesis import given
from hypothesis import strategies as st

from streammeta import core
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event, Scored
from streammeta.experts.hat_kernels import before, encode, place_of
from streammeta.experts.kernels import NOT_READ, let_read
from streammeta.lags import AHEAD, CLOSES, FADES, OPENS, READ, weigh
from streammeta.reference import FIRST
from streammeta.twin import Twin

ROWS = 600


def world(task: str, rows: int, memory: float, seed: int = 0) -> list[Event]:
    """A label is its feature's, blurred; what blurs it stays the same with probability ``memory``
    (above a half it is told by the label before)."""
    rng, blur, events = np.random.default_rng(seed), 1.0, []
    for row in range(rows):
        x, unlike = rng.normal(size=2)
        blur = blur if rng.random() < memory else -blur
        score = 0.7 * float(x) + 1.5 * blur
        events.append(
            Event(
                f"e{seed}-{row}",
                {"x": float(x), "unlike": float(unlike)},
                score if task == NUMBERS else str(score > 0),
            )
        )
    return events


def engine_of(task: str, **changes: Any) -> Engine:
    return Engine(ModelConfig.model_validate({"task": task, **changes}))


def is_read(engine: Engine) -> bool:
    state = engine.state
    labels = state.scaled[state.columns.width :]
    assert set((labels != NOT_READ).tolist()) == {bool(state.worth[READ])}
    return bool(state.worth[READ])


@both_tasks
def test_labels_that_tell_nothing_are_not_read_until_they_do(task: str) -> None:
    engine = engine_of(task)
    run(engine, world(task, ROWS, memory=0.5))
    assert not is_read(engine)
    run(engine, world(task, ROWS, memory=0.97, seed=1))
    assert is_read(engine)


@both_tasks
def test_labels_that_tell_something_stay_inputs(task: str) -> None:
    engine, turned = engine_of(task), []
    for event in world(task, ROWS, memory=0.97):
        engine.observe([event])
        turned.append(not is_read(engine))
    assert np.mean(turned) < 0.1, "but for a surprise or two"
    assert is_read(engine)


@both_tasks
def test_labels_are_worth_what_they_are_worth_when_they_come(task: str) -> None:
    """What blurs changes within some ten rows, and labels come forty late."""
    events = world(task, 2 * ROWS, memory=0.9)
    in_time, waiting = engine_of(task), engine_of(task)
    run(in_time, events)
    run(waiting, late(events, 40))
    assert is_read(in_time)
    assert not is_read(waiting)


@both_tasks
def test_who_does_not_read_them_says_the_same_whatever_they_are(task: str) -> None:
    engine = engine_of(task)
    run(engine, world(task, ROWS, memory=0.5))
    state, features = engine.state, np.array([0.3, -0.2])
    features = np.resize(features, state.columns.width)
    assert not is_read(engine)
    one = core.predict(state, 0, [features])[1][0]
    state.lags[:] = 1.0 - state.lags
    other = core.predict(state, 0, [features])[1][0]
    differ = {
        name
        for name, said, now in zip(state.member_names, one, other, strict=True)
        if not np.array_equal(said, now)
    }
    # trees look for no new cuts there; those they have stay until they fold up
    assert differ <= {"hat@0.003", "persistence", "trees"}
    assert "hat@0.003" in differ, "it always reads them: who else would know that they tell again"


@both_tasks
def test_where_they_are_always_read_nobody_weighs_them(task: str) -> None:
    engine = engine_of(task, lags_read="always")
    run(engine, world(task, ROWS, memory=0.5))
    assert is_read(engine)
    assert engine.state.worth[AHEAD] == np.inf


@pytest.mark.parametrize("changes", [{"lags": 0}, {"experts": ("heads", "persistence")}])
def test_without_labels_or_without_twins_there_is_nothing_to_weigh(changes: Any) -> None:
    engine = engine_of(CLASSES, **changes)
    run(engine, world(CLASSES, 200, memory=0.5))
    assert engine.state.worth.tolist() == [0.0, 1.0]
    assert "hat-bare@0.003" not in engine.state.member_names


@both_tasks
def test_what_is_read_is_part_of_the_state(task: str) -> None:
    engine, events = engine_of(task), world(task, ROWS + 50, memory=0.5)
    run(engine, events[:ROWS])
    assert not is_read(engine)
    other = Engine.restore(engine.config, engine.snapshot())
    assert not is_read(other)
    copied, twin = copy.deepcopy(engine), Twin(engine.state)
    asked = [({"x": 0.1 * i, "unlike": 0.0}, "") for i in range(5)]
    said = engine.answers([x for x, _ in asked])
    assert twin.answers(asked) == said
    assert [other.answers([x])[0] for x, _ in asked] == said
    outputs = run(engine, events[ROWS:])
    assert run(other, events[ROWS:]) == outputs == run(copied, events[ROWS:])


@both_tasks
def test_that_they_told_much_does_not_make_them_read_for_ever(task: str) -> None:
    engine = engine_of(task)
    run(engine, world(task, 1_500, memory=0.97))
    assert is_read(engine)
    run(engine, world(task, 1_000, memory=0.5, seed=1))
    assert not is_read(engine)


def test_what_is_frozen_reads_as_it_did() -> None:
    engine, turned, how = engine_of(CLASSES), 0, np.zeros(0)
    state, age, read = engine.state, 0.0, True
    for event in world(CLASSES, ROWS, memory=0.5):
        engine.observe([event])
        own, known = state.references.scaled[0], state.references.about[0, 0]
        if known and known != age:  # frozen now
            np.testing.assert_array_equal(own, state.scaled)
            how = own.copy()
        elif known:
            np.testing.assert_array_equal(own, how)
        turned += known >= FIRST and read != is_read(engine)
        age, read = known, is_read(engine)
    assert turned, "while something was frozen it was turned over whether labels are read"
    row, truth = state.past.raw[0, 5].copy(), float(state.past.y[0, 5])
    said = state.references.frozen_loss(0, row, truth)
    state.scaled[:] = NOT_READ
    assert said is not None
    assert state.references.frozen_loss(0, row, truth) == said


def test_all_keys_decide_together_and_a_reset_changes_nothing_about_it() -> None:
    engine = engine_of(CLASSES, on_drift="reset", known_drifts=(2 * ROWS,))
    mine, yours = world(CLASSES, ROWS, memory=0.5), world(CLASSES, ROWS, memory=0.5, seed=1)
    for pair in zip(mine, yours, strict=True):
        for key, event in zip("ab", pair, strict=True):
            engine.observe([dataclasses.replace(event, key=key)])
    assert not is_read(engine)
    for event in world(CLASSES, 5, memory=0.5, seed=2):
        engine.observe([dataclasses.replace(event, key="a")])
    assert engine.state.segment[0] == 1, "the key has begun anew"
    assert not is_read(engine)
    engine.observe([Event("other", {"x": 0.1, "unlike": 0.2}, "True", "c")])
    assert not is_read(engine), "a key that has just come knows it from the others"


def test_a_twin_follows_when_it_turns() -> None:
    engine, events = engine_of(NUMBERS), world(NUMBERS, ROWS, memory=0.5)
    run(engine, events[:20])
    twin, read, turned = Twin(engine.state), is_read(engine), 0
    asked = [({"x": 0.1 * i, "unlike": 0.0}, "") for i in range(5)]
    for event in events[20:]:
        engine.observe([event])
        followed = twin.follow(engine.state, [""], [""])
        if not followed:
            twin = Twin(engine.state)
        turned += followed and read != is_read(engine)
        read = is_read(engine)
        assert twin.answers(asked[:1]) == engine.answers([asked[0][0]])
    assert turned, "it has followed where labels were no longer read"
    assert twin.answers(asked) == engine.answers([x for x, _ in asked])


def test_in_chunks_they_are_weighed_too() -> None:
    engine = engine_of(CLASSES, chunk=16)
    run(engine, world(CLASSES, 2 * ROWS, memory=0.5), 16)
    assert not is_read(engine)


def test_nobody_is_better_off_reading_what_tells_nothing() -> None:
    """The point of it: few rows teach more to those with fewer inputs."""
    losses = {}
    for read in ("earned", "always"):
        found = 0.0
        for seed in range(4):
            rng, engine = np.random.default_rng(seed), engine_of(NUMBERS, lags_read=read)
            events = []
            for row in range(800):
                a, b = rng.normal(size=2)
                up = 1.0 if row % 400 < 200 else -1.0
                events.append(Event(str(row), {"a": float(a), "b": float(b)}, float(up * a + b)))
            found += sum(scored.loss for scored in of(Scored, run(engine, events)))
        losses[read] = found
    assert losses["earned"] < losses["always"]


@given(
    labels=st.integers(1, 3),
    hatted=st.integers(0, 5),
    values=st.lists(st.floats(-3, 3) | st.just(np.nan), min_size=5, max_size=5),
)
def test_who_reads_no_labels_reads_the_first_inputs_of_those_who_do(
    labels: int, hatted: int, values: list[float]
) -> None:
    raw, first, bins = np.array(values), 5 - labels, 4
    knots = np.sort(np.random.default_rng(0).normal(size=(hatted, bins)))
    about = np.zeros(5), np.ones(5), knots, np.full(hatted, bins)
    found = []
    for read in (True, False):
        scaled, places = np.ones(5), np.full(15, -1)
        let_read(scaled, first, 1, read)
        numbers = np.zeros(15, np.float32)
        n = encode(raw, scaled, *about, places, numbers)
        if read:
            assert (np.diff(places[:n]) > 0).all()
            n = before(places, n, place_of(first, hatted, bins))
        found.append((places[:n].tolist(), numbers[:n].tolist()))
    assert found[0] == found[1]


# -- the rule -----------------------------------------------------------------------------------


def test_between_the_bounds_nothing_changes() -> None:
    """Labels are told by 0.1 nats, then not, by a network that is surer of the truth."""
    worth, ages, variances = np.array([0.0, 1.0]), np.zeros(2, np.int64), np.ones(2)
    sure, unsure = np.array([0.55, 0.45]), np.array([0.5, 0.5])
    turns = []
    for step in range(400):
        reader, other = (unsure, sure) if step < 200 else (sure, unsure)
        if weigh(worth, reader, other, variances, ages, 0.0, 2, 0):
            turns.append((step, float(worth[AHEAD])))
    (first, low), (second, high) = turns
    assert first < 200 <= second
    assert CLOSES - 0.1 < low <= CLOSES
    assert OPENS < high < OPENS + 0.1
    assert variances.tolist() == [1.0, 1.0], "whose variances these are moves them elsewhere"


def test_what_was_ahead_long_ago_fades() -> None:
    worth, ages, variances = np.array([5.0, 1.0]), np.zeros(2, np.int64), np.ones(2)
    even = np.array([0.5, 0.5])
    for _ in range(1_000):
        weigh(worth, even, even, variances, ages, 1.0, 2, 0)
    assert worth[AHEAD] == pytest.approx(5.0 * FADES**1_000)


def test_one_label_does_not_decide() -> None:
    worth, ages, variances = np.array([0.0, 1.0]), np.zeros(2, np.int64), np.full(2, 1e-4)
    assert weigh(worth, np.array([9.0]), np.array([0.0]), variances, ages, 0.0, 1, 1)
    assert worth[AHEAD] == -2.0
    worth[:] = 0.0, 1.0
    weigh(worth, np.array([np.nan]), np.array([0.0]), variances, ages, 0.0, 1, 1)
    assert worth[AHEAD] == -2.0, "who says no number has lost, not spoiled the count"


@pytest.mark.parametrize(("task", "plain"), [(0, 0.0), (1, 1.0)])
def test_only_labels_are_let_read(task: int, plain: float) -> None:
    scaled = np.array([1.0, 0.0, 7.0, 7.0])
    let_read(scaled, 2, task, False)
    assert scaled.tolist() == [1.0, 0.0, NOT_READ, NOT_READ]
    let_read(scaled, 2, task, True)
    assert scaled.tolist() == [1.0, 0.0, plain, plain]
