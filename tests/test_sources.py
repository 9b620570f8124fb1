"""Sources: files become events, faults become rejected events, and every position resumes."""

from __future__ import annotations

import gzip
import json
import random
import sys
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources import FileSource, IterableSource, decide_task
from streammeta.sources.base import Source
from streammeta.sources.labels import at_horizon, delayed
from streammeta.testing import CRASH, END, PAUSE, Crash, ScriptedSource


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def all_of(source: Source, n: int = 7) -> list[Event]:
    position, events = source.start(), []
    while True:
        batch, position = source.read(position, n)
        if not batch:
            assert source.finished(position)
            return events
        assert len(batch) <= n
        events += batch


def check_every_cut(make, n: int = 7) -> list[Event]:
    """Whatever position a stream is cut at, a new source reads the same rest from there."""
    whole = all_of(make(), n)
    source, position = make(), make().start()
    for done in range(len(whole) + 1):
        assert json.loads(json.dumps(position)) == position
        fresh = make()
        assert fresh.finished(position) == (done == len(whole))
        assert fresh.read(position, len(whole) + 1)[0] == whole[done:]
        batch, position = source.read(position, 1)
        assert batch == whole[done : done + 1]
    return whole


SALES = "store,when,temp,day,promo,sold\n" + "".join(
    f"s{i % 2},2024-01-01 00:{i:02d}:00,{20 + i}.5,{'mon' if i % 3 else 'tue'},"
    f"{'true' if i % 2 else 'false'},{i}\n"
    for i in range(12)
)


@pytest.mark.parametrize("name", ["sales.csv", "sales.csv.gz"])
def test_a_csv_file_becomes_typed_events_with_time_and_key(tmp_path, name):
    path = write(tmp_path / name, SALES)
    events = all_of(FileSource(path, target="sold", time="when", key="store", ignore=["promo"]))
    assert len(events) == 12
    assert events[1] == Event(
        f"{name}:0:1", {"temp": 21.5, "day": "mon"}, 1, "s1", 1704067260.0, None
    )
    assert [e.ts for e in events] == sorted(e.ts for e in events)


def test_the_same_rows_are_the_same_events_in_every_format(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"a": i / 2, "c": "xyz"[i % 3], "b": i % 2 == 0, "m": None if i == 3 else 1.0, "y": i % 4}
        for i in range(20)
    ]
    text = "a,c,b,m,y\n" + "".join(
        f"{r['a']},{r['c']},{str(r['b']).lower()},{'' if r['m'] is None else r['m']},{r['y']}\n"
        for r in rows
    )
    write(tmp_path / "t.csv", text)
    write(tmp_path / "t.jsonl.gz", "".join(json.dumps(r) + "\n" for r in rows))
    write(tmp_path / "t.ndjson", "".join(json.dumps({"x": r}) + "\n" for r in rows))
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    found = [
        all_of(FileSource(tmp_path / name, target="y", name="t"))
        for name in ("t.csv", "t.jsonl.gz", "t.ndjson", "t.parquet")
    ]
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][3].x == {"a": 1.5, "c": "x", "b": False, "m": None}
    assert found[0][3].y == 3
    assert type(found[0][3].y) is int


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"pip install streammeta\[parquet\]"):
        FileSource(path, target="y").sniff()


def test_a_parquet_file_resumes_in_the_middle_and_takes_times(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"t": datetime(2024, 1, 1, 0, i), "v": float(i), "y": i * 0.5} for i in range(9)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    events = check_every_cut(lambda: FileSource(tmp_path / "t.parquet", target="y", time="t"))
    assert events[1].ts == 1704067260.0
    assert events[1].x == {"v": 1.0}


def test_each_bad_csv_line_names_place_and_cause_and_the_stream_goes_on(tmp_path):
    lines = [f"{i}.25,{i}.5,{i % 2}" for i in range(200)]
    lines[15] = "1.5,abc,1"  # line 17: the header is line 1
    lines[20] = "1.5,2.5"
    lines[30] = "1.5,2.5,"
    lines[40] = "inf,2.5,0"
    lines[50] = "?,NA,0"
    lines[60] = '1.5,"2.5,0'
    lines[70] = "1.5,2.5,x"
    path = write(tmp_path / "elec2.csv", "a,nswprice,target\n" + "\n".join(lines) + "\n")
    events = check_every_cut(lambda: FileSource(path, target="target"), n=200)
    assert len(events) == 200
    faults = {e.id: e.error for e in events if e.error}
    assert faults == {
        "elec2.csv:0:15": (
            "wrong_type",
            "elec2.csv line 17: column 'nswprice' is 'abc', expected a number",
        ),
        "elec2.csv:0:20": ("malformed", "elec2.csv line 22: 2 fields, expected 3 like the header"),
        "elec2.csv:0:30": ("missing_target", "elec2.csv line 32: target column 'target' is empty"),
        "elec2.csv:0:40": (
            "not_finite",
            "elec2.csv line 42: column 'a' is 'inf', expected a finite number",
        ),
        "elec2.csv:0:60": (
            "malformed",
            "elec2.csv line 62: a quote opens here and does not close on this line",
        ),
        "elec2.csv:0:70": (
            "wrong_type",
            "elec2.csv line 72: column 'target' is 'x', expected a number",
        ),
    }
    assert events[50].x == {"a": None, "nswprice": None}
    assert events[61].x == {"a": 61.25, "nswprice": 61.5}


def test_many_open_quotes_in_a_row_cost_one_line_each(tmp_path):
    lines = ['1,"2,0' if 1200 <= i < 3000 else "1,2,0" for i in range(4000)]
    path = write(tmp_path / "q.csv", "a,b,y\n" + "\n".join(lines))
    events = all_of(FileSource(path, target="y"), 1000)
    assert [e.error is None for e in events] == ['"' not in line for line in lines]


def test_quoted_cells_may_hold_delimiters_and_line_ends(tmp_path):
    path = write(tmp_path / "q.csv", 'a,note,y\n1,"x, y",p\n2,"two\nlines",q\n\n3,z,p\n')
    events = check_every_cut(lambda: FileSource(path, target="y"))
    assert [e.x["note"] for e in events] == ["x, y", "two\nlines", "z"]
    assert [e.y for e in events] == ["p", "q", "p"]


def test_other_delimiters_byte_order_marks_and_foreign_bytes_are_read(tmp_path):
    (tmp_path / "s.csv").write_bytes(b"\xef\xbb\xbfa;city;y\r\n1;Z\xfcrich;0\r\n2;Bern;1\r\n")
    events = all_of(FileSource(tmp_path / "s.csv", target="y"))
    assert [e.x for e in events] == [{"a": 1.0, "city": "Z\\xfcrich"}, {"a": 2.0, "city": "Bern"}]


@pytest.mark.parametrize("head", ["day;temp, C;y", '"a;b,c|d";"b";y', "day;b;y"])
def test_the_delimiter_is_the_one_that_fits_the_lines_below_the_header(tmp_path, head):
    path = write(tmp_path / "d.csv", f"{head}\n" + "mon;2,5;1,25\ntue;-3,75;0\n" * 5)
    sniff = FileSource(path, target="y").sniff()
    assert list(sniff.columns.values()) == ["category", "number", "number"]
    assert sniff.targets[:2] == [1.25, 0.0]


def test_a_comma_that_may_be_thousands_is_no_decimal_sign(tmp_path):
    path = write(tmp_path / "d.csv", "a;y\n1,500;0\n2,250;1\n")
    assert [e.x["a"] for e in all_of(FileSource(path, target="y"))] == ["1,500", "2,250"]


def test_a_file_that_says_it_is_utf_16_is_read_as_such(tmp_path):
    for name in ("u.csv", "u.csv.gz"):
        data = "größe,y\r\n1.5,ä\r\n".encode("utf-16")
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        events = check_every_cut(lambda name=name: FileSource(tmp_path / name, target="y"))
        assert (events[0].x, events[0].y) == ({"größe": 1.5}, "ä")


def test_a_column_that_no_model_can_use_is_named_before_the_stream_starts(tmp_path):
    rows = "".join(json.dumps({"a": i, "tags": ["x"], "y": i}) + "\n" for i in range(5))
    path = write(tmp_path / "n.jsonl", rows)
    with pytest.raises(UsageError, match=r"column 'tags' holds values such as \['x'\].*ignore"):
        FileSource(path, target="y").sniff()
    assert len(all_of(FileSource(path, target="y", ignore=["tags"]))) == 5


def test_a_column_is_numeric_when_19_of_20_cells_are(tmp_path):
    text = "mostly,half,empty,y\n" + "".join(
        f"{'oops' if i == 60 else i},{'n/a!' if i % 2 else i},,{i}.5\n" for i in range(100)
    )
    source = FileSource(write(tmp_path / "k.csv", text), target="y")
    sniff = source.sniff()
    kinds = {"mostly": "integer", "half": "category", "empty": "unknown", "y": "number"}
    assert sniff.columns == kinds
    assert sniff.features == ("mostly", "half", "empty")
    assert sniff.targets[:2] == [0.5, 1.5]
    events = all_of(source)
    assert [e.id for e in events if e.error] == ["k.csv:0:60"]
    assert events[2].x == {"mostly": 2.0, "half": "2", "empty": None}


def test_bad_json_lines_are_malformed_and_nested_values_have_the_wrong_type(tmp_path):
    good = '{"a": 1, "y": 0}\n'
    bad = [
        '{"a": 1, "y": \n',
        "[1, 2]\n",
        '{"a": [1], "y": 0}\n',
        '{"a": 1}\n',
        '{"a": "x","y":1}\n',
    ]
    bad.append('{"a": Infinity, "y": 0}\n')
    path = write(tmp_path / "b.jsonl", good * 60 + "".join(bad) + "\n" + good)
    events = check_every_cut(lambda: FileSource(path, target="y"), n=100)
    reasons = [e.error[0] for e in events if e.error]
    assert reasons == [
        "malformed", "malformed", "wrong_type", "missing_target", "wrong_type", "not_finite",
    ]  # fmt: skip
    assert events[60].error[1].startswith("b.jsonl line 61: not JSON: ")
    assert events[62].error[1].startswith("b.jsonl line 63: column 'a' is [1], expected a number")
    assert events[-1].id == "b.jsonl:0:66"
    assert events[-1].error is None


def test_envelopes_are_told_from_flat_rows_that_have_a_column_x(tmp_path):
    envelopes = [
        {"id": "a", "ts": 5, "key": "k", "x": {"t": 1.5, "d": None}, "y": 3},
        {"id": "b", "ts": 6, "x": {"t": 2}},
        {"id": "b", "ts": 9, "y": 4},
        {"x": {"t": 2.5}, "y": 1},
        {"id": ["c"], "x": {"t": 1}},
    ]
    path = write(tmp_path / "e.jsonl", "".join(json.dumps(r) + "\n" for r in envelopes))
    events = all_of(FileSource(path))
    assert events[:4] == [
        Event("a", {"t": 1.5, "d": None}, 3, "k", 5.0),
        Event("b", {"t": 2.0}, None, "", 6.0),
        Event("b", None, 4, "", 9.0),
        Event("e.jsonl:0:3", {"t": 2.5}, 1),
    ]
    assert events[4].error[0] == "wrong_type"
    flat = write(tmp_path / "f.jsonl", '{"x": 1.5, "y": 2, "extra": 1}\n{"x": 2.5, "y": 3}\n')
    assert [e.x for e in all_of(FileSource(flat, target="y"))] == [
        {"x": 1.5, "extra": 1.0},
        {"x": 2.5},
    ]


def test_ids_and_new_features_come_from_the_rows(tmp_path):
    path = write(tmp_path / "i.jsonl", '{"n": 7, "a": 1, "y": 0}\n{"n": 8, "b": "q", "y": 1}\n')
    events = all_of(FileSource(path, target="y", id="n"))
    assert [(e.id, e.x) for e in events] == [("7", {"a": 1.0}), ("8", {"b": "q"})]


def test_a_missing_file_names_its_neighbours_and_a_missing_column_the_nearest(tmp_path):
    path = write(tmp_path / "elec2.csv", "price,demand,target\n1,2,0\n")
    with pytest.raises(SourceError, match=r"elec.csv: no such file; the folder has elec2.csv"):
        FileSource(tmp_path / "elec.csv", target="target").sniff()
    with pytest.raises(UsageError, match=r"'tagret' .*did you mean 'target'.*price, demand"):
        FileSource(path, target="tagret").sniff()
    with pytest.raises(UsageError, match=r"ignore column 'x' is not in the file; columns: price"):
        FileSource(path, target="target", ignore=["x"]).sniff()
    with pytest.raises(UsageError, match="two parts"):
        FileSource(path, target="target", key="target").sniff()


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.jsonl"])
@pytest.mark.parametrize("text", ["", "\n", "a,y\n"])
def test_a_file_without_rows_is_a_clear_error(tmp_path, name, text):
    with pytest.raises(SourceError, match=r"empty|no usable row|no line is a JSON object"):
        FileSource(write(tmp_path / name, text), target="y").sniff()


def test_other_unusable_files_are_clear_errors(tmp_path):
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"a,y\n" + b"1,2\n" * 50_000)[:150])
    with pytest.raises(SourceError, match=r"cut\.csv\.gz: unreadable after line \d+"):
        all_of(FileSource(tmp_path / "cut.csv.gz", target="y"))
    (tmp_path / "not.csv.gz").write_bytes(b"a,y\n1,2\n")
    with pytest.raises(SourceError, match="unreadable after line 0"):
        FileSource(tmp_path / "not.csv.gz", target="y").sniff()
    with pytest.raises(SourceError, match="not a Parquet file"):
        FileSource(write(tmp_path / "x.parquet", "a,y\n"), target="y").sniff()
    with pytest.raises(UsageError, match=r"unknown kind of file '\.xlsx'"):
        FileSource(write(tmp_path / "x.xlsx", ""), target="y").sniff()
    with pytest.raises(SourceError, match="is a folder"):
        FileSource(tmp_path, target="y").sniff()
    with pytest.raises(UsageError, match="no values at all"):
        FileSource(write(tmp_path / "n.csv", "a,y\n1,\n2,\n"), target="y").sniff()


def test_a_file_that_was_cut_after_a_commit_is_noticed(tmp_path):
    path = write(tmp_path / "c.csv", "a,y\n" + "1,0\n" * 10)
    source = FileSource(path, target="y")
    _, position = source.read(source.start(), 8)
    write(path, "a,y\n" + "1,0\n" * 5)
    with pytest.raises(SourceError, match="position 8 lies beyond its end"):
        FileSource(path, target="y").read(position, 1)


def test_a_commit_in_one_file_is_not_gone_on_with_in_another(tmp_path):
    one, other = (write(tmp_path / name, "a,y\n" + "1,0\n" * 10) for name in ("1.csv", "2.csv"))
    source = FileSource(one, target="y")
    _, position = source.read(source.start(), 8)
    with pytest.raises(SourceError, match=r"after event 8 of 1\.csv, which is another stream"):
        FileSource(other, target="y").read(position, 1)
    (tmp_path / "moved").mkdir()
    moved = one.rename(tmp_path / "moved" / "1.csv")
    assert len(FileSource(moved, target="y").read(position, 5)[0]) == 2
    assert len(FileSource(other, target="y").read({"emitted": 8}, 5)[0]) == 2, "of an older commit"


def test_only_the_first_rows_are_read_when_rows_says_so(tmp_path):
    path = write(tmp_path / "r.csv", "a,y\n" + "1,0\n" * 10)
    events = check_every_cut(lambda: FileSource(path, target="y", rows=4))
    assert len(events) == 4


@pytest.mark.parametrize("horizon", [0, 1, 3])
@pytest.mark.parametrize("label_delay", [0, 1, 4])
@pytest.mark.parametrize("key", [None, "store"])
def test_every_cut_resumes_exactly(tmp_path, horizon, label_delay, key):
    text = SALES.replace("2024-01-01 00:05:00,25.5", "2024-01-01 00:05:00,warm")
    path = write(tmp_path / "s.csv", text.replace(",false,8", ",false,"))
    check_every_cut(
        lambda: FileSource(path, target="sold", key=key, horizon=horizon, label_delay=label_delay),
        n=5,
    )


def test_at_a_horizon_the_label_is_a_later_row_and_comes_right_before_its_question(tmp_path):
    path = write(tmp_path / "h.csv", "a,p\n" + "".join(f"{i},{i + 0.5}\n" for i in range(6)))
    events = all_of(FileSource(path, target="p", horizon=2))
    assert events[0].x == {"a": 0.0, "p": 0.5}
    told = [("?" if e.x else "=", int(e.id.rsplit(":", 1)[1]), e.y) for e in events]
    assert told == [
        ("?", 0, None), ("?", 1, None),
        ("=", 0, 2.5), ("?", 2, None), ("=", 1, 3.5), ("?", 3, None),
        ("=", 2, 4.5), ("?", 4, None), ("=", 3, 5.5), ("?", 5, None),
    ]  # fmt: skip


def test_a_gap_in_the_target_at_a_horizon_is_counted_and_the_row_is_still_asked(tmp_path):
    path = write(tmp_path / "h.csv", "a,p\n0,0.5\n1,\n2,2.5\n")
    events = all_of(FileSource(path, target="p", horizon=1))
    assert [(e.id[-1], e.x is not None, e.y, e.error and e.error[0]) for e in events] == [
        ("0", True, None, None),
        ("0", False, None, "missing_target"),
        ("1", True, None, None),
        ("1", False, 2.5, None),
        ("2", True, None, None),
    ]
    assert events[2].x == {"a": 1.0, "p": None}


_rows = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-5, 5)), max_size=40)


@given(rows=_rows, horizon=st.integers(1, 5))
def test_each_answer_at_a_horizon_is_the_target_that_many_rows_of_its_key_later(rows, horizon):
    events = [Event(str(i), {"v": v}, v, key) for i, (key, v) in enumerate(rows)]
    out = list(at_horizon(events, horizon))
    assert [e.id for e in out if e.x is not None] == [e.id for e in events]
    answers = {e.id: e.y for e in out if e.x is None}
    for key in "abc":
        own = [e for e in events if e.key == key]
        for now, then in zip(own, own[horizon:], strict=False):
            assert answers.pop(now.id) == then.y
    assert not answers


@given(n=st.integers(0, 30), delay=st.integers(0, 12), seed=st.integers(0, 99))
def test_every_label_comes_exactly_that_many_questions_late(n, delay, seed):
    rng = random.Random(seed)
    labels = [rng.choice([None, 0, 1]) for _ in range(n)]
    events = [Event(str(i), {"v": i}, y, "", float(i)) for i, y in enumerate(labels)]
    asked, told = 0, []
    for event in delayed(events, delay):
        if event.x is not None:
            assert event.y is None
            asked += 1
        else:
            told.append(int(event.id))
            assert event.y == labels[int(event.id)]
            assert asked == min(int(event.id) + 1 + delay, n)
            assert event.ts == asked - 1
    assert told == [i for i, y in enumerate(labels) if y is not None]


def test_any_iterable_is_a_source_that_can_be_cut_anywhere():
    from river.datasets import Phishing

    whole = check_every_cut(lambda: IterableSource(Phishing, "phishing", rows=30))
    assert len(whole) == 30
    assert whole[3].id == "phishing:0:3"
    assert isinstance(whole[3].y, bool)
    late = check_every_cut(lambda: IterableSource(Phishing, "phishing", rows=10, label_delay=2))
    assert len(late) == 20


def test_the_task_is_decided_with_a_reason():
    assert decide_task(["up", "down"])[0] == "classification"
    assert decide_task([True, False])[0] == "classification"
    assert decide_task(list(range(50))) == (
        "classification",
        "the target has 50 distinct whole numbers (0, 1, 2, 3, 4, ...) in its first 50 values",
    )
    assert decide_task(list(range(51)))[0] == "regression"
    assert decide_task([1, 2, 2.5]) == (
        "regression",
        "the target has numbers that are not whole, such as 2.5",
    )
    with pytest.raises(UsageError, match="no values"):
        decide_task([])


def test_a_time_that_cannot_be_read_rejects_its_row_only(tmp_path):
    path = write(tmp_path / "t.csv", "when,y\n2024-01-01,0\nsoon,1\n100.5,0\n,1\n")
    events = all_of(FileSource(path, target="y", time="when"))
    assert [e.ts for e in events] == [1704067200.0, None, 100.5, None]
    assert [bool(e.error) for e in events] == [False, True, False, False]
    assert events[1].error[1] == (
        "t.csv line 3: column 'when' is 'soon', expected seconds since 1970 or a date and time"
    )


def test_a_script_pauses_crashes_once_and_ends():
    source = ScriptedSource([Event("a"), PAUSE, Event("b"), CRASH, Event("c"), END])
    a, position = source.read(source.start(), 9)
    b, position = source.read(position, 9)
    with pytest.raises(Crash):
        source.read(position, 9)
    c, position = source.read(position, 9)
    assert [e.id for e in a + b + c] == ["a", "b", "c"]
    assert source.finished(position)
    assert not ScriptedSource([Event("a")]).finished({"item": 1})
