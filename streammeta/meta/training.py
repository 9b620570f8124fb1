"""Offline meta-training: outer steps over drawn tasks, judged now and then on held-out ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from streammeta.meta.gradient_based import GradientLearner
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import losses, masked_mean

#: Draws so many tasks.
Draw = Callable[[np.random.Generator, int], Batch]


@dataclass(frozen=True)
class Plan:
    """How long and how fast: ``iterations`` outer steps over ``tasks`` tasks each.

    The outer rate falls along half a cosine to ``floor`` times where it started (Loshchilov &
    Hutter 2017, arXiv 1608.03983, without restarts). Every ``every`` iterations the held-out
    tasks are judged, and the best state so far is kept; after ``patience`` judgements without
    a better one training ends (``None``: never).
    """

    iterations: int = 20_000
    tasks: int = 25
    every: int = 500
    patience: int | None = None
    floor: float = 0.01


class Judged(NamedTuple):
    """After ``iteration``: mean training loss since the last judgement, and held-out loss."""

    iteration: int
    loss: float
    held_out: float
    best: bool


class MetaTraining:
    """Meta-training that can be stopped after any judgement and gone on with later.

    ``run`` yields a judgement after every ``plan.every`` iterations. ``best`` is the state with
    the lowest held-out loss, which is mean query loss after adaptation, and ``best_iteration``
    when that was. Whoever sets ``lowest`` to the loss of the first state keeps that until a
    better one comes.
    """

    def __init__(
        self,
        learner: GradientLearner,
        state: State,
        draw: Draw,
        held_out: Batch,
        plan: Plan,
        *,
        n_classes: int = 1,
        seed: int | Sequence[int] = 0,
    ) -> None:
        self.learner, self.draw, self.held_out, self.plan = learner, draw, held_out, plan
        self.n_classes = n_classes
        self.state = self.best = state
        self.lowest, self.stale, self.iteration = math.inf, 0, 0
        self.best_iteration = 0
        self._rng = np.random.default_rng(seed)

    def run(self) -> Iterator[Judged]:
        """Train to the end of the plan, or until patience is out."""
        plan, told = self.plan, []
        while self.iteration < plan.iterations and not self.out_of_patience:
            learner = replace(self.learner, outer_lr=self.learner.outer_lr * self._share())
            batch = self.draw(self._rng, plan.tasks)
            self.state, info = learner.meta_update(self.state, batch, self.n_classes)
            self.iteration += 1
            told.append(info.loss)
            if self.iteration % plan.every == 0 or self.iteration == plan.iterations:
                yield self._judge(float(np.mean(told)))
                told = []

    @property
    def out_of_patience(self) -> bool:
        """Whether the held-out loss has not fallen for too long."""
        return self.plan.patience is not None and self.stale >= self.plan.patience

    def _judge(self, loss: float) -> Judged:
        found = query_loss(self.learner, self.state, self.held_out, self.n_classes)
        better = found < self.lowest
        self.stale = 0 if better else self.stale + 1
        if better:
            self.lowest, self.best, self.best_iteration = found, self.state, self.iteration
        return Judged(self.iteration, loss, found, better)

    def _share(self) -> float:
        passed = self.iteration / self.plan.iterations
        return self.plan.floor + (1.0 - self.plan.floor) * 0.5 * (1.0 + math.cos(math.pi * passed))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Both states, by name, for a file."""
        parts = {"state": self.state, "best": self.best}
        return {
            f"{kind}.{name}": part.cpu().numpy()
            for kind, state in parts.items()
            for name, part in state._asdict().items()
        }

    def info(self) -> dict[str, Any]:
        """The rest, JSON-able: where it stands and how the random numbers go on."""
        return {
            "iteration": self.iteration,
            "best_iteration": self.best_iteration,
            "lowest": self.lowest,
            "stale": self.stale,
            "random": self._rng.bit_generator.state,
        }

    def resume(self, tensors: dict[str, NDArray[Any]], info: dict[str, Any]) -> None:
        """Go on from where ``tensors`` and ``info`` were taken, bit for bit."""
        like = self.state.theta

        def state(kind: str) -> State:
            return State(
                *(torch.from_numpy(tensors[f"{kind}.{n}"]).to(like) for n in State._fields)
            )

        self.state, self.best = state("state"), state("best")
        self.iteration, self.lowest = int(info["iteration"]), float(info["lowest"])
        self.stale, self.best_iteration = int(info["stale"]), int(info["best_iteration"])
        self._rng.bit_generator.state = info["random"]


def query_loss(learner: GradientLearner, state: State, tasks: Batch, n_classes: int) -> float:
    """Mean query loss of ``tasks`` after adaptation."""
    said = learner.answer(state, tasks, n_classes)
    with torch.no_grad():
        each = losses(said, tasks.query_y, learner.loss(n_classes))
        return float(masked_mean(each, tasks.query_mask).mean())
