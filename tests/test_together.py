"""All members in one compiled call say and learn what each of them does by itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from streammeta import core, pooling, together
from streammeta.config import EXPERTS, ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event
from streammeta.experts.bank import ask_bank, learn_bank, rehearse
from streammeta.experts.family import Family
from streammeta.experts.kernels import REGRESSION
from streammeta.replay import keep
from streammeta.state import State

TREE = {
    "classification": "river.tree:HoeffdingTreeClassifier",
    "regression": "river.tree:HoeffdingTreeRegressor",
}
both_tasks = pytest.mark.parametrize("task", ["classification", "regression"])


def events(task: str, rows: int) -> Iterator[Event]:
    """One stream; its second half is another world."""
    rng = np.random.default_rng(5)
    for row in range(rows):
        a, b, colour = rng.normal(), rng.uniform(), ("red", "blue")[row % 2]
        value = (a if row < rows / 2 else -a) + b + (colour == "red")
        y: Any = value if task == "regression" else "high" if value > 1.0 else "low"
        yield Event(f"e{row}", {"a": a, "b": b, "colour": colour}, y)


def after(task: str, experts: tuple[str, ...] = EXPERTS, rows: int = 620) -> State:
    """The state of a model that has been through a change."""
    engine = Engine(ModelConfig.model_validate({"task": task, "experts": experts}))
    for event in events(task, rows):
        engine.observe([event])
    return engine.state


def experts_of(task: str) -> list[tuple[str, ...]]:
    """The default ones, some of them, and some with one of River's between."""
    return [EXPERTS, ("memory", "networks", "hats"), ("trees", TREE[task], "heads")]


def places(state: State) -> Iterator[tuple[int, Family]]:
    """Each family, and where its members begin."""
    place = len(state.bank.rates)
    for family in state.families:
        yield place, family
        place += len(family.names)


@both_tasks
@pytest.mark.parametrize("which", range(3))
def test_asked_together_they_say_what_each_says_alone(task: str, which: int) -> None:
    state = after(task, experts_of(task)[which])
    rng = np.random.default_rng(0)
    asked = [
        state.columns.row({"a": float(rng.normal()), "b": float(rng.uniform()), "colour": "red"})
        for _ in range(5)
    ]
    raw, members, said, *_ = core.predict(state, 0, asked)
    alone, made = np.zeros_like(members), np.zeros_like(said)
    ask_bank(state.networks, state.world, 0, raw, alone)
    for place, family in places(state):
        family.predict(0, raw, state.world, alone, place)
    if task == "regression":
        together.bring_within_reach(state.together, 0, alone)
    scouts = state.bank.scouts
    pooling.answer_members(
        state.beliefs, state.world, 0, state.leaning(0), scouts.start, scouts.stop, alone, made
    )
    np.testing.assert_array_equal(members, alone)
    np.testing.assert_array_equal(said, made)
    np.testing.assert_array_equal(raw[:, : state.columns.width], np.stack(asked))
    assert np.ptp(members[0, state.bank.live[0]]) > 0.0, "they are not all of one mind"


def teach_alone(state: State, row: int, raw: Any, target: float) -> None:
    """A labelled row of the segment goes to each of them."""
    if state.task == REGRESSION:
        together.take_target(state.together, 0, target, False)
    learn_bank(state.networks, state.world, 0, raw, target)
    keep(state.networks, state.world, 0, row, raw, target)
    state.segment_labels[0] += 1
    for _, family in places(state):
        family.learn(0, state.world)
    rehearse(state.networks, state.world, 0, state.chances)
    pooling.remember(state.beliefs, 0, target, state.task != REGRESSION)


@both_tasks
@pytest.mark.parametrize("which", range(3))
def test_taught_together_they_learn_what_each_learns_alone(task: str, which: int) -> None:
    state = after(task, experts_of(task)[which])
    other = copy.deepcopy(state)
    before = {name: array.copy() for name, array in state.to_parts()[0].items()}
    raw, target, row = state.past.raw[0, 3].copy(), float(state.past.y[0, 3]), state.rows
    for _ in range(2):  # every second label some rehearse
        together.learn(state.together, 0, row, raw, target, True, False)
        for _, family in state.foreign:
            family.learn(0, state.world)
        teach_alone(other, row, raw, target)
    assert_equal(state, other)
    assert any(not np.array_equal(a, before[n]) for n, a in state.to_parts()[0].items())


def assert_equal(one: State, other: State) -> None:
    """Bit for bit."""
    parts, others = one.to_parts()[0], other.to_parts()[0]
    assert parts.keys() == others.keys()
    for name, array in parts.items():
        np.testing.assert_array_equal(array, others[name], err_msg=name)
