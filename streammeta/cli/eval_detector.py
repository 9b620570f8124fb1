"""``streammeta eval-detector``: how good are a detector's alarms, beside dummies?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streammeta.cli.console import out, plain_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drift import Report
    from scenarios.losses import LossStream

EPILOG = """[bold]Examples[/]

streammeta eval-detector errors_gradual --detectors adwin,cusum,cusum@100000

streammeta eval-detector errors.csv --column wrong --drifts 2000,4000-4500 --max-delay 500

streammeta eval-detector --alarms 120,2040 --drifts 100,2000 --rows 5000

[dim]SOURCE has a loss per row: 0 and 1 (wrong), or residuals. NAME@ROWS is calibrated to so many
rows between two false alarms by the first 500 losses; nobody is shown those. A detector of
your own: module:Class.[/]
"""


def eval_detector(
    source: str | None = typer.Argument(
        None, metavar="SOURCE", show_default=False,
        help="CSV, JSONL or Parquet file, or a stream of losses by name (errors_abrupt, ...).",
    ),
    column: str = typer.Option("loss", help="Column of the file with the losses."),
    drifts: str = typer.Option(
        "", help="Rows of the true drifts, FROM-TO where gradual: 2000,4000-4500."
    ),
    max_delay: int = typer.Option(1000, min=1, help="Rows after a drift in which alarms count."),
    detectors: str = typer.Option(
        "adwin,hddm_a,cusum,ewma", help="Comma-separated; see: streammeta components."
    ),
    alarms: str | None = typer.Option(
        None, help="Rows of alarms to judge, in the place of detectors.", show_default=False
    ),
    rows: int | None = typer.Option(
        None, min=1, help="Rows of the stream: of one by name, or with --alarms.",
        show_default=False,
    ),
    seed: int = typer.Option(0, min=0, help="Seed of a stream by name, and of the dummies."),
    as_json: bool = typer.Option(False, "--json", help="One JSON line per detector on stdout."),
) -> None:  # fmt: skip
    """Judge drift detectors: found and false alarms, delays, cost, beside dummies."""
    from drift.registry import split_names
    from streammeta.errors import UsageError

    spans = _spans(drifts, "--drifts")
    if alarms is not None:
        if source is not None or rows is None:
            raise UsageError("--alarms needs --rows, and no SOURCE")
        judged = _given(alarms, spans, rows, max_delay, seed)
        title = f"{rows:,} rows"
    elif source is None:
        raise UsageError("expected SOURCE with losses, or --alarms")
    else:
        shown = _losses(source, column, spans, rows, seed)
        judged = _judged(split_names(detectors), shown, max_delay, seed)
        title = f"{shown.name}: {len(shown.values):,} losses"
    if as_json:
        for name, report, micros in judged:
            typer.echo(json.dumps(_record(name, report, micros)))
    else:
        _show(title, judged)


TOLD = (
    "missed",
    "precision",
    "recall",
    "episode_recall",
    "f1",
    "mean_delay",
    "normalised_delay",
    "false_alarms_per_1000",
    "between_false_alarms",
    "mean_time_ratio",
)
_Judged = tuple[str, "Report", "float | None"]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _spans(text: str, flag: str) -> tuple[tuple[int, int], ...]:
    from streammeta.errors import UsageError

    found = []
    for part in _names(text):
        first, _, last = part.partition("-")
        try:
            found.append((int(first), int(last or first)))
        except ValueError:
            raise UsageError(f"{flag} {part!r}: expected rows such as 2000,4000-4500") from None
    return tuple(found)


def _losses(
    source: str, column: str, spans: tuple[tuple[int, int], ...], rows: int | None, seed: int
) -> LossStream:
    from scenarios.detecting import read_losses
    from scenarios.losses import STREAMS, losses
    from streammeta.errors import UsageError

    if source in STREAMS:
        if spans:
            raise UsageError(f"--drifts: {source} has its own")
        return losses(source, rows, seed)
    path = Path(source)
    if not path.exists() and not path.suffix:
        raise UsageError(
            f"{source!r} is neither a file nor a stream of losses; known: {', '.join(STREAMS)}"
        )
    if rows is not None:
        raise UsageError("--rows is for streams of losses by name and for --alarms")
    return read_losses(path, column, spans)


def _judged(names: Sequence[str], shown: LossStream, max_delay: int, seed: int) -> list[_Judged]:
    from scenarios.detecting import DUMMIES, WARM_UP, alarms, named

    found: list[_Judged] = []
    for name in [*names, "every@100", "at_random", "never"]:
        raised, seconds = alarms(name, shown, seed)
        micros = 1e6 * seconds / (len(shown.values) - WARM_UP)
        report = _report(raised, shown.drifts, len(shown.values), max_delay)
        found.append((name, report, None if named(name)[0] in DUMMIES else micros))
    return found


def _given(
    text: str, spans: tuple[tuple[int, int], ...], rows: int, max_delay: int, seed: int
) -> list[_Judged]:
    from drift import every, never

    given = [first for first, _ in _spans(text, "--alarms")]
    dummies = {"every@100": every(100, rows), "never": never()}
    return [
        (name, _report(raised, spans, rows, max_delay), None)
        for name, raised in {"--alarms": given, **dummies}.items()
    ]


def _report(
    raised: Sequence[int], spans: Sequence[tuple[int, int]], rows: int, max_delay: int
) -> Report:
    from drift import evaluate
    from streammeta.errors import UsageError

    try:
        return evaluate(raised, spans, rows, max_delay)
    except ValueError as fault:
        raise UsageError(str(fault)) from None


def _record(name: str, report: Report, micros: float | None) -> dict[str, Any]:
    ratios = {name: _plain(getattr(report, name)) for name in TOLD}
    cost = None if micros is None else round(micros, 3)
    return {"detector": name, **report._asdict(), **ratios, "us_per_update": cost}


def _plain(value: float | None) -> float | None:
    """JSON has no infinity."""
    return None if value is None or value == float("inf") else round(value, 6)


def _show(title: str, judged: Sequence[_Judged]) -> None:
    report = judged[0][1]
    drifts = f"{report.drifts} drifts" if report.drifts else "no drift"
    table = plain_table(f"{title}, {drifts}, max_delay {report.max_delay:,}")
    table.add_column("detector")
    for name in ("found", "false", "precision", "recall", "F1", "MDT", "NDT", "false/1,000", "MTFA",
                 "MTR", "us/update"):  # fmt: skip
        table.add_column(name, justify="right")
    for name, r, micros in judged:
        table.add_row(
            name, f"{r.found} of {r.drifts}", f"{r.false_alarms}", f"{r.precision:.2f}",
            f"{r.recall:.2f}", f"{r.f1:.2f}", _cell(r.mean_delay), _cell(r.normalised_delay, 2),
            f"{r.false_alarms_per_1000:.3f}", _cell(r.between_false_alarms),
            _cell(r.mean_time_ratio, 1), _cell(micros, 2),
        )  # fmt: skip
    out().print(table)
    out().print(
        "MDT: mean rows from a drift's start to its first alarm; NDT: MDT / max_delay; MTFA: rows "
        "outside the windows per false alarm; MTR: MTFA / MDT x share found",
        soft_wrap=True,
    )


def _cell(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
