"""What a meta-learner has learned, in figures: its rates, its moves, and what they change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streammeta.meta.gradient_based import GradientLearner
from streammeta.meta.learner import PlainSteps
from streammeta.meta.parameters import MetaParameters

EXPLAINED = 0.9  # of the squared length of all moves


class LayerInsight(NamedTuple):
    """One layer: its inner rates (least, median, greatest; nan without any), and the ``share`` of
    the squared length of all moves that lies in it."""

    name: str
    least: float
    median: float
    most: float
    share: float


class InputInsight(NamedTuple):
    """One input: the ``share`` it has in how adaptation changes what is made of the inputs."""

    name: str
    share: float


class Insight(NamedTuple):
    """What adapting to ``tasks`` tasks does to the meta-parameters after ``updates`` outer steps.

    ``directions``: how many orthogonal directions (singular vectors) hold ``EXPLAINED`` of the
    squared length of the moves, and ``first`` how much the first one holds. Few directions mean
    that tasks differ in few ways, and that the meta-parameters know them. ``likeness``: mean
    cosine between the moves of two tasks: near 1 where every task asks for the same correction.
    ``inputs``: by the squared change, over all tasks and rows, of the gradient of the prediction
    (class scores, in classification) by the input, times the input's variance; greatest first.
    """

    learner: str
    updates: int
    tasks: int
    layers: tuple[LayerInsight, ...]
    directions: int
    first: float
    likeness: float
    inputs: tuple[InputInsight, ...]


def insight(
    name: str,
    meta: MetaParameters,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    n_classes: int,
    columns: Mapping[str, Sequence[int]],
) -> Insight:
    """Adapt to supports ``x (B, S, D)``, ``y (B, S)`` in one batch and look at the moves.

    ``columns``: by name, those of ``D`` in which an input stands.
    """
    tx, ty = (torch.from_numpy(part).to(meta.device) for part in (x, y))
    fast, _ = meta.learner.adapt(meta.state, tx, ty, torch.ones_like(ty), n_classes)
    sane = torch.isfinite(fast).all(1)
    fast, tx = fast[sane], tx[sane]
    moves = (fast - meta.unadapted).double().cpu().numpy()
    squares = np.linalg.svd(moves, compute_uv=False) ** 2 if len(moves) else np.zeros(0)
    total = max(float(squares.sum()), np.finfo(float).tiny)
    enough = int((np.cumsum(squares) < EXPLAINED * total).sum()) + 1 if squares.any() else 0
    return Insight(
        name, meta.updates, len(moves), _layers(meta, moves, total),
        min(enough, len(squares)), float(squares[0] / total) if len(squares) else 0.0,
        _likeness(moves), _inputs(meta, fast, tx, n_classes, columns),
    )  # fmt: skip


def _layers(
    meta: MetaParameters, moves: NDArray[np.float64], total: float
) -> tuple[LayerInsight, ...]:
    rates = _rates(meta)
    found = []
    for number, layer in enumerate(meta.net.layers(), 1):
        parts = {"weights": slice(layer.start, layer.bias), "biases": slice(layer.bias, layer.end)}
        for kind, part in parts.items():
            share = float((moves[:, part] ** 2).sum() / total)
            low, middle, high = np.quantile(rates[part], (0.0, 0.5, 1.0))
            told = LayerInsight(f"layer {number} {kind}", low, middle, high, share)
            found.append(told)
    return tuple(found)


def _rates(meta: MetaParameters) -> NDArray[np.float64]:
    """Of every weight ``(P,)``; nan where the learner takes no steps of weights."""
    learner, n = meta.learner, meta.net.n_params
    if isinstance(learner, GradientLearner) and isinstance(learner.plan(meta.state), PlainSteps):
        rates = learner.rates(meta.state).double().cpu().numpy()
        return np.broadcast_to(rates, (n,))
    return np.full(n, np.nan)


def _inputs(
    meta: MetaParameters,
    fast: Tensor,
    x: Tensor,
    n_classes: int,
    columns: Mapping[str, Sequence[int]],
) -> tuple[InputInsight, ...]:
    changed = np.zeros(x.shape[-1])
    for output in range(n_classes):
        change = _slope(meta, fast, x, output) - _slope(
            meta, meta.unadapted.expand_as(fast), x, output
        )
        changed += change.double().square().sum((0, 1)).cpu().numpy()
    if len(x):
        changed *= x.double().flatten(0, 1).var(0, correction=0).cpu().numpy()
    total = max(float(changed.sum()), np.finfo(float).tiny)
    shares = {name: float(changed[list(at)].sum() / total) for name, at in columns.items()}
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return tuple(InputInsight(name, share) for name, share in ranked)


def _slope(meta: MetaParameters, theta: Tensor, x: Tensor, output: int) -> Tensor:
    """Gradient ``(B, S, D)`` of one output by the inputs."""
    x = x.detach().requires_grad_(True)
    with torch.enable_grad():
        value = meta.learner.predict(theta.detach(), x)[..., output].sum()
        (found,) = torch.autograd.grad(value, x)
    return found


def _likeness(moves: NDArray[np.float64]) -> float:
    lengths = np.linalg.norm(moves, axis=1)
    units = moves[lengths > 0] / lengths[lengths > 0, None]
    n = len(units)
    if n < 2:
        return float("nan")
    return float((np.square(units.sum(0)).sum() - n) / (n * (n - 1)))
