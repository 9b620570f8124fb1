"""Who predicts is chosen by name: all kinds, one kind alone, all but one."""

from __future__ import annotations

import numpy as np
import pytest

from scenarios.models import build
from streammeta import core
from streammeta.config import EXPERTS, ModelConfig
from streammeta.engine import Engine
from streammeta.errors import ConfigError, UsageError
from streammeta.events import Event, Scored
from streammeta.experts.choosing import make_family
from streammeta.experts.family import Space
from streammeta.snapshot import Snapshot

#: What the members of each kind are called, up to what follows ``@`` or ``-``.
MEMBERS = {
    "networks": {"mlp", "replay"},
    "hats": {"hat"},
    "heads": {"head"},
    "memory": {"memory"},
    "trees": {"trees"},
    "archive": {"archive"},
    "persistence": {"persistence", "prior"},
}
#: A row at which models are told that a segment is over: the archive knows of nothing else.
OVER = 220
both_tasks = pytest.mark.parametrize("task", ["classification", "regression"])


def events(task: str, rows: int) -> list[Event]:
    """A label that hangs on two numbers; of three classes the last appears late."""
    rng, made = np.random.default_rng(0), []
    for row in range(rows):
        a, b = rng.normal(size=2)
        value = 2.0 * a - b
        kind = "up" if value > 0.0 else "down"
        y = value if task == "regression" else "far" if row > rows // 2 and value > 3.0 else kind
        made.append(Event(f"e{row}", {"a": a, "b": b}, y))
    return made


def built(name: str, task: str) -> Engine:
    engine = build(name, task=task, overrides={"known_drifts": (OVER,)})
    assert isinstance(engine, Engine)
    return engine


def told(engine: Engine, task: str, rows: int = OVER + 60) -> list[Scored]:
    return [o for o in engine.observe(events(task, rows)) if isinstance(o, Scored)]


def kinds(scored: Scored) -> set[str]:
    assert scored.experts is not None
    return {name.partition("@")[0].partition("-")[0] for name in scored.experts}


def test_the_kinds_that_are_tested_are_those_there_are() -> None:
    assert tuple(MEMBERS) == EXPERTS


@both_tasks
@pytest.mark.parametrize("name", EXPERTS)
def test_one_kind_predicts_alone(name: str, task: str) -> None:
    engine = built(f"expert.{name}", task)
    scored = told(engine, task)
    assert set().union(*map(kinds, scored)) == MEMBERS[name]
    assert scored[-1].prediction is not None
    losses = np.array([score.loss for score in scored])
    if name != "persistence":  # which knows nothing of a and b
        later = losses[OVER + 1 :].mean()
        assert later < 0.8 * losses[1:30].mean() or later < 0.15


@pytest.mark.parametrize("name", EXPERTS)
def test_all_but_one_kind_predict(name: str) -> None:
    engine = built(f"without@{name}", "classification")
    heard = set().union(*map(kinds, told(engine, "classification")))
    others = set().union(*(MEMBERS[other] for other in EXPERTS if other != name))
    assert not heard & (MEMBERS[name] - others)
    assert heard >= others
    assert {"challenger", "scout"} <= heard, "these stay, whoever goes"


@both_tasks
@pytest.mark.parametrize("chosen", [("memory",), ("persistence", "heads")])
def test_a_choice_survives_a_snapshot(chosen: tuple[str, ...], task: str) -> None:
    config = ModelConfig.model_validate({"task": task, "experts": chosen})
    engine, later = Engine(config), events(task, 160)[120:]
    told(engine, task, 120)
    kept = Snapshot.from_bytes(engine.snapshot().to_bytes())
    resumed = Engine.restore(config, kept)
    assert resumed.observe(later) == engine.observe(later)
    other = config.model_copy(update={"experts": EXPERTS})
    with pytest.raises(ConfigError, match="experts was"):
        Engine.restore(other, kept)


def test_a_wrong_name_is_told_with_the_nearest_right_one() -> None:
    with pytest.raises(ConfigError, match=r"model\.experts: .*'memoy'.*memory"):
        Engine(ModelConfig(task="regression", experts=("memoy",)))
    with pytest.raises(UsageError, match="memory"):
        build("expert.memoy", task="regression")
    with pytest.raises(UsageError, match="expected one of"):
        build("without@forest", task="regression")


class Halfway:
    """A family that somebody has begun to write."""

    names = ("halfway",)

    def __init__(self, space: object) -> None:
        pass

    def grow_keys(self, keys: int) -> None:
        pass


def test_of_a_family_that_is_not_finished_it_is_told_what_it_lacks() -> None:
    with pytest.raises(UsageError, match="Halfway lacks start, predict, learn, awake, close"):
        make_family("test_choosing_experts:Halfway", Space(2, 2, 1))


# -- River's estimators ------------------------------------------------------------------------

TREE = {
    "classification": "river.tree:HoeffdingTreeClassifier",
    "regression": "river.tree:HoeffdingTreeRegressor",
}


@both_tasks
def test_a_river_estimator_says_what_it_says_alone(task: str) -> None:
    engine = build(f"expert.{TREE[task]}", task=task)
    assert isinstance(engine, Engine)
    told(engine, task)
    (member,) = engine.state.families
    (estimator, *_) = member.estimators  # type: ignore[attr-defined]
    state, x = engine.state, events(task, 130)[-1].x
    assert x is not None
    raw, members, _, centre, scale, _ = core.predict(state, 0, [state.columns.row(x)])
    named = {f"c{c}": value for c, value in enumerate(raw[0].tolist()) if value == value}
    if task == "regression":
        assert centre + scale * members[0, 0, 0] == pytest.approx(estimator.predict_one(named))
    else:
        shares = estimator.predict_proba_one(named)
        expected = [shares.get(c, 0.0) for c in range(state.n_classes)]
        np.testing.assert_allclose(members[0, 0, : state.n_classes], expected, atol=1e-12)


@both_tasks
def test_it_takes_part_in_the_mixture_and_survives_a_snapshot(task: str) -> None:
    experts = ("heads", TREE[task], "persistence")
    config = ModelConfig.model_validate({"task": task, "experts": experts})
    engine, later = Engine(config), events(task, 160)[120:]
    heard = kinds(told(engine, task)[-1])
    assert any(name.startswith("river.HoeffdingTree") for name in heard), heard
    resumed = Engine.restore(config, Snapshot.from_bytes(engine.snapshot().to_bytes()))
    assert resumed.observe(later) == engine.observe(later)


def test_a_snapshot_of_another_river_is_refused_with_what_to_do() -> None:
    config = ModelConfig(task="regression", experts=(TREE["regression"],))
    engine = Engine(config)
    told(engine, "regression", 20)
    kept = engine.snapshot()
    (name,) = (name for name in kept.tensors if "/river-" in name)
    kept.tensors["river.HoeffdingTreeRegressor/river-0.1.0"] = kept.tensors.pop(name)
    with pytest.raises(ConfigError, match=r"made with river-0\.1\.0, this is river-.*--fresh"):
        Engine.restore(config, kept)


def test_an_estimator_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="HoeffdingTreeClassifier is no regressor"):
        Engine(ModelConfig(task="regression", experts=(TREE["classification"],)))
    with pytest.raises(ConfigError, match=r"model\.experts: .*NoTree"):
        Engine(ModelConfig(task="regression", experts=("river.tree:NoTree",)))
    with pytest.raises(ValueError, match="heads: named more than once"):
        ModelConfig(task="regression", experts=("heads", "heads"))


# -- MOCA ----------------------------------------------------------------------------------------


@both_tasks
def test_moca_takes_part_by_name_and_survives_a_snapshot(task: str) -> None:
    config = ModelConfig.model_validate({"task": task, "experts": ("heads", "moca")})
    assert "moca" not in ModelConfig(task="regression").experts
    engine, later = Engine(config), events(task, 160)[120:]
    assert "moca" in kinds(told(engine, task, 120)[-1])
    resumed = Engine.restore(config, Snapshot.from_bytes(engine.snapshot().to_bytes()))
    assert resumed.observe(later) == engine.observe(later)


@both_tasks
def test_moca_beside_the_default_model_moves_weight_by_what_it_said_before_the_label(
    task: str,
) -> None:
    engine = built("with@moca", task)
    heard = set().union(*map(kinds, told(engine, task, 40)))
    assert heard >= {"moca", "memory", "hat", "head"}
    asked = events(task, 41)[-1]
    assert asked.x is not None
    moca = engine.state.families[-1]
    before = {name: array.copy() for name, array in moca.tensors().items()}
    engine.observe([Event(asked.id, asked.x)])  # the question alone
    for name, array in moca.tensors().items():
        np.testing.assert_array_equal(array, before[name])
    engine.observe([Event(asked.id, y=asked.y)])
    after = moca.tensors()
    assert any(not np.array_equal(after[name], before[name]) for name in before)


def test_one_more_family_is_one_that_is_not_there_yet() -> None:
    with pytest.raises(UsageError, match="the default model has these already"):
        build("with@memory", task="regression")
    with pytest.raises(UsageError, match="did you mean moca"):
        build("with@mocca", task="regression")
    with pytest.raises(UsageError, match="expected a family, such as with@moca"):
        build("with", task="regression")
