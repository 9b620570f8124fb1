"""Whatever comes over the wire: every record is an event or a dead letter with its place and the
reason, and the loop goes on."""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import kafkas
import pytest
import servers
from mqtt_clients import publish, subscribed
from test_soak import cheap

from streammeta.engine import Engine
from streammeta.events import Predicted, Rejected, Scored
from streammeta.metrics import Metrics
from streammeta.runtime import ShardHost
from streammeta.sinks import DeadLetterSink, JsonlSink, ListSink
from streammeta.sinks.sqlite import SqliteSink
from streammeta.sources import FileSource, Source
from streammeta.sources.follow import FollowedFile
from streammeta.sources.http_push import HttpSource
from streammeta.sources.jetstream import JetStreamSource
from streammeta.sources.kafka import KafkaSource
from streammeta.sources.mqtt import MqttSource
from streammeta.sources.redis_stream import RedisStreamSource
from streammeta.sources.stdin import StdinSource
from streammeta.store import MemoryStore

REASONS = {
    "malformed", "wrong_type", "not_finite", "missing_target", "duplicate_id", "unknown_label",
    "duplicate_label", "late_label", "too_long",
}  # fmt: skip
MEGABYTES = 10 * 2**20


def good(n: int) -> dict[str, Any]:
    return {"id": f"good-{n}", "x": {"a": n % 7 / 2, "b": n % 3}, "y": n % 2}


def value(rng: random.Random) -> str:
    """JSON of a value that nobody should send."""
    return rng.choice(
        [
            "1e400", "-1e400", "1e99", "NaN", "Infinity", "-Infinity", "-0.0", "1e-320",
            "9" * rng.choice([20, 400, 5000]), "null", "true", '""', '"NaN"', '" "', "[]", "{}",
            '[[["deep"]]]', '{"a": {"b": 1}}', '"\\u0000\\u0007\\u001b[31m"', '"\\ud800"',
            '"\\ud83d\\ude00"', '"\\u202e"', '"1_000"', '"0x10"', '"DROP TABLE predicted"',
            json.dumps("word" * rng.choice([1, 60, 5000])), str(rng.uniform(-1e6, 1e6)),
        ]
    )  # fmt: skip


def hostile(rng: random.Random) -> bytes:
    """One record: an envelope with something wrong in it, or nothing like one."""
    kind = rng.randrange(14)
    name = json.dumps(rng.choice(["a", "b", "new", "", "\u0000", "x" * 300, f"n{rng.random()}"]))
    if kind < 4:
        x = f'{{"a": 1.5, {name}: {value(rng)}}}'
        return f'{{"id": "h{rng.random()}", "x": {x}, "y": {value(rng)}}}'.encode()
    if kind == 4:
        return f'{{"id": {value(rng)}, "x": {{"a": 1}}, "y": 1}}'.encode()
    if kind == 5:
        return f'{{"id": "k{rng.random()}", "ts": {value(rng)}, "x": {{"a": 1}}}}'.encode()
    if kind == 6:
        return f'{{"id": "h", "y": {value(rng)}}}'.encode()
    if kind == 7:
        return f'{{"x": {{"a": 1, "a": 2, "a": {value(rng)}}}, "y": 0, "y": 1}}'.encode()
    if kind == 8:
        return value(rng).encode()
    if kind == 9:
        return b"[" * rng.choice([3, 2000, 100_000])
    if kind == 10:
        return b'{"x": ' * rng.choice([3, 2000]) + b"1"
    if kind == 11:
        return rng.randbytes(rng.randrange(1, 80)).translate(None, b"\n\r \t") or b"\xff"
    if kind == 12:
        whole = json.dumps(good(rng.randrange(9))).encode()
        return whole[: rng.randrange(1, len(whole))].strip()
    return b'{"id": "f", "x": 5, "unknown": {}}'


def records(n: int, seed: int, longest: int) -> list[bytes]:
    """1,000 good ones, by which a file is known; then every second one is hostile."""
    rng = random.Random(seed)
    lines = [json.dumps(good(i)).encode() for i in range(min(1000, n))]
    while len(lines) < n:
        lines.append(hostile(rng))
        lines.append(json.dumps(good(len(lines))).encode())
    big = "w" * longest
    for at, record in enumerate(
        [
            {"id": "big-1", "x": {"a": 1, "c": big}, "y": 1},
            {"id": big, "x": {"a": 1}, "y": 1},
            {"id": "big-2", "x": {big: 1}, "y": 1},
            {"id": "big-3", "x": {"a": 1}, "y": big},
            {"id": "big-4", "key": big, "x": {"a": 1}, "y": 1},
        ]
    ):
        lines[-1 - 2 * at] = json.dumps(record).encode()
    return lines


# -- every source that reads text --------------------------------------------------------------

Made = tuple[Source, Callable[[], None]]


def jsonl_file(folder: Path, lines: list[bytes], opened: ExitStack) -> Source:
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return FileSource(folder / "rows.jsonl")


def followed(folder: Path, lines: list[bytes], opened: ExitStack) -> Source:
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return FollowedFile(folder / "rows.jsonl")


def stdin(folder: Path, lines: list[bytes], opened: ExitStack) -> Source:
    path = folder / "pipe"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return StdinSource(
        str(folder / "journal"), queue=10**6, fsync="never",
        stream=opened.enter_context(open(path, "rb")),
    )  # fmt: skip


def http(folder: Path, lines: list[bytes], opened: ExitStack) -> Source:
    source = HttpSource(
        str(folder / "journal"), port=0, queue=10**6, fsync="never", max_bytes=2**30
    )
    source.read(source.start(), 0)
    for first in range(0, len(lines), 2000):
        body = b"\n".join(lines[first : first + 2000])
        with urllib.request.urlopen(source.address, body, timeout=60) as answer:
            assert answer.status == 200
    return source


def redis_stream(folder: Path, lines: list[bytes], opened: ExitStack) -> Source:
    import redis

    server = servers.Redis(folder)
    server.start()
    opened.callback(server.kill)
    with redis.Redis.from_url(server.url) as client:
        for line in lines:
            client.xadd("rows", {"data": line})
    return RedisStreamSource(server.url, "rows")


def nats(folder: Path, lines: list[bytes], opened: ExitStack) -> Source:
    import jetstreams

    server = servers.Nats(folder)
    server.start()
    opened.callback(server.kill)
    streams = jetstreams.Streams(server.url)
    streams.make("rows")
    streams.publish("rows.a", lines)
    return JetStreamSource(server.url, "rows")


def kafka(folder: Path, lines: list[bytes], opened: ExitStack) -> Source:
    cluster = kafkas.Cluster()
    opened.callback(cluster.end)
    cluster.produce("rows", lines)
    low, high = cluster.ends("rows")
    assert (low, high) == (0, len(lines)), "the mock cluster does not hold all of it"
    return KafkaSource(cluster.servers, "rows")


def mqtt(folder: Path, lines: list[bytes], opened: ExitStack) -> Source:
    server = servers.Mosquitto(folder)
    server.start()
    opened.callback(server.kill)
    source = subscribed(
        MqttSource("127.0.0.1", "plant/+", "us", str(folder / "j"), port=server.port, queue=10**6)
    )
    publish(server.port, lines)
    return source


#: A source, and the longest text that what carries it takes.
SOURCES: dict[str, tuple[Callable[[Path, list[bytes], ExitStack], Source], int]] = {
    "jsonl": (jsonl_file, MEGABYTES),
    "follow": (followed, MEGABYTES),
    "stdin": (stdin, MEGABYTES),
    "http": (http, MEGABYTES),
    "redis": (redis_stream, MEGABYTES),
    "mqtt": (mqtt, MEGABYTES),
    "nats": (nats, 900_000),  # a message of NATS is a megabyte at most
    "kafka": (kafka, 300_000),  # the mock cluster keeps five megabytes
}


PATIENCE = 60.0  # seconds without a record after which no more is waited for
#: Records of the long test: of files and pipes as many as are wanted, of brokers fewer; the mock
#: cluster holds no more.
LONG = {"jsonl": 100_000, "stdin": 100_000, "kafka": 2_000}


def through(source: Source, folder: Path, n: int) -> tuple[Metrics, ListSink, list[dict]]:
    """All of it, through an engine and into sinks of two kinds; the dead letters."""
    metrics, sink = Metrics("m", "classification"), ListSink(["predicted", "scored", "rejected"])
    letters = DeadLetterSink(folder / "dead.jsonl")
    sinks = [sink, letters, JsonlSink(folder / "all.jsonl"), SqliteSink(folder / "all.db")]
    host = ShardHost(
        source, lambda s: Engine(cheap()), MemoryStore(), sinks, commit_every=5000, observer=metrics
    )
    host.open()
    end = time.monotonic() + PATIENCE
    while host.statistics().events < n and time.monotonic() < end:
        if host.poll(1000):
            end = time.monotonic() + PATIENCE
        else:
            time.sleep(0.001)  # a thread, or a broker, has to come round to it
    assert host.poll(1000) == []
    host.close()
    told = (folder / "dead.jsonl").read_text().splitlines()
    return metrics, sink, [json.loads(line) for line in told]


def survived(name: str, folder: Path, lines: list[bytes]) -> Counter[str]:
    """Run, and count what became of every record."""
    with ExitStack() as opened:
        source = SOURCES[name][0](folder, lines, opened)
        metrics, sink, letters = through(source, folder, len(lines))
    get = metrics.registry.get_sample_value
    ingested = get("streammeta_events_ingested_total", {"source": source.name})
    assert ingested == len(lines)
    outputs = Counter(type(o) for o in sink.outputs)
    assert outputs[Predicted] + outputs[Rejected] >= len(lines)
    assert outputs[Scored] <= outputs[Predicted]
    asked = {o.id for o in sink.outputs if isinstance(o, Predicted)}
    whole = (good(i) for i in range(len(lines)))
    wanted = {
        g["id"] for g, line in zip(whole, lines, strict=True) if json.dumps(g).encode() == line
    }
    assert wanted - asked == set()
    assert len(letters) == outputs[Rejected]
    assert {letter["reason"] for letter in letters} <= REASONS
    assert all(letter["id"] and letter["detail"] for letter in letters)
    assert max(len(json.dumps(letter)) for letter in letters) < 6_000
    known = sum(
        get("streammeta_events_rejected_total", {"stage": stage, "reason": reason}) or 0
        for stage in ("decode", "join")
        for reason in {*REASONS, "unmatched_label"}
    )
    assert known == len(letters)
    return Counter(letter["reason"] for letter in letters)


@pytest.mark.parametrize("name", SOURCES)
def test_hostile_records_are_dead_letters_and_the_rest_is_learned(name, tmp_path):
    found = survived(name, tmp_path, records(1600, seed=4, longest=SOURCES[name][1]))
    assert found["malformed"] > 60
    assert found["wrong_type"] > 10
    assert found["not_finite"] > 10
    assert found["too_long"] >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_very_many_hostile_records(name, tmp_path):
    n = LONG.get(name, 10_000)
    found = survived(name, tmp_path, records(n, seed=5, longest=SOURCES[name][1]))
    assert sum(found.values()) > 0.3 * (n - 1000)  # the first are good


def cells(rng: random.Random) -> str:
    """A line of CSV; no quotes, which may make many lines one record."""
    odd = [
        "1e400",
        "nan",
        "-inf",
        "",
        "\x00",
        "\x1b[2J",
        "1_0",
        "9" * 400,
        "\ud800",
        "ü",
        "w" * 300,
    ]
    return ",".join(
        rng.choice(["1.5", "0", *odd]) for _ in range(rng.choice([1, 2, 3, 4, 4, 4, 9]))
    )


def lines_of_csv(n: int, seed: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    yield b"id,a,b,y"
    for i in range(n):
        if i < 1000 or i % 2:
            yield b"good-%d,%d,%d,%d" % (i, i % 7, i % 3, i % 2)
        elif i == n - 2:
            yield b"long,1.5," + b"w" * MEGABYTES + b",1"
        elif i % 100 == 0:
            yield rng.randbytes(40).translate(None, b'\n\r"') + b"."
        else:
            yield cells(rng).encode("utf-8", "surrogatepass") + b","


@pytest.mark.parametrize(
    ("follow", "n"),
    [
        (False, 2000),
        (True, 2000),
        pytest.param(False, 100_000, marks=pytest.mark.slow),
        pytest.param(True, 100_000, marks=pytest.mark.slow),
    ],
)
def test_hostile_lines_of_csv(follow, n, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\n".join(lines_of_csv(n, seed=6)) + b"\n")
    source: Source = FileSource(path, target="y", id="id")
    if follow:
        source = FollowedFile(path, target="y", id="id")
    _, sink, letters = through(source, tmp_path, n)
    asked = {o.id for o in sink.outputs if isinstance(o, Predicted)}
    assert all(f"good-{i}" in asked for i in range(n) if i < 1000 or i % 2)
    assert len(letters) > (n - 1000) // 4
    assert {letter["reason"] for letter in letters} <= REASONS
    assert all(letter["id"] and letter["detail"] for letter in letters)
    assert sum(f"rows.csv line {n}: " in letter["detail"] for letter in letters) == 1  # 10 MB
