"""Tables in memory: what a file says and what a frame with the same rows says is the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import SourceError, UsageError
from streammeta.events import Predicted
from streammeta.runtime import ShardHost, run_local
from streammeta.sources import FileSource, FrameSource
from streammeta.store import MemoryStore
from streammeta.testing import ListSink, check_source, read_all

pa = pytest.importorskip("pyarrow", reason="the extra parquet is not installed")

N = 40
FRAME = pd.DataFrame(
    {
        "when": pd.date_range("2026-01-01", periods=N, freq="h"),
        "shop": ["a", "b"] * (N // 2),
        "temp": [i / 4 if i % 7 else None for i in range(N)],
        "open": [bool(i % 3) for i in range(N)],
        "sold": range(N),
    }
)


def events_of(source):
    return read_all(source, source.start(), min(N, source.rows or N))[0]


@pytest.mark.parametrize("options", [{}, {"horizon": 2}, {"label_delay": 3}, {"rows": 9}])
@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.set_index(["when", "shop"]),
        pa.Table.from_pandas(FRAME),
        pa.Table.from_pandas(FRAME).to_batches()[0],
        lambda: pa.Table.from_pandas(FRAME).to_reader(max_chunksize=7),
    ],
    ids=["pandas", "index", "table", "batch", "reader"],
)
def test_a_frame_brings_what_a_parquet_file_of_it_brings(frame, options, tmp_path):
    FRAME.to_parquet(tmp_path / "rows.parquet")
    how = {"target": "sold", "time": "when", "key": "shop", **options}
    file = FileSource(tmp_path / "rows.parquet", name="frame", **how)
    expected, _ = file.read(file.start(), 10 * N)
    ours = FrameSource(frame, **how)
    found, _ = ours.read(ours.start(), 10 * N)
    assert found == expected
    assert {type(v) for e in found if e.x for v in e.x.values()} <= {float, bool, int, type(None)}
    assert check_source(lambda: FrameSource(frame, **how), len(expected)) == expected


def test_a_reader_by_itself_is_taken_into_memory_and_can_be_read_again():
    reader = pa.Table.from_pandas(FRAME).to_reader(max_chunksize=7)
    source = FrameSource(reader, target="sold", ignore=["when"])
    first = events_of(source)
    assert events_of(source) == first
    assert [e.y for e in first] == list(range(N))


def test_everything_that_pandas_calls_missing_is_missing():
    frame = pd.DataFrame(
        {
            "number": [1.5, np.nan],
            "integer": pd.array([1, None], dtype="Int64"),
            "word": pd.array(["a", None], dtype="string"),
            "class": pd.Categorical(["a", None]),
            "flag": pd.array([True, None], dtype="boolean"),
            "time": pd.to_datetime(["2026-01-01", None]),
            "y": [0, 1],
        }
    )
    source = FrameSource(frame, target="y")
    (full, empty), _ = source.read(source.start(), 2)
    assert full.x == {
        "number": 1.5, "integer": 1.0, "word": "a", "class": "a", "flag": True,
        "time": 1_767_225_600.0,
    }  # fmt: skip
    assert set(empty.x.values()) == {None}


def test_a_bad_cell_rejects_its_row_and_no_other():
    frame = pd.DataFrame({"a": [1.0] * 30 + ["x"] + [1.0] * 9, "y": range(N)})
    source = FrameSource(frame, target="y")
    rejected = [event for event in events_of(source) if event.error]
    assert [event.error for event in rejected] == [
        ("wrong_type", "frame row 30: column 'a' is 'x', expected a number")
    ]


@pytest.mark.parametrize(
    ("frame", "options", "error", "words"),
    [
        (FRAME, {"target": "sld"}, UsageError, "target column 'sld' is not in the table .*'sold'"),
        (FRAME[:0], {"target": "sold"}, SourceError, "frame: the table is empty"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), {}, UsageError, "two columns are called 'a'"),
        ({"a": [1]}, {"target": "a"}, UsageError, "is a dict, expected a pandas frame"),
        (FRAME, {"target": "sold", "horizon": -1}, UsageError, "horizon is -1"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(frame, options, error, words):
    with pytest.raises(error, match=words):
        FrameSource(frame, **options).read({"emitted": 0}, 1)


def test_a_run_over_a_frame_is_resumed_where_its_commit_left_it():
    config = ModelConfig(task="regression", hidden=(4,), experts=("networks", "persistence"))

    def host(store, sink):
        make = lambda s: Engine(config) if s is None else Engine.restore(config, s)  # noqa: E731
        source = FrameSource(FRAME, target="sold", time="when", key="shop")
        return ShardHost(source, make, store, [sink], commit_every=10)

    whole, wholly, cut, partly = MemoryStore(), ListSink(), MemoryStore(), ListSink()
    one = host(whole, wholly)
    one.open()
    run_local(one)
    first = host(cut, partly)
    first.open()
    first.poll(10)
    first.poll(7)  # the commit after these never comes
    first.drop()
    second = host(cut, partly)
    assert second.open()
    assert run_local(second).events == N - 10
    assert cut.latest(0).snapshot.to_bytes() == whole.latest(0).snapshot.to_bytes()
    assert partly.outputs == wholly.outputs
    assert sum(isinstance(output, Predicted) for output in partly.outputs) == N
