"""The tutorial does what it says: its commands, one after the other, against a real Redis."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import servers
from test_cli import settings

PAGE = (Path(__file__).parent.parent / "docs" / "redis.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
QUESTIONS, EVENTS = 1200, 1200 + 1195
CHANGED = 600


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    running = servers.Redis(folder)
    running.start()
    yield running
    running.kill()


def runner(folder: Path, server: servers.Redis):
    """Runs a line of the page; only the port and the program's own path are not as written."""
    programs = folder / "bin"
    programs.mkdir()
    for name, module in (("streammeta", "-m streammeta.cli"), ("python", "")):
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        path.chmod(0o755)
    environment = settings(
        PATH=f"{programs}{os.pathsep}{os.environ['PATH']}", REDIS_URL=server.url,
        OMP_NUM_THREADS="1", STREAMMETA_METRICS__PORT="0",
    )  # fmt: skip
    urls = f" --set source.url={server.url} --set sinks.0.url={server.url}"

    def run(line: str) -> subprocess.CompletedProcess[str]:
        if line.startswith("streammeta init"):
            line += urls
        line = line.replace("redis-cli ", f"redis-cli -p {server.port} ")
        done = subprocess.run(
            line, shell=True, cwd=folder, env=environment, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.mark.slow  # the command is started six times
def test_every_command_of_the_page_does_what_the_page_says(tmp_path, server):
    (tmp_path / "orders.py").write_text(SCRIPT)
    run = runner(tmp_path, server)
    done = {line: run(line) for line in COMMANDS if not line.startswith("pip ")}
    told = {re.sub(r" (orders|runs).*", "", line): one for line, one in done.items()}
    first, second = (one for line, one in done.items() if line.startswith("streammeta run"))
    assert "drift detected" in first.stderr + second.stderr
    assert "resumed after event 1,500" in second.stderr
    assert "whole" in told["streammeta checkpoint ls"].stdout
    assert '"kind":"predicted"' in told["redis-cli XREVRANGE predicted + - COUNT 1"].stdout
    out = tmp_path / "runs" / "orders"
    answers = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [f"o-{n}" for n in range(QUESTIONS)]
    drifts = [json.loads(line) for line in (out / "drifts.jsonl").read_text().splitlines()]
    rows = [drift["row"] for drift in drifts if drift["kind"] == "drift_detected"]
    assert any(CHANGED <= row < CHANGED + 100 for row in rows)
    assert (out / "rejected.jsonl").read_text() == ""
    with redis.Redis.from_url(server.url) as client:
        sent = [json.loads(fields[b"data"]) for _, fields in client.xrange("predicted")]
        assert client.xlen("orders") == EVENTS
    assert [one["id"] for one in sent if one["kind"] == "predicted"] == [
        answer["id"] for answer in answers
    ]
    assert [one["row"] for one in sent if one["kind"] == "drift_detected"] == rows
    last = [answer["prediction"] for answer in answers[-100:]]
    assert max(last) < 20, "what sold before the change is no longer what is predicted"


def test_the_page_names_only_what_there_is():
    from prometheus_client import generate_latest

    from streammeta.cli.init import TEMPLATES
    from streammeta.events import Predicted, Scored
    from streammeta.metrics import Metrics

    assert "redis" in TEMPLATES
    metrics = Metrics("streammeta", "regression")
    metrics.begins("orders", (), checkpoints=True)
    metrics.record([Predicted("a", "", 0, None, 1.0), Scored("a", "", 0, 2.0, 1.0, 1.0, 1.0, 0)])
    served = generate_latest(metrics.registry).decode()
    for name in set(re.findall(r"streammeta_\w+", PAGE)):
        assert name in served, name
