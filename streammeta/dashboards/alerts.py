"""When a person should be told, what they are told, and what they should do about it.

One drift is no alert: it is a line over the dashboard.
"""

from __future__ import annotations

import json
from typing import Literal, NamedTuple

BY = "job, instance"


class Alert(NamedTuple):
    """``value`` is there while all is well, too; the alert fires when ``value condition`` has been
    true for ``lasting``. ``also``: value and condition that must hold besides."""

    name: str
    value: str
    condition: str
    lasting: str
    severity: Literal["critical", "warning", "info"]
    summary: str
    runbook: str
    also: tuple[str, str] | None = None

    @property
    def expression(self) -> str:
        """PromQL, as it stands in the rules file."""
        told = f"{self.value} {self.condition}"
        return told if self.also is None else f"({told}) and ({' '.join(self.also)})"


def _rate(name: str, window: str) -> str:
    return f"sum by ({BY}) (rate(streammeta_{name}[{window}]))"


ROLLING = 'streammeta_prequential_loss{window="rolling"}'
FROZEN = 'streammeta_baseline_loss{baseline="frozen"}'
ASKED, LEARNED = (f'events_processed_total{{stage="{stage}"}}' for stage in ("predict", "learn"))
NOT_BETTER = 'adaptations_total{outcome!="better"}'
NOT_WRITTEN = 'streammeta_sink_records_total{outcome!="ok"}'

ALERTS: tuple[Alert, ...] = (
    Alert(
        "StreammetaDown", 'up{job="streammeta"}', "== 0", "2m", "critical",
        "{{ $labels.instance }} cannot be scraped",
        "Look whether the process runs and what it last wrote to stderr; start it again with "
        "`streammeta run CONFIG --resume`: it goes on from its last commit. If it runs, see that "
        "metrics.host and metrics.port are what prometheus.yml asks.",
    ),
    Alert(
        "StreammetaStalled", _rate("events_ingested_total", "5m"), "== 0", "5m", "warning",
        "{{ $labels.instance }} runs but has read no event for 10 minutes",
        "Look at `source_up` and the log: is the source reachable, does it have new events? If it "
        "has, see whether a sink keeps the loop waiting (Ingest, sinks: "
        "retried). If the stream has just gone quiet, nothing is wrong.",
    ),
    Alert(
        "StreammetaLagGrowing", "deriv(streammeta_source_lag_events[10m])", "> 0", "15m",
        "warning",
        "{{ $labels.instance }} falls behind {{ $labels.source }} by {{ $value | humanize }} "
        "events a second",
        "Events come faster than they are learned. See which stage takes the time (Ingest, time of "
        "a stage). Raise model.chunk, take fewer model.experts, or share the keys among more "
        "processes.",
        ("streammeta_source_lag_events", "> 1000"),
    ),
    Alert(
        "StreammetaRejects",
        f"{_rate('events_rejected_total', '10m')} / "
        f"({_rate('events_ingested_total', '10m')} > 0)",
        "> 0.05", "10m", "warning",
        "{{ $labels.instance }} rejects {{ $value | humanizePercentage }} of its events",
        "Read the newest lines of the dead-letter sink: each says where it stood and what was "
        "wrong with it. Mostly a producer has changed its format; if a field's type has changed "
        "for good, start with --fresh.",
    ),
    Alert(
        "StreammetaLabelsMissing",
        f"1 - {_rate('labels_joined_total', '30m')} / "
        f"({_rate(ASKED, '30m')} > 0)",
        "> 0.5", "30m", "warning",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of predictions get no label",
        "Without labels nothing is learned, and drift is only seen in features. See whether labels "
        "come at all, whether their ids are those of the questions (Labels, without a question), "
        "and whether model.label_ttl and model.max_pending leave them the time they need.",
    ),
    Alert(
        "StreammetaQualityDegraded",
        f"{ROLLING} / avg_over_time({ROLLING}[1d])", "> 1.5", "15m", "warning",
        "{{ $labels.instance }}: loss of the last 1,000 events is {{ $value | humanize }} times "
        "that of the last day",
        "See whether a drift was found (the lines on the dashboard) and whether recovery is under "
        "way. If none was, and no_change got worse as well, the stream has become harder. If none "
        "was and no_change did not, look at the features of the newest events.",
    ),
    Alert(
        "StreammetaAdaptationNotHelping",
        f"{ROLLING} / on ({BY}) {FROZEN}",
        "> 1.05", "30m", "warning",
        "{{ $labels.instance }}: the model's loss is {{ $value | humanize }} times that of a "
        "network that stopped learning before the last drift",
        "Adapting costs more than it gives. Were the last drifts false alarms (Drift, evidence)? "
        "Then raise model.false_alarm_every. Else compare models on recorded events with "
        "`streammeta evaluate DATA --models streammeta,no_challengers,reset`.",
    ),
    Alert(
        "StreammetaDriftStorm",
        f"{_rate('drift_detections_total', '1h')} / "
        f"({_rate(LEARNED, '1h')} > 0)",
        "> 0.005", "15m", "warning",
        "{{ $labels.instance }} finds a drift more often than every 200 events",
        "Segments this short leave nothing to learn in. See which signal calls (Drift, alarms). If "
        "a feature does, leave it out with source.ignore; if losses do, raise "
        "model.false_alarm_every, or give the model a feature that says which regime it is in.",
    ),
    Alert(
        "StreammetaAdaptationFailing",
        f"{_rate(NOT_BETTER, '1h')} / "
        f"({_rate('adaptations_total', '1h')} > 0)",
        "> 0.5", "15m", "warning",
        "{{ $labels.instance }}: {{ $value | humanizePercentage }} of adaptations did not lower "
        "the loss on their own rows",
        "Inner steps go astray: look at the inner learning rates and the meta-gradient "
        "(Meta-learner). Rates that grew without bound: lower model.inner_lr and start with "
        "--fresh, or from a file of `streammeta pretrain` with --init.",
    ),
    Alert(
        "StreammetaCheckpointStale",
        "time() - streammeta_checkpoint_last_success_timestamp_seconds", "> 900", "5m", "critical",
        "{{ $labels.instance }}: the last commit is {{ $value | humanizeDuration }} old",
        "A crash now would lose what was learned since. Look at the log and at the free space and "
        "the rights of checkpoint.folder; `fenced` commits mean that a second process writes "
        "there: stop one of the two. A stream with no new events is not committed.",
        (_rate("events_ingested_total", "5m"), "> 0"),
    ),
    Alert(
        "StreammetaSchemaChanged",
        f"sum by ({BY}, kind) (increase(streammeta_schema_changes_total[1h]))", "> 0", "0m",
        "info",
        "{{ $labels.instance }}: {{ $labels.kind }}, "
        "{{ printf \"%.0f\" $value }} times in an hour",
        "The stream has features, categories or classes that it did not have. Learning goes on, "
        "there is room for some. If nobody meant to change it, ask whoever produces the stream.",
    ),
    Alert(
        "StreammetaSinkErrors",
        f"sum by ({BY}, sink) (increase({NOT_WRITTEN}[10m]))",
        "> 0", "1m", "critical",
        "{{ $labels.instance }} cannot write to {{ $labels.sink }}",
        "Look at the log for the fault. A server that is gone is tried again until give_up_after, "
        "then the process ends with 69; nothing is lost: after the repair "
        "`streammeta run CONFIG --resume` delivers what the last commit holds.",
    ),
)  # fmt: skip


def values() -> list[str]:
    """Every expression on which an alert depends, without its conditions."""
    found = [alert.value for alert in ALERTS]
    found += [alert.also[0] for alert in ALERTS if alert.also is not None]
    return list(dict.fromkeys(found))


def rules_file() -> str:
    """The alerts as a rules file of Prometheus; JSON strings are YAML strings, too."""
    lines = [
        "# Alerts of streammeta. `promtool check rules` passes; each says what to do.",
        "groups:",
        "  - name: streammeta",
        "    rules:",
    ]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {json.dumps(alert.expression)}",
            f"        for: {alert.lasting}",
            f"        labels: {{severity: {alert.severity}}}",
            "        annotations:",
            f"          summary: {json.dumps(alert.summary)}",
            f"          runbook: {json.dumps(alert.runbook)}",
        ]
    return "\n".join(lines) + "\n"
