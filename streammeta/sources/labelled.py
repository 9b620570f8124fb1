"""Questions from one source, their labels from another, read as one stream."""

from __future__ import annotations

from dataclasses import replace

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.base import Forgets, Live, Position, Source, SourceStatus

#: Reads without a question after which labels may run ahead of a live source of questions: at the
#: runner's 20 reads a second, two seconds. One that has just connected has nothing at first.
PATIENCE = 40

_Head = tuple[Event, Position]


class LabelledSource:
    """Two sources merged by event time; a label joins its question by ``id``.

    A label is given before the first question that is later than it; at equal times the question
    comes first. Where one side has nothing for now the other one goes on, but labels wait while the
    source of the questions is cut off, or has only just begun. Events without a time take turns.

    Of files that is the same order every time. Live sources are read as they come: after a crash
    every event is learned once, but questions and labels may take another order than before.

    The position has those of both, and whose turn it is. Each is read one event at a time.

    Args:
        events: the questions; they may have labels of their own.
        labels: their labels; of its events only id, label, time and key count.

    Raises:
        UsageError: both have one name.

    >>> from streammeta.events import Event
    >>> from streammeta.testing import END, ScriptedSource
    >>> questions = [Event("a", {"v": 1.0}, ts=1.0), Event("b", {"v": 2.0}, ts=2.0)]
    >>> asked = ScriptedSource([*questions, END])
    >>> told = ScriptedSource([Event("a", y="up", ts=1.5), END], "told")
    >>> source = LabelledSource(asked, told)
    >>> [(e.id, e.y) for e in source.read(source.start(), 9)[0]]
    [('a', None), ('a', 'up'), ('b', None)]
    """

    def __init__(self, events: Source, labels: Source) -> None:
        if events.name == labels.name:
            raise UsageError(f"events and labels are both called {events.name!r}: name one of them")
        self.name = events.name
        self._sources = (events, labels)
        self._heads: list[_Head | None] = [None, None]
        self._at: list[Position] = [{}, {}]
        self._idle = 0
        self._turn = 0
        self._newest: float | None = None  # time of the newest question given

    def start(self) -> Position:
        """Before the first question and the first label."""
        events, labels = self._sources
        return {"events": events.start(), "labels": labels.start(), "turn": 0}

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` events after ``position``.

        Raises:
            SourceError: the position is not one of ours, or one of the two says so.
        """
        try:
            wanted = [position["events"], position["labels"]]
        except KeyError:
            raise SourceError(
                f"{self.name}: position is {position!r}, expected those of events and labels"
            ) from None
        if wanted != self._at:
            self._at, self._heads, self._newest = wanted, [None, None], None
            self._turn = int(position.get("turn", 0))
        if n < 1:
            for source, at in zip(self._sources, self._at, strict=True):
                source.read(at, 0)  # begins to listen
        given: list[Event] = []
        while len(given) < n:
            side = self._next()
            if side is None:
                break
            head = self._heads[side]
            assert head is not None
            event, self._at[side] = head
            self._heads[side] = None
            self._turn = 1 - side
            given.append(event)
            if not side and event.ts is not None:
                self._newest = event.ts
        return given, {"events": self._at[0], "labels": self._at[1], "turn": self._turn}

    def finished(self, position: Position) -> bool:
        """True when neither has anything more to give, ever."""
        return all(
            head is None and source.finished(position[part])
            for head, source, part in zip(
                self._heads, self._sources, ("events", "labels"), strict=True
            )
        )

    def status(self) -> SourceStatus:
        """The faults of both, how many events wait for both, where that is known, and all gaps."""
        found = [s.status() for s in self._sources if isinstance(s, Live)]
        lags = [status.lag for status in found if status.lag is not None]
        return SourceStatus(
            "; ".join(status.fault for status in found if status.fault),
            sum(lags) if len(lags) == len(found) and found else None,
            sum(status.gaps for status in found),
        )

    def close(self) -> None:
        """Let go of both."""
        for source in self._sources:
            source.close()
        self._heads, self._at = [None, None], [{}, {}]

    def _next(self) -> int | None:
        """Whose event is next, 0 for a question and 1 for a label; ``None``: nobody's for now."""
        question, label = self._head(0), self._head(1)
        if question is None and label is None:
            return None
        if question is None:
            assert label is not None
            return 1 if self._may_pass(label[0]) else None
        if label is None:
            return 0
        asked, told = question[0].ts, label[0].ts
        if asked is None or told is None:
            return self._turn
        return 1 if told < asked else 0

    def _may_pass(self, label: Event) -> bool:
        """Whether a label may go though no question is there to compare with."""
        events = self._sources[0]
        if not isinstance(events, Live):
            return True
        if events.status().fault:
            return False
        known = label.ts is not None and self._newest is not None and label.ts <= self._newest
        return known or self._idle >= PATIENCE

    def _head(self, side: int) -> _Head | None:
        head = self._heads[side]
        if head is None:
            found, after = self._sources[side].read(self._at[side], 1)
            if found:
                event = found[0]
                if side and event.error is None:
                    event = replace(event, x=None)
                head = self._heads[side] = event, after
            else:
                self._at[side] = after  # headers and gaps may have been passed
            if not side:
                self._idle = 0 if found else self._idle + 1
        return head


class KeepingLabelledSource(LabelledSource):
    """The same where one of the two keeps events itself, and can be told what nobody needs."""

    def forget(self, position: Position) -> None:
        """Pass it on to whom it concerns."""
        for source, part in zip(self._sources, ("events", "labels"), strict=True):
            if isinstance(source, Forgets):
                source.forget(position[part])


def labelled(events: Source, labels: Source) -> LabelledSource:
    """The two as one source, of the class that can do what both can."""
    keeps = isinstance(events, Forgets) or isinstance(labels, Forgets)
    return KeepingLabelledSource(events, labels) if keeps else LabelledSource(events, labels)
