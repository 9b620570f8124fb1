"""Meta-training on a history: the latest tasks are held out, the best state is kept."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from streammeta.config import ModelConfig
from streammeta.errors import UsageError
from streammeta.meta.gradient_based import GradientLearner
from streammeta.meta.initial import write_initial
from streammeta.meta.learner import Batch
from streammeta.meta.parameters import MetaParameters
from streammeta.meta.training import Judged, MetaTraining, Plan, query_loss
from streammeta.pretraining.history import History
from streammeta.pretraining.partial import Partial
from streammeta.replay import pose

HELD_OUT = 0.2  # share of the tasks, the latest, that training never sees
FEWEST_TASKS = 10
SEED = 39  # of the draws, beside the seed of the model
PACKAGES = ("streammeta", "torch", "numpy")  # whose versions the file tells


class Pretrained(NamedTuple):
    """What a learner came to: mean query loss of the held-out tasks before and with the best
    state, which is ``meta``."""

    learner: str
    before: float
    after: float
    iterations: int
    best_iteration: int
    meta: MetaParameters


@dataclass(frozen=True)
class Pretraining:
    """Offline meta-training of one learner of ``history``; ``source`` is where that comes from.

    Draws are of all tasks but the latest fifth, each with 1 to all of its support rows; the
    latest are judged with all of it.

    Raises:
        UsageError: there are less than ten tasks, or the learner cannot be trained offline.
    """

    config: ModelConfig
    history: History
    plan: Plan
    source: str
    name: str

    def __post_init__(self) -> None:
        n, rows = len(self.history), self.history.rows
        if n < FEWEST_TASKS:
            raise UsageError(
                f"{self.source}: {n} tasks in {rows:,} rows, expected at least {FEWEST_TASKS}: "
                f"more rows, or smaller tasks (model.support is {self.config.support}, "
                f"model.query {self.config.query})"
            )
        if not isinstance(self.meta.learner, GradientLearner):
            raise UsageError(
                f"learner {self.name!r} is no GradientLearner: only those can be trained offline"
            )

    @property
    def meta(self) -> MetaParameters:
        """Where the learner starts."""
        return self.history.metas[self.name]

    @property
    def held_out(self) -> int:
        """How many tasks, the latest, are judged and never learned."""
        return held_out(len(self.history))

    def training(self) -> MetaTraining:
        """The training before its first iteration; the start is what it has to be better than."""
        meta, n = self.meta, len(self.history)
        learner = meta.learner
        assert isinstance(learner, GradientLearner)
        last = np.arange(n - self.held_out, n)
        judged = self._batch(last, self.history.support[last])
        made = MetaTraining(
            learner, meta.state, self._draw, judged, self.plan,
            n_classes=self.history.n_classes, seed=(self.config.seed, SEED),
        )  # fmt: skip
        made.lowest = query_loss(learner, meta.state, judged, self.history.n_classes)
        return made

    def run(self, training: MetaTraining, partial: Partial) -> Iterator[Judged]:
        """Every judgement; at each, the training is kept in ``partial`` before it is told.

        Raises:
            SinkError: it cannot be kept.
        """
        for judged in training.run():
            partial.write(training)
            yield judged

    def done(self, training: MetaTraining) -> Pretrained:
        """What the best state is, and what it is worth."""
        meta, n_classes = self.meta, self.history.n_classes
        before = query_loss(training.learner, meta.state, training.held_out, n_classes)
        best = replace(meta, state=training.best, updates=training.best_iteration)
        return Pretrained(
            self.name, before, training.lowest, training.iteration, training.best_iteration, best
        )

    def identity(self, code: str) -> dict[str, str]:
        """What has to be the same for a training to go on, part by part; ``code`` is a hash."""
        h = self.history
        tasks = sha256()
        for part in (h.x, h.y, h.support, h.query):
            tasks.update(np.ascontiguousarray(part).tobytes())
        for name, start in self.meta.tensors().items():
            tasks.update(name.encode() + start.tobytes())
        model = self.config.model_dump(mode="json", exclude={"seed", "device"})
        return {
            "source": self.source,
            "learner": self.name,
            "tasks": tasks.hexdigest(),
            "model": str(sorted(model.items())),
            "seed": str(self.config.seed),
            "plan": str(sorted(asdict(self.plan).items())),
            "device": str(self.meta.device),
            "versions": str(sorted(versions().items())),
            "code": code,
        }

    def _draw(self, rng: np.random.Generator, n: int) -> Batch:
        chosen = rng.integers(0, len(self.history) - self.held_out, n)
        return self._batch(chosen, rng.integers(1, self.history.support[chosen] + 1))

    def _batch(self, chosen: NDArray[np.int64], support: NDArray[np.int64]) -> Batch:
        h = self.history
        parts = pose(h.x[chosen], h.y[chosen], support, h.query[chosen], h.at)
        return Batch(*(torch.from_numpy(part).to(self.meta.device) for part in parts))


def write_pretrained(path: Path, job: Pretraining, found: Sequence[Pretrained]) -> None:
    """One file with the best states of all the learners that were trained as ``job`` was.

    Raises:
        OSError: the file cannot be written.
    """
    told = ("before", "after", "iterations", "best_iteration")
    origin = {
        "source": job.source,
        "learners": {one.learner: {name: getattr(one, name) for name in told} for one in found},
        "seed": job.config.seed,
        "rows": job.history.rows,
        "tasks": len(job.history),
        "held_out": job.held_out,
        "plan": asdict(job.plan),
        "versions": versions(),
    }
    write_initial(path, {one.learner: one.meta for one in found}, origin)


def held_out(tasks: int) -> int:
    """How many of so many tasks, the latest, are never trained on."""
    return max(1, round(HELD_OUT * tasks))


def versions() -> dict[str, str]:
    """Of Python and of the packages whose numbers these are."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
