"""What the dashboard shows: rows of panels, each a title, a unit and its series.

``AT`` picks the processors that the reader has chosen. Expressions are PromQL; ``$__rate_interval``
is Grafana's window for rates, four scrapes at least.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

AT = 'instance=~"$instance"'
WINDOW = "[$__rate_interval]"

Kind = Literal["timeseries", "stat"]


class Series(NamedTuple):
    """One query: an expression, and how each of its lines is called."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """``width`` of 24; ``unit`` as Grafana calls it; ``stacked``: shares of a whole; ``log``: a
    logarithmic scale; ``text``: what to know when reading it."""

    title: str
    unit: str
    series: tuple[Series, ...]
    text: str = ""
    kind: Kind = "timeseries"
    width: int = 8
    stacked: bool = False
    log: bool = False


class Row(NamedTuple):
    """A title, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


def value(name: str, *where: str) -> str:
    """A metric of the processors that were chosen."""
    return f"streammeta_{name}{{{','.join((AT, *where))}}}"


def rate(name: str, by: str = "", *where: str) -> str:
    """A counter per second, summed over all but ``by``."""
    of = f" by ({by})" if by else ""
    return f"sum{of} (rate({value(name, *where)}{WINDOW}))"


def quantile(q: float, name: str, by: str = "") -> str:
    """Of a histogram, by the buckets."""
    of = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({of}) (rate({value(name + '_bucket')}{WINDOW})))"


def _stat(title: str, unit: str, expression: str, text: str = "", legend: str = "") -> Panel:
    return Panel(title, unit, (Series(expression, legend or title),), text, "stat", 3)


ROLLING = 'window="rolling"'
SCORE = (
    f"{value('prequential_accuracy_ratio', ROLLING)} or "
    f"{value('prequential_absolute_error', ROLLING)}"
)
SCORES = f"{value('prequential_accuracy_ratio')} or {value('prequential_absolute_error')}"
LOSS = value("prequential_loss", ROLLING)
FROZEN = value("baseline_loss", 'baseline="frozen"')

OVERVIEW = Row("Overview", (
    _stat("Events per second", "short", rate("events_ingested_total")),
    _stat("Score", "short", SCORE,
          "Accuracy of the last 1,000 predictions, or their mean absolute error."),
    _stat("Of the frozen loss", "percentunit", f"{LOSS} / on (job, instance) {FROZEN}",
          "Loss of the model, as a share of that of a network that stopped learning before the "
          "last drift. Below 100 %: adapting pays."),
    _stat("Drifts in an hour", "short", f"sum(increase({value('drift_detections_total')}[1h]))"),
    _stat("Since the last drift", "s", f"time() - {value('last_drift_timestamp_seconds')}"),
    _stat("Lag", "short", f"sum({value('source_lag_events')})", "Events that wait to be read."),
    _stat("Since the last commit", "s",
          f"time() - {value('checkpoint_last_success_timestamp_seconds')}"),
    _stat("Running", "none", value("build_info"), "Processors and their versions.",
          "{{instance}} {{version}}"),
))  # fmt: skip

STAGES = "Predict, detect, learn and adapt: of a chunk (one in 7 where a chunk is one event)."

INGEST = Row("Ingest", (
    Panel("Events", "eps", (
        Series(rate("events_ingested_total", "source"), "read from {{source}}"),
        Series(rate("events_processed_total", "stage"), "{{stage}}"),
    )),
    Panel("Rejected", "eps", (
        Series(rate("events_rejected_total", "stage, reason"), "{{stage}}: {{reason}}"),
    ), "The dead-letter sink has them with their place and what was wrong."),
    Panel("Waiting", "short", (
        Series(value("source_lag_events"), "lag of {{source}}"),
        Series(value("queue_depth_events"), "in this process"),
    ), "Lag that grows: events come faster than they are learned."),
    Panel("Age of events", "s", (
        Series(quantile(0.5, "event_age_seconds"), "half are younger"),
        Series(quantile(0.99, "event_age_seconds"), "99 % are younger"),
    ), "By the events' own time, at the moment of reading; large for a stream that is replayed.",
          log=True),
    Panel("Time of a stage, half of them", "s", (
        Series(quantile(0.5, "stage_duration_seconds", "stage"), "{{stage}}"),
    ), STAGES, log=True),
    Panel("Time of a stage, 99 % of them", "s", (
        Series(quantile(0.99, "stage_duration_seconds", "stage"), "{{stage}}"),
    ), STAGES, log=True),
    Panel("Sources", "short", (
        Series(value("source_up"), "{{source}} can be read"),
        Series(value("source_gaps"), "gaps of {{source}}"),
    )),
    Panel("Sinks", "eps", (
        Series(rate("sink_records_total", "sink, outcome"), "{{sink}}: {{outcome}}"),
    )),
    Panel("Event time", "dateTimeAsIso", (
        Series(f"{value('last_event_timestamp_seconds')} * 1000", "newest at {{stage}}"),
    )),
))  # fmt: skip

LABELS = Row("Labels", (
    Panel("Questions and labels", "eps", (
        Series(rate("events_processed_total", "", 'stage="predict"'), "predictions"),
        Series(rate("labels_joined_total"), "labels that met theirs"),
        Series(rate("predictions_expired_total"), "given up"),
    )),
    Panel("Waiting for their label", "short", (
        Series(value("predictions_pending_labels"), "predictions"),
    )),
    Panel("Delay of labels", "s", (
        Series(quantile(0.5, "label_delay_seconds"), "half"),
        Series(quantile(0.9, "label_delay_seconds"), "90 %"),
    ), "In event time, where questions and labels have one.", log=True),
    Panel("Delay of labels in questions", "short", (
        Series(quantile(0.5, "label_delay_events"), "half"),
        Series(quantile(0.9, "label_delay_events"), "90 %"),
    )),
    Panel("Labels without a question", "eps", (
        Series(rate("labels_unmatched_total", "reason"), "{{reason}}"),
    ), "late: its question had been given up; duplicate: it had its label; unknown: never asked."),
))  # fmt: skip

QUALITY = Row("Quality against baselines", (
    Panel("Loss", "short", (
        Series(LOSS, "model, last 1,000"),
        Series(value("baseline_loss"), "{{baseline}}"),
    ), "no_change repeats the key's last label; frozen has not learned since the last drift.",
          width=12),
    Panel("Score", "short", (
        Series(SCORES, "{{window}}"),
    ), "Accuracy, or the mean absolute error.", width=12),
))  # fmt: skip

DRIFT = Row("Drift", (
    Panel("Alarms", "short", (
        Series(
            f"sum by (detector, signal) (increase({value('drift_detections_total')}{WINDOW}))",
            "{{detector}} on {{signal}}",
        ),
    )),
    Panel("Statistic and threshold", "short", (
        Series(value("drift_statistic"), "{{detector}}"),
        Series(value("drift_threshold"), "threshold of {{detector}}"),
    ), "Of the bank: the evidence of its surest signal, in nats, and what gives a signal a vote."),
    Panel("Evidence at the last alarm", "short", (
        Series(value("drift_evidence_nats"), "{{signal}}"),
    ), "In nats: who voted for it."),
    Panel("What moved", "short", (
        Series(value("drift_features_moved"), "features that moved"),
        Series(value("drift_width_rows"), "rows that it took; 0 at once"),
    )),
    Panel("Segment", "short", (Series(value("segment_events"), "labelled events since a drift"),)),
    Panel("Contexts", "short", (
        Series(f"sum by (outcome) ({value('concept_lookups_total')})", "{{outcome}}"),
    ), "Whether a drift led back to a past context."),
    Panel("Schema changes", "short", (
        Series(f"sum by (kind) ({value('schema_changes_total')})", "{{kind}}"),
    ), "After the first 500 events of a run."),
))  # fmt: skip

ADAPTATION = Row("Adaptation", (
    Panel("Adaptations", "eps", (
        Series(rate("adaptations_total", "outcome"), "{{outcome}}"),
    ), "better: the loss on the support rows fell."),
    Panel("What made them", "eps", (Series(rate("adaptations_total", "trigger"), "{{trigger}}"),)),
    Panel("Loss before and after", "short", (
        Series(value("adaptation_loss"), "{{phase}}"),
    ), "Of the last adaptation, on its support rows."),
    Panel("Recovery", "short", (
        Series(quantile(0.5, "recovery_events"), "half"),
        Series(quantile(0.9, "recovery_events"), "90 %"),
    ), "Labelled events from a drift until the loss of 50 is what it was before."),
    Panel("Who answers", "percentunit", (
        Series(f"avg by (family) ({value('expert_weight')})", "{{family}}"),
    ), "Weights of the quick mixture, of the key seen first.", width=16, stacked=True),
))  # fmt: skip

META = Row("Meta-learner", (
    Panel("Outer steps", "ops", (
        Series(rate("meta_updates_total", "learner"), "{{learner}}"),
        Series(rate("meta_tasks_skipped_total", "learner"), "{{learner}}, tasks skipped"),
    )),
    Panel("Query loss", "short", (Series(value("meta_loss"), "{{learner}}"),)),
    Panel("Norm of the meta-gradient", "short", (
        Series(value("meta_gradient_norm"), "{{learner}}"),
    ), log=True),
    Panel("Inner learning rate", "short", (
        Series(value("inner_learning_rate"), "{{stat}}"),
    ), log=True),
    Panel("Replay memory", "short", (Series(value("replay_memory_tasks"), "tasks"),)),
))  # fmt: skip

STATE = Row("State", (
    Panel("Commits", "ops", (Series(rate("checkpoints_total", "outcome"), "{{outcome}}"),)),
    Panel("Size of the last commit", "bytes", (Series(value("checkpoint_size_bytes"), "bytes"),)),
    Panel("Since the last commit", "s", (
        Series(f"time() - {value('checkpoint_last_success_timestamp_seconds')}", "{{instance}}"),
    )),
    Panel("Memory", "bytes", (
        Series(value("device_memory_bytes"), "{{device}} {{kind}}"),
    )),
    Panel("Segments and contexts", "short", (
        Series(value("segments_total"), "segments begun"),
        Series(value("archive_contexts"), "contexts kept"),
    )),
    Panel("Up", "short", (Series(f'up{{job="streammeta",{AT}}}', "{{instance}}"),)),
))  # fmt: skip

ROWS: tuple[Row, ...] = (
    OVERVIEW, INGEST, LABELS, QUALITY, DRIFT, ADAPTATION, META, STATE,
)  # fmt: skip

#: Drawn as lines over all panels: when the last drift was, in milliseconds, by the signals that
#: have raised an alarm just now.
DRIFTS = Series(
    f"({value('last_drift_timestamp_seconds')} * 1000) * on (job, instance) group_right () "
    f"(sum by (job, instance, detector, signal) "
    f"(increase({value('drift_detections_total')}{WINDOW})) > bool 0) > 0",
    "{{detector}} on {{signal}}, {{instance}}",
)


def expressions() -> list[str]:
    """Every expression of the dashboard, each once."""
    found = [s.expression for row in ROWS for panel in row.panels for s in panel.series]
    return list(dict.fromkeys([*found, DRIFTS.expression]))
