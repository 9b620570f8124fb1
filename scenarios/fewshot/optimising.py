"""Learned optimisers against tuned ones: the loss after 20 steps on tasks never trained on.

As in Andrychowicz et al. 2016 (arXiv 1606.04474), section 3: random quadratics, and small networks
from random weights. A rule is learned, or a rate chosen on a grid, on tasks of a family; other
tasks of the family judge it. Every task starts at random weights of its own, the same for all.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from scenarios.bench.jobs import Outcome
from scenarios.fewshot.descent import Rows, descend
from scenarios.prequential import Progress, Result, peak_rss_mb
from scenarios.scenario import Card
from streammeta.errors import UsageError
from streammeta.meta.learner import Batch, clip_by_norm
from streammeta.meta.loss import Loss
from streammeta.meta.net import Net
from streammeta.meta.unrolled import Unrolled
from streammeta.registry import load
from streammeta.scores import Measured

if TYPE_CHECKING:
    from scenarios.bench.suite import Job

TASKS, STEPS = 300, 20
MAIN = "loss@20"
TRAIN, TUNE, TEST = 1, 2, 3  # streams of random numbers
TUNED_ON = 300  # tasks of the family that choose a rate
GRID = tuple(float(10.0 ** (power / 4)) for power in range(-14, 5))  # rates, 3e-4 to 10
USUAL = ("sgd", "momentum", "adam")
UPDATES = 3  # outer steps for each task of the test
TOGETHER = 16  # tasks of an outer step
OUTER_LR, LIMIT, FLOOR = 5e-3, 1.0, 0.01  # rate, falling to a share; longest gradient


class Family(NamedTuple):
    """``net``, the loss that is minimised, and what draws tasks: weights ``(B, P)`` and rows."""

    net: Net
    loss: Loss
    draw: Callable[[np.random.Generator, int], tuple[Tensor, Rows]]
    about: str


def quadratics(rng: np.random.Generator, tasks: int) -> tuple[Tensor, Rows]:
    """Half the mean square of ``W theta + b - y`` for normal ``W (10, 10)`` and ``y``."""
    x, y = rng.normal(size=(tasks, 10, 10)), rng.normal(size=(tasks, 10))
    return _task(rng.normal(size=(tasks, 11)), x, y)


CLOUDS = Net((2, 12, 3))


def clouds(rng: np.random.Generator, tasks: int) -> tuple[Tensor, Rows]:
    """A network of 12 hidden units tells three classes apart, each two clouds in the plane."""
    centres = rng.normal(0.0, 1.5, (tasks, 6, 2))
    of = np.arange(48) % 6
    x = centres[:, of] + rng.normal(0.0, 0.4, (tasks, 48, 2))
    return _task(CLOUDS.init(rng, tasks), x, np.tile(of % 3, (tasks, 1)))


def _task(start: object, x: object, y: object) -> tuple[Tensor, Rows]:
    theta, rows, targets = (
        torch.from_numpy(np.asarray(part, np.float32)) for part in (start, x, y)
    )
    return theta, (rows, targets, torch.ones_like(targets))


FAMILIES: Mapping[str, Family] = {
    "quadratics": Family(
        Net((10, 1)), Loss("regression", huber=float("inf")), quadratics, "quadratics of 11 weights"
    ),
    "clouds": Family(
        CLOUDS, Loss("classification", 3), clouds, f"networks of {CLOUDS.n_params} weights"
    ),
}


def learner_of(model: str, family: str, rate: float = 0.1) -> Unrolled:
    """A learned update rule by name, that begins as SGD of this rate.

    Raises:
        UsageError: there is no such learner, or it learns no update rule.
    """
    net, loss, *_ = FAMILIES[family]
    made = load("learners", model)(
        net,
        loss.task,
        inner_lr=rate,
        steps=STEPS,
        outer_lr=OUTER_LR,
        huber=loss.huber,
    )
    if not isinstance(made, Unrolled):
        raise UsageError(f"{model!r} learns no update rule; expected meta_lstm, learned_optimiser")
    return made


def train(learner: Unrolled, family: Family, iterations: int, seed: int) -> Tensor:
    """The rule ``(E,)`` after so many outer steps."""
    rng = np.random.default_rng([seed, TRAIN])
    state = learner.init(torch.zeros(learner.net.n_params))
    n = state.theta.numel() + state.log_rates.numel()
    for iteration in range(iterations):
        start, rows = family.draw(rng, TOGETHER)
        found = learner.slopes_from(start, state.extra, Batch(*rows, *rows), family.loss.n_classes)
        good = torch.isfinite(found.by_extra).all(1)
        if not good.any():
            continue
        gradient = torch.zeros_like(state.first)
        gradient[n:], _ = clip_by_norm(found.by_extra[good].mean(0), LIMIT)
        share = FLOOR + (1.0 - FLOOR) * 0.5 * (1.0 + np.cos(np.pi * iteration / iterations))
        before = state.extra
        state = learner.descend(state, gradient)
        state = state._replace(extra=before + float(share) * (state.extra - before))
    return state.extra


def learned(model: str, name: str, seed: int, effort: float, tests: tuple[Tensor, Rows]) -> Tensor:
    """Losses ``(STEPS + 1, B)`` of the tests, step by step, by a rule learned on other tasks."""
    family, (rate, _) = FAMILIES[name], tuned("sgd", name, seed)
    learner = learner_of(model, name, rate)
    iterations = max(1, round(UPDATES * TASKS * effort))
    rule = train(learner, family, iterations, seed)
    start, rows = tests
    with torch.no_grad():
        own = rule.expand(len(start), -1)
        stops = [start, *learner.unroll(start, own, rows, family.loss.n_classes)]
    return torch.stack([family.net.differentiate(at, *rows, family.loss).loss for at in stops])


def tuned(how: str, name: str, seed: int) -> tuple[float, float]:
    """The rate of ``GRID`` with the lowest mean loss after the last step on tasks of training, and
    that loss."""
    family = FAMILIES[name]
    tasks = family.draw(np.random.default_rng([seed, TUNE]), TUNED_ON)
    ends = [float(path(how, name, tasks, rate)[-1].mean()) for rate in GRID]
    at = int(np.nanargmin(ends))
    return GRID[at], ends[at]


def path(how: str, name: str, tasks: tuple[Tensor, Rows], rate: float) -> Tensor:
    """Losses ``(STEPS + 1, B)`` of tasks by an optimiser of the trade."""
    family = FAMILIES[name]
    steps = descend(family.net, *tasks, family.loss, how, rate)
    return torch.stack([loss for _, loss in islice(steps, STEPS + 1)])


class Optimising:
    """A job is one optimiser on one family; rows are tasks of the test."""

    def card(self, job: Job) -> Card:
        """What can be said of it."""
        about = FAMILIES[_family(job)].about
        return Card(
            job.stream, "regression", job.rows or TASKS, (),
            f"{about}: the loss after {STEPS} steps", "loss 0",
            "Andrychowicz et al. 2016, arXiv 1606.04474", TASKS, best=None,
        )  # fmt: skip

    def check(self, job: Job) -> None:
        """Refuse what cannot be done, before any work.

        Raises:
            UsageError: no such family or optimiser.
        """
        name = _family(job)
        if job.model not in USUAL:
            learner_of(job.model, name)

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Learn the rule or choose the rate, then take the steps on every task."""
        card, name = self.card(job), _family(job)
        tests = FAMILIES[name].draw(np.random.default_rng([job.seed, TEST]), card.rows)
        begun, note = perf_counter(), ""
        if job.model in USUAL:
            rate, _ = tuned(job.model, name, job.seed)
            losses = path(job.model, name, tests, rate)
            note = f"rate {rate:.2g}"
        else:
            losses = learned(job.model, name, job.seed, card.rows / TASKS, tests)
        seconds = perf_counter() - begun
        named = {f"loss@{step}": float(losses[step].mean()) for step in (STEPS, 0, 1, 5, 10)}
        scores = Measured(named, card.rows, higher_is_better=False)
        result = Result(job.model, job.seed, job.chunk, "regression", scores, seconds)
        result.events, result.peak_rss_mb, result.note = card.rows, peak_rss_mb(), note
        result.rows = array("q", range(card.rows))
        result.losses = array("d", losses[-1].double().tolist())
        if progress is not None:
            progress(card.rows, result.scores, 0)
        return Outcome(job, card, result)


def _family(job: Job) -> str:
    if job.stream not in FAMILIES:
        raise UsageError(f"stream {job.stream!r}: expected one of {', '.join(FAMILIES)}")
    return job.stream


OPTIMISING = Optimising()
