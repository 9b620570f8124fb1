"""NATS JetStream against a real server: a bounded queue, gaps, outages, nothing lost or doubled."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import servers
from jetstreams import Streams
from nats.js.api import StorageType
from outage_stories import Mends, killed_server_and_killed_run

from streammeta.config_file import load_config
from streammeta.errors import ConfigError, SinkError, SourceError, UsageError
from streammeta.events import Event
from streammeta.sinks.jetstream import JetStreamSink
from streammeta.sources.jetstream import JetStreamSource
from streammeta.sources.nats_link import Loop
from streammeta.testing import FakeClock, read_all, sample_outputs

PATIENCE = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = servers.Nats(tmp_path_factory.mktemp("nats"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def streams(server) -> Streams:
    return Streams(server.url)


@pytest.fixture
def stream(streams) -> Iterator[str]:
    streams.make("s")
    yield "s"
    streams.drop("s")


@pytest.fixture
def source(server, stream) -> Iterator[Callable[..., JetStreamSource]]:
    made = []

    def make(**options) -> JetStreamSource:
        made.append(JetStreamSource(server.url, stream, **{"target": "y", **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def numbers(events: list[Event]) -> list[float]:
    return [event.x["a"] for event in events]


def until(true: Callable[[], bool]) -> None:
    """A thread or a server has to come round to it."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def test_the_queue_is_bounded_however_far_behind_the_reader_is(streams, source):
    streams.fill("s", 200)
    reader = source(queue=16)
    events, position = reader.read(reader.start(), 5)
    most, read = 0, events
    while len(read) < 200:
        until(lambda: bool(reader._pump.queue))
        most = max(most, len(reader._pump.queue))
        events, position = reader.read(position, 3)
        read += events
    assert numbers(read) == list(range(1, 201))
    assert 0 < most <= 16
    assert reader.status() == ("", 0, 0)


def test_messages_of_one_subject_and_envelopes_and_bad_ones(streams, source):
    streams.publish("s.a", [b'{"id": "q", "x": {"a": 1}}', b'{"a": '])
    streams.publish("s.b", [b'{"id": "other", "x": {"a": 2}}'])
    streams.publish("s.a", [b'{"id": "q", "ts": 7, "y": "spam"}'])
    reader = source(subject="s.a", target=None)
    events, position = read_all(reader, reader.start(), 3)
    assert [(e.id, e.x, e.y) for e in events] == [
        ("q", {"a": 1.0}, None), ("s:0:2", None, None), ("q", None, "spam"),
    ]  # fmt: skip
    assert events[1].error == ("malformed", "s message 2: not JSON: Expecting value (character 7)")
    assert (events[2].ts, position) == (7.0, {"seq": 4})
    assert events[0].ts > 1.7e9  # the time of arrival in the stream


def test_begin_latest_is_the_moment_of_the_first_read(streams, source):
    streams.fill("s", 5)
    reader = source(begin="latest")
    until(lambda: reader.read(reader.start(), 9)[1] == {"seq": 5})
    streams.fill("s", 2, first=6)
    assert numbers(read_all(reader, reader.start(), 2)[0]) == [6, 7]


@pytest.mark.parametrize(("on_gap", "rest"), [("earliest", [8, 9, 10, 11]), ("latest", [11])])
def test_messages_removed_before_they_were_read_are_a_gap(streams, source, on_gap, rest):
    streams.fill("s", 10)
    streams.purge("s", before=8)
    reader = source(on_gap=on_gap)
    places = []
    until(lambda: places.append(reader.read({"seq": 4}, 9)) or reader.status().gaps == 1)
    assert places[-1] == ([], {"seq": rest[0] - 1})
    streams.fill("s", 1, first=11)
    assert numbers(read_all(reader, places[-1][1], len(rest))[0]) == rest
    fails = source()
    with pytest.raises(SourceError, match=r"up to 3 messages after 4 were removed .*on_gap = \"e"):
        read_all(fails, {"seq": 4}, 1)


def test_what_was_read_may_be_removed(streams, source):
    streams.fill("s", 10)
    streams.purge("s", before=7)
    assert numbers(read_all(source(), {"seq": 6}, 4)[0]) == [7, 8, 9, 10]


def test_messages_that_expire_while_we_read_are_a_gap_too(streams, server):
    streams.make("short", max_msgs=20, storage=StorageType.MEMORY)
    streams.fill("short", 20)
    reader = JetStreamSource(server.url, "short", target="y", queue=4, on_gap="earliest")
    events, position = [], reader.start()
    while len(events) < 2:
        batch, position = reader.read(position, 1)
        events += batch
    until(lambda: len(reader._pump.queue) == 4)
    streams.fill("short", 30, first=21)  # 1 to 30 are gone; some of them wait in our queue
    while not events or events[-1].x["a"] < 50:
        batch, position = reader.read(position, 7)
        events += batch
    read = numbers(events)
    assert reader.status().gaps == 1
    assert read == [*range(1, read.index(31) + 1), *range(31, 51)]
    reader.close()
    streams.drop("short")


def test_a_stream_that_was_made_anew_is_a_gap(streams, source):
    streams.fill("s", 3)
    with pytest.raises(SourceError, match="the stream was made anew: it ends at 3, we have read 9"):
        read_all(source(), {"seq": 9}, 1)
    goes_on = source(on_gap="earliest")
    until(lambda: goes_on.read({"seq": 9}, 1) and goes_on.status().gaps == 1)
    assert numbers(read_all(goes_on, {"seq": 0}, 3)[0]) == [1, 2, 3]


def test_a_stream_that_nobody_has_made_yet_is_waited_for(streams, server):
    reader = JetStreamSource(server.url, "later", target="y")
    assert reader.read(reader.start(), 1)[0] == []
    until(lambda: "stream not found" in reader.status().fault)
    streams.make("later")
    streams.fill("later", 2)
    assert numbers(read_all(reader, reader.start(), 2)[0]) == [1, 2]
    assert reader.status().fault == ""
    reader.close()
    streams.drop("later")


def test_a_server_that_never_comes_is_given_up_with_the_error_for_69():
    reader = JetStreamSource(
        f"nats://127.0.0.1:{servers.free_port()}", "s", target="y", give_up_after=0.2
    )
    with pytest.raises(SourceError, match=r"'s': cannot be reached: .*\(for \d+ s\)") as told:
        read_all(reader, reader.start(), 1, patience=PATIENCE)
    assert told.value.exit_code == 69
    reader.close()


def test_a_server_that_refuses_us_is_told_at_once(tmp_path):
    own = servers.Nats(tmp_path, "--user", "u", "--pass", "secret")
    own.start()
    try:
        reader = JetStreamSource(own.url, "s", target="y")
        with pytest.raises(SourceError, match="Authorization Violation"):
            read_all(reader, reader.start(), 1, patience=PATIENCE)
        reader.close()
        sink = JetStreamSink(own.url.replace("//", "//u:wrong@"), "s", "s.out")
        with pytest.raises(SinkError, match="Authorization Violation") as told:
            sink.open(None)
        assert "wrong" not in str(told.value)
        sink.close()
    finally:
        own.kill()


def test_a_server_killed_in_mid_run_and_a_run_killed_with_it_lose_and_double_nothing(tmp_path):
    own = servers.Nats(tmp_path)
    own.start()
    streams = Streams(own.url)
    streams.make("s")
    try:
        ids = killed_server_and_killed_run(
            own,
            lambda: JetStreamSource(own.url, "s", target="y", queue=50),
            lambda n, first: streams.fill("s", n, first),
        )
    finally:
        own.kill()
    assert ids == [f"s:0:{i}" for i in range(1, 701)]


def rows_on(streams: Streams, subject: str) -> list[int]:
    return [json.loads(line)["row"] for line in streams.messages(subject.split(".")[0], subject)]


def test_a_sink_waits_for_its_server_and_writes_everything_once(tmp_path):
    own = servers.Nats(tmp_path)
    own.start()
    streams, clock = Streams(own.url), Mends(own)
    try:
        sink = JetStreamSink(own.url, "out", "out.p", ["predicted"], clock=clock)
        sink.check()
        sink.open(None)  # makes the stream
        sink.write(sample_outputs())
        own.kill()
        assert sink.write(sample_outputs(first=10)) == 4
        assert clock.slept > 0
        assert rows_on(streams, "out.p") == [0, 1, 2, 3, 10, 11, 12, 13]
        # as if the answers to the last batch had been lost on their way
        sink._records, sink._seq = 4, 4
        sink.write(sample_outputs(first=10))
        assert rows_on(streams, "out.p") == [0, 1, 2, 3, 10, 11, 12, 13]
        sink.close()
        sink.close()
    finally:
        own.kill()


def test_a_second_writer_is_noticed(streams, server, stream):
    one = JetStreamSink(server.url, stream, "s.out", ["predicted"])
    other = JetStreamSink(server.url, stream, "s.out", ["predicted"])
    one.open(None)
    one.write(sample_outputs())
    other.open(one.position())
    other.write(sample_outputs(first=10))
    with pytest.raises(SinkError, match="somebody else has written to it, at 8"):
        one.write(sample_outputs(first=20))
    one.close()
    other.close()


def test_readers_of_the_sink_see_a_record_once_though_it_is_delivered_twice(
    streams, server, stream
):
    sink = JetStreamSink(server.url, stream, "s.out", ["predicted"])
    sink.open(None)
    sink.write(sample_outputs())
    here = sink.position()
    sink.write(sample_outputs(first=4))
    streams.fill("s", 2)  # on another subject of the same stream
    again = JetStreamSink(server.url, stream, "s.out", ["predicted"])
    again.open(here)
    again.write(sample_outputs(first=4)[:5])
    again.write([*sample_outputs(first=4)[5:], *sample_outputs(first=8)])
    assert rows_on(streams, "s.out") == list(range(12))
    assert again.position() == {"records": 12, "seq": 14}
    short = JetStreamSink(server.url, stream, "s.out", ["predicted"])
    with pytest.raises(SinkError, match="its stream ends at 14, the commit knows 99"):
        short.open({"records": 50, "seq": 99})
    for each in (sink, again, short):
        each.close()


def test_a_sink_gives_up_in_the_end_and_at_once_when_it_is_only_tried():
    clock = FakeClock()
    url = f"nats://127.0.0.1:{servers.free_port()}"
    sink = JetStreamSink(url, "out", "out", give_up_after=20.0, clock=clock)
    with pytest.raises(SinkError, match="cannot be reached"):
        sink.check()
    assert clock.slept == 0.0
    with pytest.raises(SinkError, match=r"\(for 2\d s\)") as told:
        sink.open(None)
    assert told.value.exit_code == 69
    sink.close()


def test_closing_ends_what_forgets_that_it_was_cancelled():
    asked = []

    async def forgetful() -> None:
        while len(asked) < 2:  # as wait_for before Python 3.12, in a race
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                asked.append("to end")

    loop = Loop("forgetful")
    loop.start(forgetful())
    closing = threading.Thread(target=loop.close, daemon=True)
    closing.start()
    closing.join(PATIENCE / 2)
    assert not closing.is_alive()
    assert asked == ["to end"] * 2


def test_a_config_says_what_is_wrong(tmp_path):
    path = tmp_path / "c.toml"
    text = '[source]\nkind = "nats"\nurl = "nats://x:1"\nstream = "s"\nqueue = 0\nsubjct = "a"\n'
    path.write_text(text)
    with pytest.raises(ConfigError) as fault:
        load_config(path, environment={})
    told = str(fault.value).replace(str(path), path.name)
    assert "c.toml:5: source.queue: input should be greater than or equal to 1 (got 0)" in told
    assert "c.toml:6: source.subjct: there is no such field; did you mean 'subject'?" in told


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(UsageError, match=r"pip install streammeta\[nats\]"):
        JetStreamSource("nats://127.0.0.1", "s")
    with pytest.raises(UsageError, match=r"pip install streammeta\[nats\]"):
        JetStreamSink("nats://127.0.0.1", "s", "t")
    monkeypatch.undo()
    with pytest.raises(UsageError, match="no address of a NATS server"):
        JetStreamSource("localhost", "s")
