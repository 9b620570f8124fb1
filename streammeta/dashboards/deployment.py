"""The files around the dashboard: Prometheus, Grafana's provisioning, and a compose file."""

from __future__ import annotations

import json
from pathlib import Path

from streammeta.dashboards.alerts import rules_file
from streammeta.dashboards.grafana import dashboard
from streammeta.errors import SinkError, UsageError

PROCESSOR, PROMETHEUS = "processor:9108", "http://prometheus:9090"  # as the compose file has them
EVERY = "5s"  # between two scrapes

PROMETHEUS_YML = """\
# Prometheus for streammeta: whom to scrape, and the alerts. Add an alertmanager to be told of them.
global:
  scrape_interval: {every}
  evaluation_interval: {every}
rule_files:
  - rules.yml
scrape_configs:
  - job_name: streammeta            # the dashboard and the alerts look for this name
    static_configs:
      - targets: [{targets}]
"""

DATASOURCES_YML = """\
apiVersion: 1
datasources:
  - name: Prometheus
    uid: prometheus
    type: prometheus
    access: proxy
    url: {prometheus}
    isDefault: true
    jsonData:
      timeInterval: {every}         # Grafana's rates look back four of these
"""

DASHBOARDS_YML = """\
apiVersion: 1
providers:
  - name: streammeta
    type: file
    options:
      path: /var/lib/grafana/dashboards
"""

COMPOSE = """\
# Processor, Prometheus and Grafana: docker compose up, then http://127.0.0.1:3000/d/streammeta
#
# This file is held against the compose schema, but the project's tests never start it: that needs
# a container engine and a registry. All ports are open to this machine only.
services:
  processor:
    build:
      context: "${STREAMMETA_SOURCE:-.}"      # a clone of streammeta; .env names it
      dockerfile: "${STREAMMETA_DOCKERFILE:-Dockerfile}"
    command: ["run", "/etc/streammeta/run.toml", "--resume"]
    restart: on-failure
    stop_grace_period: 30s                    # SIGTERM: finish the chunk, commit, stop
    volumes:
      - ./run.toml:/etc/streammeta/run.toml:ro
      - state:/var/lib/streammeta
    ports: ["127.0.0.1:9108:9108"]
  prometheus:
    image: prom/prometheus:v2.55.1
    volumes:
      - ./prometheus.yml:/etc/prometheus/prometheus.yml:ro
      - ./rules.yml:/etc/prometheus/rules.yml:ro
      - metrics:/prometheus
    ports: ["127.0.0.1:9090:9090"]
  grafana:
    image: grafana/grafana:11.3.0
    environment:
      GF_AUTH_ANONYMOUS_ENABLED: "true"       # whoever reaches the port may look
      GF_USERS_DEFAULT_THEME: system
    volumes:
      - ./grafana/provisioning:/etc/grafana/provisioning:ro
      - ./grafana/dashboards:/var/lib/grafana/dashboards:ro
    ports: ["127.0.0.1:3000:3000"]
    depends_on: [prometheus]
volumes:
  state:
  metrics:
"""

DOCKERFILE = """\
# The processor, from a clone of streammeta. Not built by the project's tests.
FROM python:3.12-slim
WORKDIR /opt/streammeta
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY drift drift/
COPY streammeta streammeta/
COPY scenarios scenarios/
RUN pip install --no-cache-dir -c constraints.txt torch \\
        --index-url https://download.pytorch.org/whl/cpu \\
 && pip install --no-cache-dir -c constraints.txt \\
        '.[parquet,yaml,redis,nats,mqtt,kafka,websocket,serve]'
WORKDIR /var/lib/streammeta
ENTRYPOINT ["streammeta"]
"""

RUN_TOML = """\
# A stream to look at: a camera whose colour channels get mis-wired. Put your own source here.
pace = "20/s"

[source]
scenario = "sensor_fault"           # bundled: no network needed

[[sinks]]
kind = "jsonl"
path = "predictions.jsonl"
outputs = ["predicted", "drift_detected"]

[metrics]
host = "0.0.0.0"                    # Prometheus is another container
port = 9108

[checkpoint]
folder = "checkpoints"
every_events = 1000
"""

README = """\
# streammeta: metrics, alerts, dashboards

Written by `streammeta dashboards export`; write them again after an update, the dashboard keeps its
uid.

- `grafana/dashboards/streammeta.json`: the dashboard. In a Grafana of your own: Dashboards, New,
  Import, or put it where Grafana is provisioned from. It asks for its data source with a variable.
- `rules.yml`: twelve alerts for Prometheus; each has a `runbook` line that says what to do.
- `prometheus.yml`: scrapes {targets} every {every}. With Prometheus on the same machine as the
  processor: `streammeta dashboards export DIR --target 127.0.0.1:9108` and
  `prometheus --config.file=DIR/prometheus.yml`.
- `compose.yaml`, `Dockerfile`, `run.toml`, `.env`: processor, Prometheus and Grafana together with
  `docker compose up`. Checked against the compose schema; **not started by the project's tests**,
  which run the real Prometheus server and its promtool, but no container engine and no Grafana.
"""


def files(
    targets: tuple[str, ...] = (PROCESSOR,), prometheus: str = PROMETHEUS, source: str = "."
) -> dict[str, str]:
    """All files by their path in the folder.

    ``targets``: HOST:PORT of processors, as Prometheus reaches them; ``prometheus``: its URL, as
    Grafana reaches it; ``source``: a clone of streammeta, for the compose file.

    Raises:
        UsageError: a target has no port, or there is none.
    """
    for target in targets:
        host, _, port = target.rpartition(":")
        if not (host and port.isdecimal()):
            raise UsageError(f"target {target!r}: expected HOST:PORT, such as {PROCESSOR}")
    if not targets:
        raise UsageError("there is no target: name one processor at least, as HOST:PORT")
    quoted = ", ".join(json.dumps(target) for target in targets)
    return {
        "README.md": README.format(targets=", ".join(targets), every=EVERY),
        "prometheus.yml": PROMETHEUS_YML.format(every=EVERY, targets=quoted),
        "rules.yml": rules_file(),
        "grafana/provisioning/datasources/prometheus.yml": DATASOURCES_YML.format(
            prometheus=prometheus, every=EVERY
        ),
        "grafana/provisioning/dashboards/streammeta.yml": DASHBOARDS_YML,
        "grafana/dashboards/streammeta.json": json.dumps(dashboard(), indent=2) + "\n",
        "compose.yaml": COMPOSE,
        "Dockerfile": DOCKERFILE,
        "run.toml": RUN_TOML,
        ".env": f"STREAMMETA_SOURCE={source}\nSTREAMMETA_DOCKERFILE=DOCKERFILE_HERE\n",
    }


def export(
    folder: Path,
    targets: tuple[str, ...] = (PROCESSOR,),
    prometheus: str = PROMETHEUS,
    source: str = ".",
) -> list[Path]:
    """Write ``files`` into ``folder`` and return what was written.

    Files of an earlier export are replaced, but ``run.toml`` and ``.env`` stay as they are: they
    are yours to change.

    Raises:
        UsageError: as ``files``.
        SinkError: the folder cannot be written.
    """
    written = []
    dockerfile = str((folder / "Dockerfile").resolve())
    for name, text in files(targets, prometheus, source).items():
        path = folder / name
        if name in ("run.toml", ".env") and path.exists():
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("DOCKERFILE_HERE", dockerfile), encoding="utf-8")
        except OSError as error:
            raise SinkError(f"{path}: cannot be written: {error.strerror}") from error
        written.append(path)
    return written
