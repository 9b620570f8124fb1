"""What meta-parameters learned online are worth: the error soon after a switch of task."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Any

from scenarios.bench import Book, Gate, Outcome, Suite, Summary, spread
from scenarios.models import SGD_RATES
from scenarios.sine_switch import FROM, TASK_ROWS, TO
from streammeta.charts import Line, rolling_mean

ROLLING = 20  # switches in the rolling mean of the picture
TO_SGD, TO_RANDOM = 3.0, 2.0  # how many times smaller than theirs our error must be
AFTER = "mse_after_switches"
OURS, RANDOM = "streammeta", "random_challengers"


def errors_after_switches(outcome: Outcome) -> list[float]:
    """Mean squared error over events 6 to 50 after each switch, one number per switch."""
    squared = [loss * loss for loss in outcome.result.losses]
    if list(outcome.result.rows) != list(range(len(squared))):
        raise ValueError("labels did not come in the order of rows: cannot cut at the switches")
    whole = [start for start, _ in outcome.card.drifts if start + TO <= len(squared)]
    return [mean(squared[start + FROM - 1 : start + TO]) for start in whole]


def extra(outcome: Outcome) -> dict[str, Any]:
    """What the record of a run keeps for the tables of this suite."""
    return {AFTER: [round(error, 6) for error in errors_after_switches(outcome)]}


def summarise(book: Book) -> list[Summary]:
    """The error in the second half of the switches, ours against each, and its trend."""
    after = _after(book)
    late = _late(after)
    ours = mean(late[OURS]) if OURS in late else float("nan")
    rows = []
    for model, runs in after.items():
        if model not in late:
            continue
        first, last = _ends(runs)
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


def gates(book: Book) -> list[Gate]:
    """What the scenario exists for: both ratios, and that the error falls as tasks are seen."""
    after = _after(book)
    late = _late(after)
    nan = float("nan")
    ours = mean(late[OURS]) if OURS in late else nan
    best = _best_sgd(late)
    to_sgd = mean(late[best]) / ours if best else nan
    to_random = mean(late[RANDOM]) / ours if RANDOM in late else nan
    first, last = _ends(after[OURS]) if OURS in late else (nan, nan)
    told = f"best SGD ({best or 'none ran'}) / ours = {to_sgd:.2f}, at least {TO_SGD:g}"
    return [
        Gate(told, to_sgd >= TO_SGD),
        Gate(
            f"random challengers / ours = {to_random:.2f}, at least {TO_RANDOM:g}",
            to_random >= TO_RANDOM,
        ),
        Gate(f"ours: last tenth {last:.4f}, below the first tenth {first:.4f}", last < first),
    ]


def _after(book: Book) -> dict[str, list[list[float]]]:
    """The errors after the switches of each model, seed by seed."""
    return {model: [run.extra[AFTER] for run in book.of(model=model)] for model in book.models}


def _late(after: dict[str, list[list[float]]]) -> dict[str, list[float]]:
    """The mean error over the second half of the switches, where there are switches."""
    late = {m: [mean(e[len(e) // 2 :]) for e in runs if e] for m, runs in after.items()}
    return {m: values for m, values in late.items() if values}


def _ends(runs: list[list[float]]) -> tuple[float, float]:
    """The mean error over the first and over the last tenth of the switches."""
    tenth = max(1, len(runs[0]) // 10)
    return mean(mean(run[:tenth]) for run in runs), mean(mean(run[-tenth:]) for run in runs)


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
    minutes=6,
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
    extra=extra,
    quick_rows=10_000,
    gates=gates,
)
