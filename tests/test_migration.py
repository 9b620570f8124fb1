"""What lies on disk outlives the version that wrote it, and the device that it was made on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import streammeta

from streammeta import __version__
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import StoreError
from streammeta.events import Event
from streammeta.snapshot import SCHEMA, Snapshot
from streammeta.store import CommitRecord, LocalStore

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

#: The first of two commits that the code of schema 5 wrote over the 40 rows of ``ROWS``.
OLD = gzip.decompress((Path(__file__).parent / "fixtures" / "schema-5.commit.gz").read_bytes())
ROWS = [({"a": i % 2 + 0.25}, "ab"[i % 2]) for i in range(40)]

CONFIG = """
[source]
path = "rows.csv"
target = "y"

[model]
experts = ["networks", "persistence"]
hidden = [2]

[[sinks]]
path = "out.jsonl"
outputs = ["predicted"]

[metrics]
enabled = false

[checkpoint]
folder = "checkpoints"
every_events = 20
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run that an older version has left half done."""
    (tmp_path / "rows.csv").write_text("a,y\n" + "".join(f"{x['a']},{y}\n" for x, y in ROWS))
    (tmp_path / "run.toml").write_text(CONFIG)
    shard = tmp_path / "checkpoints" / "shard-0000"
    shard.mkdir(parents=True)
    (shard / "000000000001.commit").write_bytes(OLD)
    return tmp_path


def test_the_envelope_of_an_older_commit_is_still_read():
    record = CommitRecord.from_bytes(OLD)
    assert (record.epoch, record.events, record.position) == (1, 20, {"emitted": 20})
    assert record.snapshot.info["schema"] == 5
    header = json.loads(record.to_bytes().partition(b"\n")[0])
    assert header["version"] == __version__
    assert "version" not in json.loads(OLD.partition(b"\n")[0])


def test_an_older_model_is_refused_with_what_to_do_and_nothing_is_touched(folder):
    done = streammeta("run", "run.toml", "--resume", cwd=folder, code=70)
    told = " ".join(done.stderr.split())
    assert "was written by an older version of streammeta" in told
    assert f"its schema is 5, this version reads {SCHEMA}" in told
    assert "go on with that version, or run with --new-model" in told
    assert "Traceback" not in done.stderr
    assert (folder / "checkpoints" / "shard-0000" / "000000000001.commit").read_bytes() == OLD
    assert (folder / "out.jsonl").read_text() == ""


@pytest.mark.slow  # as the next one: the command is started several times
def test_with_a_new_model_the_run_goes_on_where_the_older_one_stood(folder):
    done = streammeta("run", "run.toml", "--resume", "--new-model", cwd=folder)
    assert "resumed after event 20 with a new model" in done.stderr
    lines = (folder / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [f"rows.csv:0:{i}" for i in range(20, 40)]
    newest = LocalStore(folder / "checkpoints").latest(0)
    assert newest is not None
    assert (newest.epoch, newest.events, newest.snapshot.info["schema"]) == (2, 40, SCHEMA)
    streammeta("run", "run.toml", "--resume", cwd=folder)  # and is a run like any other


@pytest.mark.slow
def test_another_model_is_refused_too_and_a_new_one_is_a_way_on(folder):
    (folder / "checkpoints" / "shard-0000" / "000000000001.commit").unlink()
    streammeta("run", "run.toml", "--max-events", "20", cwd=folder)
    other = ("--resume", "--set", "model.lags=3")
    told = streammeta("run", "run.toml", *other, cwd=folder, code=78).stderr
    assert "lags was 2 and is 3" in told
    assert "--new-model" in told
    streammeta("run", "run.toml", *other, "--new-model", cwd=folder)
    assert len((folder / "out.jsonl").read_text().splitlines()) == 40
    both = streammeta("run", "run.toml", "--fresh", "--new-model", cwd=folder, code=2)
    assert "--fresh forgets all commits" in both.stderr


def test_a_schema_of_the_future_says_so_too():
    snapshot = Engine(ModelConfig(task="classification")).snapshot()
    snapshot.info["schema"] = SCHEMA + 1
    with pytest.raises(StoreError, match=r"another version of streammeta .* schema is "):
        Engine.restore(ModelConfig(task="classification"), snapshot)


def learned(device: str = "cpu", rows: int = 60) -> Engine:
    config = ModelConfig(task="classification", device=device, hidden=(8,), meta_every=4)
    return learn(Engine(config), 0, rows)


def learn(engine: Engine, begin: int, end: int) -> Engine:
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(end, 2))
    for i in range(begin, end):
        a, b = draws[i].tolist()
        engine.observe([Event(str(i), {"a": a, "b": b}, "up" if a > b else "down")])
        engine.replay()
    return engine


def on(device: str, engine: Engine) -> Engine:
    """What the same engine is after a commit, on another device."""
    snapshot = Snapshot.from_bytes(engine.snapshot().to_bytes())
    return Engine.restore(engine.config.model_copy(update={"device": device}), snapshot)


def test_a_commit_made_on_a_device_that_is_gone_goes_on_bit_by_bit_on_the_cpu():
    engine = learned()
    snapshot = engine.snapshot()
    snapshot.info["config"]["device"] = "cuda:7"
    other = Engine.restore(engine.config, snapshot)
    learn(engine, 60, 90)
    learn(other, 60, 90)
    assert other.snapshot().to_bytes() == engine.snapshot().to_bytes()


def test_whatever_the_device_is_the_parameters_are_put_on_it(monkeypatch):
    engine = learned()
    monkeypatch.setattr("streammeta.meta.parameters.pick_device", lambda name: torch.device("meta"))
    moved = on("auto", engine)
    assert len(moved.metas) == len(engine.metas) == 2
    for there, here in zip(moved.metas, engine.metas, strict=True):
        assert there.device.type == "meta"
        for one, other in zip(there.state, here.state, strict=True):
            assert one.device.type == "meta"
            assert other.device.type == "cpu"
            assert (one.shape, one.dtype) == (other.shape, other.dtype)


@pytest.mark.cuda
@needs_cuda
def test_a_model_goes_from_the_cpu_to_a_cuda_device_and_back():
    engine = learned()
    there = on("cuda", engine)
    assert all(part.is_cuda for meta in there.metas for part in meta.state)
    for name, kept in engine.snapshot().tensors.items():
        np.testing.assert_array_equal(there.snapshot().tensors[name], kept, err_msg=name)
    learn(there, 60, 120)
    assert there.metas[0].updates > engine.metas[0].updates
    back = on("cpu", there)
    assert all(part.device.type == "cpu" for meta in back.metas for part in meta.state)
    for name, kept in there.snapshot().tensors.items():
        np.testing.assert_array_equal(back.snapshot().tensors[name], kept, err_msg=name)
    x = {"a": 1.5, "b": -1.0}
    assert back.predict(x) == there.predict(x) == "up"
    learn(back, 120, 130)


def test_a_run_does_not_go_on_in_another_file_and_nothing_is_touched(folder):
    streammeta("run", "run.toml", "--fresh", "--max-events", "30", cwd=folder)
    (folder / "other.csv").write_text((folder / "rows.csv").read_text())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = streammeta("run", "run.toml", "--set", "source.path=other.csv", cwd=folder, code=69)
    assert "after event 30 of rows.csv, which is another stream" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
