"""A long short-term memory on flat parameter vectors with a leading axis of tasks.

Hochreiter & Schmidhuber 1997 with forget gates; gates in the order input, forget, cell, output.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FORGET = 1.0  # bias of the forget gate, as it starts (Jozefowicz et al. 2015)


class Cell(NamedTuple):
    """The shape of one cell: ``inputs`` read at a step beside its own ``units`` outputs."""

    inputs: int
    units: int

    @property
    def n_params(self) -> int:
        """Length of its flat vector: weights ``(inputs + units, 4 units)``, biases."""
        return (self.inputs + self.units + 1) * 4 * self.units

    def init(self, generator: torch.Generator, scale: float = 1.0) -> Tensor:
        """Weights uniform within ``scale / sqrt(units)``, float64 ``(n_params,)``."""
        bound, cut = scale / math.sqrt(self.units), 4 * self.units
        weights = torch.rand(self.n_params - cut, generator=generator, dtype=torch.float64)
        bias = torch.zeros(cut, dtype=torch.float64)
        bias[self.units : 2 * self.units] = FORGET
        return torch.cat([(2.0 * weights - 1.0) * bound, bias])

    def step(self, flat: Tensor, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Output and cell ``(B, n, U)`` after reading ``x (B, n, I)``; ``flat (B, n_params)``."""
        cut = 4 * self.units
        weight = flat[:, :-cut].reshape(-1, self.inputs + self.units, cut)
        bias = flat[:, -cut:].unsqueeze(1)
        gates = torch.baddbmm(bias, torch.cat([x, h], -1), weight)
        into, forget, new, out = gates.chunk(4, -1)
        c = torch.sigmoid(forget) * c + torch.sigmoid(into) * torch.tanh(new)
        return torch.sigmoid(out) * torch.tanh(c), c
