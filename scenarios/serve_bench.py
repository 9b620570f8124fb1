"""What the HTTP API takes and gives while its model adapts: ``python -m scenarios.serve_bench``.

Starts ``streammeta run`` on a drifting stream with ``[serve]``, loads it with one prediction for
each request over keep-alive connections, from this process and so on the same cores, and prints
predictions a second, latencies, and how old the copy was that answered.

Two loads: as fast as answers come (each connection asks again at once), and at a steady rate, where
a latency counts from the moment at which the request was due, so that what waits behind a slow
answer counts too. How old the copy was is told by the server (``/v1/status``), and measured from
here: by an answer's ``rows`` the copy had not seen the question of that number, whose score had
come over ``/v1/stream`` so long before (age). The server's own figure (stale) is the longest that
anything had been learned and was not in the copy, whether somebody asked just then or not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from scenarios.bench.provenance import command_line, provenance
from scenarios.scenario import scenario

CONSOLE = Console(width=110)
STREAM = "sine | drift('recurring', every=1000)"
CONFIG = """
pace = "{pace}"

[serve]
port = 0
journal = "journal"

[checkpoint]
folder = "commits"

[source]
scenario = "{stream}"

[metrics]
enabled = false
"""
COLUMNS = (
    *("load", "a second", "failed", "p50 ms", "p99 ms", "max ms"),
    *("age p99", "age max", "stale max"),
)
WARM = 12.0  # seconds of load before the clock runs: more than the server looks back
LOOK = 2.0  # seconds from one look at its status to the next
PATIENCE = 300.0  # seconds for the server to come up, the first time from nothing compiled
#: Of the steady load: answers that come, of those asked for; milliseconds.
SHARE, P99, STALE = 0.99, 30.0, 100.0


@dataclass
class Load:
    """What a load has measured: seconds for each answer, and how old its copy was at least."""

    name: str
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    ages: list[float] = field(default_factory=list)
    stale: float = 0.0  # the longest that the server says its copy was behind
    failed: int = 0

    def row(self) -> dict[str, float]:
        """The figures, times in milliseconds."""
        ms = 1e3 * np.array(self.latencies or [np.nan])
        age = 1e3 * np.array(self.ages or [np.nan])
        return {
            "requests": len(self.latencies),
            "failed": self.failed,
            "per_second": len(self.latencies) / self.seconds,
            "p50_ms": float(np.quantile(ms, 0.5)),
            "p99_ms": float(np.quantile(ms, 0.99)),
            "max_ms": float(ms.max()),
            "age_p99_ms": float(np.quantile(age, 0.99)),
            "age_max_ms": float(age.max()),
            "stale_max_ms": 1e3 * self.stale,
        }


class Connection(asyncio.Protocol):
    """One keep-alive connection; a request at a time."""

    def __init__(self) -> None:
        self._got = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """An answer, or a part of it."""
        self._got += data
        head, empty, body = self._got.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if not empty or at < 0:
            return
        length = int(head[at + 15 :].split(b"\r\n", 1)[0])
        if len(body) >= length and self._answer is not None:
            self._got, answer = b"", self._answer
            answer.set_result(head + b"\r\n\r\n" + body)

    def connection_lost(self, fault: Exception | None) -> None:
        """Whoever waits need not wait any more."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server hung up"))

    async def ask(self, request: bytes) -> bytes:
        """The whole answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer


def requests(rows: int = 500) -> list[bytes]:
    """Predictions as they go over the line, of rows that are not those of the stream."""
    made = []
    for event in scenario(STREAM, seed=1, rows=rows).events():
        body = json.dumps({"x": event.x}).encode()
        made.append(
            b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
    return made


async def closed(
    links: Sequence[Connection], seconds: float, load: Load, seen: dict[int, float]
) -> None:
    """Each connection asks again as soon as it has its answer."""
    bodies, until = requests(), perf_counter() + seconds

    async def one(link: Connection, at: int) -> None:
        while (begun := perf_counter()) < until:
            answer = await link.ask(bodies[at % len(bodies)])
            at += 1
            note(load, begun, begun, answer, seen)

    await asyncio.gather(*(one(link, 31 * i) for i, link in enumerate(links)))


async def steady(
    links: Sequence[Connection], seconds: float, load: Load, seen: dict[int, float], rate: float
) -> None:
    """``rate`` requests a second over all connections, each due at its own moment."""
    bodies, start = requests(), perf_counter()
    each = len(links) / rate

    async def one(link: Connection, number: int) -> None:
        for i in range(int(seconds / each)):
            due = start + (i + number / len(links)) * each
            if (early := due - perf_counter()) > 0:
                await asyncio.sleep(early)
            asked = perf_counter()
            answer = await link.ask(bodies[(31 * number + i) % len(bodies)])
            note(load, due, asked, answer, seen)

    await asyncio.gather(*(one(link, i) for i, link in enumerate(links)))


def note(load: Load, due: float, asked: float, answer: bytes, seen: dict[int, float]) -> None:
    """An answer has come; its copy had not seen row ``rows``, whose score may have come before."""
    load.latencies.append(perf_counter() - due)
    if not answer.startswith(b"HTTP/1.1 200"):
        load.failed += 1
        return
    rows = int(answer.split(b'"rows":', 1)[1].split(b",", 1)[0].rstrip(b"}"))
    load.ages.append(max(0.0, asked - seen.get(rows, asked)))


async def listen(port: int, seen: dict[int, float]) -> None:
    """Keep when the score of each row came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    writer.write(b"GET /v1/stream?kinds=scored HTTP/1.1\r\nHost: localhost\r\n\r\n")
    try:
        while line := await reader.readline():
            if line.startswith(b"data:"):
                row = line.split(b'"row":', 1)[1].split(b",", 1)[0]
                seen[int(row)] = perf_counter()
    finally:
        writer.close()


async def look(address: str, load: Load) -> None:
    """Ask the server now and then how far its copy was behind in the last ten seconds."""
    while True:
        await asyncio.sleep(LOOK)
        told = await asyncio.to_thread(status, address)
        load.stale = max(load.stale, told["copy"]["stale_max"])


async def measure(
    address: str, connections: int, seconds: float, rate: float, warm: float
) -> list[Load]:
    """Both loads, each after a warm-up of its own: the server looks back over some seconds."""
    port = int(address.rpartition(":")[2])
    loop, seen = asyncio.get_running_loop(), dict[int, float]()
    made = [await loop.create_connection(Connection, "127.0.0.1", port) for _ in range(connections)]
    links = [link for _, link in made]
    listening = asyncio.create_task(listen(port, seen))
    loads = [Load("as fast as it goes"), Load(f"{rate:g} a second")]
    for i, load in enumerate(loads):

        async def run(long: float, into: Load, steadily: bool = i > 0) -> None:
            if steadily:
                await steady(links, long, into, seen, rate)
            else:
                await closed(links, long, into, seen)

        await run(warm, Load("warm"))
        looking, begun = asyncio.create_task(look(address, load)), perf_counter()
        await run(seconds, load)
        load.seconds = perf_counter() - begun
        looking.cancel()
    listening.cancel()
    await asyncio.wait([listening])
    for transport, _ in made:
        transport.close()
    await asyncio.sleep(0.0)  # until they are
    return loads


def status(address: str) -> dict[str, Any]:
    """``/v1/status``."""
    with urllib.request.urlopen(f"{address}/v1/status", timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def started(folder: Path, pace: str) -> tuple[subprocess.Popen[str], str]:
    """A run with its API, and where it answers."""
    (folder / "run.toml").write_text(CONFIG.format(pace=pace, stream=STREAM))
    command = [sys.executable, "-m", "streammeta.cli", "run", "run.toml"]
    with (folder / "told").open("w") as told:
        running = subprocess.Popen(command, cwd=folder, stderr=told, text=True)
    until = perf_counter() + PATIENCE
    while perf_counter() < until and running.poll() is None:
        for line in (folder / "told").read_text().splitlines():
            if "api: http" in line:
                return running, line.partition("api: ")[2].strip()
        sleep(0.1)
    running.kill()
    raise SystemExit((folder / "told").read_text())


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    asked = argparse.ArgumentParser("python -m scenarios.serve_bench", description=__doc__)
    asked.add_argument("--seconds", type=float, default=20.0, help="of each load")
    asked.add_argument("--connections", type=int, default=16)
    asked.add_argument("--rate", type=float, default=1000.0, help="of the steady load, a second")
    asked.add_argument("--warm", type=float, default=WARM, help="seconds of each load before")
    asked.add_argument("--pace", default="200/s", help="of the stream that the model learns")
    asked.add_argument("--json", type=Path, help="write the figures here as well")
    asked.add_argument("--check", action="store_true", help="exit 1 if the steady load is too much")
    given = asked.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        running, address = started(Path(folder), given.pace)
        try:
            loads = asyncio.run(
                measure(address, given.connections, given.seconds, given.rate, given.warm)
            )
            told = status(address)
        finally:
            running.terminate()
            running.wait()
    show(loads, told, given.pace)
    if given.json is not None:
        figures = {load.name: load.row() for load in loads}
        command = command_line("python -m scenarios.serve_bench")
        record = {"command": command, "stream": STREAM, "loads": figures, "status": told}
        given.json.write_text(json.dumps(record | provenance(), indent=1, default=str) + "\n")
    faults = faults_of(loads[-1], given.rate)
    for fault in faults if given.check else ():
        CONSOLE.print(f"FAILED  {fault}", markup=False)
    return int(given.check and bool(faults))


def faults_of(load: Load, rate: float) -> list[str]:
    """What is too much at a steady ``rate``."""
    row = load.row()
    bounds = (
        ("answers a second", row["per_second"], rate * SHARE, row["per_second"] >= rate * SHARE),
        ("failed", row["failed"], 0, not row["failed"]),
        ("p99 in ms", row["p99_ms"], P99, row["p99_ms"] < P99),
        ("stale in ms", row["stale_max_ms"], STALE, row["stale_max_ms"] <= STALE),
    )
    return [f"{name} {value:.1f}, bound {bound:g}" for name, value, bound, ok in bounds if not ok]


def show(loads: Sequence[Load], told: dict[str, Any], pace: str) -> None:
    """A table, and what the server says of itself."""
    table = Table(title=f"predictions over HTTP while the model learns {pace} events of {STREAM}")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "load" else "right")
    for load in loads:
        row = load.row()
        cells = [value for name, value in row.items() if name.endswith("_ms")]
        speed, failed = f"{row['per_second']:,.0f}", f"{row['failed']:,}"
        table.add_row(load.name, speed, failed, *(f"{cell:.1f}" for cell in cells))
    CONSOLE.print(table)
    copy, model = told["copy"], told["model"]
    CONSOLE.print(
        f"the server: {model['rows']:,} rows learned, {model['segments'] - 1} drifts, "
        f"{model['meta_updates']:,} outer steps; the last of {copy['copies']:,} copies took "
        f"{1e3 * copy['took']:.2f} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
