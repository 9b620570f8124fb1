"""After a surprise: who is asked next is learned from what came after the surprises before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event, Predicted, Scored
from streammeta.mixture import GROWN, VARIANCE_AT_BIRTH
from streammeta.surprise import SIDES, is_surprise, learn_trust, share_of_last

LONG, BRIEF = 60, 1  # rows for which a value stays away


def departures(rows: int, stay: int) -> list[float]:
    """A steady series that goes elsewhere every 120 rows, and stays there for so many."""
    rng = np.random.default_rng(3)
    return [float((80.0 if row % 120 >= 120 - stay else 0.0) + rng.normal()) for row in range(rows)]


def after_departures(values: list[float], stay: int) -> list[tuple[float, float]]:
    """What was answered to the second row of each departure, and what was true."""
    engine = Engine(ModelConfig(task="regression"))
    found = []
    for row, value in enumerate(values):
        for told in engine.observe([Event(str(row), {"hour": row % 24}, value)]):
            if isinstance(told, Predicted) and row % 120 == (120 - stay + 1) % 120 and row > 1:
                assert isinstance(told.prediction, float)
                found.append((told.prediction, value))
    return found


def test_where_a_series_stays_away_the_last_value_is_believed_at_once() -> None:
    told = after_departures(departures(840, LONG), LONG)
    assert len(told) == 7
    for answered, truth in told[1:]:
        assert abs(answered - truth) < 10.0, f"{answered:.1f} is nearer to where it was"


def test_where_a_value_strays_alone_nobody_follows_it() -> None:
    told = after_departures(departures(840, BRIEF), BRIEF)
    assert len(told) == 6
    for answered, truth in told[1:]:
        assert abs(answered - truth) < 10.0, f"{answered:.1f} is nearer to the stray"


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


def test_a_question_from_before_a_surprise_says_nothing_of_what_comes_after_it() -> None:
    """Labels come late: the one that surprises is here before those of questions asked earlier."""
    engine = Engine(ModelConfig(task="regression"))
    rng = np.random.default_rng(0)
    for row in range(100):
        engine.observe([Event(str(row), {"a": rng.normal()}, float(rng.normal()))])
    ages = engine.state.trust_ages[0].copy()  # noise now and then surprises, too
    engine.state.startled[0] = False
    engine.observe([Event("early", {"a": 0.0}), Event("other", {"a": 0.0})])
    engine.observe([Event("early", None, 50.0)])
    assert engine.state.startled[0]
    engine.observe([Event("other", None, 0.0)])
    assert engine.state.trust_ages[0] == pytest.approx(ages)
    engine.state.startled[0] = True
    engine.observe([Event("later", {"a": 0.0})])
    (scored,) = [o for o in engine.observe([Event("later", None, 0.0)]) if isinstance(o, Scored)]
    assert scored.row == 102
    assert engine.state.trust_ages[0] == pytest.approx(ages + 1)


def test_without_the_simple_members_the_last_value_has_no_say() -> None:
    engine = Engine(ModelConfig(task="regression", experts=("networks",)))
    for row in range(30):
        engine.observe([Event(str(row), {"a": row % 5}, 1.0 if row < 25 else 90.0)])
    assert engine.state.trust_ages[0].max() == 0
