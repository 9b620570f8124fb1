"""When labels arrive: wrappers over an iterator of events.

Both are pure functions of the events before them, so a position in their output is a number of
emitted events, and reading again from the start reaches the same state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count

from streammeta.events import Event


def at_horizon(rows: Iterable[Event], horizon: int) -> Iterator[Event]:
    """Ask for the target ``horizon`` rows ahead: the label of a row is ``y`` of a later row.

    Each row ``t`` of a key becomes a question with all of its features; right before the question
    of row ``t + horizon`` of the same key comes the answer to row ``t`` (same ``id`` as that
    question). The last ``horizon`` rows of a key get no answer: it lies beyond the stream's end.
    Rows that could not be read pass through and do not count; where row ``t + horizon`` has no
    target, a ``missing_target`` error stands in the answer's place.

    >>> from streammeta.events import Event
    >>> rows = [Event(str(t), {"price": 10.0 + t}, y=10.0 + t) for t in range(3)]
    >>> [(e.id, e.x, e.y) for e in at_horizon(rows, 1)][:3]
    [('0', {'price': 10.0}, None), ('0', None, 11.0), ('1', {'price': 11.0}, None)]
    """
    waiting: dict[str, deque[str]] = {}
    for row in rows:
        if row.error is not None:
            yield row
            continue
        ids = waiting.get(row.key)
        if ids is None:
            ids = waiting[row.key] = deque()
        if len(ids) == horizon:
            question = ids.popleft()
            if row.y is None:
                detail = f"the target is missing in {row.id}, {horizon} rows after {question}"
                yield Event(question, None, None, row.key, row.ts, ("missing_target", detail))
            else:
                yield Event(question, None, row.y, row.key, row.ts)
        ids.append(row.id)
        yield Event(row.id, row.x, None, row.key, row.ts)


def delayed(events: Iterable[Event], delay: int | Sequence[int]) -> Iterator[Event]:
    """Hold every answer back until ``delay`` further questions have been asked.

    A question that carries its answer is split in two; the answer comes after ``delay`` more
    questions, before the next one. An answer that is an event of its own waits ``delay`` questions
    from where it stood. At the end of the stream the remaining answers are delivered. An answer's
    ``ts`` is the time of the newest question before it: the moment it becomes known.

    A sequence has a delay for the answer of each question, in the order of the questions, so
    answers may come out of order; one to no question before it is not held.

    >>> from streammeta.events import Event
    >>> rows = [Event(str(t), {"a": 1.0}, y=t) for t in range(3)]
    >>> ["?" + e.id if e.x else "=" + e.id for e in delayed(rows, 1)]
    ['?0', '?1', '=0', '?2', '=1', '=2']
    >>> ["?" + e.id if e.x else "=" + e.id for e in delayed(rows, [2, 0, 0])]
    ['?0', '?1', '=1', '?2', '=0', '=2']
    """
    held: list[tuple[int, int, Event]] = []  # a heap: questions asked by then, order, answer
    order = count()
    wait = _wait(delay)
    asked = 0
    now: float | None = None
    for event in events:
        if event.x is None:
            if event.error is None:
                heappush(held, (asked + wait(event), next(order), event))
            else:
                yield event
            continue
        while held and held[0][0] <= asked:
            yield _told(heappop(held)[2], now)
        asked += 1
        now = event.ts if event.ts is not None else now
        until = asked + wait(event)
        if event.y is not None:
            answer = Event(event.id, None, event.y, event.key, event.ts)
            heappush(held, (until, next(order), answer))
            event = Event(event.id, event.x, None, event.key, event.ts)
        yield event
    while held:
        yield _told(heappop(held)[2], now)


def _wait(delay: int | Sequence[int]) -> Callable[[Event], int]:
    """How many questions the answer in an event waits; of a sequence to be asked event by event."""
    if isinstance(delay, int):
        return lambda event: delay
    numbers = count()
    rows: dict[str, int] = {}  # questions whose answer is still to come

    def wait(event: Event) -> int:
        if event.x is None:
            return delay[rows.pop(event.id)] if event.id in rows else 0
        row = next(numbers)
        if event.y is None:
            rows[event.id] = row
        return delay[row]

    return wait


def _told(answer: Event, now: float | None) -> Event:
    return Event(answer.id, None, answer.y, answer.key, answer.ts if now is None else now)
