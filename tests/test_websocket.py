"""WebSockets from a real server: what came is in the journal, once, whatever happens next."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import servers
from mqtt_clients import until
from outage_stories import host_of

from streammeta.errors import SourceError, UsageError
from streammeta.sources.journaled import Inbox
from streammeta.sources.websocket import WebSocketSource
from streammeta.store import MemoryStore
from streammeta.testing import ListSink, read_all

pytest.importorskip("websockets", reason="the extra websocket is not installed")


@pytest.fixture
def server(tmp_path) -> Iterator[Callable[..., servers.Feed]]:
    made = []

    def start(how: str = "forgets") -> servers.Feed:
        made.append(servers.Feed(tmp_path, "websocket", how))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.kill()


@pytest.fixture
def source(tmp_path) -> Iterator[Callable[..., WebSocketSource]]:
    made = []

    def make(url: str, **options) -> WebSocketSource:
        options = {"target": "y", "fsync": "never", **options}
        made.append(WebSocketSource(url, str(tmp_path / "journal"), **options))
        made[-1]._pause = 0.01  # between the end of a connection and the next one
        return made[-1]

    yield make
    for each in made:
        each.close()


def numbers(events) -> list[float]:
    return [event.x["a"] for event in events]


def test_messages_come_in_order_and_the_bad_one_is_a_rejected_event(server, source):
    feed = server()
    feed.rows(2)
    feed.say(["data", "no JSON"], ["data", '["a", "list"]'])
    feed.rows(1, first=3)
    made = source(feed.url())
    events, _ = read_all(made, made.start(), 5)
    assert [e.error and e.error[0] for e in events] == [None, None, "malformed", "malformed", None]
    assert events[2].error[1].startswith("websocket record 2: not JSON")
    assert events[3].error[1] == "websocket record 3: list, expected an object"
    assert (events[4].id, events[4].x, events[4].y) == ("websocket:0:4", {"a": 3.0}, 3)
    assert made.status() == ("", 0, 0)


def test_whoever_has_to_subscribe_says_so_after_every_connecting(server, source):
    feed = server()
    feed.say(["data", '{"a": 1, "y": 1}'], ["end"], ["data", '{"a": 2, "y": 1}'])
    made = source(feed.url("/subscribe"), subscribe=['{"op": "all"}'], target=None)
    events, _ = read_all(made, made.start(), 4)
    assert numbers(events) == [-1, 1, -1, 2]
    assert [e.x["told"] for e in events[::2]] == ['{"op": "all"}'] * 2


def test_a_connection_that_ends_now_and_then_is_made_again(server, source):
    feed = server()
    for first in range(1, 100, 10):
        feed.rows(10, first)
        feed.say(["end"])
    made = source(feed.url())
    assert numbers(read_all(made, made.start(), 100)[0]) == list(range(1, 101))


def test_a_server_and_a_run_that_are_killed_lose_and_double_nothing_that_came(server, source):
    feed = server()
    feed.rows(400)
    store, sink = MemoryStore(), ListSink()
    made = source(feed.url())
    host = host_of(made, store, sink)
    host.open()
    while host.statistics().events < 130:
        host.poll(10)
    until(lambda: made.status().lag == 400 - host.statistics().events)
    feed.kill()
    until(lambda: "cannot be reached" in made.status().fault)
    feed.rows(300, first=401)
    feed.start()
    until(lambda: made.status().lag == 700 - host.statistics().events)
    host.poll(33)
    host.drop()  # as by kill -9: some of it was learned and never committed
    host = host_of(source(feed.url()), store, sink)
    assert host.open()
    while host.statistics().events < 700:
        host.poll(50)
    host.close()
    whole, wholly = MemoryStore(), ListSink()
    host = host_of(source(feed.url()), whole, wholly)
    host.open()
    while host.statistics().events < 700:
        host.poll(50)
    host.close()
    assert store.latest(0).snapshot.to_bytes() == whole.latest(0).snapshot.to_bytes()
    assert sink.outputs == wholly.outputs


def test_what_nobody_has_room_for_waits_and_nothing_comes_twice(server, source):
    feed = server()
    feed.rows(500)
    made = source(feed.url(), queue=20)
    made.read(made.start(), 0)
    until(lambda: made.status().lag == 20)
    made.close()
    feed.say(["end"])  # else the connection that has gone may take the row, before it knows
    feed.rows(1, first=501)
    again = source(feed.url(), queue=1000)
    found, position = [], again.start()
    while not found or found[-1] < 501:
        events, position = again.read(position, 100)
        found += numbers(events)
    assert found == sorted(set(found))
    assert found[:20] == list(range(1, 21))


def test_what_had_been_read_when_we_are_stopped_is_journaled_room_or_not(tmp_path, source):
    made = source("ws://127.0.0.1:1/", queue=20)
    inbox = Inbox(tmp_path / "other", 20, "never")
    made._stop.set()
    made._keep(inbox, [b"%d" % i for i in range(30)])
    assert inbox.read(0, 100) == [b"%d" % i for i in range(30)]
    inbox.close()


def test_a_message_that_is_too_long_is_a_rejected_event_and_the_next_one_comes(server, source):
    feed = server()
    feed.say(["data", json.dumps({"a": "x" * 5000, "y": 1})], ["end"])
    made = source(feed.url(), max_bytes=1000)
    (long,), position = read_all(made, made.start(), 1)
    told = "websocket record 0: a message of more than 1000 bytes, the connection is lost"
    assert long.error == ("malformed", told)
    feed.rows(1, first=2)
    assert numbers(read_all(made, position, 1)[0]) == [2]


@pytest.mark.parametrize(("how", "words"), [("404", "answers 404"), ("401", "answers 401")])
def test_what_is_refused_at_first_is_the_error_for_69_at_once(server, source, how, words):
    made = source(server(how).url())
    with pytest.raises(SourceError, match=words) as fault:
        read_all(made, made.start(), 1)
    assert fault.value.exit_code == 69


def test_a_server_on_a_bad_day_is_waited_for(server, source):
    feed = server("503")
    feed.rows(1)
    made = source(feed.url())
    made.read(made.start(), 0)
    until(lambda: "answers 503" in made.status().fault)
    feed.kill()
    feed.how = "forgets"
    feed.start()
    assert numbers(read_all(made, made.start(), 1)[0]) == [1]


def test_a_server_that_never_comes_is_given_up(source):
    made = source(f"ws://127.0.0.1:{servers.free_port()}/", give_up_after=0.2)
    with pytest.raises(SourceError, match=r"cannot be reached: .*refused"):
        read_all(made, made.start(), 1)


def test_a_server_that_answers_no_ping_is_taken_for_gone(source, monkeypatch):
    """A listener that shakes hands and then says nothing at all, pongs included."""
    import socket
    import threading

    from websockets.server import ServerProtocol

    monkeypatch.setattr("streammeta.sources.websocket.QUIET", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake() -> None:
            link, _ = listener.accept()
            protocol = ServerProtocol()
            protocol.receive_data(link.recv(65536))
            (request,) = protocol.events_received()
            protocol.send_response(protocol.accept(request))
            for data in protocol.data_to_send():
                link.sendall(data)
            while link.recv(65536):
                pass
            link.close()

        mute = threading.Thread(target=shake)
        mute.start()
        made = source(f"ws://127.0.0.1:{listener.getsockname()[1]}/")
        made.read(made.start(), 0)
        until(lambda: "no answer to a ping in 0.05 s" in made.status().fault)
        made.close()
        mute.join()


def test_wrong_options_and_a_missing_package_are_said_before_anything_starts(tmp_path):
    with pytest.raises(UsageError, match="url is 'http://x', expected ws://"):
        WebSocketSource("http://x", str(tmp_path))
    code = (
        "import sys; sys.modules['websockets'] = None\n"
        "from streammeta.sources.websocket import WebSocketSource\n"
        "WebSocketSource('ws://x', 'j')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install streammeta[websocket]" in done.stderr
