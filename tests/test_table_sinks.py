"""SQLite and Parquet: what a crash leaves, what a reader sees, and whose files they touch."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammeta.errors import SinkError, UsageError
from streammeta.events import Predicted, Scored
from streammeta.sinks.parquet import ParquetSink
from streammeta.sinks.sqlite import SqliteSink
from streammeta.testing import sample_outputs


def rows(path: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def test_predictions_and_truths_can_be_joined_by_id(tmp_path):
    sink = SqliteSink(tmp_path / "deep" / "out.db")
    sink.open(None)
    sink.write(sample_outputs())
    sink.close()
    found = rows(
        sink.path,
        "SELECT p.id, p.prediction, s.truth FROM predicted p JOIN scored s USING (id) ORDER BY 1",
    )
    assert found == [("s:0:0", 0.0, 0.0), ("s:0:1", 2.5, 1.0), ("s:0:2", 5.0, 2.0)]
    assert rows(sink.path, "SELECT prediction, probabilities FROM predicted WHERE row = 3") == [
        ("b", '{"a":0.25,"b":0.75}')
    ]
    assert rows(sink.path, "SELECT loss_after FROM adapted") == [(None,)]  # it was nan


def test_a_question_that_comes_again_takes_its_own_place(tmp_path):
    sink = SqliteSink(tmp_path / "out.db", ["predicted", "rejected"])
    sink.open(None)
    assert sink.write(sample_outputs()) == 5
    again = Predicted("s:0:1", "k", 1, 1.0, 99.0, None)
    assert sink.write([again, sample_outputs()[7]]) == 2
    sink.close()
    assert rows(sink.path, "SELECT prediction FROM predicted WHERE id = 's:0:1'") == [(99.0,)]
    assert rows(sink.path, "SELECT count(*) FROM predicted") == [(4,)]
    assert rows(sink.path, "SELECT count(*) FROM rejected") == [(2,)]  # a dead letter is kept


def test_a_reader_sees_whole_commits_only(tmp_path):
    sink = SqliteSink(tmp_path / "out.db")
    sink.open(None)
    sink.write(sample_outputs())
    assert rows(sink.path, "SELECT count(*) FROM predicted") == [(0,)]
    sink.flush()
    assert rows(sink.path, "SELECT count(*) FROM predicted") == [(4,)]
    sink.close()


def test_a_file_that_is_not_ours_is_left_alone(tmp_path):
    path = tmp_path / "theirs.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE scored (a)")
        db.commit()
    for touch in (SqliteSink(path).check, lambda: SqliteSink(path).open(None)):
        with pytest.raises(SinkError, match="has a table 'scored' that this sink did not make"):
            touch()
    (tmp_path / "text.db").write_text("no database, and longer than a hundred bytes " * 4)
    with pytest.raises(SinkError, match="not a database"):
        SqliteSink(tmp_path / "text.db").open(None)
    with pytest.raises(SinkError, match="cannot be opened"):
        SqliteSink(tmp_path / "text.db" / "below.db").check()
    with pytest.raises(SinkError, match="is not open"):
        SqliteSink(path).write(sample_outputs())
    fresh = SqliteSink(tmp_path / "fresh.db")
    fresh.check()
    assert not fresh.path.exists()
    with pytest.raises(SinkError, match="has 0 records, the commit knows 5"):
        fresh.open({"records": 5})


DIES = """
import os, signal, sys
from streammeta.sinks.{module} import {name}
from streammeta.testing import sample_outputs

sink = {name}(sys.argv[1])
sink.open(None)
sink.write(sample_outputs())
sink.flush()
sink.write(sample_outputs(first=10))
{more}
os.kill(os.getpid(), signal.SIGKILL)
"""


def die(path: Path, module: str, name: str, more: str = "") -> None:
    code = DIES.format(module=module, name=name, more=more)
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env={**os.environ, "PYTHONPATH": root}, timeout=60
    )
    assert done.returncode == -signal.SIGKILL


def test_kill_9_in_a_transaction_leaves_the_commit_before(tmp_path):
    path = tmp_path / "out.db"
    die(path, "sqlite", "SqliteSink")
    assert rows(path, "SELECT count(*) FROM predicted") == [(4,)]
    sink = SqliteSink(path)
    sink.open({"records": 11})
    sink.write(sample_outputs(first=10))
    sink.close()
    wanted = [0, 1, 2, 3, 10, 11, 12, 13]
    assert rows(path, "SELECT row FROM predicted ORDER BY record") == [(row,) for row in wanted]


def parts(path: Path, kind: str) -> list[str]:
    return sorted(part.name for part in (path / kind).iterdir())


def table(path: Path, kind: str) -> list[dict]:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra parquet is not installed")
    return parquet.read_table(path / kind, partitioning=None).to_pylist()


def test_parts_have_one_schema_whatever_the_labels(tmp_path):
    sink = ParquetSink(tmp_path / "out")
    sink.open(None)
    sink.write([Predicted("a", "", 0, None, "spam", {"spam": 0.75, "ham": 0.25})])
    sink.flush()
    sink.write([Predicted("b", "", 1, 5.0, 2, {2: 1.0}), Predicted("c", "", 2, None, None)])
    sink.write([Scored("b", "", 1, True, 2, 1.0, float("inf"), 0, {"bank": 0.5})])
    sink.close()
    assert parts(sink.path, "predicted") == [
        "part-000000000000-000000000001.parquet", "part-000000000001-000000000004.parquet",
    ]  # fmt: skip
    found = table(sink.path, "predicted")
    assert [(row["prediction"], row["prediction_text"]) for row in found] == [
        (None, "spam"), (2.0, None), (None, None),
    ]  # fmt: skip
    assert found[1]["probabilities"] == [("2", 1.0)]
    assert table(sink.path, "scored")[0]["truth"] == 1.0
    assert table(sink.path, "scored")[0]["experts"] == [("bank", 0.5)]


def test_kill_9_leaves_whole_parts_and_what_comes_again_is_there_once(tmp_path):
    path = tmp_path / "out"
    torn = "(sink.path / 'predicted' / 'part-000000000011-000000000022.aside').write_bytes(b'PAR1')"
    die(path, "parquet", "ParquetSink", torn)
    sink = ParquetSink(path)
    sink.open({"records": 11})
    sink.write(sample_outputs(first=10))
    sink.close()
    assert [row["row"] for row in table(path, "predicted")] == [0, 1, 2, 3, 10, 11, 12, 13]
    assert all(name.endswith(".parquet") for name in parts(path, "predicted"))


def test_parts_that_were_removed_are_missed_and_a_damaged_one_is_named(tmp_path):
    sink = ParquetSink(tmp_path / "out", ["predicted"])
    sink.open(None)
    sink.write(sample_outputs())
    sink.close()
    with pytest.raises(SinkError, match="has 4 records, the commit knows 9: were parts removed"):
        ParquetSink(tmp_path / "out").open({"records": 9})
    part = next((tmp_path / "out" / "predicted").iterdir())
    part.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SinkError, match=r"part-.*: unreadable"):
        ParquetSink(tmp_path / "out").open({"records": 2})
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match="cannot be written"):
        ParquetSink(tmp_path / "file").check()


def test_a_full_part_is_written_though_no_commit_has_come(tmp_path):
    sink = ParquetSink(tmp_path / "out", ["predicted"], rows_per_part=3)
    sink.open(None)
    sink.write(sample_outputs())
    assert parts(sink.path, "predicted") == ["part-000000000000-000000000003.parquet"]
    sink.close()
    assert [row["row"] for row in table(sink.path, "predicted")] == [0, 1, 2, 3]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install streammeta\[parquet\]"):
        ParquetSink(tmp_path / "out")


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.tuples(st.sampled_from(["write", "flush", "crash"]), st.integers(0, 9)), max_size=9)
)
@pytest.mark.parametrize("make", [SqliteSink, ParquetSink])
def test_wherever_it_crashes_and_resumes_every_record_is_there_once(tmp_path_factory, make, steps):
    """The crash keeps whatever had been flushed, and the commits stand where it last was."""
    path = tmp_path_factory.mktemp("sink") / "out"
    sink, wrote, safe, left = make(path, ["predicted"]), 0, 0, []
    sink.open(None)
    for what, n in [*steps, ("write", 1), ("flush", 0)]:
        if what == "write":
            sink.write([Predicted(f"i{wrote + i}", "", wrote + i, None, 1.0) for i in range(n)])
            wrote += n
        elif what == "flush":
            sink.flush()
            safe = wrote
        else:
            if isinstance(sink, SqliteSink):
                sink._db.rollback()  # the process is gone, and its transaction with it
            left.append(sink)
            back = max(safe - n, 0)
            sink = make(path, ["predicted"])
            sink.open({"records": back})
            wrote = safe = back
    sink.close()
    if make is SqliteSink:
        found = [row for (row,) in rows(path, "SELECT row FROM predicted ORDER BY record")]
    else:
        found = [row["row"] for row in table(path, "predicted")]
    assert found == list(range(wrote))
    for each in left:
        if isinstance(each, SqliteSink):
            each._db.close()
