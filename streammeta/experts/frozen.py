"""What a network that no longer learns gets wrong, in the loss by which predictions are judged."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from streammeta.experts.kernels import F32, F64, REGRESSION, forward, standardise


@njit(cache=True, nogil=True, error_model="numpy")
def loss_of_frozen(
    theta: F32, sizes: NDArray[np.int64], raw: F64, scaled: F64, mean: F64, var: F64, clip: float,
    centre: float, scale: float, truth: float, n_classes: int, task: int,
) -> float:  # fmt: skip
    """Of a raw row ``(D,)``, standardised by moments of its own: 1 for a wrong class and 0 for the
    right one, or |residual| in units of the target."""
    width = 0
    for size in sizes:
        width += size
    acts, inputs = np.empty(width, np.float32), np.empty((1, len(raw)), np.float32)
    standardise(raw.reshape(1, len(raw)), scaled, mean, var, clip, inputs)
    acts[: sizes[0]] = inputs[0]
    forward(theta, sizes, acts)
    logits = acts[width - sizes[-1] :]
    if task == REGRESSION:
        residual: float = truth - (centre + scale * logits[0])
        return abs(residual)
    likeliest = 0
    for j in range(min(max(1, n_classes), len(logits))):
        if logits[j] > logits[likeliest]:
            likeliest = j
    return 0.0 if likeliest == truth else 1.0
