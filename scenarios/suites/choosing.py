"""Learning to choose: regret to the best learner of each segment, on generators held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scenarios.bench import Book, Gate, Suite, Summary
from scenarios.bench.statistics import Interval, student
from scenarios.bench.tables import signed
from scenarios.choosing.courses import EVERY, WARM_UP
from scenarios.choosing.trial import (
    CHOOSING,
    CONSTANT,
    DEFAULT,
    EVEN_PRIOR,
    FIXED,
    FOLDS,
    HARD,
    LEADER,
    MIXTURE,
    MODELS,
    NO_FEATURES,
    NO_SCORES,
    PERMUTED,
    PRIOR,
    REPEATS,
    ROWS,
    SOFT,
    UNIFORM,
)

TOLD = {
    SOFT: "L2L soft: the policy's weights",
    HARD: "L2L hard: its first choice",
    FIXED: "best fixed choice",
    UNIFORM: "uniform weights",
    CONSTANT: "L2L soft, trained and tested without anything to read",
    PERMUTED: "L2L soft, features and scores permuted",
    NO_FEATURES: "L2L soft, meta-features permuted",
    NO_SCORES: "L2L soft, scores permuted",
    LEADER: "fewest errors in the last 100 labels",
    MIXTURE: "the default model's quick mixture",
    EVEN_PRIOR: "quick mixture, even prior at each alarm",
    PRIOR: "quick mixture, L2L prior at each alarm",
    DEFAULT: "the default model's answer",
    CHOOSING: "the default model with model.chooser",
}
START = "regret:"
ABOUT = f"""
The default model runs over streams of 13 generators, each with abrupt, gradual and recurring drifts
of concepts and with drifts of the features and noise. At every alarm, and every {EVERY} rows, one
of its members, or weights for all, can be chosen for the rows to come; what a policy is shown comes
from labels of the past. Regret: the mean loss (0/1 error, or absolute error in units of the target)
from row {WARM_UP} on, less that of the member that turned out best in each true segment; what
blends members, or looks again within a segment, can be below 0. Generators are held out kin by kin:
{"; ".join(f"{fold} ({', '.join(names)})" for fold, names in FOLDS.items())}. Policy and best fixed
choice are learned from the others. Permuted: each decision is shown what was measured at another
one of the fold, the mean of {REPEATS} permutations. The last two answer with everything that the
model has, and look at each row.
"""


def summarise(book: Book) -> list[Summary]:
    """All ways to choose, then by generator."""
    return [_overall(book), _by_generator(book)]


def of_streams(book: Book, model: str) -> dict[str, float]:
    """Regret on each held-out stream, the mean over seeds."""
    found: dict[str, list[float]] = {}
    for run in book.of(model=model):
        for name, value in run.metric.items():
            if name.startswith(START) and value is not None:
                found.setdefault(name.removeprefix(START), []).append(value)
    return {stream: float(np.mean(values)) for stream, values in found.items()}


def _generators(streams: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(stream.partition(" ")[0] for stream in streams))


def minus(book: Book, model: str, other: str, *, by_generator: bool = False) -> Interval | None:
    """The paired difference over streams, or over the means of generators; nothing without two."""
    mine, theirs = of_streams(book, model), of_streams(book, other)
    gaps = {stream: mine[stream] - theirs[stream] for stream in mine if stream in theirs}
    values = list(gaps.values())
    if by_generator:
        values = [
            float(np.mean([gap for stream, gap in gaps.items() if stream.startswith(f"{name} ")]))
            for name in _generators(list(gaps))
        ]
    return student(values) if len(values) > 1 else None


def _told(value: Interval | None) -> str:
    if value is None:
        return "-"
    return f"{signed(value.mean)} [{signed(value.low)}, {signed(value.high)}]"


def _overall(book: Book) -> Summary:
    rows = []
    for model in book.models:
        values = list(of_streams(book, model).values())
        if len(values) < 2:
            continue
        value = student(values)
        notes = sorted({run.note for run in book.of(model=model) if run.note})
        rows.append([
            TOLD[model] + (f" ({', '.join(notes)})" if notes else ""),
            f"{value.mean:.4f} ± {value.half:.4f}",
            "-" if model == FIXED else _told(minus(book, model, FIXED)),
        ])  # fmt: skip
    seeds = len({run.seed for run in book.runs})
    streams = len(of_streams(book, book.models[0]))
    title = f"regret on {streams} held-out streams, {seeds} seed{'s' if seeds > 1 else ''}"
    note = "± and brackets are 95 % intervals (Student's t over streams)"
    return Summary(title, ["", "regret", "minus best fixed"], rows, note)


def _by_generator(book: Book) -> Summary:
    shown = [
        m for m in (SOFT, HARD, FIXED, UNIFORM, CONSTANT, NO_FEATURES, DEFAULT) if m in book.models
    ]
    each = {model: of_streams(book, model) for model in shown}
    rows = []
    for name in _generators([stream for found in each.values() for stream in found]):
        means = [
            [value for stream, value in found.items() if stream.startswith(f"{name} ")]
            for found in each.values()
        ]
        rows.append([name, *(f"{np.mean(m):.4f}" if m else "-" for m in means)])
    return Summary("regret by generator", ["generator", *shown], rows, detail=True)


def gates(book: Book) -> list[Gate]:
    """Below the best fixed choice, also as one choice alone, and below fixed weights, so that it is
    not the blending that wins; and what is shown is used: permuting it hurts."""
    claims: list[tuple[str, str, str, dict[str, Any]]] = [
        ("over streams", SOFT, FIXED, {}),
        ("over generators", SOFT, FIXED, {"by_generator": True}),
        ("over streams", HARD, FIXED, {}),
        ("over streams", SOFT, UNIFORM, {}),
        ("over streams", SOFT, CONSTANT, {}),
        ("over streams", SOFT, PERMUTED, {}),
        ("over streams", SOFT, NO_FEATURES, {}),
        ("over generators", SOFT, CONSTANT, {"by_generator": True}),
        ("over generators", SOFT, NO_FEATURES, {"by_generator": True}),
    ]
    found = []
    for over, model, other, options in claims:
        value = minus(book, model, other, **options)
        text = f"regret {over}: {model} - {other} = {_told(value)}, below 0"
        found.append(Gate(text, value is not None and value.high < 0.0))
    return found


SUITE = Suite(
    name="choosing",
    summary="who chooses learners best on generators that nobody was trained on: regret",
    minutes=25,
    streams=tuple(FOLDS),
    models=MODELS,
    seeds=(0, 1, 2),
    rows=ROWS,
    quick_rows=300,
    protocol="choosing",
    summarise=summarise,
    gates=gates,
    about=ABOUT,
)
