"""``streammeta run`` on real servers: killed, and its server with it, it ends like a run that was
not; and it says what is the matter when a server is not there."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
import servers

from scenarios.sine_switch import SineSwitch
from streammeta.store import LocalStore

pytestmark = pytest.mark.slow  # every story starts the command several times

ROWS = 900
#: A run that has lost seconds to loading makes up for them at once: it must not reach its end so.
SLOW = "60/s"

CONFIG = """
[source]
kind = "redis"
url = "redis://127.0.0.1:{port}/0"
stream = "rows"
target = "y"
give_up_after = {patience}

[model]
task = "regression"
seed = 5

[[sinks]]
path = "out.jsonl"

[[sinks]]
kind = "redis"
url = "redis://127.0.0.1:{port}/0"
stream = "{folder}"
outputs = ["predicted"]

[[sinks]]
kind = "sqlite"
path = "out.db"

[[sinks]]
kind = "parquet"
path = "out"
outputs = ["predicted", "scored"]

[metrics]
enabled = false

[checkpoint]
folder = "checkpoints"
every_events = 100
every_seconds = 3600
"""


@pytest.fixture
def server(tmp_path) -> Iterator[servers.Redis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    running = servers.Redis(folder)
    running.start()
    yield running
    running.kill()


def prepared(folder: Path, port: int, patience: float = 60.0) -> Path:
    folder.mkdir()
    text = CONFIG.format(port=port, patience=patience, folder=folder.name)
    (folder / "run.toml").write_text(text)
    return folder


def start(folder: Path, *more: str, **how) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "streammeta.cli", "run", "run.toml", "--resume", *more],
        cwd=folder,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        },
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )


def ended(process: subprocess.Popen, code: int = 0) -> str:
    told = process.communicate(timeout=240)[1]
    assert process.returncode == code, told
    return told


def epochs(folder: Path) -> list[int]:
    return LocalStore(folder / "checkpoints").epochs(0)


def committed(folder: Path, process: subprocess.Popen, after: int) -> None:
    until = time.monotonic() + 200
    while epochs(folder)[-1:] <= [after] and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.01)


def everything(folder: Path, server: servers.Redis) -> dict[str, object]:
    """What a run has left: its state, and what is in each of its sinks."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    record = LocalStore(folder / "checkpoints").latest(0)
    assert record is not None
    with redis.Redis.from_url(server.url) as client:
        entries = client.xrange(folder.name)
    with closing(sqlite3.connect(folder / "out.db")) as db:
        scored = db.execute("SELECT * FROM scored ORDER BY record").fetchall()
    return {
        "state": record.snapshot.to_bytes(),
        "events": record.events,
        "jsonl": (folder / "out.jsonl").read_text(),
        "redis": entries,
        "sqlite": scored,
        "parquet": parquet.read_table(folder / "out" / "predicted", partitioning=None).to_pylist(),
    }


def test_a_run_killed_twice_and_its_server_once_ends_like_an_uninterrupted_one(tmp_path, server):
    with redis.Redis.from_url(server.url) as client:
        for i, event in enumerate(SineSwitch(seed=4, rows=ROWS).events(), 1):
            text = json.dumps({**event.x, "y": event.y}) if i % 97 else "no JSON"
            client.xadd("rows", {"data": text}, id=f"{i}-0")
    whole = prepared(tmp_path / "whole", server.port)
    ended(start(whole, "--max-events", str(ROWS)))
    killed = prepared(tmp_path / "killed", server.port)
    for _ in range(2):
        running = start(killed, "--pace", SLOW)
        committed(killed, running, after=(epochs(killed) or [0])[-1])
        running.kill()
        running.communicate()
    left = ROWS - LocalStore(killed / "checkpoints").latest(0).events
    assert 0 < left < ROWS
    running = start(killed, "--max-events", str(left), "--pace", SLOW)
    committed(killed, running, after=epochs(killed)[-1])
    server.kill()
    with running.stderr:
        for line in running.stderr:
            if "cannot be reached" in line:
                break
        server.start()
        told = running.stderr.read()
    assert running.wait(timeout=240) == 0, told
    assert ": is back" in told  # the source, or the sink where that was at work
    assert everything(killed, server) == everything(whole, server)
    rows = [json.loads(fields[b"data"])["row"] for _, fields in everything(killed, server)["redis"]]
    assert rows == list(range(ROWS - ROWS // 97))


def test_a_server_that_is_not_there_is_69_in_the_end(tmp_path):
    folder = prepared(tmp_path / "run", servers.free_port(), patience=0.3)
    text = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(text[: text.index("[[sinks]]")])
    told = ended(start(folder), code=69)
    assert "redis stream 'rows': cannot be reached: " in told
    assert "Traceback" not in told


def test_a_dry_run_says_that_a_server_is_not_there_and_takes_nothing(tmp_path):
    folder = prepared(tmp_path / "run", servers.free_port())
    told = ended(start(folder, "--dry-run"), code=69)
    assert "redis: run\n" in told  # where the sink writes to
    assert "source rows: redis stream 'rows': cannot be reached: " in told
    assert "sink run: redis stream 'run': cannot be reached: " in told
    assert "streammeta doctor run.toml" in told
    assert "everything checked" not in told
    text = (folder / "run.toml").read_text()
    pipe = '[source]\nkind = "stdin"\njournal = "journal"\n[model]\ntask = "regression"\n'
    (folder / "run.toml").write_text(pipe + text[text.index("[metrics]") :])
    with (folder / "run.toml").open("rb") as lines:
        process = start(folder, "--dry-run", stdin=lines)
        ended(process)
        assert lines.tell() == 0
        assert os.lseek(lines.fileno(), 0, os.SEEK_CUR) == 0
    assert not (folder / "journal").exists()


def test_a_dry_run_knocks_where_it_must_not_read(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (tmp_path / "run.toml").write_text(
            '[source]\nkind = "mqtt"\nhost = "127.0.0.1"\ntopic = "t"\nclient_id = "c"\n'
            f'port = {port}\njournal = "journal"\n[model]\ntask = "regression"\n'
        )
        assert "everything checked" in ended(start(tmp_path, "--dry-run"))
    told = ended(start(tmp_path, "--dry-run"), code=69)
    assert f"source mqtt: 127.0.0.1:{port}: cannot be reached" in told
    assert not (tmp_path / "journal").exists()


def test_fresh_forgets_nothing_when_a_sink_is_not_there(tmp_path):
    folder = prepared(tmp_path / "run", servers.free_port())
    config = folder / "run.toml"
    text = config.read_text()
    lines = "".join(f"{i}.5,{i}\n" for i in range(50))
    (folder / "rows.csv").write_text("x,y\n" + lines)
    source, sinks = text.index("[source]"), text.index("[model]")
    config.write_text(text[:source] + '[source]\npath = "rows.csv"\ntarget = "y"\n' + text[sinks:])
    process = start(folder, "--fresh")
    told = ended(process, code=69)
    assert f"redis stream '{folder.name}': cannot be reached" in told
    assert not (folder / "out.jsonl").read_text()
    assert not (folder / "out.db").exists()


def test_what_is_posted_to_a_run_is_predicted_and_sigterm_ends_it(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    (tmp_path / "run.toml").write_text(
        f'[source]\nkind = "http"\njournal = "journal"\nport = {port}\n'
        '[model]\ntask = "regression"\n[[sinks]]\nkind = "stdout"\n[metrics]\nenabled = false\n'
        '[checkpoint]\nfolder = "checkpoints"\n'
    )
    process = start(tmp_path, stdout=subprocess.PIPE)
    body = b'{"id": "a", "x": {"t": 1.5}, "y": 2.5}\n{"id": "b", "x": {"t": 1.5}}\n'
    until = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/events", body) as answer:
                assert json.load(answer) == {"accepted": 2, "first": 0}
            break
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.05)
    assert process.stdout is not None
    told = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [record["id"] for record in told] == ["a", "b"]
    assert told[1]["prediction"] == pytest.approx(2.5, abs=1.0)
    process.send_signal(signal.SIGTERM)
    ended(process)
    assert LocalStore(tmp_path / "checkpoints").latest(0).position == {"record": 2}
