"""The embedded runner: one process, one shard, until the source ends or somebody says stop."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal, NamedTuple

from streammeta.errors import UsageError
from streammeta.events import Event, Output
from streammeta.runtime.host import ShardHost
from streammeta.sources.clock import Clock, SystemClock

_BATCH = 256  # events per poll at full speed: small enough to stop within a moment
_TICK = 0.05  # seconds: what a paced poll covers, and the wait when a source has nothing yet
_NAP = 0.25  # seconds: longest sleep, so that a stop is noticed


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast events are taken: as fast as possible, so many per second, or by event time.

    ``value``: events per second (``rate``), or seconds of event time per second (``time``).
    """

    kind: Literal["max", "rate", "time"]
    value: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Pace:
        """From ``max``, ``500/s``, ``10x`` or ``realtime`` (= ``1x``).

        Raises:
            UsageError: anything else.

        >>> Pace.parse("500/s"), Pace.parse("realtime")
        (Pace(kind='rate', value=500.0), Pace(kind='time', value=1.0))
        """
        if text == "max":
            return cls("max")
        if text == "realtime":
            return cls("time", 1.0)
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(/s|x)", text.strip())
        if match is None or float(match[1]) <= 0:
            raise UsageError(f"pace is {text!r}, expected max, realtime, 10x or 500/s")
        return cls("rate" if match[2] == "/s" else "time", float(match[1]))


class RunEnd(NamedTuple):
    """Why a run ended, and the events it took in this process and over the whole stream."""

    reason: Literal["finished", "max_events", "stopped"]
    events: int
    total: int


class _Pacer:
    """When the events at hand are due, as a function of the clock at the first of them."""

    def __init__(self, pace: Pace, clock: Clock) -> None:
        self._pace, self._clock = pace, clock
        self._begin: float | None = None
        self._first_ts: float | None = None
        self._taken = 0

    def batch(self) -> int:
        """How many events to ask for."""
        if self._pace.kind == "rate":
            return max(int(self._pace.value * _TICK), 1)
        return 1 if self._pace.kind == "time" else _BATCH

    def due(self, events: list[Event]) -> float:
        """Seconds to wait before these events may be processed."""
        if self._pace.kind == "max":
            return 0.0
        now = self._clock.now()
        if self._begin is None:
            self._begin = now
        if self._pace.kind == "rate":
            at = self._taken / self._pace.value
        else:
            times = [event.ts for event in events if event.ts is not None]
            if not times and self._first_ts is None:
                raise UsageError(
                    f"pace by event time, but event {events[0].id} has none: name the time column, "
                    f"or use a pace like 500/s"
                )
            if self._first_ts is None:
                self._first_ts = times[0]
            newest = max(times, default=self._first_ts)
            at = (newest - self._first_ts) / self._pace.value
        return max(self._begin + at - now, 0.0)

    def took(self, events: int) -> None:
        self._taken += events


def run_local(
    host: ShardHost,
    *,
    pace: Pace | str = "max",
    max_events: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_outputs: Callable[[list[Output]], None] | None = None,
    on_wait: Callable[[], None] | None = None,
    on_turn: Callable[[], None] | None = None,
    commit_seconds: float | None = None,
    clock: Clock | None = None,
) -> RunEnd:
    """Drive an open host until its source is finished, ``max_events`` are read or ``stop()``.

    However it ends, the chunk at hand is finished, then committed, then the host is closed; on an
    error the host is dropped without a commit and the error goes on. ``max_events`` is rounded up
    to whole chunks: a chunk cut short would make a resumed run differ from an uninterrupted one.

    Args:
        host: a host on which ``open`` has been called.
        pace: see ``Pace.parse``.
        max_events: events to read in this call.
        stop: asked between polls (every 256 events or sooner).
        on_outputs: called with the outputs of every poll that had some.
        on_wait: called whenever the source has nothing for now, 20 times a second.
        on_turn: called before every poll, between two chunks: the place for what somebody outside
            wants of the host.
        commit_seconds: commit at least so often while events come, besides the host's own
            ``commit_every``: a slow live stream would else be committed too seldom.
        clock: time; the machine's own by default.
    """
    clock = clock or SystemClock()
    pacer = _Pacer(Pace.parse(pace) if isinstance(pace, str) else pace, clock)
    taken = 0
    committed = clock.now()
    reason: Literal["finished", "max_events", "stopped"] = "stopped"
    try:
        while not stop():
            if max_events is not None and taken >= max_events:
                reason = "max_events"
                break
            if on_turn is not None:
                on_turn()
            if commit_seconds is not None and clock.now() - committed >= commit_seconds:
                host.commit()
                committed = clock.now()
            left = pacer.batch() if max_events is None else min(pacer.batch(), max_events - taken)
            events = host.fetch(left)
            if not events:
                if host.finished():
                    reason = "finished"
                    break
                host.process()
                if on_wait is not None:
                    on_wait()
                clock.sleep(_TICK)
                continue
            wait = pacer.due(events)
            if wait > 0:
                clock.sleep(min(wait, _NAP))
                continue
            outputs = host.process()
            taken += len(events)
            pacer.took(len(events))
            if outputs and on_outputs is not None:
                on_outputs(outputs)
        total = host.statistics().events
        host.close()
    except BaseException:
        host.drop()
        raise
    return RunEnd(reason, taken, total)


@contextmanager
def drain_on_signals() -> Iterator[Callable[[], bool]]:
    """Gives the ``stop`` for ``run_local``: true once SIGTERM or SIGINT has come.

    The first signal asks for a drain (finish the chunk, commit, close; exit code 0). A second
    SIGINT ends the process at once with code 130; what was not committed will be read again.
    Works in the main thread only.
    """
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            os._exit(130)  # not an exception: nothing that runs meanwhile may swallow it
        asked.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, old in before.items():
            signal.signal(number, old)
