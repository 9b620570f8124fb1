"""Learning to choose: what a policy is shown of a stream, and what becomes of its choice.

A policy (``streammeta.meta.choice``) was trained on other streams to say, from what the recent past
looks like, which members of the mixture will do well next. With ``model.chooser`` it is asked at
every drift, and its weights are those with which the new segment's mixtures begin. Everything that
it is shown comes from labelled rows of the past.

After meta-learning of which algorithm suits which data by its meta-features (Rice 1976, The
algorithm selection problem), on streams as van Rijn et al. 2014 (Algorithm selection on data
streams, Discovery Science).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streammeta import mixture
from streammeta.experts.kernels import REGRESSION
from streammeta.meta.choice import FEATURES, SCORES
from streammeta.meta.traces import (
    HUNDRED,
    TEN,
    Traces,
    autocorrelation,
    balance,
    noise,
)
from streammeta.pending import Asked
from streammeta.state import State
from streammeta.units import inputs, standard_targets

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Newest labelled rows that say how noisy, balanced and autocorrelated labels are.
WINDOW = 64
#: Scores are differences to the mean of those who are awake, times this, within ``BOUND``.
SCALE, BOUND = 10.0, 10.0
#: Losses of values, in units of the target, count as this much at most, and their logarithm as if
#: they were this much more.
WORST, LEAST = 5.0, 0.01
#: Rows after which a drift is a third as fresh.
FADES = 100.0
#: A hard choice leaves the others this much.
LEFT = 0.01


def hear(state: State, traces: Traces, asked: Asked, target: float) -> None:
    """The label of a question has come: what every member said to it is judged. ``target`` is the
    index of the class, or the value."""
    key, said = asked.key, asked.members
    births = state.bank.births[key]
    awake = state.bank.live[key] & (asked.births == births)
    if state.task == REGRESSION:
        gap = np.minimum(np.abs(said[:, 0] - (target - asked.centre) / asked.scale), WORST)
        losses = np.stack([gap, np.log(gap + LEAST)])
    else:
        n, truth = state.n_classes, int(target)
        said = np.pad(said, ((0, 0), (0, max(0, n - said.shape[1]))))[:, :n]
        part = (1.0 - mixture.SMOOTHING) * said[:, truth] + mixture.SMOOTHING / n
        losses = np.stack([said.argmax(1) != truth, -np.log(np.maximum(part, 1e-12))])
    awake &= np.isfinite(losses).all(0)
    traces.add(key, births, awake, losses)


def show(state: State, traces: Traces, key: int) -> tuple[Floats, Floats, Flags]:
    """What a policy is shown of a key: meta-features ``(len(FEATURES),)``, scores of members ``(M,
    len(SCORES))``, and who can be chosen ``(M,)``: live members that have been judged."""
    counts, sums = traces.counts[key], traces.sums[key]
    known = state.bank.live[key] & (traces.born[key] == state.bank.births[key])
    known &= counts[HUNDRED] > 0.0
    scores = np.zeros((len(known), len(SCORES)))
    if not known.any():
        return np.zeros(len(FEATURES)), scores, known
    middles = np.zeros((len(counts), 2))
    for d, discounted in enumerate(counts):
        judged = known & (discounted > 0.0)
        if not judged.any():
            continue
        means = sums[d][:, judged] / discounted[judged]
        middles[d] = means.mean(1)
        ahead = SCALE * (middles[d][:, None] - means)
        scores[judged, 2 * d : 2 * d + 2] = np.clip(ahead, -BOUND, BOUND).T
    scores[known, -1] = np.log1p(counts[HUNDRED, known]) / 5.0
    best = float((sums[HUNDRED, 0, known] / counts[HUNDRED, known]).min())
    rises = float(middles[TEN, 0] - middles[HUNDRED, 0])
    return np.array([*_features(state, traces, key), best, rises]), scores, known


def _features(state: State, traces: Traces, key: int) -> list[float]:
    """All but the last two of ``FEATURES``."""
    values, used = state.task == REGRESSION, state.columns.used
    raw, y = state.segment_rows.latest(key, WINDOW)
    inside = min(int(state.segment_rows.inside[key]), WINDOW)
    x = inputs(state, key, raw)[-inside:, :used].astype(np.float64)
    happened, row, gradual, width, context, moved = traces.drift[key].tolist()
    return [
        float(values),
        math.log1p(float(state.segment_labels[key])) / 5.0,
        math.log1p(float(state.segment_rows.count[key])) / 8.0,
        math.log1p(used) / 3.0,
        float(state.scaled[:used].mean()) if used else 0.0,
        math.log(max(state.n_classes, 1)),
        0.0 if values else balance(y),
        autocorrelation(standard_targets(state, key, y), values),
        noise(x, y[-inside:], values) if inside > 1 else 0.5,
        happened * math.exp(-max(0.0, state.rows - row) / FADES),
        gradual,
        width / 5.0,
        context,
        min(moved, 5.0) / 5.0,
    ]


def choose(state: State, key: int) -> None:
    """The policy's weights become those of both mixtures of a key; nothing where there is no policy
    or nobody has been judged. Who has not been judged keeps the share that the mixture gave."""
    if state.policy is None or state.traces is None:
        return
    features, scores, known = show(state, state.traces, key)
    if not known.any():
        return
    chosen = state.policy.weights(state.member_names, features, scores, known)
    if state.config.choice == "hard":
        best = chosen.argmax()
        chosen = np.where(known, LEFT / known.sum(), 0.0)
        chosen[best] += 1.0 - LEFT
    live = state.bank.live[key]
    for logs in (state.log_weights[key], state.slow_weights[key]):
        before = mixture.weights(logs, live)
        after = np.where(known, before[known].sum() * chosen, before)
        logs[live] = np.log(np.maximum(after[live], 1e-12))
