"""What a meta-learner has learned can be read off: rates, directions, how alike tasks are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from engine_stories import NUMBERS, config, image, run, stream
from learner_tasks import REGRESSORS
from numpy.typing import NDArray

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.meta.insight import Insight, insight
from streammeta.meta.net import Net
from streammeta.meta.parameters import MetaParameters
from streammeta.replay import pose

NET = Net((2, 8, 6, 1))
Floats = NDArray[np.float32]


def looked_at(name: str, x: Floats, y: Floats) -> Insight:
    return insight(name, fresh(name), x, y, 1, {"left": [0], "right": [1]})


def fresh(name: str) -> MetaParameters:
    settings = ModelConfig.model_validate({"task": "regression", "learner": name})
    return MetaParameters.fresh(settings, NET, "regression")


def tasks(n: int = 12, rows: int = 16) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(0)
    return (
        rng.normal(size=(n, rows, 2)).astype(np.float32),
        rng.normal(size=(n, rows)).astype(np.float32),
    )


@pytest.mark.parametrize("name", REGRESSORS)
def test_the_shares_of_the_layers_are_all_there_is(name: str) -> None:
    found = looked_at(name, *tasks())
    assert found.tasks == 12
    assert sum(layer.share for layer in found.layers) == pytest.approx(1.0)
    assert [layer.name for layer in found.layers[:2]] == ["layer 1 weights", "layer 1 biases"]
    moved = {layer.name.rpartition(" ")[0] for layer in found.layers if layer.share > 0}
    only = {"anil": {"layer 3"}, "r2d2": {"layer 3"}, "cavia": {"layer 1"}, "alpaca": {"layer 3"}}
    only["cavia_film"] = only["cavia"]
    only["matching"] = only["matching_context"] = {"layer 3"}
    assert moved == only.get(name, {"layer 1", "layer 2", "layer 3"})


def test_rates_are_those_of_every_layer() -> None:
    for layer in looked_at("meta_sgd", *tasks()).layers:
        assert layer.least == pytest.approx(0.1)
        assert layer.most == pytest.approx(0.1)
    frozen = looked_at("anil", *tasks()).layers
    assert [layer.most > 0 for layer in frozen] == [False] * 4 + [True] * 2
    assert all(math.isnan(layer.median) for layer in looked_at("cavia", *tasks()).layers)


def test_one_task_again_and_again_is_one_direction() -> None:
    x, y = tasks(1)
    found = looked_at("maml", np.repeat(x, 9, 0), np.repeat(y, 9, 0))
    assert found.directions == 1
    assert found.first == pytest.approx(1.0)
    assert found.likeness == pytest.approx(1.0)


def test_tasks_that_differ_in_two_ways_move_in_two_directions() -> None:
    """On one set of inputs a closed-form move is linear in the labels."""
    x, _ = tasks(1)
    rng = np.random.default_rng(1)
    ways, mix = rng.normal(size=(2, 16)), rng.normal(size=(40, 2))
    y = (mix @ ways).astype(np.float32)
    found = looked_at("r2d2", np.repeat(x, 40, 0), y)
    assert found.directions <= 2
    assert abs(found.likeness) < 0.2
    many = looked_at("r2d2", *tasks(40))
    assert many.directions > 2


@pytest.mark.parametrize("name", ["meta_sgd", "r2d2", "cavia"])
def test_outer_steps_learn_which_input_it_is_whose_meaning_differs(name: str) -> None:
    """Every task has another slope in the second input; nobody minds the first."""
    x, _ = tasks(40)
    slopes = np.random.default_rng(2).normal(size=(40, 1)).astype(np.float32)
    y, rows = 3 * slopes * x[:, :, 1], np.full(40, 8)
    meta = fresh(name)
    columns = {"left": [0], "right": [1]}
    before = {one.name: one.share for one in insight(name, meta, x, y, 1, columns).inputs}
    for _ in range(200):
        meta, _ = meta.update(pose(x, y, rows, rows, 8), 1)
    after = insight(name, meta, x, y, 1, columns).inputs
    assert before["right"] < 0.6
    assert (after[0].name, after[0].share > 0.8) == ("right", True)
    assert sum(one.share for one in after) == pytest.approx(1.0)


def test_inputs_are_told_by_the_names_of_features_and_labels_before() -> None:
    engine = Engine(config(NUMBERS, lags=2))
    run(engine, stream(NUMBERS, 200))
    for told in engine.insights():
        assert {one.name for one in told.inputs} == {"a", "b", "c", "label -1", "label -2"}
        assert sum(one.share for one in told.inputs) == pytest.approx(1.0)


def test_looking_changes_nothing_and_needs_a_task() -> None:
    engine = Engine(config(NUMBERS))
    assert engine.insights() == ()
    run(engine, stream(NUMBERS, 20))
    assert engine.insights() == ()
    run(engine, stream(NUMBERS, 300)[20:])
    before = image(engine)
    told = engine.insights()
    assert image(engine) == before
    assert [one.learner for one in told] == ["meta_sgd", "r2d2"]
    assert all(one.updates > 0 and one.tasks > 1 for one in told)
    assert all(1 <= one.directions <= one.tasks for one in told)
