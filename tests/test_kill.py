"""kill -9 at any moment, then --resume: the files and the last state of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scenarios.sine_switch import SineSwitch
from streammeta.store import LocalStore

ROWS = 3_000

CONFIG = """
[source]
path = "stream.csv"
target = "y"
label_delay = {delay}

[model]
task = "regression"
chunk = {chunk}
seed = 5

[[sinks]]
kind = "jsonl"
path = "out/predictions.jsonl"
outputs = ["predicted", "drift_detected"]

[[sinks]]
kind = "dead_letter"
path = "out/dead.jsonl"

[metrics]
enabled = false

[checkpoint]
folder = "out/checkpoints"
every_events = 200
"""


def folder_with_a_stream(folder: Path, chunk: int, delay: int) -> Path:
    folder.mkdir()
    lines = ["x,y"]
    for n, event in enumerate(SineSwitch(seed=4, rows=ROWS).events()):
        assert event.x is not None
        lines.append(
            f"{event.x['x']},{event.y}" if n % 501 else "a malformed line, of, five, fields"
        )
    (folder / "stream.csv").write_text("\n".join(lines) + "\n")
    (folder / "run.toml").write_text(CONFIG.format(chunk=chunk, delay=delay))
    return folder


def start(folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "streammeta.cli", "run", "run.toml", "--resume"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )


def last_state(folder: Path) -> bytes:
    record = LocalStore(folder / "out" / "checkpoints").latest(0)
    assert record is not None
    return record.snapshot.to_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("chunk", "delay"), [(1, 0), (8, 25)])
def test_a_killed_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, chunk: int, delay: int
) -> None:
    whole = folder_with_a_stream(tmp_path / "whole", chunk, delay)
    assert start(whole).wait(timeout=300) == 0
    killed = folder_with_a_stream(tmp_path / "killed", chunk, delay)
    rng = random.Random(chunk)
    kills = 0
    while True:
        running = start(killed)
        commits = killed / "out" / "checkpoints"
        before = sorted(commits.rglob("*")) if commits.exists() else []
        deadline = time.monotonic() + 240
        # wait for progress, so that the story ends, and then a little more
        while running.poll() is None and time.monotonic() < deadline:
            if commits.exists() and sorted(commits.rglob("*")) != before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.4))
        if running.poll() is not None:
            assert running.returncode == 0
            break
        if kills == 4:
            assert running.wait(timeout=300) == 0
            break
        running.kill()
        running.wait()
        kills += 1
    assert kills >= 2, "the run was over before it could be killed"
    for name in ("predictions.jsonl", "dead.jsonl"):
        assert (killed / "out" / name).read_bytes() == (whole / "out" / name).read_bytes(), name
    assert last_state(killed) == last_state(whole)
    text = (killed / "out" / "predictions.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    rows = [record["row"] for record in records if record["kind"] == "predicted"]
    assert rows == list(range(len(rows)))
    assert any(record["kind"] == "drift_detected" for record in records)
