"""Doing jobs: one at a time in this process, or several processes at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import active_children, get_context
from time import monotonic
from typing import Any, Protocol

from scenarios.bench.suite import Job
from scenarios.models import SGD_RATES, at_drift, build
from scenarios.prequential import Progress, Result, prequential
from scenarios.scenario import Card, Scenario, scenario
from streammeta.errors import UsageError
from streammeta.events import Event
from streammeta.scores import Scores
from streammeta.sources.labels import delayed

BEST_SGD = "sgd@best"
PEERS = "capymoa."  # models that run in an environment of their own
_TELL = 0.2  # seconds between two counts of rows sent to the parent process


@dataclass(slots=True)
class Outcome:
    """What a job gave; ``result.model`` is the job's model as it was named."""

    job: Job
    card: Card
    result: Result


class Counter(Protocol):
    """A number that processes share: rows scored so far."""

    value: int

    def get_lock(self) -> Any:
        """To be held while the value changes."""


def run_job(job: Job, progress: Progress | None = None) -> Outcome:
    """Do one job in this process.

    Raises:
        UsageError: the model or the stream cannot be built, or does not fit the other.
        SourceError: the stream's data is not on this machine.
    """
    stream = scenario(job.stream, seed=job.seed, rows=job.rows)
    if job.model == BEST_SGD:
        return _best_sgd(job, stream, progress)
    if job.model.startswith(PEERS):
        return Outcome(job, stream.card, _peer(job, stream, progress))
    return Outcome(job, stream.card, _run(job, stream, progress))


def _run(job: Job, stream: Scenario, progress: Progress | None) -> Result:
    card = stream.card
    model = build(
        at_drift(job.model, card),
        task=card.task,
        seed=job.seed,
        chunk=job.chunk,
        overrides=dict(job.overrides),
    )
    events: Iterable[Event] = stream.events()
    if job.label_delay:
        events = delayed(events, job.label_delay)
    if job.cap is not None:
        events = first_questions(events, job.cap)
    result = prequential(
        model,
        events,
        task=card.task,
        chunk=job.chunk,
        name=job.model,
        seed=job.seed,
        score_from=card.score_from,
        progress=progress,
    )
    result.predictions.clear()  # nobody reads them, and they travel between processes
    return result


def _best_sgd(job: Job, stream: Scenario, progress: Progress | None) -> Outcome:
    """The rate that turns out best on this very stream: more than anybody can know beforehand."""
    tried = [
        (rate, _run(replace(job, model=f"sgd@{rate:g}"), stream, progress)) for rate in SGD_RATES
    ]
    up = tried[0][1].scores.higher_is_better
    rate, result = max(tried, key=lambda t: t[1].metric[t[1].scores.main] * (1.0 if up else -1.0))
    result.model = job.model
    result.note = f"rate {rate:g}"
    return Outcome(job, stream.card, result)


def _peer(job: Job, stream: Scenario, progress: Progress | None) -> Result:
    from scenarios import peers

    if job.label_delay or job.chunk > 1:
        raise UsageError(f"{job.model}: peers take labels at once and one row at a time")
    result: Result = peers.run(job.model, stream, job.seed, rows=job.cap, progress=progress)
    return result


def first_questions(events: Iterable[Event], n: int) -> Iterator[Event]:
    """The events up to the last answer before question ``n`` (counted from 0).

    >>> rows = [Event("a", {}, None), Event("a", None, 1), Event("b", {}, None)]
    >>> [event.id for event in first_questions(rows, 1)]
    ['a', 'a']
    """
    asked = 0
    for event in events:
        if event.x is not None:
            if asked == n:
                return
            asked += 1
        yield event


def run_jobs(
    jobs: Sequence[Job], processes: int = 1, counter: Counter | None = None
) -> Iterator[Outcome]:
    """The outcomes as they come in; with one process in the order of the jobs.

    ``counter`` (of ``new_counter``) counts rows while jobs run.

    Raises:
        UsageError: a model or a stream of a job cannot be built.
    """
    if processes <= 1:
        for job in jobs:
            yield run_job(job, _counting(counter))
        return
    with pool(processes, counter) as workers:
        waiting: dict[Future[Outcome], Job] = {workers.submit(work, job): job for job in jobs}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    del waiting[future]
                    yield future.result()
        finally:
            for future in waiting:
                future.cancel()


def new_counter() -> Counter:
    """A counter for ``run_jobs``, at 0."""
    made: Counter = get_context("spawn").Value("q", 0)
    return made


def pool(processes: int, counter: Counter | None = None) -> ProcessPoolExecutor:
    """Fresh, polite processes of one thread each, that leave Ctrl-C to their parent."""
    return ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(counter,)
    )


def stop_now(workers: ProcessPoolExecutor) -> None:
    """End a pool without waiting for the jobs at hand."""
    workers.shutdown(wait=False, cancel_futures=True)
    for child in active_children():
        child.terminate()


_counter: Counter | None = None  # of a process of the pool


def _begin(counter: Counter | None = None) -> None:
    import signal

    import torch

    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.nice(10)


def work(job: Job) -> Outcome:
    """``run_job`` in a process of the pool."""
    return run_job(job, _counting(_counter))


def _counting(counter: Counter | None) -> Progress | None:
    """A progress function that adds rows to ``counter`` now and then."""
    if counter is None:
        return None
    told = 0
    last = monotonic()

    def count(rows: int, scores: Scores, drifts: int) -> None:
        nonlocal told, last
        if rows < told:  # the next rate of several
            told = 0
        now = monotonic()
        if now - last >= _TELL:
            with counter.get_lock():
                counter.value += rows - told
            told, last = rows, now

    return count


def in_order(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes in the order of their jobs."""
    place = {job: i for i, job in enumerate(jobs)}
    return sorted(outcomes, key=lambda outcome: place[outcome.job])


def main_score(outcome: Outcome) -> float:
    """Accuracy or mean absolute error over the whole stream."""
    return outcome.result.metric[outcome.result.scores.main]


def check(jobs: Sequence[Job]) -> None:
    """Refuse names that do not exist before any work is done.

    Raises:
        UsageError: there is nothing to do, or a model's name cannot be used.
    """
    if not jobs:
        raise UsageError("nothing to run: no stream of the suite is available on this machine")
    for model in dict.fromkeys(job.model for job in jobs):
        if why := missing(model):
            raise UsageError(f"model {model!r}: {why}")
        if model != BEST_SGD and not model.startswith(PEERS):
            _try(model)


def missing(model: str) -> str:
    """Why ``model`` cannot run on this machine, though there is one of this name; or nothing."""
    if not model.startswith(PEERS):
        return ""
    from scenarios import peers

    return str(peers.missing(model))


def _try(model: str) -> None:
    """Build it, for whichever task it is made.

    Raises:
        UsageError: it can be built for neither.
    """
    row = at_drift(model, _ANY)
    try:
        build(row, task="classification")
    except UsageError as fault:
        try:
            build(row, task="regression")
        except UsageError:
            raise fault from None


_ANY = Card(
    "any", "classification", 100, ((50, 50),), "", "", "", 100, score_from=25, train_until=20
)
