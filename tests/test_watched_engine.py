"""What an engine tells those who watch it: its stages, delays, a frozen rival, and its evidence."""

from __future__ import annotations

import json
from statistics import fmean

import dashboard_stories as story
import pytest

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import SinkError
from streammeta.events import Event, Output, Scored
from streammeta.metrics import Metrics
from streammeta.runtime import ShardHost
from streammeta.runtime.host import Laps
from streammeta.scores import FROZEN_EVERY
from streammeta.sources import IterableSource
from streammeta.watching import compared


def turning(rows: int, switch: int) -> list[Event]:
    """Two classes that change places at a row."""
    events = []
    for i, text in enumerate(story.lines(rows)):
        if text.startswith('{"id": "q') and '"x"' in text:
            x = json.loads(text)["x"]
            high = (x["a"] + x["b"] > 0) != (len(events) >= switch)
            events.append(Event(f"e{i}", x, "high" if high else "low", ts=100.0 + i))
    return events


CONFIG = ModelConfig(task="classification", seed=1)


@pytest.fixture(scope="module")
def outputs() -> list[Output]:
    engine = Engine(CONFIG)
    found: list[Output] = []
    for event in turning(900, 500):
        found += engine.observe([event]) + engine.replay()
    return found


def test_the_frozen_rival_does_not_learn_what_comes_after_a_drift(outputs):
    scored = [o for o in outputs if isinstance(o, Scored)]
    told = [o for o in scored if o.frozen_loss is not None]
    assert len(told) == pytest.approx((900 - min(o.row for o in told)) / 4, abs=2)
    assert all(o.frozen_loss in (0.0, 1.0) for o in told)
    before = [o for o in told if 200 <= o.row < 500]
    after = [o for o in told if o.row >= 600]
    assert fmean(o.frozen_loss for o in before) < 0.2  # it had learned the world as it was
    assert fmean(o.frozen_loss for o in after) > 0.7  # and still answers by that
    assert fmean(o.loss for o in after) < 0.3
    assert not [o for o in told if o.row < 60]  # there was nothing to freeze yet


@pytest.mark.parametrize("step", [1, 2, 4, 7, 24, 100])
def test_every_key_and_every_hour_meets_the_frozen_rival(step):
    for first in range(step):
        rows = range(first, 20_000 * step, step)
        assert sum(map(compared, rows)) == pytest.approx(len(rows) / FROZEN_EVERY, rel=0.05)


def test_of_values_the_frozen_rival_has_an_absolute_error():
    engine = Engine(ModelConfig(task="regression", seed=1))
    found: list[Output] = []
    for event in turning(300, 1000):
        y = 100.0 + 3.0 * event.x["a"]
        found += engine.observe([Event(event.id, event.x, y)])
    errors = [o.frozen_loss for o in found if isinstance(o, Scored) and o.frozen_loss is not None]
    assert 0.0 < fmean(errors[-30:]) < 1.5


def test_the_delay_of_a_label_is_told_in_event_time_where_there_is_one():
    engine = Engine(CONFIG)
    engine.observe([Event("q", {"a": 1.0}, ts=50.0), Event("p", {"a": 1.0})])
    found = engine.observe([Event("q", y="high", ts=57.5), Event("p", y="low", ts=58.0)])
    assert [o.delay_seconds for o in found if isinstance(o, Scored)] == [7.5, None]


def test_an_engine_that_is_watched_gives_the_same_and_tells_its_stages(outputs):
    engine, stages = Engine(CONFIG), []
    engine.lap = stages.append
    found: list[Output] = []
    for event in turning(900, 500):
        found += engine.observe([event]) + engine.replay()
    assert found == outputs
    assert set(stages) == {"predict", "detect", "learn", "adapt"}


def test_evidence_rises_with_the_errors_and_falls_with_the_alarm():
    engine = Engine(CONFIG)
    seen = []
    for event in turning(600, 500):
        engine.observe([event])
        seen.append(engine.statistics().evidence["bank"])
    statistics = engine.statistics()
    assert {round(threshold, 2) for _, threshold in seen} == {11.51}
    calm, stirred = (max(value for value, _ in part) for part in (seen[200:500], seen[500:]))
    assert calm < 8 < stirred
    assert statistics.segments == 2
    assert statistics.contexts == 1
    assert 0 < statistics.segment_rows <= 110  # the onset is found within some rows


def host_of(events: list[Event], sinks=(), chunk: int = 1) -> tuple[ShardHost, Metrics]:
    metrics = Metrics("m", "classification")
    config = CONFIG.model_copy(update={"chunk": chunk})
    host = ShardHost(
        IterableSource(lambda: iter(events), "s"), lambda _: Engine(config), None, sinks,
        chunk=chunk, observer=metrics,
    )  # fmt: skip
    host.open()
    return host, metrics


def stage_counts(metrics: Metrics) -> dict[str, float]:
    name = "streammeta_stage_duration_seconds_count"
    of = (s for f in metrics.registry.collect() for s in f.samples if s.name == name)
    return {s.labels["stage"]: s.value for s in of}


def test_a_host_times_one_event_in_seven_and_every_larger_chunk():
    host, metrics = host_of(turning(210, 1000))
    while not host.finished():
        host.poll(64)
    counts = stage_counts(metrics)
    assert [counts[s] for s in ("predict", "detect", "learn", "adapt")] == [30, 30, 30, 30]
    assert counts["meta"] > 0
    assert "observe" not in counts
    host, metrics = host_of(turning(210, 1000), chunk=16)
    while not host.finished():
        host.poll(64)
    assert stage_counts(metrics)["predict"] == 14


def test_seven_meets_rows_of_every_cadence_alike():
    laps = Laps(1)
    timed = [row for row in range(7 * 64) if laps.due()]
    for cadence in (2, 4, 8, 32):
        places = [row % cadence for row in timed]
        assert {places.count(place) for place in range(cadence)} == {len(timed) // cadence}


class Full:
    """A disk that is."""

    name, durable = "full", False

    def open(self, resume_at):
        pass

    def write(self, outputs):
        raise SinkError("full: no space left on device")

    def position(self):
        return {}

    def flush(self):
        pass

    def close(self):
        pass


def test_records_that_could_not_be_written_are_counted_before_the_run_ends():
    host, metrics = host_of(turning(10, 1000), [Full()])
    with pytest.raises(SinkError, match="no space left"):
        host.poll(4)
    labels = {"sink": "full", "outcome": "failed"}
    found = metrics.registry.get_sample_value("streammeta_sink_records_total", labels)
    assert found is not None
    assert found >= 8
