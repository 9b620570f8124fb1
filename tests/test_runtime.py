"""Hosts and the embedded runner: crashes, fences, drains and paces, told as stories."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running_mean import RunningMean

from streammeta.errors import Fenced, SinkError, UsageError
from streammeta.events import Event, Output, Predicted, Rejected
from streammeta.metrics import Metrics
from streammeta.runtime import Pace, ShardHost, run_local
from streammeta.sinks import DeadLetterSink, JsonlSink
from streammeta.sources import FileSource, IterableSource
from streammeta.store import LocalStore, MemoryStore
from streammeta.testing import CRASH, END, PAUSE, Crash, FakeClock, ListSink, ScriptedSource


def events(n: int, first: int = 0) -> list[Event]:
    return [Event(f"e{i}", {"a": float(i)}, float(i % 7), "", 100.0 + i)
            for i in range(first, first + n)]  # fmt: skip


def host_of(source, store=None, sinks=(), chunk=1, **options) -> ShardHost:
    return ShardHost(
        source, lambda snapshot: RunningMean(snapshot, chunk), store, sinks, chunk=chunk, **options
    )


def ids(sink: ListSink) -> list[str]:
    return [o.id for o in sink.outputs if isinstance(o, Predicted)]


def uninterrupted(script, chunk: int = 1) -> tuple[bytes, list[Output]]:
    """The final state and the outputs of the story without its crashes."""
    sink, store = ListSink(), MemoryStore()
    host = host_of(ScriptedSource([s for s in script if s is not CRASH]), store, [sink], chunk)
    host.open()
    run_local(host, clock=FakeClock())
    return store.latest(0).snapshot.to_bytes(), sink.outputs


def survive(source, store, sink, chunk: int = 1, **options) -> int:
    """Run, and after each crash run again with a new host, like a supervisor would."""
    for lives in range(1, 100):
        host = host_of(source, store, [sink], chunk, **options)
        host.open()
        try:
            run_local(host, clock=FakeClock())
            return lives
        except Crash:
            sink.outputs.append(Rejected("torn", "sink", "half", "a half-written line"))
    raise AssertionError("never finished")


def test_a_crash_between_commits_changes_nothing_that_can_be_seen():
    script = [*events(25), CRASH, *events(3, 25), PAUSE, *events(30, 28), CRASH, CRASH]
    script += [*events(9, 58), END]
    sink, store = ListSink(), MemoryStore()
    assert survive(ScriptedSource(script), store, sink, commit_every=10) == 4
    state, outputs = uninterrupted(script)
    assert store.latest(0).snapshot.to_bytes() == state
    assert sink.outputs == outputs
    assert ids(sink) == [f"e{i}" for i in range(67)]


@settings(deadline=None, max_examples=40)
@given(
    crashes=st.lists(st.integers(0, 60), max_size=4),
    commit_every=st.integers(1, 30),
    chunk=st.sampled_from([1, 4, 7]),
)
def test_wherever_it_crashes_the_result_is_the_same(crashes, commit_every, chunk):
    whole = events(60)
    script = [*whole, END]
    for at in sorted(crashes, reverse=True):
        # a crash ends a chunk for no one: the events of its chunk are read again together
        script.insert(at - at % chunk, CRASH)
    sink, store = ListSink(), MemoryStore()
    survive(ScriptedSource(script), store, sink, chunk, commit_every=commit_every)
    state, outputs = uninterrupted(script, chunk)
    assert store.latest(0).snapshot.to_bytes() == state
    assert sink.outputs == outputs


class DiesInCommit(MemoryStore):
    """Crashes right after the commit has become the truth: nothing has been delivered yet."""

    armed = True

    def commit(self, shard, epoch, record):
        size = super().commit(shard, epoch, record)
        if self.armed and epoch == 2:
            self.armed = False
            raise Crash("between commit and delivery")
        return size


def test_outputs_that_were_committed_but_not_delivered_are_delivered_on_resume():
    sink, store = ListSink(), DiesInCommit()
    assert survive(ScriptedSource([*events(35), END]), store, sink, commit_every=10) == 2
    assert sink.outputs == uninterrupted([*events(35), END])[1]


def test_how_much_is_polled_and_where_it_stops_leaves_no_trace():
    make = lambda: IterableSource(lambda: events(50), "s")  # noqa: E731
    results = []
    for polls in ([50], [1] * 50, [3, 11, 2, 40]):
        store, sink = MemoryStore(), ListSink()
        for n in polls:  # a new process for every poll
            host = host_of(make(), store, [sink], chunk=4, commit_every=8)
            host.open()
            run_local(host, max_events=n)
        results.append((store.latest(0).snapshot.to_bytes(), sink.outputs))
    assert results[0] == results[2]
    assert results[0] == results[1]


def test_a_second_writer_takes_over_and_the_first_is_fenced_and_drops_the_shard():
    store, watch = MemoryStore(), Metrics("m", "regression")
    first = host_of(ScriptedSource([*events(40), END]), store, commit_every=10, observer=watch)
    first.open()
    first.poll(10)
    second = host_of(ScriptedSource([*events(40), END]), store, commit_every=10)
    assert second.open()
    second.poll(10)
    with pytest.raises(Fenced, match="another owner has taken over"):
        first.poll(10)
    with pytest.raises(UsageError, match="no shard is open"):
        first.poll(10)
    assert watch.registry.get_sample_value(
        "streammeta_checkpoints_total", {"outcome": "fenced"}
    ) == 1  # fmt: skip
    run_local(second)
    assert store.latest(0).events == 40


def test_malformed_lines_are_counted_and_put_aside_and_the_stream_goes_on(tmp_path):
    rows = [f"{i},{i % 5}.5" for i in range(300)]
    rows[100], rows[200], rows[250] = "x,1.5", "1,2,3", "7,"
    (tmp_path / "s.csv").write_text("a,y\n" + "\n".join(rows) + "\n")
    metrics = Metrics("m", "regression")
    out = JsonlSink(tmp_path / "out.jsonl", ["predicted"])
    dead = DeadLetterSink(tmp_path / "dead.jsonl")
    host = host_of(FileSource(tmp_path / "s.csv", target="y"), None, [out, dead], observer=metrics)
    host.open()
    end = run_local(host)
    assert (end.reason, end.events, end.total) == ("finished", 300, 300)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 297
    letters = [json.loads(line) for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert [(r["id"], r["reason"]) for r in letters] == [
        ("s.csv:0:100", "wrong_type"),
        ("s.csv:0:200", "malformed"),
        ("s.csv:0:250", "missing_target"),
    ]
    get = metrics.registry.get_sample_value
    assert get("streammeta_events_ingested_total", {"source": "s.csv"}) == 300
    assert get("streammeta_events_processed_total", {"stage": "predict"}) == 297
    labels = {"stage": "decode", "reason": "malformed"}
    assert get("streammeta_events_rejected_total", labels) == 1
    assert get("streammeta_sink_records_total", {"sink": "dead.jsonl", "outcome": "ok"}) == 3
    assert get("streammeta_stage_duration_seconds_count", {"stage": "observe"}) == 300 // 7


def test_a_damaged_newest_commit_costs_time_but_no_prediction(tmp_path):
    store, make = LocalStore(tmp_path / "c"), lambda: IterableSource(lambda: events(80), "s")
    out = JsonlSink(tmp_path / "out.jsonl", ["predicted"])
    host = host_of(make(), store, [out], commit_every=10)
    host.open()
    run_local(host, max_events=45)
    newest = store._path(0, store.epochs(0)[-1])
    newest.write_bytes(newest.read_bytes()[:-1])
    again = LocalStore(tmp_path / "c")
    host = host_of(make(), again, [out], commit_every=10)
    assert host.open()
    assert host.statistics().events == 40
    run_local(host)
    assert "damaged commit skipped" in again.warnings[0]
    found = [json.loads(line)["id"] for line in out.path.read_text().splitlines()]
    assert found == [f"e{i}" for i in range(80)]


def test_a_missing_output_file_stops_the_resume_instead_of_losing_lines(tmp_path):
    store, out = MemoryStore(), JsonlSink(tmp_path / "out.jsonl")
    host = host_of(IterableSource(lambda: events(30), "s"), store, [out], commit_every=10)
    host.open()
    run_local(host, max_events=20)
    out.path.unlink()
    with pytest.raises(SinkError, match="the commit knows"):
        host_of(IterableSource(lambda: events(30), "s"), store, [out]).open()


def test_a_sink_added_later_begins_with_what_comes_from_then_on():
    store, old, new = MemoryStore(), ListSink(name="old"), ListSink(name="new")
    host = host_of(IterableSource(lambda: events(20), "s"), store, [old])
    host.open()
    run_local(host, max_events=8)
    host = host_of(IterableSource(lambda: events(20), "s"), store, [old, new])
    host.open()
    run_local(host)
    assert ids(old) == [f"e{i}" for i in range(20)]
    assert ids(new) == [f"e{i}" for i in range(8, 20)]
    with pytest.raises(UsageError, match="two sinks have one name"):
        host_of(IterableSource(list, "s"), None, [ListSink(), ListSink()])


def test_answers_leave_at_once_and_durable_sinks_wait_for_the_commit():
    class AtOnce(ListSink):
        durable = False

    at_once, later = AtOnce(name="at once"), ListSink()
    host = host_of(ScriptedSource([*events(20), END]), MemoryStore(), [at_once, later])
    host.open()
    host.poll(5)
    assert (len(ids(at_once)), len(ids(later)), host.statistics().undelivered) == (5, 0, 10)
    host.commit()
    assert (len(ids(at_once)), len(ids(later)), host.statistics().undelivered) == (5, 5, 0)
    host.close()


def test_without_a_store_all_sinks_get_outputs_at_once_and_are_flushed_now_and_then():
    sink = ListSink(["predicted"])
    host = host_of(ScriptedSource([*events(25), END]), None, [sink], commit_every=10)
    host.open()
    host.poll(7)
    assert (len(sink.outputs), sink.flushed) == (7, 0)
    host.poll(7)  # no further than the place of the commit
    assert (len(sink.outputs), sink.flushed) == (10, 10)
    run_local(host)
    assert sink.flushed == 25


@pytest.mark.parametrize(
    ("pace", "seconds"), [("500/s", 1.0), ("10x", 50.0), ("realtime", 499.0), ("max", 0.0)]
)
def test_a_paced_run_takes_the_time_it_should(pace, seconds):
    clock = FakeClock(start=77.0)
    host = host_of(IterableSource(lambda: events(500), "s"))
    host.open()
    seen: list[int] = []
    run_local(host, pace=pace, clock=clock, on_outputs=lambda outputs: seen.append(len(outputs)))
    assert clock.slept == pytest.approx(seconds, rel=0.06)
    assert sum(seen) == 1050


def test_event_time_pace_takes_no_event_before_its_time():
    clock, at = FakeClock(), []
    stream = [Event(f"e{i}", {"a": 1.0}, 1.0, "", ts) for i, ts in enumerate([10, 12, 12, 20, 30])]
    host = host_of(IterableSource(lambda: stream, "s"))
    host.open()
    run_local(host, pace="2x", clock=clock, on_outputs=lambda outputs: at.append(clock.now()))
    assert at == [0.0, 1.0, 1.0, 5.0, 10.0]


def test_event_time_pace_without_event_time_says_what_to_do():
    host = host_of(IterableSource(lambda: [({"a": 1.0}, 1.0)], "s"))
    host.open()
    with pytest.raises(UsageError, match=r"event s:0:0 has none: name the time column"):
        run_local(host, pace="realtime")


@pytest.mark.parametrize("text", ["fast", "0/s", "-1x", "10", "x", "1e3/s"])
def test_a_pace_that_is_none_names_the_ones_there_are(text):
    with pytest.raises(UsageError, match="expected max, realtime, 10x or 500/s"):
        Pace.parse(text)


def test_a_live_source_is_waited_for_and_stop_drains():
    clock = FakeClock()
    host = host_of(ScriptedSource([*events(5), PAUSE, PAUSE, *events(5, 5)]), MemoryStore())
    host.open()
    end = run_local(host, clock=clock, stop=lambda: clock.now() > 3)
    assert (end.reason, end.events) == ("stopped", 10)
    assert host.store.latest(0).events == 10


def test_a_slow_live_stream_is_committed_by_the_clock():
    clock, sink, seen = FakeClock(), ListSink(), []
    script = [step for event in events(30) for step in (event, *[PAUSE] * 20)]  # one a second
    host = host_of(ScriptedSource([*script, END]), MemoryStore(), [sink], commit_every=1000)
    host.open()
    waited = lambda: seen.append((clock.now(), len(ids(sink))))  # noqa: E731
    run_local(host, clock=clock, commit_seconds=5.0, on_wait=waited)
    behind = [max(now - 1, 0) - delivered for now, delivered in seen]
    assert max(behind) <= 6.1  # never more than what came in five seconds
    assert host.statistics().epoch in (6, 7)


def test_commits_by_the_clock_leave_no_trace_in_the_state():
    whole = uninterrupted([*events(50), END], chunk=4)
    sink, store = ListSink(), MemoryStore()
    host = host_of(ScriptedSource([*events(50), END]), store, [sink], chunk=4, commit_every=8)
    host.open()
    run_local(host, clock=FakeClock(), commit_seconds=1e-9)
    assert (store.latest(0).snapshot.to_bytes(), sink.outputs) == whole


def test_a_source_that_keeps_events_is_told_what_no_commit_needs_any_more():
    class Keeps(ScriptedSource):
        told: list[int] = []  # noqa: RUF012 - of this one test

        def forget(self, position):
            self.told.append(position["item"])

    host = host_of(Keeps([*events(50), END]), MemoryStore(), commit_every=10)
    host.open()
    run_local(host)
    assert Keeps.told == [10, 20, 30]  # three commits are kept: one may be damaged
    Keeps.told.clear()
    without = host_of(Keeps([*events(30), END]), None, commit_every=10)
    without.open()
    run_local(without)
    assert Keeps.told == [10, 20, 30]  # nobody will ever come back


SCRIPT = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from running_mean import RunningMean
from streammeta.runtime import ShardHost, drain_on_signals, run_local
from streammeta.sinks import JsonlSink
from streammeta.sources import FileSource
from streammeta.store import LocalStore

data, folder, pace = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[4]
store = LocalStore(folder / "checkpoints")
host = ShardHost(
    FileSource(data, target="y", label_delay=3), lambda s: RunningMean(s, 4), store,
    [JsonlSink(folder / "out.jsonl")], commit_every=100, chunk=4,
)
host.open()
print("open", flush=True)
with drain_on_signals() as stop:
    print(run_local(host, pace=pace, stop=stop).reason, flush=True)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    rng = random.Random(5)
    path = tmp_path_factory.mktemp("data") / "data.csv"
    rows = [f"{rng.random():.6f},{rng.gauss(0, 1):.6f}" for _ in range(6000)]
    rows[4321] = "broken"
    path.write_text("a,y\n" + "\n".join(rows) + "\n")
    return path


def start(data: Path, folder: Path, pace: str = "max") -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(data), str(folder), str(Path(__file__).parent), pace],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout.readline() == "open\n"
    return process


def wait(process: subprocess.Popen) -> tuple[int, str]:
    text, _ = process.communicate(timeout=60)
    return process.returncode, text


def final(folder: Path) -> tuple[bytes, str]:
    record = LocalStore(folder / "checkpoints").latest(0)
    return record.snapshot.to_bytes(), (folder / "out.jsonl").read_text()


def test_kill_9_at_random_moments_and_resume_equals_a_run_that_was_never_killed(data, tmp_path):
    assert wait(start(data, tmp_path / "whole")) == (0, "finished\n")
    rng, store = random.Random(time.time_ns()), LocalStore(tmp_path / "killed" / "checkpoints")
    newest = 0
    for _ in range(3):
        process = start(data, tmp_path / "killed", "8000/s")
        while store.epochs(0)[-1:] <= [newest]:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        assert wait(process)[0] == -signal.SIGKILL
        newest = store.epochs(0)[-1]
    assert wait(start(data, tmp_path / "killed")) == (0, "finished\n")
    state, lines = final(tmp_path / "killed")
    assert (state, lines) == final(tmp_path / "whole")
    asked = [json.loads(line)["id"] for line in lines.splitlines() if '"predicted"' in line]
    assert asked == [f"data.csv:0:{i}" for i in range(6000) if i != 4321]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_the_resumed_run_ends_in_the_same_state(data, tmp_path, number):
    process = start(data, tmp_path / "a", "20000/s")
    time.sleep(0.1)
    process.send_signal(number)
    assert wait(process) == (0, "stopped\n")
    done = LocalStore(tmp_path / "a" / "checkpoints").latest(0)
    assert 0 < done.events < 11_000
    assert done.events % 4 == 0
    assert wait(start(data, tmp_path / "a")) == (0, "finished\n")
    assert wait(start(data, tmp_path / "b")) == (0, "finished\n")
    assert final(tmp_path / "a") == final(tmp_path / "b")


def test_a_second_interrupt_ends_at_once_with_130(tmp_path):
    code = (
        "import os, signal, time\n"
        "from streammeta.runtime import drain_on_signals\n"
        "with drain_on_signals() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    while not stop(): time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(30)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20).returncode == 130
