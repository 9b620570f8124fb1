"""Runs that are killed with SIGKILL at random moments, over every kind of source, and a long one
whose memory is watched. ``make soak`` is 200 kills and 2,000,000 events of a small model, which is
fast, and 300,000 of the default one; the result is kept::

    python tests/soak.py --kills 200 --long 2000000 --default 300000 --json results/soak.json
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import judge

EVENTS = 50_000
SEED = 20
PATIENCE = 600.0  # seconds without an answer after which a run is taken for stuck (it may compile)
SETTLED = 20.0  # seconds after which a run that answers nothing has come up
RESENT = 262_144  # bytes: more than a pipe and a reader's buffer hold

CONFIG = """
[source]
{source}

[model]
task = "classification"
experts = ["networks", "persistence"]
hidden = [8]
challengers = 2
scouts = [8]
partner = "none"
label_ttl = 100.0
seed = 5

[[sinks]]
kind = "stdout"

[[sinks]]
path = "out.jsonl"
outputs = ["predicted", "scored"]

[[sinks]]
kind = "dead_letter"
path = "dead.jsonl"

[metrics]
enabled = false

[checkpoint]
folder = "checkpoints"
every_events = 1000
every_seconds = 3600
"""


def lines_of(events: int, seed: int, late: bool = True, begins: float = 0.0) -> list[bytes]:
    """Records of a stream that changes every 9,000 of them; the last one has its label with it.

    With ``late`` some labels come 7 records after their question, some never, and some lines are
    no JSON.
    """
    rng = random.Random(seed)
    lines: list[bytes] = []
    waiting: list[tuple[int, str, int]] = []
    n = 0
    while len(lines) < events:
        if waiting and waiting[0][0] <= len(lines) < events - 1:
            _, name, y = waiting.pop(0)
            record = {"id": name, "ts": begins + len(lines) / 10, "y": y}
            lines.append(json.dumps(record, separators=(",", ":")).encode())
            continue
        last = len(lines) == events - 1
        if late and not last and rng.random() < 0.002:
            lines.append(b"line %d is no JSON" % len(lines))
            continue
        a, b = round(rng.random(), 3), round(rng.gauss(0.0, 1.0), 3)
        sign = 1 if len(lines) // 9000 % 2 else -1
        y, name = int(sign * (2 * a - 1 + b) > 0), f"q{n}"
        n += 1
        record = {"id": name, "ts": begins + len(lines) / 10, "x": {"a": a, "b": b}}
        fate = rng.random() if late and not last else 1.0
        if fate < 0.05:
            waiting.append((len(lines) + 7, name, y))
        elif fate >= 0.06:
            record["y"] = y
        lines.append(json.dumps(record, separators=(",", ":")).encode())
    return lines


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# -- what feeds a run --------------------------------------------------------------------------


@dataclass
class Feed:
    """Where the records come from: the section of the config, and who sends while runs live.

    ``sends(stop)`` runs in a thread from before the first life to after the last one. With
    ``pipes`` life N reads ``pipe.N`` as its stdin. A source with ``ends`` comes to an end itself.
    """

    source: str
    ends: bool = False
    sends: Callable[[threading.Event], None] | None = None
    pipes: bool = False
    sent_twice: bool = False
    rows: bool = False  # rows with a label each, where there are no envelopes


def csv_file(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    with open(folder / "rows.csv", "w") as file:
        file.write("id,ts,a,b,y\n")
        for record in map(json.loads, lines):
            x = record["x"]
            file.write(f"{record['id']},{record['ts']},{x['a']},{x['b']},{record['y']}\n")
    return Feed('path = "rows.csv"\ntarget = "y"\nid = "id"\ntime = "ts"', ends=True, rows=True)


def parquet_file(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [{**(r := json.loads(line)), **r["x"]} for line in lines]
    names = ("id", "ts", "a", "b", "y")
    table = pa.Table.from_pylist([{n: row[n] for n in names} for row in rows])
    parquet.write_table(table, folder / "rows.parquet")
    source = 'path = "rows.parquet"\ntarget = "y"\nid = "id"\ntime = "ts"'
    return Feed(source, ends=True, rows=True)


def jsonl_file(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    return Feed('path = "rows.jsonl"', ends=True)


def followed_file(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    """Written in pieces that end anywhere, and renamed four times once there is a commit: a run
    without one begins with the file as it is."""
    path = folder / "rows.jsonl"
    rng = random.Random(len(lines))

    def sends(stop: threading.Event) -> None:
        per_file = max(-(-len(lines) // 5), 1500)  # the first is longer than a commit's share
        for number in range(5):
            data = b"".join(line + b"\n" for line in lines[number * per_file :][:per_file])
            with open(path, "ab") as file:
                while data and not stop.is_set():
                    size = rng.randrange(1, 60_000)
                    file.write(data[:size])
                    file.flush()
                    data = data[size:]
                    time.sleep(0.02)
            while not stop.is_set() and not any(folder.glob("checkpoints/*/*.commit")):
                time.sleep(0.05)
            if number < 4:
                path.rename(folder / f"rows.jsonl.2026010{number}")

    return Feed('kind = "follow"\npath = "rows.jsonl"', sends=sends)


def redis_stream(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    import redis
    import servers

    server = _started(servers.Redis(_made(folder / "redis")), opened)
    with redis.Redis.from_url(server.url) as client:
        for first in range(0, len(lines), 1000):
            pipe = client.pipeline(transaction=False)
            for i, line in enumerate(lines[first : first + 1000], first + 1):
                pipe.xadd("rows", {"data": line}, id=f"{i}-0")
            pipe.execute()
    return Feed(f'kind = "redis"\nurl = "{server.url}"\nstream = "rows"')


def jetstream(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    import jetstreams
    import servers

    server = _started(servers.Nats(_made(folder / "nats")), opened)
    streams = jetstreams.Streams(server.url)
    streams.make("rows")
    streams.publish("rows.a", lines)
    return Feed(f'kind = "nats"\nurl = "{server.url}"\nstream = "rows"')


def kafka_topic(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    """librdkafka's mock cluster, one partition."""
    import kafkas

    cluster = kafkas.Cluster()
    opened.callback(cluster.end)
    cluster.produce("rows", lines)
    assert cluster.ends("rows") == (0, len(lines)), "the mock cluster does not hold all of it"
    return Feed(f'kind = "kafka"\nservers = "{cluster.servers}"\ntopic = "rows"')


def http_posts(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    """A sender who posts again what it got no answer for."""
    port = free_port()

    def sends(stop: threading.Event) -> None:
        first = 0
        while first < len(lines) and not stop.is_set():
            body = b"\n".join(lines[first : first + 100])
            try:
                url = f"http://127.0.0.1:{port}/events"
                with urllib.request.urlopen(url, body, timeout=10) as answer:
                    first += json.load(answer)["accepted"]
            except urllib.error.HTTPError as refusal:
                refusal.close()
                time.sleep(0.05)  # 429: events wait to be read
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)  # nobody is there, or was killed in the middle of its answer

    source = f'kind = "http"\njournal = "journal"\nport = {port}'
    return Feed(source, sends=sends, sent_twice=True)


def mqtt_topic(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    import servers
    from mqtt_clients import publish, subscribed

    from streammeta.sources.mqtt import MqttSource

    server = _started(servers.Mosquitto(_made(folder / "mosquitto")), opened)
    session = MqttSource("127.0.0.1", "plant/+", "soak", str(folder / "journal"), port=server.port)
    subscribed(session).close()  # from now on the broker keeps what comes
    publish(server.port, lines)
    source = (
        f'kind = "mqtt"\nhost = "127.0.0.1"\nport = {server.port}\ntopic = "plant/+"\n'
        f'client_id = "soak"\njournal = "journal"'
    )
    return Feed(source, sent_twice=True)


def stdin_pipe(folder: Path, lines: list[bytes], opened: ExitStack) -> Feed:
    """A producer that begins some lines earlier for the next reader when one has died: nobody can
    know how much of what was in the pipe has arrived."""
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)

    def sends(stop: threading.Event) -> None:
        at = life = 0
        while (handle := _opened(folder, life, stop)) is not None:
            resent = starts[at] - RESENT
            while at and starts[at] > resent:
                at -= 1
            try:
                with open(handle, "wb", buffering=0) as writer:
                    while at < len(lines):
                        writer.write(lines[at] + b"\n")
                        at += 1
            except BrokenPipeError:
                pass
            life += 1

    return Feed('kind = "stdin"\njournal = "journal"', True, sends, pipes=True, sent_twice=True)


def _opened(folder: Path, life: int, stop: threading.Event) -> int | None:
    """The pipe into a life, once it is there; or into a later one, when it has died before."""
    while not stop.is_set():
        while (folder / f"pipe.{life + 1}").exists():
            life += 1
        try:
            handle = os.open(folder / f"pipe.{life}", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no pipe yet, or no reader
            time.sleep(0.005)
            continue
        os.set_blocking(handle, True)
        return handle
    return None


FEEDS: dict[str, Callable[[Path, list[bytes], ExitStack], Feed]] = {
    "csv": csv_file,
    "jsonl": jsonl_file,
    "parquet": parquet_file,
    "follow": followed_file,
    "redis": redis_stream,
    "nats": jetstream,
    "kafka": kafka_topic,
    "http": http_posts,
    "mqtt": mqtt_topic,
    "stdin": stdin_pipe,
}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _started(server: Any, opened: ExitStack) -> Any:
    server.start()
    opened.callback(server.kill)
    return server


# -- lives -------------------------------------------------------------------------------------


def live(folder: str, stdin: str | None) -> None:
    """``streammeta run run.toml --resume`` in a process of its own: answers are appended to a file.

    A process that has imported everything already, so that a kill does not only hit imports.
    """
    from streammeta.cli import main

    os.chdir(folder)
    files = (("answers.jsonl", 1), ("told.txt", 2))
    for name, handle in files:
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), handle)
    if stdin is not None:
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
        sys.stdin = os.fdopen(0, closefd=False)
    sys.argv = ["streammeta", "run", "run.toml", "--resume"]
    main()


class Lives:
    """Starts processes from one that has imported everything and learned nothing."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["soak", "streammeta.cli.run", "streammeta.engine"])

    def start(self, folder: Path, feed: Feed) -> Any:
        stdin = None
        if feed.pipes:
            stdin = f"pipe.{len(list(folder.glob('pipe.*')))}"
            os.mkfifo(folder / stdin)
        process = self._context.Process(target=live, args=(str(folder), stdin), daemon=True)
        process.start()
        return process


class Answers:
    """The newest row that has been answered, by the tail of a file."""

    def __init__(self, path: Path) -> None:
        self._path, self.size = path, 0
        self.row = -1

    def look(self) -> int:
        if self._path.exists() and (size := self._path.stat().st_size) > self.size:
            with open(self._path, "rb") as file:
                file.seek(max(0, size - 4096))  # a line that came in pieces begins earlier
                lines = file.read().split(b"\n")[:-1]
            self.size = size
            for line in reversed(lines):
                if line.startswith(b'{"kind"') and line.endswith(b"}"):
                    self.row = json.loads(line)["row"]
                    break
        return self.row


@dataclass
class Story:
    """One run over one source, killed and gone on with until it is through."""

    name: str
    events: int
    kills: int = 0
    early: int = 0  # of them while it was starting
    repeated: int = 0  # answers that were given again after a kill
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "seconds": round(self.seconds, 1)}


def run_through(
    folder: Path, feed: Feed, last_row: int, targets: Iterator[tuple[bool, float]], lives: Lives
) -> tuple[int, int]:
    """Live until every question is answered; each target is a kill: (while it starts, after so many
    seconds) or (at such a share of the questions). Returns all kills, and those at the start."""
    answers, kills, early = Answers(folder / "answers.jsonl"), 0, 0
    target = next(targets, None)
    rng = random.Random(last_row)
    while True:
        process = lives.start(folder, feed)
        begun = seen = time.monotonic()
        was = answers.size
        while process.is_alive():
            row, before = answers.row, time.monotonic()
            if answers.look() != row:
                seen = before
            assert before - seen < PATIENCE, f"stuck after row {row}: {_told(folder)}"
            if target is None:
                # the life before may have said all of it: this one has to be there to hear us
                here = answers.size > was or before - begun > SETTLED
                if answers.row >= last_row and here and not feed.ends:
                    process.terminate()  # drains, commits and ends
                    break
            elif target[0] and before - begun >= target[1]:
                break
            elif not target[0] and answers.row >= target[1] * last_row:
                time.sleep(rng.uniform(0.0, 0.05))
                break
            time.sleep(0.002)
        if target is None:
            process.join()
            assert process.exitcode == 0, _told(folder)
            return kills, early
        if process.is_alive():
            process.kill()
            kills, early = kills + 1, early + target[0]
        process.join()
        assert process.exitcode in (0, -9), _told(folder)
        target = next(targets, None)


def _told(folder: Path) -> str:
    return (folder / "told.txt").read_text(errors="replace")[-2000:]


def points(kills: int, rng: random.Random) -> Iterator[tuple[bool, float]]:
    """Where to kill: anywhere in the stream, every eighth while the run is starting."""
    at = sorted(rng.random() for _ in range(kills))
    for i, share in enumerate(at):
        yield (True, rng.uniform(0.0, 0.8)) if i % 8 == 5 else (False, share)


def prepared(folder: Path, name: str, lines: list[bytes], opened: ExitStack) -> Feed:
    folder.mkdir()
    feed = FEEDS[name](folder, lines, opened)
    (folder / "run.toml").write_text(CONFIG.format(source=feed.source))
    return feed


def story(
    name: str, folder: Path, lines: list[bytes], whole: judge.Commit, kills: int, seed: int,
    lives: Lives,
) -> Story:  # fmt: skip
    """Kill a run over one kind of source ``kills`` times, and have it judged."""
    told = Story(name, len(lines))
    begun = time.monotonic()
    given = judge.Input.of(lines)
    with ExitStack() as opened:
        feed = prepared(folder, name, lines, opened)
        stop = threading.Event()
        sender = None
        if feed.sends is not None:
            sender = threading.Thread(target=feed.sends, args=(stop,), daemon=True)
            sender.start()
        targets = points(kills, random.Random(f"{seed}-{name}"))
        try:
            told.kills, told.early = run_through(
                folder, feed, len(given.questions) - 1, targets, lives
            )
        except AssertionError as fault:
            return Story(name, len(lines), faults=[str(fault)])
        finally:
            stop.set()
        if sender is not None:
            sender.join(10)
    told.faults = judge.faults(given, folder, whole, sent_twice=feed.sent_twice)
    told.repeated, other = judge.said_twice(folder / "answers.jsonl")
    if other:
        told.faults.append(f"{len(other)} answers were other ones after a kill: {other[0]}")
    told.seconds = time.monotonic() - begun
    return told


def reference(folder: Path, name: str, lines: list[bytes], lives: Lives) -> judge.Commit:
    """The last commit of a run that nobody kills."""
    with ExitStack() as opened:
        feed = prepared(folder, name, lines, opened)
        run_through(folder, feed, 0, iter(()), lives)
    return judge.Commit.newest(folder / "checkpoints")


def kill_all(
    names: list[str], kills: int, events: int, seed: int, heard: Callable[[Story], None]
) -> list[Story]:
    """The stories of all sources; ``kills`` are shared out among them."""
    stories, lives = [], Lives()
    wholes: dict[bool, tuple[list[bytes], judge.Commit]] = {}
    for i, name in enumerate(names):
        rows = name in ("csv", "parquet")
        with TemporaryDirectory(prefix="soak-") as place:
            if rows not in wholes:
                lines = lines_of(events, seed, late=not rows)
                kind = "csv" if rows else "jsonl"
                commit = reference(Path(place) / "whole", kind, lines, lives)
                wholes[rows] = lines, commit
            lines, whole = wholes[rows]
            share = kills // len(names) + (i < kills % len(names))
            folder = Path(place) / "killed"
            stories.append(story(name, folder, lines, whole, share, seed, lives))
        heard(stories[-1])
    return stories


# -- memory ------------------------------------------------------------------------------------


def rss_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


#: The model and what stands beside it as a new user has them, in the place of the small ones.
DEFAULT = """
[model]
task = "classification"
label_ttl = 100.0
seed = 5

[[sinks]]
kind = "dead_letter"
path = "dead.jsonl"

[serve]
port = 0

[metrics]
port = 0
"""


def long_run(events: int, seed: int, chunk: int = 64, *, default: bool = False) -> dict[str, Any]:
    """Resident memory while one run takes so many events: samples, and how much it grew from behind
    the first tenth to the end, by medians of five: a sample that falls into a commit has the
    snapshot's bytes as well. With ``default`` the model is the default one, with API, page and
    metrics."""
    samples: list[tuple[int, float]] = []
    begun, every = time.monotonic(), 6400
    with TemporaryDirectory(prefix="soak-") as place, ExitStack() as opened:
        folder = Path(place) / "long"
        feed = prepared(folder, "jsonl", [], opened)
        with open(folder / "rows.jsonl", "wb") as file:
            for part in range(-(-events // 100_000)):
                size = min(100_000, events - part * 100_000)
                begins = part * 100_000 / 10  # each part goes on where time was
                for line in lines_of(size, seed + part, begins=begins):
                    file.write(line.replace(b'"q', b'"p%dq' % part) + b"\n")
        text = (folder / "run.toml").read_text()
        first, sinks, then, commits = map(
            text.index, ("[model]", "[[sinks]]", "[metrics]", "[checkpoint]")
        )
        if default:
            text = text[:first] + DEFAULT.lstrip() + "\n" + text[commits:]
        else:
            dead = '[[sinks]]\nkind = "dead_letter"\npath = "dead.jsonl"\n\n'
            text = text[:sinks] + dead + text[then:]
        text = text.replace("seed = 5", f"seed = 5\nchunk = {chunk}")
        text = text.replace("every_events = 1000", f"every_events = {every}")
        (folder / "run.toml").write_text(text)
        process = Lives().start(folder, feed)
        while process.is_alive():
            epochs = [int(p.stem) for p in (folder / "checkpoints").rglob("0*.commit")]
            if epochs and (not samples or max(epochs) * every >= samples[-1][0] + events // 40):
                samples.append((max(epochs) * every, round(rss_mib(process.pid), 1)))
            time.sleep(0.1)
        process.join()
        assert process.exitcode == 0, _told(folder)
        done = judge.Commit.newest(folder / "checkpoints").events
    settled = [mib for at, mib in samples if at >= events // 10]
    return {
        "events": done,
        "model": "default" if default else "small",
        "chunk": chunk,
        "seconds": round(time.monotonic() - begun, 1),
        "rss_mib": samples,
        "growth_mib": round(median(settled[-5:]) - median(settled[:5]), 1),
        "spread_mib": round(max(settled) - min(settled), 1),
    }


def said(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - its only output


def main() -> int:
    """The whole soak; 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="shared out among the sources")
    parser.add_argument("--events", type=int, default=EVENTS, help="records of each source")
    parser.add_argument("--long", type=int, default=0, help="events of the run with flat memory")
    parser.add_argument("--default", type=int, default=0, help="the same, of the default model")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--sources", default=",".join(FEEDS), help="names, with commas")
    parser.add_argument("--json", type=Path, help="where to keep the result")
    given = parser.parse_args()
    from scenarios.bench.provenance import provenance

    def say(told: Story) -> None:
        verdict = "; ".join(told.faults) or "all once, same state"
        said(f"{told.name:8} {told.kills:3} kills  {told.seconds:6.1f} s  {verdict}")

    result: dict[str, Any] = {
        "command": " ".join(["python", "tests/soak.py", *sys.argv[1:]]),
        **provenance(),
        "seed": given.seed,
        "finished": False,
        "kills": 0,
        "sources": [],
        "memory": [],
    }

    def keep() -> None:
        if given.json is not None:
            given.json.write_text(json.dumps(result, indent=1) + "\n")

    def heard(told: Story) -> None:
        say(told)
        result["kills"] += told.kills
        result["sources"].append(told.to_json())
        keep()

    stories = kill_all(given.sources.split(","), given.kills, given.events, given.seed, heard)
    grown = []
    for length, default in ((given.long, False), (given.default, True)):
        if length:
            told = long_run(length, given.seed, 1 if default else 64, default=default)
            result["memory"].append(told)
            grown.append(told["growth_mib"])
            keep()
            said(f"{length:,} events, {told['model']} model: {grown[-1]} MiB more")
    result["finished"] = True
    keep()
    return int(any(mib > FLAT_MIB for mib in grown) or any(told.faults for told in stories))


FLAT_MIB = 16.0  # what resident memory may grow by, from the first tenth to the end

if __name__ == "__main__":
    sys.exit(main())
