"""Server-sent events from a real server: resumed by id, journaled, nothing lost or taken twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import servers
from hypothesis import given
from hypothesis import strategies as st
from mqtt_clients import until
from outage_stories import killed_server_and_killed_run

from streammeta.config_file import load_config
from streammeta.errors import ConfigError, SourceError, UsageError
from streammeta.sources.event_stream import EventStream
from streammeta.sources.sse import SseSource
from streammeta.testing import read_all


@pytest.fixture
def server(tmp_path) -> Iterator[Callable[[str], servers.Feed]]:
    made = []

    def start(how: str) -> servers.Feed:
        made.append(servers.Feed(tmp_path, "sse", how))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.kill()


@pytest.fixture
def source(tmp_path) -> Iterator[Callable[..., SseSource]]:
    made = []

    def make(url: str, **options) -> SseSource:
        options = {"target": "y", "fsync": "never", **options}
        made.append(SseSource(url, str(tmp_path / "journal"), **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def numbers(events) -> list[float]:
    return [event.x["a"] for event in events]


def test_messages_come_in_order_and_the_bad_one_is_a_rejected_event(server, source):
    feed = server("resumes")
    feed.rows(2)
    feed.say(["data", "no JSON"], ["raw", ": a comment\n\nevent: other\ndata: {}\n\n"])
    feed.rows(1, first=3)
    made = source(feed.url())
    events, end = read_all(made, made.start(), 5)
    assert [event.error is None for event in events] == [True, True, False, True, True]
    assert events[2].error[1].startswith("sse record 2: not JSON")
    assert (events[4].id, events[4].x, events[4].y) == ("sse:0:4", {"a": 3.0}, 3)
    assert made.status() == ("", 0, 0)
    assert not made.finished(end)


def test_only_the_asked_types_are_taken_and_late_answers_are_answers(server, source):
    feed = server("resumes")
    feed.say(["raw", 'event: ping\ndata: {}\n\nevent: row\ndata: {"id":"q","x":{"a":1}}\n\n'])
    feed.say(["raw", 'event: row\r\ndata: {"id":"q",\r\ndata:  "y":2}\r\n\r\n'])
    made = source(feed.url(), events=["row"], target=None)
    events, _ = read_all(made, made.start(), 2)
    assert [(e.id, e.x, e.y) for e in events] == [("q", {"a": 1.0}, None), ("q", None, 2)]


def test_redirects_are_followed_and_a_token_is_sent(server, source):
    feed = server("resumes")
    feed.rows(3)
    made = source(feed.url("/moved"))
    assert numbers(read_all(made, made.start(), 3)[0]) == [1, 2, 3]
    made.close()
    with_token = source(feed.url("/secret"), token="secret")
    feed.rows(1, first=4)
    assert numbers(read_all(with_token, {"record": 3}, 1)[0]) == [4]


def test_a_message_that_was_half_sent_is_asked_for_again_and_taken_once(server, source):
    feed = server("resumes")
    feed.rows(1)
    feed.say(["half", '{"a": 2, "y": 3}'])
    feed.rows(1, first=3)
    made = source(feed.url())
    assert numbers(read_all(made, made.start(), 3)[0]) == [1, 2, 3]


@pytest.mark.parametrize("how", ["resumes", "repeats", "forgets"])
def test_a_connection_that_ends_now_and_then_costs_nothing(server, source, how):
    feed = server(how)
    for first in range(1, 100, 10):
        feed.rows(10, first)
        feed.say(["end"])
    made = source(feed.url())
    assert numbers(read_all(made, made.start(), 100)[0]) == list(range(1, 101))


@pytest.mark.parametrize("how", ["resumes", "repeats"])
def test_what_a_server_keeps_is_read_after_both_were_killed(server, source, how):
    feed = server(how)
    ids = killed_server_and_killed_run(feed, lambda: source(feed.url()), feed.rows)
    assert ids == [f"sse:0:{i}" for i in range(700)]


def test_nothing_is_taken_while_nobody_reads(server, source):
    feed = server("resumes")
    feed.rows(3000)
    made = source(feed.url(), queue=20)
    made.read(made.start(), 0)
    until(lambda: made.status().lag == 20)
    found, position = [], made.start()
    while len(found) < 3000:
        events, position = made.read(position, 7)
        assert made.status().lag <= 20
        found += numbers(events)
    assert found == list(range(1, 3001))


def test_a_message_that_is_too_long_is_rejected_and_the_next_one_is_not(server, source):
    feed = server("resumes")
    text = json.dumps({"a": "x" * 300_000, "y": 1})
    feed.say(["data", text])
    feed.rows(1, first=2)
    made = source(feed.url(), max_bytes=1000)
    (long, after), _ = read_all(made, made.start(), 2)
    told = f"sse record 0: {len(text)} bytes, of which max_bytes let in 1000"
    assert long.error == ("malformed", told)
    assert after.x == {"a": 2.0}


def test_a_server_that_has_nothing_more_to_say_ends_the_stream(server, source):
    made = source(server("204").url())
    made.read(made.start(), 0)
    until(lambda: made.finished(made.start()))


@pytest.mark.parametrize(
    ("how", "path", "words"),
    [
        ("404", "/stream", "answers 404 Not Found"),
        ("resumes", "/secret", "answers 401"),
        ("resumes", "/page", "answers with text/html, expected text/event-stream"),
    ],
)
def test_what_is_refused_at_first_is_the_error_for_69_at_once(server, source, how, path, words):
    made = source(server(how).url(path))
    with pytest.raises(SourceError, match=words) as fault:
        read_all(made, made.start(), 1)
    assert fault.value.exit_code == 69


def test_a_server_on_a_bad_day_is_waited_for(server, source):
    feed = server("resumes")
    feed.rows(2)
    made = source(feed.url())
    _, position = read_all(made, made.start(), 2)
    feed.kill()
    feed.how = "500"
    feed.start()
    until(lambda: "answers 500" in made.status().fault)
    feed.kill()
    feed.how = "resumes"
    feed.rows(1, first=3)
    feed.start()
    assert numbers(read_all(made, position, 1)[0]) == [3]


def test_a_server_that_never_comes_is_given_up(source):
    made = source(f"http://127.0.0.1:{servers.free_port()}/", give_up_after=0.2)
    with pytest.raises(SourceError, match=r"cannot be reached: .*refused"):
        read_all(made, made.start(), 1)


def test_a_silent_connection_is_taken_for_dead(server, source):
    feed = server("resumes")
    feed.rows(1)
    made = source(feed.url(), idle=0.05)
    _, position = read_all(made, made.start(), 1)
    until(lambda: "timed out" in made.status().fault)
    feed.rows(1, first=2)
    assert numbers(read_all(made, position, 1)[0]) == [2]


def test_wrong_options_are_said_before_anything_starts(tmp_path):
    with pytest.raises(UsageError, match="url is 'ftp://x', expected http"):
        SseSource("ftp://x", str(tmp_path))
    with pytest.raises(UsageError, match="header 'nothing': expected 'Name: value'"):
        SseSource("http://x", str(tmp_path), headers=["nothing"])
    path = tmp_path / "c.toml"
    path.write_text('[source]\nkind = "sse"\nurl = "http://x"\njournl = "j"\n')
    with pytest.raises(ConfigError) as fault:
        load_config(path, environment={})
    assert "source.journal: is missing, source 'sse' needs it" in str(fault.value)
    assert "did you mean 'journal'?" in str(fault.value)


LINES = st.sampled_from(
    [b"data: {}", b"data", b"data:x", b"id: 7", b"id", b"event: row", b": hi", b"retry: 10",
     b"retry: x", b"", b"", b"\xef\xbb\xbfdata: b", b"data: \xff", b"id: a\0b"]
)  # fmt: skip


@given(st.lists(st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"]))), st.data())
def test_however_the_bytes_are_cut_the_messages_are_the_same(lines, data):
    whole = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    at_once, in_pieces = EventStream(100), EventStream(100)
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected = at_once.feed(whole)
    assert [m for piece in pieces for m in in_pieces.feed(piece)] == expected
    assert in_pieces.retry == at_once.retry
    assert all(len(m.data) <= 100 for m in expected)


@given(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])))
def test_a_text_comes_through_as_it_was_and_a_longer_one_with_its_length(text):
    sent = f"data: {text}\n\n".encode()
    (message,) = EventStream(10).feed(sent)
    assert message.size == len(text.encode())
    assert message.data == text.encode()[:10]
