"""Prometheus metrics of one run, read from the outputs, and the server that shows them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import time
from typing import Any, Literal, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from streammeta import __version__
from streammeta.errors import UsageError
from streammeta.events import (
    Adapted,
    DriftDetected,
    Label,
    LabelExpired,
    MetaUpdated,
    Output,
    Predicted,
    Rejected,
    Scored,
    TaskClosed,
)

ROLLING = 1000  # scored predictions in the rolling window
MAX_FAMILIES = 10  # label values of expert_weight; further families share "other"
# Half-decades from 10 us to 10 s: the client's own buckets start at 5 ms and hide everything here.
DURATIONS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)


class Statistics(Protocol):
    """The part of ``Engine.statistics()`` that is shown."""

    @property
    def pending(self) -> int: ...
    @property
    def segments(self) -> int: ...
    @property
    def tasks(self) -> int: ...
    @property
    def weights(self) -> dict[str, float]: ...
    @property
    def inner_lr(self) -> tuple[float, float, float]: ...


class _Mean:
    """A mean over everything and over the last ``ROLLING`` values."""

    __slots__ = ("count", "recent", "recent_sum", "total")

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0
        self.recent: deque[float] = deque()
        self.recent_sum = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.recent.append(value)
        self.recent_sum += value
        if len(self.recent) > ROLLING:
            self.recent_sum -= self.recent.popleft()
            if self.count % ROLLING == 0:
                self.recent_sum = sum(self.recent)  # keeps rounding from adding up

    @property
    def cumulative(self) -> float:
        return self.total / self.count

    @property
    def rolling(self) -> float:
        return self.recent_sum / len(self.recent)


class Metrics:
    """All metrics of one model in a registry of its own; watches a ``ShardHost`` as its observer.

    Loss is the 0/1 error (classification) or the absolute error (regression). The rolling window
    holds the last 1,000 scored predictions. ``baseline_loss{baseline="no_change"}`` is the loss of
    repeating the truth that was the key's last when the question was asked, where there was one.

    >>> from streammeta.events import Scored
    >>> m = Metrics("demo", "classification")
    >>> m.record([Scored("a", "", 0, 1, 1, 0.0, 0.1, 0), Scored("b", "", 1, 0, 1, 1.0, 2.0, 0)])
    >>> m.registry.get_sample_value("streammeta_prequential_accuracy_ratio",
    ...                             {"window": "cumulative"})
    0.5
    """

    def __init__(
        self,
        model: str,
        task: Literal["classification", "regression"],
        *,
        wall: Callable[[], float] = time,
    ) -> None:
        self.registry = CollectorRegistry()
        self.ready = False
        self._task = task
        self._wall = wall
        self._loss, self._no_change = _Mean(), _Mean()
        self._last_truth: dict[str, Label] = {}
        self._segments = 0
        self._answer_of_no_change: dict[str, Label] = {}  # by id, until the label is there
        self._make_stream_metrics(model)
        self._make_learning_metrics()
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            Predicted: self._predicted,
            Scored: self._scored,
            DriftDetected: self._drift,
            TaskClosed: lambda output: None,
            Adapted: self._adapted,
            MetaUpdated: self._meta,
            Rejected: lambda o: self._rejected.labels(o.stage, o.reason).inc(),
            LabelExpired: self._expire,
        }

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(f"streammeta_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"streammeta_{name}", text, labels, registry=self.registry)

    def _make_stream_metrics(self, model: str) -> None:
        build = self._gauge("build_info", "Always 1.", ["version", "model", "task"])
        build.labels(__version__, model, self._task).set(1)
        self._ingested = self._counter("events_ingested", "Events read.", ["source"])
        processed = self._counter("events_processed", "Events by stage.", ["stage"])
        self._asked, self._learned = processed.labels("predict"), processed.labels("learn")
        self._rejected = self._counter(
            "events_rejected", "Events that could not be used.", ["stage", "reason"]
        )
        self._source_up = self._gauge(
            "source_up", "1 while a live source can be read, 0 while it cannot.", ["source"]
        )
        self._source_lag = self._gauge(
            "source_lag_events", "Events that wait to be read, where that is known.", ["source"]
        )
        self._source_gaps = self._gauge(
            "source_gaps", "Times that events were lost before they could be read.", ["source"]
        )
        self._last_event = self._gauge(
            "last_event_timestamp_seconds", "Newest event time at a stage.", ["stage"]
        )
        self._last_asked = self._last_event.labels("predict")
        self._stage = Histogram(
            "streammeta_stage_duration_seconds",
            "Time a stage took, per chunk (observe, meta) or batch.",
            ["stage"],
            buckets=DURATIONS,
            registry=self.registry,
        )
        self._joined = self._counter("labels_joined", "Labels that met their prediction.")
        self._pending = self._gauge("predictions_pending_labels", "Predictions without a label.")
        self._expired = self._counter("predictions_expired", "Predictions that got no label.")
        self._label_delay = Histogram(
            "streammeta_label_delay_events",
            "Questions between a prediction and its label.",
            buckets=(0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 100_000),
            registry=self.registry,
        )
        self._checkpoints = self._counter("checkpoints", "Commits.", ["outcome"])
        self._checkpoint_time = self._gauge(
            "checkpoint_last_success_timestamp_seconds", "When the last commit was written."
        )
        self._checkpoint_size = self._gauge("checkpoint_size_bytes", "Size of the last commit.")
        self._sink_records = self._counter("sink_records", "Records taken.", ["sink", "outcome"])

    def _make_learning_metrics(self) -> None:
        self._prequential = self._gauge("prequential_loss", "Mean loss.", ["window"])
        if self._task == "classification":
            self._score = self._gauge("prequential_accuracy_ratio", "Share right.", ["window"])
        else:
            self._score = self._gauge(
                "prequential_absolute_error", "Mean absolute error.", ["window"]
            )
        self._baseline = self._gauge(
            "baseline_loss", "Rolling mean loss of a baseline on the same stream.", ["baseline"]
        )
        self._drifts = self._counter(
            "drift_detections", "Alarms.", ["detector", "signal", "severity"]
        )
        self._drift_time = self._gauge("last_drift_timestamp_seconds", "When the last alarm was.")
        self._drift_votes = self._gauge(
            "drift_evidence_nats", "Evidence of a signal at the last alarm.", ["signal"]
        )
        self._drift_width = self._gauge(
            "drift_width_rows", "Rows that the last change had taken; 0 at once."
        )
        self._drift_moved = self._gauge(
            "drift_features_moved", "Features that moved at the last alarm, at most 5."
        )
        self._lookups = self._counter(
            "concept_lookups", "Alarms by whether a past context is back.", ["outcome"]
        )
        self._segments_total = self._counter("segments", "Segments begun.")
        self._adaptations = self._counter(
            "adaptations", "Challengers adapted from meta-parameters.", ["trigger", "outcome"]
        )
        self._adaptation_loss = self._gauge(
            "adaptation_loss", "Support loss of the last adaptation.", ["phase"]
        )
        self._meta_updates = self._counter("meta_updates", "Outer steps.", ["learner"])
        self._meta_loss = self._gauge(
            "meta_loss", "Query loss at the last outer step.", ["learner"]
        )
        self._meta_norm = self._gauge("meta_gradient_norm", "Its gradient's norm.", ["learner"])
        self._inner_lr = self._gauge("inner_learning_rate", "Inner step size.", ["stat"])
        self._weight = self._gauge("expert_weight", "Share of the mixture.", ["family"])
        self._tasks = self._gauge("replay_memory_tasks", "Tasks in replay memory.")

    def ingested(self, source: str, events: int, ts: float | None) -> None:
        """Events were read; ``ts`` is the newest event time."""
        self._ingested.labels(source).inc(events)
        if ts is not None:
            self._last_event.labels("ingest").set(ts)

    def stage(self, stage: str, seconds: float) -> None:
        """A stage took this long once."""
        self._stage.labels(stage).observe(seconds)

    def committed(self, outcome: str, size: int) -> None:
        """A commit was written (``ok``), or refused (``fenced``, ``failed``)."""
        self._checkpoints.labels(outcome).inc()
        if outcome == "ok":
            self._checkpoint_time.set(self._wall())
            self._checkpoint_size.set(size)

    def delivered(self, sink: str, records: int) -> None:
        """A sink took records."""
        self._sink_records.labels(sink, "ok").inc(records)

    def record(self, outputs: Sequence[Output]) -> None:
        """Read the outputs of some events, in order."""
        handlers = self._handlers
        for output in outputs:
            handlers[type(output)](output)
        if self._loss.count:
            self._show_scores()

    def sample(self, statistics: Statistics) -> None:
        """Read the model's own statistics; once a second is enough."""
        self._pending.set(statistics.pending)
        self._tasks.set(statistics.tasks)
        self._segments_total.inc(max(statistics.segments - self._segments, 0))
        self._segments = max(statistics.segments, self._segments)
        for stat, rate in zip(("min", "mean", "max"), statistics.inner_lr, strict=True):
            self._inner_lr.labels(stat).set(rate)
        for family, share in _bounded(statistics.weights).items():
            self._weight.labels(family).set(share)

    def source(self, name: str, up: bool, lag: int | None, gaps: int) -> None:
        """How a live source is doing: can it be read, how many events wait, how often some got
        lost before they were read."""
        self._source_up.labels(name).set(up)
        self._source_gaps.labels(name).set(gaps)
        if lag is not None:
            self._source_lag.labels(name).set(lag)

    def _predicted(self, output: Predicted) -> None:
        self._asked.inc()
        last = self._last_truth.get(output.key)
        if last is not None:
            self._answer_of_no_change[output.id] = last
        if output.ts is not None:
            self._last_asked.set(output.ts)

    def _scored(self, output: Scored) -> None:
        self._learned.inc()
        self._joined.inc()
        self._label_delay.observe(output.delay)
        self._loss.add(output.loss)
        truth, last = output.truth, self._answer_of_no_change.pop(output.id, None)
        if last is not None:
            if self._task == "classification":
                self._no_change.add(float(truth != last))
            else:
                self._no_change.add(abs(float(truth) - float(last)))
        self._last_truth[output.key] = truth

    def _show_scores(self) -> None:
        for window in ("cumulative", "rolling"):
            loss = self._loss.rolling if window == "rolling" else self._loss.cumulative
            self._prequential.labels(window).set(loss)
            self._score.labels(window).set(1 - loss if self._task == "classification" else loss)
        if self._no_change.count:
            self._baseline.labels("no_change").set(self._no_change.rolling)

    def _drift(self, output: DriftDetected) -> None:
        self._drifts.labels(output.detector, output.signal, "alarm").inc()
        self._drift_time.set(self._wall())
        told = output.explanation
        if told is None:
            return
        for signal, vote in told.votes.items():
            self._drift_votes.labels(signal).set(vote)
        self._drift_width.set(told.width)
        self._drift_moved.set(len(told.moved))
        self._lookups.labels(told.context or "unknown").inc()

    def _adapted(self, output: Adapted) -> None:
        better = output.loss_after < output.loss_before
        self._adaptations.labels(output.trigger, "better" if better else "worse").inc()
        self._adaptation_loss.labels("before").set(output.loss_before)
        self._adaptation_loss.labels("after").set(output.loss_after)

    def _meta(self, output: MetaUpdated) -> None:
        self._meta_updates.labels(output.learner).inc()
        self._meta_loss.labels(output.learner).set(output.loss)
        self._meta_norm.labels(output.learner).set(output.gradient_norm)

    def _expire(self, output: LabelExpired) -> None:
        self._expired.inc()
        self._answer_of_no_change.pop(output.id, None)


def _bounded(weights: Mapping[str, float]) -> dict[str, float]:
    """At most ten families: the ones that come first by name, the others added up."""
    names = sorted(weights)
    if len(names) <= MAX_FAMILIES:
        return dict(weights)
    shown = {name: weights[name] for name in names[: MAX_FAMILIES - 1]}
    shown["other"] = sum(weights[name] for name in names[MAX_FAMILIES - 1 :])
    return shown


class MetricsServer:
    """``/metrics`` (OpenMetrics by negotiation), ``/livez``, ``/readyz`` in a thread of its own.

    ``/readyz`` answers 503 until ``metrics.ready`` is set. Port 0 takes any free port; ``port`` is
    the one in use.

    Raises:
        UsageError: the address cannot be used.
    """

    def __init__(self, metrics: Metrics, host: str = "127.0.0.1", port: int = 9108) -> None:
        try:
            self._server = _Server((host, port), _handler(metrics))
        except (OSError, OverflowError) as error:
            cause = getattr(error, "strerror", None) or error
            raise UsageError(
                f"metrics cannot be served at {host}:{port}: {cause}; choose another port, or 0 "
                f"for any free one"
            ) from error
        self.host, self.port = host, int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving and free the port; closing twice is fine."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


def _handler(metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version = f"streammeta/{__version__}"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                self._answer(200, kind, encode(metrics.registry))
            elif path == "/livez":
                self._answer(200, "text/plain; charset=utf-8", b"ok\n")
            elif path == "/readyz":
                ready = metrics.ready
                text = b"ready\n" if ready else b"not ready: no model is open yet\n"
                self._answer(200 if ready else 503, "text/plain; charset=utf-8", text)
            else:
                text = b"no such page; there are /metrics, /livez and /readyz\n"
                self._answer(404, "text/plain; charset=utf-8", text)

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """A scrape every few seconds is no news."""

    return Handler
