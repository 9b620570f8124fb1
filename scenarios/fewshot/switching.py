"""The switching sinusoid of MOCA: series of sines that change without a sign.

``y = A sin(x - phi)`` plus noise of variance .05, A in [.1, 5], phi in [0, pi], x in [-5, 5];
before each row a new A and phi come with the chance ``hazard``. Harrison, Sharma, Finn, Pavone 2020
(arXiv 1912.08866), section 5: trained on series of 100 rows with hazard .1, tested on 100 of 400
rows with hazard .01.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drift import Segmenter
from scenarios.bench.jobs import Outcome
from scenarios.fewshot.sine import SIZES, initial
from scenarios.prequential import Progress, Result, peak_rss_mb
from scenarios.scenario import Card
from streammeta.errors import UsageError
from streammeta.meta.alpaca import Alpaca
from streammeta.meta.gradient_based import GradientLearner, maml
from streammeta.meta.learner import Batch, State
from streammeta.meta.moca import Moca
from streammeta.meta.net import Net
from streammeta.meta.training import MetaTraining, Plan
from streammeta.scores import Measured

if TYPE_CHECKING:
    from scenarios.bench.suite import Job

Floats = NDArray[np.float64]

NOISE = 0.05  # variance
TRAIN_ROWS, TRAIN_HAZARD = 100, 0.1
TEST_ROWS, TEST_HAZARD, EPISODES = 400, 0.01, 100
STREAM, MAIN = "sine", "nll"
TRAIN, TEST, SCALE = 1, 3, 4  # streams of random numbers
EARLY, SETTLED = 5, 20  # rows after a switch: the first so many, and those from there on

#: Chosen in runs with other seeds than the suite's. Each test episode buys so many outer steps.
UPDATES, SERIES, OUTER_LR = 6, 16, 5e-3
RANK, TRAIN_RUNS, TEST_RUNS = 8, 12, 50
#: MAML: outer steps for each test episode, inner steps and rate, rows it adapts on at most, series
#: that teach how sure to be.
MAML_UPDATES, STEPS, INNER_LR, WINDOW, SCALE_SERIES = 60, 5, 0.02, 25, 20
#: Residual from which its loss is linear: no sine is farther from another one, but adapted on rows
#: of two sines MAML, which has met one at a time, would leap ever farther.
HUBER = 10.0


class Series(NamedTuple):
    """``x (B, T)``, ``y (B, T)`` and ``start (B, T)``, the row at which the run of each began."""

    x: Floats
    y: Floats
    start: NDArray[np.int64]

    def tensors(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """``x (B, T, 1)`` and ``y (B, T)``."""
        return torch.from_numpy(self.x).to(dtype)[..., None], torch.from_numpy(self.y).to(dtype)

    @property
    def since(self) -> NDArray[np.int64]:
        """Rows since the last switch ``(B, T)``."""
        found: NDArray[np.int64] = np.arange(self.x.shape[1]) - self.start
        return found


class Judged(NamedTuple):
    """Of every row ``(B, T)``: negative log density in nats, mean, and the chance of a lower
    value than came."""

    nll: Floats
    mean: Floats
    below: Floats


def switching(rng: np.random.Generator, series: int, rows: int, hazard: float) -> Series:
    """Draws so many series."""
    shape = series, rows
    switch = rng.random(shape) < hazard
    switch[:, 0] = True
    start = np.maximum.accumulate(np.where(switch, np.arange(rows), 0), 1)
    amplitude, phase = (
        np.take_along_axis(rng.uniform(low, high, shape), start, 1)
        for low, high in ((0.1, 5.0), (0.0, math.pi))
    )
    x = rng.uniform(-5.0, 5.0, shape)
    y = amplitude * np.sin(x - phase) + rng.normal(0.0, math.sqrt(NOISE), shape)
    return Series(x, y, start)


# -- closed-form learners: they differ in what they take a row's run to be ------------------------

#: Where the run of each row is taken to begin ``(B, T)``.
Starts = Callable[[Series], NDArray[np.int64]]


def _rows(series: Series) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(series.x.shape[1]), series.x.shape).copy()


def starts_of(model: str) -> Starts | None:
    """What ``model`` takes for known; ``None`` where it has a belief.

    Raises:
        UsageError: no such model.
    """
    name, _, told = model.partition("@")
    if name == "window" and told.isdigit() and int(told) > 0:
        return lambda series: np.maximum(_rows(series) - int(told), 0)
    known: dict[str, Starts | None] = {
        "oracle": lambda series: series.start,
        "everything": lambda series: np.zeros_like(series.start),
        "prior": _rows,
        "moca": None,
    }
    if model not in known and not (name == "moca" and hazard_of(model) is not None):
        raise UsageError(
            f"expected oracle, moca, moca@HAZARD, window@ROWS, everything, prior or "
            f"maml@DETECTOR, not {model!r}"
        )
    return known[name]


def hazard_of(model: str) -> float | None:
    """What ``moca`` takes the chance of a switch to be in the test; ``None`` if that is none."""
    told = model.partition("@")[2] or str(TEST_HAZARD)
    try:
        hazard = float(told)
    except ValueError:
        return None
    return hazard if 0.0 < hazard < 1.0 else None


def filter_of(outer_lr: float = OUTER_LR) -> Moca:
    """ALPaCA as all of them have it, and MOCA around it as it is trained."""
    model = Alpaca(Net(SIZES), "regression", rank=RANK, outer_lr=outer_lr)
    return Moca(model, TRAIN_HAZARD, TRAIN_RUNS)


class Trained(NamedTuple):
    """Meta-parameters, in double precision, and what they cost."""

    state: State
    updates: int
    seconds: float


@cache
def trained(model: str, seed: int, updates: int) -> Trained:
    """Meta-train on unsegmented series, each model as it will be used; the outer rate falls along
    half a cosine."""
    begun, starts = perf_counter(), starts_of(model)
    rng = np.random.default_rng([seed, TRAIN])
    state = filter_of().init(torch.from_numpy(initial(np.random.default_rng(seed))))
    for update in range(updates):
        share = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * update / updates))
        series = switching(rng, SERIES, TRAIN_ROWS, TRAIN_HAZARD)
        known = None if starts is None else torch.from_numpy(starts(series))
        learner = filter_of(OUTER_LR * share)
        state, _ = learner.meta_update(state, *series.tensors(torch.float32), known)
    return Trained(State(*(part.double() for part in state)), updates, perf_counter() - begun)


def judge_closed_form(model: str, state: State, series: Series) -> Judged:
    """What ``model`` says of every row before it is learned."""
    starts, x_y = starts_of(model), series.tensors(torch.float64)
    learner = filter_of()
    with torch.no_grad():
        if starts is None:
            return _believed(replace(learner, hazard=hazard_of(model), runs=TEST_RUNS), state, x_y)
        told = learner.predictive(state, *x_y, torch.from_numpy(starts(series)))
        nll = told.negative_log_density(x_y[1])
        below = torch.special.ndtr((x_y[1] - told.mean) / told.variance.sqrt())
        return Judged(nll.numpy(), told.mean.numpy(), below.numpy())


def _believed(learner: Moca, state: State, x_y: tuple[Tensor, Tensor]) -> Judged:
    """Predictions are mixtures over runs."""
    found = learner.filter(state, *x_y)
    means, below = [], []
    for told, y in zip(found.told, x_y[1].unbind(1), strict=True):
        share = told.log_belief.exp()
        means.append((share * told.mean).sum(1))
        under = torch.special.ndtr((y.unsqueeze(1) - told.mean) / told.variance.sqrt())
        below.append((share * under).sum(1))
    mean, under = (torch.stack(parts, 1).numpy() for parts in (means, below))
    return Judged(-found.log_density.numpy(), mean, under)


# -- MAML and a detector -------------------------------------------------------------------------


@dataclass
class Watched:
    """MAML adapted on the rows since the last alarm: at most the newest ``WINDOW``."""

    learner: GradientLearner
    state: State
    detector: str

    def run(self, series: Series) -> tuple[Floats, NDArray[np.int64]]:
        """Predictions ``(B, T)``, and how many rows each was adapted on."""
        count, rows = series.x.shape
        segmenters = [Segmenter([self.detector], "ratio", seed=i) for i in range(count)]
        first = np.zeros(count, np.int64)
        said, used = np.zeros((count, rows)), np.zeros((count, rows), np.int64)
        x, y = series.tensors(torch.float32)
        for row in range(rows):
            begin = max(row - WINDOW, 0)
            used[:, row] = row - np.maximum(first, begin)
            said[:, row] = self._answer(x[:, begin : row + 1], y[:, begin:row], used[:, row])
            errors = np.abs(series.y[:, row] - said[:, row])
            for i, (segmenter, error) in enumerate(zip(segmenters, errors.tolist(), strict=True)):
                alarm = segmenter.update(row, error)
                if alarm is not None:
                    first[i] = max(alarm.onset, first[i])
        return said, used

    def _answer(self, x: Tensor, y: Tensor, used: NDArray[np.int64]) -> Floats:
        """Adapt on the ``used (B,)`` newest of the rows before the last, and predict the last."""
        rows = y.shape[1]
        mask = (torch.arange(rows) >= rows - torch.from_numpy(used).unsqueeze(1)).float()
        fast = self.state.theta.expand(len(x), -1)
        if rows:
            fast, _ = self.learner.adapt(self.state, x[:, :-1], y, mask, 1)
        with torch.no_grad():
            found: Floats = self.learner.predict(fast, x[:, -1:])[:, 0, 0].double().numpy()
        return found


@cache
def trained_maml(seed: int, updates: int) -> tuple[GradientLearner, Trained]:
    """Meta-train on single tasks, of 1 to ``WINDOW`` noisy rows: it knows where each begins."""
    begun = perf_counter()
    learner = maml(
        Net(SIZES), "regression", inner_lr=INNER_LR, steps=STEPS, outer_lr=1e-3, huber=HUBER
    )

    def draw(rng: np.random.Generator, tasks: int) -> Batch:
        series = switching(rng, tasks, 2 * WINDOW, 0.0)
        x, y = series.tensors(torch.float32)
        used = torch.from_numpy(rng.integers(0, WINDOW + 1, (tasks, 1)))
        mask = (torch.arange(WINDOW) < used).float()
        support, query = (x[:, :WINDOW], y[:, :WINDOW]), (x[:, WINDOW:], y[:, WINDOW:])
        return Batch(*support, mask, *query, torch.ones(tasks, WINDOW))

    start = learner.init(torch.from_numpy(initial(np.random.default_rng(seed))))
    held_out = draw(np.random.default_rng([seed, SCALE, 1]), 200)
    plan = Plan(updates, every=max(1, updates // 10))
    training = MetaTraining(learner, start, draw, held_out, plan, seed=(seed, TRAIN))
    for _ in training.run():
        pass
    return learner, Trained(training.best, updates, perf_counter() - begun)


def judge_maml(model: str, seed: int, updates: int, series: Series) -> tuple[Judged, Trained]:
    """A normal density around MAML's answer. Its variance, for each number of rows adapted on, is
    what the errors were on other series, with the hazard of the test."""
    learner, made = trained_maml(seed, updates)
    watched = Watched(learner, made.state, model.partition("@")[2])
    rng = np.random.default_rng([seed, SCALE])
    other = switching(rng, SCALE_SERIES, TEST_ROWS, TEST_HAZARD)
    said, used = watched.run(other)
    counts = np.bincount(used.ravel(), minlength=WINDOW + 1)
    sums = np.bincount(used.ravel(), ((other.y - said) ** 2).ravel(), WINDOW + 1)
    overall = float(((other.y - said) ** 2).mean())
    variance = (sums + overall) / (counts + 1.0)  # a number of rows that never came has the mean
    said, used = watched.run(series)
    here = variance[used]
    square = (series.y - said) ** 2 / here
    nll = 0.5 * (np.log(2.0 * math.pi * here) + square)
    below = torch.special.ndtr(torch.from_numpy((series.y - said) / np.sqrt(here))).numpy()
    return Judged(nll, said, below), made


# -- the protocol --------------------------------------------------------------------------------


class Switching:
    """A job is one model, meta-trained with one seed and tested on ``rows`` episodes."""

    def card(self, job: Job) -> Card:
        """What can be said of it.

        Raises:
            UsageError: there is one stream, ``sine``.
        """
        if job.stream != STREAM:
            raise UsageError(f"stream {job.stream!r}: expected {STREAM}")
        floor = 0.5 * math.log(2.0 * math.pi * math.e * NOISE)
        return Card(
            job.stream, "regression", job.rows or EPISODES, (), "sines that switch, unsegmented",
            f"negative log density {floor:.3f} nats where the sine is known",
            "Harrison et al. 2020, arXiv 1912.08866", EPISODES, best=floor,
        )  # fmt: skip

    def check(self, job: Job) -> None:
        """Refuse what cannot be done, before any work.

        Raises:
            UsageError: no such model, or no such detector.
        """
        name, _, detector = job.model.partition("@")
        if name != "maml":
            starts_of(job.model)
            return
        try:
            Segmenter([detector], "ratio")
        except ValueError as fault:
            raise UsageError(f"{job.model}: {fault}") from None

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Meta-train, then predict every row of the episodes before it is learned."""
        card = self.card(job)
        rng = np.random.default_rng([job.seed, TEST])
        series = switching(rng, card.rows, TEST_ROWS, TEST_HAZARD)
        if job.model.startswith("maml"):
            told, made = judge_maml(job.model, job.seed, MAML_UPDATES * card.rows, series)
        else:
            name = job.model if job.model.startswith("window") else job.model.partition("@")[0]
            made = trained(name, job.seed, UPDATES * card.rows)
            told = judge_closed_form(job.model, made.state, series)
        scores = Measured(measured(told, series), card.rows * TEST_ROWS, higher_is_better=False)
        result = Result(job.model, job.seed, job.chunk, "regression", scores, made.seconds)
        result.events, result.peak_rss_mb = made.updates, peak_rss_mb()
        result.rows = array("q", range(told.nll.size))
        result.losses = array("d", told.nll.ravel().tolist())
        if progress is not None:
            progress(told.nll.size, result.scores, 0)
        return Outcome(job, card, result)


def measured(told: Judged, series: Series) -> dict[str, float]:
    """Mean negative log density: of all rows, of the first after a switch, of those long after;
    mean squared error; which share of values lies in the central 90 % intervals."""
    early, late = series.since < EARLY, series.since >= SETTLED
    inside = (told.below > 0.05) & (told.below < 0.95)
    return {
        MAIN: float(told.nll.mean()),
        "nll_early": float(told.nll[early].mean()),
        "nll_settled": float(told.nll[late].mean()) if late.any() else float("nan"),
        "mse": float(((series.y - told.mean) ** 2).mean()),
        "coverage": float(inside.mean()),
    }


SWITCHING = Switching()
