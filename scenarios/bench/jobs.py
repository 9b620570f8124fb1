"""Doing jobs: one at a time in this process, or several processes at once."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from ctypes import CDLL
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from signal import SIG_BLOCK, SIG_SETMASK, SIGINT, pthread_sigmask
from threading import Thread
from time import monotonic
from typing import Any, Protocol

from scenarios.bench.suite import Job
from scenarios.models import SGD_RATES, at_drift, build
from scenarios.prequential import Progress, Result, prequential
from scenarios.scenario import Card, Scenario, scenario
from streammeta.errors import UsageError
from streammeta.events import Event
from streammeta.registry import load
from streammeta.scores import Scores
from streammeta.sources.labels import delayed

BEST_SGD = "sgd@best"
PEERS = "capymoa."  # models that run in an environment of their own
WARM_UP_ROWS = 400  # of a stream of this length; its drifts come earlier too
_LOOKED = 100  # questions of a peer's stream among which a late label is looked for
_TELL = 0.2  # seconds between two counts of rows sent to the parent process


@dataclass(slots=True)
class Outcome:
    """What a job gave; ``result.model`` is the job's model as it was named."""

    job: Job
    card: Card
    result: Result


class Trial(Protocol):
    """A row of the registry's table ``protocols``: what a job does that is no stream's loop."""

    def card(self, job: Job) -> Card:
        """What is asked, before any work; UsageError where there is no such thing."""

    def check(self, job: Job) -> None:
        """Refuse, by a UsageError, a model that cannot do it; before any work."""

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Do it."""


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
    if job.protocol:
        return _trial(job).run(job, progress)
    stream = scenario(job.stream, seed=job.seed, rows=job.rows)
    if job.model == BEST_SGD:
        return _best_sgd(job, stream, progress)
    if job.model.startswith(PEERS):
        return Outcome(job, stream.card, _peer(job, stream, progress))
    return Outcome(job, stream.card, run_stream(job, stream, progress))


def _trial(job: Job) -> Trial:
    found: Trial = load("protocols", job.protocol)
    return found


def run_stream(
    job: Job, stream: Scenario, progress: Progress | None = None, card: Card | None = None
) -> Result:
    """Predict and learn every row of ``stream``; another ``card`` may score fewer of them."""
    card = card or stream.card
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
        (rate, run_stream(replace(job, model=f"sgd@{rate:g}"), stream, progress))
        for rate in SGD_RATES
    ]
    up = tried[0][1].scores.higher_is_better
    rate, result = max(tried, key=lambda t: t[1].metric[t[1].scores.main] * (1.0 if up else -1.0))
    result.model = job.model
    result.note = f"rate {rate:g}"
    return Outcome(job, stream.card, result)


def _peer(job: Job, stream: Scenario, progress: Progress | None) -> Result:
    from scenarios import peers

    _refuse_late_labels(job)
    result: Result = peers.run(job.model, stream, job.seed, rows=job.cap, progress=progress)
    return result


def _refuse_late_labels(job: Job) -> None:
    if job.label_delay or job.chunk > 1:
        raise UsageError(f"{job.model}: peers take labels at once and one row at a time")


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
    jobs: Sequence[Job],
    processes: int = 1,
    counter: Counter | None = None,
    failed: Callable[[Job, Exception], None] | None = None,
) -> Generator[Outcome, None, None]:
    """The outcomes as they come in; with one process in the order of the jobs.

    Where a job is to be ``alone``, every job has a process to itself, that ends with it.
    ``counter`` (of ``new_counter``) counts rows while jobs run. ``failed`` is told of a job that
    raises, and the others go on; without it the first one that raises ends them all. Whoever
    leaves early closes the generator: jobs at hand are ended then, not waited for.
    """
    alone = any(job.alone for job in jobs)
    if processes <= 1 and not alone:
        for job in jobs:
            outcome = _result_of(partial(_counted, job, counter), job, failed)
            if outcome is not None:
                yield outcome
        return
    with pool(max(processes, 1), counter, fresh=alone) as workers:
        try:
            with _no_interrupt():
                waiting = {workers.submit(work, job): job for job in jobs}
            while waiting:
                done = wait(waiting, return_when=FIRST_COMPLETED).done
                for future in [one for one in waiting if one in done]:
                    outcome = _result_of(future.result, waiting.pop(future), failed)
                    if outcome is not None:
                        yield outcome
        except BaseException:
            stop_now(workers)
            raise


def _result_of(
    get: Callable[[], Outcome], job: Job, failed: Callable[[Job, Exception], None] | None
) -> Outcome | None:
    """What ``get`` returns, or nothing when it raises and ``failed`` has been told."""
    try:
        return get()
    except Exception as fault:
        if failed is None:
            raise
        failed(job, fault)
        return None


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Ctrl-C waits; processes begun meanwhile never see one, not even while they start."""
    before = pthread_sigmask(SIG_BLOCK, [SIGINT])
    try:
        yield
    finally:
        pthread_sigmask(SIG_SETMASK, before)


def new_counter() -> Counter:
    """A counter for ``run_jobs``, at 0."""
    made: Counter = get_context("spawn").Value("q", 0)
    return made


def pool(
    processes: int, counter: Counter | None = None, *, fresh: bool = False
) -> ProcessPoolExecutor:
    """New, polite processes of one thread each, that leave Ctrl-C to their parent.

    ``fresh``: every task has one of its own.
    """
    return ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=_begin,
        initargs=(counter,),
        max_tasks_per_child=1 if fresh else None,
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
    Thread(target=_end_with_the_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    os.nice(10)


def _end_with_the_parent() -> None:
    """However that ends: a worker that waits for jobs would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def work(job: Job) -> Outcome:
    """``run_job`` in a process of the pool."""
    if job.alone:
        warm_up(job)
    return _counted(job, _counter)


def warm_up(job: Job) -> None:
    """Run the job's model over a short stream of the same kind and forget it.

    What a process pays once (imports, compiled code) is then paid. A model of another environment
    is not warmed up: its process is never this one.

    Raises:
        UsageError: the model or the stream cannot be built.
        SourceError: the stream's data is not on this machine.
    """
    if not job.model.startswith(PEERS):
        run_job(replace(job, rows=WARM_UP_ROWS))
        gc.collect()
        with suppress(AttributeError, OSError):  # glibc alone keeps what was freed, and can let go
            CDLL(None).malloc_trim(0)


def _counted(job: Job, counter: Counter | None) -> Outcome:
    """``run_job``, its rows added to ``counter``."""
    if counter is None:
        return run_job(job)
    tally = _Tally(counter)
    try:
        return run_job(job, tally)
    finally:
        tally.settle()


class _Tally:
    """A progress function that adds rows to a counter now and then; ``settle`` adds the rest."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._scores: Scores | None = None  # of the run at hand
        self._rows = self._told = 0
        self._last = monotonic()

    def __call__(self, rows: int, scores: Scores, drifts: int) -> None:
        if scores is not self._scores:  # another run of the same job, such as the next rate
            self.settle()
            self._scores, self._told = scores, 0
        self._rows = rows
        if monotonic() - self._last >= _TELL:
            self.settle()

    def settle(self) -> None:
        """Add what has not been added yet."""
        with self._counter.get_lock():
            self._counter.value += self._rows - self._told
        self._told = self._rows
        self._last = monotonic()


def in_order(jobs: Sequence[Job], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes in the order of their jobs."""
    place = {job: i for i, job in enumerate(jobs)}
    return sorted(outcomes, key=lambda outcome: place[outcome.job])


def main_score(outcome: Outcome) -> float:
    """Accuracy or mean absolute error over the whole stream."""
    return outcome.result.metric[outcome.result.scores.main]


def check(jobs: Sequence[Job]) -> None:
    """Refuse models that do not exist or do not fit their stream before any work is done.

    Raises:
        UsageError: there is nothing to do, or a model cannot be built for a stream.
        SourceError: a stream's data is not on this machine.
    """
    if not jobs:
        raise UsageError("nothing to run: no stream of the suite is available on this machine")
    for (model, stream), why in unfit(jobs, cards(jobs)).items():
        raise UsageError(f"model {model!r} on stream {stream!r}: {why}")


def cards(jobs: Sequence[Job]) -> dict[str, Card]:
    """The card of every stream.

    Raises:
        UsageError: a stream cannot be built.
        SourceError: its data is not on this machine.
    """
    found: dict[str, Card] = {}
    for job in jobs:
        if job.stream not in found and job.protocol:
            found[job.stream] = _trial(job).card(job)
        elif job.stream not in found:
            found[job.stream] = scenario(job.stream, seed=job.seed, rows=job.rows).card
    return found


def unfit(jobs: Sequence[Job], cards: Mapping[str, Card]) -> dict[tuple[str, str], str]:
    """Why a model cannot run on a stream, by (model, stream), in the order of the jobs.

    Each pair is tried with its first job; models are built and see no row.
    """
    found: dict[tuple[str, str], str] = {}
    tried = set()
    for job in jobs:
        pair = job.model, job.stream
        if pair in tried:
            continue
        tried.add(pair)
        try:
            _try(job, cards[job.stream])
        except UsageError as fault:
            found[pair] = str(fault)
    return found


def _try(job: Job, card: Card) -> None:
    """Build the job's model for its stream.

    Raises:
        UsageError: it cannot be built.
    """
    if job.protocol:
        _trial(job).check(job)
        return
    if job.model.startswith(PEERS):
        _try_peer(job, card)
        return
    name = f"sgd@{SGD_RATES[0]:g}" if job.model == BEST_SGD else at_drift(job.model, card)
    overrides = dict(job.overrides)
    build(name, task=card.task, seed=job.seed, chunk=job.chunk, overrides=overrides)


def _try_peer(job: Job, card: Card) -> None:
    from scenarios import peers
    from scenarios.peers.bridge import Table

    if why := missing(job.model):
        raise UsageError(why)
    if peers.NAMES[job.model.removeprefix(PEERS)].form(card.task) is None:
        raise UsageError(f"it has no form for {card.task}")
    _refuse_late_labels(job)
    first = scenario(job.stream, seed=job.seed, rows=job.rows).events()
    Table(card.task).read(first, _LOOKED)  # refuses a label that comes late


def missing(model: str) -> str:
    """Why ``model`` cannot run on this machine, though there is one of this name; or nothing."""
    if not model.startswith(PEERS):
        return ""
    from scenarios import peers

    return str(peers.missing(model))
