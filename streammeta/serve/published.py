"""The copy of the model that predictions over HTTP read, while the model itself goes on learning.

There are two twins of the model's state. One is in front, and answers; the model's thread brings
the other one up to date between two chunks of events, and then puts it in front. Nobody ever waits:
who asks takes the twin in front, and the model puts the copy off where the other one is still being
asked.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter
from typing import NamedTuple

from streammeta.compiling import learn_a_change
from streammeta.config import ModelConfig
from streammeta.engine import Engine, Statistics
from streammeta.errors import RejectedEvent
from streammeta.events import DriftDetected, Event, LabelExpired, Output, Predicted, Scored
from streammeta.experts.baselines import Answer
from streammeta.snapshot import Snapshot
from streammeta.state import State
from streammeta.twin import Question, Twin

#: Seconds from one copy to the next while events come: at least ``OFTEN``, or so many times what
#: the last copy took; but never more than ``SELDOM``, however large the model is.
OFTEN, PART, SELDOM = 0.01, 10.0, 0.05
#: Seconds over which the greatest staleness is told.
WINDOW = 10


class CopyStatistics(NamedTuple):
    """``rows``: questions that the copy in front has seen; times in seconds.

    ``stale``: for how long something has been learned that the copy does not know;
    ``stale_max``: the most that this has come to in the last ten seconds; ``took``: what the last
    copy took; ``copies`` counts them.
    """

    rows: int
    stale: float
    stale_max: float
    took: float
    copies: int


class _Side:
    """A twin, and whether somebody is at work on it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.twin: Twin | None = None
        self.keys: set[str] = set()  # learned about since this side followed
        self.recut: set[str] = set()


class Published:
    """Two twins of a model's state; ``touch``, ``due`` and ``publish`` belong to the model's
    thread, the rest may be called from any."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._sides = (_Side(), _Side())
        self._front: _Side | None = None
        self._since: float | None = None  # when the first thing was learned that nobody knows yet
        self._copied = clock() - SELDOM
        self._took = 0.0
        self._worst: deque[tuple[int, float]] = deque(maxlen=WINDOW)  # by the second
        self._rows = self._copies = 0

    def touch(self, keys: Iterable[str], recut: Iterable[str] = ()) -> None:
        """The model has learned about ``keys``, of which ``recut`` have begun a new segment."""
        keys, recut = set(keys), set(recut)
        for side in self._sides:
            side.keys |= keys
            side.recut |= recut
        if keys and self._since is None:
            self._since = self._clock()

    def due(self) -> bool:
        """Whether there is something to copy, and the last copy was long enough ago."""
        pause = min(max(OFTEN, PART * self._took), SELDOM)
        return self._since is not None and self._clock() - self._copied >= pause

    def publish(self, state: State) -> bool:
        """Bring the other side up to date and put it in front. False: nothing was learned, or
        somebody still asks the other side."""
        if self._since is None or not state.allocated:
            return False
        behind = self._sides[self._front is self._sides[0]]
        if not behind.lock.acquire(blocking=False):
            return False
        try:
            begun = self._clock()
            if behind.twin is None or not behind.twin.follow(state, behind.keys, behind.recut):
                behind.twin = Twin(state)
            behind.keys.clear()
            behind.recut.clear()
        finally:
            behind.lock.release()
        self._front = behind
        self._copied = self._clock()
        self._took = self._copied - begun
        self._note(self._copied, self._copied - self._since)
        self._since, self._rows, self._copies = None, state.rows, self._copies + 1
        return True

    def answers(self, questions: Sequence[Question]) -> tuple[list[Answer | RejectedEvent], int]:
        """The answers of the copy in front, and how many questions of the stream it has seen."""
        side = self._front
        if side is None:
            return [(None, None) for _ in questions], 0
        with side.lock:  # taken only where it is being renewed this moment, for as long as that is
            assert side.twin is not None  # who is in front has one
            return side.twin.answers(questions), side.twin.state.rows

    def statistics(self) -> CopyStatistics:
        """How old the copy is."""
        since, now = self._since, self._clock()
        stale = 0.0 if since is None else now - since
        worst = (w for second, w in list(self._worst) if second > now - WINDOW)
        return CopyStatistics(
            self._rows, stale, max(worst, default=stale), self._took, self._copies
        )

    def _note(self, now: float, stale: float) -> None:
        if self._worst and self._worst[-1][0] == int(now):
            stale = max(stale, self._worst.pop()[1])
        self._worst.append((int(now), stale))


class PublishedModel:
    """An engine that a ``ShardHost`` drives, and that publishes itself as it goes."""

    def __init__(self, engine: Engine, published: Published) -> None:
        self.engine, self.published = engine, published
        published.touch(engine.state.keys)
        self.publish()

    def observe(self, events: Sequence[Event]) -> list[Output]:
        """What the engine makes of them."""
        outputs = self.engine.observe(events)
        self.published.touch(
            {o.key for o in outputs if isinstance(o, (Predicted, Scored, LabelExpired))},
            {o.key for o in outputs if isinstance(o, DriftDetected)},
        )
        return outputs

    def replay(self) -> list[Output]:
        """The outer steps that are due; before each, for they take long, a copy where it is due."""
        outputs: list[Output] = []
        more, state = True, self.engine.state
        unsettled = [state.key_names[key] for key in state.unsettled]
        while more:
            if self.published.due():
                self.publish()
            made = self.engine.replay(1)
            self.published.touch(unsettled)
            outputs, more, unsettled = outputs + made, bool(made), []
        return outputs

    @property
    def lap(self) -> Callable[[str], None]:
        """Told of stages, as the engine's."""
        return self.engine.lap

    @lap.setter
    def lap(self, told: Callable[[str], None]) -> None:
        self.engine.lap = told

    def adapt(self, key: str) -> list[Output]:
        """Adapt now; see ``Engine.adapt``."""
        outputs = self.engine.adapt(key)
        self.published.touch({key} if outputs else ())
        return outputs

    def publish(self) -> None:
        """There is time: copy what is not copied yet."""
        self.published.publish(self.engine.state)

    def statistics(self) -> Statistics:
        """A look inside the engine."""
        return self.engine.statistics()

    def snapshot(self) -> Snapshot:
        """All of the engine; a copy first, for writing a commit takes long."""
        self.publish()
        return self.engine.snapshot()


def warm_up(config: ModelConfig) -> None:
    """Load what is compiled before anybody waits for it: a model that is thrown away learns some
    rows, and a change of the world among them. Takes a second or two."""
    engine = Engine(config.model_copy(update={"chunk": 1}))
    model = PublishedModel(engine, Published())
    learn_a_change(model, config.task)
    model.publish()
    model.published.answers([({"a": 1.0}, "")])
