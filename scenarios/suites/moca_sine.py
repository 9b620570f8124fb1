"""MOCA's switching sinusoid: what a belief over the run length is worth."""

from __future__ import annotations

from collections.abc import Sequence

from scenarios.bench import Book, Gate, Record, Suite, Summary
from scenarios.bench.book import interval_of
from scenarios.fewshot.switching import (
    EARLY,
    EPISODES,
    MAIN,
    MAML_UPDATES,
    SCALE_SERIES,
    SERIES,
    SETTLED,
    STREAM,
    TEST_HAZARD,
    TEST_ROWS,
    TEST_RUNS,
    TRAIN_HAZARD,
    TRAIN_ROWS,
    TRAIN_RUNS,
    UPDATES,
    WINDOW,
)

ORACLE, OURS = "oracle", "moca"
BAR = 0.10  # of the way from the oracle to the best window

ABOUT = f"""
A sine of amplitude .1 to 5 and phase 0 to pi with noise of variance .05, and without a sign
another sine (Harrison, Sharma, Finn, Pavone 2020, arXiv 1912.08866). Trained on series of
{TRAIN_ROWS} rows with a switch before one row in {round(1 / TRAIN_HAZARD)} that nobody marks,
tested on {EPISODES} episodes of {TEST_ROWS} rows with a switch before one in
{round(1 / TEST_HAZARD)}. Every row is predicted before it is learned; figures are negative log
densities in nats, less is better.

All but `maml` are ALPaCA on the same network, each meta-trained from scratch as it is tested, by
{UPDATES * EPISODES:,} outer steps of {SERIES} series: they differ in the rows on which a prediction
rests. `oracle` knows the switches, in training too; `moca` has a belief over the run lengths (the
{TRAIN_RUNS} likeliest runs in training, {TEST_RUNS} in the test) and is told how often switches
come; `moca@{TRAIN_HAZARD:g}` is the same, told in the test what held in training; `window@N` takes
the newest N rows; `everything` all rows since the first; `prior` none.
`maml@DETECTOR` is MAML, meta-trained by {MAML_UPDATES * EPISODES:,} outer steps on single tasks,
adapted before each row on the at most {WINDOW} newest rows since the onset that River's detector
told at its last alarm. Its density is normal; the variance, for each number of rows adapted on, was
learned on {SCALE_SERIES} other series with the test's hazard.
"""


def summarise(book: Book) -> list[Summary]:
    """One row for each model."""
    rows = []
    least, most = _mean(book, ORACLE), _best_window(book)[1]
    for model in book.models:
        runs = book.of(model=model)
        value = interval_of(runs)
        way = (value.mean - least) / (most - least)
        rows.append([
            model, f"{value.mean:.3f}", f"[{value.low:.3f}, {value.high:.3f}]",
            f"{way:.1%}" if way == way else "-",
            *(f"{_of(runs, name):.3f}" for name in ("nll_early", "nll_settled", "mse")),
            f"{_of(runs, 'coverage'):.1%}", f"{sum(r.seconds for r in runs) / len(runs):.0f}",
        ])  # fmt: skip
    head = ["model", MAIN, "95 % interval", "of the way", f"first {EARLY} rows",
            f"from {SETTLED} on", "mse", "90 % covers", "train s"]  # fmt: skip
    seeds = len({run.seed for run in book.runs})
    note = (
        "of the way: from the oracle to the best window; first rows, and from there on: after a "
        "switch; intervals are Student's t over the seeds from 3 on, else moving-block bootstrap"
    )
    return [Summary(f"{STREAM}: negative log density, nats, {seeds} seeds", head, rows, note)]


def gates(book: Book) -> list[Gate]:
    """The bar; it does not hold where a model that it needs did not run."""
    best, window = _best_window(book)
    ours, least = _mean(book, OURS), _mean(book, ORACLE)
    way = (ours - least) / (window - least)
    text = (
        f"{OURS} {ours:.3f} lies {way:.1%} of the way from the oracle, {least:.3f}, to the best "
        f"window, {best} {window:.3f}: at most {BAR:.0%}"
    )
    return [Gate(text, window > least and way <= BAR)]


def _best_window(book: Book) -> tuple[str, float]:
    windows = [model for model in book.models if model.startswith("window@")]
    found = [(model, _mean(book, model)) for model in windows]
    return min(found, key=lambda one: one[1], default=("none ran", float("nan")))


def _mean(book: Book, model: str) -> float:
    return _of(book.of(model=model), MAIN)


def _of(runs: Sequence[Record], name: str) -> float:
    return sum(run.value(name) for run in runs) / len(runs) if runs else float("nan")


SUITE = Suite(
    name="moca-sine",
    summary="a belief over when a sine switched: MOCA beside an oracle, windows and MAML",
    minutes=20,
    streams=(STREAM,),
    models=(
        ORACLE,
        OURS,
        "moca@0.1",
        "maml@page_hinkley",
        "window@5",
        "window@10",
        "window@50",
        "everything",
        "prior",
    ),
    seeds=(0, 1, 2),
    rows=EPISODES,
    quick_rows=12,
    protocol="switching",
    summarise=summarise,
    gates=gates,
    about=ABOUT,
)
