"""The stream ``sine_switch`` for meta-learners alone, all told at once when it switches.

Each learner is meta-trained on the tasks of another stream of the scenario (another seed). Then,
before each row of the test, it is adapted afresh on the rows since the switch, and predicts. No
detector, no mixture and no other expert has a part in it: what differs is the learner.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scenarios.bench.jobs import Outcome
from scenarios.fewshot.sine import initial, learner_of
from scenarios.prequential import Progress, Result, peak_rss_mb
from scenarios.scenario import Card
from scenarios.sine_switch import FROM, NOISE, TASK_ROWS, TO, SineSwitch
from streammeta.errors import UsageError
from streammeta.meta.gradient_based import GradientLearner
from streammeta.meta.learner import Batch, State
from streammeta.meta.training import Draw, MetaTraining, Plan
from streammeta.scores import Measured

if TYPE_CHECKING:
    from scenarios.bench.suite import Job

STREAM, MAIN = "sine_switch", "mse_after_switch"
SWITCHES = 100  # of the test
HISTORY_SEED = 1_000  # added to the seed of the job: the stream whose tasks are trained on
HISTORY, HELD_OUT = 3_000, 200  # its tasks, and those of them that choose the state
QUERY = 20  # rows that judge a support in training, of 0 to ``TO`` rows
#: Outer steps of 25 tasks for each switch of the test; a sequence takes longer to go back through.
UPDATES: Mapping[str, int] = {"in_context": 30}
USUAL_UPDATES = 100
TRAIN, VALIDATE = 1, 2  # streams of random numbers


def segments(seed: int, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` tasks of a stream: ``x (count, rows, 1)`` and ``y (count, rows)``."""
    pairs = SineSwitch(seed, count * TASK_ROWS).pairs()
    flat = np.array([(x["x"], y) for x, y in pairs], np.float32)
    rows = torch.from_numpy(flat).view(count, TASK_ROWS, 2)
    return rows[..., :1], rows[..., 1]


def tasks_of(x: Tensor, y: Tensor) -> Draw:
    """Draws tasks from segments: 0 to ``TO`` rows somewhere in one, and those that follow."""

    def draw(rng: np.random.Generator, tasks: int) -> Batch:
        chosen = torch.from_numpy(rng.integers(0, len(x), tasks))
        at = int(rng.integers(0, TASK_ROWS - TO - QUERY + 1))
        mine_x, mine_y = (part[chosen, at : at + TO + QUERY] for part in (x, y))
        used = torch.from_numpy(rng.integers(0, TO + 1, (tasks, 1)))
        mask = (torch.arange(TO) >= TO - used).to(y.dtype)
        support, query = (mine_x[:, :TO], mine_y[:, :TO]), (mine_x[:, TO:], mine_y[:, TO:])
        return Batch(*support, mask, *query, torch.ones_like(query[1]))

    return draw


def trained(learner: GradientLearner, seed: int, updates: int) -> MetaTraining:
    """Meta-train on the history; its last tasks choose the state."""
    x, y = segments(seed + HISTORY_SEED, HISTORY)
    held_out = tasks_of(x[-HELD_OUT:], y[-HELD_OUT:])
    training = MetaTraining(
        learner,
        learner.init(torch.from_numpy(initial(np.random.default_rng(seed)))),
        tasks_of(x[:-HELD_OUT], y[:-HELD_OUT]),
        held_out(np.random.default_rng([seed, VALIDATE]), HELD_OUT),
        Plan(updates, every=max(1, updates // 20)),
        seed=(seed, TRAIN),
    )
    for _ in training.run():
        pass
    return training


def squared_errors(
    learner: GradientLearner, state: State, x: Tensor, y: Tensor
) -> NDArray[np.float64]:
    """Of the first ``TO`` rows of segments ``(B, TO)``, each predicted from those before it."""
    found = []
    for row in range(TO):
        fast = state.theta.expand(len(x), -1)
        if row:
            fast, _ = learner.adapt(state, x[:, :row], y[:, :row], torch.ones_like(y[:, :row]), 1)
        with torch.no_grad():
            said = learner.predict(fast, x[:, row : row + 1])[:, 0, 0]
        found.append((said - y[:, row]).double().square())
    errors: NDArray[np.float64] = torch.stack(found, 1).numpy()
    return errors


class KnownSwitches:
    """A job is one learner, ``NAME@STEPS``, tested on so many switches (its ``rows``)."""

    def card(self, job: Job) -> Card:
        """What can be said of it.

        Raises:
            UsageError: there is one stream, ``sine_switch``.
        """
        if job.stream != STREAM:
            raise UsageError(f"stream {job.stream!r}: expected {STREAM}")
        return Card(
            job.stream, "regression", job.rows or SWITCHES, (), "sines whose switches are told",
            f"mean squared error {NOISE**2:.4g} (noise)",
            "Finn, Abbeel & Levine 2017, arXiv 1703.03400, section 5.1, as a stream", SWITCHES,
            best=NOISE**2,
        )  # fmt: skip

    def check(self, job: Job) -> None:
        """Refuse what cannot be done, before any work.

        Raises:
            UsageError: no such learner.
        """
        learner_of(job.model)

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Meta-train on other tasks, then predict the rows after each switch."""
        card, learner = self.card(job), learner_of(job.model)
        updates = UPDATES.get(job.model.partition("@")[0], USUAL_UPDATES) * card.rows
        begun = perf_counter()
        training = trained(learner, job.seed, updates)
        seconds = perf_counter() - begun
        x, y = segments(job.seed, card.rows + 1)  # before the first switch there is a task as well
        errors = squared_errors(learner, training.best, x[1:], y[1:])
        counted = errors[:, FROM - 1 :].mean(1)
        named = {
            MAIN: float(counted.mean()),
            "mse_first": float(errors[:, : FROM - 1].mean()),
            **{f"mse@{row}": float(errors[:, row - 1].mean()) for row in (FROM, 10, 20, TO)},
        }
        scores = Measured(named, card.rows, higher_is_better=False)
        result = Result(job.model, job.seed, job.chunk, "regression", scores, seconds)
        result.events, result.peak_rss_mb = training.iteration, peak_rss_mb()
        result.rows, result.losses = array("q", range(card.rows)), array("d", counted.tolist())
        if progress is not None:
            progress(card.rows, result.scores, 0)
        return Outcome(job, card, result)


KNOWN_SWITCHES = KnownSwitches()
