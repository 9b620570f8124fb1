"""``streammeta evaluate``: how well do models do on this file, prequentially?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streammeta.cli.console import (
    alarm_table,
    err,
    model_names,
    out,
    progress_lines,
    score_table,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scenarios.evaluation import Question
    from scenarios.prequential import Result
    from streammeta.cli.pictures import Watcher

COUNTED_BYTES = 200_000_000  # larger files get a progress bar without a total

EPILOG = """[bold]Examples[/]

streammeta evaluate elec2.csv.gz --target target

streammeta evaluate prices.parquet --target close --time date --horizon 24 --report prices.html
"""


def evaluate(
    data: Path = typer.Argument(
        ..., metavar="DATA", help="CSV, JSONL (plain or .gz) or Parquet file.", show_default=False
    ),
    target: str = typer.Option(..., help="Column to predict.", show_default=False),
    task: str = typer.Option("auto", help="auto, classification or regression."),
    models: str = typer.Option(
        "streammeta,no_change", help="Comma-separated; see: streammeta components show models."
    ),
    horizon: int = typer.Option(
        0, min=0, help="Predict the target this many rows ahead; labels arrive as late."
    ),
    time: str | None = typer.Option(None, help="Column with event time.", show_default=False),
    key: str | None = typer.Option(None, help="Column with the stream's key.", show_default=False),
    id_: str | None = typer.Option(None, "--id", help="Column with row ids.", show_default=False),
    ignore: str = typer.Option("", help="Columns to leave out, comma-separated."),
    chunk: int = typer.Option(
        1, min=1, help="Events answered with the state at the chunk's start; 1 is test-then-train."
    ),
    label_delay: int = typer.Option(0, min=0, help="Labels arrive this many rows later."),
    rows: int | None = typer.Option(None, min=1, help="Only the first rows.", show_default=False),
    seed: int = typer.Option(0, min=0, help="Seed of every model."),
    init: Path | None = typer.Option(
        None, help="File with meta-parameters to start from.", show_default=False
    ),
    save_init: Path | None = typer.Option(
        None,
        help="Write what streammeta has learned about adapting; --init reads it.",
        show_default=False,
    ),
    sets: list[str] = typer.Option(
        [],
        "--set",
        help="model.field=value of streammeta and its variants, as in a config.",
        show_default=False,
    ),
    report: Path | None = typer.Option(None, help="Write an HTML report.", show_default=False),
    as_json: bool = typer.Option(
        False, "--json", help="JSON lines on stdout, default model first."
    ),
) -> None:
    """Predict every row before its label is learned, with several models, and score them."""
    from scenarios.evaluation import Question
    from streammeta.config_file import model_overrides

    _judge(
        Question(
            data=data,
            target=target,
            task=_task(task),
            models=model_names(models),
            horizon=horizon,
            time=time,
            key=key,
            id=id_,
            ignore=_names(ignore),
            chunk=chunk,
            label_delay=label_delay,
            rows=rows,
            seed=seed,
            overrides=model_overrides(sets) | ({"init": str(init)} if init else {}),
            save_init=save_init,
        ),
        report,
        as_json,
    )


def _judge(question: Question, report: Path | None, as_json: bool) -> None:
    from scenarios.evaluation import choose_task, evaluate
    from streammeta.report import require_report

    if report is not None:
        require_report(report)
    chosen, why = choose_task(question)
    _announce(question, chosen, why)
    results: list[Result] = []
    watch = None
    if report is not None:
        from streammeta.cli.pictures import Watcher

        watch = Watcher(chosen)
    with progress_lines(_count_rows(question.data, question.rows)) as lines:
        for result in evaluate(question, chosen, lines, watch):
            results.append(result)
            if as_json:
                typer.echo(json.dumps(result.to_json()))
    if not as_json:
        out().print(score_table(results))
        if results[0].alarms:
            out().print(alarm_table(results[0].model, results[0].alarms))
    _tell_rejected(results[0])
    if question.save_init is not None:
        err().print(f"meta-parameters: {question.save_init}", markup=False)
    if watch is not None and report is not None:
        _write_report(report, question, (chosen, why), results, watch)
        err().print(f"report: {report}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _task(text: str) -> str:
    if text not in ("auto", "classification", "regression"):
        raise typer.BadParameter(
            f"{text!r}, expected auto, classification or regression", param_hint="--task"
        )
    return text


def _announce(question: Question, task: str, why: str) -> None:
    """One line on stderr: what is about to be done."""
    parts = [f"{question.data.name}: {task} of {question.target!r} ({why})"]
    parts.append(f"chunk {question.chunk}")
    if question.horizon:
        parts.append(f"{_rows(question.horizon)} ahead")
    if question.label_delay:
        parts.append(f"labels {_rows(question.label_delay)} late")
    err().print("; ".join(parts), markup=False)


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n} rows"


def _tell_rejected(result: Result) -> None:
    """How many events could not be used, and the first reasons."""
    if not result.scores.n:
        err().print("no row could be scored: no question met its label")
    if result.rejected:
        err().print(f"{result.rejected:,} events rejected, the first:")
        for reason in result.reasons:
            err().print(f"  {reason}", markup=False)


def _count_rows(path: Path, rows: int | None) -> int | None:
    """Lines of a text file, for the progress bar; ``None`` where that is not worth it."""
    import gzip

    if ".parquet" in path.suffixes or path.stat().st_size > COUNTED_BYTES:
        return rows
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        lines = sum(1 for _ in file)
    header = 0 if ".jsonl" in path.suffixes or ".ndjson" in path.suffixes else 1
    return min(lines - header, rows or lines)


def _write_report(
    path: Path,
    question: Question,
    task: tuple[str, str],
    results: Sequence[Result],
    watch: Watcher,
) -> None:
    from streammeta.cli.pictures import evaluation_report

    chosen, why = task
    ahead = f", {_rows(question.horizon)} ahead" if question.horizon else ""
    late = f", labels {_rows(question.label_delay)} late" if question.label_delay else ""
    told = (
        f"{chosen} of {question.target!r} ({why}){ahead}{late}. Every row is predicted before its "
        f"label is learned; chunk {question.chunk}, seed {question.seed}."
    )
    flags = {f.name: getattr(question, f.name) for f in fields(question)}
    settings = {name: str(value) for name, value in flags.items() if value not in (None, (), {})}
    title = f"{question.target} in {question.data.name}: predicted row by row"
    evaluation_report(
        title,
        told,
        results,
        settings=settings,
        series=_around_alarms(results, question.horizon),
        found=watch.found,
    ).save(path)


def _around_alarms(
    results: Sequence[Result], ahead: int
) -> list[list[tuple[NDArray[np.float64], tuple[tuple[int, int], ...]]]]:
    """The losses of every model, with the changes that the first has found: their onsets or, of a
    stream with keys, the rows of each key at which alarms were raised."""
    from scenarios.bench import series_of

    first = results[0]
    found = [(a.onset + ahead, a.onset + ahead) for a in first.alarms]
    if len(first.key_names) < 2:
        return [list(series_of(r, found, {}, ahead)) for r in results]
    keyed = {k: [(row, row) for row in rows] for k, rows in first.key_alarms.items()}
    return [list(series_of(r, (), keyed, ahead)) if keyed else [] for r in results]
