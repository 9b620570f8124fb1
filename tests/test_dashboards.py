"""The dashboard and the alerts, by the real Prometheus server on a processor that really runs."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dashboard_stories as story
import pytest
import servers
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from typer.testing import CliRunner

from streammeta.cli import app
from streammeta.dashboards import ALERTS, ROWS, UID, dashboard, export
from streammeta.dashboards.alerts import values
from streammeta.dashboards.panels import DRIFTS, expressions
from streammeta.errors import SinkError, UsageError
from streammeta.metrics import FAMILIES, PREFIX

yaml = pytest.importorskip("yaml", reason="PyYAML reads the exported files: pip install PyYAML")
PATIENCE = 300.0  # seconds for a processor on a busy machine


class Prometheus(servers.Server):
    """The server, with the config in its folder."""

    name, package = "prometheus", "prometheus"

    def arguments(self) -> Sequence[str]:
        return [
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]

    def answers(self) -> bool:
        try:
            return get(f"http://127.0.0.1:{self.port}/-/ready")[0] == 200
        except OSError:
            return False

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now: series with labels and a value."""
        asked = urllib.parse.urlencode({"query": expression})
        status, body = get(f"http://127.0.0.1:{self.port}/api/v1/query?{asked}")
        assert status == 200, f"{expression}: {body}"
        data = json.loads(body)["data"]
        assert data["resultType"] == "vector", expression
        found: list[dict[str, Any]] = data["result"]
        return found

    def until(self, expression: str, enough: Callable[[float], bool]) -> None:
        """Ask until the greatest value is ``enough``."""
        end = time.monotonic() + PATIENCE
        while True:
            seen = [float(series["value"][1]) for series in self.query(expression)]
            if seen and enough(max(seen)):
                return
            assert time.monotonic() < end, f"{expression}: {seen}"
            time.sleep(0.1)


def get(url: str, accept: str = "*/*") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def promtool(*arguments: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    tool = servers.program("promtool", "prometheus")
    command = [tool, *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


# -- a processor that runs, and Prometheus that scrapes it ------------------------------------


class Watched:
    """A processor in which everything has happened, still running, and Prometheus beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics, self.events = servers.free_port(), servers.free_port()
        (folder / "run.toml").write_text(
            story.CONFIG.format(metrics=self.metrics, events=self.events)
        )
        export(folder / "monitoring", (f"127.0.0.1:{self.metrics}",))
        config = folder / "monitoring" / "prometheus.yml"
        config.write_text(config.read_text().replace("5s", "500ms"))
        self.prometheus = Prometheus(folder / "monitoring")
        self.processor: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.prometheus.start()
        with open(self.folder / "run.log", "wb") as log:
            self.processor = subprocess.Popen(
                [sys.executable, "-m", "streammeta.cli", "run", "run.toml", "--fresh"],
                cwd=self.folder, stdout=log, stderr=log, env=os.environ | {"NO_COLOR": "1"},
            )  # fmt: skip
        self._wait(lambda: get(f"http://127.0.0.1:{self.metrics}/readyz")[0] == 200)
        body = "\n".join(story.lines()).encode()
        url = f"http://127.0.0.1:{self.events}/events"
        self._wait(lambda: urllib.request.urlopen(url, data=body, timeout=30).status == 200)
        self.sent = body.count(b"\n") + 1
        self.prometheus.until("streammeta_events_ingested_total", lambda n: n >= self.sent)
        self.prometheus.until("streammeta_source_lag_events", lambda n: n == 0)

    def _wait(self, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if ready():
                    return
            except OSError:
                pass
            assert self.processor is not None
            if self.processor.poll() is not None or time.monotonic() > end:
                raise AssertionError((self.folder / "run.log").read_text()[-2000:])
            time.sleep(0.05)

    def page(self, accept: str = "*/*") -> str:
        return get(f"http://127.0.0.1:{self.metrics}/metrics", accept)[1]

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.processor is not None
        self.processor.send_signal(signal.SIGTERM)
        return self.processor.wait(PATIENCE)

    def end(self) -> None:
        if self.processor is not None and self.processor.poll() is None:
            self.processor.kill()
            self.processor.wait()
        self.prometheus.kill()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    watched = Watched(tmp_path_factory.mktemp("watched"))
    try:
        watched.start()
        yield watched
    finally:
        watched.end()


def filled(expression: str) -> str:
    """As Grafana would send it: all instances, and a window."""
    return expression.replace("$instance", ".*").replace("$__rate_interval", "10m")


@pytest.mark.slow
def test_every_expression_of_dashboard_and_alerts_has_data(watched: Watched) -> None:
    empty, no_number = [], []
    for expression in map(filled, [*expressions(), *values()]):
        found = [float(series["value"][1]) for series in watched.prometheus.query(expression)]
        if not found:
            empty.append(expression)
        elif all(math.isnan(value) for value in found):
            no_number.append(expression)
    assert empty == []
    assert no_number == []


@pytest.mark.slow
def test_what_happened_in_the_stream_is_what_prometheus_knows(watched: Watched) -> None:
    def now(expression: str) -> float:
        return sum(float(s["value"][1]) for s in watched.prometheus.query(expression))

    given_up = story.ROWS // 50
    broken = len(range(30, story.ROWS, 100))
    assert now('streammeta_events_processed_total{stage="predict"}') == story.ROWS
    assert now('streammeta_events_rejected_total{reason="malformed"}') == broken
    assert now('streammeta_events_rejected_total{reason="wrong_type"}') == broken
    assert now('streammeta_labels_unmatched_total{reason="unknown"}') == broken
    late = now('streammeta_labels_unmatched_total{reason="late"}')
    assert given_up - 3 <= late <= given_up  # the last ones have not come yet
    assert now("streammeta_predictions_expired_total") >= late
    assert now('streammeta_schema_changes_total{kind="feature_added"}') == 1
    assert now('streammeta_schema_changes_total{kind="class_added"}') == 1
    assert now("streammeta_drift_detections_total") >= len(story.SWITCHES) - 1
    assert now("streammeta_recovery_events_count") >= 1
    assert now('streammeta_checkpoints_total{outcome="ok"}') >= watched.sent // 500
    assert now('streammeta_sink_records_total{sink="dead.jsonl"}') >= 3 * broken
    delay = now("streammeta_label_delay_seconds_sum") / now("streammeta_label_delay_seconds_count")
    assert delay == story.LATE


@pytest.mark.slow
def test_the_page_is_clean_and_no_label_tells_of_keys_events_or_classes(watched: Watched) -> None:
    checked = promtool("check", "metrics", text=watched.page())
    assert (checked.returncode, checked.stderr) == (0, "")
    page = watched.page("application/openmetrics-text; version=1.0.0")
    seen: dict[tuple[str, str], set[str]] = {}
    known = {PREFIX + family.name for family in FAMILIES}
    for family in text_string_to_metric_families(page):
        assert family.name in known
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    seen.setdefault((family.name, label), set()).add(value)
    for (name, label), found in seen.items():
        most = 10 if (name, label) == ("streammeta_expert_weight", "family") else 9
        assert len(found) <= most, (name, label, found)
        assert not any(
            value in ("low", "high", "other") or value.startswith("q") for value in found
        )


@pytest.mark.slow
def test_prometheus_takes_the_rules_and_sees_the_processor_go(watched: Watched) -> None:
    _, body = get(f"http://127.0.0.1:{watched.prometheus.port}/api/v1/rules")
    (group,) = json.loads(body)["data"]["groups"]
    assert [rule["name"] for rule in group["rules"]] == [alert.name for alert in ALERTS]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert watched.prometheus.query('up{job="streammeta"} == 0') == []
    assert watched.stop() == 0
    watched.prometheus.until('up{job="streammeta"}', lambda up: up == 0)
    assert watched.prometheus.query(ALERTS[0].expression)


# -- the files ---------------------------------------------------------------------------------


def test_the_command_writes_files_that_promtool_takes(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["dashboards", "export", str(tmp_path / "m")])
    assert made.exit_code == 0, made.output
    written = [Path(line) for line in made.stdout.split("\n") if line]
    assert all(path.is_file() for path in written)
    assert {"compose.yaml", "prometheus.yml", "rules.yml"} <= {path.name for path in written}
    for what, name in (("config", "prometheus.yml"), ("rules", "rules.yml")):
        checked = promtool("check", what, tmp_path / "m" / name)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    (broken := tmp_path / "m" / "rules.yml").write_text("groups: [{name: x, rules: [{alert: a}]}]")
    assert promtool("check", "rules", broken).returncode != 0


def test_a_folder_that_cannot_be_written_is_69(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot be written") as caught:
        export(tmp_path / "file" / "folder")
    assert caught.value.exit_code == 69


def test_an_export_again_replaces_all_but_what_is_yours(tmp_path: Path) -> None:
    first = export(tmp_path)
    (tmp_path / "run.toml").write_text("mine")
    (tmp_path / "rules.yml").write_text("old")
    again = export(tmp_path)
    assert {path.name for path in first} - {path.name for path in again} == {"run.toml", ".env"}
    assert (tmp_path / "run.toml").read_text() == "mine"
    assert "StreammetaDown" in (tmp_path / "rules.yml").read_text()


@pytest.mark.parametrize("targets", [("localhost",), (":9108",), ("host:port",), ()])
def test_a_target_without_a_port_is_refused(tmp_path: Path, targets: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        export(tmp_path / "m", targets)
    assert not (tmp_path / "m").exists()


def test_the_compose_file_keeps_to_the_compose_schema(tmp_path: Path) -> None:
    export(tmp_path, source=str(Path(__file__).parent.parent))
    compose = servers.program("docker-compose", "docker-compose")

    def config() -> subprocess.CompletedProcess[str]:
        command = [compose, "--file", "compose.yaml", "config"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    found = config()
    assert found.returncode == 0, found.stderr
    services = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]
    assert set(services) == {"processor", "prometheus", "grafana"}
    for service in services.values():  # what is mounted was exported, what is open is loopback
        for volume in service["volumes"]:
            outside = volume.split(":")[0]
            assert not outside.startswith("./") or (tmp_path / outside).exists(), volume
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    build = dict(line.split("=") for line in (tmp_path / ".env").read_text().splitlines())
    copied = re.findall(r"^COPY (.*) \S+$", Path(build["STREAMMETA_DOCKERFILE"]).read_text(), re.M)
    for name in " ".join(copied).split():
        assert (Path(build["STREAMMETA_SOURCE"]) / name).exists(), name
    text = (tmp_path / "compose.yaml").read_text()
    (tmp_path / "compose.yaml").write_text(text.replace("restart:", "restarts:"))
    assert config().returncode != 0


def test_the_processor_of_the_compose_file_has_a_config_that_runs(tmp_path: Path) -> None:
    export(tmp_path)
    checked = CliRunner().invoke(app, ["validate", str(tmp_path / "run.toml")])
    assert checked.exit_code == 0, checked.output
    scraped = yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]
    assert scraped[0]["static_configs"] == [{"targets": ["processor:9108"]}]
    files = [tmp_path / "grafana/provisioning/datasources/prometheus.yml"]
    files.append(tmp_path / "grafana/provisioning/dashboards/streammeta.yml")
    assert [yaml.safe_load(file.read_text())["apiVersion"] for file in files] == [1, 1]


# -- the dashboard -----------------------------------------------------------------------------


def test_the_dashboard_has_the_rows_and_can_be_provisioned() -> None:
    made = dashboard()
    titles = [panel["title"] for panel in made["panels"] if panel["type"] == "row"]
    assert titles == [
        "Overview", "Ingest", "Labels", "Quality against baselines", "Drift", "Adaptation",
        "Meta-learner", "State",
    ]  # fmt: skip
    assert made["uid"] == UID
    assert "__inputs" not in json.dumps(made)
    assert made["templating"]["list"][0]["name"] == "datasource"
    assert made["annotations"]["list"][0]["expr"] == DRIFTS.expression
    for panel in made["panels"]:
        if panel["type"] != "row":
            uids = {panel["datasource"]["uid"], *(t["datasource"]["uid"] for t in panel["targets"])}
            assert uids == {"${datasource}"}


def test_panels_do_not_overlap_and_all_their_queries_are_there() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    queries = sum(len(panel.get("targets", ())) for panel in panels)
    assert queries == sum(len(panel.series) for row in ROWS for panel in row.panels)


def test_every_metric_that_is_asked_for_exists_and_every_metric_is_shown() -> None:
    names = {}
    for family in FAMILIES:
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket",)}[family.kind]
        names |= {PREFIX + family.name + end: family.name for end in ends}
    asked = set()
    for expression in [*expressions(), *values()]:
        asked |= set(re.findall(r"streammeta_\w+", expression))
    assert asked <= set(names)
    shown = {names[name] for name in asked}
    assert {family.name for family in FAMILIES} == shown


# -- the alerts --------------------------------------------------------------------------------

AT = 'job="streammeta",instance="p:1"'
#: Of each alert: series that raise it, series that do not, the minute at which it is asked, what a
#: person then reads. Values are by the minute.
CASES: dict[str, tuple[dict[str, str], dict[str, str], int, str, dict[str, str]]] = {
    "StreammetaDown": (
        {"up{AT}": "1 1 0x10"}, {"up{AT}": "1x2 0 1x10"}, 6,
        "p:1 cannot be scraped", {},
    ),
    "StreammetaStalled": (
        {"streammeta_events_ingested_total{AT}": "0+60x5 300x30"},
        {"streammeta_events_ingested_total{AT}": "0+1x40"}, 20,
        "p:1 runs but has read no event for 10 minutes", {},
    ),
    "StreammetaLagGrowing": (
        {"streammeta_source_lag_events{AT,source=\"s\"}": "2000+120x60"},
        {"streammeta_source_lag_events{AT,source=\"s\"}": "9000-120x60"}, 40,
        "p:1 falls behind s by 2 events a second", {"source": "s"},
    ),
    "StreammetaRejects": (
        {"streammeta_events_rejected_total{AT,reason=\"malformed\"}": "0+6x60",
         "streammeta_events_ingested_total{AT}": "0+60x60"},
        {"streammeta_events_rejected_total{AT,reason=\"malformed\"}": "0+1x60",
         "streammeta_events_ingested_total{AT}": "0+60x60"}, 40,
        "p:1 rejects 10% of its events", {},
    ),
    "StreammetaLabelsMissing": (
        {"streammeta_labels_joined_total{AT}": "0+15x120",
         "streammeta_events_processed_total{AT,stage=\"predict\"}": "0+60x120"},
        {"streammeta_labels_joined_total{AT}": "0+55x120",
         "streammeta_events_processed_total{AT,stage=\"predict\"}": "0+60x120"}, 90,
        "p:1: 75% of predictions get no label", {},
    ),
    "StreammetaQualityDegraded": (
        {"streammeta_prequential_loss{AT,window=\"rolling\"}": "0.1x99 0.3x99"},
        {"streammeta_prequential_loss{AT,window=\"rolling\"}": "0.1x99 0.12x99"}, 119,
        "p:1: loss of the last 1,000 events is 2.25 times that of the last day",
        {"window": "rolling"},
    ),
    "StreammetaAdaptationNotHelping": (
        {"streammeta_prequential_loss{AT,window=\"rolling\"}": "0.3x90",
         "streammeta_baseline_loss{AT,baseline=\"frozen\"}": "0.2x90"},
        {"streammeta_prequential_loss{AT,window=\"rolling\"}": "0.1x90",
         "streammeta_baseline_loss{AT,baseline=\"frozen\"}": "0.2x90"}, 60,
        "p:1: the model's loss is 1.5 times that of a network that stopped learning before the "
        "last drift", {},
    ),
    "StreammetaDriftStorm": (
        {"streammeta_drift_detections_total{AT,signal=\"error\"}": "0+1x200",
         "streammeta_events_processed_total{AT,stage=\"learn\"}": "0+100x200"},
        {"streammeta_drift_detections_total{AT,signal=\"error\"}": "0x60 1x200",
         "streammeta_events_processed_total{AT,stage=\"learn\"}": "0+100x200"}, 120,
        "p:1 finds a drift more often than every 200 events", {},
    ),
    "StreammetaAdaptationFailing": (
        {"streammeta_adaptations_total{AT,outcome=\"worse\"}": "0+3x200",
         "streammeta_adaptations_total{AT,outcome=\"better\"}": "0+1x200"},
        {"streammeta_adaptations_total{AT,outcome=\"worse\"}": "0+1x200",
         "streammeta_adaptations_total{AT,outcome=\"better\"}": "0+9x200"}, 120,
        "p:1: 75% of adaptations did not lower the loss on their own rows", {},
    ),
    "StreammetaCheckpointStale": (
        {"streammeta_checkpoint_last_success_timestamp_seconds{AT}": "0x60",
         "streammeta_events_ingested_total{AT}": "0+60x60"},
        {"streammeta_checkpoint_last_success_timestamp_seconds{AT}": "0+60x60",
         "streammeta_events_ingested_total{AT}": "0+60x60"}, 30,
        "p:1: the last commit is 30m 0s old", {},
    ),
    "StreammetaSchemaChanged": (
        {"streammeta_schema_changes_total{AT,kind=\"feature_added\"}": "0x60 2x60"},
        {"streammeta_schema_changes_total{AT,kind=\"feature_added\"}": "2x120"}, 90,
        "p:1: feature_added, 2 times in an hour", {"kind": "feature_added"},
    ),
    "StreammetaSinkErrors": (
        {"streammeta_sink_records_total{AT,sink=\"out\",outcome=\"retried\"}": "0x10 0+4x60",
         "streammeta_sink_records_total{AT,sink=\"out\",outcome=\"ok\"}": "0x70"},
        {"streammeta_sink_records_total{AT,sink=\"out\",outcome=\"ok\"}": "0+60x70",
         "streammeta_sink_records_total{AT,sink=\"out\",outcome=\"retried\"}": "0x70"}, 30,
        "p:1 cannot write to out", {"sink": "out"},
    ),
}  # fmt: skip


def judged(folder: Path, name: str, series: dict[str, str], minute: int, told: list[Any]) -> str:
    """What promtool says of one alert at a minute of a story: nothing, if it is as ``told``."""
    (folder / "rules.yml").write_text((export(folder / "m")[0].parent / "rules.yml").read_text())
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": named.replace("AT", AT), "values": values}
                    for named, values in series.items()
                ],
                "alert_rule_test": [
                    {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": told}
                ],
            }
        ],
    }
    (folder / "test.yml").write_text(json.dumps(test))
    found = promtool("test", "rules", folder / "test.yml")
    return "" if found.returncode == 0 else found.stdout + found.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_when_it_should_and_only_then(tmp_path: Path, alert: Any) -> None:
    bad, good, minute, summary, labels = CASES[alert.name]
    expected = {
        "exp_labels": {
            "severity": alert.severity, "job": "streammeta", "instance": "p:1", **labels,
        },
        "exp_annotations": {"summary": summary, "runbook": alert.runbook},
    }  # fmt: skip
    assert judged(tmp_path, alert.name, bad, minute, [expected]) == ""
    assert judged(tmp_path, alert.name, good, minute, []) == ""
    assert judged(tmp_path, alert.name, bad, minute, []) != ""  # promtool does tell them apart


def test_every_alert_says_what_to_do() -> None:
    assert len(ALERTS) == 12
    for alert in ALERTS:
        assert len(alert.runbook) > 80, alert.name
        assert alert.runbook.endswith("."), alert.name
