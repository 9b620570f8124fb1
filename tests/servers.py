"""Real servers for tests: started on a free loopback port, stopped by their process id."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PLACES = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
UP_WITHIN = 20.0  # seconds


def program(name: str, package: str) -> str:
    """The path of a server's program; without it the test is skipped, but never in CI."""
    path = shutil.which(name, path=PLACES)
    if path is None:
        reason = f"{name} is not installed: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Server:
    """One server process that can be killed and started again on the same port and folder."""

    name = ""
    package = ""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder, self.more = folder, more
        self.port = free_port()
        self._program = program(self.name, self.package)
        self._process: subprocess.Popen[bytes] | None = None

    def arguments(self) -> Sequence[str]:
        raise NotImplementedError

    def start(self) -> None:
        with open(self.folder / f"{self.name}.log", "ab") as log:
            self._process = subprocess.Popen(
                [self._program, *self.arguments()],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        until = time.monotonic() + UP_WITHIN
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > until:
                told = (self.folder / f"{self.name}.log").read_text(errors="replace")
                raise AssertionError(f"{self.name} did not come up:\n{told[-2000:]}")
            time.sleep(0.01)

    def answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    @property
    def running(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """As the power goes: SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Redis(Server):
    """Redis that syncs its log at every write, so that a kill loses nothing."""

    name, package = "redis-server", "redis-server"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def arguments(self) -> Sequence[str]:
        return [
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
        ]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                link.sendall(b"PING\r\n")
                return link.recv(7) == b"+PONG\r\n"  # it says -LOADING while it reads its log
        except OSError:
            return False


class Nats(Server):
    """NATS with JetStream, its streams in the folder."""

    name, package = "nats-server", "nats-server"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def arguments(self) -> Sequence[str]:
        return ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.folder), *self.more]

    def answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as link:
                return b'"jetstream":true' in link.recv(4096)
        except OSError:
            return False


class Mosquitto(Server):
    """An MQTT broker that writes down its sessions when it is asked to stop."""

    name, package = "mosquitto", "mosquitto"

    def arguments(self) -> Sequence[str]:
        config = self.folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "persistence true", "max_queued_messages 0"]
        lines += [f"persistence_location {self.folder}/", "user root", *self.more]
        if not any(line.startswith("password_file") for line in self.more):
            lines.append("allow_anonymous true")
        config.write_text("\n".join(lines) + "\n")
        return ["-c", str(config)]

    def kill(self) -> None:
        """Its queues live in memory until it ends: SIGTERM, or it would lose what it had taken."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


class Program(Server):
    """A server that is a file beside this one, in a Python of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.script = str(Path(__file__).with_name(f"{self.name}.py"))
        self._program = sys.executable
        self._process = None


class Feed(Program):
    """Sends what is appended to a file: see ``feeds.py``."""

    name = "feeds"

    def __init__(self, folder: Path, protocol: str, how: str) -> None:
        super().__init__(folder)
        self.protocol, self.how = protocol, how
        self.file = folder / "feed.jsonl"
        self.file.touch()

    def arguments(self) -> list[str]:
        return [self.script, self.protocol, str(self.port), str(self.file), self.how]

    def url(self, path: str = "/stream") -> str:
        return f"{'http' if self.protocol == 'sse' else 'ws'}://127.0.0.1:{self.port}{path}"

    def say(self, *lines: list[str]) -> None:
        with self.file.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def rows(self, n: int, first: int = 1) -> None:
        self.say(*(["data", json.dumps({"a": i, "y": i % 7})] for i in range(first, first + n)))


class Receiver(Program):
    """Takes what is posted: see ``receivers.py``."""

    name = "receivers"

    def arguments(self) -> list[str]:
        return [self.script, str(self.port), str(self.folder)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def will(self, *moods: dict[str, Any]) -> None:
        (self.folder / "mood.json").write_text(json.dumps(moods))

    def requests(self) -> list[tuple[dict[str, str], list[dict[str, Any]]]]:
        """Headers and records of everything that was taken, double or not."""
        path = self.folder / "taken.jsonl"
        found = []
        for line in path.read_text().splitlines() if path.exists() else []:
            taken = json.loads(line)
            text = taken["body"]
            array = text.startswith("[")
            records = json.loads(text) if array else [json.loads(row) for row in text.splitlines()]
            found.append((taken["headers"], records))
        return found

    def held(self) -> list[dict[str, Any]]:
        """What a receiver has that passes over keys it knows, and lets a batch take the place of
        everything from its first record on."""
        found: list[dict[str, Any]] = []
        known = set()
        for headers, records in self.requests():
            if headers["Idempotency-Key"] not in known:
                known.add(headers["Idempotency-Key"])
                first = int(headers["Streammeta-First-Record"])
                found = [record for record in found if record["record"] < first] + records
            if not records:
                known.clear()  # a run begins anew
        return found
