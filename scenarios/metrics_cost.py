"""What watching a run costs for each event: ``python -m scenarios.metrics_cost``.

A default model runs over a recorded stream once and everything that a host tells its observer is
kept: the stages of every chunk, the outputs of every read, all of it. Then a host's part and that
of ``Metrics`` are done again on that, with nothing of the model, by the clock of the thread's own
CPU time. A scrape is timed too: it happens in another thread, but takes its time from the same
interpreter. What a call of an empty function costs at that moment says how fast the machine is.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, thread_time
from timeit import repeat
from typing import NamedTuple

from rich.console import Console

from scenarios.bench.provenance import command_line, provenance
from scenarios.scenario import scenario
from streammeta.config import ModelConfig
from streammeta.core import untimed
from streammeta.engine import Engine
from streammeta.events import Output
from streammeta.metrics import Metrics
from streammeta.metrics.prequential import Task
from streammeta.runtime.host import Laps

STREAM = "sensor_fault"  # classes; and the other task
OTHER = "friedman"
ROWS, READ = 4_000, 256  # events, and how many a host reads at once
DEAR = 3.0  # microseconds for each event that watching may cost where many are read at once
TIMES = 9  # the same is done, and the cheapest counts: what else a machine does is no cost


class Read(NamedTuple):
    """What an observer heard of one read: stages by chunk, what came out, the newest event time."""

    stages: list[list[str]]
    outputs: list[Output]
    ts: float | None
    events: int


class Cost(NamedTuple):
    """Microseconds for each event, of the stopwatch, of the counting and of both; milliseconds of a
    scrape, and the bytes that it gave."""

    laps: float
    counting: float
    total: float
    scrape: float
    size: int


def heard(name: str, rows: int = ROWS, read: int = READ, seed: int = 0) -> tuple[str, list[Read]]:
    """The task of a scenario and all that a default model at chunk 1 lets a host hear of it."""
    stream = scenario(name, seed=seed, rows=rows)
    engine = Engine(ModelConfig.model_validate({"task": stream.card.task, "seed": seed}))
    marks: list[str] = []
    engine.lap = marks.append
    reads: list[Read] = []
    events = list(stream.events())
    for start in range(0, len(events), read):
        part = events[start : start + read]
        stages, outputs = [], []
        for event in part:
            outputs += engine.observe([event]) + engine.replay()
            stages.append(marks[:])
            marks.clear()
        reads.append(Read(stages, outputs, part[-1].ts or 1.7e9 + start, len(part)))
    return stream.card.task, reads


def cost(task: str, reads: Sequence[Read], sinks: int = 2) -> Cost:
    """Of each part of the stream, ``READ`` events, the cheapest of ``TIMES`` repetitions, added up.

    A part is repeated before the next one comes: what a host tells was made a moment ago, and is
    no further away from the processor than here.
    """
    kind: Task = "regression" if task == "regression" else "classification"
    watchers = [(Metrics("m", kind), Laps(1)) for _ in range(TIMES)]
    laps_, counting = 0.0, 0.0
    size = max(READ // reads[0].events, 1)
    for first in range(0, len(reads), size):
        part, timed, counted = reads[first : first + size], [], []
        for metrics, laps in watchers:
            start = thread_time()
            for read in part:
                _time_chunks(metrics, laps, read)
            middle = thread_time()
            for read in part:
                _count(metrics, read, sinks)
            timed.append(middle - start)
            counted.append(thread_time() - middle)
        laps_ += min(timed)
        counting += min(counted)
    scrapes = []
    for metrics, _ in watchers:
        start = thread_time()
        _, body = metrics.render()
        scrapes.append(thread_time() - start)
    of_event = 1e6 / sum(read.events for read in reads)
    both = laps_ + counting
    return Cost(
        of_event * laps_, of_event * counting, of_event * both, 1e3 * min(scrapes), len(body)
    )


def _count(metrics: Metrics, read: Read, sinks: int) -> None:
    """What a host tells of a read."""
    metrics.stage("decode", 1e-4)
    metrics.ingested("stream", read.events, read.ts)
    metrics.record(read.outputs)
    for sink in range(sinks):
        metrics.stage("sink", 1e-4)
        metrics.delivered(f"sink-{sink}", read.events)


def _time_chunks(metrics: Metrics, laps: Laps, read: Read) -> None:
    """What a host does around each chunk of one event, and what the engine does in it."""
    for stages in read.stages:
        if laps.due():
            laps.start()
            for stage in stages:
                laps(stage)
            for stage, seconds in laps.read().items():
                metrics.stage(stage, seconds)
        else:
            for stage in stages:
                untimed(stage)
        perf_counter()


def empty_call() -> float:
    """Nanoseconds of a call that does nothing, the least of several tries."""
    return 1e9 * min(repeat("f(1)", "def f(x): return x", thread_time, number=100_000)) / 100_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the cost for a stream of classes and one of values, for large reads and single ones."""
    asked = argparse.ArgumentParser("python -m scenarios.metrics_cost", description=__doc__)
    asked.add_argument("--rows", type=int, default=ROWS, help="events of each stream")
    asked.add_argument("--json", type=Path, help="write the figures here as well")
    asked.add_argument(
        "--check", action="store_true", help=f"exit 1 if {READ} a read cost {DEAR} us or more"
    )
    given = asked.parse_args(arguments)
    console, found = Console(width=110), []
    for name in (STREAM, OTHER):
        for read in (READ, 1):
            told = cost(*heard(name, given.rows, read))
            found.append({"stream": name, "events": given.rows, "read": read} | told._asdict())
            console.print(
                f"{name}, {given.rows:,} events, {read} a read: {told.total:.2f} us for each event "
                f"(stages {told.laps:.2f}, counts {told.counting:.2f}); "
                f"a scrape {told.scrape:.1f} ms, {told.size / 1000:.0f} kB"
            )
    empty = empty_call()
    console.print(f"a call of an empty function: {empty:.0f} ns")
    if given.json is not None:
        command = command_line("python -m scenarios.metrics_cost")
        record = {"command": command, "empty_call_ns": empty, "costs": found} | provenance()
        given.json.write_text(json.dumps(record, indent=1) + "\n")
    dear = [cost for cost in found if cost["read"] == READ and cost["total"] >= DEAR]
    return int(given.check and bool(dear))


if __name__ == "__main__":
    sys.exit(main())
