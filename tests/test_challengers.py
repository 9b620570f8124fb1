"""Challengers and scouts: who is adapted, on which rows, from which meta-parameters."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from engine_stories import CLASSES, NUMBERS, both_tasks, config, of, run, stream
from learner_tasks import PAIRS
from torch import Tensor

from streammeta import challengers, core, mixture
from streammeta.challengers import SCOUT_SHARE, adapted
from streammeta.engine import Engine
from streammeta.errors import ConfigError
from streammeta.events import Adapted, DriftDetected, Event, MetaUpdated, Scored
from streammeta.meta.parameters import MetaParameters, PlainSteps, RidgeHead
from streammeta.pooling import ANSWER
from streammeta.registry import components
from streammeta.units import inputs, standard_targets

COMPILED = {
    "maml": PlainSteps,
    "fomaml": PlainSteps,
    "anil": PlainSteps,
    "meta_sgd": PlainSteps,
    "reptile": PlainSteps,
    "fine_tuning": PlainSteps,
    "r2d2": RidgeHead,
    "cavia": type(None),
    "cavia_film": type(None),
    "alpaca": type(None),
    "pcoc": type(None),
    "prototypical": type(None),
    "matching": type(None),
    "matching_context": type(None),
    "in_context": type(None),
    "meta_lstm": type(None),
    "learned_optimiser": type(None),
}


def unlike(meta: MetaParameters, rng: np.random.Generator) -> MetaParameters:
    """Every rate, ridge and weight another, so that none can stand in another's place."""

    def shaken(part: Tensor) -> Tensor:
        return part + torch.from_numpy(rng.normal(0.0, 0.3, part.shape)).to(part)

    parts = {name: shaken(getattr(meta.state, name)) for name in ("theta", "log_rates", "extra")}
    return replace(meta, state=meta.state._replace(**parts))


def test_the_table_of_compiled_learners_is_whole() -> None:
    assert set(COMPILED) == set(components("learners"))


@pytest.mark.parametrize("rows", [1, 3, 24, 200])
@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_compiled_adaptation_is_that_of_the_learner(name: str, rows: int, task: Any) -> None:
    rng = np.random.default_rng(rows)
    engine = Engine(config(task, learner=name, partner=None, hidden=(9, 7)))
    run(engine, stream(task, 40))
    state = engine.state
    meta = MetaParameters.fresh(engine.config, state.net, engine.task)
    meta = unlike(meta.matching(state.net, state.n_classes), rng)
    x = rng.normal(size=(rows, state.width)).astype(np.float32)
    y = rng.normal(size=rows).astype(np.float32)
    if task == CLASSES:
        y = rng.integers(0, state.n_classes, rows).astype(np.float32)
    for start in (None, state.net.init(rng)):
        assert isinstance(meta.plan(start), COMPILED[name])
        expected, _ = meta.adapt(x, y, state.n_classes, start)
        found = adapted(state, meta, x, y, start)
        assert found is not None
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        if name != "cavia":  # of which a row may reach no unit that is awake
            assert not np.array_equal(found, meta.start if start is None else start)


def test_options_that_no_kernel_knows_go_the_long_way() -> None:
    engine = Engine(config(NUMBERS, outer={"proximity": 0.5}))
    run(engine, stream(NUMBERS, 60))
    assert engine.meta is not None
    assert engine.meta.plan() is None
    assert engine.partner is not None, "the partner takes no inner steps and leaves them out"


@both_tasks
def test_scouts_hold_what_the_newest_rows_make_of_the_meta_parameters(task: Any) -> None:
    engine = Engine(config(task, scouts=(4, 12), scout_every=4, replay=False))
    events = stream(task, 60, drift=10_000)
    run(engine, events)
    state = engine.state
    names = [state.bank.names[slot] for slot in state.bank.scouts]
    assert names == ["scout-meta_sgd@4", "scout-meta_sgd@12", "scout-r2d2@4", "scout-r2d2@12"]
    before = state.bank.theta[0].copy()
    run(engine, stream(task, 61, drift=10_000)[60:])  # the 61st row: not their turn
    np.testing.assert_array_equal(state.bank.theta[0, state.bank.scouts], before[state.bank.scouts])
    run(engine, stream(task, 64, drift=10_000)[61:])
    for meta, slots in zip(
        engine.metas, (state.bank.scouts[:2], state.bank.scouts[2:]), strict=True
    ):
        for slot, window in zip(slots, (4, 12), strict=True):
            raw, targets = state.segment_rows.latest(0, window)
            assert len(raw) == window
            x, y = inputs(state, 0, raw), standard_targets(state, 0, targets)
            fitting = meta.matching(state.net, state.n_classes)
            expected = adapted(state, fitting, x, y, None)
            np.testing.assert_array_equal(state.bank.theta[0, slot], expected)


def test_a_scout_joins_with_a_small_share() -> None:
    engine = Engine(config(NUMBERS, scouts=(8,), scout_every=16))
    events = stream(NUMBERS, 32, drift=10_000)
    run(engine, events[:15])
    state = engine.state
    assert not state.bank.live[0, state.bank.scouts].any()
    (joined, _) = of(Adapted, run(engine, events[15:16]))[-2:]
    assert (joined.trigger, joined.support, joined.expert) == ("scout", 8, "scout-meta_sgd@8")
    shares = mixture.weights(state.log_weights[0], state.bank.live[0])
    np.testing.assert_allclose(shares[list(state.bank.scouts)], SCOUT_SHARE, rtol=0.05)
    assert (state.bank.births[0, state.bank.scouts] == state.rows).all()


@both_tasks
def test_detectors_listen_to_the_mixture_without_its_scouts(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scouts that know every label, and are believed, change no alarm."""
    events = stream(task, 320, drift=200)
    truth: list[Any] = [event.y for event in events]
    real = core.predict

    def knowing(state: Any, key: int, features: Any, moving: int) -> Any:
        raw, members, said, centre, scale, wild = real(state, key, features, moving)
        label, scouts = truth[state.rows], list(state.bank.scouts)
        if scouts and task == NUMBERS:
            members[0, scouts, 0] = said[0, ANSWER, 0] = (label - centre) / scale
        elif scouts and label in state.class_index:
            sure = np.eye(members.shape[2])[state.class_index[label]]
            members[0, scouts] = said[0, ANSWER] = sure
        return raw, members, said, centre, scale, wild

    found = {}
    for name, predict in (("plain", real), ("knowing", knowing)):
        monkeypatch.setattr(core, "predict", predict)
        outputs = run(Engine(config(task, challengers=2, replay=False)), events)
        alarms = [alarm.row for alarm in of(DriftDetected, outputs)]
        found[name] = alarms, np.mean([scored.loss for scored in of(Scored, outputs)[20:]])
    assert found["knowing"][1] < 0.2 * found["plain"][1], "they are right all the time"
    assert any(200 <= alarm < 260 for alarm in found["knowing"][0])


@both_tasks
def test_a_label_that_adds_no_row_wakes_no_scout(task: Any) -> None:
    engine = Engine(config(task, scout_every=1, known_drifts=(60,), detectors=()))
    events = stream(task, 90, drift=60)
    held = [dataclasses.replace(event, y=None) for event in events[40:50]]
    run(engine, [*events[:40], *held, *events[50:]])
    scouts = list(engine.state.bank.scouts)
    before = engine.state.bank.theta[0, scouts].copy()
    count = int(engine.state.segment_rows.count[0])
    late = [Event(event.id, y=event.y) for event in events[40:50]]
    assert of(Scored, run(engine, late))
    assert engine.state.segment_rows.count[0] == count
    np.testing.assert_array_equal(engine.state.bank.theta[0, scouts], before)


@both_tasks
def test_scouts_know_a_new_world_before_any_alarm(task: Any) -> None:
    """Related tasks follow each other; no detector runs, so only scouts can follow."""
    late: dict[tuple[int, ...], float] = {(): 0.0, (8, 24): 0.0}
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        events = []
        for row in range(3_000):
            if row % 50 == 0:
                slope = rng.choice([-1.0, 1.0], 2)
            x = rng.normal(size=2)
            score = float(slope @ x)
            y = score if task == NUMBERS else str(score > 0)
            events.append(Event(str(row), {"a": float(x[0]), "b": float(x[1])}, y))
        for scouts in late:
            engine = Engine(config(task, on_drift="ignore", scouts=scouts))
            losses = [scored.loss for scored in of(Scored, run(engine, events))]
            late[scouts] += np.mean(losses[2_000:])
    assert late[(8, 24)] < 0.92 * late[()], "the other experts follow at their own pace, too"


def test_the_partner_learns_beside_the_learner_and_is_told_apart() -> None:
    engine = Engine(config(NUMBERS))
    updates = of(MetaUpdated, run(engine, stream(NUMBERS, 300)))
    assert {u.learner for u in updates} == {"meta_sgd", "r2d2"}
    assert engine.meta is not None
    assert engine.partner is not None
    assert engine.meta.updates == engine.partner.updates == len(updates) / 2
    alone = Engine(config(NUMBERS, partner=None))
    outputs = run(alone, stream(NUMBERS, 300))
    assert {u.learner for u in of(MetaUpdated, outputs)} == {"meta_sgd"}
    assert alone.partner is None
    assert of(Adapted, outputs)


@pytest.mark.parametrize("name", ["r2d2", "meta_sgd"])
def test_a_learner_is_not_its_own_partner(name: str) -> None:
    engine = Engine(config(NUMBERS, learner=name, partner=name, scouts=(8, 4, 8)))
    outputs = run(engine, stream(NUMBERS, 120))
    names = engine.state.member_names
    assert len(set(names)) == len(names)
    assert [n for n in names if "scout" in n] == [f"scout-{name}@4", f"scout-{name}@8"]
    assert {u.learner for u in of(MetaUpdated, outputs)} == {name}
    assert engine.partner is None


@pytest.mark.parametrize(
    ("task", "words", "asked"),
    [
        (NUMBERS, r"model\.learner: r2d2: proximity",
         {"learner": "r2d2", "outer": {"proximity": 0.5}}),
        (CLASSES, r"model\.learner: alpaca predicts values", {"learner": "alpaca"}),
        (NUMBERS, r"model\.partner: pcoc tells classes apart; for values there is alpaca",
         {"partner": "pcoc"}),
    ],
)  # fmt: skip
def test_what_a_learner_cannot_do_is_said_before_the_first_event(
    task: Any, words: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=words):
        Engine(config(task, **asked))


def test_the_challenger_in_closed_form_is_solved_for_again_as_its_segment_grows() -> None:
    engine = Engine(config(NUMBERS, detectors=(), known_drifts=(100,)))
    found = [a for a in of(Adapted, run(engine, stream(NUMBERS, 400))) if a.segment == 1]
    first = [a.support for a in found if a.expert == found[0].expert]
    second = [a.support for a in found if a.expert == found[1].expert]
    assert first == [g for g in challengers.GROWTH if g <= 300]
    assert second == [g for g in challengers.GROWTH if g <= challengers.SETTLED]
    assert all(math.isfinite(a.loss_after) for a in found)


def test_no_outer_step_where_none_is_asked_for() -> None:
    engine = Engine(config(NUMBERS, meta_every=0))
    outputs = run(engine, stream(NUMBERS, 300))
    assert not of(MetaUpdated, outputs)
    assert of(Adapted, outputs)


def test_a_partner_that_does_not_exist_is_refused_before_the_first_event() -> None:
    with pytest.raises(ConfigError, match=r"model\.partner.*r2d2"):
        Engine(config(NUMBERS, partner="r2d3"))


def test_challengers_are_adapted_when_somebody_asks() -> None:
    engine = Engine(config("classification"))
    assert engine.adapt() == []  # there is no key yet
    run(engine, stream("classification", 40))
    before = engine.state.hosts[0].copy()
    outputs = engine.adapt()
    assert [o.trigger for o in of(Adapted, outputs)] == ["request", "request"]
    assert len(outputs) == 2
    assert {engine.state.bank.names[host] for host in engine.state.hosts[0]} == {
        o.expert for o in of(Adapted, outputs)
    }
    assert not set(before) & set(engine.state.hosts[0])  # the two that were least use
    assert engine.adapt("nobody") == []


@pytest.mark.parametrize("how", [{"freeze_at": 30}, {"challengers": 0}, {"on_drift": "reset"}])
def test_nobody_is_adapted_where_nobody_can_be(how: dict[str, Any]) -> None:
    engine = Engine(config("classification", **how))
    run(engine, stream("classification", 40))
    before = engine.snapshot().to_bytes()
    assert engine.adapt() == []
    assert engine.snapshot().to_bytes() == before
