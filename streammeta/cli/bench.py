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
    from rich.table import Table

    from scenarios.bench import Job, Outcome, Suite, Summary

GATE_FAILED = 1  # exit code

EPILOG = """[bold]Examples[/]

streammeta bench sine-switch --jobs 2 --report sine.html

streammeta bench ablation --models streammeta,no_replay --quick --json results.jsonl

streammeta bench quickstart --jobs 2 --check
"""


def bench(
    suite: str | None = typer.Argument(
        None, metavar="SUITE", help="A suite by name.", show_default=False
    ),
    listed: bool = typer.Option(False, "--list", help="List the suites."),
    models: str = typer.Option(
        "", help="Comma-separated models instead of the suite's.", show_default=False
    ),
    seeds: int | None = typer.Option(
        None, min=1, help="Seeds 0 to N-1 instead of the suite's.", show_default=False
    ),
    quick: bool = typer.Option(False, "--quick", help="Few rows, one seed: does it work at all?"),
    jobs: int = typer.Option(1, min=1, help="Processes."),
    json_out: Path | None = typer.Option(
        None, "--json", help="Write JSON lines to a file; - is stdout.", show_default=False
    ),
    report: Path | None = typer.Option(
        None, help="Write an HTML report; pictures as PNG beside it.", show_default=False
    ),
    gated: bool = typer.Option(
        False, "--check", help="Print the suite's gates with their figures; exit 1 if one fails."
    ),
) -> None:
    """Run models x streams x seeds and print the leaderboard, mean and spread over the seeds."""
    if listed or suite is None:
        _print_suites()
        if suite is None and not listed:
            raise typer.BadParameter("expected the name of a suite", param_hint="SUITE")
        return
    from scenarios.bench import check, in_order, leaderboard
    from streammeta.report import require_report

    if report is not None:
        require_report(report)
    chosen: Suite = load("suites", suite)
    if gated and chosen.gates is None:
        raise typer.BadParameter(f"suite {chosen.name} has no gates", param_hint="--check")
    names = [name.strip() for name in models.split(",") if name.strip()]
    todo = chosen.jobs(models=names, seeds=seeds, quick=quick)
    for stream in chosen.streams:
        if why := chosen.unavailable(stream):
            err().print(f"skipped {stream}: {why}")
    check(todo)
    err().print(f"{chosen.name}: {len(todo)} runs, about {chosen.minutes:g} minutes when complete")
    outcomes: list[Outcome] = []
    with _json_lines(json_out) as write, _ticks(todo) as tick:
        for outcome in _run(todo, jobs):
            outcomes.append(outcome)
            write(chosen.name, outcome)
            tick(outcome)
    outcomes = in_order(todo, outcomes)
    tables = (chosen.summarise or leaderboard)(outcomes)
    show = err() if json_out is not None and str(json_out) == "-" else out()
    for summary in tables:
        show.print(_table(summary))
        if summary.note:
            show.print(f"[dim]{summary.note}[/]\n")
    if report is not None:
        _write_report(report, chosen, tables)
    if gated and not _gates_hold(show, chosen, outcomes):
        raise typer.Exit(GATE_FAILED)


def _gates_hold(show: Console, suite: Suite, outcomes: Sequence[Outcome]) -> bool:
    """Print every gate; whether all of them hold."""
    assert suite.gates is not None
    gates = suite.gates(outcomes)
    if not gates:
        show.print("no gate can be checked: none of their streams is available on this machine")
    for gate in gates:
        show.print(f"{'ok    ' if gate.ok else 'FAILED'}  {gate.text}", markup=False)
    return all(gate.ok for gate in gates)


def _run(todo: Sequence[Job], jobs: int) -> Iterator[Outcome]:
    from scenarios.bench import run_jobs

    return run_jobs(todo, jobs)


def _print_suites() -> None:
    table = plain_table()
    table.add_column("suite", style="bold", no_wrap=True)
    table.add_column("what it shows")
    for row in components("suites").values():
        table.add_row(row.name, row.summary)
    out().print(table)


@contextmanager
def _json_lines(path: Path | None) -> Iterator[Callable[[str, Outcome], None]]:
    """A function that writes the outcome of a suite as a JSON line at once."""
    from scenarios.bench import command_line
    from streammeta.errors import SinkError

    if path is None:
        yield lambda suite, outcome: None
        return
    if str(path) == "-":
        yield lambda suite, outcome: typer.echo(json.dumps(outcome.to_json(suite, command_line())))
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror}") from fault
    with file:

        def write(suite: str, outcome: Outcome) -> None:
            file.write(json.dumps(outcome.to_json(suite, command_line())) + "\n")
            file.flush()

        yield write


@contextmanager
def _ticks(todo: Sequence[Job]) -> Iterator[Callable[[Outcome], None]]:
    """A function that tells on stderr that a job is done."""
    from scenarios.bench import main_score

    console = err()
    done = 0

    def tell(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        job, score = outcome.job, outcome.result.scores.main
        console.print(
            f"[dim]{done:>4} of {len(todo)}[/]  {job.stream}  {job.model}  seed {job.seed}  "
            f"{score} {main_score(outcome):.4f}  {outcome.result.seconds:.1f} s"
        )

    yield tell


def _table(summary: Summary) -> Table:
    table = plain_table(summary.title)
    for i, name in enumerate(summary.head):
        table.add_column(name, justify="left" if i == 0 else "right")
    for row in summary.rows:
        table.add_row(*row)
    return table


def _write_report(path: Path, suite: Suite, tables: Sequence[Summary]) -> None:
    from scenarios.bench import command_line, provenance
    from streammeta.report import Report, chart, save_png

    page = Report(f"bench {suite.name}").text(suite.summary).text(f"command: {command_line()}")
    page.text(f"commit {provenance()['commit']}, versions {provenance()['versions']}")
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
