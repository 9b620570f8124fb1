"""A twin answers as the model did when it followed last, whatever the model does then."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammeta.config import ModelConfig
from streammeta.encode import ColumnMap
from streammeta.engine import Engine
from streammeta.errors import RejectedEvent
from streammeta.events import DriftDetected, Event
from streammeta.experts.family import Stacked
from streammeta.twin import Twin


def rows(n: int, task: str, keys: int = 1, seed: int = 0):
    """Two numbers, a category and sometimes a hole; the label turns over halfway."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        a, b = rng.normal(size=2).tolist()
        x = {"a": a, "b": b if i % 7 else None, "day": ["mon", "tue", "wed"][i % 3]}
        value = (a - (b if i % 7 else 0.0)) * (1 if i < n // 2 else -1)
        y = value if task == "regression" else ("up" if value > 0 else "down")
        yield x, y, f"k{i % keys}" if keys > 1 else ""


def asked(keys: int = 1):
    return [(x, key) for x, _, key in rows(12, "regression", keys, seed=9)]


def learned(task: str, n: int = 300, keys: int = 1, **config) -> Engine:
    engine = Engine(ModelConfig(task=task, seed=3, **config))
    for x, y, key in rows(n, task, keys):
        engine.learn(x, y, key=key)
    return engine


def by_engine(engine: Engine, questions):
    return [engine.answers([x], key=key)[0] for x, key in questions]


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_twin_answers_as_its_engine(task):
    engine = learned(task)
    assert Twin(engine.state).answers(asked()) == by_engine(engine, asked())


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_nothing_that_the_model_writes_reaches_a_twin(task):
    """All arrays of the state, wherever they are, get another content, but for shapes and rates."""
    engine = learned(task, keys=2)
    before = by_engine(engine, asked(2))
    twin = Twin(engine.state)
    state = engine.state
    homes = [state, state.bank, state.past, state.segment_rows, state.references]
    parts = [part for home in homes for part in vars(home).items()]
    arrays = [a for n, a in parts if isinstance(a, np.ndarray) and n not in ("sizes", "rates")]
    for family in state.families:
        arrays += list(family.tensors().values())
    for array in arrays:
        array[...] = 1 if array.dtype.kind in "bi" else 0.37
    state.classes += ["other"]
    state.keys["k7"] = 0
    assert twin.answers(asked(2)) == before
    assert len(arrays) > 50


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_twin_that_follows_is_as_good_as_a_new_one(task):
    """From the first labels on, over drifts, with three keys, one chunk after the other."""
    engine = Engine(ModelConfig(task=task, seed=3))
    twin, made, drifts = None, 0, 0
    for i, (x, y, key) in enumerate(rows(900, task, keys=3)):
        outputs = engine.learn(x, y, key=key)
        recut = [o.key for o in outputs if isinstance(o, DriftDetected)]
        drifts += len(recut)
        if twin is None or not twin.follow(engine.state, [key], recut):
            twin, made = Twin(engine.state), made + 1
        if i % 60 == 0 or recut:
            assert twin.answers(asked(3)) == by_engine(engine, asked(3)), i
    assert made <= 4  # only where keys did not fit any more
    assert drifts > 0


def test_a_twin_learns_of_new_classes_columns_and_categories():
    engine = learned("classification", 60)
    twin = Twin(engine.state)
    questions = [*asked(), ({"a": 1.0, "colour": "red"}, ""), ({"wind": 3.0, "day": "thu"}, "")]
    for i in range(12):  # more classes than there was room for
        engine.learn({"a": float(i), "day": f"day {i}", "wind": 0.5 * i}, f"class {i}")
        if not twin.follow(engine.state, [""]):
            twin = Twin(engine.state)
        assert twin.answers(questions) == by_engine(engine, questions)


def test_a_twin_asked_many_questions_refuses_only_those_that_cannot_be_used():
    engine = learned("classification")
    good, bad = asked()[0], ({"a": "text"}, "")
    unknown = ({"a": 1.0}, "nobody")
    first, refused, third, none = Twin(engine.state).answers([good, bad, good, unknown])
    assert isinstance(refused, RejectedEvent)
    assert refused.reason == "wrong_type"
    assert first == third == by_engine(engine, [good])[0]
    assert none == (None, None)


def test_experts_of_river_are_followed_too():
    engine = learned("classification", experts=("networks", "river.naive_bayes:GaussianNB"))
    twin = Twin(engine.state)
    assert not all(isinstance(family, Stacked) for family in engine.state.families)
    for x, y, _ in rows(40, "classification", seed=4):
        engine.learn(x, y)
    assert twin.answers(asked()) != by_engine(engine, asked())
    assert twin.follow(engine.state, [""])
    assert twin.answers(asked()) == by_engine(engine, asked())


def test_a_reset_and_a_ring_that_is_overwritten_are_followed():
    engine = learned("regression", 40, on_drift="reset", known_drifts=(60,))
    twin = Twin(engine.state)
    recut = []
    for x, y, _ in rows(100, "regression", seed=4):
        recut += [o.key for o in engine.learn(x, y) if isinstance(o, DriftDetected)]
    assert recut == [""]
    assert twin.follow(engine.state, [""], recut)
    assert twin.answers(asked()) == by_engine(engine, asked())


def test_asking_a_twin_changes_nothing_in_the_model():
    engine = learned("classification")
    engine.observe([Event("waits", {"a": 1.0})])
    before = engine.snapshot().to_bytes()
    twin = Twin(engine.state)
    twin.answers([*asked(), ({"never": 1.0, "seen": "before"}, "")])
    assert engine.snapshot().to_bytes() == before


VALUES = st.one_of(
    st.floats(-1e3, 1e3), st.integers(-5, 5), st.booleans(), st.none(),
    st.sampled_from(["red", "green", "blue"]), st.just(math.nan),
)  # fmt: skip
ROWS = st.dictionaries(st.sampled_from("abcdef"), VALUES, max_size=5)


def read_or_refused(columns: ColumnMap, row, grow: bool) -> bytes | str:
    try:
        return columns.row(row, grow=grow).tobytes()
    except RejectedEvent as fault:
        return fault.detail


@settings(max_examples=200, deadline=None)
@given(st.lists(ROWS, max_size=6), ROWS)
def test_a_row_that_may_not_grow_the_map_reads_as_on_a_copy_that_may(seen, row):
    columns = ColumnMap()
    for earlier in seen:
        try:
            columns.row(earlier)
        except RejectedEvent:
            continue
    before = columns.to_info()
    read = [read_or_refused(columns, row, grow=False)]
    read.append(read_or_refused(copy.deepcopy(columns), row, grow=True))
    assert read[0] == read[1]
    assert columns.to_info() == before


def test_only_what_answering_reads_is_copied():
    engine = learned("classification")
    twin = Twin(engine.state)
    copied = sum(old[0].nbytes for _, old in twin._pairs if len(old))
    whole = sum(array.nbytes for array in engine.snapshot().tensors.values())
    assert 0 < copied < whole / 2
