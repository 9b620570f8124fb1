"""Plain training of many small networks at once: SGD and Adam, from a start for each."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from streammeta.meta.loss import Loss
from streammeta.meta.net import Net

Rows = tuple[Tensor, Tensor, Tensor]  # x (B, n, D), y and mask (B, n)


def descend(
    net: Net, theta: Tensor, rows: Rows, loss: Loss, how: str, rate: float, *, head: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights ``(B, P)`` and their mean losses ``(B,)``, before the first step and after each.

    ``how``: ``sgd`` (the whole gradient of each task's rows), ``momentum`` (0.9, Polyak 1964) or
    ``adam`` (Kingma & Ba 2015). With ``head`` all but the last layer stays where it is.
    """
    first, second = torch.zeros_like(theta), torch.zeros_like(theta)
    moves = torch.ones_like(theta[0])
    if head:
        moves[: net.head().start] = 0.0
    step = 0
    while True:
        at = net.differentiate(theta, *rows, loss)
        yield theta, at.loss
        step += 1
        gradient = at.gradient * moves
        if how == "sgd":
            theta = theta - rate * gradient
        elif how == "momentum":
            first = 0.9 * first + gradient
            theta = theta - rate * first
        else:
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            scale = (second / (1.0 - 0.999**step)).sqrt() + 1e-8
            theta = theta - rate * (first / (1.0 - 0.9**step)) / scale
