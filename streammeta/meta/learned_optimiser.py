"""A learned optimiser: the step of every weight comes from an LSTM that reads its gradients.

Andrychowicz et al. 2016 (arXiv 1606.04474): two layers, shared by all weights, each weight with a
state of its own (section 2.1); trained on the sum of the losses after every step (equation 3).
The output has two parts here: a factor on the gradient step of ``inner_lr``, 1 at first, and the
paper's free step, a tenth of what the LSTM says. So it starts as plain gradient descent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streammeta.meta.learner import Gradient
from streammeta.meta.lstm import Cell
from streammeta.meta.unrolled import Memory, Unrolled, preprocessed

SEED = 1606_04474  # of the rule's first weights
FREE = 0.1  # of the LSTM's output is a step (appendix A)
FACTOR = 3.0  # bound of the natural logarithm of the factor


@dataclass(frozen=True)
class LearnedOptimiser(Unrolled):
    """``extra`` holds both LSTMs, then weights ``(units, 2)`` of the outputs and their biases."""

    def cells(self) -> tuple[Cell, ...]:
        """Two: the first reads two numbers of the gradient."""
        return Cell(2, self.units), Cell(self.units, self.units)

    def extra(self, theta: Tensor) -> Tensor:
        """A factor near 1 and a free step near 0."""
        return self.initial(SEED, 2 * (self.units + 1)).to(theta)

    def blank(self, theta: Tensor) -> Memory:
        """Nothing read."""
        return (theta.new_zeros(*theta.shape, self.units),) * 4

    def move(self, rule: Tensor, fast: Tensor, at: Gradient, kept: Memory) -> tuple[Tensor, Memory]:
        """``theta - inner_lr exp(a) gradient + b / 10`` with outputs a and b."""
        h, state = self.read(rule, preprocessed(at.gradient), kept)
        out = rule[:, -2 * (self.units + 1) :].reshape(len(rule), -1, 2)
        a, b = (h @ out[:, :-1] + out[:, -1:]).unbind(-1)
        factor = (FACTOR * torch.tanh(a / FACTOR)).exp()
        return fast - self.inner_lr * factor * at.gradient + FREE * b, state
