"""Few-shot classification: N classes never seen before, K rows of each, then answers.

Tasks as in Vinyals et al. 2016 (arXiv 1606.04080), section 4: N-way K-shot episodes with 15 query
rows of each class. Learners are meta-trained on episodes of other classes.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenarios.bench.jobs import Outcome
from scenarios.fewshot.class_data import DATA, Split, episodes
from scenarios.fewshot.descent import descend
from scenarios.fewshot.eye import seen
from scenarios.prequential import Progress, Result, peak_rss_mb
from scenarios.scenario import Card
from streammeta.errors import UsageError
from streammeta.meta.gradient_based import GradientLearner
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Loss
from streammeta.meta.net import Net
from streammeta.meta.training import MetaTraining, Plan
from streammeta.registry import load
from streammeta.scores import Measured

if TYPE_CHECKING:
    from scenarios.bench.suite import Job

EPISODES, QUERY = 600, 15
TRAIN_QUERY = 5  # rows of each class in training
TASKS = 8  # of each outer step
HELD_OUT = 40  # episodes of the classes of training that choose the state
TRAIN, VALIDATE, TEST, START, PRE = 1, 2, 3, 4, 5  # streams of random numbers
AT_ONCE = 50  # tasks of the test adapted to together: memory
FEW_AT_ONCE = 20  # where each has weights of its own, and Adam's moments
BLENDED = 0.5  # of the classes of an episode of training lie between two
BINS = 15  # of confidence, for the calibration error
UNTRAINED = "@0"  # after a learner's name: no outer step is taken
NOISE = 0.02  # of the first weights
MORE = 32  # hidden units beyond the parts of features


@dataclass(frozen=True)
class Recipe:
    """How a learner is meta-trained: its settings, outer steps for 600 test episodes, their rate.

    Chosen on the class splits of seeds 100 and 101, which the suite does not report.
    """

    learner: str
    iterations: int = 900
    outer_lr: float = 1e-3
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: int = TASKS
    way: int | None = None  # of the episodes of training, where not that of the test
    frozen: bool = False  # all but the last layer: a learned rule takes much time for each weight
    copies: int = 1  # of each feature in the hidden layer


_STEPS = {"inner_lr": 0.2, "steps": 10}
_RULE = Recipe("", 100, 1e-3, _STEPS, tasks=4, frozen=True)
RECIPES: Mapping[str, Recipe] = {
    "maml": Recipe("maml", 150, 3e-4, _STEPS),
    "fomaml": Recipe("fomaml", 150, 3e-4, _STEPS),
    "anil": Recipe("anil", 150, 3e-4, _STEPS),
    "meta_sgd": Recipe("meta_sgd", 150, 3e-4, _STEPS),
    "reptile": Recipe("reptile", 150, 1e-4, _STEPS),
    "cavia": Recipe(
        "cavia", 600, 3e-4, {"inner_lr": 5.0, "steps": 20, "context": 500}, tasks=4, copies=5
    ),
    "cavia_film": Recipe("cavia_film", 100, 1e-4, {"inner_lr": 100.0, "steps": 10}, copies=5),
    "r2d2": Recipe("r2d2", 1_600),
    "pcoc": Recipe("pcoc", 600, tasks=4, way=10),
    "prototypical": Recipe("prototypical", 600, tasks=2, way=20),
    "matching": Recipe("matching", 150, 3e-4, tasks=4, way=10),
    "matching_context": Recipe("matching_context", 100, 3e-4, tasks=4),
    "in_context": Recipe("in_context", 600, 3e-4, tasks=4, way=10),
    "in_context_gru": Recipe("in_context", 1_000, 1e-3, {"attends": False}),
    "meta_lstm": replace(_RULE, learner="meta_lstm"),
    "learned_optimiser": replace(_RULE, learner="learned_optimiser"),
}


def network(width: int, way: int, copies: int = 1) -> Net:
    """One hidden layer, with room for the positive and the negative part of every feature, as many
    times as there are ``copies``."""
    return Net((width, 2 * width * copies + MORE, way))


def near_identity(net: Net, rng: np.random.Generator) -> Tensor:
    """First weights ``(P,)``: the hidden layer holds the positive and negative parts of the
    features, and noise, so that before any training distances are nearly those of the rows."""
    theta = net.init(rng)
    first = net.layers()[0]
    weight = rng.normal(0.0, NOISE, (first.n_in, first.n_out)).astype(np.float32)
    one, copies = np.eye(first.n_in, dtype=np.float32), (first.n_out - MORE) // (2 * first.n_in)
    weight[:, : first.n_out - MORE] += np.tile(np.hstack([one, -one]), copies)
    theta[first.start : first.bias] = weight.ravel()
    return torch.from_numpy(theta)


#: Steps of Adam on a support and their rate: of a network from scratch, of a new last layer, of all
#: weights.
DESCENTS = {"scratch": (50, 0.01), "pretrained": (100, 0.01), "fine_tuned": (50, 1e-3)}
ROWS, PRE_STEPS, PRE_RATE = 64, 1_500, 3e-3  # of pre-training: rows of a step, steps, first rate


@dataclass(frozen=True)
class Asked:
    """What a job is about: ``way`` classes, ``shot`` rows of each, and the tasks of the test."""

    data: str
    split: Split
    way: int
    shot: int
    tests: Batch
    seed: int
    effort: float  # of training, 1 for 600 episodes
    copies: int = 1  # of each feature in the hidden layer
    frozen: bool = False  # rows are what the last layer reads

    def net(self, way: int | None = None) -> Net:
        """The shape of a network that tells ``way`` classes apart."""
        width, outputs = self.split.train[0].shape[1], way or self.way
        return Net((width, outputs)) if self.frozen else network(width, outputs, self.copies)

    @property
    def loss(self) -> Loss:
        """Cross-entropy."""
        return Loss("classification", self.way)

    def rng(self, stream: int) -> np.random.Generator:
        """Random numbers of one stream."""
        return np.random.default_rng([self.seed, stream])

    def start(self, net: Net) -> Tensor:
        """First weights ``(P,)`` of every learner: pre-trained, with a last layer near 0."""
        theta = torch.from_numpy(net.init(self.rng(START)))
        if not self.frozen:
            theta[: net.head().start] = body(self.data, self.seed, self.effort, self.copies)
        return theta

    def seen(self) -> Asked:
        """The same with what an eye sees in pictures for rows; rows that are none stay."""
        if not DATA[self.data].pictures:
            return self
        split = seen(self.data, self.seed, self.effort)
        draw, count = episodes(split.test, self.way, self.shot, QUERY), len(self.tests.query_y)
        return replace(self, split=split, tests=draw(self.rng(TEST), count))

    def read(self) -> Asked:
        """The same with what the last layer of the pre-trained network reads for rows."""
        rows = self.seen()
        net = rows.net()
        theta = rows.start(net)

        def features(part: NDArray[np.float32]) -> NDArray[np.float32]:
            return net.features(theta, torch.from_numpy(part)).numpy()

        split = Split(*(tuple(features(part) for part in parts) for parts in rows.split))
        x, asked = (
            net.features(theta, part) for part in (rows.tests.support_x, rows.tests.query_x)
        )
        tests = rows.tests._replace(support_x=x, query_x=asked)
        return replace(rows, split=split, tests=tests, frozen=True)


class Answer(NamedTuple):
    """Classes ``found (B, Q)``, their log probabilities ``told (B, Q, way)`` where there are any,
    and the steps of meta-training taken."""

    found: Tensor
    told: Tensor | None = None
    steps: int = 0

    @classmethod
    def of(cls, outputs: Tensor, steps: int = 0) -> Answer:
        """The class with the greatest of ``outputs (B, Q, way)``, logits."""
        return cls(outputs.argmax(-1), outputs.log_softmax(-1), steps)


def nearest(asked: Asked) -> Answer:
    """The class of the nearest row of the support, by Euclidean distance."""
    tests = asked.tests
    at = torch.cdist(tests.query_x, tests.support_x).argmin(-1)
    return Answer(tests.support_y.gather(1, at))


def nearest_read(asked: Asked) -> Answer:
    """The same where the rows are what the last layer of the pre-trained network reads."""
    return nearest(asked.read())


def scratch(asked: Asked) -> Answer:
    """A network trained on each support alone, by Adam."""
    net = asked.net()
    return trained_on_each(asked, net, near_identity(net, asked.rng(START)), "scratch")


def pretrained(asked: Asked) -> Answer:
    """The network that tells all classes of training apart; on each support a new last layer is
    trained, by Adam."""
    read = asked.read()
    last = read.net()
    return trained_on_each(read, last, torch.zeros(last.n_params), "pretrained")


def fine_tuned(asked: Asked) -> Answer:
    """The same network, of which on each support every weight is trained, by Adam; an eye is left
    as it is."""
    asked = asked.seen()
    net = asked.net()
    theta = asked.start(net)
    theta[net.head()] = 0.0
    return trained_on_each(asked, net, theta, "fine_tuned")


def trained_on_each(asked: Asked, net: Net, theta: Tensor, how: str) -> Answer:
    """Networks trained on each support, all from ``theta (P,)``, with the steps and rate of
    ``DESCENTS``; a few tasks at a time, whose weights fit into the processor's cache."""
    steps, rate = DESCENTS[how]
    said = []
    for at in range(0, len(asked.tests.query_y), FEW_AT_ONCE):
        tests = Batch(*(part[at : at + FEW_AT_ONCE] for part in asked.tests))
        start = theta.repeat(len(tests.query_y), 1)
        path = descend(net, start, tests[:3], asked.loss, "adam", rate)
        fast, _ = next(islice(path, steps, None))
        said.append(net.apply(fast, tests.query_x))
    return Answer.of(torch.cat(said))


@cache
def body(data: str, seed: int, effort: float, copies: int = 1) -> Tensor:
    """All but the last layer of a network that has learned to tell the classes of training apart,
    by Adam whose rate falls to 0: where every learner starts. Behind an eye, which has learned
    that, as it is before any training."""
    rng = np.random.default_rng([seed, PRE])
    if DATA[data].pictures:
        net = network(seen(data, seed, effort).train[0].shape[1], 1, copies)
        return near_identity(net, rng)[: net.head().start]
    train = DATA[data].split(seed).train
    net = network(train[0].shape[1], len(train), copies)
    x = torch.from_numpy(np.concatenate(train))
    y = torch.from_numpy(np.repeat(np.arange(len(train)), [len(part) for part in train])).float()
    theta = near_identity(net, rng)[None]
    first, second = torch.zeros_like(theta), torch.zeros_like(theta)
    steps = max(1, round(PRE_STEPS * effort))
    for step in range(1, steps + 1):
        at = torch.from_numpy(rng.integers(0, len(x), ROWS))
        slope = net.differentiate(
            theta, x[None, at], y[None, at], torch.ones(1, ROWS), Loss("classification", len(train))
        )
        first = 0.9 * first + 0.1 * slope.gradient
        second = 0.999 * second + 0.001 * slope.gradient**2
        rate = PRE_RATE * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        scale = (second / (1.0 - 0.999**step)).sqrt() + 1e-8
        theta = theta - rate * (first / (1.0 - 0.9**step)) / scale
    return theta[0, : net.head().start]


BASELINES: Mapping[str, Callable[[Asked], Answer]] = {
    "nearest": nearest,
    "nearest_read": nearest_read,
    "scratch": scratch,
    "pretrained": pretrained,
    "fine_tuned": fine_tuned,
}


def recipe_of(model: str) -> Recipe:
    """How the learner of this name, with or without ``UNTRAINED``, is trained."""
    name = model.removesuffix(UNTRAINED)
    recipe = RECIPES.get(name, Recipe(name))
    return recipe if name == model else replace(recipe, iterations=0)


def learner_of(model: str, net: Net) -> GradientLearner:
    """A meta-learner by name, with or without ``UNTRAINED``, by its recipe or, for one of one's
    own, the usual one.

    Raises:
        UsageError: there is no such learner, or it does not classify.
    """
    recipe = recipe_of(model)
    made = load("learners", recipe.learner)(
        net, "classification", outer_lr=recipe.outer_lr, **recipe.options
    )
    if not isinstance(made, GradientLearner):
        raise UsageError(f"learner {model!r} is no GradientLearner: it cannot be trained offline")
    return made


def learned(model: str, asked: Asked) -> Answer:
    """Meta-train on episodes of the classes of training, then adapt to every task of the test."""
    recipe = recipe_of(model)
    way = min(recipe.way or asked.way, len(asked.split.train))
    asked = replace(asked, copies=recipe.copies)
    asked = asked.read() if recipe.frozen else asked.seen()
    net = asked.net(max(way, asked.way))
    learner = learner_of(model, net)
    state, steps = learner.init(asked.start(net)), 0
    if recipe.iterations:
        training = trained(learner, state, recipe, asked, way)
        state, steps = training.best, training.iteration
    said = []
    for at in range(0, len(asked.tests.query_y), AT_ONCE):
        tests = Batch(*(part[at : at + AT_ONCE] for part in asked.tests))
        said.append(learner.answer(state, tests, asked.way)[..., : asked.way])
    return Answer.of(torch.cat(said), steps)


def trained(
    learner: GradientLearner, state: State, recipe: Recipe, asked: Asked, way: int
) -> MetaTraining:
    """Meta-training on classes blended and not, judged on classes of training as they are."""
    iterations = max(1, round(recipe.iterations * asked.effort))
    classes = asked.split.train
    held_out = episodes(classes, way, asked.shot, TRAIN_QUERY)
    training = MetaTraining(
        learner, state, episodes(classes, way, asked.shot, TRAIN_QUERY, blended=BLENDED),
        held_out(asked.rng(VALIDATE), HELD_OUT),
        Plan(iterations, tasks=recipe.tasks, every=max(1, iterations // 6)),
        n_classes=way, seed=(asked.seed, TRAIN),
    )  # fmt: skip
    for _ in training.run():
        pass
    return training


def calibration_error(told: Tensor, right: Tensor) -> float:
    """Expected calibration error: the mean, over all answers, of how far confidence and accuracy
    lie apart in ``BINS`` equal bins of confidence (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    Args:
        told: log probabilities ``(..., C)``.
        right: whether the class with the greatest was the true one ``(...)``.
    """
    sure = told.exp().amax(-1).flatten().double()
    at = (sure * BINS).ceil().long().clamp(1, BINS) - 1
    apart = torch.zeros(BINS, dtype=torch.float64)
    apart.index_add_(0, at, right.flatten().double() - sure)
    return float(apart.abs().sum()) / len(sure)


class FewShot:
    """A job is one model meta-trained with one seed, then asked about classes it never saw.

    The stream's name is ``DATA@NxK``, N-way K-shot of one of ``DATA``.
    """

    def card(self, job: Job) -> Card:
        """What can be said of it; rows are episodes."""
        name, way, shot = _stream(job)
        data = DATA[name]
        return Card(
            job.stream, "classification", job.rows or EPISODES, (),
            f"{way}-way {shot}-shot classification of {data.about}", "unknown",
            data.reference, EPISODES, source=data.source,
        )  # fmt: skip

    def check(self, job: Job) -> None:
        """Refuse what cannot be done, before any work.

        Raises:
            UsageError: no such learner or baseline, or no such task.
            SourceError: the data is not on this machine.
        """
        asked = self.asked(job)
        if job.model not in BASELINES:
            learner_of(job.model, asked.net())

    def asked(self, job: Job) -> Asked:
        """The classes and the tasks; the same for every model."""
        name, way, shot = _stream(job)
        split = DATA[name].split(job.seed)
        rows = job.rows or EPISODES
        try:
            draw = episodes(split.test, way, shot, QUERY)
            episodes(split.train, way, shot, TRAIN_QUERY)
        except ValueError as fault:
            raise UsageError(f"stream {job.stream!r}: {fault}") from None
        tests = draw(np.random.default_rng([job.seed, TEST]), rows)
        return Asked(name, split, way, shot, tests, job.seed, rows / EPISODES)

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Learn, then answer every query of every episode."""
        asked, card = self.asked(job), self.card(job)
        # once for all models of that width: not in their time
        body(asked.data, job.seed, asked.effort, recipe_of(job.model).copies)
        begun = perf_counter()
        baseline = BASELINES.get(job.model)
        answer = baseline(asked) if baseline else learned(job.model, asked)
        seconds = perf_counter() - begun
        truth = asked.tests.query_y
        wrong: NDArray[np.float64] = (answer.found != truth).double().mean(-1).numpy()
        named = {"accuracy": 1.0 - float(wrong.mean())}
        if answer.told is not None:
            chosen = answer.told.gather(-1, truth.long().unsqueeze(-1))
            named["nll"] = -float(chosen.double().mean())
            named["ece"] = calibration_error(answer.told, answer.found == truth)
        scores = Measured(named, card.rows, higher_is_better=True)
        result = Result(job.model, job.seed, job.chunk, "classification", scores, seconds)
        result.events, result.peak_rss_mb = answer.steps, peak_rss_mb()
        result.rows, result.losses = array("q", range(card.rows)), array("d", wrong.tolist())
        if progress is not None:
            progress(card.rows, result.scores, 0)
        return Outcome(job, card, result)


def _stream(job: Job) -> tuple[str, int, int]:
    """Data, way and shot."""
    told = re.fullmatch(r"(\w+)@(\d+)x(\d+)", job.stream)
    if not told or told[1] not in DATA or int(told[2]) < 2 or int(told[3]) < 1:
        raise UsageError(
            f"stream {job.stream!r}: expected DATA@WAYxSHOT with one of {', '.join(DATA)}, at "
            "least 2 classes and 1 row, such as digits@5x1"
        )
    return told[1], int(told[2]), int(told[3])


FEW_SHOT = FewShot()
