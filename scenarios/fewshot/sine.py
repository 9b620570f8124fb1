"""Few-shot sine regression: the protocol of MAML's first experiment.

``y = A sin(x - phi)``, A in [.1, 5], phi in [0, pi], x in [-5, 5]; K rows to adapt on. Finn,
Abbeel, Levine 2017 (arXiv 1703.03400), section 5.1; a network of 1-40-40-1, 25 tasks per outer
step, Adam at 1e-3.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import replace
from statistics import NormalDist
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenarios.bench.jobs import Outcome
from scenarios.prequential import Progress, Result, peak_rss_mb
from scenarios.scenario import Card
from streammeta.errors import UsageError
from streammeta.meta.alpaca import Alpaca
from streammeta.meta.gradient_based import GradientLearner
from streammeta.meta.in_context import InContext
from streammeta.meta.learner import Batch, State
from streammeta.meta.net import Net
from streammeta.meta.r2d2 import R2D2
from streammeta.meta.training import Draw, MetaTraining, Plan
from streammeta.registry import load
from streammeta.scores import Measured

if TYPE_CHECKING:
    from scenarios.bench.suite import Job

SIZES = (1, 40, 40, 1)
TEST_TASKS, TEST_ROWS = 2_000, 100  # rows that judge each of the adapted networks
HELD_OUT = 200  # tasks that choose the state that is tested
STEPS = (0, 1, 2, 5, 10)  # inner steps that are tested
MAIN = "mse@1"
COVERAGE = "coverage"  # of the central intervals of a learner that tells variances
CONFIDENCE = 0.9  # that they are meant to have
UPDATES = 25  # outer steps for each test task: 50,000 in full; half where one costs more
TRAIN, VALIDATE, TEST = 1, 2, 3  # streams of random numbers

#: Inner rates, of half the squared error: what did best of a few in runs with other seeds.
INNER_LR: Mapping[str, float] = {"cavia": 0.5}
USUAL_LR = 0.02


def initial(rng: np.random.Generator) -> NDArray[np.float32]:
    """Weights and biases ``(P,)`` uniform within 1 / sqrt(inputs), as torch.nn.Linear starts.

    With one input the biases matter: they spread the kinks of the first layer over x.
    """
    net = Net(SIZES)
    theta = np.empty(net.n_params, np.float32)
    for layer in net.layers():
        bound = 1.0 / math.sqrt(layer.n_in)
        theta[layer.start : layer.end] = rng.uniform(-bound, bound, layer.end - layer.start)
    return theta


def sines(support: int, query: int) -> Draw:
    """Draws tasks of so many rows."""

    def draw(rng: np.random.Generator, tasks: int) -> Batch:
        amplitude = rng.uniform(0.1, 5.0, (tasks, 1))
        phase = rng.uniform(0.0, math.pi, (tasks, 1))

        def rows(n: int) -> Iterator[Tensor]:
            x = rng.uniform(-5.0, 5.0, (tasks, n))
            y = amplitude * np.sin(x - phase)
            for part in (x[..., None], y, np.ones((tasks, n))):
                yield torch.from_numpy(part.astype(np.float32))

        return Batch(*rows(support), *rows(query))

    return draw


def learner_of(model: str) -> GradientLearner:
    """``NAME@STEPS``: a meta-learner by name that trains with so many inner steps.

    Raises:
        UsageError: there is no such learner, or no such number of steps.
    """
    name, _, told = model.partition("@")
    if not told.isdigit() or not 1 <= int(told) <= STEPS[-1]:
        raise UsageError(
            f"expected a meta-learner as NAME@STEPS, 1 to {STEPS[-1]} steps, such as maml@1"
        )
    rate = INNER_LR.get(name, USUAL_LR)
    made = load("learners", name)(
        Net(SIZES), "regression", inner_lr=rate, steps=int(told), outer_lr=1e-3, huber=math.inf
    )
    assert isinstance(made, GradientLearner)
    return made


class Sine:
    """A job is one learner meta-trained from scratch with one seed, then tested on new tasks.

    The stream's name is ``sine@K``: K rows to adapt on, and as many queries in training.
    """

    def card(self, job: Job) -> Card:
        """What can be said of it."""
        tasks = job.rows or TEST_TASKS
        return Card(
            job.stream, "regression", tasks, (), f"{_shots(job)}-shot sine regression", "error 0",
            "Finn et al. 2017, arXiv 1703.03400", TEST_TASKS, best=0.0,
        )  # fmt: skip

    def check(self, job: Job) -> None:
        """Refuse what cannot be done, before any work.

        Raises:
            UsageError: no such learner.
        """
        _shots(job)
        learner_of(job.model)

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Meta-train, then adapt to every test task."""
        card, learner, shots = self.card(job), learner_of(job.model), _shots(job)
        costly = learner.steps > 1 or isinstance(learner, R2D2 | Alpaca | InContext)
        iterations = max(1, UPDATES * card.rows // (2 if costly else 1))
        training = MetaTraining(
            learner,
            learner.init(torch.from_numpy(initial(np.random.default_rng(job.seed)))),
            sines(shots, shots),
            sines(shots, TEST_ROWS)(np.random.default_rng([job.seed, VALIDATE]), HELD_OUT),
            Plan(iterations, every=max(1, iterations // 20)),
            seed=TRAIN + 1000 * job.seed,
        )
        begun = perf_counter()
        for _ in training.run():
            pass
        seconds = perf_counter() - begun
        tasks = sines(shots, TEST_ROWS)(np.random.default_rng([job.seed, TEST]), card.rows)
        errors = {steps: squared_errors(learner, training.best, tasks, steps) for steps in STEPS}
        named = {f"mse@{steps}": float(error.mean()) for steps, error in errors.items()}
        if isinstance(learner, Alpaca):
            named[COVERAGE] = covered(learner, training.best, tasks)
        scores = Measured({MAIN: named[MAIN], **named}, card.rows, higher_is_better=False)
        result = Result(job.model, job.seed, job.chunk, "regression", scores, seconds)
        result.events, result.peak_rss_mb = training.iteration, peak_rss_mb()
        result.rows = array("q", range(card.rows))
        result.losses = array("d", errors[1].tolist())
        if progress is not None:
            progress(card.rows, result.scores, 0)
        return Outcome(job, card, result)


def squared_errors(
    learner: GradientLearner, state: State, tasks: Batch, steps: int
) -> NDArray[np.float64]:
    """Mean squared error on the query of each task ``(B,)`` after ``steps`` inner steps."""
    fast, _ = replace(learner, steps=steps).adapt(state, *tasks[:3], 1)
    with torch.no_grad():
        found = learner.predict(fast, tasks.query_x)[..., 0] - tasks.query_y
        each: NDArray[np.float64] = found.double().square().mean(-1).numpy()
    return each


def covered(learner: Alpaca, state: State, tasks: Batch) -> float:
    """Which share of the query's values lies in their central ``CONFIDENCE`` intervals."""
    with torch.no_grad():
        belief = learner.learn(state, *tasks[:3])
        told = learner.predictive(state, belief, tasks.query_x)
        half = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0) * told.variance.sqrt()
        return float(((tasks.query_y - told.mean).abs() <= half).double().mean())


def _shots(job: Job) -> int:
    told = job.stream.partition("@")[2]
    if not told.isdigit() or int(told) < 1:
        raise UsageError(f"stream {job.stream!r}: expected sine@SHOTS, such as sine@10")
    return int(told)


SINE = Sine()
