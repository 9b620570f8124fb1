"""``streammeta bench``: a suite of models, streams and seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streammeta.cli.console import err, out, plain_table, tell_of_compiling
from streammeta.registry import components, load

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from scenarios.bench import Book, Done, Job, Journal, Record, Suite, Summary
    from scenarios.scenario import Card

FAILED = 1  # exit code: a gate does not hold, or a run failed
GAP = 3  # columns between two cells
WIDEST = 400  # columns of a table that does not go to a terminal

EPILOG = """[bold]Examples[/]

streammeta bench synthetic --quick

streammeta bench open-streams --models streammeta,river.hat,my_module:MyModel --jobs 2

streammeta bench quickstart --jobs 2 --check --json results/quickstart.jsonl

streammeta bench --write-results RESULTS.md
"""


def bench(
    suite: str | None = typer.Argument(
        None, metavar="SUITE", help="A suite by name.", show_default=False
    ),
    listed: bool = typer.Option(False, "--list", help="List the suites and how long they take."),
    models: str = typer.Option(
        "", help="Comma-separated models instead of the suite's.", show_default=False
    ),
    seeds: int | None = typer.Option(
        None, min=1, help="Seeds 0 to N-1 instead of the suite's.", show_default=False
    ),
    quick: bool = typer.Option(False, "--quick", help="Few rows, one seed: does it work at all?"),
    rows: int | None = typer.Option(
        None, min=1, help="Rows of each stream; drifts of generated ones move with it.",
        show_default=False,
    ),
    jobs: int = typer.Option(1, min=1, help="Processes; timings are best with 1."),
    fresh: bool = typer.Option(
        False, "--fresh", help="Do not go on with an interrupted run of the same bench."
    ),
    json_out: Path | None = typer.Option(
        None, "--json", help="Write JSON lines to a file; - is stdout.", show_default=False
    ),
    report: Path | None = typer.Option(
        None, help="Write an HTML report; pictures as PNG beside it.", show_default=False
    ),
    gated: bool = typer.Option(
        False, "--check", help="Print the suite's gates with their figures; exit 1 if one fails."
    ),
    results: Path | None = typer.Option(
        None, "--write-results", help="Write FILE from results/*.jsonl beside it; run nothing.",
        metavar="FILE", show_default=False,
    ),
) -> None:  # fmt: skip
    """Run models x streams x seeds and print tables: scores, intervals, ranks, recovery, cost.

    STREAMMETA_DATA names the folder with the files of open: streams.

    STREAMMETA_PEERS names the environment of capymoa. models (make peers).

    After an interruption the same command goes on where it stopped.
    """
    if results is not None:
        _write_results(results)
    elif listed:
        _print_suites(json_out)
    elif suite is None:
        _print_suites(None)
        raise typer.BadParameter("expected the name of a suite", param_hint="SUITE")
    else:
        chosen: Suite = load("suites", suite)
        if gated and chosen.gates is None:
            raise typer.BadParameter(f"suite {chosen.name} has no gates", param_hint="--check")
        from drift.registry import split_names

        names = split_names(models)
        whole = not (names or quick or rows or seeds)
        todo = chosen.jobs(models=names or _present(chosen), seeds=seeds, quick=quick, rows=rows)
        plan = _plan(chosen, todo, named=bool(names), whole=whole)
        if not _bench(plan, jobs, fresh, json_out, report, gated):
            raise typer.Exit(FAILED)


@dataclass(slots=True)
class _Plan:
    """What is to be done; ``whole``: the suite as it is, nothing left out by the user."""

    suite: Suite
    jobs: Sequence[Job]
    cards: Mapping[str, Card]
    whole: bool


def _plan(suite: Suite, todo: Sequence[Job], *, named: bool, whole: bool) -> _Plan:
    """The jobs that can run; it is said which streams and which of the suite's models cannot.

    Raises:
        UsageError: no job is left, or a model that the user has ``named`` does not fit a stream.
    """
    from scenarios.bench.jobs import cards, check, unfit

    for stream in suite.streams:
        if why := suite.unavailable(stream):
            err().print(f"skipped {stream}: {why}", markup=False)
    if named or not todo:
        check(todo)
    found = cards(todo)
    if not named:
        skipped = unfit(todo, found)
        for (model, stream), why in skipped.items():
            err().print(f"skipped {model} on {stream}: {why}", markup=False)
        todo = [job for job in todo if (job.model, job.stream) not in skipped]
        if not todo:
            check(todo)
    return _Plan(suite, todo, found, whole)


def _bench(
    plan: _Plan, jobs: int, fresh: bool, json_out: Path | None, report: Path | None, gated: bool
) -> bool:
    """Run, write and show; whether every run and, if asked for, every gate is well."""
    from scenarios.bench import Book, Journal, compare, standard
    from streammeta.report import require_report

    if report is not None:
        require_report(report, png=True)
    suite = plan.suite
    journal = Journal(suite, plan.jobs, cards=plan.cards)
    if fresh:
        journal.clear()
    journal.open()
    with _lines(json_out) as write:
        done, failed = _run(plan, journal, jobs)
        book = Book([kept.record for kept in done], compare(done))
        if done:
            write(book.lines())
    show = err() if json_out is not None and str(json_out) == "-" else out()
    tables = (suite.summarise or standard)(book) if done else []
    for summary in tables:
        _show(show, summary)
    if report is not None:
        _write_report(report, suite, tables, done)
    well = not (gated and done) or _gates_hold(show, suite, book)
    if failed:
        err().print(
            f"{failed} of {len(plan.jobs)} runs failed and are in no table; the same command "
            "does them again and keeps the others",
            markup=False,
        )
        return False
    journal.clear()
    return well


def _present(suite: Suite) -> list[str]:
    """The suite's models that can run on this machine; of the others it is said why not."""
    from scenarios.bench.jobs import missing

    found = []
    for model in suite.models:
        if why := missing(model):
            err().print(f"skipped {model}: {why}", markup=False)
        else:
            found.append(model)
    return found


def _gates_hold(show: Console, suite: Suite, book: Book) -> bool:
    """Print every gate; whether there are any and all of them hold."""
    assert suite.gates is not None
    gates = suite.gates(book)
    if not gates:
        show.print(
            "no gate can be checked: their streams or models did not run, or on too few rows"
        )
    for gate in gates:
        show.print(f"{'ok    ' if gate.ok else 'FAILED'}  {gate.text}", markup=False)
    return bool(gates) and all(gate.ok for gate in gates)


def _run(plan: _Plan, journal: Journal, jobs: int) -> tuple[list[Done], int]:
    """Do what an interrupted run has left to do: all finished runs in order, how many failed."""
    from scenarios.bench import command_line, finish, new_counter, run_jobs

    todo = plan.jobs
    done = journal.read(todo)
    _tell_plan(plan, journal, len(done))
    left = [job for job in todo if job not in done]
    place = {job: number for number, job in enumerate(todo)}
    counter = new_counter()
    failed = 0
    with _ticks(len(todo), len(done), lambda: counter.value) as (tick, tell):

        def fail(job: Job, fault: Exception) -> None:
            nonlocal failed
            failed += 1
            tell(f"FAILED  {job.stream}  {job.model}  seed {job.seed}: {_reason(fault)}")

        with closing(run_jobs(left, jobs, counter, fail)) as outcomes:
            for outcome in outcomes:
                kept = finish(outcome, plan.suite, command_line())
                journal.write(place[outcome.job], kept)
                done[outcome.job] = kept
                tick(kept)
    return [done[job] for job in todo if job in done], failed


def _tell_plan(plan: _Plan, journal: Journal, done: int) -> None:
    """How much there is to do, and how much of it is done."""
    name, minutes = plan.suite.name, plan.suite.minutes
    time = f", about {minutes:g} minutes with one process" if plan.whole else ""
    err().print(f"{name}: {len(plan.jobs)} runs{time}", markup=False)
    if done:
        err().print(
            f"{done} of them are there from an interrupted run ({journal.folder}); "
            "--fresh does them again",
            markup=False,
        )


def _reason(fault: Exception) -> str:
    from streammeta.errors import StreamMetaError

    told = " ".join(str(fault).split())
    return told if isinstance(fault, StreamMetaError) else f"{type(fault).__name__}: {told}"


def _print_suites(json_out: Path | None) -> None:
    rows = []
    for row in components("suites").values():
        suite: Suite = row.load()
        streams, models = len(suite.streams), len(suite.models)
        rows.append((row.name, row.summary, streams, models, len(suite.seeds), suite.minutes))
    if json_out is not None:
        names = ("name", "summary", "streams", "models", "seeds", "minutes")
        lines = [json.dumps(dict(zip(names, told, strict=True))) for told in rows]
        with _lines(json_out) as write:
            write(lines)
        return
    table = plain_table()
    table.add_column("suite", style="bold", no_wrap=True)
    table.add_column("what it shows")
    for name in ("streams", "models", "seeds", "minutes"):
        table.add_column(name, justify="right")
    for name, summary, *numbers, minutes in rows:
        table.add_row(name, summary, *map(str, numbers), f"{minutes:g}")
    out().print(table)


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        typer.echo(line)


@contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[Iterable[str]], None]]:
    """A function that writes lines to a file or, for ``-``, to stdout; for ``None`` nowhere.

    The file is tried before any work is done, and one of an earlier run stays as it is until all
    lines are there.

    Raises:
        SinkError: the file cannot be written.
    """
    from streammeta.errors import SinkError

    if path is None:
        yield lambda lines: None
        return
    if str(path) == "-":
        yield _echo
        return
    aside = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.touch()
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror}") from fault

    def write(lines: Iterable[str]) -> None:
        try:
            aside.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            aside.replace(path)
        except OSError as fault:
            raise SinkError(f"cannot write {path}: {fault.strerror}") from fault

    try:
        yield write
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _ticks(
    total: int, before: int, rows: Callable[[], int]
) -> Iterator[tuple[Callable[[Done], None], Callable[[str], None]]]:
    """Functions that tell on stderr that a run is done, and anything else.

    On a terminal a bar moves meanwhile.
    """
    count = before
    with _bar(rows) as bar:
        task = bar.add_task("", total=total, completed=before)

        def tick(done: Done) -> None:
            nonlocal count
            count += 1
            told = f"{count:>4} of {total}  {_in_short(done.record)}"
            bar.console.print(told, style="dim", markup=False)
            bar.update(task, completed=count)

        yield tick, lambda text: bar.console.print(text, markup=False)


def _bar(rows: Callable[[], int]) -> Progress:
    """Runs done, rows scored so far and time; nothing where stderr is no terminal."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class Rows(ProgressColumn):
        """Rows scored so far, read whenever the bar is drawn."""

        def render(self, task: Task) -> Text:
            return Text(f"{rows():>12,} rows")

    columns = (TextColumn("runs"), BarColumn(bar_width=24), MofNCompleteColumn(), Rows(),
               TimeElapsedColumn())  # fmt: skip
    console = err()
    tell_of_compiling(console)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _in_short(record: Record) -> str:
    """One run on one line."""
    chunk = f"  chunk {record.chunk}" if record.chunk > 1 else ""
    note = f" ({record.note})" if record.note else ""
    return (
        f"{record.stream}  {record.model}{note}  seed {record.seed}{chunk}  "
        f"{record.main} {record.score:.4f}  {record.seconds:.1f} s"
    )


def _show(console: Console, summary: Summary) -> None:
    """A table that is too wide for the terminal is continued below, first column repeated."""
    reading = console.width
    if not console.is_terminal:
        console.width = WIDEST
    for i, columns in enumerate(_pages(summary, console.width)):
        table = plain_table(summary.title if i == 0 else None)
        for column in columns:
            table.add_column(summary.head[column], justify="right" if column else "left",
                             no_wrap=True)  # fmt: skip
        for row in summary.rows:
            table.add_row(*(row[column] for column in columns))
        console.print(table, crop=False)
    console.width = reading
    if summary.note:
        console.print(summary.note, style="dim", markup=False)
        console.print()


def _pages(summary: Summary, width: int) -> list[list[int]]:
    """The columns of each page, as many as fit; every page begins with the first."""
    texts = list(zip(summary.head, *summary.rows, strict=True))
    wide = [max(map(len, column)) + GAP for column in texts]
    pages = [[0]]
    used = wide[0]
    for column in range(1, len(wide)):
        if used + wide[column] > width and len(pages[-1]) > 1:
            pages.append([0])
            used = wide[0]
        pages[-1].append(column)
        used += wide[column]
    return pages


def _write_report(
    path: Path, suite: Suite, tables: Sequence[Summary], done: Sequence[Done]
) -> None:
    from streammeta.cli.pictures import bench_report
    from streammeta.report import save_png

    drifts = _true_drifts(suite, done)
    bench_report(f"bench {suite.name}", suite.summary, tables, done, drifts).save(path)
    err().print(f"report: {path}")
    for summary in tables:
        if summary.lines:
            picture = path.with_suffix(".png")
            save_png(
                summary.lines, picture, x_label=summary.x_label, y_label=summary.y_label,
                logarithmic=True,
            )  # fmt: skip
            err().print(f"picture: {picture}")


def _true_drifts(
    suite: Suite, done: Sequence[Done]
) -> dict[tuple[str, int], Sequence[tuple[int, int]]]:
    """By stream and seed, in rows of the questions, where the whole stream drifts at once."""
    from scenarios.scenario import scenario

    found: dict[tuple[str, int], Sequence[tuple[int, int]]] = {}
    if suite.protocol:
        return found
    for run in (d.record for d in done):
        if (run.stream, run.seed) not in found and run.card["drifts"] and not run.card["keys"]:
            card = scenario(run.stream, seed=run.seed, rows=run.asked["rows"]).card
            found[run.stream, run.seed] = [
                (start - card.horizon, end - card.horizon) for start, end in card.drifts
            ]
    return found


def _write_results(path: Path) -> None:
    from scenarios.bench.results import page
    from streammeta.errors import SinkError

    text = page(path.parent / "results")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault
    err().print(f"written: {path}")
