"""Learned update rules: a small LSTM, the same for every weight, reads gradients and says steps.

The gradients that it reads are taken as given, not as functions of the rule: no second derivatives
(both papers do so: Andrychowicz et al. 2016, section 2.1; Ravi & Larochelle 2017, section 3.4).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.differentiated import Differentiated
from streammeta.meta.learner import Batch, Gradient
from streammeta.meta.loss import losses, masked_mean
from streammeta.meta.lstm import Cell

SMALLEST = 10.0  # gradients below exp(-SMALLEST) are told by their size, larger by its logarithm
GATES = 0.1  # scale of the first weights of what turns the LSTM's outputs into a step
Support = tuple[Tensor, Tensor, Tensor]
Memory = tuple[Tensor, ...]


@dataclass(frozen=True)
class Unrolled(Differentiated, ABC):
    """``steps`` steps of a learned rule; ``units`` of each LSTM, whose weights are in ``extra``.

    Its weights do not hang on how many the network has: one rule fits networks of any shape.

    Raises:
        UsageError: ``units`` is below 1, or an option is asked that is about plain inner steps.
    """

    units: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.units < 1:
            raise UsageError(f"{type(self).__name__}: units is {self.units}; expected at least 1")

    @abstractmethod
    def cells(self) -> tuple[Cell, ...]:
        """The LSTMs, the first reading gradients, each further one the one before."""

    @abstractmethod
    def blank(self, theta: Tensor) -> Memory:
        """What is remembered before the first step, for weights ``theta (B, P)``."""

    @abstractmethod
    def move(self, rule: Tensor, fast: Tensor, at: Gradient, kept: Memory) -> tuple[Tensor, Memory]:
        """One step from ``fast (B, P)`` by the rule ``(B, E)``, and what is remembered then."""

    def unroll(self, theta: Tensor, rule: Tensor, support: Support, n_classes: int) -> list[Tensor]:
        """Weights ``(B, P)`` after each step on the support."""
        loss, kept, fast, stops = self.loss(n_classes), self.blank(theta), theta, []
        for _ in range(self.steps):
            with torch.no_grad():
                at = self.net.differentiate(fast.detach(), *support, loss)
            fast, kept = self.move(rule, fast, at, kept)
            stops.append(fast)
        return stops

    def adapted(self, theta: Tensor, extra: Tensor, support: Support, n_classes: int) -> Tensor:
        """Where the last step leads."""
        return self.unroll(theta, extra, support, n_classes)[-1]

    def judged(self, theta: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """``(B,)`` mean of the query losses after each step."""
        stops = self.unroll(theta, extra, batch[:3], n_classes)
        return torch.stack([self.query_loss(fast, batch, n_classes) for fast in stops]).mean(0)

    def query_loss(self, fast: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """``(B,)`` of weights ``fast (B, P)``."""
        each = losses(self.net.apply(fast, batch.query_x), batch.query_y, self.loss(n_classes))
        return masked_mean(each, batch.query_mask)

    def read(self, rule: Tensor, x: Tensor, kept: Memory) -> tuple[Tensor, Memory]:
        """Outputs ``(B, P, U)`` of the last LSTM for ``x (B, P, I)``, and the LSTMs' state."""
        at, state = 0, []
        for i, cell in enumerate(self.cells()):
            flat = rule[:, at : at + cell.n_params]
            x, c = cell.step(flat, x, kept[2 * i], kept[2 * i + 1])
            state += [x, c]
            at += cell.n_params
        return x, tuple(state)

    def initial(self, seed: int, further: int) -> Tensor:
        """First weights of the LSTMs and ``further`` ones, float64 ``(E,)``."""
        generator = torch.Generator().manual_seed(seed)
        parts = [cell.init(generator) for cell in self.cells()]
        drawn = torch.rand(further, generator=generator, dtype=torch.float64)
        return torch.cat([*parts, (2.0 * drawn - 1.0) * GATES / math.sqrt(self.units)])


def preprocessed(value: Tensor) -> Tensor:
    """Two numbers in the place of each, so that sizes of all orders can be read.

    ``(log|v| / 10, sign v)`` from ``exp(-10)`` on, ``(-1, exp(10) v)`` below (Andrychowicz et al.
    2016, appendix A): shape ``(..., 2)``.

    >>> preprocessed(torch.tensor([1.0, -1.0, 0.0]))
    tensor([[ 0.,  1.],
            [ 0., -1.],
            [-1.,  0.]])
    """
    size = value.abs()
    large = size >= math.exp(-SMALLEST)
    logarithm = size.clamp(min=math.exp(-SMALLEST)).log() / SMALLEST
    first = torch.where(large, logarithm, -torch.ones_like(value))
    second = torch.where(large, value.sign(), math.exp(SMALLEST) * value)
    return torch.stack([first, second], -1)
