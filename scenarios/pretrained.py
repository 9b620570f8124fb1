"""Models that were meta-trained before the stream begins: a protocol of the bench.

The history is another stream of the same scenario (another seed, so other tasks); of recorded
data, which is the same for every seed, it is the first fifth, and all models are scored after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from scenarios.bench.jobs import Outcome, run_stream
from scenarios.bench.suite import Job
from scenarios.models import at_drift, build
from scenarios.prequential import Progress
from scenarios.scenario import Card, scenario
from streammeta.engine import Engine
from streammeta.events import Event
from streammeta.meta.training import Plan
from streammeta.pretraining import Pretraining, from_events, write_pretrained

HISTORY_SEED = 1_000  # added to the seed of the job
HISTORY_ROWS = 12_000  # of the other stream, at most
HISTORY_SHARE = 5  # of recorded data the first of so many parts
PLAN = Plan(iterations=4_000, tasks=8, every=200, patience=10)


class Recipe(NamedTuple):
    """Which model is meta-trained beforehand, and whether it goes on learning to adapt."""

    model: str
    online: bool


RECIPES: Mapping[str, Recipe] = {
    "offline": Recipe("streammeta", online=False),
    "offline_online": Recipe("streammeta", online=True),
    "fine_tuned": Recipe("learner@fine_tuning", online=False),
}


class Pretrained:
    """A job is a model on a stream; those of ``RECIPES`` start from what a history taught."""

    def card(self, job: Job) -> Card:
        """That of the stream; of recorded data only the rows after the history are scored."""
        card = scenario(job.stream, seed=job.seed, rows=job.rows).card
        return replace(card, score_from=card.rows // HISTORY_SHARE) if card.fixed else card

    def check(self, job: Job) -> None:
        """Refuse what cannot be built, before any work.

        Raises:
            UsageError: no such model, or none for this stream.
        """
        card = self.card(job)
        name, _ = _named(job.model)
        build(at_drift(name, card), task=card.task, seed=job.seed, chunk=job.chunk)

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Pre-train where the recipe says so, then predict and learn every row."""
        stream, card = scenario(job.stream, seed=job.seed, rows=job.rows), self.card(job)
        name, overrides = _named(job.model)
        if job.model in RECIPES:
            overrides["init"] = _initial(job.stream, job.seed, job.rows, name)
        meant = replace(job, model=name, overrides=(*job.overrides, *overrides.items()))
        result = run_stream(meant, stream, progress, card)
        result.model = job.model
        return Outcome(job, card, result)


def _named(model: str) -> tuple[str, dict[str, Any]]:
    """The model of the bench behind a name, and the fields of its config."""
    recipe = RECIPES.get(model)
    if recipe is None:
        return model, {}
    return recipe.model, {} if recipe.online else {"meta_every": 0}


@cache
def _folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="streammeta-pretrained-")


@cache
def _initial(stream: str, seed: int, rows: int | None, model: str) -> str:
    """The file with what the learners of ``model`` learned from the history."""
    base = scenario(stream, seed=seed, rows=rows)
    events: Iterable[Event] = islice(base.events(), base.card.rows // HISTORY_SHARE)
    if not base.card.fixed:
        other = min(base.card.rows, HISTORY_ROWS)
        events = scenario(stream, seed=seed + HISTORY_SEED, rows=other).events()
    engine = build(model, task=base.card.task, seed=seed)
    assert isinstance(engine, Engine)
    history = from_events(engine.config, events)
    jobs = [Pretraining(engine.config, history, PLAN, stream, name) for name in history.metas]
    found = []
    for job in jobs:
        training = job.training()
        for _ in training.run():
            pass
        found.append(job.done(training))
    name = sha256(repr((stream, seed, rows, model)).encode()).hexdigest()
    path = Path(_folder().name) / f"{name}.safetensors"
    write_pretrained(path, jobs[0], found)
    return str(path)


PRETRAINED = Pretrained()
