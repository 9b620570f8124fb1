"""``streammeta replay``: a scenario with known drifts, watched as it goes."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import typer

from streammeta.cli.console import (
    DRIFT_HEAD,
    alarm_table,
    err,
    model_names,
    out,
    plain_table,
    progress_lines,
    score_table,
)
from streammeta.registry import components

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from scenarios.bench import Job, Outcome
    from scenarios.prequential import Model, Watch
    from scenarios.scenario import Card, Scenario
    from streammeta.cli.pictures import Watcher
    from streammeta.events import Event
    from streammeta.runtime import Pace

EPILOG = """[bold]Examples[/]

streammeta replay sensor_fault

streammeta replay sine_switch --rows 10000 --pace 500/s --report sine.html
"""


def replay(
    scenario: str | None = typer.Argument(
        None, metavar="SCENARIO", help="A scenario by name.", show_default=False
    ),
    listed: bool = typer.Option(False, "--list", help="List the scenarios."),
    seed: int = typer.Option(0, min=0, help="Seed of the scenario and of the models."),
    pace: str = typer.Option("max", help="max, realtime, 10x or 500/s."),
    models: str = typer.Option("streammeta,no_change", help="Comma-separated."),
    rows: int | None = typer.Option(None, min=1, help="Only the first rows.", show_default=False),
    chunk: int = typer.Option(1, min=1, help="Events answered with the state at its start."),
    init: Path | None = typer.Option(
        None, help="File with meta-parameters to start from.", show_default=False
    ),
    sets: list[str] = typer.Option(
        [],
        "--set",
        help="model.field=value of streammeta and its variants, as in a config.",
        show_default=False,
    ),
    report: Path | None = typer.Option(None, help="Write an HTML report.", show_default=False),
    as_json: bool = typer.Option(False, "--json", help="JSON lines on stdout."),
) -> None:
    """Replay a scenario with known drifts: scores, and the drifts found against the true ones."""
    if listed or scenario is None:
        _print_scenarios(as_json)
        if scenario is None and not listed:
            raise typer.BadParameter("expected the name of a scenario", param_hint="SCENARIO")
        return
    from scenarios.bench import Job, at_drift
    from scenarios.models import build, require_engine
    from scenarios.scenario import scenario as make
    from streammeta.config_file import model_overrides
    from streammeta.report import require_report
    from streammeta.runtime import Pace

    if report is not None:
        require_report(report)
    speed = Pace.parse(pace)
    overrides = model_overrides(sets) | ({"init": str(init)} if init else {})
    stream = make(scenario, seed=seed, rows=rows)
    card = stream.card
    _announce(card)
    names = model_names(models)
    made = [
        build(at_drift(name, card), task=card.task, seed=seed, chunk=chunk, overrides=overrides)
        for name in names
    ]
    require_engine(made, overrides)
    jobs = [Job(name, scenario, seed, rows, chunk) for name in names]
    outcomes: list[Outcome] = []
    watch = None
    if report is not None:
        from streammeta.cli.pictures import Watcher

        watch = Watcher(card.task)
    for outcome in _outcomes(jobs, made, stream, speed, watch):
        outcomes.append(outcome)
        if as_json:
            typer.echo(json.dumps({**outcome.result.to_json(), **_drift_fields(outcome)}))
    if not as_json:
        out().print(score_table([o.result for o in outcomes]))
        if outcomes[0].result.alarms:
            out().print(alarm_table(outcomes[0].result.model, outcomes[0].result.alarms))
        _print_drifts(outcomes[0])
    if watch is not None and report is not None:
        settings = {
            "scenario": scenario,
            "seed": str(seed),
            "rows": str(rows or card.rows),
            "chunk": str(chunk),
            "pace": pace,
            **{f"model.{name}": str(value) for name, value in overrides.items()},
        }
        _write_report(report, card, outcomes, watch, settings)
        err().print(f"report: {report}")


def _write_report(
    path: Path,
    card: Card,
    outcomes: Sequence[Outcome],
    watch: Watcher,
    settings: Mapping[str, str],
) -> None:
    from scenarios.bench import drift_report, found_drifts, loss_series
    from streammeta.cli.pictures import evaluation_report

    found, judged = "", drift_report(outcomes[0])
    if judged is not None and outcomes[0].result.watches:
        after = judged["mean_delay"]
        late = f", {after:.0f} rows after they began on average" if after is not None else ""
        found = (
            f" {outcomes[0].result.model} found {judged['found']} of {len(card.drifts)} drifts"
            f"{late}; {judged['false_alarms']} false alarms."
        )
    known = bool(card.drifts) or not card.fixed  # of recorded data nobody may know
    evaluation_report(
        f"{card.name}, seed {settings['seed']}",
        f"{card.description}. Best possible: {card.ceiling}. Every row is predicted before its "
        f"label is learned; chunk {settings['chunk']}.{found}",
        [outcome.result for outcome in outcomes],
        settings=settings,
        drifts=card.drifts if known else None,
        series=[list(loss_series(outcome)) for outcome in outcomes] if card.drifts else (),
        found_drifts=found_drifts(outcomes[0]),
        found=watch.found,
    ).save(path)


def _outcomes(
    jobs: Sequence[Job],
    models: Sequence[Model],
    stream: Scenario,
    pace: Pace,
    watch: Watch | None = None,
) -> Iterator[Outcome]:
    """What each model did, as soon as it is done, with a progress line meanwhile."""
    from scenarios.bench import Outcome
    from scenarios.prequential import prequential

    card = stream.card
    with progress_lines(card.rows) as lines:
        for job, model in zip(jobs, models, strict=True):
            result = prequential(
                model,
                _paced(stream, pace),
                task=card.task,
                chunk=job.chunk,
                name=job.model,
                seed=job.seed,
                score_from=card.score_from,
                progress=lines(job.model),
                watch=watch if model is models[0] else None,
            )
            yield Outcome(job, card, result)


def _paced(stream: Scenario, pace: Pace) -> Iterator[Event]:
    """The events, each not before it is due: event time runs from the first event on."""
    begin = monotonic()
    first: float | None = None
    for row, event in enumerate(stream.events()):
        if pace.kind != "max":
            at = float(row)
            if pace.kind == "time" and event.ts is not None:
                first = event.ts if first is None else first
                at = event.ts - first
            wait = begin + at / pace.value - monotonic()
            if wait > 0:
                sleep(wait)
        yield event


def _announce(card: Card) -> None:
    err().print(f"{card.name}: {card.task}, {card.rows:,} rows: {card.description}", markup=False)
    err().print(f"best possible: {card.ceiling}", markup=False)


def _drift_fields(outcome: Outcome) -> dict[str, object]:
    from scenarios.bench import drift_report

    return {"true_drifts": outcome.card.drifts, "drift_report": drift_report(outcome)}


def _print_drifts(outcome: Outcome) -> None:
    """Each true drift with the alarm that found it (the first twenty), then the sum."""
    from scenarios.bench import MAX_DELAY, drift_report, found_drifts

    found = drift_report(outcome)
    if found is None:
        out().print(f"true drifts are unknown; alarms at rows {outcome.result.drifts}")
        return
    drifts = outcome.card.drifts
    if len(drifts) <= 20:
        table = plain_table(f"drifts, {outcome.result.model}")
        for name in DRIFT_HEAD:
            table.add_column(name, justify="left" if name == "what" else "right")
        for drift in found_drifts(outcome):
            table.add_row(*drift.cells())
        out().print(table)
    delay = found["mean_delay"]
    out().print(
        f"{outcome.result.model}: {found['found']} of {len(drifts)} drifts found within "
        f"{MAX_DELAY} rows"
        + (f", {delay:.0f} rows after they began on average" if delay is not None else "")
        + f"; {found['false_alarms']} false alarms"
    )


def _print_scenarios(as_json: bool) -> None:
    rows = components("scenarios").values()
    if as_json:
        for row in rows:
            typer.echo(json.dumps({"name": row.name, "summary": row.summary}))
        return
    table = plain_table()
    table.add_column("scenario", style="bold", no_wrap=True)
    table.add_column("what it is")
    for row in rows:
        table.add_row(row.name, row.summary)
    out().print(table)
