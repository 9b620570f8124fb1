"""Where a stream changes, found from its rows alone: no card, no generator is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from scenarios.scenario import Scenario
from streammeta.events import Label, Value

Floats = NDArray[np.float64]
Row = tuple[dict[str, Value], Label]

FAR = 0.25  # share of the rows at each end that a change is known not to reach
ABSENT = -1e9
SURE = 4.0  # no row says more than e^4 to 1


def change_point(stream: Scenario) -> int:
    """The row from which on the rows look like those of the far right end.

    The log-likelihood ratio of right and left, log p(x)/p(x) + log p(y|x)/p(y|x), is learned from
    the two ends; its sum over all rows before a cut is lowest at the change.
    """
    rows = list(stream)
    x = matrix(rows)
    edge = int(FAR * len(rows))
    ends = np.r_[0:edge, len(rows) - edge : len(rows)]
    right = np.r_[np.zeros(edge, int), np.ones(edge, int)]
    score = log_odds(x, ends, right)
    if stream.card.task == "regression":
        score += told_by_value(x, np.array([y for _, y in rows], float), edge)
    else:
        score += told_by_class(x, np.array([str(y) for _, y in rows]), edge)
    return int(np.argmin(np.cumsum(score))) + 1


def matrix(rows: Sequence[Row]) -> Floats:
    """Features as columns; what is not there, or missing, is a number like no other."""
    names = sorted({name for x, _ in rows for name in x})
    cells = [[_number(x.get(name)) for name in names] for x, _ in rows]
    return np.array(cells)


def log_odds(x: Floats, ends: NDArray[np.int64], right: NDArray[np.int64]) -> Floats:
    """How much each row's features look like the right end's; 0 where the ends look the same."""
    half = np.arange(len(ends)) % 2 == 0
    model = trees().fit(x[ends[half]], right[half])
    told = model.score(x[ends[~half]], right[~half])
    if told < 0.55:  # no better than guessing
        return np.zeros(len(x))
    return np.clip(model.decision_function(x), -SURE, SURE)


def told_by_class(x: Floats, y: NDArray[np.str_], edge: int) -> Floats:
    """log p(y|x) at the right end minus at the left end."""
    return likelihood(x, y, slice(-edge, None)) - likelihood(x, y, slice(0, edge))


def likelihood(x: Floats, y: NDArray[np.str_], end: slice) -> Floats:
    classes = np.unique(y[end])
    if len(classes) == 1:
        return np.where(y == classes[0], 0.0, -SURE)
    table = trees().fit(x[end], y[end]).predict_proba(x)
    column = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    told = np.where(classes[column] == y, table[np.arange(len(y)), column], 0.0)
    return np.log(np.maximum(told, np.exp(-SURE)))


def told_by_value(x: Floats, y: Floats, edge: int) -> Floats:
    """The same for numbers: squared errors of the two ends' regressions."""
    left, right = (
        (y - HistGradientBoostingRegressor(max_iter=60).fit(x[end], y[end]).predict(x)) ** 2
        for end in (slice(0, edge), slice(-edge, None))
    )
    spread = max(np.mean(left[:edge]), np.mean(right[-edge:]))
    return np.clip((left - right) / (2.0 * spread), -SURE, SURE)


def trees() -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=15, random_state=0)


def _number(value: Value) -> float:
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return float(sum(ord(letter) for letter in value))
    return float(value)
