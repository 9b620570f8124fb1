"""Redis streams against a real server: gaps, outages, kills, and nothing lost or learned twice."""

from __future__ import annotations

import json
import random
import sys
from itertools import pairwise

import pytest
import redis
import servers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outage_stories import Mends, killed_server_and_killed_run

from streammeta.config_file import load_config
from streammeta.errors import ConfigError, SinkError, SourceError, UsageError
from streammeta.events import Event
from streammeta.sinks.redis_stream import RedisStreamSink
from streammeta.sources.base import Forgets, Live
from streammeta.sources.redis_stream import RedisStreamSource
from streammeta.testing import FakeClock, read_all, sample_outputs


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    server = servers.Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def client(shared):
    with redis.Redis.from_url(shared.url) as link:
        link.flushall()
        yield link


@pytest.fixture
def own(tmp_path):
    """A server of the test's own, to be killed."""
    server = servers.Redis(tmp_path)
    server.start()
    yield server
    server.kill()


def row(i: int) -> dict[str, bytes]:
    return {"data": json.dumps({"a": i, "y": i % 7}).encode()}


def fill(client, n: int, first: int = 1) -> None:
    for i in range(first, first + n):
        client.xadd("s", row(i), id=f"{i}-0")


def numbers(events: list[Event]) -> list[float]:
    return [event.x["a"] for event in events]


def test_entries_are_json_or_fields_and_bad_ones_are_named(client, shared):
    client.xadd("s", {"data": '{"id": "q", "x": {"a": 1.5, "d": "mon"}}'}, id="1500-0")
    client.xadd("s", {"data": '{"id": "q", "y": "spam"}'}, id="2500-1")
    client.xadd("s", {"data": '{"a": '}, id="3000-0")
    client.xadd("s", {"a": "1"}, id="3000-1")
    source = RedisStreamSource(shared.url, "s")
    events, _ = read_all(source, source.start(), 4)
    assert events == [
        Event("q", {"a": 1.5, "d": "mon"}, None, "", 1.5),
        Event("q", None, "spam", "", 2.5),
        Event("s:0:3000-0", ts=3.0, error=(
            "malformed", "s entry 3000-0: not JSON: Expecting value (character 7)")),
        Event("s:0:3000-1", ts=3.0, error=(
            "malformed", "s entry 3000-1: has no field 'data'; fields: a")),
    ]  # fmt: skip
    source.close()
    fields = RedisStreamSource(shared.url, "t", field="", target="sold", key="shop", time="at")
    client.xadd("t", {"shop": "7", "at": "60", "temp": "2.50", "day": "mon", "sold": "3"})
    events, _ = read_all(fields, fields.start(), 1)
    assert (events[0].x, events[0].y) == ({"temp": 2.5, "day": "mon"}, 3)
    assert (events[0].key, events[0].ts, type(events[0].y)) == ("7", 60.0, int)
    fields.close()


def test_a_stream_that_nobody_has_made_yet_is_empty_and_then_is_read(client, shared):
    source = RedisStreamSource(shared.url, "s", target="y")
    events, position = source.read(source.start(), 5)
    assert (events, source.finished(position)) == ([], False)
    fill(client, 3)
    assert numbers(read_all(source, position, 3)[0]) == [1, 2, 3]
    assert source.status() == ("", 0, 0)
    source.close()


def test_begin_latest_is_the_moment_of_the_first_read(client, shared):
    fill(client, 5)
    source = RedisStreamSource(shared.url, "s", target="y", begin="latest")
    assert source.read(source.start(), 9)[0] == []
    fill(client, 2, first=6)
    again = source.read(source.start(), 9)[0]  # a dry look before the run costs nothing
    assert numbers(again) == [6, 7]
    source.close()


def test_a_source_says_how_many_entries_wait(client, shared):
    fill(client, 10)
    source = RedisStreamSource(shared.url, "s", target="y")
    source.read(source.start(), 4)
    assert source.status().lag == 6
    assert isinstance(source, Live)
    assert not isinstance(source, Forgets)
    source.close()


@pytest.mark.parametrize(
    ("on_gap", "rest", "gaps"), [("earliest", [8, 9, 10, 11], 1), ("latest", [11], 1)]
)
def test_entries_trimmed_before_they_were_read_are_a_gap(client, shared, on_gap, rest, gaps):
    fill(client, 5)
    source = RedisStreamSource(shared.url, "s", target="y", on_gap=on_gap)
    _, position = source.read(source.start(), 4)
    fill(client, 5, first=6)
    client.xtrim("s", minid="8-0", approximate=False)
    events, after = source.read(position, 9)
    assert events == []
    assert source.status().gaps == gaps
    fill(client, 1, first=11)
    assert numbers(read_all(source, after, len(rest))[0]) == rest
    source.close()
    fails = RedisStreamSource(shared.url, "s", target="y")
    with pytest.raises(SourceError, match=r"3 entries after 4-0 were removed .*on_gap = \"earl"):
        fails.read(position, 9)
    fails.close()


def test_what_was_read_may_be_trimmed_and_single_entries_deleted(client, shared):
    fill(client, 10)
    source = RedisStreamSource(shared.url, "s", target="y")
    _, position = source.read(source.start(), 6)
    client.xtrim("s", minid="7-0", approximate=False)
    assert numbers(source.read(position, 9)[0]) == [7, 8, 9, 10]
    _, position = source.read(position, 2)
    client.xdel("s", "8-0")
    assert numbers(source.read(position, 9)[0]) == [9, 10]
    source.close()


@pytest.mark.parametrize("again", [0, 3])
def test_a_stream_that_was_deleted_or_made_anew_is_a_gap(client, shared, again):
    fill(client, 5)
    source = RedisStreamSource(shared.url, "s", target="y")
    _, position = source.read(source.start(), 5)
    client.delete("s")
    fill(client, again)
    with pytest.raises(SourceError, match="the stream was deleted, or Redis lost its data"):
        source.read(position, 9)
    source.close()
    goes_on = RedisStreamSource(shared.url, "s", target="y", on_gap="earliest")
    _, after = goes_on.read(position, 9)
    assert numbers(read_all(goes_on, after, again)[0]) == [1, 2, 3][:again]
    goes_on.close()


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "read", "trim", "resume"]), st.integers(1, 6)),
        max_size=25,
    )
)
def test_a_read_gives_exactly_what_is_next_or_tells_that_it_is_gone(client, shared, steps):
    client.flushall()
    make = lambda: RedisStreamSource(shared.url, "s", target="y", on_gap="earliest")  # noqa: E731
    source = make()
    position, at, added, oldest = source.start(), 0, 0, 1  # at 0: before all there is
    for what, n in [*steps, ("read", 200), ("read", 200)]:
        if what == "add":
            fill(client, n, first=added + 1)
            added += n
        elif what == "trim":
            oldest = min(oldest + n, added + 1)
            client.xtrim("s", minid=f"{oldest}-0", approximate=False)
        elif what == "resume":
            source.close()
            source = make()
        else:
            gaps = source.status().gaps
            events, position = source.read(position, n)
            lost = at > 0 and oldest > at + 1
            assert source.status().gaps - gaps == lost
            due = [] if lost else list(range(max(at + 1, oldest), added + 1))[:n]
            assert numbers(events) == due
            at = 0 if lost else due[-1] if due else at
    source.close()


def test_tries_are_spaced_out_and_end_in_the_error_that_gives_exit_code_69(shared):
    clock = FakeClock()
    port = servers.free_port()
    source = RedisStreamSource(
        f"redis://127.0.0.1:{port}", "s", target="y", give_up_after=60.0,
        clock=clock, random=random.Random(3),
    )  # fmt: skip
    tries, asked = [], source._ask

    def counted(*args):
        tries.append(clock.now())
        return asked(*args)

    source._ask = counted
    while clock.now() < 55:
        assert source.read(source.start(), 5) == ([], source.start())
        assert "cannot be reached" in source.status().fault
        clock.sleep(0.05)
    clock.sleep(10)
    with pytest.raises(SourceError, match=r"s': cannot be reached: .*refused.* \(for 65 s\)") as e:
        source.read(source.start(), 5)
    assert e.value.exit_code == 69
    gaps = [b - a for a, b in pairwise(tries)]
    assert gaps[0] < 0.16
    assert 2.5 <= max(gaps[:-1]) <= 5.1
    assert len(tries) < 30
    source.close()


def test_what_the_server_refuses_is_told_at_once(client, shared):
    client.set("text", "no stream")
    wrong = RedisStreamSource(shared.url, "text", target="y")
    with pytest.raises(SourceError, match="wrong kind of value"):
        wrong.read(wrong.start(), 1)
    wrong.close()
    with pytest.raises(UsageError, match="no address of a Redis server"):
        RedisStreamSource("kafka://secret@host", "s")
    password = RedisStreamSource(
        shared.url.replace("redis://", "redis://nobody:secret@"), "s", target="y"
    )
    with pytest.raises(SourceError, match="Redis refuses") as told:
        password.read(password.start(), 1)
    assert "secret" not in str(told.value)
    password.close()


def test_a_server_killed_in_mid_run_and_a_run_killed_with_it_lose_and_double_nothing(own):
    def fill_again(n: int, first: int) -> None:
        with redis.Redis.from_url(own.url) as client:
            fill(client, n, first)

    make = lambda: RedisStreamSource(own.url, "s", target="y")  # noqa: E731
    ids = killed_server_and_killed_run(own, make, fill_again)
    assert ids == [f"s:0:{i}-0" for i in range(1, 701)]


def entries(client) -> list[dict]:
    return [json.loads(fields[b"data"]) for _, fields in client.xrange("out")]


def test_a_sink_waits_for_its_server_and_writes_everything_once(own):
    clock = Mends(own)
    sink = RedisStreamSink(own.url, "out", ["predicted"], clock=clock)
    sink.open(None)
    sink.write(sample_outputs())
    own.kill()
    assert sink.write(sample_outputs(first=10)) == 4
    assert clock.slept > 0
    with redis.Redis.from_url(own.url) as client:
        assert [e["row"] for e in entries(client)] == [0, 1, 2, 3, 10, 11, 12, 13]
        # as if the answer to the last write had been lost on its way
        sink._records -= 4
        sink.write(sample_outputs(first=10))
        assert len(entries(client)) == 8
        sink._records -= 4
        with pytest.raises(SinkError, match="record 5 is another one already"):
            sink.write(sample_outputs(first=20))
    sink.close()


def test_a_sink_gives_up_in_the_end_and_at_once_when_it_is_only_tried():
    clock = FakeClock()
    url = f"redis://127.0.0.1:{servers.free_port()}"
    sink = RedisStreamSink(url, "out", give_up_after=20.0, clock=clock)
    with pytest.raises(SinkError, match="cannot be reached") as told:
        sink.check()
    assert (clock.slept, told.value.exit_code) == (0.0, 69)
    with pytest.raises(SinkError, match=r"\(for 2\d s\)"):
        sink.open(None)
    sink.close()


def test_readers_of_the_sink_see_a_record_once_though_it_is_delivered_twice(client, shared):
    sink = RedisStreamSink(shared.url, "out")
    sink.open(None)
    sink.write(sample_outputs())
    here = sink.position()
    sink.write(sample_outputs(first=3))
    seen = client.xrange("out")
    again = RedisStreamSink(shared.url, "out")
    again.open(here)
    again.write(sample_outputs(first=3)[:5])
    again.write(sample_outputs(first=3)[5:])
    again.write(sample_outputs(first=6)[:1])
    assert client.xrange("out")[: len(seen)] == seen
    assert client.xlen("out") == len(seen) + 1
    for each in (sink, again):
        each.close()


def test_a_sink_does_not_touch_a_stream_that_is_not_its_own(client, shared):
    client.xadd("events", {"data": "precious"})
    sink = RedisStreamSink(shared.url, "events")
    for touch in (sink.check, lambda: sink.open(None), lambda: sink.open({"records": 3})):
        with pytest.raises(SinkError, match="ids by the clock, which this sink never wrote"):
            touch()
    assert client.xlen("events") == 1
    lost = RedisStreamSink(shared.url, "gone")
    with pytest.raises(SinkError, match="has 0 records, the commit knows 3"):
        lost.open({"records": 3})
    sink.close()
    lost.close()


def test_a_trimmed_sink_keeps_about_the_newest(client, shared):
    sink = RedisStreamSink(shared.url, "out", ["predicted"], maxlen=100)
    sink.open(None)
    for i in range(0, 2000, 4):
        sink.write(sample_outputs(first=i))
    assert 100 <= client.xlen("out") < 400
    again = RedisStreamSink(shared.url, "out", ["predicted"], maxlen=100)
    again.open({"records": 1000})  # its tail has been trimmed in part
    for i in range(1000, 2004, 4):
        again.write(sample_outputs(first=i))
    assert again.position() == {"records": 2004}
    assert entries(client)[-1]["row"] == 2003
    sink.close()
    again.close()


CONFIG = """
[source]
kind = "redis"
url = "redis://127.0.0.1:{port}"
stream = "s"
target = "y"

[model]
task = "regression"

[[sinks]]
kind = "redis"
url = "redis://127.0.0.1:{port}"
stream = "out"
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('stream = "s"', 'strem = "s"', "c.toml:5: source.strem: there is no such field; did you "
         "mean 'stream'?"),
        ('stream = "s"', "", "c.toml:2: source.stream: is missing, source 'redis' needs it"),
        ('stream = "s"', 'stream = "s"\nrows = 5', "c.toml:6: source.rows: source 'redis' takes "
         "no 'rows'"),
        ('target = "y"', 'on_gap = "ignore"', "c.toml:6: source.on_gap: input should be 'fail', "
         "'earliest' or 'latest' (got 'ignore')"),
        ('target = "y"', "give_up_after = -1", "c.toml:6: source.give_up_after: input should be "
         "greater than or equal to 0 (got -1)"),
        ('stream = "out"', 'stream = "out"\nmaxlen = 0', "sinks.0.maxlen: input should be greater"),
        ('stream = "out"', 'stream = "out"\npath = "x"', "c.toml:15: sinks.0.path: sink 'redis' "
         "takes no 'path'"),
        ('"redis"\nurl', '"rediss"\nurl', "no source is called 'rediss'; did you mean redis"),
    ],
)  # fmt: skip
def test_a_config_says_what_is_wrong_with_a_connector(tmp_path, old, new, told):
    path = tmp_path / "c.toml"
    path.write_text(CONFIG.format(port=1).replace(old, new, 1))
    with pytest.raises(ConfigError) as fault:
        load_config(path, environment={})
    assert told in str(fault.value).replace(str(path), path.name)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    for make in (RedisStreamSource, RedisStreamSink):
        with pytest.raises(UsageError, match=r"pip install streammeta\[redis\]"):
            make("redis://127.0.0.1", "s")
