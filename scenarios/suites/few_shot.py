"""Few-shot classification on classes held out: every learner beside three baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenarios.bench import Book, Gate, Outcome, Record, Suite, Summary
from scenarios.bench.statistics import Interval, student
from scenarios.bench.tables import signed
from scenarios.fewshot.few_shot import BASELINES, EPISODES, QUERY, RECIPES

RIGHT = "right"  # of each episode: how many of its queries were answered rightly
TO = ("nearest", "scratch")  # what every learner must be better than
BARRED = ("digits@5x1", "digits@5x5")
ABOUT = f"""
`DATA@NxK` is N-way K-shot: an episode has K rows of each of N classes that no model has seen, and
{QUERY} others of each to answer. All models answer the same {EPISODES} episodes of each seed; the
seed also says which classes are held out. ± is the 95 % interval over all episodes (Student's t).

`digits`: each digit upright and turned by 90, 180 and 270 degrees makes forty classes; of each
digit one orientation is held out, and half of its pictures, so that no picture of the test is seen
in training in any orientation. `new_digits` holds five digits out altogether, in every orientation:
there the pixels themselves are hard to beat. `segments` and `yeast` are ImageSegments and Yeast of
River; genes of Yeast with the same set of labels are a class.

`nearest`: the nearest row of the support. `scratch`: a network trained on the support alone.
`pretrained`: a network trained to tell the classes of training apart, with a new last layer for
each episode. Every meta-learner starts from that same network and is then meta-trained on episodes
of the classes of training; for the learned update rules (`meta_lstm`, `learned_optimiser`) all but
the last layer stays as it was. `in_context` has to bind classes in one recurrent state; Santoro et
al. 2016 (arXiv 1605.06065) trained such nets on 100,000 episodes, and with what is spent here it is
not to be expected above chance. Settings were chosen on the class split of another seed.
"""


def extra(outcome: Outcome) -> dict[str, Any]:
    """What the record of a run keeps for the tables of this suite."""
    way = int(outcome.job.stream.partition("@")[2].partition("x")[0])
    return {RIGHT: [round((1.0 - wrong) * way * QUERY) for wrong in outcome.result.losses]}


def summarise(book: Book) -> list[Summary]:
    """For each stream: accuracy with its interval, and the difference on the same episodes."""
    return [_table(book, stream) for stream in book.streams]


def _table(book: Book, stream: str) -> Summary:
    found = _shares(book, stream)
    rows = []
    for model, shares in found.items():
        runs = book.of(stream=stream, model=model)
        rows.append([
            model, _told(student(shares.tolist())),
            *(_paired(shares, found.get(to), model == to) for to in (*TO, "pretrained")),
            f"{sum(run.seconds for run in runs) / len(runs):.0f}",
        ])  # fmt: skip
    seeds = len({run.seed for run in book.of(stream=stream)})
    about = book.of(stream=stream)[0]
    head = ["model", "accuracy, %", *(f"minus {to}" for to in (*TO, "pretrained")), "s"]
    title = f"{stream}: {about.rows:,} episodes, {seeds} seeds"
    note = "minus: paired difference over the same episodes, with its 95 % interval"
    return Summary(title, head, rows, note)


def _shares(book: Book, stream: str) -> dict[str, NDArray[np.float64]]:
    """Share of right answers of every episode, seed after seed, by model."""
    asked = int(stream.partition("@")[2].partition("x")[0]) * QUERY
    return {
        model: np.concatenate([_right(run) for run in runs]) / asked
        for model in book.models
        if (runs := book.of(stream=stream, model=model))
    }


def _right(run: Record) -> NDArray[np.float64]:
    return np.array(run.extra[RIGHT], np.float64)


def _told(value: Interval) -> str:
    return f"{100 * value.mean:.2f} ± {100 * value.half:.2f}"


def _paired(mine: NDArray[np.float64], theirs: NDArray[np.float64] | None, same: bool) -> str:
    if same or theirs is None or len(theirs) != len(mine):
        return "-"
    value = student((100.0 * (mine - theirs)).tolist())
    return f"{signed(value.mean, 2)} [{signed(value.low, 2)}, {signed(value.high, 2)}]"


def gates(book: Book) -> list[Gate]:
    """The lower bound of every learner is above the means of ``TO``; what did not run is not
    claimed."""
    found = []
    for stream in BARRED:
        shares = _shares(book, stream)
        if not shares or any(to not in shares for to in TO):
            continue
        bars = {to: float(shares[to].mean()) for to in TO}
        words = " and ".join(f"{to}'s {100 * bar:.2f}" for to, bar in bars.items())
        for model in _learners(list(shares)):
            low = student(shares[model].tolist()).low
            text = f"{stream}, {model}: lower bound {100 * low:.2f} %, above {words}"
            found.append(Gate(text, low > max(bars.values())))
    return found


def _learners(models: Sequence[str]) -> list[str]:
    return [model for model in models if model not in BASELINES]


SUITE = Suite(
    name="few-shot",
    summary="N-way K-shot classification of held-out classes: every learner and three baselines",
    minutes=30,
    streams=("digits@5x1", "digits@5x5", "new_digits@5x1", "segments@3x5", "yeast@5x5"),
    models=(*BASELINES, *RECIPES),
    seeds=(0, 1, 2),
    rows=EPISODES,
    quick_rows=30,
    protocol="few_shot",
    summarise=summarise,
    gates=gates,
    extra=extra,
    about=ABOUT,
)
