"""``streammeta pretrain``: offline meta-training on history, to a file that ``--init`` reads."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from time import monotonic
from typing import TYPE_CHECKING

import typer

from streammeta.cli.console import (
    REDRAW,
    err,
    number,
    out,
    plain_table,
    tell_of_compiling,
)

if TYPE_CHECKING:
    from rich.progress import Progress

    from streammeta.cli.history_source import HistorySource
    from streammeta.meta.training import Judged, MetaTraining, Plan
    from streammeta.pretraining import History, Partial, Pretrained, Pretraining

INTERRUPTED = 130
JUDGED = 40  # times in a whole training that is short
MOST_BETWEEN = 500  # iterations between two judgements of a long one

EPILOG = """[bold]Examples[/]

streammeta pretrain sine_switch --rows 20000 --iterations 2000 --out meta.safetensors

streammeta pretrain history.csv --target price --time date --learner maml --set model.inner_steps=5

streammeta pretrain tasks/ --target y

[dim]A folder holds one task per file: its first model.support rows are adapted on, the next
model.query rows judge. Ctrl-C: exit 130; the same command goes on from OUT.LEARNER.partial.[/]
"""


def pretrain(
    source: str = typer.Argument(
        ..., metavar="SOURCE", show_default=False,
        help="CSV, JSONL or Parquet file, a folder with one such file per task, or a scenario.",
    ),
    target: str | None = typer.Option(None, help="Column to predict.", show_default=False),
    task: str = typer.Option("auto", help="auto, classification or regression."),
    horizon: int = typer.Option(0, min=0, help="Predict the target this many rows ahead."),
    time: str | None = typer.Option(None, help="Column with event time.", show_default=False),
    key: str | None = typer.Option(None, help="Column with the stream's key.", show_default=False),
    id_: str | None = typer.Option(None, "--id", help="Column with row ids.", show_default=False),
    ignore: str = typer.Option("", help="Columns to leave out, comma-separated."),
    label_delay: int = typer.Option(0, min=0, help="Labels arrive this many rows later."),
    rows: int | None = typer.Option(None, min=1, help="Only the first rows.", show_default=False),
    to: Path = typer.Option(Path("meta.safetensors"), "--out", help="File to write."),
    learner: str = typer.Option(
        "meta_sgd", help="See: streammeta components show learners; model.partner is trained too."
    ),
    iterations: int = typer.Option(20_000, min=1, help="Outer steps of each learner, at most."),
    patience: int = typer.Option(
        10, min=1, help="Stop after so many judgements, 500 steps apart at most, without a best."
    ),
    tasks: int = typer.Option(8, min=1, help="Tasks of each outer step."),
    seed: int = typer.Option(0, min=0, help="Seed of the scenario, the model and the draws."),
    sets: list[str] = typer.Option(
        [], "--set", help="model.field=value, as in a config.", show_default=False
    ),
    fresh: bool = typer.Option(False, "--fresh", help="Do not go on with what was interrupted."),
    as_json: bool = typer.Option(False, "--json", help="One JSON line on stdout."),
) -> None:  # fmt: skip
    """Cut history into tasks and meta-train on them; `run --init FILE` starts from the result.

    A stream is cut by the detectors of the model, as it would be live. The latest fifth of the
    tasks is held out: it says when to stop and which state is the best.
    """
    from streammeta.cli.history_source import HistorySource, Wanted
    from streammeta.config_file import model_config
    from streammeta.meta.training import Plan

    begin = monotonic()
    wanted = Wanted(target, task, horizon, time, key, id_, tuple(_names(ignore)), label_delay, rows)
    config = model_config(sets, {"learner": learner, "seed": seed, "task": task})
    read = HistorySource.open(source, wanted, config)
    _require_out(to)
    history = _read(read)
    every = max(1, min(MOST_BETWEEN, iterations // JUDGED))
    plan = Plan(iterations=iterations, tasks=tasks, every=every, patience=patience)
    found = _train(read, history, plan, to, fresh)
    done = _Done(read, history, to, sets, found, monotonic() - begin)
    if as_json:
        typer.echo(json.dumps(_record(done)))
    else:
        _show(done)


@dataclass(frozen=True, slots=True)
class _Done:
    source: HistorySource
    history: History
    to: Path
    sets: list[str]
    found: list[Pretrained]
    seconds: float

    @property
    def held_out(self) -> int:
        """How many tasks were never trained on."""
        from streammeta.pretraining import held_out

        return held_out(len(self.history))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _require_out(path: Path) -> None:
    """Say now what would be said after hours of training."""
    from streammeta.errors import SinkError

    if path.is_dir():
        raise SinkError(f"--out {path}: is a folder, expected the name of a file")
    trial = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault


def _read(source: HistorySource) -> History:
    err().print(f"{source.name}: {source.config.task} ({source.why})", markup=False)
    tell_of_compiling(err())
    begin = monotonic()
    try:
        with _reading() as told:
            history = source.history(told)
    except KeyboardInterrupt:
        err().print("streammeta: interrupted while reading; nothing has been written")
        raise typer.Exit(INTERRUPTED) from None
    err().print(
        f"{len(history):,} tasks in {history.rows:,} rows, read in {monotonic() - begin:.1f} s",
        markup=False,
    )
    if history.rejected:
        err().print(
            f"{history.rejected:,} rows rejected, the first: {history.reason}", markup=False
        )
    return history


def _train(
    source: HistorySource, history: History, plan: Plan, to: Path, fresh: bool
) -> list[Pretrained]:
    """Train the learner and its partner, each from the beginning or from where an interrupted
    training stood, and write the file."""
    from safetensors import SafetensorError

    from scenarios.bench.journal import code
    from streammeta.errors import SinkError
    from streammeta.pretraining import Partial, Pretraining, write_pretrained

    jobs = [Pretraining(source.config, history, plan, source.name, n) for n in history.metas]
    partials = [Partial(to, job.name, job.identity(code())) for job in jobs]
    found = []
    for job, partial in zip(jobs, partials, strict=True):
        if fresh:
            partial.clear()
        found.append(_train_one(job, partial))
    try:
        write_pretrained(to, jobs[0], found)
    except (OSError, SafetensorError) as fault:
        raise SinkError(f"cannot write {to}: {fault}") from fault
    for left in to.parent.glob(f"{glob.escape(to.name)}.*.partial"):  # of other learners too
        left.unlink()
    return found


def _train_one(job: Pretraining, partial: Partial) -> Pretrained:
    training = job.training()
    why_not = partial.read(training)
    if why_not:
        err().print(f"{partial.path} {why_not}: begun afresh", markup=False)
        partial.clear()
    elif training.iteration:
        err().print(
            f"{job.name}: going on from iteration {training.iteration:,} ({partial.path}); "
            "--fresh does it anew",
            markup=False,
        )
    try:
        _follow(job, training, partial)
    except KeyboardInterrupt:
        _tell_interrupted(partial)
        raise typer.Exit(INTERRUPTED) from None
    return job.done(training)


def _follow(job: Pretraining, training: MetaTraining, partial: Partial) -> None:
    console = err()
    total = job.plan.iterations
    with _bar(training, total) as bar:
        line = bar.add_task("", total=total, completed=training.iteration, name=job.name, told="")
        for at in job.run(training, partial):
            told = _judged(at, training)
            bar.update(line, completed=at.iteration, told=told)
            if not console.is_terminal:
                where = f"{job.name}: iteration {at.iteration:>7,} of {total:,}"
                console.print(f"{where}  {told}", markup=False)
    if training.out_of_patience:
        console.print(
            f"{job.name}: stopped at iteration {training.iteration:,}: "
            f"{training.stale} judgements without a better one",
            markup=False,
        )


def _judged(at: Judged, training: MetaTraining) -> str:
    """One judgement in words."""
    best = "best" if at.best else f"best {number(training.lowest)}"
    return f"training loss {number(at.loss)}  held-out {number(at.held_out)}  {best}"


def _tell_interrupted(partial: Partial) -> None:
    there = partial.path.is_file()
    told = (
        f"{partial.path} has the last judgement; the same command goes on from there"
        if there
        else "before the first judgement: the same command begins afresh"
    )
    err().print(f"streammeta: interrupted; {told}", markup=False)


def _bar(training: MetaTraining, total: int) -> Progress:
    """Iterations, losses and time; nothing where stderr is no terminal."""
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class Iterations(ProgressColumn):
        """Outer steps so far, read whenever the bar is drawn."""

        def render(self, task: Task) -> Text:
            return Text(f"{training.iteration:>7,} of {total:,}")

    columns = (TextColumn("{task.fields[name]}"), Iterations(), BarColumn(bar_width=24),
               TextColumn("{task.fields[told]}"), TimeElapsedColumn())  # fmt: skip
    console = err()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def _reading() -> Iterator[Callable[[int, int], None] | None]:
    """What shows rows and tasks while they are read; nothing where stderr is no terminal."""
    console = err()
    if not console.is_terminal:
        yield None
        return
    drawn = 0.0
    with console.status("reading") as status:

        def told(rows: int, tasks: int) -> None:
            nonlocal drawn
            if monotonic() - drawn >= REDRAW:
                drawn = monotonic()
                status.update(f"reading: {rows:,} rows, {tasks:,} tasks")

        yield told


def _record(done: _Done) -> dict[str, object]:
    """The line that ``--json`` prints."""
    config, history = done.source.config, done.history
    return {
        "source": done.source.name,
        "task": config.task,
        "out": str(done.to),
        "rows": history.rows,
        "rejected": history.rejected,
        "tasks": len(history),
        "held_out_tasks": done.held_out,
        "learners": {
            one.learner: {
                "held_out_loss": {"before": round(one.before, 6), "after": round(one.after, 6)},
                "iterations": one.iterations,
                "best_iteration": one.best_iteration,
            }
            for one in done.found
        },
        "seconds": round(done.seconds, 3),
        "device": str(done.found[0].meta.device),
        "seed": config.seed,
    }


def _show(done: _Done) -> None:
    config = done.source.config
    start = "random" if config.init is None else f"from {config.init}"
    trained, judged = len(done.history) - done.held_out, done.held_out
    title = f"{done.source.name}, seed {config.seed}: {trained} tasks trained on, {judged} held out"
    table = plain_table(title)
    table.add_column("learner")
    for name in (f"held-out loss, {start}", "pre-trained", "best after"):
        table.add_column(name, justify="right")
    for one in done.found:
        table.add_row(
            one.learner, number(one.before), number(one.after),
            f"{one.best_iteration:,} of {one.iterations:,}",
        )  # fmt: skip
    out().print(table)
    for one in done.found:
        if not one.best_iteration:
            out().print(f"{one.learner}: nothing was better than the start, which the file holds")
    out().print(f"{done.seconds:.1f} s; use it: {_command(done)}", markup=False, soft_wrap=True)


def _command(done: _Done) -> str:
    """How to start from the file, with the settings that it was made with."""
    config, sets = done.source.config, [part for one in done.sets for part in ("--set", one)]
    if config.learner != type(config).model_fields["learner"].default:
        sets += ["--set", f"model.learner={config.learner}"]
    return join(["streammeta", "run", "CONFIG", *sets, "--init", str(done.to)])
