"""``streammeta eval-detector``: how good are a detector's alarms, beside dummies?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from streammeta.cli.console import out, plain_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from drift import Report
    from scenarios.losses import LossStream

EPILOG = """[bold]Examples[/]

streammeta eval-detector errors_gradual --detector adwin,cusum,cusum@100000

streammeta eval-detector "sea | drift('gradual', width=300)" --detector "vote(cusum, ewma, sprt)"

streammeta eval-detector errors.csv --column wrong --drifts 2000,4000-4500 --max-delay 500

streammeta eval-detector --alarms 120,2040 --drifts 100,2000 --rows 5000

[dim]The first losses are shown to nobody: 2,000, a quarter, or those before the first drift,
whatever is least. NAME@ROWS is calibrated by them, to so many rows between two false alarms. A
detector of your own: module:Class.[/]
"""


def eval_detector(
    source: str | None = typer.Argument(
        None, metavar="SOURCE", show_default=False,
        help="Losses by name (errors_abrupt, ...), a file with a loss per row (0 and 1 = wrong, or "
        "residuals), or a scenario, on which --model makes them.",
    ),
    detector: list[str] = typer.Option(
        [], help="Again and again, or comma-separated; four that can read the losses by default.",
        show_default=False,
    ),
    column: str = typer.Option("loss", help="Column of the file with the losses."),
    model: str | None = typer.Option(
        None, help="Whose losses on a scenario: river.nb (classes) or sgd (values) by default.",
        show_default=False,
    ),
    drifts: str = typer.Option(
        "", help="Rows of the true drifts, FROM-TO where gradual: 2000,4000-4500."
    ),
    max_delay: int = typer.Option(1000, min=1, help="Rows after a drift in which alarms count."),
    alarms: str | None = typer.Option(
        None, help="Rows of alarms to judge, in the place of SOURCE and detectors.",
        show_default=False,
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
        if source is not None or detector or rows is None:
            raise UsageError("--alarms needs --rows, and neither SOURCE nor --detector")
        judged = _given(alarms, spans, rows, max_delay)
        title = f"{rows:,} rows"
    elif source is None:
        raise UsageError("expected SOURCE with losses, or --alarms")
    else:
        shown = _Source(source, column, model, spans, rows, seed).losses()
        names = [name for text in detector for name in split_names(text)] or USUAL[shown.signal]
        judged = _judged(names, shown, max_delay, seed)
        from scenarios.detecting import warm_up

        calm = warm_up(shown)
        title = f"{shown.name}: {len(shown.values):,} losses, judged from the {calm:,}th on"
    if as_json:
        for name, report, micros in judged:
            typer.echo(json.dumps(_record(name, report, micros)))
    else:
        _show(title, judged)


USUAL = {
    "error": ["adwin", "hddm_a", "cusum", "ewma"],
    "ratio": ["adwin", "page_hinkley", "cusum", "ewma"],
}
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


def _spans(text: str, flag: str) -> tuple[tuple[int, int], ...]:
    from drift.registry import split_names
    from streammeta.errors import UsageError

    found = []
    for part in split_names(text):
        first, _, last = part.partition("-")
        try:
            found.append((int(first), int(last or first)))
        except ValueError:
            raise UsageError(f"{flag} {part!r}: expected rows such as 2000,4000-4500") from None
    return tuple(found)


class _Source(NamedTuple):
    text: str
    column: str
    model: str | None
    spans: tuple[tuple[int, int], ...]
    rows: int | None
    seed: int

    def losses(self) -> LossStream:
        """By name, of a file, or of a model on a scenario."""
        from scenarios import losses
        from scenarios.detecting import read_losses
        from streammeta.sources.files import is_table

        path = Path(self.text)
        by_name = self.text in losses.STREAMS
        if not by_name and (path.exists() or ("|" not in self.text and is_table(path))):
            self._refuse("rows", "is for streams by name and for --alarms")
            self._refuse("model", "is for scenarios")
            return read_losses(path, self.column, self.spans)
        self._refuse("spans", f"{self.text} has its own")
        if not by_name:
            return self._of_scenario()
        self._refuse("model", "is for scenarios")
        return losses.losses(self.text, self.rows, self.seed)

    def _of_scenario(self) -> LossStream:
        from scenarios.detecting import losses_of
        from scenarios.losses import STREAMS
        from scenarios.scenario import scenario
        from streammeta.errors import UsageError

        try:
            stream = scenario(self.text, seed=self.seed, rows=self.rows)
        except UsageError as fault:
            known = ", ".join(STREAMS)
            raise UsageError(
                f"{self.text!r} is no file and none of the losses {known}; and {fault}"
            ) from None
        usual = "river.nb" if stream.card.task == "classification" else "sgd"
        return losses_of(stream, self.model or usual, self.seed)

    def _refuse(self, name: str, why: str) -> None:
        from streammeta.errors import UsageError

        if getattr(self, name):
            raise UsageError(f"--{'drifts' if name == 'spans' else name}: {why}")


def _judged(names: Sequence[str], shown: LossStream, max_delay: int, seed: int) -> list[_Judged]:
    from scenarios.detecting import judged

    found: list[_Judged] = []
    for name in [*names, "every@100", "at_random", "never"]:
        one = judged(name, shown, seed, max_delay)
        found.append((name, one.report, one.micros))
    return found


def _given(
    text: str, spans: tuple[tuple[int, int], ...], rows: int, max_delay: int
) -> list[_Judged]:
    from drift import every, never
    from streammeta.errors import UsageError

    given = _spans(text, "--alarms")
    for first, last in given:
        if first != last:
            raise UsageError(f"--alarms {first}-{last}: an alarm is one row")
    dummies = {"every@100": every(100, rows), "never": never()}
    alarms = {"--alarms": [first for first, _ in given], **dummies}
    return [(name, _report(row, spans, rows, max_delay), None) for name, row in alarms.items()]


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
    drifts = {0: "no drift", 1: "1 drift"}.get(report.drifts, f"{report.drifts} drifts")
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
    if not report.drifts:
        out().print("no drift is known (--drifts): every alarm counts as false")
    out().print(
        "MDT: mean rows from a drift's start to its first alarm; NDT: MDT / max_delay; MTFA: rows "
        "outside the windows per false alarm; MTR: MTFA / MDT x share found",
        soft_wrap=True,
    )


def _cell(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
