"""Sinks: one contract, exact resumption, strict JSON."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammeta import registry
from streammeta.errors import SinkError
from streammeta.events import LabelExpired, MetaUpdated, Predicted, Rejected, Scored
from streammeta.sinks import DeadLetterSink, JsonlSink, ListSink, Sink, StdoutSink


def predicted(i: int) -> Predicted:
    return Predicted(f"f:0:{i}", "", i, None, "yes", {"yes": 0.75, "no": 0.25})


def rejected(i: int) -> Rejected:
    return Rejected(f"f:0:{i}", "decode", "malformed", f"f line {i + 2}: 3 fields, expected 5")


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("make", [lambda p: JsonlSink(p / "o.jsonl"), lambda p: ListSink()])
def test_a_durable_sink_goes_back_to_any_position_it_has_named(tmp_path, make):
    sink = make(tmp_path)
    assert isinstance(sink, Sink)
    assert sink.durable
    sink.open(None)
    positions = []
    for i in range(5):
        positions.append(json.loads(json.dumps(sink.position())))
        assert sink.write([predicted(i)]) == 1
    end = sink.position()
    sink.flush()
    sink.close()
    sink.open(positions[2])
    assert sink.position() == positions[2]
    sink.write([predicted(2), predicted(3), predicted(4)])
    assert sink.position() == end
    sink.close()
    sink.close()


def test_a_file_has_every_line_once_after_a_crash_in_the_middle_of_a_line(tmp_path):
    path = tmp_path / "deep" / "out.jsonl"
    sink = JsonlSink(path)
    sink.open(None)
    sink.write([predicted(0), predicted(1)])
    committed = sink.position()
    sink.close()
    with open(path, "ab") as file:
        file.write(b'{"kind":"predicted","id":"f:0:2","key"')
    again = JsonlSink(path)
    again.open(committed)
    again.write([predicted(2)])
    again.close()
    assert [row["id"] for row in lines(path)] == ["f:0:0", "f:0:1", "f:0:2"]
    assert lines(path)[0]["probabilities"] == {"yes": 0.75, "no": 0.25}


def test_an_owner_that_wakes_up_too_late_writes_the_same_bytes_to_the_same_place(tmp_path):
    frozen, owner = JsonlSink(tmp_path / "o.jsonl"), JsonlSink(tmp_path / "o.jsonl")
    frozen.open(None)
    frozen.write([predicted(0)])
    frozen.flush()
    here = frozen.position()
    owner.open(here)
    owner.write([predicted(1), predicted(2)])
    owner.close()
    frozen.write([predicted(1)])
    frozen.close()
    assert [row["id"] for row in lines(tmp_path / "o.jsonl")] == ["f:0:0", "f:0:1", "f:0:2"]


def test_a_file_shorter_than_the_commit_says_so(tmp_path):
    path = tmp_path / "o.jsonl"
    path.write_text("{}\n")
    with pytest.raises(SinkError, match=r"has 3 bytes, the commit knows 100: was it changed"):
        JsonlSink(path).open({"bytes": 100})
    assert path.read_text() == "{}\n"
    with pytest.raises(SinkError, match="cannot be opened"):
        JsonlSink(path / "below" / "o.jsonl").open(None)
    with pytest.raises(SinkError, match="is not open"):
        JsonlSink(path).write([predicted(0)])


def test_kinds_are_filtered_and_dead_letters_hold_the_rejected_only(tmp_path):
    some = JsonlSink(tmp_path / "s.jsonl", ["predicted", "label_expired"])
    dead = DeadLetterSink(tmp_path / "d.jsonl")
    outputs = [predicted(0), rejected(1), LabelExpired("f:0:0", "", 0, "ttl")]
    for sink, taken in ((some, 2), (dead, 1)):
        sink.open(None)
        assert sink.write(outputs) == taken
        sink.close()
    assert [row["kind"] for row in lines(some.path)] == ["predicted", "label_expired"]
    assert lines(dead.path)[0]["detail"] == "f line 3: 3 fields, expected 5"
    with pytest.raises(SinkError, match="'predictions'; outputs: predicted, scored"):
        JsonlSink(tmp_path / "x", ["predictions"])


def test_lines_are_strict_json_whatever_the_numbers(tmp_path):
    sink = JsonlSink(tmp_path / "n.jsonl")
    sink.open(None)
    experts = {"a": float("inf"), "b": np.float32(0.5)}
    sink.write([
        MetaUpdated(3, 1, 4, float("nan"), 0.5),
        Scored("i", "", 0, np.int64(2), None, 1.0, 2.0, 0, experts),  # type: ignore[arg-type]
    ])  # fmt: skip
    sink.close()
    first, second = lines(sink.path)
    assert first["loss"] is None
    assert second["truth"] == 2
    assert second["experts"] == {"a": None, "b": 0.5}


def test_stdout_prints_predictions_at_once_and_nothing_else():
    stream = io.StringIO()
    sink = StdoutSink(stream=stream)
    assert not sink.durable
    sink.open(None)
    assert sink.write([predicted(0), rejected(1)]) == 1
    assert json.loads(stream.getvalue())["id"] == "f:0:0"
    sink.close()
    assert not stream.closed


@given(st.lists(st.integers(0, 4), max_size=8), st.integers(0, 8))
def test_cutting_a_list_sink_is_the_same_as_never_having_written(sizes, cut):
    sink, cut = ListSink(), min(cut, len(sizes))
    sink.open(None)
    marks = [sink.position()]
    for size in sizes:
        sink.write([predicted(i) for i in range(size)])
        marks.append(sink.position())
    sink.open(marks[cut])
    assert len(sink.outputs) == sum(sizes[:cut])


@pytest.mark.parametrize("kind", ["sources", "sinks"])
def test_every_row_of_the_registry_can_be_loaded(kind):
    rows = registry.components(kind)
    assert rows
    for row in rows.values():
        assert callable(row.load())
