"""``checkpoint``: what lies in a folder of commits, and what is the matter with it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import streammeta

from streammeta import __version__
from streammeta.events import Rejected
from streammeta.snapshot import Snapshot
from streammeta.store import CommitRecord, LocalStore

OLD = Path(__file__).parent / "fixtures" / "schema-5.commit.gz"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three commits of a shard."""
    store = LocalStore(tmp_path / "checkpoints")
    for epoch in (1, 2, 3):
        outputs = [Rejected("f:0:9", "decode", "malformed", "f line 11")]
        snapshot = Snapshot({"w": np.arange(4.0)}, {"rows": epoch})
        position, sinks = {"emitted": 100 * epoch}, {"out.jsonl": {"bytes": 7}}
        store.commit(0, epoch, CommitRecord(epoch, snapshot, position, sinks, outputs, 100 * epoch))
    return store.folder


def told(*args: object, code: int = 0) -> list[dict]:
    done = streammeta("checkpoint", *map(str, args), "--json", code=code)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_ls_lists_the_commits_with_time_size_and_events(folder):
    rows = told("ls", folder)
    assert [(row["epoch"], row["events"], row["fault"]) for row in rows] == [
        (1, 100, ""), (2, 200, ""), (3, 300, ""),
    ]  # fmt: skip
    path = folder / "shard-0000" / "000000000003.commit"
    assert rows[2]["size"] == path.stat().st_size
    assert rows[2]["time"].endswith("+00:00")
    assert rows[2]["version"] == __version__
    table = streammeta("checkpoint", "ls", str(folder)).stdout
    assert table.count("whole") == 3


def test_show_tells_where_source_and_sinks_stood(folder):
    (newest,) = told("show", folder)
    assert newest["epoch"] == 3
    assert newest["position"] == {"emitted": 300}
    assert newest["sinks"] == {"out.jsonl": {"bytes": 7}}
    assert (newest["outputs"], newest["tensors"]) == (1, 1)
    (first,) = told("show", folder, "--epoch", 1)
    assert first["position"] == {"emitted": 100}
    assert "emitted" in streammeta("checkpoint", "show", str(folder)).stdout
    assert "no such commit" in streammeta("checkpoint", "show", str(folder), "--epoch", "9",
                                          code=2).stderr  # fmt: skip


def damaged(folder: Path, epoch: int) -> Path:
    path = folder / "shard-0000" / f"{epoch:012d}.commit"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    return path


def test_verify_names_the_damaged_one_and_exits_1(folder):
    assert [row["fault"] for row in told("verify", folder)] == ["", "", ""]
    path = damaged(folder, 2)
    (folder / "shard-0000" / "000000000001.commit").write_bytes(b"?")
    rows = told("verify", folder, code=1)
    assert rows[0]["fault"].startswith("the header cannot be read")
    assert rows[1]["fault"] == "the SHA-256 does not match: the bytes have changed"
    assert rows[1]["path"] == str(path)
    assert rows[2]["fault"] == ""
    table = streammeta("checkpoint", "verify", str(folder), code=1).stdout
    assert "does not match" in table
    (newest,) = told("show", folder)
    assert newest["epoch"] == 3


def test_looking_changes_nothing(folder):
    damaged(folder, 3)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for verb, code in (("ls", 0), ("show", 0), ("verify", 1)):
        told(verb, folder, code=code)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_damaged_commit_that_a_run_has_put_aside_is_mentioned(folder):
    damaged(folder, 3)
    LocalStore(folder).latest(0)
    done = streammeta("checkpoint", "verify", str(folder))
    assert "put aside as damaged" in done.stderr
    assert "000000000003.damaged" in done.stderr


def test_no_folder_is_2_and_no_commit_is_1(tmp_path):
    assert "no such folder" in streammeta("checkpoint", "ls", str(tmp_path / "x"), code=2).stderr
    assert streammeta("checkpoint", "ls", str(tmp_path)).stdout.strip().endswith("no commits")
    assert told("verify", tmp_path, code=1) == []


def test_a_commit_of_an_older_model_is_whole_and_cannot_be_resumed(tmp_path):
    shard = tmp_path / "shard-0000"
    shard.mkdir()
    (shard / "000000000001.commit").write_bytes(gzip.decompress(OLD.read_bytes()))
    assert [row["fault"] for row in told("ls", tmp_path)] == [""]
    (row,) = told("verify", tmp_path, code=1)
    assert row["fault"].startswith("whole, but its model has schema 5, this version reads ")
    assert row["events"] == 20
