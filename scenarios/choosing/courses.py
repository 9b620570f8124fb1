"""Courses: a stream as the default model went through it, with what each of its members said.

A course keeps the losses of every member on every row, and, wherever somebody could be chosen (at
each alarm, and every ``EVERY`` rows), what a policy would have been shown there. So policies are
trained and judged without running the model again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenarios.models import build
from scenarios.scenario import scenario
from streammeta import pooling
from streammeta.choosing import WORST, show
from streammeta.engine import Engine
from streammeta.events import DriftDetected, Event
from streammeta.experts.kernels import REGRESSION
from streammeta.pending import Asked
from streammeta.state import State

#: Rows from one decision to the next, if no drift is found in between.
EVERY = 50
#: The first rows are for learning: nobody chooses, nobody is judged.
WARM_UP = 100

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Course:
    """``T`` rows, ``M`` members called ``names``: what they said, ``members (T, M, C)``, the truth
    ``(T,)`` (a class, or a value in units of the target), their ``losses (T, M)``, NaN of those
    asleep, and those of the model's ``answer (T,)`` and of its quick mixture ``(T,)``.

    Decisions: ``at (N,)``, the first row that each is about; ``alarmed (N,)``: at an alarm;
    ``features (N, G)``, ``scores (N, M, J)``, ``known (N, M)``. ``starts``: first rows of the true
    segments.
    """

    generator: str
    stream: str
    values: bool
    names: tuple[str, ...]
    members: NDArray[np.float32]
    truth: Floats
    losses: Floats
    answer: Floats
    quick: Floats
    at: NDArray[np.int64]
    alarmed: NDArray[np.bool_]
    features: Floats
    scores: Floats
    known: NDArray[np.bool_]
    starts: tuple[int, ...]


def run_course(generator: str, stream: str, rows: int, seed: int) -> Course:
    """The default model over ``rows`` rows of a stream."""
    made = scenario(stream, seed=seed, rows=rows)
    engine = build("streammeta", task=made.card.task, seed=seed)
    assert isinstance(engine, Engine)
    engine.state.traced = True
    keeper = _Keeper()
    for row, event in enumerate(made.events()):
        engine.observe([replace(event, y=None)])
        state = engine.state
        keeper.asked(state, state.pending.table[event.id])  # with what every member has said
        outputs = engine.observe([Event(event.id, y=event.y)]) + engine.replay()
        assert event.y is not None
        values = state.task == REGRESSION
        keeper.truth.append(float(event.y) if values else float(state.class_index[event.y]))
        keeper.decide(state, row + 1, any(isinstance(out, DriftDetected) for out in outputs))
    return keeper.course(generator, stream, engine.state, (0, *(a for a, _ in made.card.drifts)))


def run_losses(stream: str, rows: int, seed: int, overrides: Mapping[str, Any]) -> Floats:
    """Losses ``(T,)``, as those of a course, of the default model's answers with ``overrides``."""
    made = scenario(stream, seed=seed, rows=rows)
    engine = build("streammeta", task=made.card.task, seed=seed, overrides=overrides)
    assert isinstance(engine, Engine)
    found = np.full(made.card.rows, np.nan)
    for row, event in enumerate(made.events()):
        engine.observe([replace(event, y=None)])
        state = engine.state
        asked = state.pending.table[event.id]
        engine.observe([Event(event.id, y=event.y)])
        engine.replay()
        assert event.y is not None
        values = state.task == REGRESSION
        truth = float(event.y) if values else float(state.class_index[event.y])
        if values:
            truth = (truth - asked.centre) / asked.scale
        found[row] = worth(asked.said[pooling.ANSWER :][:1], truth, values)[0]
    return found


class _Keeper:
    """Lists that grow row by row."""

    def __init__(self) -> None:
        self.said: list[tuple[Floats, Floats, NDArray[np.bool_], float, float]] = []
        self.truth: list[float] = []
        self.moments: list[tuple[int, bool, Floats, Floats, NDArray[np.bool_]]] = []

    def asked(self, state: State, asked: Asked) -> None:
        """A question has been answered by everybody who is awake."""
        live = state.bank.live[0].copy()
        self.said.append((asked.members, asked.said, live, asked.centre, asked.scale))

    def decide(self, state: State, row: int, alarm: bool) -> None:
        """Somebody can be chosen for the rows from ``row`` on."""
        last = self.moments[-1][0] if self.moments else 0
        if row < WARM_UP or not (alarm or row - last >= EVERY):
            return
        assert state.traces is not None
        shown = show(state, state.traces, 0)
        if shown[2].any():
            self.moments.append((row, alarm, *shown))

    def course(self, generator: str, stream: str, state: State, starts: tuple[int, ...]) -> Course:
        """What was kept."""
        values, n = state.task == REGRESSION, len(self.said)
        members = np.zeros((n, len(state.member_names), state.n_classes), np.float32)
        losses, truth = np.full(members.shape[:2], np.nan), np.array(self.truth)
        made = np.zeros((n, pooling.SAID))
        for row, (each, said, live, centre, scale) in enumerate(self.said):
            if values:
                truth[row] = (truth[row] - centre) / scale
            width = min(each.shape[1], state.n_classes)
            members[row, :, :width] = each[:, :width]
            losses[row, live] = worth(each[live], truth[row], values)
            made[row] = worth(said, truth[row], values)
        ahead = [moment for moment in self.moments if moment[0] < n]
        at, alarmed, features, scores, known = (np.array(part) for part in zip(*ahead, strict=True))
        return Course(
            generator, stream, values, tuple(state.member_names), members, truth, losses,
            made[:, pooling.ANSWER], made[:, pooling.QUICK], at, alarmed, features, scores, known,
            starts,
        )  # fmt: skip


def worth(said: NDArray[Any], truth: Floats | float, values: bool) -> Floats:
    """0/1 errors ``(n,)`` of what was ``said (n, C)``, or absolute errors, at most ``WORST``."""
    if values:
        return np.minimum(np.abs(said[:, 0] - truth), WORST)
    return np.asarray(said.argmax(1) != truth, np.float64)
