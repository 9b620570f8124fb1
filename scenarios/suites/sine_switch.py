"""What meta-parameters learned online are worth: the error soon after a switch of task."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from scenarios.bench import Outcome, Suite, Summary, spread, unique
from scenarios.models import SGD_RATES
from scenarios.sine_switch import TASK_ROWS
from streammeta.report import Line, rolling_mean

FROM, TO = 6, 50  # events after a switch that count, the first event after it being 1
ROLLING = 20  # switches in the rolling mean of the picture
OURS, RANDOM = "streammeta", "random_challengers"


def errors_after_switches(outcome: Outcome) -> list[float]:
    """Mean squared error over events 6 to 50 after each switch, one number per switch."""
    squared = [loss * loss for loss in outcome.result.losses]
    if list(outcome.result.rows) != list(range(len(squared))):
        raise ValueError("labels did not come in the order of rows: cannot cut at the switches")
    whole = [start for start, _ in outcome.card.drifts if start + TO <= len(squared)]
    return [mean(squared[start + FROM - 1 : start + TO]) for start in whole]


def summarise(outcomes: Sequence[Outcome]) -> list[Summary]:
    """The error in the second half of the switches, ours against each, and its trend."""
    after = {
        model: [errors_after_switches(o) for o in outcomes if o.job.model == model]
        for model in unique(o.job.model for o in outcomes)
    }
    late = {m: [mean(e[len(e) // 2 :]) for e in runs if e] for m, runs in after.items()}
    late = {m: values for m, values in late.items() if values}
    ours = mean(late[OURS]) if OURS in late else float("nan")
    rows = []
    for model, runs in after.items():
        if model not in late:
            continue
        tenth = max(1, len(runs[0]) // 10)
        first, last = (mean(mean(part) for part in parts) for parts in _ends(runs, tenth))
        rows.append(
            [model, spread(late[model]), f"{mean(late[model]) / ours:.2f}x",
             f"{first:.4f}", f"{last:.4f}", f"{first / last:.2f}x"]
        )  # fmt: skip
    head = ["model", "mse, 2nd half", "to ours", "first tenth", "last tenth", "fell by"]
    title = f"mean squared error over events {FROM} to {TO} after each switch"
    lines = [
        Line(model, *_curve(runs))
        for model, runs in after.items()
        if model in (OURS, RANDOM, "no_challengers", "reset", _best_sgd(late))
    ]
    return [
        Summary(
            title,
            head,
            rows,
            _verdict(late, ours),
            lines,
            x_label=f"switch (one every {TASK_ROWS} events)",
            y_label=f"mean squared error, mean of {ROLLING} switches",
        )
    ]


def _ends(runs: list[list[float]], tenth: int) -> tuple[list[list[float]], list[list[float]]]:
    return [run[:tenth] for run in runs], [run[-tenth:] for run in runs]


def _curve(runs: list[list[float]]) -> tuple[Sequence[float], Sequence[float]]:
    line = rolling_mean([mean(values) for values in zip(*runs, strict=True)], ROLLING)
    return line.x, line.y


def _best_sgd(late: dict[str, list[float]]) -> str:
    rates = [model for model in late if model.startswith("sgd@")]
    return min(rates, key=lambda model: mean(late[model])) if rates else ""


def _verdict(late: dict[str, list[float]], ours: float) -> str:
    """The two ratios that the scenario exists for."""
    told = []
    best = _best_sgd(late)
    if best:
        told.append(f"best SGD ({best}) / ours = {mean(late[best]) / ours:.2f}")
    if RANDOM in late:
        told.append(f"random challengers / ours = {mean(late[RANDOM]) / ours:.2f}")
    return "; ".join(told)


SUITE = Suite(
    name="sine-switch",
    summary="what online meta-learned parameters are worth after a switch",
    minutes=20,
    streams=("sine_switch",),
    models=(
        OURS,
        RANDOM,
        "no_challengers",
        "reset",
        *(f"sgd@{rate:g}" for rate in SGD_RATES),
    ),
    seeds=(0, 1, 2),
    summarise=summarise,
    quick_rows=10_000,
)
