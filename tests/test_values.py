"""Forecasts of numbers keep their heads: units, ranges, first answers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from streammeta import together
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event, Predicted, Scored
from streammeta.mixture import VARIANCE_FLOOR
from streammeta.together import FEW, REACH


def engine() -> Engine:
    """The default model for numbers."""
    return Engine(ModelConfig(task="regression", seed=3))


def walk(rows: int, start: float = 43.0, step: float = 0.2) -> Iterator[Event]:
    """A random walk far from 0: nobody beats its last value."""
    rng = np.random.default_rng(8)
    level = start
    for row in range(rows):
        yield Event(f"w{row}", {"noise": rng.normal()}, level)
        level += step * rng.normal()


def test_a_sensor_that_runs_away_takes_no_answer_with_it() -> None:
    """A line is fitted, then its input leaves by a factor of fifty."""
    model, rng = engine(), np.random.default_rng(0)
    seen: list[float] = []
    wildest = 0.0
    for row in range(300):
        x = rng.normal() * (1.0 if row < 200 else 50.0)
        y = 3.0 * min(max(x, -2.0), 2.0) + 0.1 * rng.normal()
        for output in model.observe([Event(f"e{row}", {"x": x}, y)]):
            if isinstance(output, Predicted) and len(seen) >= FEW:
                reach = REACH * (max(seen) - min(seen))
                assert isinstance(output.prediction, float)
                assert min(seen) - reach - 1e-6 <= output.prediction <= max(seen) + reach + 1e-6
                wildest = max(wildest, abs(output.prediction))
        seen.append(y)
    assert wildest > 4.0, "some answers did go far"


def test_nobody_is_blamed_for_answers_before_anything_was_known() -> None:
    """The first answer is 0 where the first value is 43; thirty rows later that is forgotten."""
    model = engine()
    losses, last, repeats = [], 0.0, []
    for event in walk(80):
        for output in model.observe([event]):
            if isinstance(output, Scored):
                losses.append(output.loss)
                assert isinstance(output.truth, float)
                repeats.append(abs(output.truth - last))
                last = output.truth
    assert losses[0] == pytest.approx(43.0, abs=0.5)
    assert np.mean(losses[30:]) < 1.2 * np.mean(repeats[30:])


def test_what_is_expected_of_a_member_does_not_depend_on_the_units_of_now() -> None:
    """The target's spread grows tenfold: members are as good as before, in its own units."""
    model = engine()
    for event in walk(60):
        model.observe([event])
    state = model.state
    _, scale = state.units[0]
    before = state.variances[0] * scale**2
    raw = state.past.raw[0, 5].copy()
    for _ in range(10):
        together.learn(state.together, 0, state.rows, raw, 80.0, True, False)
    _, now = state.units[0]
    assert now > 2.0 * scale
    floored = state.variances[0] <= VARIANCE_FLOOR
    np.testing.assert_allclose((state.variances[0] * now**2)[~floored], before[~floored])
    assert floored.sum() < len(floored) / 2
