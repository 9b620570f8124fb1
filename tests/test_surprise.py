"""After a surprise: who is asked next is learned from what came after the surprises before."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event, Scored
from streammeta.mixture import GROWN, VARIANCE_AT_BIRTH
from streammeta.surprise import SIDES, is_surprise, learn_trust, share_of_last

EVERY, AWAY = 120, 80.0  # rows from one departure to the next, and how far it goes
LONG, BRIEF = 60, 1  # rows for which a value stays away


def departures(stay: int, times: int = 7) -> list[float]:
    """A steady series that goes elsewhere every so often, and stays there for so many rows."""
    rng = np.random.default_rng(3)
    away = [row % EVERY >= EVERY - stay for row in range(times * EVERY)]
    return [float(AWAY * out + rng.normal()) for out in away]


def errors(values: list[float]) -> NDArray[np.float64]:
    """Absolute errors of the default model, row by row."""
    engine = Engine(ModelConfig(task="regression"))
    events = [Event(str(row), {"hour": row % 24}, value) for row, value in enumerate(values)]
    return np.array([o.loss for o in engine.observe(events) if isinstance(o, Scored)])


def after_departures(stay: int, rows: int) -> NDArray[np.float64]:
    """``(times, rows)`` errors on the rows that follow the first one of each departure."""
    of_row = errors(departures(stay))
    first = np.arange(EVERY - stay, len(of_row) - rows, EVERY)
    found: NDArray[np.float64] = of_row[first[:, None] + 1 + np.arange(rows)]
    return found


def test_where_a_series_stays_away_the_last_value_is_believed_until_others_know() -> None:
    found = after_departures(LONG, rows=4)
    assert len(found) == 7
    assert found[1:].max() < AWAY / 8, found.round(1)


def test_where_a_value_strays_alone_nobody_follows_it() -> None:
    found = after_departures(BRIEF, rows=2)
    assert len(found) == 6
    assert found[1:].max() < AWAY / 8, found.round(1)


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_trust_goes_to_the_side_that_was_right(seed: int, jumps: bool) -> None:
    rng = np.random.default_rng(seed)
    trust, ages = np.zeros(SIDES), np.zeros(SIDES, np.int64)
    variances = np.full(SIDES, VARIANCE_AT_BIRTH)
    assert share_of_last(trust) == 0.5
    for _ in range(12):
        before, last = 0.0, 3.0 + rng.random()
        truth = (last if jumps else before) + 0.1 * rng.normal()
        learn_trust(trust, variances, ages, before, last, truth)
    share = share_of_last(trust)
    assert share > 0.9 if jumps else share < 0.1


def test_a_surprise_is_beyond_three_deviations_of_whoever_knows_best() -> None:
    variances = np.array([4.0, 1.0])
    assert is_surprise(-3.1, variances, GROWN)
    assert not is_surprise(2.9, variances, GROWN)
    assert is_surprise(float("nan"), variances, GROWN)
    assert not is_surprise(100.0, variances, GROWN - 1), "too early to say what is usual"


def noise(rows: int) -> list[float]:
    return [float(value) for value in np.random.default_rng(0).normal(size=rows)]


def engine_after(values: list[float], **config: Any) -> Engine:
    engine = Engine(ModelConfig(task="regression", **config))
    for row, value in enumerate(values):
        engine.observe([Event(str(row), {"a": row % 5}, value)])
    return engine


def ask(engine: Engine, *names: str) -> None:
    engine.observe([Event(name, {"a": 0.0}) for name in names])


def answer(engine: Engine, name: str, value: float) -> None:
    engine.observe([Event(name, None, value)])


def test_a_question_from_before_a_surprise_says_nothing_of_what_comes_after_it() -> None:
    """Labels come late: the one that surprises is here before those of questions asked earlier."""
    engine = engine_after([*noise(100), 0.0])
    ages = engine.state.trust_ages[0].copy()  # noise now and then surprises, too
    assert not engine.state.startled[0]
    ask(engine, "early", "other")
    answer(engine, "early", 50.0)
    assert engine.state.startled[0]
    answer(engine, "other", 0.0)
    np.testing.assert_array_equal(engine.state.trust_ages[0], ages)


def test_one_surprise_counts_once_however_many_were_asked_after_it() -> None:
    engine = engine_after([*noise(100), 50.0])
    ages = engine.state.trust_ages[0].copy()
    ask(engine, *"abcdef")
    for name in "abcdef":
        answer(engine, name, 0.0)
    np.testing.assert_array_equal(engine.state.trust_ages[0], ages + 1)


def test_a_key_is_not_startled_by_what_happens_to_another() -> None:
    engine = Engine(ModelConfig(task="regression"))
    for row, value in enumerate(noise(60)):
        engine.observe([Event(f"{key}{row}", {"a": 1.0}, value, key) for key in "ab"])
    engine.observe([Event("jump", {"a": 1.0}, 50.0, "a")])
    engine.observe([Event("calm", {"a": 1.0}, 0.0, "b")])
    assert engine.state.startled[:2].tolist() == [True, False]


def test_a_startled_model_goes_on_from_a_snapshot_as_if_nothing_had_been() -> None:
    engine = engine_after([*noise(60), 50.0])
    assert engine.state.startled[0]
    again = Engine.restore(engine.config, engine.snapshot())
    more = [Event(f"m{row}", {"a": row % 5}, 50.0 + row % 3) for row in range(20)]
    assert engine.observe(more) == again.observe(more)
    np.testing.assert_array_equal(engine.state.trust, again.state.trust)


def test_a_model_that_learns_no_more_is_not_startled_for_ever() -> None:
    engine = engine_after([*noise(60), 50.0], freeze_at=61)
    assert engine.state.startled[0]
    ask(engine, "one")
    answer(engine, "one", 0.0)
    assert not engine.state.startled[0]


def test_without_the_simple_members_the_last_value_has_no_say() -> None:
    for experts, expected in ((("networks",), False), (("networks", "persistence"), True)):
        engine = engine_after([*noise(60), 50.0], experts=experts)
        assert engine.state.startled[0]
        ages = engine.state.trust_ages[0].sum()
        ask(engine, "one")
        answer(engine, "one", 0.0)
        assert (engine.state.trust_ages[0].sum() > ages) == expected
