"""Events over HTTP: what was answered with 200 is safe, what was not has not been taken."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from streammeta.config_file import load_config
from streammeta.errors import ConfigError, SourceError
from streammeta.sources.http_push import HttpSource
from streammeta.testing import read_all


@pytest.fixture
def source(tmp_path):
    made = []

    def make(**options) -> HttpSource:
        options = {"port": 0, "target": "y", "fsync": "never", **options}
        made.append(HttpSource(str(tmp_path / "journal"), **options))
        made[-1].read(made[-1].start(), 0)
        return made[-1]

    yield make
    for each in made:
        each.close()


def place(source: HttpSource) -> tuple[str, int]:
    host, _, port = source.address.removeprefix("http://").partition("/")[0].partition(":")
    return host, int(port)


def post(source: HttpSource, body: bytes, path="/events", method="POST", **headers):
    link = http.client.HTTPConnection(*place(source), timeout=10)
    try:
        link.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = link.getresponse()
        return answer.status, json.loads(answer.read()), dict(answer.getheaders())
    finally:
        link.close()


def rows(n: int, first: int = 0) -> bytes:
    return b"".join(b'{"a": %d, "y": %d}\n' % (i, i % 7) for i in range(first, first + n))


def test_posted_lines_are_events_and_late_answers_and_bad_ones(source):
    made = source(target=None)
    status, told, _ = post(made, b'{"id": "q", "x": {"a": 1}}\n\nnot JSON\n{"id": "q", "y": 2}')
    assert (status, told) == (200, {"accepted": 3, "first": 0})
    assert post(made, b"{}\n")[1] == {"accepted": 1, "first": 3}
    events, _ = read_all(made, made.start(), 4)
    assert [(e.id, e.x, e.y) for e in events[:3]] == [
        ("q", {"a": 1.0}, None), ("http:0:1", None, None), ("q", None, 2),
    ]  # fmt: skip
    assert events[1].error[0] == "malformed"


def test_what_cannot_be_taken_is_refused_with_its_reason(source):
    made = source(token="secret", max_bytes=100, queue=5)
    secret = {"Authorization": "Bearer secret"}
    assert post(made, b"{}", Authorization="Bearer wrong")[0] == 401
    assert post(made, b"{}")[0] == 401
    assert post(made, b"{}", path="/elsewhere", **secret)[0] == 404
    assert post(made, b"", method="GET", **secret)[0] == 405
    assert post(made, b"x" * 101, **secret)[0] == 413
    assert post(made, b"{}\n" * 5, **secret)[0] == 200
    status, told, headers = post(made, b"{}", **secret)
    assert (status, told["error"]) == (429, "5 events wait to be read")
    assert headers["Retry-After"] == "1"
    read_all(made, made.start(), 5)
    assert post(made, b"{}", **secret)[1] == {"accepted": 1, "first": 5}
    with socket.create_connection(place(made)) as link:
        link.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n")
        assert link.recv(100).startswith(b"HTTP/1.1 411 ")
    with socket.create_connection(place(made)) as link:
        head = b"POST /events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
        link.sendall(head + b"Content-Length: 50\r\n\r\n{}")
        link.shutdown(socket.SHUT_WR)
        assert link.recv(100).startswith(b"HTTP/1.1 400 ")
    assert made.status().lag == 1


def test_a_full_disk_is_503_and_nothing_is_taken(source, monkeypatch):
    made = source()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("streammeta.sources.journal._write_all", full)
    status, told, _ = post(made, rows(3))
    assert status == 503
    assert "No space left on device" in told["error"]
    monkeypatch.undo()
    assert post(made, rows(3))[1] == {"accepted": 3, "first": 0}


def test_many_senders_at_once_lose_nothing_and_each_keeps_its_order(source):
    made, full = source(queue=50), Counter()

    def send(sender: int) -> None:
        for i in range(40):
            row = b'{"a": %d, "y": %d}\n' % (i, sender)
            while (status := post(made, row)[0]) != 200:
                full[status] += 1

    senders = [threading.Thread(target=send, args=(i,)) for i in range(8)]
    for sender in senders:
        sender.start()
    position, found = made.start(), []
    while len(found) < 320:
        events, position = made.read(position, 9)
        found += events
        assert made.status().lag <= 50
    for sender in senders:
        sender.join()
    assert set(full) <= {429}
    for sender in range(8):
        assert [e.x["a"] for e in found if e.y == sender] == list(range(40))


DIES = """
import os, signal, sys
from streammeta.sources.http_push import HttpSource

source = HttpSource(sys.argv[1], port=0, target="y")
source.read(source.start(), 0)
print(source.address, flush=True)
signal.pause()
"""


def test_what_was_answered_with_200_survives_kill_9(tmp_path, source):
    process = subprocess.Popen(
        [sys.executable, "-c", DIES, str(tmp_path / "journal")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    host, _, port = address.removeprefix("http://").partition("/")[0].partition(":")
    taken = 0
    killer = threading.Timer(0.2, lambda: process.send_signal(signal.SIGKILL))
    killer.start()
    link = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        while True:
            link.request("POST", "/events", rows(3, taken))
            answer = link.getresponse()
            assert json.loads(answer.read())["first"] == taken
            taken += 3
    except (http.client.HTTPException, OSError):
        pass  # killed
    link.close()
    killer.join()
    assert process.wait() == -signal.SIGKILL, "it did not end before it was killed"
    process.stdout.close()
    assert taken > 0
    made = source()
    assert made.status().lag - taken in (0, 1, 2, 3)  # the last answer may not have come through
    events, _ = read_all(made, made.start(), made.status().lag)
    assert [e.x["a"] for e in events][:taken] == list(range(taken))


def test_a_port_in_use_is_the_error_for_69(source, tmp_path):
    host, port = place(source())
    other = HttpSource(str(tmp_path / "other"), host=host, port=port)
    with pytest.raises(SourceError, match=f"http: cannot listen at {host}:{port}: .*in use") as e:
        other.read(other.start(), 1)
    assert e.value.exit_code == 69
    other.close()


def test_a_config_says_what_is_wrong(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('[source]\nkind = "http"\nport = 99999\nfsync = "sometimes"\n')
    with pytest.raises(ConfigError) as fault:
        load_config(path, environment={})
    told = str(fault.value).replace(str(path), path.name)
    assert "c.toml:1: source.journal: is missing, source 'http' needs it" in told
    assert "c.toml:3: source.port: input should be less than or equal to 65535" in told
    assert "c.toml:4: source.fsync: input should be 'always' or 'never' (got 'sometimes')" in told
