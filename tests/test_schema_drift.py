"""Features appear, vanish and change their type, categories and classes are new, units explode: all
of it is learned with, and told."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from engine_stories import CLASSES, NUMBERS, config, image, of, run, stream

from streammeta.encode import (
    CHANGED_TYPE,
    GRACE,
    MAX_NAMES,
    TOLD_EVERY,
    VANISHED,
    ColumnMap,
)
from streammeta.engine import Engine
from streammeta.errors import RejectedEvent
from streammeta.events import Event, Predicted, Rejected, SchemaChanged, Scored
from streammeta.metrics import Metrics


def told(outputs) -> list[tuple[str, str]]:
    return [(o.change, o.feature) for o in of(SchemaChanged, outputs)]


def row_of(rng: random.Random, **more) -> dict:
    return {"a": rng.gauss(0, 1), "b": rng.random(), **more}


def learn(engine: Engine, n: int, change=lambda x: x, seed: int = 1) -> list:
    """Rows of which ``a`` decides the label."""
    rng, outputs = random.Random(seed), []
    for _ in range(n):
        x = row_of(rng)
        y = "up" if x["a"] > 0 else "down"
        outputs += engine.observe([Event(f"{engine.state.rows}", change(x), y)]) + engine.replay()
    return outputs


def cheap(task: str = CLASSES, **more) -> Engine:
    small = {"experts": ("networks",), "challengers": 0, "scouts": (), "partner": None}
    return Engine(config(task, **small, **more))


def test_a_feature_that_appears_is_told_and_learned_from() -> None:
    engine = cheap()
    learn(engine, 300, lambda x: {"b": x["b"]})
    outputs = learn(engine, 600, seed=2)
    assert told(outputs) == [("feature_added", "a")]
    assert np.mean([s.loss for s in of(Scored, outputs)[-150:]]) < 0.2  # b alone says nothing


def test_a_feature_that_vanishes_is_told_once_and_so_is_its_return() -> None:
    engine = cheap()
    learn(engine, 50)
    outputs = learn(engine, VANISHED + 200, lambda x: {"b": x["b"]})
    assert told(outputs) == [("feature_vanished", "a")]
    assert of(SchemaChanged, outputs)[0].row == 50 + VANISHED
    assert told(learn(engine, 50)) == [("feature_returned", "a")]
    assert not of(Rejected, outputs)


def test_a_feature_that_is_null_for_long_has_vanished_and_one_that_often_is_has_not() -> None:
    rng, columns = random.Random(3), ColumnMap()
    columns.row({"a": 1.0, "rare": 1.0})
    for _ in range(3 * VANISHED):
        columns.row({"a": 1.0, "rare": 1.0 if rng.random() < 0.1 else None})
    assert columns.take_changes() == []
    for _ in range(VANISHED + 1):
        columns.row({"a": 1.0, "rare": None})
    assert [(c.kind, c.feature) for c in columns.take_changes()] == [("feature_vanished", "rare")]


def test_words_where_numbers_were_are_refused_until_they_have_come_to_stay() -> None:
    engine = cheap()
    learn(engine, 300)
    as_word = lambda x: {**x, "a": "high" if x["a"] > 0 else "low"}  # noqa: E731
    outputs = learn(engine, 400, as_word, seed=2)
    refused = of(Rejected, outputs)
    assert [r.reason for r in refused] == ["wrong_type"] * (CHANGED_TYPE - 1)
    assert ("type_changed", "a") in told(outputs)
    assert np.mean([s.loss for s in of(Scored, outputs)[-100:]]) < 0.1
    assert not of(Rejected, learn(engine, 50, seed=3))  # and numbers are welcome again


def test_a_word_now_and_then_never_becomes_a_type() -> None:
    columns = ColumnMap()
    for i in range(10 * CHANGED_TYPE):
        columns.row({"a": float(i)})
        with pytest.raises(RejectedEvent):
            columns.row({"a": "broken"})
    assert columns.take_changes() == []
    assert columns.blocks == {}


def test_numbers_that_a_sender_has_begun_to_quote_are_numbers() -> None:
    columns = ColumnMap()
    columns.row({"a": 1.0})
    assert columns.row({"a": " -2.5e1 "})[columns.numeric["a"]] == -25.0
    for text in ("", "nan", "1_0", "0x1", "1.2.3", "high"):
        with pytest.raises(RejectedEvent, match="expected a number"):
            columns.row({"a": text})


def test_numbers_where_words_were_become_numbers_when_they_have_come_to_stay() -> None:
    columns = ColumnMap()
    for word in ("low", "high") * 20:
        columns.row({"a": word, "b": 1.0})
    for i in range(CHANGED_TYPE + 1):
        row = columns.row({"a": i + 0.25, "b": 1.0})
    assert [c.kind for c in columns.take_changes()] == ["type_changed"]
    assert row[columns.numeric["a"]] == CHANGED_TYPE + 0.25
    assert columns.row({"a": "low", "b": 1.0})[columns.blocks["a"][0]] == 1.0
    assert set(columns.columns()["a"]) >= {columns.numeric["a"], columns.blocks["a"][0]}


def test_unseen_categories_and_classes_are_told_once_the_first_ones_are_known() -> None:
    engine = cheap()
    rng = random.Random(1)
    outputs = []
    for i in range(GRACE + 100):
        days = ("mon", "tue", "wed") if i < GRACE + 20 else ("mon", "sat")
        label = rng.choice(["x", "y"] if i < GRACE + 50 else ["x", "y", "z"])
        outputs += run(engine, [Event(str(i), {"day": rng.choice(days), "v": 1.0}, label)])
    assert told(outputs) == [("category_added", "day"), ("class_added", "")]
    assert "'sat'" in of(SchemaChanged, outputs)[0].detail
    assert "'z'" in of(SchemaChanged, outputs)[1].detail
    assert of(Predicted, outputs)[-1].probabilities.keys() == {"x", "y", "z"}


@pytest.mark.parametrize("factor", [1e3, 1e12])
def test_a_unit_that_explodes_is_clipped_told_and_followed(factor: float) -> None:
    engine = cheap()
    learn(engine, 500)
    spread = engine.state.spreads[0, engine.state.columns.numeric["a"]]
    outputs = learn(engine, TOLD_EVERY - 100, lambda x: {**x, "a": x["a"] * factor}, seed=2)
    assert told(outputs) == [("value_clipped", "a")]
    assert "usual is" in of(SchemaChanged, outputs)[0].detail
    assert not of(Rejected, outputs)
    assert all(s.log_loss < 40 for s in of(Scored, outputs))
    assert np.isfinite(engine.state.bank.theta).all()
    assert np.mean([s.loss for s in of(Scored, outputs)[-300:]]) < 0.2  # the sign says it all
    assert engine.state.spreads[0, engine.state.columns.numeric["a"]] > 10 * spread


def test_one_wild_number_does_not_blind_a_feature() -> None:
    engine, twin = cheap(), cheap()
    learn(engine, 300)
    learn(twin, 300)
    outputs = engine.observe([Event("wild", {"a": 1e99, "b": 0.5}, "up")])
    assert told(outputs) == [("value_clipped", "a")]
    ours = np.mean([s.loss for s in of(Scored, learn(engine, 200, seed=4))])
    theirs = np.mean([s.loss for s in of(Scored, learn(twin, 200, seed=4))])
    assert ours <= theirs + 0.02


def test_a_target_whose_unit_explodes_is_told_and_followed() -> None:
    engine = cheap(NUMBERS)
    events = stream(NUMBERS, 800, drift=10**6)
    run(engine, events[:300])
    outputs = []
    for event in events[300:]:
        outputs += run(engine, [Event(event.id, event.x, event.y * 1e6)])
    assert ("value_clipped", "") in told(outputs)
    scored = of(Scored, outputs)
    assert all(math.isfinite(s.loss) for s in scored)
    first, last = (np.mean([s.loss for s in part]) for part in (scored[:50], scored[-50:]))
    assert last < first / 2


def test_names_are_bounded_however_many_a_sender_makes_up() -> None:
    columns = ColumnMap()
    columns.row({"a": 1.0})
    width = columns.width
    for first in range(0, 3 * MAX_NAMES, 256):
        row = columns.row({f"n{first + i}": 1.0 for i in range(256)} | {f"w{first}": "x"})
        assert row.shape == (width,)
    assert len(columns.numeric) + len(columns.blocks) == MAX_NAMES
    assert columns.row({"a": 7.0})[columns.numeric["a"]] == 7.0


def test_classes_are_bounded_and_a_class_too_many_is_a_dead_letter(monkeypatch) -> None:
    monkeypatch.setattr("streammeta.core.MAX_CLASSES", 9)
    engine = cheap()
    outputs = run(engine, [Event(str(i), {"v": 1.0}, f"id-{i}") for i in range(12)])
    assert [o.reason for o in of(Rejected, outputs)] == ["too_many_classes"] * 3
    assert len(of(Scored, run(engine, [Event("again", {"v": 1.0}, "id-3")]))) == 1


def test_changes_are_counted_by_kind_and_survive_a_restart() -> None:
    metrics, engine = Metrics("m", "classification"), cheap()
    outputs = learn(engine, 60) + learn(engine, 100, lambda x: {"b": x["b"], "c": 1.0})
    resumed = Engine.restore(engine.config, engine.snapshot())
    rest = [learn(e, VANISHED, lambda x: {"b": x["b"], "c": 1.0}) for e in (engine, resumed)]
    assert told(rest[0]) == told(rest[1]) == [("feature_vanished", "a")]
    assert image(engine) == image(resumed)
    metrics.record(outputs + rest[0])
    get = metrics.registry.get_sample_value
    for kind in ("feature_added", "feature_vanished"):
        assert get("streammeta_schema_changes_total", {"kind": kind}) == 1


def test_a_row_that_is_only_looked_at_tells_nothing() -> None:
    columns = ColumnMap()
    columns.row({"a": 1.0})
    before = columns.to_info()
    for _ in range(2 * VANISHED):
        columns.row({"b": 2.0, "c": "x"}, grow=False)
    assert columns.to_info() == before
    assert columns.take_changes() == []
