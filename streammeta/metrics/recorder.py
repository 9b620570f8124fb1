"""All metrics of one run, from the engine's outputs and the runtime's counts."""

from __future__ import annotations

import math
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import time
from typing import Any, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry

from drift import default_detectors
from drift.watch import FEATURES, PREDICTIONS, VOTERS, Watch
from streammeta import __version__
from streammeta.events import (
    Adapted,
    DriftDetected,
    LabelExpired,
    MetaUpdated,
    Output,
    Rejected,
    SchemaChanged,
    TaskClosed,
)
from streammeta.metrics.exposition import render
from streammeta.metrics.families import STAGES
from streammeta.metrics.prequential import Prequential, Task
from streammeta.metrics.tally import FOLDED, OTHER, Cell, Tally

READ = 256  # outputs that wait until they are read, all at once: that is cheaper than each alone
MAX_FAMILIES = 10  # label values of expert_weight; further families share "other"
REASONS = (
    "malformed", "wrong_type", "not_finite", "duplicate_id", "missing_target", "too_long",
    "too_many_classes",
)  # fmt: skip
#: What labels without a question are together, among events that were rejected.
UNMATCHED_LABEL = "unmatched_label"
#: How a label may have met no question that waits: its question had been given up, had its label,
#: or was never asked.
UNMATCHED = ("late", "duplicate", "unknown")
CHANGES = (
    "feature_added", "feature_vanished", "feature_returned", "type_changed", "category_added",
    "class_added", "value_clipped",
)  # fmt: skip
TRIGGERS = ("start", "drift", "growth", "scout", "request")


class Statistics(Protocol):
    """The part of ``Engine.statistics()`` that is shown."""

    @property
    def rows(self) -> int: ...
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
    @property
    def segment_rows(self) -> int: ...
    @property
    def contexts(self) -> int: ...
    @property
    def evidence(self) -> dict[str, tuple[float, float]]: ...


class Named(Protocol):
    """A sink, by its name."""

    @property
    def name(self) -> str: ...


@runtime_checkable
class Retries(Named, Protocol):
    """One that tries again when its server is gone: how often it had to."""

    @property
    def failures(self) -> int: ...


class Metrics:
    """All metrics of one model in a registry of its own; watches a ``ShardHost`` as its observer.

    Loss is the 0/1 error (classification) or the absolute error (regression). The rolling window
    holds the last 1,000 scored predictions; ``metrics.families`` has all names. Series whose
    labels are known beforehand are there, with 0, before the first event.

    Args:
        model: a name for ``build_info``.
        task: by which predictions are scored.
        learners: those whose outer steps are to come.
        detectors: as in the model's config; the default ones of the task where there are none.
        wall: seconds since the epoch.

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
        task: Task,
        *,
        learners: Sequence[str] = (),
        detectors: Sequence[str] = (),
        wall: Callable[[], float] = time,
    ) -> None:
        self.registry = CollectorRegistry()
        self.ready = False
        self._task: Task = task
        self._wall = wall
        self._tally = Tally(self._refresh)
        self._scores = Prequential(
            task,
            self._tally.spread("recovery_events").add,
            self._tally.spread("label_delay_events").add,
            self._tally.spread("label_delay_seconds").add,
        )
        self._heard: list[Output] = []
        self._reading = threading.Lock()
        self._unfolded = 0
        self._segments = 0
        self._retrying: list[Retries] = []
        self._age = self._tally.spread("event_age_seconds").add
        self._cells: dict[tuple[str, str], Cell] = {}  # those that change with every read
        self._stages = {s: self._tally.spread("stage_duration_seconds", s).add for s in STAGES}
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            DriftDetected: self._drift,
            TaskClosed: lambda output: None,
            Adapted: self._adapted,
            MetaUpdated: self._meta,
            Rejected: self._reject,
            LabelExpired: self._expire,
            SchemaChanged: lambda output: self._tally.add("schema_changes", 1, output.change),
        }
        self._initialise(model, learners, detectors or default_detectors(task))
        self.registry.register(self._tally)

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """The media type and the body of an answer to a scrape with this ``Accept`` header."""
        return render(self.registry, accept)

    # -- what will be there -------------------------------------------------------------------

    def begins(self, source: str, sinks: Iterable[Named], *, checkpoints: bool) -> None:
        """What the run is made of: its series are there from now on."""
        self._tally.add("events_ingested", 0, source)
        self.source(source, True, 0, 0)
        for sink in sinks:
            name = sink.name
            for outcome in ("ok", "failed", "retried"):
                self._tally.add("sink_records", 0, name, outcome)
            if isinstance(sink, Retries):
                self._retrying.append(sink)
        if checkpoints:
            for outcome in ("ok", "failed", "fenced"):
                self._tally.add("checkpoints", 0, outcome)
            self._tally.set("checkpoint_last_success_timestamp_seconds", self._wall())
            self._tally.set("checkpoint_size_bytes", 0)

    def _initialise(self, model: str, learners: Sequence[str], detectors: Sequence[str]) -> None:
        tally = self._tally
        tally.set("build_info", 1, __version__, model, self._task)
        for reason in REASONS:
            tally.add("events_rejected", 0, "decode", reason)
        tally.add("events_rejected", 0, "join", UNMATCHED_LABEL)
        for reason in UNMATCHED:
            tally.add("labels_unmatched", 0, reason)
        for name in ("predictions_expired", "segments"):
            tally.add(name, 0)
        for name in (
            "queue_depth_events", "predictions_pending_labels", "replay_memory_tasks",
            "archive_contexts", "segment_events", "drift_width_rows", "drift_features_moved",
        ):  # fmt: skip
            tally.set(name, 0)
        main = "error" if self._task == "classification" else "ratio"
        for detector in detectors:
            signals = [main]
            if detector == Watch.name:
                signals = [*(name for name, _ in VOTERS[main]), FEATURES, PREDICTIONS]
            for signal in signals:
                tally.add("drift_detections", 0, detector, signal, "alarm")
        for kind in CHANGES:
            tally.add("schema_changes", 0, kind)
        for outcome in ("known", "new", "unknown"):
            tally.add("concept_lookups", 0, outcome)
        for trigger in TRIGGERS:
            for outcome in ("better", "worse", "failed"):
                tally.add("adaptations", 0, trigger, outcome)
        for learner in learners:
            tally.add("meta_updates", 0, learner)
            tally.add("meta_tasks_skipped", 0, learner)

    # -- from the runtime ---------------------------------------------------------------------

    def ingested(self, source: str, events: int, ts: float | None) -> None:
        """Events were read; ``ts`` is the newest event time."""
        self._cell("events_ingested", source).value += events
        if ts is not None:
            self._cell("last_event_timestamp_seconds", "ingest").value = ts
            self._age(max(self._wall() - ts, 0.0))

    def stage(self, stage: str, seconds: float) -> None:
        """A stage took this long once."""
        add = self._stages.get(stage)
        if add is None:
            add = self._stages[stage] = self._tally.spread("stage_duration_seconds", stage).add
        add(seconds)

    def committed(self, outcome: str, size: int) -> None:
        """A commit was written (``ok``), or refused (``fenced``, ``failed``)."""
        self._tally.add("checkpoints", 1, outcome)
        if outcome == "ok":
            self._tally.set("checkpoint_last_success_timestamp_seconds", self._wall())
            self._tally.set("checkpoint_size_bytes", size)

    def delivered(self, sink: str, records: int, outcome: str = "ok") -> None:
        """A sink took records, or failed to."""
        if outcome == "ok":
            self._cell("sink_records", sink).value += records
        else:
            self._tally.add("sink_records", records, sink, outcome)

    def _cell(self, name: str, label: str) -> Cell:
        """Without the search for the series."""
        cell = self._cells.get((name, label))
        if cell is None:
            more = ("ok",) if name == "sink_records" else ()
            cell = self._cells[name, label] = self._tally.cell(name, label, *more)
        return cell

    def source(self, name: str, up: bool, lag: int | None, gaps: int) -> None:
        """How a source is doing: can it be read, how many events wait, how often some got lost
        before they were read."""
        self._tally.set("source_up", up, name)
        self._tally.set("source_gaps", gaps, name)
        if lag is not None:
            self._tally.set("source_lag_events", lag, name)

    def queue(self, events: int) -> None:
        """So many events have come into this process and wait for the model."""
        self._tally.set("queue_depth_events", events)

    def sample(self, statistics: Statistics) -> None:
        """Read the model's own statistics; once a second is enough."""
        tally = self._tally
        tally.set("predictions_pending_labels", statistics.pending)
        tally.set("replay_memory_tasks", statistics.tasks)
        tally.set("archive_contexts", statistics.contexts)
        tally.set("segment_events", statistics.segment_rows)
        tally.add("segments", max(statistics.segments - self._segments, 0))
        self._segments = max(statistics.segments, self._segments)
        for stat, rate in zip(("min", "mean", "max"), statistics.inner_lr, strict=True):
            tally.set("inner_learning_rate", rate, stat)
        for family, share in _bounded(statistics.weights).items():
            tally.set("expert_weight", share, family)
        for detector, (value, threshold) in statistics.evidence.items():
            tally.set("drift_statistic", value, detector)
            tally.set("drift_threshold", threshold, detector)

    # -- from the outputs ---------------------------------------------------------------------

    def record(self, outputs: Sequence[Output]) -> None:
        """Take the outputs of some events, in order; read when there are some, or at a scrape."""
        self._heard.extend(outputs)
        if len(self._heard) >= READ:
            self._read()

    def _read(self) -> None:
        """Count what has been taken; in the host's thread or that of whoever scrapes. Should one of
        the outputs be at fault, those behind it go uncounted: none is counted twice."""
        with self._reading:
            outputs = self._heard[:]  # more may be added meanwhile
            del self._heard[: len(outputs)]
            self._scores.take(outputs, self._other)
            self._unfolded += len(outputs)
            if self._unfolded > FOLDED:
                self._unfolded = 0
                self._tally.fold()

    def _other(self, output: Output) -> None:
        self._handlers[type(output)](output)

    def _drift(self, output: DriftDetected) -> None:
        tally = self._tally
        self._scores.drift(output)
        tally.add("drift_detections", 1, output.detector, output.signal, "alarm")
        tally.set("last_drift_timestamp_seconds", self._wall())
        told = output.explanation
        if told is None:
            return
        for signal, vote in told.votes.items():
            tally.set("drift_evidence_nats", vote, signal)
        tally.set("drift_width_rows", told.width)
        tally.set("drift_features_moved", len(told.moved))
        tally.add("concept_lookups", 1, told.context or "unknown")

    def _adapted(self, output: Adapted) -> None:
        before, after = output.loss_before, output.loss_after
        outcome = "better" if after < before else "worse"
        if not (math.isfinite(before) and math.isfinite(after)):
            outcome = "failed"
        self._tally.add("adaptations", 1, output.trigger, outcome)
        self._tally.set("adaptation_loss", before, "before")
        self._tally.set("adaptation_loss", after, "after")

    def _meta(self, output: MetaUpdated) -> None:
        tally, learner = self._tally, output.learner
        tally.add("meta_updates", 1, learner)
        tally.add("meta_tasks_skipped", output.skipped, learner)
        tally.set("meta_loss", output.loss, learner)
        tally.set("meta_gradient_norm", output.gradient_norm, learner)

    def _reject(self, output: Rejected) -> None:
        label = output.stage == "join"
        reason = UNMATCHED_LABEL if label else output.reason
        self._tally.add("events_rejected", 1, output.stage, reason)
        if label:
            self._tally.add("labels_unmatched", 1, output.reason.removesuffix("_label"))

    def _expire(self, output: LabelExpired) -> None:
        self._tally.add("predictions_expired", 1)
        self._scores.expired(output.id)

    # -- at a scrape --------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Bring up to date what is only worked out when somebody looks; in the scraper's thread."""
        self._read()
        tally, scores = self._tally, self._scores
        tally.set("events_processed", scores.asked, "predict")
        tally.set("events_processed", scores.loss.count, "learn")
        tally.set("labels_joined", scores.loss.count)
        if scores.newest is not None:
            tally.set("last_event_timestamp_seconds", scores.newest, "predict")
        if scores.loss.count:
            for window in ("cumulative", "rolling"):
                loss = scores.loss.rolling if window == "rolling" else scores.loss.cumulative
                tally.set("prequential_loss", loss, window)
                if self._task == "classification":
                    tally.set("prequential_accuracy_ratio", 1.0 - loss, window)
                else:
                    tally.set("prequential_absolute_error", loss, window)
        for name, mean in (("no_change", scores.no_change), ("frozen", scores.frozen)):
            if mean.count:
                tally.set("baseline_loss", mean.rolling, name)
        for sink in self._retrying:
            tally.set("sink_records", sink.failures, sink.name, "retried")
        for (device, kind), size in memory().items():
            tally.set("device_memory_bytes", size, device, kind)


def memory() -> dict[tuple[str, str], int]:
    """Bytes in use by (device, kind): resident ones of the process (where the system tells),
    those allocated and reserved on CUDA devices that are in use."""
    found: dict[tuple[str, str], int] = {}
    try:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
        found["cpu", "resident"] = pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pass  # another system: nothing is said
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            found[f"cuda:{device}", "allocated"] = torch.cuda.memory_allocated(device)
            found[f"cuda:{device}", "reserved"] = torch.cuda.memory_reserved(device)
    return found


def _bounded(weights: Mapping[str, float]) -> dict[str, float]:
    """At most ten families: the ones that come first by name, the others added up."""
    names = sorted(weights)
    if len(names) <= MAX_FAMILIES:
        return dict(weights)
    shown = {name: weights[name] for name in names[: MAX_FAMILIES - 1]}
    shown[OTHER] = sum(weights[name] for name in names[MAX_FAMILIES - 1 :])
    return shown
