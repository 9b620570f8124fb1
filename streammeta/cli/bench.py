"""``streammeta bench``: a suite of models, streams and seeds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streammeta.cli.console import err, out, plain_table
from streammeta.registry import components, load

if TYPE_CHECKING:
    from rich.console import Console

    from scenarios.bench import Book, Done, Job, Suite, Summary

GATE_FAILED = 1  # exit code
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
    """Run models x streams x seeds and print tables: scores, intervals, ranks, recovery, cost."""
    if results is not None:
        _write_results(results)
        return
    if listed or suite is None:
        _print_suites(json_out is not None)
        if suite is None and not listed:
            raise typer.BadParameter("expected the name of a suite", param_hint="SUITE")
        return
    from scenarios.bench import check, standard
    from streammeta.report import require_report

    if report is not None:
        require_report(report)
    chosen: Suite = load("suites", suite)
    if gated and chosen.gates is None:
        raise typer.BadParameter(f"suite {chosen.name} has no gates", param_hint="--check")
    names = [name.strip() for name in models.split(",") if name.strip()]
    names = names or _present(chosen)
    todo = chosen.jobs(models=names, seeds=seeds, quick=quick, rows=rows)
    for stream in chosen.streams:
        if why := chosen.unavailable(stream):
            err().print(f"skipped {stream}: {why}", markup=False)
    check(todo)
    with _json_lines(json_out) as write:
        book = _run(chosen, todo, jobs, fresh)
        write(book)
    tables = (chosen.summarise or standard)(book)
    show = err() if json_out is not None and str(json_out) == "-" else out()
    for summary in tables:
        _show(show, summary)
    if report is not None:
        _write_report(report, chosen, tables)
    if gated and not _gates_hold(show, chosen, book):
        raise typer.Exit(GATE_FAILED)


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
    """Print every gate; whether all of them hold."""
    assert suite.gates is not None
    gates = suite.gates(book)
    if not gates:
        show.print("no gate can be checked: none of their streams is available on this machine")
    for gate in gates:
        show.print(f"{'ok    ' if gate.ok else 'FAILED'}  {gate.text}", markup=False)
    return all(gate.ok for gate in gates)


def _run(suite: Suite, todo: Sequence[Job], jobs: int, fresh: bool) -> Book:
    """Do what an interrupted run has left to do, and make the book of all."""
    from scenarios.bench import Book, Journal, command_line, compare, finish, new_counter, run_jobs

    journal = Journal(suite, todo)
    if fresh:
        journal.clear()
    done = journal.read(todo)
    left = [job for job in todo if job not in done]
    place = {job: number for number, job in enumerate(todo)}
    minutes = f"about {suite.minutes:g} minutes when complete, with one process"
    err().print(f"{suite.name}: {len(todo)} runs, {minutes}", markup=False)
    if done:
        err().print(
            f"{len(done)} of them are there from an interrupted run ({journal.folder}); "
            f"--fresh does them again",
            markup=False,
        )
    counter = new_counter()
    with _ticks(len(todo), len(done), lambda: counter.value) as tick:
        for outcome in run_jobs(left, jobs, counter):
            kept = finish(outcome, suite, command_line())
            journal.write(place[outcome.job], kept)
            done[outcome.job] = kept
            tick(kept)
    ordered = [done[job] for job in todo]
    journal.clear()
    return Book([kept.record for kept in ordered], compare(ordered))


def _print_suites(as_json: bool) -> None:
    rows = []
    for row in components("suites").values():
        suite: Suite = row.load()
        streams, models = len(suite.streams), len(suite.models)
        rows.append((row.name, row.summary, streams, models, len(suite.seeds), suite.minutes))
    if as_json:
        for told in rows:
            names = ("name", "summary", "streams", "models", "seeds", "minutes")
            typer.echo(json.dumps(dict(zip(names, told, strict=True))))
        return
    table = plain_table()
    table.add_column("suite", style="bold", no_wrap=True)
    table.add_column("what it shows")
    for name in ("streams", "models", "seeds", "minutes"):
        table.add_column(name, justify="right")
    for name, summary, *numbers, minutes in rows:
        table.add_row(name, summary, *map(str, numbers), f"{minutes:g}")
    out().print(table)


@contextmanager
def _json_lines(path: Path | None) -> Iterator[Callable[[Book], None]]:
    """A function that writes a book as JSON lines; the file is tried before any work is done.

    A file of an earlier run stays as it is until the new book is complete.
    """
    from streammeta.errors import SinkError

    if path is None:
        yield lambda book: None
        return
    if str(path) == "-":
        yield lambda book: typer.echo("\n".join(book.lines()))
        return
    aside = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.touch()
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror}") from fault

    def write(book: Book) -> None:
        aside.write_text("".join(f"{line}\n" for line in book.lines()), encoding="utf-8")
        aside.replace(path)

    try:
        yield write
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _ticks(total: int, before: int, rows: Callable[[], int]) -> Iterator[Callable[[Done], None]]:
    """A function that tells on stderr that a run is done; on a terminal a bar moves meanwhile."""
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
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    count = before
    with bar:
        bar.add_task("", total=total, completed=before)

        def tell(done: Done) -> None:
            nonlocal count
            count += 1
            record = done.record
            chunk = f"  chunk {record.chunk}" if record.chunk > 1 else ""
            note = f" ({record.note})" if record.note else ""
            bar.console.print(
                f"{count:>4} of {total}  {record.stream}  {record.model}{note}  "
                f"seed {record.seed}{chunk}  {record.main} {record.score:.4f}  "
                f"{record.seconds:.1f} s",
                style="dim",
                markup=False,
            )
            for task in bar.task_ids:
                bar.update(task, completed=count)

        yield tell


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


def _write_report(path: Path, suite: Suite, tables: Sequence[Summary]) -> None:
    from scenarios.bench import command_line, provenance
    from streammeta.report import Report, chart, save_png

    page = Report(f"bench {suite.name}").text(suite.summary).text(f"command: {command_line()}")
    page.text(", ".join(f"{name} {value}" for name, value in provenance().items()))
    for summary in tables:
        page.heading(summary.title).table(summary.head, summary.rows)
        if summary.note:
            page.text(summary.note)
        if summary.lines:
            figure = chart(
                summary.lines,
                x_label=summary.x_label,
                y_label=summary.y_label,
                logarithmic=True,
            )
            page.picture(figure)
            picture = path.with_suffix(".png")
            save_png(figure, picture)
            err().print(f"picture: {picture}")
    page.save(path)
    err().print(f"report: {path}")


def _write_results(path: Path) -> None:
    from scenarios.bench.results import page
    from streammeta.errors import SinkError

    text = page(path.parent / "results")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault
    err().print(f"written: {path}")
