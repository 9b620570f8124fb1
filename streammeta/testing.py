"""For tests of anything built on streammeta: a scripted source, a list sink, a fake clock.

A story is a list::

    ScriptedSource([event, PAUSE, event, CRASH, event, END])

``PAUSE`` is a moment without news, ``CRASH`` raises ``Crash`` the first time it is reached (run
the same source again and it goes on), ``END`` closes the stream; without it the source is live
and merely has nothing yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, Literal

from streammeta.events import Event
from streammeta.sinks.memory import ListSink
from streammeta.sources.base import Position

__all__ = ["CRASH", "END", "PAUSE", "Crash", "FakeClock", "ListSink", "ScriptedSource"]


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
