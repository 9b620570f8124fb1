"""Bad input: every fault becomes a ``Rejected`` output; the loop goes on as if it never came."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from engine_stories import (
    CLASSES,
    NUMBERS,
    both_tasks,
    config,
    image,
    of,
    records,
    run,
    stream,
)

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import ConfigError
from streammeta.events import Event, LabelExpired, Predicted, Rejected, Scored


def survives(task: str, bad: Event, reason: str, *, chunk: int = 1) -> None:
    """``bad`` is rejected, and the rest goes on as if it had never come."""
    events = stream(task, 40)
    engine, twin = Engine(config(task, chunk=chunk)), Engine(config(task, chunk=chunk))
    run(engine, events[:20])
    run(twin, events[:20])
    outputs = engine.observe([bad]) + engine.replay()
    assert [(o.id, o.reason) for o in of(Rejected, outputs)] == [(bad.id, reason)]
    assert len(outputs) == 1
    assert of(Rejected, outputs)[0].detail
    assert records(run(engine, events[20:])) == records(run(twin, events[20:]))


X = {"a": 1.0, "b": 2.0, "c": "red"}
BAD_ANYWHERE: list[tuple[str, Event, str]] = [
    ("unreadable", Event("bad", error=("malformed", "line 4: 3 fields, expected 5")), "malformed"),
    ("empty", Event("bad"), "malformed"),
    ("infinite", Event("bad", {**X, "a": math.inf}, 1.0), "not_finite"),
    ("nested", Event("bad", {**X, "a": [1]}, 1.0), "wrong_type"),  # type: ignore[dict-item]
    ("word", Event("bad", {**X, "a": "warm"}, 1.0), "wrong_type"),
    ("nan label", Event("bad", X, math.nan), "not_finite"),
    ("nan late label", Event("bad", y=math.nan), "not_finite"),
    ("unmatched", Event("bad", y=1.0), "unknown_label"),
    ("list label", Event("bad", X, [1.0]), "wrong_type"),  # type: ignore[arg-type]
    ("dict late label", Event("bad", y={"v": 1}), "wrong_type"),  # type: ignore[arg-type]
    ("endless integer", Event("bad", X, 10**400), "not_finite"),
]
BAD_NUMBERS: list[tuple[str, Event, str]] = [
    ("word label", Event("bad", X, "high"), "wrong_type"),
    ("late word label", Event("bad", y="high"), "wrong_type"),
    ("overflowing label", Event("bad", X, 1e200), "not_finite"),
]


@both_tasks
@pytest.mark.parametrize(
    ("bad", "reason"), [pytest.param(e, r, id=name) for name, e, r in BAD_ANYWHERE]
)
def test_a_bad_event_is_rejected_and_leaves_no_trace(task: str, bad: Event, reason: str) -> None:
    survives(task, bad, reason)


@pytest.mark.parametrize(
    ("bad", "reason"), [pytest.param(e, r, id=name) for name, e, r in BAD_NUMBERS]
)
def test_a_bad_number_is_rejected_and_leaves_no_trace(bad: Event, reason: str) -> None:
    survives(NUMBERS, bad, reason)


@both_tasks
@pytest.mark.parametrize("label", [math.nan, math.inf, [1.0]])
def test_a_bad_late_label_leaves_its_question_waiting(task: str, label: Any) -> None:
    engine = Engine(config(task))
    events = stream(task, 21)
    run(engine, events[:20])
    run(engine, [dataclasses.replace(events[20], y=None)])
    before = image(engine)
    (rejected,) = engine.observe([Event("e20", y=label)])
    assert isinstance(rejected, Rejected)
    assert image(engine) == before
    assert [s.id for s in of(Scored, run(engine, [Event("e20", y=events[20].y)]))] == ["e20"]


def test_a_stream_that_begins_badly_is_not_shaped_by_it() -> None:
    engine, twin = Engine(config(CLASSES)), Engine(config(CLASSES))
    bad = [
        Event("0", {"junk": [1]}, "up"),  # type: ignore[dict-item]
        Event("1", {f"j{i}": math.inf for i in range(50)}, "up"),
        Event("2", error=("malformed", "no header")),
        Event("3", y="up"),
    ]
    assert len(of(Rejected, run(engine, bad))) == 4
    events = stream(CLASSES, 30)
    assert records(run(engine, events)) == records(run(twin, events))
    assert image(engine) == image(twin)


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_question_that_is_waiting_is_not_asked_twice(chunk: int) -> None:
    engine = Engine(config(CLASSES, chunk=chunk))
    one, two = Event("a", {"v": 1.0}), Event("a", {"v": 2.0})
    outputs = engine.observe([one, two])
    assert [r.reason for r in of(Rejected, outputs)] == ["duplicate_id"]
    assert len(of(Predicted, outputs)) == 1
    scored = of(Scored, engine.observe([Event("a", y="up")]))
    assert [s.id for s in scored] == ["a"]
    (again,) = engine.observe([Event("a", {"v": 2.0}, "up")])  # delivered twice
    assert isinstance(again, Rejected)
    assert again.reason == "duplicate_id"


def test_a_label_counts_once() -> None:
    engine = Engine(config(CLASSES))
    run(engine, [Event("a", {"v": 1.0}), Event("a", y="up")])
    (again,) = run(engine, [Event("a", y="up")])
    assert isinstance(again, Rejected)
    assert again.reason == "duplicate_label"


def test_wild_numbers_do_not_poison_the_model() -> None:
    engine = Engine(config(NUMBERS))
    events = stream(NUMBERS, 120, drift=999)
    wild = [1e99, -1e99, 1e30, 0.0, 1e-300]
    for i, value in enumerate(wild):
        assert events[20 + i].x is not None
        events[20 + i] = dataclasses.replace(events[20 + i], x={**X, "a": value})
    outputs = run(engine, events)
    assert all(math.isfinite(p.prediction) for p in of(Predicted, outputs))  # type: ignore[arg-type]
    assert np.isfinite(engine.state.bank.theta).all()


def test_a_clock_that_says_nonsense_expires_nothing() -> None:
    engine = Engine(config(CLASSES, label_ttl=10.0))
    run(engine, [Event("a", {"v": 1.0}, ts=0.0)])
    outputs = run(
        engine, [Event("b", {"v": 1.0}, ts=math.nan), Event("c", {"v": 1.0}, ts=math.inf)]
    )
    assert of(LabelExpired, outputs) == []
    assert [e.id for e in of(LabelExpired, run(engine, [Event("d", {"v": 1.0}, ts=99.0)]))] == ["a"]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"detectors": ("adwinn",)}, "adwin"),
        ({"learner": "mamml"}, "maml"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"task": "auto"}, "classification"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_before_anything_starts(
    wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        Engine(ModelConfig(**{"task": "classification", **wrong}))
