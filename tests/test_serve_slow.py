"""The HTTP API in long: killed while it is being sent to, and sent whatever its description allows
and much that it does not."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import schemathesis
import servers
from api_stories import ALONE, Running, config
from hypothesis import HealthCheck, given, seed, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)

from scenarios import serve_bench
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event
from streammeta.serve.inlet import ApiSource
from streammeta.store import LocalStore

pytestmark = pytest.mark.slow

SINKS = """
[[sinks]]
path = "out.jsonl"
outputs = ["predicted", "scored", "rejected"]

[checkpoint]
folder = "commits"
every_events = 25
"""
REQUESTS = 5_000


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """The description has no other word for lines than a list."""
    rows = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def start(folder: Path, port: int) -> subprocess.Popen[str]:
    """A run whose API answers at ``port``."""
    text = ALONE.format(serve="", more=SINKS, task="classification")
    (folder / "run.toml").write_text(text.replace("port = 0", f"port = {port}"))
    home = str(Path(__file__).parent.parent)
    with (folder / "told").open("a") as told:
        running = subprocess.Popen(
            [sys.executable, "-m", "streammeta.cli", "run", "run.toml", "--resume"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": home},
            stderr=told,
            text=True,
        )
    end = time.monotonic() + 120
    while True:
        try:
            ask(port, "GET", "/readyz")
            return running
        except OSError:
            assert running.poll() is None, (folder / "told").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        link.request(method, path, data, headers)
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    """Events, questions and labels are sent while the run is killed again and again; what was
    acknowledged is in the sinks once, and the model is the one that has learned it all in order."""
    port, acknowledged, number = servers.free_port(), [], 0
    for kills in range(4):
        running = start(tmp_path, port)
        stop = number + 60
        while number < stop:
            t, number = float(number * number % 23), number + 1
            label = "high" if t > 11 else "low"
            if number % 3:
                sent = [("/v1/events", {"id": f"e{number}", "x": {"t": t}, "y": label})]
            else:
                sent = [("/v1/predict", {"id": f"e{number}", "x": {"t": t}})]
                sent += [("/v1/labels", {"id": f"e{number}", "y": label})]
            for path, body in sent:
                status, told = ask(port, "POST", path, body)
                assert status == 200, told
                acknowledged.append((path, body["id"]))
        if kills < 3:
            running.kill()
            assert running.wait(timeout=120) == -signal.SIGKILL
    while json.loads(ask(port, "GET", "/v1/status")[1])["events"] < len(acknowledged):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=120) == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    found = Counter((line["kind"], line["id"]) for line in lines)
    asked = {name for path, name in acknowledged if path != "/v1/labels"}
    told = {name for path, name in acknowledged if path != "/v1/predict"}
    assert found == Counter(
        [("predicted", name) for name in asked] + [("scored", name) for name in told]
    )
    record = LocalStore(tmp_path / "commits").latest(0)
    assert record.events == len(acknowledged)
    source = ApiSource(str(tmp_path / "journal"))
    engine = Engine(ModelConfig(task="classification", seed=3))
    for i in range(record.events):
        engine.observe(source.read({"record": i}, 1)[0])
        engine.replay()
    source.close()
    assert engine.snapshot().to_bytes() == record.snapshot.to_bytes()


def test_kill_9_forgets_no_adaptation_that_was_answered(tmp_path):
    port = servers.free_port()
    running = start(tmp_path, port)
    engine = Engine(ModelConfig(task="classification", seed=3))
    for i in range(40):
        event = {"id": f"e{i}", "x": {"t": float(i * i % 23)}, "y": "ab"[i % 2]}
        assert ask(port, "POST", "/v1/events", event)[0] == 200
        engine.observe([Event(event["id"], event["x"], event["y"])])
        engine.replay()
    while json.loads(ask(port, "GET", "/v1/status")[1])["score"]["labels"] < 40:
        time.sleep(0.01)
    status, told = ask(port, "POST", "/v1/adapt", {})
    assert status == 200, told
    running.kill()
    running.wait()
    assert len(engine.adapt()) == 2
    record = LocalStore(tmp_path / "commits").latest(0)
    assert record.snapshot.to_bytes() == engine.snapshot().to_bytes()


def test_no_request_of_any_kind_is_a_fault_of_the_server(tmp_path, monkeypatch):
    """5,000 requests, by turns as the description wants them and as it does not; of a small model,
    for they make up many keys."""
    monkeypatch.chdir(tmp_path)
    path = config(tmp_path, "queue = 500")
    small = 'seed = 3\nexperts = ["networks", "persistence"]\nhidden = [8]\nscouts = []\n'
    path.write_text(path.read_text().replace("seed = 3\n", small))
    running = Running(path).drive()
    statuses: Counter[int] = Counter()
    try:
        schema = schemathesis.openapi.from_dict(running.get("/openapi.json"))
        operations = [found.ok() for found in schema.get_all_operations()]
        modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
        rounds = 0
        while sum(statuses.values()) < REQUESTS:
            for operation in operations:
                varies = bool(operation.body or operation.query)  # else nothing can be wrong
                for mode in modes if varies else modes[:1]:
                    fuzz(running.serving.address, operation, mode, rounds, statuses)
            rounds += 1
        print(f"answers by status: {dict(statuses)}")  # noqa: T201
        assert all(status < 500 for status in statuses), statuses
        assert statuses[200] > REQUESTS / 10
        assert {400, 422} <= set(statuses)
        assert running.get("/readyz") == "ready\n"
        before = running.get("/v1/status")["score"]["labels"]
        running.send([{"id": "the last", "x": {"t": 1.0}, "y": "low"}])
        running.learned(before + 1)
    finally:
        running.close()


def fuzz(address: str, operation, mode: GenerationMode, rounds: int, statuses: Counter) -> None:
    """Up to 200 requests of one operation, the same ones every time."""
    checks = [status_code_conformance, response_schema_conformance]

    @seed(rounds)
    @settings(
        max_examples=200,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def one(case) -> None:
        if case.path == "/v1/stream":
            case.query = {**(case.query or {}), "seconds": "0"}  # it would go on for ever
        response = case.call(base_url=address, timeout=60)
        statuses[response.status_code] += 1
        assert response.status_code < 500, response.text
        case.validate_response(response, checks=checks)

    one()


def test_the_bench_measures_a_run_of_its_own(tmp_path, capsys):
    kept = tmp_path / "figures.json"
    short = "--seconds 1 --warm 0.5 --rate 40 --connections 2 --json"
    assert serve_bench.main([*short.split(), str(kept)]) == 0
    figures = json.loads(kept.read_text())
    for name in ("as fast as it goes", "40 a second"):
        load = figures["loads"][name]
        assert load["requests"] > 10
        assert load["failed"] == 0
        assert 0.0 < load["p50_ms"] <= load["p99_ms"] <= load["max_ms"]
    assert figures["status"]["copy"]["copies"] > 0
    assert "40 a second" in capsys.readouterr().out


def test_a_load_that_is_too_much_is_told_by_what_it_misses():
    load = serve_bench.Load("1000 a second", seconds=10.0, stale=0.05)
    load.latencies = [0.002] * 9_990
    assert serve_bench.faults_of(load, 1000.0) == []
    load.latencies = [0.002] * 9_000 + [0.040] * 500
    load.failed, load.stale = 3, 0.15
    told = " ".join(serve_bench.faults_of(load, 1000.0))
    assert all(name in told for name in ("answers", "failed 3.0", "p99", "stale"))
