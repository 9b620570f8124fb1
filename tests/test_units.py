"""Tasks are posed in the units of their keys, whichever way they are read."""

from __future__ import annotations

import numpy as np
import pytest

from streammeta import units
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event
from streammeta.meta.loss import Task
from streammeta.replay import Tasks


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_many_tasks_are_standardised_as_each_would_be(task: Task) -> None:
    engine = Engine(ModelConfig(task=task, hidden=(4,), experts=("networks",), meta_every=0))
    rng = np.random.default_rng(0)
    for i in range(240):
        key = str(i % 3)
        x: dict[str, float | str | None] = {
            "a": float(rng.normal(i % 3, 2.0)),
            "day": "mon" if rng.random() < 0.5 else "tue",
            "b": None if rng.random() < 0.2 else float(rng.normal()),
        }
        y = float(rng.normal(10.0 * (i % 3))) if task == "regression" else str(rng.integers(2))
        engine.observe([Event(str(i), x, y, key=key)])
    state = engine.state
    raw = rng.normal(0.0, 3.0, (7, 5, state.width))
    raw[rng.random(raw.shape) < 0.2] = np.nan
    raw[0, 0, 0] = 1e9  # beyond the clip
    drawn = Tasks(raw, rng.integers(0, 2, (7, 5)).astype(float), np.array([0, 0, 2, 1, 1, 1, 0]))
    x_all, y_all = units.standard_tasks(state, drawn)
    for i, key in enumerate(drawn.key.tolist()):
        assert np.array_equal(x_all[i], units.inputs(state, key, raw[i]))
        assert np.array_equal(y_all[i], units.standard_targets(state, key, drawn.y[i]))
    assert x_all.max() == 5.0
    assert (x_all[np.isnan(raw)] == 0).all()
    if task == "regression":
        assert not np.array_equal(y_all[1], drawn.y[1])
