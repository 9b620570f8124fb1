"""The table at the end of ``run``: the same scenario again, other models, several seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from statistics import mean
from typing import TYPE_CHECKING, Any

from rich.console import Console

from scenarios.bench import (
    MAX_DELAY,
    Job,
    Outcome,
    check,
    drift_report,
    in_order,
    main_score,
    pool,
    run_job,
    spread,
    stop_now,
)
from streammeta.cli.console import plain_table
from streammeta.config_file import CompareConfig, RunConfig

if TYPE_CHECKING:
    from rich.table import Table

WORDS = {
    "streammeta": "streammeta (this model)",
    "frozen@drift": "frozen before the first fault",
    "reset": "reset at each alarm",
    "no_challengers": "without challengers",
    "no_drift": "ignoring alarms",
    "no_replay": "without replay",
    "random_challengers": "challengers from random",
    "no_change": "repeats the last label",
}
_ASK = 0.2  # seconds between two looks at whether to stop


class Comparison:
    """Jobs in processes of their own, started early so that they use an idle core."""

    def __init__(self, config: RunConfig, compare: CompareConfig) -> None:
        source = config.source
        assert source is not None
        assert source.scenario is not None  # a comparison needs a stream that can be had again
        fields = config.model.model_dump(exclude_unset=True, exclude={"seed", "task", "chunk"})
        overrides: tuple[tuple[str, Any], ...] = tuple(fields.items())
        self.jobs = [
            Job(
                model,
                source.scenario,
                seed,
                source.rows,
                config.model.chunk,
                overrides,
                source.label_delay,
            )
            for seed in compare.seeds
            for model in compare.models
        ]
        check(self.jobs)
        self._processes = compare.processes
        self._pools: list[ProcessPoolExecutor] = []
        self._waiting: dict[Job, Future[Outcome]] = {}

    def start(self) -> None:
        """Begin with all processes but one: that core belongs to the live run."""
        self._pools = [pool(max(1, self._processes - 1))]
        self._waiting = {job: self._pools[0].submit(run_job, job) for job in self.jobs}

    def _join_in(self) -> None:
        """The live run is over: one more process shares the jobs that have not begun."""
        if self._processes == 1:
            return
        self._pools.append(pool(1))
        idle = [job for job, future in self._waiting.items() if future.cancel()]
        for i, job in enumerate(idle):
            turn = self._pools[1 if i % self._processes == 0 else 0]
            self._waiting[job] = turn.submit(run_job, job)

    def finish(self, stop: Callable[[], bool], console: Console) -> list[Outcome]:
        """Wait for all jobs; an empty list when ``stop`` said so first."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._join_in()
        columns = (TextColumn("comparing"), BarColumn(bar_width=24), MofNCompleteColumn())
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task("", total=len(self.jobs))
            left = set(self._waiting.values())
            while left and not stop():
                done, left = wait(left, timeout=_ASK)
                bar.update(task, advance=len(done))
                for future in done:
                    future.result()  # a job's fault ends the run here
        if left:
            self.cancel()
            return []
        for workers in self._pools:
            workers.shutdown()
        return in_order(self.jobs, [future.result() for future in self._waiting.values()])

    def cancel(self) -> None:
        """Leave the jobs."""
        for workers in self._pools:
            stop_now(workers)


def comparison_table(outcomes: Sequence[Outcome]) -> Table:
    """Mean and spread over the seeds: the whole stream, after the first fault, drifts found."""
    score = outcomes[0].result.scores
    seeds = sorted({o.job.seed for o in outcomes})
    job = outcomes[0].job
    late = f"labels {job.label_delay} rows late, " if job.label_delay else ""
    table = plain_table(
        f"{job.stream}, {outcomes[0].card.rows:,} rows, chunk {job.chunk}, {late}"
        f"mean ± std over seeds {', '.join(map(str, seeds))}"
    )
    table.add_column("model", no_wrap=True)
    for name in (score.main, "after the first fault", "faults found", "rows later"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("false alarms", justify="right")
    models = list(dict.fromkeys(o.job.model for o in outcomes))
    groups = [[o for o in outcomes if o.job.model == m] for m in models]
    means = [mean(main_score(o) for o in group) for group in groups]
    best = max(means) if score.higher_is_better else min(means)
    for group, value in zip(groups, means, strict=True):
        model = group[0].job.model
        cells = [spread([main_score(o) for o in group]), spread([_after(o) for o in group])]
        style = "bold green" if value == best else None
        table.add_row(WORDS.get(model, model), *cells, *_found(group), style=style)
    return table


def _after(outcome: Outcome) -> float:
    """The main score over the rows from the first true drift on."""
    first = outcome.card.drifts[0][0] if outcome.card.drifts else 0
    pairs = zip(outcome.result.rows, outcome.result.losses, strict=True)
    losses = [loss for row, loss in pairs if row >= first]
    if not losses:
        return float("nan")
    return 1.0 - mean(losses) if outcome.result.scores.higher_is_better else mean(losses)


def _found(group: Sequence[Outcome]) -> list[str]:
    """Faults found of all (over the seeds), mean rows until the alarm, false alarms."""
    reports = [r for o in group if (r := drift_report(o))]
    if not reports or not any(o.result.watches for o in group):
        return ["-", "-", "-"]
    found = sum(r["found"] for r in reports)
    true = found + sum(r["missed"] for r in reports)
    delays = [r["mean_delay"] for r in reports if r["mean_delay"] is not None]
    false = sum(r["false_alarms"] for r in reports)
    return [f"{found} of {true}", f"{mean(delays):.0f}" if delays else "-", str(false)]


def footnote() -> str:
    """How to read the last columns."""
    sums = "faults found and false alarms are sums over the seeds"
    return f"a fault counts as found within {MAX_DELAY} rows; {sums}"
