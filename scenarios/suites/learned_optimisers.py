"""Learned update rules beside tuned SGD, momentum and Adam, on tasks held out."""

from __future__ import annotations

from typing import Any

import numpy as np

from scenarios.bench import Book, Gate, Outcome, Suite, Summary
from scenarios.bench.statistics import Interval, student
from scenarios.bench.tables import signed
from scenarios.fewshot.optimising import FAMILIES, GRID, STEPS, TASKS, TUNED_ON, USUAL

LEARNED = ("learned_optimiser", "meta_lstm")
ENDS = "ends"  # loss of each task after the last step
ABOUT = f"""
The loss that is minimised, after {STEPS} steps on the whole gradient, on {TASKS} tasks that nobody
was trained or tuned on. Each task is a function of its own (`quadratics`: random ones of 11
weights; `clouds`: small networks that tell three classes in the plane apart) and begins at random
weights of its own, the same for every optimiser. `sgd`, `momentum` and `adam` have the rate that is
best after {STEPS} steps on {TUNED_ON} tasks of the family, of {len(GRID)} from {GRID[0]:.2g} to
{GRID[-1]:.2g}. Learned rules have been trained on other tasks of the family, for as many steps, and
before that training each is SGD, or all but SGD, at the rate of `sgd`, which was tuned on those
{TUNED_ON} tasks: what it ends below `sgd` is what was learned.
"""


def extra(outcome: Outcome) -> dict[str, Any]:
    """What the record of a run keeps for the tables of this suite."""
    return {ENDS: [float(f"{loss:.6g}") for loss in outcome.result.losses]}


def summarise(book: Book) -> list[Summary]:
    """For each family: losses on the way, and the paired difference to the best tuned optimiser."""
    return [_table(book, stream) for stream in book.streams]


def _ends(book: Book, stream: str, model: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    runs = book.of(stream=stream, model=model)
    return np.concatenate([np.array(run.extra[ENDS]) for run in runs]) if runs else np.empty(0)


def _best(book: Book, stream: str) -> str:
    """The tuned optimiser with the lowest loss."""
    ran = [model for model in USUAL if book.of(stream=stream, model=model)]
    return min(ran, key=lambda model: float(_ends(book, stream, model).mean())) if ran else ""


def _table(book: Book, stream: str) -> Summary:
    best, rows = _best(book, stream), []
    for model in book.models:
        runs = book.of(stream=stream, model=model)
        if not runs:
            continue
        ends = _ends(book, stream, model)
        value = student(ends.tolist())
        way = [np.mean([run.value(f"loss@{step}") for run in runs]) for step in (0, 1, 5, 10)]
        rows.append([
            f"{model} ({', '.join(sorted({run.note for run in runs}))})" if runs[0].note else model,
            *(f"{loss:.4f}" for loss in way),
            f"{value.mean:.4f} ± {value.half:.4f}",
            "-" if model == best or not best else _told(_minus(book, stream, model, best)),
            f"{np.mean([run.seconds for run in runs]):.0f}",
        ])  # fmt: skip
    head = ["optimiser", "start", "1 step", "5", "10", f"{STEPS} steps", f"minus {best}", "s"]
    seeds = len({run.seed for run in book.of(stream=stream)})
    rows_each = book.of(stream=stream)[0].rows
    title = (
        f"{stream}: mean loss over {rows_each:,} held-out {FAMILIES[stream].about}, {seeds} seeds"
    )
    note = "minus: paired difference over the same tasks; ± and brackets are 95 % intervals"
    return Summary(title, head, rows, f"{note} (Student's t over all tasks)")


def _minus(book: Book, stream: str, model: str, other: str) -> Interval:
    return student((_ends(book, stream, model) - _ends(book, stream, other)).tolist())


def _told(value: Interval) -> str:
    return f"{signed(value.mean)} [{signed(value.low)}, {signed(value.high)}]"


def gates(book: Book) -> list[Gate]:
    """Learned rules end below the tuned ones: the interval of the difference is below 0."""
    found = []
    for stream in book.streams:
        for model in LEARNED:
            for other in ("adam", "sgd"):
                ran = [book.of(stream=stream, model=name) for name in (model, other)]
                if not all(ran):
                    continue
                value = _minus(book, stream, model, other)
                text = f"{stream}, loss after {STEPS} steps: {model} - {other} = {_told(value)}"
                found.append(Gate(f"{text}, below 0", value.high < 0.0))
    return found


SUITE = Suite(
    name="learned-optimisers",
    summary=f"learned update rules beside tuned SGD and Adam: the loss after {STEPS} steps",
    minutes=10,
    streams=tuple(FAMILIES),
    models=(*USUAL, *LEARNED),
    seeds=(0, 1, 2),
    rows=TASKS,
    quick_rows=30,
    protocol="optimising",
    summarise=summarise,
    gates=gates,
    extra=extra,
    about=ABOUT,
)
