"""For tests of anything built on streammeta: a scripted source, a list sink, a fake clock, and
the contracts that every source (``check_source``) and every sink (``check_sink``) keeps.

A story is a list::

    ScriptedSource([event, PAUSE, event, CRASH, event, END])

``PAUSE`` is a moment without news, ``CRASH`` raises ``Crash`` the first time it is reached (run
the same source again and it goes on), ``END`` closes the stream; without it the source is live
and merely has nothing yet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import Enum
from typing import Any, Final, Literal

from streammeta.errors import SourceError
from streammeta.events import (
    Adapted,
    DriftDetected,
    Event,
    MetaUpdated,
    Output,
    Predicted,
    Rejected,
    SchemaChanged,
    Scored,
    to_record,
)
from streammeta.sinks.base import Sink
from streammeta.sinks.memory import ListSink
from streammeta.sources.base import Live, Position, Source
from streammeta.sources.clock import Clock, SystemClock

__all__ = [
    "CRASH",
    "END",
    "PAUSE",
    "Crash",
    "FakeClock",
    "ListSink",
    "ScriptedSource",
    "check_sink",
    "check_source",
    "identity",
    "read_all",
    "sample_outputs",
]


class _Cue(Enum):
    CRASH = "crash"
    PAUSE = "pause"
    END = "end"


CRASH: Final = _Cue.CRASH
PAUSE: Final = _Cue.PAUSE
END: Final = _Cue.END
Cue = Literal[_Cue.CRASH, _Cue.PAUSE, _Cue.END]


class Crash(Exception):  # noqa: N818 - stands for the end of a process
    """What a scripted source raises at ``CRASH``."""


class ScriptedSource:
    """Plays a list of events and cues; positions are indices into the script.

    >>> source = ScriptedSource([Event("a"), PAUSE, Event("b"), END])
    >>> one, p = source.read(source.start(), 9)
    >>> two, p = source.read(p, 9)
    >>> [e.id for e in one], [e.id for e in two], source.finished(p)
    (['a'], ['b'], True)
    """

    def __init__(self, script: Sequence[Event | Cue], name: str = "script") -> None:
        self.name = name
        self._script = list(script)
        self._crashed: set[int] = set()

    def start(self) -> Position:
        """Before the first item."""
        return {"item": 0}

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """Events up to the next cue."""
        at = int(position["item"])
        events: list[Event] = []
        while at < len(self._script) and len(events) < n:
            item = self._script[at]
            if isinstance(item, Event):
                events.append(item)
                at += 1
            elif item is END:
                break
            elif item is CRASH and at not in self._crashed:
                if events:
                    break  # the events before the crash are read first
                self._crashed.add(at)
                raise Crash(f"{self.name}: item {at}")
            else:
                at += 1
                if item is PAUSE:
                    break
        return events, {"item": at}

    def finished(self, position: Position) -> bool:
        """True at ``END``."""
        at = int(position["item"])
        return at < len(self._script) and self._script[at] is END

    def close(self) -> None:
        """Nothing to let go of."""


class FakeClock:
    """Time that passes only by sleeping; ``slept`` adds up all sleeps in seconds."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self.slept = 0.0

    def now(self) -> float:
        """Seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass at once."""
        self._now += seconds
        self.slept += seconds


def read_all(
    source: Source,
    position: Position,
    events: int,
    *,
    n: int = 7,
    clock: Clock | None = None,
    patience: float = 10.0,
) -> tuple[list[Event], Position]:
    """Read until ``events`` have come, and look once more whether there is not one too many.

    A live source may need a moment: it is asked again for up to ``patience`` seconds.
    """
    clock = clock or SystemClock()
    found: list[Event] = []
    until = clock.now() + patience
    while len(found) < events:
        given = json.dumps(position)
        batch, after = source.read(position, n)
        _demand(len(batch) <= n, f"read(position, {n}) gave {len(batch)} events")
        _demand(json.dumps(position) == given, "read changed the position that it was given")
        found, position = found + batch, _through_json(after)
        if not batch:
            _demand(clock.now() < until, f"{len(found)} of {events} events came, then no more")
            clock.sleep(0.01)
    more, end = source.read(position, n)
    _demand(not more, f"after {events} events came {more[:1]}")
    return found, _through_json(end)


def check_source(
    make: Callable[[], Source],
    events: int,
    *,
    clock: Clock | None = None,
    patience: float = 10.0,
) -> list[Event]:
    """What every source must do, tried on a stream that holds ``events`` events and stands still.

    Positions survive JSON; a read gives at most ``n`` events and leaves its position alone; reads
    of any size give the same events in the same order; a new source goes on after any position
    exactly as the old one would have; an earlier position can be read again; no two questions and
    no two answers have one id; nothing at the end is an empty list; a position that is none is a
    ``SourceError``; ``close`` may be called twice and ``read`` after it. One source is open at a
    time.

    Args:
        make: a new source on the same stream, at least two events long; called again and again.
        events: how many there are.
        clock: what waits for a live source; the machine's own by default.
        patience: seconds to wait for a live source.

    Returns:
        The events.

    Raises:
        AssertionError: what was broken, in words.

    >>> from streammeta.sources import IterableSource
    >>> rows = [({"a": 1.0}, 0), ({"a": 2.0}, 1)]
    >>> [event.id for event in check_source(lambda: IterableSource(lambda: rows, "two"), 2)]
    ['two:0:0', 'two:0:1']
    """
    how: dict[str, Any] = {"clock": clock, "patience": patience}
    source = make()
    _demand(isinstance(source, Source), f"{source!r} lacks a method of Source")
    _demand(bool(source.name), "its name is empty, ids begin with it")
    start = _through_json(source.start())
    whole, end = read_all(source, start, events, **how)
    keys = [(event.id, event.x is None) for event in whole if event.error is None]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    _demand(not twice, f"two events have one id: {twice[:3]}")
    _demand(not source.finished(start), "finished before the first event")
    _demand(
        isinstance(source, Live) or source.finished(end),
        "not finished after the last event, though it is no live source",
    )
    again, _ = read_all(source, start, events, n=events + 1, **how)
    _demand(again == whole, "a second read from the start gave other events")
    source.close()
    source.close()
    source.read(start, 1)
    source.close()
    _check_cuts(make, whole, how)
    source = make()
    try:
        source.read({"no such": "position"}, 1)
    except SourceError:
        pass
    else:
        raise AssertionError("a position that is none was taken without a SourceError")
    finally:
        source.close()
    return whole


def _check_cuts(make: Callable[[], Source], whole: list[Event], how: dict[str, Any]) -> None:
    source = make()
    position = _through_json(source.start())
    positions = [position]
    for event in whole:
        one, position = _read_one(source, position, how)
        _demand(one == event, f"read one by one came {one}, read together {event}")
        positions.append(position)
    source.close()
    step = max(len(whole) // 12, 1)
    for done in [*range(1, len(whole), step), len(whole)]:
        source = make()
        rest, _ = read_all(source, positions[done], len(whole) - done, **how)
        _demand(rest == whole[done:], f"resumed after {done} events it went on differently")
        source.close()


def _read_one(source: Source, position: Position, how: dict[str, Any]) -> tuple[Event, Position]:
    clock, found = how["clock"] or SystemClock(), list[Event]()
    until = clock.now() + how["patience"]
    while not found:
        found, position = source.read(position, 1)
        _demand(bool(found) or clock.now() < until, "read one by one, an event did not come")
        if not found:
            clock.sleep(0.01)
    return found[0], _through_json(position)


def sample_outputs(first: int = 0) -> list[Output]:
    """A dozen outputs of all sorts, the rows counted from ``first``; for ``check_sink``."""
    outputs: list[Output] = []
    for row in range(first, first + 3):
        at = float(row)
        outputs.append(Predicted(f"s:0:{row}", "k", row, at, 2.5 * row, None))
        outputs.append(Scored(f"s:0:{row}", "k", row, at, 2.5 * row, 1.5 * row, at, 0, {"a": 0.5}))
    outputs.append(Predicted(f"s:0:{first + 3}", "", first + 3, None, "b", {"a": 0.25, "b": 0.75}))
    outputs.append(Rejected(f"s:0:{first + 4}", "decode", "malformed", "s line 5: not JSON"))
    outputs.append(DriftDetected("k", first + 2, first + 1, 1, "bank", "error"))
    outputs.append(Adapted("k", first + 2, 1, "challenger-0", "drift", 3, 0.5, float("nan")))
    outputs.append(SchemaChanged("k", first + 2, "feature_added", "wind", "was not there before"))
    outputs.append(MetaUpdated(first + 2, 1, 8, 0.5, 1.5, 0, "meta_sgd"))
    return outputs


def identity(output: Output) -> tuple[str, str, int | None]:
    """What tells an output from the others: its kind, its id ("" for none) and its row."""
    record = to_record(output)
    return record["kind"], record.get("id", ""), record.get("row")


Held = list[tuple[str, str, int | None]]


def check_sink(make: Callable[[], Sink], held: Callable[[], Held]) -> None:
    """What every durable sink must do, tried with outputs of all sorts.

    Opened without a position it is empty; positions survive JSON; everything flushed is there, in
    order, once; opened at any position that it has named it stands at that position, and what is
    written again, or written instead, takes the place of what stood after it; that holds for a
    crash at any moment, that is without ``close``; ``close`` may be called twice.

    Args:
        make: a new sink on the same place; called again and again.
        held: what is in that place, in the order of writing, each output as ``identity`` tells it.

    Raises:
        AssertionError: what was broken, in words.
    """
    with ExitStack() as last:

        def fresh() -> Sink:
            sink = make()
            last.callback(sink.close)  # late: most of them are left open, as after a crash
            return sink

        outputs = sample_outputs()
        marks = _check_writing(fresh, held, outputs)
        _check_resuming(fresh, held, outputs, marks)


def _check_writing(
    fresh: Callable[[], Sink], held: Callable[[], Held], outputs: list[Output]
) -> list[Position]:
    sink = fresh()
    _demand(isinstance(sink, Sink), f"{sink!r} lacks a method of Sink")
    _demand(sink.durable, "check_sink is for durable sinks")
    sink.open(None)
    marks = [_through_json(sink.position())]
    for output in outputs:
        taken = sink.write([output])
        _demand(taken == 1, f"write took {taken} of 1 {identity(output)}")
        sink.flush()
        marks.append(_through_json(sink.position()))
    expected = [identity(output) for output in outputs]
    _demand(held() == expected, f"it holds {held()} after {expected} were written")
    sink.close()
    sink.close()
    return marks


def _check_resuming(
    fresh: Callable[[], Sink],
    held: Callable[[], Held],
    outputs: list[Output],
    marks: list[Position],
) -> None:
    expected = [identity(output) for output in outputs]
    for done in range(0, len(outputs) + 1, 3):
        sink = fresh()
        sink.open(marks[done])
        _demand(sink.position() == marks[done], f"opened at {marks[done]}: {sink.position()}")
        sink.write(outputs[done:])
        sink.flush()
        _demand(sink.position() == marks[-1], f"it ends at {sink.position()}, not {marks[-1]}")
        _demand(held() == expected, f"resumed at {done} it holds {held()}")
    half, other = len(outputs) // 2, sample_outputs(first=50)
    sink = fresh()
    sink.open(marks[half])
    sink.write(other)
    sink.flush()
    wanted = [identity(output) for output in [*outputs[:half], *other]]
    _demand(held() == wanted, f"written otherwise from {half} on it holds {held()}")
    sink = fresh()
    sink.open(None)
    sink.flush()
    _demand(held() == [], f"opened without a position it still holds {held()[:3]}")


def _through_json(position: Position) -> Position:
    found: Position = json.loads(json.dumps(position))
    _demand(found == position, f"position {position!r} does not survive JSON")
    return found


def _demand(right: bool, told: str) -> None:
    if not right:
        raise AssertionError(told)
