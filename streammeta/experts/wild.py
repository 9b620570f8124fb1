"""Values far outside of what is usual, by the bound at which running moments clip them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel
from streammeta.experts.kernels import TRUSTED, WILD

F64 = NDArray[np.float64]


@kernel()
def is_wild(value: float, count: float, mean: float, variance: float) -> bool:
    """Whether a value lies so far from the mean that ``kernels.update_moments`` clips it."""
    if not (variance > 0.0 and count >= TRUSTED):
        return False
    return bool(abs(value - mean) > WILD * np.sqrt(variance))


@kernel()
def wildest(row: F64, scaled: F64, count: F64, mean: F64, variance: F64) -> int:
    """The first column of a raw row ``(D,)`` that holds such a value; -1 for none."""
    for c in range(row.shape[0]):
        if scaled[c] != 0.0 and is_wild(row[c], count[c], mean[c], variance[c]):
            return c
    return -1
