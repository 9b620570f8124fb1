"""Kafka against librdkafka's mock cluster: offsets in the commits, gaps, brokers that are gone."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import kafkas
import pytest
import servers
from running_mean import RunningMean

from streammeta.config_file import load_config
from streammeta.errors import ConfigError, SinkError, SourceError, UsageError
from streammeta.events import Event, Predicted
from streammeta.runtime import ShardHost, run_local
from streammeta.sinks import ListSink
from streammeta.sinks.kafka import KafkaSink
from streammeta.sources.kafka import KafkaSource
from streammeta.store import MemoryStore
from streammeta.testing import FakeClock, read_all, sample_outputs

BIG = b'{"a": 1, "y": 1, "text": "' + b"x" * 10_000 + b'"}'


@pytest.fixture
def cluster() -> Iterator[kafkas.Cluster]:
    running = kafkas.Cluster()
    yield running
    running.end()


@pytest.fixture
def source(cluster) -> Iterator[Callable[..., KafkaSource]]:
    made = []

    def make(**options) -> KafkaSource:
        made.append(KafkaSource(cluster.servers, "t", **{"target": "y", **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def numbers(events: list[Event]) -> list[float]:
    return [event.x["a"] for event in events]


def test_messages_become_events_with_the_key_and_the_time_of_their_message(cluster, source):
    cluster.produce("t", [b'{"id": "q", "x": {"a": 1}}', b'{"a": '], key="s1")
    cluster.produce("t", [b'{"id": "q", "ts": 7, "key": "own", "y": "spam"}'], key="s1")
    made = source(target=None, message_key=True)
    events, position = read_all(made, made.start(), 3)
    assert [(e.id, e.key, e.y) for e in events] == [
        ("q", "s1", None), ("t:0:1", "s1", None), ("q", "own", "spam"),
    ]  # fmt: skip
    assert events[1].error[1].startswith("t partition 0 offset 1: not JSON")
    assert events[0].ts > 1.7e9
    assert events[2].ts == 7.0
    assert position["offsets"]["0"] == 3


def test_partitions_are_read_side_by_side_each_in_its_order(cluster, source):
    for partition in range(3):
        cluster.fill("t", 40, first=100 * partition, partition=partition)
    made = source()
    half, position = [], made.start()
    while len(half) < 60:
        events, position = made.read(position, 60 - len(half))
        half += events
    made.close()
    rest, end = read_all(source(), position, 60)
    for partition in range(3):
        prefix = f"t:{partition}:"
        mine = [e for e in [*half, *rest] if e.id.startswith(prefix)]
        assert [e.id for e in mine] == [f"{prefix}{i}" for i in range(40)]
        assert numbers(mine) == [100.0 * partition + i for i in range(40)]
    assert end == {"offsets": {"0": 40, "1": 40, "2": 40, "3": 0}}


def test_begin_latest_is_the_moment_of_the_first_read_and_the_lag_is_known(cluster, source):
    cluster.fill("t", 5)
    made = source(begin="latest")
    assert made.read(made.start(), 9)[0] == []
    cluster.fill("t", 2, first=5)
    assert numbers(read_all(made, made.start(), 2)[0]) == [5, 6]
    assert made.status() == ("", 0, 0)


@pytest.mark.parametrize(("on_gap", "rest"), [("earliest", [1, 77]), ("latest", [77])])
def test_messages_that_retention_removed_are_a_gap(cluster, source, on_gap, rest):
    cluster.fill("t", 10)
    _, position = read_all(source(), {"offsets": {}}, 10)
    cluster.produce("t", [BIG] * 1000)  # the mock broker keeps five megabytes
    fails = source()
    with pytest.raises(SourceError, match=r"t: partition 0: \d+ messages from 10 on were removed"):
        fails.read(position, 1)
    made = source(on_gap=on_gap)
    _, after = made.read(position, 0)
    assert made.status().gaps == 1
    cluster.fill("t", 1, first=77)
    left = 1010 - after["offsets"]["0"]
    assert (left == 0) == (on_gap == "latest")
    events, _ = read_all(made, after, left + 1, n=100)
    assert [numbers(events)[0], numbers(events)[-1]] == [rest[0], 77]


def test_messages_removed_while_we_read_are_a_gap_too(cluster, source):
    cluster.produce("t", [BIG] * 400)
    made = source(queue=1, on_gap="earliest", properties=["fetch.message.max.bytes=200000"])
    read, position = [], made.start()
    while len(read) < 5:
        events, position = made.read(position, 5 - len(read))
        read += events
    cluster.produce("t", [BIG] * 700)
    while read[-1].id != "t:0:1099":
        events, position = made.read(position, 100)
        read += events
    offsets = [int(e.id.rpartition(":")[2]) for e in read]
    assert offsets == sorted(set(offsets))
    assert made.status().gaps == 1
    assert len(offsets) < 1100


def test_a_topic_that_was_made_anew_is_a_gap(cluster, source):
    cluster.fill("t", 3)
    with pytest.raises(SourceError, match="it ends at 3, we have read up to 9: was the topic made"):
        source().read({"offsets": {"0": 9}}, 1)


def test_brokers_that_are_gone_give_nothing_and_in_the_end_the_error_for_69(cluster, source):
    clock = FakeClock()
    cluster.fill("t", 3)
    made = source(clock=clock, give_up_after=20.0)
    _, position = read_all(made, made.start(), 3)
    cluster.end()
    while not made.status().fault:
        assert made.read(position, 9) == ([], position)
    assert "kafka topic 't': cannot be reached" in made.status().fault
    clock.sleep(25)
    with pytest.raises(SourceError, match=r"cannot be reached: .*\(for 25 s\)") as told:
        made.read(position, 9)
    assert told.value.exit_code == 69


def test_a_topic_that_nobody_has_made_is_waited_for():
    lonely = kafkas.Cluster()
    made = KafkaSource(lonely.servers, "later", target="y")
    assert made.read(made.start(), 1)[0] == []
    assert "Unknown topic" in made.status().fault
    lonely.fill("later", 2)
    assert numbers(read_all(made, made.start(), 2)[0]) == [0, 1]
    assert made.status().fault == ""
    made.close()
    lonely.end()


def test_a_run_killed_in_the_middle_learns_every_message_once(cluster, source):
    cluster.fill("t", 300)
    store, sink = MemoryStore(), ListSink()

    def host(store, sink) -> ShardHost:
        made = ShardHost(source(), RunningMean, store, [sink], commit_every=40)
        made.open()
        return made

    for _ in range(3):
        killed, enough = host(store, sink), store_events(store) + 70
        while killed.statistics().events < enough:
            killed.poll(33)
        killed.drop()  # as by kill -9
    run_local(host(store, sink), max_events=300 - store_events(store))
    whole, wholly = MemoryStore(), ListSink()
    run_local(host(whole, wholly), max_events=300)
    assert store.latest(0).snapshot.to_bytes() == whole.latest(0).snapshot.to_bytes()
    assert sink.outputs == wholly.outputs
    asked = [output.id for output in sink.outputs if isinstance(output, Predicted)]
    assert asked == [f"t:0:{i}" for i in range(300)]


def store_events(store: MemoryStore) -> int:
    record = store.latest(0)
    return record.events if record else 0


def test_a_sink_sends_at_once_and_a_flush_waits_for_the_brokers(cluster):
    sink = KafkaSink(cluster.servers, "out", ["predicted", "rejected"])
    sink.check()
    assert not sink.durable
    sink.open(None)
    assert sink.write(sample_outputs()) == 5
    sink.flush()
    found = sorted(cluster.messages("out"), key=lambda each: each[1]["id"])
    assert [(key, record["id"]) for key, record in found] == [
        ("k", "s:0:0"), ("k", "s:0:1"), ("k", "s:0:2"), ("s:0:3", "s:0:3"), ("s:0:4", "s:0:4"),
    ]  # fmt: skip
    sink.close()
    sink.close()


def test_a_sink_whose_brokers_are_gone_is_an_error_at_the_flush(cluster):
    sink = KafkaSink(cluster.servers, "out", give_up_after=3.0)
    sink.open(None)
    sink.write(sample_outputs())
    sink.flush()
    cluster.end()
    sink.write(sample_outputs())
    with pytest.raises(SinkError, match=r"'out': .*(timed out|Timed out|acknowledged)") as told:
        sink.flush()
    assert told.value.exit_code == 69
    sink._producer = None
    never = KafkaSink(f"127.0.0.1:{servers.free_port()}", "out")
    with pytest.raises(SinkError, match="cannot be reached"):
        never.check()


def test_a_config_says_what_is_wrong_and_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "c.toml"
    path.write_text('[source]\nkind = "kafka"\nservers = "h:1"\ntopc = "t"\n')
    with pytest.raises(ConfigError) as fault:
        load_config(path, environment={})
    told = str(fault.value).replace(str(path), path.name)
    assert "c.toml:1: source.topic: is missing, source 'kafka' needs it" in told
    assert "c.toml:4: source.topc: there is no such field; did you mean 'topic'?" in told
    with pytest.raises(UsageError, match="expected texts like security"):
        KafkaSource("h:1", "t", properties=["secret"])
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    for make in (KafkaSource, KafkaSink):
        with pytest.raises(UsageError, match=r"pip install streammeta\[kafka\]"):
            make("h:1", "t")
