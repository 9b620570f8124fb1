"""Few-shot sine regression beside what the papers print."""

from __future__ import annotations

from collections.abc import Sequence

from scenarios.bench import Book, Gate, Record, Suite, Summary
from scenarios.bench.tables import plus_minus
from scenarios.fewshot.sine import CONFIDENCE, COVERAGE, STEPS, TEST_TASKS, UPDATES

ABOUT = f"""
`NAME@STEPS` is a meta-learner trained with so many inner steps. Each run is meta-trained from
scratch by {UPDATES * TEST_TASKS:,} outer steps of 25 tasks ({UPDATES} for each test task), half as
many where one costs more (several inner steps, a last layer that is solved for: `r2d2`, `alpaca`,
or a sequence to go back through: `in_context`), and
tested on {TEST_TASKS:,} new tasks after 0 to {STEPS[-1]} inner steps. ANIL has three: trained with
one, its last layer overshoots when adapted longer. `fine_tuning` is one network trained on all
tasks alike. Covers: the share of test values inside the central 90 % intervals of `alpaca`, the
only one here that tells how sure it is.
The papers' figures: MAML and Meta-SGD from
Li et al. 2017 (arXiv 1707.09835), MT-net from Lee & Choi 2018 (arXiv 1801.05558), CAVIA from
Zintgraf et al. 2019 (arXiv 1810.03642), whose protocol differs.
"""

#: Test error after one step as printed, by shots and learner.
PUBLISHED = {
    5: {"maml": 1.13, "meta_sgd": 0.90, "MT-net": 0.76},
    10: {"maml": 0.77, "meta_sgd": 0.53, "MT-net": 0.49, "cavia": 0.19},
    20: {"maml": 0.48, "meta_sgd": 0.31, "MT-net": 0.33},
}
#: Bars on the mean over seeds: shots, model, inner steps, at most.
BARS = (
    (10, "maml@1", 1, 0.42),
    (10, "meta_sgd@1", 1, 0.30),
    (10, "maml@5", 5, 0.13),
    (10, "meta_sgd@5", 5, 0.12),
    (5, "meta_sgd@1", 1, 0.60),
    (20, "meta_sgd@1", 1, 0.20),
    (10, "cavia@1", 1, 0.25),
    (10, "alpaca@1", 1, 0.05),
)
#: Of intervals that are to cover ``CONFIDENCE``: least and most that they may.
COVERS = (0.87, 0.93)
#: One-step error against that of maml@1 at 10 shots: at most so many times.
RATIOS = (("fomaml@1", 1.5), ("anil@3", 3.0), ("reptile@5", 3.0))


LONGEST = 300  # seconds of training
UPDATE_MS = 2.0  # of an outer step, drawing and judging included


def leaves_out(stream: str, model: str) -> bool:
    """Every learner has 10 shots; with 5 and 20 only those run for which papers print figures."""
    return stream != "sine@10" and model not in ("maml@1", "meta_sgd@1")


def summarise(book: Book) -> list[Summary]:
    """For each number of shots: error after each number of steps, and what is published."""
    return [_table(book, stream) for stream in book.streams]


def _table(book: Book, stream: str) -> Summary:
    printed = PUBLISHED.get(int(stream.partition("@")[2]), {})
    rows = []
    for model in book.models:
        runs = book.of(stream=stream, model=model)
        if not runs:
            continue
        known = printed.get(model.partition("@")[0])
        rows.append([
            model, *(f"{_mean(runs, steps):.3f}" if steps != 1 else plus_minus(runs, 3)
                     for steps in STEPS),
            "-" if known is None else f"{known:.2f}",
            f"{_coverage(runs):.1%}" if COVERAGE in runs[0].metric else "-",
            f"{_mean_of([run.seconds for run in runs]):.0f}",
            f"{_mean_of([1e3 * run.seconds / max(1, _iterations(run)) for run in runs]):.2f}",
        ])  # fmt: skip
    head = ["model", *(f"{steps} steps" for steps in STEPS), "published", "covers", "train s",
            "ms/update"]  # fmt: skip
    seeds = len({run.seed for run in book.of(stream=stream)})
    title = f"{stream}: mean squared error after inner steps, {seeds} seeds"
    others = ", ".join(f"{name} {value:.2f}" for name, value in printed.items() if name == "MT-net")
    note = "published: after one step" + (f"; also {others}" if others else "")
    return Summary(title, head, rows, note)


def gates(book: Book) -> list[Gate]:
    """The bars; what did not run is not claimed."""
    found = []
    for shots, model, steps, bar in BARS:
        runs = book.of(stream=f"sine@{shots}", model=model)
        if runs:
            value = _mean(runs, steps)
            text = f"{model}, {shots}-shot, {steps} steps: {value:.3f}, at most {bar:g}"
            found.append(Gate(text, value <= bar))
    for run in (run for run in book.of(stream="sine@10") if COVERAGE in run.metric):
        value, (least, most) = run.value(COVERAGE), COVERS
        told = f"{CONFIDENCE:.0%} intervals cover {value:.1%}, {least:.0%} to {most:.0%}"
        found.append(Gate(f"{run.model}, 10-shot, seed {run.seed}: {told}", least <= value <= most))
    base = book.of(stream="sine@10", model="maml@1")
    for model, factor in RATIOS:
        runs = book.of(stream="sine@10", model=model)
        if runs and base:
            ratio = _mean(runs, 1) / _mean(base, 1)
            text = f"{model} / maml@1, 10-shot, 1 step: {ratio:.2f}, at most {factor:g}"
            found.append(Gate(text, ratio <= factor))
    ratios = [_mean([run], 10) / _mean([run], 1) for run in book.runs]
    calm = bool(ratios) and all(ratio < 2.0 for ratio in ratios)  # nan is not
    text = "nothing diverges: error after 10 steps below 2 times that after 1, at most"
    found.append(Gate(f"{text} {max(ratios, default=float('nan')):.2f}", calm))
    longest = max((run.seconds for run in book.runs), default=float("nan"))
    found.append(Gate(f"longest training {longest:.0f} s, at most {LONGEST}", longest <= LONGEST))
    if base:
        update = _mean_of([1e3 * run.seconds / max(1, _iterations(run)) for run in base])
        text = f"maml@1, 10-shot: {update:.2f} ms per outer step of 25 tasks, at most {UPDATE_MS:g}"
        found.append(Gate(text, update <= UPDATE_MS))
    return found


def _mean(runs: Sequence[Record], steps: int) -> float:
    return _mean_of([run.value(f"mse@{steps}") for run in runs])


def _coverage(runs: Sequence[Record]) -> float:
    return _mean_of([run.value(COVERAGE) for run in runs])


def _mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _iterations(run: Record) -> int:
    return round(run.events_per_second * run.seconds)


SUITE = Suite(
    name="sine",
    summary="few-shot sine regression: every meta-learner beside the papers' figures",
    minutes=65,
    streams=("sine@5", "sine@10", "sine@20"),
    models=(
        "maml@1",
        "maml@5",
        "fomaml@1",
        "anil@3",
        "meta_sgd@1",
        "meta_sgd@5",
        "reptile@5",
        "cavia@1",
        "r2d2@1",
        "alpaca@1",
        "in_context@1",
        "fine_tuning@1",
    ),
    seeds=(0, 1, 2),
    rows=TEST_TASKS,
    quick_rows=100,
    protocol="sine",
    summarise=summarise,
    gates=gates,
    about=ABOUT,
    leaves_out=leaves_out,
)
