"""What goes wrong outside: a full disk, a broker that is gone, messages that come twice, late or in
another order, clocks that go back. Nothing is lost and nothing is learned twice."""

from __future__ import annotations

import dataclasses
import random
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jetstreams
import pytest
import redis
import servers
from engine_stories import CLASSES, NUMBERS, config, image, late, of, run, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from outage_stories import host_of
from running_mean import RunningMean

from streammeta.engine import Engine
from streammeta.errors import SinkError, SourceError, StoreError
from streammeta.events import Event, LabelExpired, Predicted, Rejected, Scored
from streammeta.metrics import Metrics
from streammeta.runtime import ShardHost, run_local
from streammeta.sinks import JsonlSink, ListSink
from streammeta.sources import IterableSource
from streammeta.sources.jetstream import JetStreamSource
from streammeta.sources.journal import Journal
from streammeta.sources.redis_stream import RedisStreamSource
from streammeta.store import LocalStore, MemoryStore
from streammeta.testing import FakeClock


def small(task: str, **more):
    """Networks, challengers and scouts, and none of what takes long to make."""
    few = {"experts": ("networks", "persistence"), "challengers": 2, "scouts": (8,)}
    return config(task, **few, partner=None, **more)


# -- a full disk -------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A file system of 128 KiB; what is given makes it larger."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"a file system cannot be mounted here: {made.stderr.decode().strip()}")
    try:
        yield (
            lambda: (
                subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
                and None
            )
        )
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def small_files(folder: Path) -> Iterator[Callable[[], None]]:
    """No file of this process may be longer than 60 kB, which the system itself sees to."""
    folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


FULL = {"disk": small_disk, "files": small_files}


def rows(n: int) -> list[Event]:
    return [Event(f"e{i}", {"a": float(i)}, float(i % 7)) for i in range(n)]


class Heavy(RunningMean):
    """Its state grows by 200 bytes a row, so that a commit comes to fill the disk."""

    def snapshot(self):
        made = super().snapshot()
        made.blobs["weight"] = b"w" * (200 * self.row)
        return made


@pytest.mark.parametrize("how", FULL)
@pytest.mark.parametrize("what", ["sink", "store"])
def test_a_full_disk_ends_the_run_and_with_room_it_goes_on_as_if_nothing_had_been(
    how, what, tmp_path
):
    model = Heavy if what == "store" else RunningMean

    def host(folder: Path, elsewhere: Path) -> ShardHost:
        sink, store = (folder, elsewhere) if what == "sink" else (elsewhere, folder)
        return ShardHost(
            IterableSource(lambda: rows(1000), "s"), model, LocalStore(store / "commits"),
            [JsonlSink(sink / "out.jsonl", ["meta_updated"] if what == "store" else None)],
            commit_every=50,
        )  # fmt: skip

    whole = host(tmp_path / "a", tmp_path / "b")
    whole.open()
    run_local(whole)
    with FULL[how](tmp_path / "small") as make_room:
        wrong = {"sink": SinkError, "store": StoreError}[what]
        tried = host(tmp_path / "small", tmp_path / "other")
        tried.open()
        with pytest.raises(wrong, match=r"cannot be written: (No space left|File too large)"):
            run_local(tried)
        make_room()
        again = host(tmp_path / "small", tmp_path / "other")
        assert again.open()
        assert 0 < again.statistics().events < 1000
        run_local(again)
        assert left(tmp_path, "small", "other", what) == left(tmp_path, "a", "b", what)


def left(folder: Path, full: str, other: str, what: str) -> tuple[bytes, bytes]:
    """The lines and the last state that a run has left."""
    sink, store = (full, other) if what == "sink" else (other, full)
    record = LocalStore(folder / store / "commits").latest(0)
    return (folder / sink / "out.jsonl").read_bytes(), record.snapshot.to_bytes()


@pytest.mark.parametrize("how", FULL)
def test_what_a_full_disk_could_not_take_was_not_acknowledged_and_no_half_of_it_is_there(
    how, tmp_path
):
    with FULL[how](tmp_path / "small") as make_room:
        journal = Journal(tmp_path / "small" / "journal", fsync="never")
        taken = 0

        def fill() -> None:
            nonlocal taken
            while taken < 1000:
                journal.append([b"%d" % taken * 500, b"second %d" % taken])
                taken += 2

        with pytest.raises(SourceError, match="cannot be written"):
            fill()
        assert journal.end == taken > 0
        make_room()
        assert journal.append([b"at last"]) == taken
        journal.close()
        again = Journal(tmp_path / "small" / "journal")
        assert again.end == taken + 1
        assert again.read(taken - 1, 9) == [b"second %d" % (taken - 2), b"at last"]
        again.close()


# -- a broker that is gone ---------------------------------------------------------------------


def redis_rows(server: servers.Redis, n: int, first: int) -> None:
    with redis.Redis.from_url(server.url) as client:
        for i in range(first, first + n):
            client.xadd("rows", {"data": f'{{"a": {i}, "y": {i % 7}}}'}, id=f"{i}-0")


def nats_rows(server: servers.Nats, n: int, first: int) -> None:
    streams = jetstreams.Streams(server.url)
    if first == 1:
        streams.make("rows")
    streams.fill("rows", n, first)


BROKERS = {
    "redis": (servers.Redis, redis_rows, RedisStreamSource),
    "nats": (servers.Nats, nats_rows, JetStreamSource),
}


@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("seconds", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_a_broker_may_be_gone_for_a_while_and_come_back(kind, seconds, tmp_path):
    served, fill, source_of = BROKERS[kind]
    server = served(tmp_path)
    server.start()
    gone: list[float] = []

    def back() -> None:
        time.sleep(seconds)  # for so long it is gone
        server.start()
        fill(server, 100, 201)
        gone.append(time.monotonic() - gone.pop())

    returns = threading.Thread(target=back)

    def kill_it(outputs: object) -> None:
        if host.statistics().events >= 90 and not gone and not returns.ident:
            gone.append(time.monotonic())
            server.kill()
            returns.start()

    try:
        fill(server, 200, 1)
        store, sink, faults = MemoryStore(), ListSink(), []
        source = source_of(server.url, "rows", target="y")
        host = host_of(source, store, sink)
        host.open()
        run_local(
            host, pace="2000/s", max_events=300, on_outputs=kill_it,
            on_wait=lambda: faults.append(source.status().fault),
        )  # fmt: skip
        returns.join()
        assert gone[0] >= seconds
        assert any("cannot be reached" in fault for fault in faults)
        whole, wholly = MemoryStore(), ListSink()
        host = host_of(source_of(server.url, "rows", target="y"), whole, wholly)
        host.open()
        run_local(host, max_events=300)
        assert sink.outputs == wholly.outputs
        assert store.latest(0).snapshot.to_bytes() == whole.latest(0).snapshot.to_bytes()
    finally:
        if returns.ident:
            returns.join()
        server.kill()


# -- twice, late, in another order -------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**30), delay=st.sampled_from([0, 3]))
def test_what_is_delivered_twice_is_learned_once(seed, delay):
    """An event may come again at once or much later, waiting, answered or expired."""
    rng = random.Random(seed)
    events = late(stream(CLASSES, 40), delay) if delay else stream(CLASSES, 40)
    twice: list[Event] = []
    for event in events:
        twice.append(event)
        while rng.random() < 0.4:
            twice.append(rng.choice(twice[-20:]))
    once, again = Engine(small(CLASSES)), Engine(small(CLASSES))
    expected = [o for o in run(once, events) if not isinstance(o, Rejected)]
    outputs = run(again, twice)
    rejected = of(Rejected, outputs)
    assert [repr(o) for o in outputs if not isinstance(o, Rejected)] == [repr(o) for o in expected]
    assert len(rejected) == len(twice) - len(events)
    assert {r.reason for r in rejected} <= {"duplicate_id", "duplicate_label"}
    assert image(again) == image(once)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**30))
def test_labels_may_come_in_any_order_and_questions_too(seed):
    rng = random.Random(seed)
    events = stream(NUMBERS, 30)
    questions = [dataclasses.replace(e, y=None) for e in events]
    rng.shuffle(questions)
    labels = [Event(e.id, y=e.y) for e in events]
    rng.shuffle(labels)
    engine = Engine(small(NUMBERS))
    outputs = run(engine, [*questions, *labels])
    assert [o.id for o in of(Scored, outputs)] == [e.id for e in labels]
    truths = {e.id: e.y for e in events}
    assert all(o.truth == truths[o.id] for o in of(Scored, outputs))
    assert not of(Rejected, outputs)


def test_a_label_that_comes_before_its_question_is_counted_and_may_come_again():
    engine = Engine(small(CLASSES))
    (early,) = run(engine, [Event("a", y="up")])
    assert (early.reason, early.stage) == ("unknown_label", "join")
    outputs = run(engine, [Event("a", {"v": 1.0}), Event("a", y="up")])
    assert len(of(Scored, outputs)) == 1


def test_labels_that_meet_nobody_are_late_unknown_or_repeated_also_after_a_restart():
    engine = Engine(small(CLASSES, label_ttl=10.0))
    run(
        engine,
        [
            Event("answered", {"v": 1.0}, "up", ts=0.0),
            Event("expired", {"v": 1.0}, ts=0.0),
            Event("next", {"v": 1.0}, "up", ts=11.0),
        ],
    )
    metrics = Metrics("m", "classification")
    resumed = Engine.restore(engine.config, engine.snapshot())
    for one in (engine, resumed):
        before = image(one)
        outputs = run(one, [Event(n, y="up") for n in ("answered", "expired", "stranger")])
        assert [(o.id, o.reason) for o in of(Rejected, outputs)] == [
            ("answered", "duplicate_label"),
            ("expired", "late_label"),
            ("stranger", "unknown_label"),
        ]
        assert image(one) == before
        metrics.record(outputs)
    get = metrics.registry.get_sample_value
    for reason in ("duplicate", "late", "unknown"):
        assert get("streammeta_labels_unmatched_total", {"reason": reason}) == 2


def test_a_late_label_is_learned_with_the_features_and_the_answer_of_its_question():
    engine = Engine(small(NUMBERS))
    run(engine, stream(NUMBERS, 20))
    lags = engine.state.lags[0].copy()
    (said,) = of(Predicted, run(engine, [Event("q", {"a": 7.5, "b": -1.0, "c": "red"})]))
    run(engine, [dataclasses.replace(e, id=f"m{i}") for i, e in enumerate(stream(NUMBERS, 9))])
    (scored,) = of(Scored, run(engine, [Event("q", y=3.0)]))
    assert (scored.prediction, scored.row, scored.delay) == (said.prediction, said.row, 9)
    raw, y = engine.state.segment_rows.newest(0, 1)
    columns = engine.state.columns
    assert raw[0, columns.numeric["a"]] == 7.5
    assert raw[0, columns.width :].tolist() == lags[:2].tolist()  # the labels that were known then
    assert y.tolist() == [3.0]


# -- clocks ------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(times=st.lists(st.floats(0, 100), min_size=30, max_size=30))
def test_a_clock_that_goes_back_lets_nothing_expire_before_its_time(times):
    """Event time is that of the newest event: questions that are older by the clock still get the
    whole of what is left until it has moved on by their time to live."""
    engine = Engine(small(CLASSES, label_ttl=100.0))
    events = [dataclasses.replace(e, ts=t) for e, t in zip(stream(CLASSES, 30), times, strict=True)]
    outputs = run(engine, late(events, 9))
    outputs += run(engine, [Event(e.id, y=e.y, ts=0.0) for e in events[21:]])
    assert len(of(Scored, outputs)) == 30
    assert not of(LabelExpired, outputs)


def test_a_time_that_no_clock_can_say_does_not_let_everything_expire():
    engine = Engine(small(CLASSES, label_ttl=10.0))
    outputs = run(
        engine,
        [
            Event("a", {"v": 1.0}, ts=0.0),
            Event("b", {"v": 1.0}, ts=1e300),
            Event("a", y="up", ts=1.0),
        ],
    )
    assert [o.id for o in of(Scored, outputs)] == ["a"]
    assert engine.state.last_ts == 1.0


def test_a_paced_run_on_a_clock_that_stands_still_or_jumps_takes_every_event_once():
    class Jumps(FakeClock):
        def now(self) -> float:
            return super().now() - (50.0 if 3.0 < super().now() < 9.0 else 0.0)

    sink = ListSink(["predicted"])
    host = ShardHost(IterableSource(lambda: rows(500), "s"), RunningMean, MemoryStore(), [sink])
    host.open()
    run_local(host, pace="50/s", clock=Jumps(), commit_seconds=1.0)
    assert [o.id for o in sink.outputs] == [f"e{i}" for i in range(500)]
