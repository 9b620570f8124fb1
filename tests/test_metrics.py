"""Metrics: outputs become the agreed names; the server speaks to Prometheus and to probes."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from typing import NamedTuple

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from drift import Explanation, Moved
from streammeta.errors import UsageError
from streammeta.events import (
    Adapted,
    DriftDetected,
    LabelExpired,
    MetaUpdated,
    Predicted,
    Rejected,
    Scored,
    TaskClosed,
)
from streammeta.metrics import Metrics, MetricsServer

MOVED = Moved("temp", 2.0, (0.0, 1.0, 2.0), (2.0, 3.0, 4.0))
EXPLAINED = Explanation({"brier": 12.5}, (MOVED,), (100, 60), "gradual", 48, "known", 0)


class FakeStatistics(NamedTuple):
    pending: int = 3
    segments: int = 2
    tasks: int = 40
    weights: dict[str, float] = {"bank": 0.75, "challenger": 0.25}  # noqa: RUF012
    inner_lr: tuple[float, float, float] = (0.01, 0.1, 0.2)


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
