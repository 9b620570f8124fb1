"""Labels from a source of their own: they meet their questions by id, in event time, once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running_mean import RunningMean
from test_cli import streammeta

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event, Predicted, Scored
from streammeta.runtime import ShardHost, run_local
from streammeta.sources import FileSource
from streammeta.sources.base import Forgets, Live, SourceStatus
from streammeta.sources.labelled import PATIENCE, LabelledSource, labelled
from streammeta.store import MemoryStore
from streammeta.testing import END, PAUSE, FakeClock, ListSink, ScriptedSource, check_source


def asked(*times: float | None) -> list[Event]:
    return [Event(f"q{i}", {"a": float(i)}, ts=ts) for i, ts in enumerate(times)]


def told(*times: float | None) -> list[Event]:
    return [Event(f"q{i}", {"more": 1.0}, float(i), ts=ts) for i, ts in enumerate(times)]


def merged(questions, labels) -> list[str]:
    source = LabelledSource(ScriptedSource([*questions, END]), ScriptedSource([*labels, END], "l"))
    events, position = source.read(source.start(), 99)
    assert source.finished(position)
    return [("?" if e.x is not None else "=") + e.id for e in events]


def test_a_label_stands_before_the_first_question_that_is_later_than_it():
    assert merged(asked(1, 2, 3), told(2, 2.5, 9)) == ["?q0", "?q1", "=q0", "=q1", "?q2", "=q2"]


def test_events_without_a_time_take_turns():
    assert merged(asked(None, None, None), told(None, None)) == [
        "?q0", "=q0", "?q1", "=q1", "?q2",
    ]  # fmt: skip


def test_what_was_scored_is_what_was_said_then():
    source = LabelledSource(
        ScriptedSource([*asked(1, 2, 3, 4), END]), ScriptedSource([*told(3.5, 3.6, 9, 9), END], "l")
    )
    sink = ListSink()
    host = ShardHost(source, RunningMean, MemoryStore(), [sink])
    host.open()
    run_local(host, clock=FakeClock())
    said = {o.id: o.prediction for o in sink.outputs if isinstance(o, Predicted)}
    scored = [o for o in sink.outputs if isinstance(o, Scored)]
    assert [(o.id, o.delay) for o in scored] == [("q0", 2), ("q1", 1), ("q2", 1), ("q3", 0)]
    assert all(o.prediction == said[o.id] for o in scored)


@settings(deadline=None, max_examples=60)
@given(
    times=st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=12),
    label_times=st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=12),
    cuts=st.lists(st.integers(1, 5), max_size=9),
)
def test_however_it_is_cut_and_resumed_the_order_is_the_same(times, label_times, cuts):
    make = lambda: LabelledSource(  # noqa: E731
        ScriptedSource([*asked(*times), END]), ScriptedSource([*told(*label_times), END], "l")
    )
    source = make()
    whole, _ = source.read(source.start(), 99)
    assert len(whole) == len(times) + len(label_times)
    position, found = make().start(), []
    for n in [*cuts, 99]:
        events, position = make().read(json.loads(json.dumps(position)), n)
        found += events
    assert found == whole


def files(folder: Path) -> tuple[Path, Path]:
    events = "".join(f"e{i},{i},{i / 4}\n" for i in range(40))
    labels = "".join(f"e{i},{i + 3},{i % 5}.5\n" for i in range(0, 40, 2))
    (folder / "events.csv").write_text("id,at,a\n" + events)
    (folder / "labels.csv").write_text("id,at,y\n" + labels)
    return folder / "events.csv", folder / "labels.csv"


def test_two_files_keep_the_contract_of_a_source(tmp_path):
    events, labels = files(tmp_path)
    make = lambda: labelled(  # noqa: E731
        FileSource(events, time="at", id="id"), FileSource(labels, target="y", time="at", id="id")
    )
    check_source(make, 60)
    source = make()
    found, _ = source.read(source.start(), 99)
    assert sum(e.x is None for e in found) == 20
    assert not isinstance(source, Forgets)


class Wire(ScriptedSource):
    """A live one: it can be cut off."""

    fault = ""

    def read(self, position, n):
        return ([], position) if self.fault else super().read(position, n)

    def status(self) -> SourceStatus:
        return SourceStatus(self.fault, 3, 1)


def test_labels_wait_while_their_questions_cannot_be_read():
    events = Wire([*asked(1, 2), PAUSE, *asked(1, 2)])
    source = LabelledSource(events, Wire(told(1.5, 7), "l"))
    assert isinstance(source, Live)
    events.fault = "gone"
    position = source.start()
    for _ in range(PATIENCE + 5):
        found, position = source.read(position, 9)
        assert found == []
    assert source.status() == SourceStatus("gone", 6, 2)
    events.fault = ""
    found, position = source.read(position, 3)
    assert [(e.id, e.y) for e in found] == [("q0", None), ("q0", 0.0), ("q1", None)]


def test_labels_that_nobody_overtakes_go_on_after_a_while():
    source = LabelledSource(Wire(asked(1.0)), Wire(told(9.0), "l"))
    found, position = source.read(source.start(), 9)
    assert [e.y for e in found] == [None]  # two seconds may pass until a question comes
    reads = 0
    while not found or found[-1].y is None:
        found, position = source.read(position, 9)
        reads += 1
    assert reads <= PATIENCE


def test_what_cannot_work_is_said_at_once():
    with pytest.raises(UsageError, match="both called 'script'"):
        LabelledSource(ScriptedSource([]), ScriptedSource([]))
    source = LabelledSource(ScriptedSource([]), ScriptedSource([], "l"))
    with pytest.raises(SourceError, match="expected those of events and labels"):
        source.read({"item": 3}, 1)


CONFIG = """
[source]
path = "events.csv"
target = ""
id = "id"
time = "at"

[labels]
path = "labels.csv"
target = "y"
id = "id"
time = "at"

[model]
experts = ["networks"]
hidden = [4]
challengers = 0
scouts = []

[[sinks]]
path = "out.jsonl"
outputs = ["scored"]

[metrics]
enabled = false
"""


def test_labels_in_a_config(tmp_path):
    files(tmp_path)
    (tmp_path / "run.toml").write_text(CONFIG)
    told = streammeta("run", "run.toml", cwd=tmp_path)
    assert "regression (the target has numbers that are not whole, such as 0.5, in labels)" in (
        " ".join(told.stderr.split())
    )
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(r["id"], r["truth"]) for r in scored] == [
        (f"e{i}", i % 5 + 0.5) for i in range(0, 40, 2)
    ]
    assert {r["delay"] for r in scored[:-2]} == {3}
    (tmp_path / "run.toml").write_text(CONFIG.replace('target = "y"\nid', 'tagret = "y"\nid'))
    wrong = streammeta("validate", "run.toml", cwd=tmp_path, code=78)
    assert "labels" in wrong.stderr
