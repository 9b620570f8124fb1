"""Every source and every sink goes through one contract: a new one is one row in a table here."""

from __future__ import annotations

import json
import os
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import jetstreams
import kafkas
import pytest
import servers
from mqtt_clients import publish, subscribed

from streammeta import registry
from streammeta.events import KINDS, Event
from streammeta.sinks import JsonlSink, ListSink, Sink
from streammeta.sinks.jetstream import JetStreamSink
from streammeta.sinks.parquet import ParquetSink
from streammeta.sinks.redis_stream import RedisStreamSink
from streammeta.sinks.sqlite import SqliteSink
from streammeta.sinks.webhook import WebhookSink
from streammeta.sources import FileSource, FrameSource, IterableSource, Source
from streammeta.sources.follow import FollowedFile
from streammeta.sources.http_push import HttpSource
from streammeta.sources.jetstream import JetStreamSource
from streammeta.sources.kafka import KafkaSource
from streammeta.sources.mqtt import MqttSource
from streammeta.sources.redis_stream import RedisStreamSource
from streammeta.sources.sse import SseSource
from streammeta.sources.stdin import StdinSource
from streammeta.sources.websocket import WebSocketSource
from streammeta.testing import Held, check_sink, check_source, read_all

N = 23
ROWS = [{"a": i / 4, "day": "mon" if i % 2 else "tue", "y": i % 5} for i in range(N)]
LINES = [json.dumps(row).encode() for row in ROWS]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory):
    server = servers.Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory):
    server = servers.Nats(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def mosquitto_server(tmp_path_factory):
    server = servers.Mosquitto(tmp_path_factory.mktemp("mosquitto"))
    server.start()
    yield server
    server.kill()


@dataclass
class Place:
    """Where a source or a sink of the table lives; ``server`` starts a server at need."""

    folder: Path
    server: Callable[[str], servers.Server]
    opened: ExitStack


@pytest.fixture
def place(tmp_path, request) -> Iterator[Place]:
    with ExitStack() as opened:
        yield Place(tmp_path, lambda name: request.getfixturevalue(f"{name}_server"), opened)


def csv_file(place: Place) -> Callable[[], Source]:
    path = place.folder / "rows.csv"
    path.write_text("a,day,y\n" + "".join(f"{r['a']},{r['day']},{r['y']}\n" for r in ROWS))
    return lambda: FileSource(path, target="y")


def jsonl_file(place: Place) -> Callable[[], Source]:
    path = place.folder / "rows.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in LINES))
    return lambda: FileSource(path, target="y")


def parquet_file(place: Place) -> Callable[[], Source]:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(ROWS), place.folder / "rows.parquet")
    return lambda: FileSource(place.folder / "rows.parquet", target="y")


def iterable(place: Place) -> Callable[[], Source]:
    rows = [({k: v for k, v in row.items() if k != "y"}, row["y"]) for row in ROWS]
    return lambda: IterableSource(lambda: rows, "rows")


def redis_stream(place: Place) -> Callable[[], Source]:
    import redis

    server = place.server("redis")
    with redis.Redis.from_url(server.url) as client:
        for line in LINES:
            client.xadd(place.folder.name, {"data": line})
    return lambda: RedisStreamSource(server.url, place.folder.name, target="y")


def followed_csv(place: Place) -> Callable[[], Source]:
    csv_file(place)
    return lambda: FollowedFile(place.folder / "rows.csv", target="y")


def followed_jsonl(place: Place) -> Callable[[], Source]:
    path = place.folder / "rows.jsonl"
    path.with_name("rows.jsonl.1").write_bytes(b"\n".join(LINES[:10]))
    path.write_bytes(b"\n".join(LINES[10:]) + b'\n{"a": 5, "half a line')
    old = path.with_name("rows.jsonl.1").stat()
    begin = {"inode": old.st_ino, "head": [0, ""]}

    class FromTheOldOne(FollowedFile):
        def start(self):
            return {**begin, "offset": 0, "line": 0, "row": 0}

    return lambda: FromTheOldOne(path, target="y")


def frame(place: Place) -> Callable[[], Source]:
    import pandas as pd

    rows = pd.DataFrame(ROWS)
    return lambda: FrameSource(rows, target="y")


def sse(place: Place) -> Callable[[], Source]:
    feed = fed(place, "sse", "resumes")
    return lambda: SseSource(feed.url(), str(place.folder / "journal"), target="y")


def websocket(place: Place) -> Callable[[], Source]:
    feed = fed(place, "websocket", "forgets")
    make = lambda: WebSocketSource(feed.url(), str(place.folder / "journal"), target="y")  # noqa: E731
    first = make()
    read_all(first, first.start(), N)
    first.close()
    return make


def fed(place: Place, protocol: str, how: str) -> servers.Feed:
    feed = servers.Feed(place.folder, protocol, how)
    feed.say(*(["data", line.decode()] for line in LINES))
    feed.start()
    place.opened.callback(feed.kill)
    return feed


def stdin(place: Place) -> Callable[[], Source]:
    path = place.folder / "pipe"
    path.write_bytes(b"\n".join(LINES))
    pipes = iter([path])  # the first process has it, those after it an ended one

    def make() -> Source:
        pipe = next(pipes, Path(os.devnull))
        stream = place.opened.enter_context(pipe.open("rb"))
        return StdinSource(str(place.folder / "journal"), target="y", stream=stream)

    return make


def http(place: Place) -> Callable[[], Source]:
    make = lambda: HttpSource(str(place.folder / "journal"), port=0, target="y")  # noqa: E731
    source = make()
    source.read(source.start(), 0)
    for part in (LINES[:20], LINES[20:]):
        with urllib.request.urlopen(source.address, b"\n".join(part)) as answer:
            assert json.load(answer)["accepted"] == len(part)
    source.close()
    return make


def mqtt(place: Place) -> Callable[[], Source]:
    server = place.server("mosquitto")

    def make() -> MqttSource:
        where, name = str(place.folder / "journal"), place.folder.name
        return MqttSource("127.0.0.1", "rows/#", name, where, port=server.port, target="y")

    first = subscribed(make())
    publish(server.port, LINES, "rows/a")
    read_all(first, first.start(), N)
    first.close()
    return make


def kafka(place: Place) -> Callable[[], Source]:
    cluster = kafkas.Cluster()
    place.opened.callback(cluster.end)
    cluster.produce("rows", LINES)
    return lambda: KafkaSource(cluster.servers, "rows", target="y")


def jetstream(place: Place) -> Callable[[], Source]:
    server = place.server("nats")
    streams = jetstreams.Streams(server.url)
    streams.make("rows")
    streams.publish("rows.a", LINES)
    return lambda: JetStreamSource(server.url, "rows", target="y")


SOURCES = {
    "csv": csv_file,
    "jsonl": jsonl_file,
    "parquet": parquet_file,
    "iterable": iterable,
    "frame": frame,
    "followed csv": followed_csv,
    "followed jsonl": followed_jsonl,
    "stdin": stdin,
    "http": http,
    "sse": sse,
    "websocket": websocket,
    "mqtt": mqtt,
    "redis": redis_stream,
    "nats": jetstream,
    "kafka": kafka,
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_keeps_the_contract_and_brings_the_rows_as_they_are(name, place):
    events = check_source(SOURCES[name](place), N)
    assert [(e.x, e.y) for e in events] == [({"a": r["a"], "day": r["day"]}, r["y"]) for r in ROWS]
    assert all(type(event.y) is int for event in events)


def jsonl_sink(place: Place) -> tuple[Callable[[], Sink], Callable[[], Held]]:
    path = place.folder / "out.jsonl"
    return lambda: JsonlSink(path), lambda: [mark(line) for line in path.read_text().splitlines()]


def list_sink(place: Place) -> tuple[Callable[[], Sink], Callable[[], Held]]:
    from streammeta.testing import identity

    sink = ListSink()
    return lambda: sink, lambda: [identity(output) for output in sink.outputs]


def redis_sink(place: Place) -> tuple[Callable[[], Sink], Callable[[], Held]]:
    import redis

    server, key = place.server("redis"), place.folder.name

    def held() -> Held:
        with redis.Redis.from_url(server.url) as client:
            return [mark(fields[b"data"]) for _, fields in client.xrange(key)]

    return lambda: RedisStreamSink(server.url, key), held


def jetstream_sink(place: Place) -> tuple[Callable[[], Sink], Callable[[], Held]]:
    server = place.server("nats")
    streams = jetstreams.Streams(server.url)
    streams.make("mixed")
    streams.fill("mixed", 3)  # others publish to the same stream
    make = lambda: JetStreamSink(server.url, "mixed", "mixed.out")  # noqa: E731
    return make, lambda: [mark(line) for line in streams.messages("mixed", "mixed.out")]


def sqlite_sink(place: Place) -> tuple[Callable[[], Sink], Callable[[], Held]]:
    path = place.folder / "out.db"

    def held() -> Held:
        found = []
        with closing(sqlite3.connect(path)) as db:
            db.row_factory = sqlite3.Row
            for kind in KINDS:
                for row in map(dict, db.execute(f"SELECT * FROM {kind}")):
                    found.append((row["record"], (kind, row.get("id", ""), row.get("row"))))
        return [each for _, each in sorted(found)]

    return lambda: SqliteSink(path), held


def parquet_sink(place: Place) -> tuple[Callable[[], Sink], Callable[[], Held]]:
    from pyarrow import parquet

    path = place.folder / "out"

    def held() -> Held:
        found = []
        for kind in KINDS:
            for part in (path / kind).glob("*.parquet"):
                for row in parquet.read_table(part, partitioning=None).to_pylist():
                    found.append((row["record"], (kind, row.get("id", ""), row.get("row"))))
        return [each for _, each in sorted(found)]

    return lambda: ParquetSink(path), held


def webhook(place: Place) -> tuple[Callable[[], Sink], Callable[[], Held]]:
    receiver = servers.Receiver(place.folder)
    receiver.start()
    place.opened.callback(receiver.kill)
    held = lambda: [mark(json.dumps(record)) for record in receiver.held()]  # noqa: E731
    return lambda: WebhookSink(receiver.url, announce=True), held


def mark(line: str | bytes) -> tuple[str, str, int | None]:
    record = json.loads(line)
    return record["kind"], record.get("id", ""), record.get("row")


SINKS = {
    "jsonl": jsonl_sink,
    "list": list_sink,
    "sqlite": sqlite_sink,
    "parquet": parquet_sink,
    "redis": redis_sink,
    "nats": jetstream_sink,
    "webhook": webhook,
}


@pytest.mark.parametrize("name", SINKS)
def test_a_durable_sink_keeps_the_contract(name, place):
    check_sink(*SINKS[name](place))


def test_whatever_is_in_the_registry_is_in_a_table_here():
    files = {"csv", "jsonl", "parquet"}
    followed = {"followed csv", "followed jsonl"}
    named = (SOURCES.keys() - files - followed) | {"file", "follow"}
    assert registry.components("sources").keys() == named
    not_durable, part_of_jsonl = {"stdout", "kafka"}, {"dead_letter"}
    assert registry.components("sinks").keys() == SINKS.keys() | not_durable | part_of_jsonl


@pytest.mark.parametrize("kind", ["sources", "sinks"])
def test_every_connector_tells_what_a_config_may_say(kind):
    for name, component in registry.components(kind).items():
        documented = component.load().__doc__
        if name in ("iterable", "frame"):  # take a function, and a table
            continue
        for setting in component.settings():
            if not setting.startswith("_"):
                assert f"{setting}:" in documented, f"{kind} {name}: {setting} is not documented"


class Broken(IterableSource):
    """A source with one fault, to see that the contract finds it."""

    fault = ""

    def read(self, position, n):
        if self.fault == "too many":
            n += 1
        events, after = super().read(position, n)
        if self.fault == "changes the position":
            position["emitted"] = -1
        if self.fault == "skips on resume" and position["emitted"] == 4 and n == 7:
            events = events[1:]
        if self.fault == "one id" and events:
            events = [Event("same", e.x, e.y) for e in events]
        if self.fault == "stuck":
            after = position
        if self.fault == "not JSON":
            after = {"emitted": after["emitted"], "seen": {1, 2}}
        return events, after

    def finished(self, position):
        return False if self.fault == "never finished" else super().finished(position)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("too many", "gave 8 events"),
        ("changes the position", "changed the position"),
        ("skips on resume", "resumed after 4 events it went on differently|then no more"),
        ("one id", "two events have one id"),
        ("stuck", "after 23 events came|one by one"),
        ("not JSON", "JSON"),
        ("never finished", "not finished after the last event"),
    ],
)
def test_the_contract_finds_a_broken_source(fault, told, place):
    def make() -> Source:
        source = Broken(lambda: [({"a": float(i)}, i) for i in range(N)], "b")
        source.fault = fault
        return source

    with pytest.raises((AssertionError, TypeError), match=told):
        check_source(make, N, patience=0.0)


class Doubling(JsonlSink):
    """Forgets to cut off what a crash left."""

    def open(self, resume_at):
        super().open(resume_at if resume_at is None else {"bytes": self.path.stat().st_size})


def test_the_contract_finds_a_sink_that_doubles(place):
    path = place.folder / "out.jsonl"
    held = lambda: [mark(line) for line in path.read_text().splitlines()]  # noqa: E731
    with pytest.raises(AssertionError, match="opened at"):
        check_sink(lambda: Doubling(path), held)
