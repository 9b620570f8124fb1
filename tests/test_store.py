"""Snapshots and commits: deterministic bytes, one winner per epoch, damage noticed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streammeta.errors import Fenced, StoreError
from streammeta.events import Adapted, MetaUpdated, Predicted, Rejected, Scored
from streammeta.snapshot import Snapshot
from streammeta.store import CommitRecord, LocalStore, MemoryStore

OUTPUTS = [
    Predicted("f:0:0", "k", 0, 5.0, 3, {3: 0.75, 4: 0.25}),
    Predicted("f:0:1", "", 1, None, "a", {"a": 1.0}),
    Predicted("f:0:2", "", 2, None, True, {True: 0.5, False: 0.5}),
    Scored("f:0:0", "k", 0, 3, 4, 1.0, 0.1 + 0.2, 0, {"bank-0": 1e-300}),
    Adapted("", 3, 1, "challenger", "drift", 5, 0.5, 0.25),
    MetaUpdated(3, 1, 4, 0.5, 1.5),
    Rejected("f:0:9", "decode", "malformed", "f line 11: 3 fields, expected 5"),
]


def record(epoch: int, rows: int = 7) -> CommitRecord:
    snapshot = Snapshot(
        {"w": np.arange(6.0).reshape(2, 3), "mask": np.array([True, False]), "n": np.array(3)},
        {"rows": rows, "z": 1, "a": [1.5, None, "x"]},
        {"adwin": b"\x00\xff", "empty": b""},
    )
    return CommitRecord(epoch, snapshot, {"emitted": rows}, {"o": {"bytes": 9}}, OUTPUTS, rows, 2)


def same(a: Snapshot, b: Snapshot) -> bool:
    return a.to_bytes() == b.to_bytes() and list(a.info) == list(b.info) and a.blobs == b.blobs


def test_a_record_comes_back_as_it_was_with_the_types_of_its_labels():
    first = record(4)
    back = CommitRecord.from_bytes(first.to_bytes())
    assert same(back.snapshot, first.snapshot)
    assert back.snapshot.tensors["n"].shape == ()
    assert back.snapshot.tensors["w"].flags.writeable
    assert back.outputs == OUTPUTS
    assert [type(c) for c in back.outputs[0].probabilities] == [int, int]
    assert (back.epoch, back.position, back.sinks, back.events, back.meta_version) == (
        4, {"emitted": 7}, {"o": {"bytes": 9}}, 7, 2,
    )  # fmt: skip


def test_equal_states_have_equal_bytes_in_another_process():
    code = (
        "import numpy as np, hashlib\n"
        "from streammeta.snapshot import Snapshot\n"
        "t = {f't{i}': np.arange(i + 1, dtype=d) for i, d in enumerate('?fdilq')}\n"
        "s = Snapshot(t, {'b': 1, 'a': 2}, {f'b{i}': bytes([i]) for i in range(9)})\n"
        "print(hashlib.sha256(s.to_bytes()).hexdigest())"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            for _ in range(2)]  # fmt: skip
    assert runs[0].stdout == runs[1].stdout != ""


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.binary(max_size=20),
)
def test_any_array_and_blob_survive(array, blob):
    back = Snapshot.from_bytes(Snapshot({"a": array.T}, {}, {"b": blob}).to_bytes())
    np.testing.assert_array_equal(back.tensors["a"], array.T)
    assert back.tensors["a"].dtype == array.dtype
    assert back.blobs == {"b": blob}


def test_a_snapshot_refuses_what_it_could_not_give_back():
    with pytest.raises(StoreError, match="names that start with 'blob:'"):
        Snapshot({"blob:w": np.zeros(1)}).to_bytes()
    with pytest.raises(StoreError, match="'w' has type object"):
        Snapshot({"w": np.array([{}])}).to_bytes()
    with pytest.raises(StoreError, match="not a snapshot"):
        Snapshot.from_bytes(b"hello")


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_the_newest_commit_wins_and_a_second_owner_of_its_epoch_is_fenced(tmp_path, kind):
    store = MemoryStore() if kind == "memory" else LocalStore(tmp_path)
    assert store.latest(0) is None
    for epoch in (1, 2, 3, 4, 5):
        assert store.commit(0, epoch, record(epoch)) > 0
    assert store.latest(0).epoch == 5
    assert store.latest(1) is None
    with pytest.raises(Fenced, match="epoch 5 cannot be committed, epoch 5 exists"):
        store.commit(0, 5, record(5, rows=99))
    with pytest.raises(Fenced):  # its file has been pruned long ago
        store.commit(0, 1, record(1))
    assert store.latest(0).events == 7
    store.commit(1, 1, record(1))
    assert store.latest(1).epoch == 1


def test_of_eight_writers_of_one_epoch_exactly_one_wins(tmp_path):
    store, won, fenced = LocalStore(tmp_path), [], []
    start = threading.Barrier(8)

    def write(n: int) -> None:
        own = LocalStore(tmp_path)
        image = record(1, rows=n)
        start.wait()
        try:
            own.commit(0, 1, image)
            won.append(n)
        except Fenced:
            fenced.append(n)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(fenced) == 7
    assert store.latest(0).events == won[0]


def test_three_commits_are_kept_and_nothing_else_lies_about(tmp_path):
    store = LocalStore(tmp_path)
    for epoch in range(1, 8):
        store.commit(0, epoch, record(epoch))
    names = sorted(path.name for path in (tmp_path / "shard-0000").iterdir())
    assert names == ["000000000005.commit", "000000000006.commit", "000000000007.commit"]
    store.clear(0)
    assert store.latest(0) is None


def _flip(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (_flip, "SHA-256"),
        (lambda data: data[:-5], "bytes after the header"),
        (lambda data: b"", "header"),
        (lambda data: b"[]\n" + data, "header"),
    ],
)
def test_a_damaged_newest_commit_falls_back_to_the_one_before_and_says_so(tmp_path, damage, cause):
    store = LocalStore(tmp_path)
    for epoch in (1, 2, 3):
        store.commit(0, epoch, record(epoch, rows=epoch))
    newest = tmp_path / "shard-0000" / "000000000003.commit"
    newest.write_bytes(damage(newest.read_bytes()))
    assert store.latest(0).epoch == 2
    assert len(store.warnings) == 1
    assert "000000000003.commit: damaged commit skipped" in store.warnings[0]
    assert cause in store.warnings[0]
    store.commit(0, 3, record(3))  # the damaged epoch is free again
    assert store.latest(0).epoch == 3
    assert newest.with_suffix(".damaged").exists()


def test_when_every_commit_is_damaged_nobody_starts_over_silently(tmp_path):
    store = LocalStore(tmp_path)
    store.commit(0, 1, record(1))
    (tmp_path / "shard-0000" / "000000000001.commit").write_bytes(b"?")
    with pytest.raises(StoreError, match="all 1 commits of shard 0 are damaged; start fresh"):
        store.latest(0)


def test_a_commit_of_a_later_version_is_not_taken_for_damage(tmp_path):
    store = LocalStore(tmp_path)
    store.commit(0, 1, record(1))
    store.commit(0, 2, record(2))
    path = tmp_path / "shard-0000" / "000000000002.commit"
    head, _, body = path.read_bytes().partition(b"\n")
    path.write_bytes(json.dumps({**json.loads(head), "schema": 2}).encode() + b"\n" + body)
    with pytest.raises(StoreError, match="schema 2, this version reads 1"):
        store.latest(0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        LocalStore(tmp_path / "file" / "below").commit(0, 1, record(1))


def test_a_second_process_hears_early_that_the_folder_is_in_use(tmp_path):
    first, second = LocalStore(tmp_path), LocalStore(tmp_path)
    first.claim()
    with pytest.raises(StoreError, match="another process is using these checkpoints"):
        second.claim()
    first.release()
    second.claim()
    second.release()


def test_what_a_killed_writer_left_aside_is_swept_up(tmp_path):
    store = LocalStore(tmp_path)
    store.commit(0, 1, record(1))
    (tmp_path / "shard-0000" / "000000000002.dead.aside").write_bytes(b"half")
    store.commit(0, 2, record(2))
    store.commit(0, 3, record(3))
    assert not list(tmp_path.rglob("*.aside"))
