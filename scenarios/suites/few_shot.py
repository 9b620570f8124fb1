"""Few-shot classification on classes held out: every learner beside five baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenarios.bench import Book, Gate, Outcome, Record, Suite, Summary
from scenarios.bench.statistics import Interval, student
from scenarios.bench.tables import signed
from scenarios.fewshot.few_shot import BASELINES, EPISODES, QUERY, RECIPES, UNTRAINED

RIGHT = "right"  # of each episode: how many of its queries were answered rightly
TO = ("nearest", "scratch")  # what every learner must be better than
AGAINST = (*TO, "nearest_read", "pretrained", "fine_tuned")
BARRED = ("digits@5x1", "digits@5x5")
#: A learner with a part taken away, on the first stream only: it is shown, and nothing is claimed.
PARTS = ("in_context_gru",)
#: Without any meta-training, on ``BARRED``: what the start and the way of adapting do alone.
BEFORE = tuple(f"{model}{UNTRAINED}" for model in RECIPES if model not in PARTS)
ABOUT = f"""
`DATA@NxK` is N-way K-shot: an episode has K rows of each of N classes that no model has seen, and
{QUERY} others of each to answer, in random order. All models answer the same {EPISODES} episodes of
each seed; the seed also says which classes are held out. ± is the 95 % interval over all episodes
(Student's t): it is for other episodes of these splits, and does not say how other splits would
differ; a gate that holds over all of them need not hold on each. By seed: the lowest and the
highest mean of a seed, so of a split.

`digits`: each digit upright and turned by 90, 180 and 270 degrees makes forty classes; of each
digit one orientation is held out, and half of its pictures, so that no picture of the test is seen
in training in any orientation. A 0, 1 or 8 turned or in a mirror looks much like itself, so three
of its ten classes resemble one of training. `new_digits` holds five digits out altogether, in every
orientation. `segments` and `yeast` are ImageSegments and Yeast of River; genes of Yeast with the
same set of labels are a class.

`nearest`: the nearest row of the support, a picture or the features as they are. `scratch`: a
network with one hidden layer trained on the support alone. All others have learned to tell the
classes of training apart before: of pictures an eye has, three convolutions and a full layer
trained on pictures that are turned, moved and resized a little (as in Tian et al. 2020, arXiv
2003.11539, a body trained first and then left as it is), and the network reads what it sees, its
hidden layer near the identity; of other rows that hidden layer has. `nearest_read`: the nearest row
as the last layer reads it; `pretrained`: a new last layer for each episode; `fine_tuned`: all of
the network, not the eye, trained on each support. Every meta-learner starts there as well and is
then meta-trained on episodes of the classes of training and of blends of them; for the learned
update rules (`meta_lstm`, `learned_optimiser`) all but the last layer stays as it was.
`NAME{UNTRAINED}` has had none of that meta-training: much of what a learner does here it does by
its start. What is above `nearest` and `scratch` may owe it to the eye alone: `minus nearest_read`,
`minus pretrained` and `minus untrained` say what meta-learning does. Settings were chosen on
class splits of other seeds. `cavia` and `cavia_film` have a network five times as wide: what
adapts is the context of its first layer.

`in_context` takes no gradient step: it reads the support row by row into a recurrent state and into
linear attention. `in_context_gru` has the recurrent state alone, which can hardly bind five
classes to single rows (Santoro et al. 2016, arXiv 1605.06065, trained such nets on 100,000
episodes): what `in_context` does here it does by its attention.

NLL: mean negative log likelihood of the true class; ECE: expected calibration error (15 bins of
confidence; Guo et al. 2017, arXiv 1706.04599); `nearest` tells no probabilities.
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
        means = [100 * run.score for run in runs]
        rows.append([
            model, _told(student(shares.tolist())), f"{min(means):.1f} to {max(means):.1f}",
            *(_paired(shares, found.get(to), model == to) for to in AGAINST),
            _paired(shares, found.get(f"{model}{UNTRAINED}"), False),
            _mean(runs, "nll"), _mean(runs, "ece"),
            f"{sum(run.seconds for run in runs) / len(runs):.0f}",
        ])  # fmt: skip
    seeds = len({run.seed for run in book.of(stream=stream)})
    about = book.of(stream=stream)[0]
    head = ["model", "accuracy, %", "by seed", *(f"minus {to}" for to in AGAINST),
            "minus untrained", "NLL", "ECE", "s"]  # fmt: skip
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


def _mean(runs: Sequence[Record], name: str) -> str:
    values = [value for run in runs if (value := run.metric.get(name)) is not None]
    return f"{sum(values) / len(values):.3f}" if values else "-"


def _right(run: Record) -> NDArray[np.float64]:
    return np.array(run.extra[RIGHT], np.float64)


def _told(value: Interval) -> str:
    return f"{100 * value.mean:.2f} ± {100 * value.half:.2f}"


def _paired(mine: NDArray[np.float64], theirs: NDArray[np.float64] | None, same: bool) -> str:
    if same or theirs is None or len(theirs) != len(mine):
        return "-"
    return _signed(_minus(mine, theirs))


def _minus(mine: NDArray[np.float64], theirs: NDArray[np.float64]) -> Interval:
    return student((100.0 * (mine - theirs)).tolist())


def _signed(value: Interval) -> str:
    return f"{signed(value.mean, 2)} [{signed(value.low, 2)}, {signed(value.high, 2)}]"


def gates(book: Book) -> list[Gate]:
    """The lower bound of every learner is above the means of ``TO``, and that of the difference to
    the same learner without meta-training is above 0; what did not run is not claimed."""
    found = []
    for stream in BARRED:
        shares = _shares(book, stream)
        learners = [model for model in shares if _claimed(model)]
        if all(to in shares for to in TO):
            bars = {to: float(shares[to].mean()) for to in TO}
            words = " and ".join(f"{to}'s {100 * bar:.2f}" for to, bar in bars.items())
            for model in learners:
                low = student(shares[model].tolist()).low
                text = f"{stream}, {model}: lower bound {100 * low:.2f} %, above {words}"
                found.append(Gate(text, low > max(bars.values())))
        for model in learners:
            before = shares.get(f"{model}{UNTRAINED}")
            if before is not None and len(before) == len(shares[model]):
                value = _minus(shares[model], before)
                text = f"{stream}, {model}: meta-training adds {_signed(value)} points, above 0"
                found.append(Gate(text, value.low > 0.0))
    return found


def _claimed(model: str) -> bool:
    return model not in (*BASELINES, *PARTS) and not model.endswith(UNTRAINED)


def leaves_out(stream: str, model: str) -> bool:
    """Rows that explain others run where the claims are."""
    return (model in BEFORE and stream not in BARRED) or (model in PARTS and stream != BARRED[0])


SUITE = Suite(
    name="few-shot",
    summary="N-way K-shot classification of held-out classes: every learner and five baselines",
    minutes=30,
    streams=("digits@5x1", "digits@5x5", "new_digits@5x1", "segments@3x5", "yeast@5x5"),
    models=(*BASELINES, *RECIPES, *BEFORE),
    seeds=(0, 1, 2),
    rows=EPISODES,
    quick_rows=30,
    protocol="few_shot",
    summarise=summarise,
    gates=gates,
    extra=extra,
    about=ABOUT,
    leaves_out=leaves_out,
)
