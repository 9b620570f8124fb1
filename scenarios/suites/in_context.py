"""Reading in place of descending: the in-context learner beside MAML after a switch."""

from __future__ import annotations

from scenarios.bench import Book, Gate, Suite, Summary
from scenarios.bench.tables import plus_minus
from scenarios.fewshot.known_switches import HISTORY, MAIN, STREAM, SWITCHES, UPDATES, USUAL_UPDATES
from scenarios.sine_switch import FROM, TASK_ROWS, TO

OURS, AGAINST = "in_context@1", "maml@5"
BAR = 1.5  # times the error of ``AGAINST``
#: Those that take no gradient step on a task.
STEPLESS = ("in_context", "r2d2", "alpaca", "matching")

ABOUT = f"""
The scenario `sine_switch`: a new sine every {TASK_ROWS} rows. Every learner is meta-trained on the
same {HISTORY:,} tasks of another stream (another seed), {USUAL_UPDATES * SWITCHES:,} outer steps of
25 tasks ({UPDATES["in_context"] * SWITCHES:,} for `in_context`), on the same network, and told when
the stream switches: before each row it is adapted afresh on all rows since. The error is the mean
square over events {FROM} to {TO} after {SWITCHES} switches. `NAME@STEPS`: inner steps, in the test
as in training; `in_context`, `r2d2` and `alpaca` take none, whatever is said there.
"""


def summarise(book: Book) -> list[Summary]:
    """One row for each learner."""
    rows = []
    for model in book.models:
        runs = book.of(model=model)
        if not runs:
            continue
        base = _mean(book, AGAINST)
        rows.append([
            model, _steps(model), plus_minus(runs, 4), f"{_mean(book, model) / base:.2f}x",
            *(f"{sum(r.value(n) for r in runs) / len(runs):.4f}"
              for n in ("mse_first", f"mse@{FROM}", "mse@10", "mse@20", f"mse@{TO}")),
            f"{sum(r.seconds for r in runs) / len(runs):.0f}",
        ])  # fmt: skip
    head = ["learner", "gradient steps", f"events {FROM} to {TO}", f"to {AGAINST}",
            f"1 to {FROM - 1}", f"at {FROM}", "at 10", "at 20", f"at {TO}", "train s"]  # fmt: skip
    seeds = len({run.seed for run in book.runs})
    return [Summary(f"{STREAM}: mean squared error after a switch, {seeds} seeds", head, rows)]


def gates(book: Book) -> list[Gate]:
    """The bar; it does not hold where one of the two did not run."""
    ours, base = _mean(book, OURS), _mean(book, AGAINST)
    text = f"{OURS} {ours:.4f} / {AGAINST} {base:.4f} = {ours / base:.2f}, at most {BAR:g}"
    return [Gate(text, ours / base <= BAR)]


def _steps(model: str) -> str:
    name, _, steps = model.partition("@")
    return "0" if name in STEPLESS else steps


def _mean(book: Book, model: str) -> float:
    runs = book.of(model=model)
    return sum(run.value(MAIN) for run in runs) / len(runs) if runs else float("nan")


SUITE = Suite(
    name="in-context",
    summary="reading in place of descending: the in-context learner beside MAML after a switch",
    minutes=25,
    streams=(STREAM,),
    models=(OURS, AGAINST, "meta_sgd@5", "r2d2@1", "alpaca@1", "fine_tuning@5"),
    seeds=(0, 1, 2),
    rows=SWITCHES,
    quick_rows=8,
    protocol="known_switches",
    summarise=summarise,
    gates=gates,
    about=ABOUT,
)
