"""``streammeta detect``: when does this file change, and what about it?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streammeta.cli.console import alarm_table, err, out, progress_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scenarios.evaluation import Question
    from streammeta.events import DriftDetected

EPILOG = """[bold]Examples[/]

streammeta detect elec2.csv.gz --target target

streammeta detect readings.csv --time at --key sensor --json

[dim]With --target the default model reads the file, and its alarms are told: what its losses say,
and, while labels are late, its features and predictions. Without --target features alone are
watched: how they are spread, not what they mean.[/]
"""
REJECTED = 3  # that are told


def detect(
    data: Path = typer.Argument(
        ..., metavar="DATA", help="CSV, JSONL (plain or .gz) or Parquet file.", show_default=False
    ),
    target: str | None = typer.Option(
        None, help="Column to predict; without it features alone are watched.", show_default=False
    ),
    detector: list[str] = typer.Option(
        [], help="Again and again, or comma-separated; with --target. By default the bank, of "
        "numbers page_hinkley as well.",
        show_default=False,
    ),
    every: float = typer.Option(
        100_000, min=100, help="Rows between two false alarms of the bank, and of features."
    ),
    time: str | None = typer.Option(None, help="Column with event time.", show_default=False),
    key: str | None = typer.Option(None, help="Column with the stream's key.", show_default=False),
    ignore: str = typer.Option("", help="Columns to leave out, comma-separated."),
    label_delay: int = typer.Option(0, min=0, help="Labels arrive this many rows later."),
    rows: int | None = typer.Option(None, min=1, help="Only the first rows.", show_default=False),
    seed: int = typer.Option(0, min=0, help="Seed of the model."),
    as_json: bool = typer.Option(False, "--json", help="One JSON line per alarm on stdout."),
) -> None:  # fmt: skip
    """Tell when a file changes: since when, what moved, how fast, seen before or not."""
    from drift.registry import split_names
    from scenarios.evaluation import Question
    from streammeta.errors import UsageError

    names = [name for text in detector for name in split_names(text)]
    if target is None and (names or label_delay):
        raise UsageError("--detector and --label-delay need --target: features alone have no loss")
    overrides = {"detectors": tuple(names), "false_alarm_every": every}
    question = Question(
        data, target, models=("streammeta",), time=time, key=key, ignore=tuple(
            name.strip() for name in ignore.split(",") if name.strip()
        ), label_delay=label_delay, rows=rows, seed=seed, overrides=overrides,
    )  # fmt: skip
    alarms = _of_features(question, every) if target is None else _of_model(question)
    if as_json:
        from streammeta.events import to_record

        for alarm in alarms:
            typer.echo(json.dumps(to_record(alarm)))
    elif alarms:
        out().print(alarm_table(data.name, alarms, most=None))
    else:
        out().print("no change")


def _of_model(question: Question) -> Sequence[DriftDetected]:
    from scenarios.evaluation import choose_task, evaluate

    task, why = choose_task(question)
    err().print(f"{question.data.name}: {task} of {question.target!r} ({why})", markup=False)
    with progress_lines(question.rows) as lines:
        (result,) = evaluate(question, task, lines)
    _tell(result.rejected, result.reasons)
    return result.alarms


def _of_features(question: Question, every: float) -> Sequence[DriftDetected]:
    from scenarios.prequential import events_of
    from scenarios.unlabelled import alarms_of_features
    from streammeta.events import DriftDetected

    err().print(f"{question.data.name}: features alone, no label is read", markup=False)
    source = question.source()
    try:
        found = list(alarms_of_features(events_of(source), every))
    finally:
        source.close()
    bad = [one for one in found if not isinstance(one, DriftDetected)]
    _tell(len(bad), [f"{one.id}: {one.reason}: {one.detail}" for one in bad[:REJECTED]])
    return [one for one in found if isinstance(one, DriftDetected)]


def _tell(rejected: int, reasons: Sequence[str]) -> None:
    if rejected:
        err().print(f"{rejected:,} events rejected, the first:")
        for reason in reasons:
            err().print(f"  {reason}", markup=False)
