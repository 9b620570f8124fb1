"""The inner-update rule, stated once.

    theta <- theta - rates * gradient

``rates`` is a scalar (MAML, Finn et al. 2017, eq. 1) or a vector of one rate per parameter
(Meta-SGD, Li et al. 2017, eq. 3). Online experts take the same step on a gradient that
``scale_by_second_moment`` has normalised first.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Decay and floor of the second moment; the compiled kernels use the same.
DECAY = 0.999
EPS = 1e-6


def step(theta: Tensor, gradient: Tensor, rates: Tensor | float) -> Tensor:
    """One inner step: ``theta``, ``gradient`` ``(..., P)``; ``rates`` broadcasts against them."""
    return theta - rates * gradient


def scale_by_second_moment(
    gradient: Tensor, second: Tensor, count: int | Tensor
) -> tuple[Tensor, Tensor]:
    """Divide by the root of the bias-corrected decayed mean of squares (Kingma & Ba 2015).

    A coordinate whose gradient is exactly zero keeps its moment. ``count`` is the number of
    steps with this one.

    Returns:
        The scaled gradient and the new second moment, both ``(..., P)``.
    """
    moved = DECAY * second + (1.0 - DECAY) * gradient**2
    second = torch.where(gradient != 0, moved, second)
    correction = 1.0 - DECAY**count
    return gradient / ((second / correction).sqrt() + EPS), second
