"""Rows and targets as the networks see them: standardised by the running moments of the key."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from streammeta.encode import CLIP, MOMENT_FLOOR
from streammeta.experts import kernels
from streammeta.experts.kernels import REGRESSION
from streammeta.replay import Tasks
from streammeta.state import BORROWED, State


def inputs(state: State, key: int, raw: NDArray[np.float64]) -> NDArray[np.float32]:
    """Network inputs ``(n, D)`` from raw rows ``(n, D)``."""
    out = np.empty(raw.shape, np.float32)
    kernels.standardise(raw, state.scaled, state.means[key], state.spreads[key], CLIP, out)
    return out


def columns_of_inputs(state: State) -> dict[str, list[int]]:
    """Which network inputs each feature stands in, and each label before (``label -1`` is the
    newest)."""
    found = state.columns.columns()
    start, lags = state.columns.width, state.config.lags
    each = (state.width - start) // max(1, lags)
    for i in range(lags):
        found[f"label -{i + 1}"] = list(range(start + i * each, start + (i + 1) * each))
    return found


def units(state: State, key: int) -> tuple[float, float]:
    """Centre and scale of the target: 0 and 1 for classes, running moments for numbers.

    Of several keys a young one borrows the others' centre and scale.
    """
    if state.task != REGRESSION:
        return 0.0, 1.0
    count, mean, variance = state.y_moments[key].tolist()
    if len(state.keys) > 1:
        part = BORROWED / (count + BORROWED)
        mean = (1.0 - part) * mean + part * state.pool_y[1]
        variance = (1.0 - part) * variance + part * state.pool_y[2]
        count = state.pool_y[0]
    found = float(mean), math.sqrt(variance) if count > 1 and variance > 0 else 1.0
    state.units[key] = found  # for compiled code
    return found


def update_target_moments(state: State, key: int, value: float) -> None:
    """Running mean and variance of the target of one key."""
    for moments in (state.y_moments[key], state.pool_y):
        count, mean, variance = (moments[i : i + 1] for i in range(3))
        kernels.update_moments(np.array([value]), np.ones(1), count, mean, variance, MOMENT_FLOOR)


def standard_targets(state: State, key: int, targets: NDArray[np.float64]) -> NDArray[np.float32]:
    """Targets as the networks see them: class indices, or standardised values."""
    centre, scale = units(state, key)
    return ((targets - centre) / scale).astype(np.float32)


def standard_tasks(state: State, tasks: Tasks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tasks as the networks see them, in the units of now: ``x (B, L, D)``, ``y (B, L)``."""
    x = np.empty(tasks.raw.shape, np.float32)
    y = np.empty(tasks.y.shape, np.float32)
    for i, key in enumerate(tasks.key):
        x[i] = inputs(state, int(key), tasks.raw[i])
        y[i] = standard_targets(state, int(key), tasks.y[i])
    return x, y
