"""The guard: who repeats the last value or says the mean is not better for long; laws of shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drift import Alarm
from streammeta import core, together
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event, Scored
from streammeta.guard import FIRST_GAP, GUARDED, LEFT, SAY, SHARE, learn_guard, shares
from streammeta.pooling import ANSWER, UNGUARDED, UNMOVED

Floats = NDArray[np.float64]


def guarded(said: Floats, truth: Floats) -> tuple[Floats, Floats]:
    """Errors ``(n,)`` of the answers to ``said (n, 3)``, and the last shares ``(3,)``."""
    losses, gap, errors = np.zeros(GUARDED), np.array([FIRST_GAP]), np.zeros(len(truth))
    for row, y in enumerate(truth):
        errors[row] = abs(shares(losses, gap[0]) @ said[row] - y)
        learn_guard(losses, gap, said[row], y)
    return errors, shares(losses, gap[0])


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.floats(0, 1e6), min_size=3, max_size=3), st.floats(1e-6, 1e6))
def test_shares_are_shares_and_go_by_errors(losses: list[float], gap: float) -> None:
    found = shares(np.array(losses), gap)
    assert found.sum() == pytest.approx(1.0)
    assert (found >= 0.0).all()
    if losses[1] <= losses[2]:
        assert found[1] >= found[2]


def test_nothing_is_known_at_first_and_a_nan_teaches_nothing() -> None:
    losses, gap = np.zeros(GUARDED), np.array([FIRST_GAP])
    np.testing.assert_allclose(shares(losses, gap[0]), [1.0 - 2.0 * SHARE, SHARE, SHARE])
    learn_guard(losses, gap, np.array([0.0, np.nan, 1.0]), 0.5)
    assert losses.tolist() == [0.0, 0.0, 0.0]
    assert gap[0] == FIRST_GAP


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_whoever_is_best_the_answer_is_soon_his(seed: int, best: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=500)
    said = truth[:, None] + rng.normal(size=(500, GUARDED))
    said[:, best] = truth + 0.3 * rng.normal(size=500)
    errors, last = guarded(said, truth)
    alone = np.abs(said - truth[:, None]).mean(0)
    assert last[best] > 0.95
    assert errors.mean() < alone[best] + 0.05
    assert errors.mean() < 0.6 * np.delete(alone, best).min()


@pytest.mark.parametrize(("noticed", "rows"), [(False, 800), (True, 120)])
def test_when_another_one_becomes_better_the_answer_follows(noticed: bool, rows: int) -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=2000)
    said = truth[:, None] + rng.normal(size=(2000, GUARDED))
    said[:1000, 1] = truth[:1000]
    said[1000:, 0] = truth[1000:]
    losses, gap, errors = np.zeros(GUARDED), np.array([FIRST_GAP]), np.zeros(2000)
    for row, y in enumerate(truth):
        if noticed and row == 1010:
            losses *= LEFT  # as at an alarm
        errors[row] = abs(shares(losses, gap[0]) @ said[row] - y)
        learn_guard(losses, gap, said[row], y)
    assert errors[500:1000].mean() < 0.01
    assert errors[1000 + rows :].mean() < 0.01


@pytest.mark.parametrize("label", [1e6, 1e30])
def test_a_label_that_is_no_measurement_is_no_reason_to_leave_the_model(label: float) -> None:
    rng = np.random.default_rng(4)
    truth = rng.normal(size=600)
    said = truth[:, None] + np.array([0.1, 1.0, 1.0]) * rng.normal(size=(600, GUARDED))
    truth[300] = label
    errors, last = guarded(said, truth)
    assert last[0] > 0.99
    assert np.delete(errors, 300)[100:].mean() < 0.1


def run(values: list[float]) -> tuple[Engine, Floats]:
    """The default model after ``values`` with features of noise, and its errors."""
    rng = np.random.default_rng(7)
    engine = Engine(ModelConfig(task="regression"))
    losses = []
    for row, value in enumerate(values):
        event = Event(str(row), {"a": float(rng.normal())}, value)
        losses += [o.loss for o in engine.observe([event]) if isinstance(o, Scored)]
        engine.replay()
    return engine, np.array(losses)


def test_of_noise_the_model_comes_to_say_the_mean_and_of_a_rule_it_does_not() -> None:
    rng = np.random.default_rng(5)
    noise = [float(v) for v in 20.0 + rng.standard_t(3, 1200)]
    engine, errors = run(noise)
    told = engine.state
    by_mean = shares(told.guard_losses[0], told.guard_gap[0, 0])
    assert by_mean[2] > 0.5, by_mean
    mean_so_far = np.cumsum(noise)[:-1] / np.arange(1, len(noise))
    assert errors[600:].mean() < 1.01 * np.abs(noise[600:] - mean_so_far[599:]).mean()
    ruled, _ = run([10.0 * (row % 2) for row in range(300)])
    assert shares(ruled.state.guard_losses[0], ruled.state.guard_gap[0, 0])[0] > 0.99


def test_the_guard_has_no_say_while_young_and_none_about_classes() -> None:
    rng = np.random.default_rng(2)
    engine = Engine(ModelConfig(task="regression"))
    for row in range(SAY + 20):
        engine.observe([Event(f"question {row}", {"a": float(row % 5)})])
        (asked,) = engine.state.pending.table.values()
        same = asked.said[ANSWER, 0] == asked.said[UNGUARDED, 0]
        assert same or row >= SAY
        engine.observe([Event(f"question {row}", None, float(rng.normal()))])
    assert not same
    engine = Engine(ModelConfig(task="classification"))
    for row in range(SAY + 20):
        engine.observe([Event(f"question {row}", {"a": float(row % 5)})])
        (asked,) = engine.state.pending.table.values()
        assert (asked.said[ANSWER] == asked.said[UNGUARDED]).all()
        engine.observe([Event(f"question {row}", None, row % 3)])


@pytest.mark.parametrize("kept", [(), ("surprise",), ("guard",)])
def test_a_correction_that_is_not_wanted_changes_no_answer(kept: tuple[str, ...]) -> None:
    rng = np.random.default_rng(4)
    engine = Engine(ModelConfig(task="regression", corrections=kept))
    value, guarded, surprised = 0.0, 0, 0
    for row in range(SAY + 80):
        engine.observe([Event(f"question {row}", {"a": float(row % 5)})])
        (asked,) = engine.state.pending.table.values()
        guarded += asked.said[ANSWER, 0] != asked.said[UNGUARDED, 0]
        surprised += not np.isnan(asked.said[UNMOVED, 0])
        value += float(rng.normal()) + 40.0 * (row % 30 == 29)
        engine.observe([Event(f"question {row}", None, value)])
    assert (guarded > 0, surprised > 0) == ("guard" in kept, "surprise" in kept)


def test_a_model_that_says_no_number_is_left_out_of_the_answer() -> None:
    engine, _ = run([float(row % 4) for row in range(SAY + 60)])
    engine.state.bank.theta[:] = np.nan
    for table in (family.table for family in engine.state.families):
        for array in table:
            if array.dtype.kind == "f":
                array[:] = np.nan
    assert np.isfinite(engine.predict({"a": 1.0}))


def test_what_the_guard_knows_moves_with_the_units_and_an_alarm_leaves_little_of_it() -> None:
    engine, _ = run([float(row % 4) for row in range(SAY)])
    state = engine.state
    before, gap, scale = state.guard_losses.copy(), state.guard_gap.copy(), state.scales[0]
    together.take_target(state.together, 0, 1e4, False)
    ratio = scale / state.scales[0]
    assert ratio < 0.9
    np.testing.assert_allclose(state.guard_losses, ratio * before)
    np.testing.assert_allclose(state.guard_gap, ratio * gap)
    held = state.guard_losses.copy()
    core.open_segment(state, 0, Alarm(SAY - 1, SAY - 9, 1, "bank", "reference"), [])
    np.testing.assert_allclose(state.guard_losses, LEFT * held)


def test_what_the_guard_knows_is_in_a_snapshot() -> None:
    rng = np.random.default_rng(9)
    values = [float(v) for v in rng.normal(size=SAY + 80)]
    engine, _ = run(values)
    again = Engine.restore(engine.config, engine.snapshot())
    assert engine.state.guard_losses[0].min() > 0.0
    for row in range(40):
        event = Event(f"then {row}", {"a": float(rng.normal())}, float(rng.normal()))
        one, other = engine.observe([event]), again.observe([event])
        assert [o.loss for o in one if isinstance(o, Scored)] == [
            o.loss for o in other if isinstance(o, Scored)
        ]
        engine.replay()
        again.replay()
    np.testing.assert_array_equal(engine.state.guard_losses, again.state.guard_losses)
