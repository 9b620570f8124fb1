"""What a network is judged by: the loss of a task, row by row."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Task = Literal["classification", "regression"]

#: Standardised residual beyond which the regression loss is linear (Huber 1964); the compiled
#: kernels use the same.
HUBER = 2.0


class Loss(NamedTuple):
    """Cross-entropy over the first ``n_classes`` outputs, or Huber's loss of the first output.

    ``huber`` is the residual beyond which the loss is linear; ``math.inf`` makes it half the
    square everywhere.
    """

    task: Task
    n_classes: int = 1
    huber: float = HUBER


def losses(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Loss of every row.

    Args:
        outputs: ``(..., n, O)``.
        targets: ``(..., n)`` class indices (any dtype) or standardised values.

    Returns:
        ``(..., n)``, at least 0.
    """
    if loss.task == "regression":
        residual = outputs[..., 0] - targets
        near = residual.clamp(-loss.huber, loss.huber)
        return near * (residual - 0.5 * near)
    logits = outputs[..., : loss.n_classes]
    chosen = logits.gather(-1, targets.long().unsqueeze(-1)).squeeze(-1)
    return torch.logsumexp(logits, -1) - chosen


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the last axis of the rows where ``mask`` is 1; 0 where there are none."""
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)
