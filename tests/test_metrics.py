"""Metrics: outputs become the agreed names; the server speaks to Prometheus and to probes."""

from __future__ import annotations

import json
import math
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from drift import Explanation, Moved
from scenarios import metrics_cost
from streammeta.errors import UsageError
from streammeta.events import (
    Adapted,
    DriftDetected,
    LabelExpired,
    MetaUpdated,
    Predicted,
    Rejected,
    SchemaChanged,
    Scored,
    TaskClosed,
)
from streammeta.metrics import Metrics, MetricsServer, tally
from streammeta.metrics.families import DURATIONS
from streammeta.metrics.recorder import memory
from streammeta.metrics.tally import Spread

MOVED = Moved("temp", 2.0, (0.0, 1.0, 2.0), (2.0, 3.0, 4.0))
EXPLAINED = Explanation({"brier": 12.5}, (MOVED,), (100, 60), "gradual", 48, "known", 0)


class FakeStatistics(NamedTuple):
    rows: int = 600
    pending: int = 3
    segments: int = 2
    tasks: int = 40
    weights: dict[str, float] = {"bank": 0.75, "challenger": 0.25}  # noqa: RUF012
    inner_lr: tuple[float, float, float] = (0.01, 0.1, 0.2)
    segment_rows: int = 70
    contexts: int = 4
    evidence: dict[str, tuple[float, float]] = {"bank": (2.5, 11.5)}  # noqa: RUF012


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"streammeta_{name}", labels)


def ask(i: int, guess, key: str = "") -> Predicted:
    return Predicted(f"f:0:{i}", key, i, 100.0 + i, guess)


def tell(i: int, guess, truth, key: str = "", delay: int = 0) -> Scored:
    loss = float(guess != truth) if isinstance(truth, str) else abs(guess - truth)
    return Scored(f"f:0:{i}", key, i, truth, guess, loss, loss, delay)


def test_a_run_is_counted_under_the_agreed_names():
    metrics = Metrics("default", "classification", wall=lambda: 1234.0)
    metrics.ingested("elec2.csv", 7, 105.0)
    metrics.record([
        ask(0, None), tell(0, "a", "b"), ask(1, "b"), tell(1, "b", "b"), ask(2, "b"),
        DriftDetected("", 2, 1, 1, "adwin", "error"),
        DriftDetected("", 3, 1, 2, "bank", "brier", EXPLAINED),
        TaskClosed("", 2, 0, 32),
        Adapted("", 2, 1, "challenger@2", "drift", 16, 0.9, 0.4),
        MetaUpdated(2, 1, 16, 0.5, 1.5, 0, "maml"),
        Rejected("f:0:3", "decode", "malformed", "..."),
        LabelExpired("f:0:2", "", 2, "ttl"),
    ])  # fmt: skip
    metrics.sample(FakeStatistics())
    metrics.stage("observe", 2e-4)
    metrics.committed("ok", 4096)
    metrics.committed("fenced", 0)
    metrics.delivered("out.jsonl", 3)
    expected = {
        ("build_info", "version:0.1.0", "model:default", "task:classification"): 1,
        ("events_ingested_total", "source:elec2.csv"): 7,
        ("events_processed_total", "stage:predict"): 3,
        ("events_processed_total", "stage:learn"): 2,
        ("events_rejected_total", "stage:decode", "reason:malformed"): 1,
        ("last_event_timestamp_seconds", "stage:ingest"): 105,
        ("last_event_timestamp_seconds", "stage:predict"): 102,
        ("stage_duration_seconds_bucket", "stage:observe", "le:0.0001"): 0,
        ("stage_duration_seconds_bucket", "stage:observe", "le:0.0003"): 1,
        ("labels_joined_total",): 2,
        ("label_delay_events_count",): 2,
        ("predictions_pending_labels",): 3,
        ("predictions_expired_total",): 1,
        ("prequential_loss", "window:cumulative"): 0.5,
        ("prequential_accuracy_ratio", "window:rolling"): 0.5,
        ("baseline_loss", "baseline:no_change"): 0,
        ("drift_detections_total", "detector:adwin", "signal:error", "severity:alarm"): 1,
        ("drift_detections_total", "detector:bank", "signal:brier", "severity:alarm"): 1,
        ("drift_evidence_nats", "signal:brier"): 12.5,
        ("drift_width_rows",): 48,
        ("drift_features_moved",): 1,
        ("concept_lookups_total", "outcome:known"): 1,
        ("last_drift_timestamp_seconds",): 1234,
        ("segments_total",): 2,
        ("adaptations_total", "trigger:drift", "outcome:better"): 1,
        ("adaptation_loss", "phase:before"): 0.9,
        ("adaptation_loss", "phase:after"): 0.4,
        ("meta_updates_total", "learner:maml"): 1,
        ("meta_loss", "learner:maml"): 0.5,
        ("meta_gradient_norm", "learner:maml"): 1.5,
        ("inner_learning_rate", "stat:mean"): 0.1,
        ("expert_weight", "family:bank"): 0.75,
        ("replay_memory_tasks",): 40,
        ("archive_contexts",): 4,
        ("segment_events",): 70,
        ("drift_statistic", "detector:bank"): 2.5,
        ("drift_threshold", "detector:bank"): 11.5,
        ("checkpoints_total", "outcome:ok"): 1,
        ("checkpoints_total", "outcome:fenced"): 1,
        ("checkpoint_last_success_timestamp_seconds",): 1234,
        ("checkpoint_size_bytes",): 4096,
        ("sink_records_total", "sink:out.jsonl", "outcome:ok"): 3,
    }
    found = {
        (name, *labels): value(metrics, name, **dict(one.split(":") for one in labels))
        for name, *labels in expected
    }
    assert found == expected


def test_regression_shows_absolute_errors_and_a_rolling_window_forgets():
    metrics = Metrics("m", "regression")
    for i in range(2000):
        guess = 10.0 if i < 1000 else 1.0
        metrics.record([ask(i, guess), tell(i, guess, float(i % 2))])
    assert value(metrics, "prequential_absolute_error", window="rolling") == pytest.approx(0.5)
    assert value(metrics, "prequential_loss", window="cumulative") == pytest.approx(5.0)
    assert value(metrics, "baseline_loss", baseline="no_change") == 1.0
    assert value(metrics, "prequential_accuracy_ratio", window="rolling") is None


def test_no_change_knows_only_the_labels_that_had_arrived_and_only_its_own_key():
    metrics = Metrics("m", "classification")
    metrics.record([ask(0, "x", "p"), tell(0, "x", "a", "p"), ask(1, "x", "q")])
    metrics.record([tell(1, "x", "b", "q")])
    assert value(metrics, "baseline_loss", baseline="no_change") is None
    # both asked while "a" was the last label of p; the first answer is news to nobody else
    metrics.record([ask(2, "x", "p"), ask(3, "x", "p")])
    metrics.record([tell(2, "x", "b", "p", 1), tell(3, "x", "b", "p", 1)])
    assert value(metrics, "baseline_loss", baseline="no_change") == 1.0


def test_label_values_stay_few_however_many_families_there_are():
    metrics = Metrics("m", "regression")
    metrics.sample(FakeStatistics(weights={f"family{i:02d}": 0.05 for i in range(20)}))
    samples = [s for f in metrics.registry.collect() for s in f.samples if "family" in s.labels]
    assert len(samples) == 10
    assert sum(s.value for s in samples) == pytest.approx(1.0)


def test_what_is_known_beforehand_is_there_from_the_start_with_nothing_counted():
    metrics = Metrics("m", "regression", learners=("meta_sgd", "r2d2"), detectors=("bank",))
    metrics.begins("ticks", [Named("out"), Retrying("queue", 0)], checkpoints=True)
    nothing = {
        ("events_ingested_total", "source:ticks"),
        ("events_processed_total", "stage:learn"),
        ("events_rejected_total", "stage:decode", "reason:not_finite"),
        ("labels_unmatched_total", "reason:late"),
        ("drift_detections_total", "detector:bank", "signal:ratio", "severity:alarm"),
        ("drift_detections_total", "detector:bank", "signal:features", "severity:alarm"),
        ("adaptations_total", "trigger:drift", "outcome:worse"),
        ("meta_updates_total", "learner:r2d2"),
        ("checkpoints_total", "outcome:failed"),
        ("sink_records_total", "sink:out", "outcome:failed"),
        ("stage_duration_seconds_count", "stage:adapt"),
        ("recovery_events_count",),
        ("schema_changes_total", "kind:class_added"),
        ("source_lag_events", "source:ticks"),
    }
    for name, *labels in nothing:
        assert value(metrics, name, **dict(one.split(":") for one in labels)) == 0, name
    assert value(metrics, "last_drift_timestamp_seconds") is None  # there was none
    assert value(metrics, "prequential_loss", window="rolling") is None


class Named(NamedTuple):
    name: str


class Retrying(NamedTuple):
    name: str
    failures: int


def test_a_sink_that_has_to_try_again_is_seen_while_the_loop_waits_for_it():
    metrics = Metrics("m", "regression")
    metrics.begins("s", [Retrying("queue", 7)], checkpoints=False)
    assert value(metrics, "sink_records_total", sink="queue", outcome="retried") == 7
    assert value(metrics, "checkpoints_total", outcome="ok") is None  # nobody commits


def test_a_label_has_few_values_whatever_comes():
    metrics = Metrics("m", "regression")
    for i in range(40):
        metrics.delivered(f"sink{i}", 1)
        metrics.record([Rejected("x", "decode", f"reason{i}", "")])
    for name, label in (("sink_records", "sink"), ("events_rejected", "reason")):
        (family,) = (f for f in metrics.registry.collect() if f.name == f"streammeta_{name}")
        assert len({sample.labels[label] for sample in family.samples}) == 9
    assert value(metrics, "sink_records_total", sink="other", outcome="ok") == 32


@given(
    st.lists(st.floats(0, 20) | st.sampled_from(DURATIONS), max_size=200),
    st.integers(1, 50),
)
def test_buckets_count_what_was_added_whenever_it_is_folded(values, folded_every):
    spread = Spread(DURATIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tally, "FOLDED", folded_every)
        for one in values:
            spread.add(one)
            spread.fold()
    buckets, total = spread.read()
    ends = [*DURATIONS, math.inf]
    assert [count for _, count in buckets] == [sum(v <= end for v in values) for end in ends]
    assert [float(le) for le, _ in buckets] == ends
    assert total == pytest.approx(sum(values))


def test_a_scrape_during_the_run_sees_whole_histograms():
    metrics = Metrics("m", "regression")
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            metrics.stage("predict", 1e-4)
            metrics.record([ask(0, 1.0), tell(0, 1.0, 2.0), Rejected("x", "decode", "r", "")])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        seen = 0.0
        for _ in range(40):
            name = "streammeta_stage_duration_seconds"
            (family,) = (f for f in metrics.registry.collect() if f.name == name)
            of = {
                (s.name.removeprefix(name), s.labels.get("le")): s.value
                for s in family.samples
                if s.labels["stage"] == "predict"
            }
            assert of["_bucket", "+Inf"] >= of["_bucket", "0.0001"] >= seen
            assert of["_count", None] == of["_bucket", "+Inf"]
            seen = of["_bucket", "0.0001"]
    finally:
        stop.set()
        thread.join()


def test_outputs_are_counted_once_each_by_whoever_looks_first():
    metrics, rows, done = Metrics("m", "regression"), 5_000, threading.Event()

    def look() -> None:
        while not done.is_set():
            metrics.render()

    looking = threading.Thread(target=look)
    looking.start()
    for row in range(rows):
        metrics.record([ask(row, 1.0), tell(row, 1.0, 2.0)])
    done.set()
    looking.join()
    assert value(metrics, "labels_joined_total") == rows
    assert value(metrics, "events_processed_total", stage="predict") == rows
    assert value(metrics, "label_delay_events_count") == rows


def test_what_watching_costs_can_be_measured_and_kept(tmp_path, capsys):
    kept = tmp_path / "cost.json"
    metrics_cost.main(["--rows", "300", "--json", str(kept)])
    told = json.loads(kept.read_text())
    assert "python -m scenarios.metrics_cost" in told["command"]
    assert [cost["read"] for cost in told["costs"]] == [256, 1, 256, 1]
    for cost in told["costs"]:
        assert cost["total"] == pytest.approx(cost["laps"] + cost["counting"])
        assert 0.0 < cost["total"] < 1000.0
    assert capsys.readouterr().out.count("us for each event") == 4


def scored(row: int, loss: float) -> Scored:
    return Scored(f"q{row}", "", row, 0.0, 0.0, loss, loss, 0)


def drift(row: int, onset: int) -> DriftDetected:
    return DriftDetected("", row, onset, 1, "bank", "error")


def recovered(*outputs) -> tuple[float | None, float | None]:
    metrics = Metrics("m", "regression")
    metrics.record(outputs)
    return value(metrics, "recovery_events_count"), value(metrics, "recovery_events_sum")


def test_a_recovery_lasts_from_the_onset_until_the_loss_is_what_it_was():
    calm = [scored(row, 1.0) for row in range(200)]
    rough = [scored(row, 9.0) for row in range(200, 230)]
    again = [scored(row, 1.0) for row in range(230, 300)]
    assert recovered(*calm, *rough, drift(229, 200), *again) == (1, 30)
    assert recovered(*calm, *rough, drift(229, 200), *again[:49]) == (0, 0)
    # another drift comes first: the whole segment was needed, and more
    assert recovered(*calm, *rough, drift(229, 200), *again[:40], drift(269, 270)) == (1, 70)
    # too little is known of how it was before; late labels of the old world say nothing
    assert recovered(*calm[:19], drift(19, 19), *rough, *again) == (0, 0)
    assert recovered(*calm[:100], drift(100, 100), *calm[50:100]) == (0, 0)


def test_labels_without_a_question_are_late_or_strangers():
    metrics = Metrics("m", "regression")
    late = Rejected("q1", "join", "late_label", "")
    metrics.record([LabelExpired("q1", "", 1, "time_to_live"), late, late])
    metrics.record([Rejected("who", "join", "unknown_label", "")])
    assert value(metrics, "labels_unmatched_total", reason="late") == 2
    assert value(metrics, "labels_unmatched_total", reason="unknown") == 1
    assert value(metrics, "labels_unmatched_total", reason="duplicate") == 0
    assert value(metrics, "events_rejected_total", stage="join", reason="unmatched_label") == 3


def test_changes_of_the_schema_are_counted_by_kind():
    metrics = Metrics("m", "classification")
    metrics.record(
        [
            SchemaChanged("", 5, "class_added", "", ""),
            SchemaChanged("", 6, "feature_added", "b", ""),
        ]
    )
    assert value(metrics, "schema_changes_total", kind="class_added") == 1
    assert value(metrics, "schema_changes_total", kind="feature_added") == 1
    assert value(metrics, "schema_changes_total", kind="value_clipped") == 0


def test_ages_and_delays_are_never_below_zero_though_clocks_differ():
    metrics = Metrics("m", "regression", wall=lambda: 1000.0)
    metrics.ingested("s", 1, 1005.0)
    metrics.ingested("s", 1, 970.0)
    late = tell(0, 1.0, 2.0)
    late.delay_seconds = -3.0
    metrics.record([late])
    assert value(metrics, "event_age_seconds_sum") == 30
    assert value(metrics, "label_delay_seconds_sum") == 0
    assert value(metrics, "label_delay_seconds_count") == 1


def fetch(server: MetricsServer, path: str, accept: str = "*/*") -> tuple[int, str, str]:
    url = f"http://{server.host}:{server.port}{path}"
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def test_a_live_source_shows_whether_it_can_be_read_and_how_far_behind_we_are():
    metrics = Metrics("m", "regression")
    metrics.source("ticks", True, 12, 0)
    metrics.source("ticks", False, None, 1)  # gone: what waited is the last that was known
    get = metrics.registry.get_sample_value
    assert get("streammeta_source_up", {"source": "ticks"}) == 0
    assert get("streammeta_source_lag_events", {"source": "ticks"}) == 12
    assert get("streammeta_source_gaps", {"source": "ticks"}) == 1


def test_the_server_answers_scrapes_and_probes():
    metrics = Metrics("m", "regression")
    metrics.ingested("s", 5, None)
    server = MetricsServer(metrics, port=0)
    try:
        status, kind, text = fetch(server, "/metrics")
        assert status == 200
        assert kind.startswith("text/plain")
        assert 'streammeta_events_ingested_total{source="s"} 5.0' in text
        _, kind, text = fetch(server, "/metrics?x=1", "application/openmetrics-text; version=1.0.0")
        assert kind.startswith("application/openmetrics-text")
        families = {family.name for family in text_string_to_metric_families(text)}
        assert "streammeta_events_ingested" in families
        assert fetch(server, "/livez")[0] == 200
        assert fetch(server, "/readyz")[0] == 503
        metrics.ready = True
        assert fetch(server, "/readyz")[0] == 200
        assert fetch(server, "/")[0] == 404
    finally:
        server.close()
    server.close()


def test_a_taken_port_is_named_and_a_closed_server_frees_it():
    metrics = Metrics("m", "regression")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"127\.0\.0\.1:{port}: Address already in use"):
            MetricsServer(metrics, port=port)
    server = MetricsServer(metrics, port=0)
    port = server.port
    server.close()
    MetricsServer(metrics, port=port).close()


def test_memory_of_the_process_is_told_where_the_system_tells_it():
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here: nothing is told")
    found = memory()
    assert 1e7 < found["cpu", "resident"] < 1e11


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_memory_of_a_device_in_use_is_told():
    held = torch.zeros(1_000_000, device="cuda")
    found = memory()
    assert found["cuda:0", "reserved"] >= found["cuda:0", "allocated"] >= held.nbytes
