"""What is measured: every metric with its kind, its labels and what it says.

Base units, ``_total`` counters, timestamps instead of ages. No label names a key, an event or a
class; the values of each label are few (``Family.most``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

PREFIX = "streammeta_"
# Half-decades from 10 us to 10 s: the client's own buckets start at 5 ms and hide everything here.
DURATIONS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
#: What lies between two events of a stream, or an event and its label: up to a week.
WAITS = (0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86_400.0, 7 * 86_400.0)
EVENTS = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 100_000.0)
STAGES = ("decode", "predict", "learn", "detect", "adapt", "meta", "sink", "checkpoint")

Kind = Literal["counter", "gauge", "histogram"]


class Family(NamedTuple):
    """One metric; ``name`` without the prefix, and without the ``_total`` of a counter."""

    kind: Kind
    name: str
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    most: int = 8  # values of a label by name; later ones share ``other``


def _counter(name: str, text: str, *labels: str) -> Family:
    return Family("counter", name, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Family:
    return Family("gauge", name, text, labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Family:
    return Family("histogram", name, text, labels, buckets)


STREAM = (
    _gauge("build_info", "Always 1.", "version", "model", "task"),
    _counter("events_ingested", "Events read.", "source"),
    _counter("events_processed", "Questions answered and labels learned.", "stage"),
    _counter("events_rejected", "Events that could not be used.", "stage", "reason"),
    _histogram(
        "event_age_seconds", "Age of the newest event of each read, by its own time.", WAITS
    ),
    _gauge("last_event_timestamp_seconds", "Newest event time at a stage.", "stage"),
    _gauge("source_up", "1 while the source can be read, 0 while it cannot.", "source"),
    _gauge("source_lag_events", "Events that wait to be read; 0 of a file.", "source"),
    _gauge("source_gaps", "Times that events were lost before they could be read.", "source"),
    _gauge("queue_depth_events", "Events in this process that the model has not seen yet."),
    _histogram(
        "stage_duration_seconds",
        "Time that a stage took: once per batch (decode, sink), commit (checkpoint) or chunk.",
        DURATIONS,
        "stage",
    )._replace(most=9),
    _counter("sink_records", "Records taken; failed and retried ones.", "sink", "outcome"),
    _counter("checkpoints", "Commits.", "outcome"),
    _gauge(
        "checkpoint_last_success_timestamp_seconds",
        "When the last commit was written; before the first one, when this process began.",
    ),
    _gauge("checkpoint_size_bytes", "Size of the last commit."),
    _gauge("device_memory_bytes", "Memory in use by this process.", "device", "kind"),
)

LABELS = (
    _counter("labels_joined", "Labels that met their prediction."),
    _counter("labels_unmatched", "Labels for which no prediction waited.", "reason"),
    _gauge("predictions_pending_labels", "Predictions without a label."),
    _counter("predictions_expired", "Predictions that got no label in time."),
    _histogram("label_delay_seconds", "Event time from a question to its label.", WAITS),
    _histogram("label_delay_events", "Questions from a question to its label.", EVENTS),
)

QUALITY = (
    _gauge("prequential_loss", "Mean 0/1 or absolute error of predictions.", "window"),
    _gauge("prequential_accuracy_ratio", "Share of right predictions.", "window"),
    _gauge("prequential_absolute_error", "Mean absolute error.", "window"),
    _gauge("baseline_loss", "Rolling mean loss of a baseline on the same stream.", "baseline"),
)

DRIFT = (
    _counter("drift_detections", "Alarms.", "detector", "signal", "severity"),
    _gauge("drift_statistic", "What a detector is about to find.", "detector"),
    _gauge("drift_threshold", "The statistic at which that is a drift.", "detector"),
    _gauge("last_drift_timestamp_seconds", "When the last alarm was raised."),
    _gauge("drift_evidence_nats", "Evidence of a signal at the last alarm.", "signal"),
    _gauge("drift_width_rows", "Rows that the last change had taken; 0 at once."),
    _gauge("drift_features_moved", "Features that moved at the last alarm, at most 5."),
    _gauge("segment_events", "Labelled events since the last drift."),
    _counter("segments", "Segments begun."),
    _counter("concept_lookups", "Alarms by whether a past context is back.", "outcome"),
    _counter("schema_changes", "Changes of what events look like.", "kind"),
)

LEARNING = (
    _counter("adaptations", "Challengers adapted from meta-parameters.", "trigger", "outcome"),
    _gauge("adaptation_loss", "Support loss of the last adaptation.", "phase"),
    _histogram("recovery_events", "Labelled events from a drift until the loss was back.", EVENTS),
    _counter("meta_updates", "Outer steps.", "learner"),
    _counter("meta_tasks_skipped", "Tasks whose loss was not finite.", "learner"),
    _gauge("meta_loss", "Query loss at the last outer step.", "learner"),
    _gauge("meta_gradient_norm", "Norm of its gradient.", "learner"),
    _gauge("inner_learning_rate", "Inner step size.", "stat"),
    _gauge("expert_weight", "Share of the mixture.", "family")._replace(most=10),
    _gauge("replay_memory_tasks", "Tasks in replay memory."),
    _gauge("archive_contexts", "Past contexts that would be known again."),
)

FAMILIES: tuple[Family, ...] = (*STREAM, *LABELS, *QUALITY, *DRIFT, *LEARNING)
