"""What an engine's detectors listen to, and what it says about an alarm."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from engine_stories import CLASSES, NUMBERS, both_tasks, config, late, of, run, stream

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import DriftDetected, Event, Label, to_record
from streammeta.reference import FIRST
from streammeta.watching import LATE


def turning(segments: int, length: int, seed: int = 0, task: str = CLASSES) -> list[Event]:
    """A world that turns round and back again at every segment."""
    rng = np.random.default_rng(seed)
    events = []
    for i in range(segments * length):
        a, b = rng.normal(size=2)
        sign = 1.0 if (i // length) % 2 == 0 else -1.0
        score = sign * (a - 0.5 * b)
        # where values can be told exactly, residuals fall without end and tell of nothing else
        noise = rng.normal() if task == NUMBERS else 0.0
        y: Label = float(10.0 * score + noise) if task == NUMBERS else "up" if score > 0 else "down"
        events.append(Event(f"e{i}", {"a": float(a), "b": float(b)}, y, ts=float(i)))
    return events


@both_tasks
def test_a_change_is_explained_and_the_way_back_is_known(task: str) -> None:
    engine = Engine(config(task))
    raised = of(DriftDetected, run(engine, turning(4, 400, task=task)))
    alarms = [alarm for alarm in raised if alarm.row % 400 < 50]
    assert [alarm.row // 400 for alarm in alarms] == [1, 2, 3]
    assert len(raised) == len(alarms)
    told = [alarm.explanation for alarm in alarms]
    assert all(one is not None for one in told)
    assert [one.shape for one in told if one] == ["abrupt"] * 3
    assert [one.moved for one in told if one] == [()] * 3  # it is what features mean that changed
    assert told[0] is not None
    assert told[0].context in ("new", "")
    third = told[2]  # back to where the second segment was
    assert third is not None
    assert third.context in ("known", "")  # "": too few rows since the onset to say
    if third.context:
        assert third.like == 1
    contexts = engine.state.references.contexts[0]
    assert contexts
    assert all(np.isfinite(c.loss).all() for c in contexts)


def test_what_moved_is_named_with_its_quantiles() -> None:
    events = turning(2, 400, seed=1)  # whose errors before the change are not by chance near it
    for event in events[400:]:
        assert event.x is not None
        event.x = {**event.x, "b": float(event.x["b"] or 0.0) + 4.0}
    alarms = of(DriftDetected, run(Engine(config(CLASSES)), events))
    (moved,) = next(a.explanation.moved for a in alarms if a.row >= 400 and a.explanation)
    assert moved.feature == "b"
    assert 2.5 < moved.effect < 6.0
    assert moved.before[1] < 1.0 < 3.0 < moved.after[1]


def test_an_alarm_can_be_written_as_json() -> None:
    outputs = run(Engine(config(CLASSES)), turning(2, 300))
    (alarm,) = of(DriftDetected, outputs)
    record = json.loads(json.dumps(to_record(alarm)))
    assert record["kind"] == "drift_detected"
    assert record["explanation"]["shape"] == "abrupt"
    assert set(record["explanation"]["votes"]) == {
        "error", "brier", "reference", "features", "predictions",
    }  # fmt: skip


@both_tasks
def test_the_reference_is_frozen_anew_when_a_segment_has_doubled(task: str) -> None:
    engine, seen = Engine(config(task)), []
    for event in stream(task, 5 * FIRST, drift=10**9):
        run(engine, [event])
        age = engine.state.references.about[0, 0]
        if not seen or seen[-1] != age:
            seen.append(age)
    assert seen == [0, FIRST, 2 * FIRST, 4 * FIRST]


def test_a_reference_learns_nothing_from_later_rows() -> None:
    engine = Engine(config(CLASSES))
    events = stream(CLASSES, 2 * FIRST - 1, drift=10**9)
    run(engine, events[: FIRST + 1])
    frozen = engine.state.references.theta[0].copy()
    run(engine, events[FIRST + 1 :])
    assert (engine.state.references.theta[0] == frozen).all()


def moving(rows: int, at: int) -> list[Event]:
    """Features that move while what they mean stays."""
    rng = np.random.default_rng(3)
    events = []
    for i in range(rows):
        a, b = rng.normal(size=2) + (3.0 if i >= at else 0.0)
        events.append(Event(f"e{i}", {"a": float(a), "b": float(b)}, "up" if a > b else "down"))
    return events


def test_while_labels_are_late_features_speak_up_and_only_then() -> None:
    events = moving(1200, 700)
    in_time = of(DriftDetected, run(Engine(config(CLASSES)), events))
    assert not [a for a in in_time if a.signal in ("features", "predictions")]
    delay = 3 * LATE
    alarms = of(DriftDetected, run(Engine(config(CLASSES)), late(events, delay)))
    first = alarms[0]
    assert first.signal in ("features", "predictions")
    assert 700 < first.row < 700 + delay  # before any label from behind the change has come
    assert abs(first.onset - 700) <= 16
    assert first.explanation is not None
    assert {m.feature for m in first.explanation.moved} == {"a", "b"}


@both_tasks
@pytest.mark.parametrize("cut", [150, 430])
def test_contexts_and_votes_survive_a_restart(task: str, cut: int) -> None:
    events = turning(3, 300, task=task)
    whole = Engine(config(task))
    expected = run(whole, events)
    before = Engine(config(task))
    first = run(before, events[:cut])
    after = Engine.restore(before.config, before.snapshot())
    assert [to_record(o) for o in first + run(after, events[cut:])] == [
        to_record(o) for o in expected
    ]
    assert len(of(DriftDetected, expected)) == 2
    one, other = after.snapshot(), whole.snapshot()
    assert one.blobs == other.blobs
    for name, array in other.tensors.items():
        assert np.array_equal(one.tensors[name], array, equal_nan=True), name


def test_rarer_false_alarms_can_be_asked_for() -> None:
    events = turning(2, 300)
    rows = [
        of(DriftDetected, run(Engine(config(CLASSES, false_alarm_every=every)), events))[0].row
        for every in (1_000, 1_000_000)
    ]
    assert 300 <= rows[0] < rows[1]


def test_named_detectors_take_the_place_of_the_bank() -> None:
    events = turning(2, 300)
    alarms = of(DriftDetected, run(Engine(config(CLASSES, detectors=("cusum",))), events))
    assert {alarm.detector for alarm in alarms} == {"cusum"}
    assert all(a.explanation is not None and a.explanation.shape == "" for a in alarms)
    both = of(DriftDetected, run(Engine(config(CLASSES, detectors=("bank", "cusum"))), events))
    assert both[0].row <= alarms[0].row


def test_known_drifts_need_no_explanation() -> None:
    known = ModelConfig.model_validate({**config(CLASSES).model_dump(), "known_drifts": (300,)})
    (alarm,) = of(DriftDetected, run(Engine(known), turning(2, 300)))
    assert (alarm.row, alarm.detector, alarm.explanation) == (300, "known", None)


def test_keys_have_contexts_of_their_own() -> None:
    calm, wild = turning(1, 600, seed=1), turning(2, 300, seed=2)
    events = [
        dataclasses.replace(event, id=f"{key}{event.id}", key=key)
        for pair in zip(calm, wild, strict=True)
        for key, event in zip(("calm", "wild"), pair, strict=True)
    ]
    engine = Engine(config(CLASSES))
    alarms = of(DriftDetected, run(engine, events))
    assert {alarm.key for alarm in alarms} == {"wild"}
    assert set(engine.state.references.contexts) <= {engine.state.keys["wild"]}
