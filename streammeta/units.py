"""Rows and targets as the networks see them: standardised by the running moments of the key."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from streammeta.encode import CLIP
from streammeta.experts import kernels
from streammeta.experts.kernels import NOT_READ, REGRESSION
from streammeta.replay import Tasks
from streammeta.state import State
from streammeta.together import find_units


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
    find_units(state.together, key, len(state.keys) > 1)
    centre, scale = state.units[key].tolist()
    return centre, scale


def standard_targets(state: State, key: int, targets: NDArray[np.float64]) -> NDArray[np.float32]:
    """Targets as the networks see them: class indices, or standardised values."""
    centre, scale = units(state, key)
    return ((targets - centre) / scale).astype(np.float32)


def standard_tasks(state: State, tasks: Tasks) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tasks as the networks see them, in the units of now: ``x (B, L, D)``, ``y (B, L)``."""
    x = np.empty(tasks.raw.shape, np.float32)
    _standard_inputs(
        tasks.raw, tasks.key, state.scaled, state.means, state.spreads, CLIP, x
    )  # fmt: skip
    if state.task != REGRESSION:
        return x, tasks.y.astype(np.float32)
    keys = tasks.key.tolist()
    known = {key: units(state, key) for key in set(keys)}
    about = np.array([known[key] for key in keys]).reshape(-1, 2)
    return x, ((tasks.y - about[:, :1]) / about[:, 1:]).astype(np.float32)


@njit(cache=True, nogil=True, error_model="numpy")
def _standard_inputs(
    raw: NDArray[np.float64], keys: NDArray[np.int64], scaled: NDArray[np.float64],
    means: NDArray[np.float64], spreads: NDArray[np.float64], clip: float,
    out: NDArray[np.float32],
) -> None:  # fmt: skip
    """``kernels.standardise`` of many rows ``(B, L, D)`` of the keys ``(B,)``: roots are drawn
    once for each key."""
    centre, width = np.zeros(raw.shape[2]), np.ones(raw.shape[2])
    for i in range(len(keys)):
        key = keys[i]
        if i == 0 or key != keys[i - 1]:
            for c in range(len(width)):
                if scaled[c] == NOT_READ:
                    centre[c] = np.nan
                elif scaled[c] != 0.0:
                    centre[c], width[c] = means[key, c], np.sqrt(spreads[key, c] + 1e-12)
        for r in range(raw.shape[1]):
            for c in range(len(width)):
                value = (raw[i, r, c] - centre[c]) / width[c]
                value = -clip if value < -clip else (clip if value > clip else value)
                out[i, r, c] = 0.0 if value != value else value
