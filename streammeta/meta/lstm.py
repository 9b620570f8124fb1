"""A long short-term memory on flat parameter vectors with a leading axis of tasks.

Hochreiter & Schmidhuber 1997 with forget gates; gates in the order input, forget, cell, output.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from streammeta.meta.gru import rows_times
from streammeta.meta.net import times

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

    def read(self, flat: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Outputs ``(B, T, U)`` after each row of ``x (B, T, I)``; where ``mask (B, T)`` is 0 a row
        is passed over. ``flat (B, n_params)`` may be expanded. Going back is written out, as in
        ``streammeta.meta.gru``, and differentiable once."""
        cut = 4 * self.units
        parts = torch.split(flat, [self.inputs * cut, self.units * cut, cut], -1)
        into, back = (part.reshape(len(flat), -1, cut) for part in parts[:2])
        pushed = rows_times(x, into) + parts[2].unsqueeze(1)
        told: Tensor = _Recurrence.apply(pushed, back, mask)  # type: ignore[no-untyped-call]
        return told


class _Recurrence(torch.autograd.Function):
    """``c' = f c + i g`` and ``h' = o tanh(c')``, the gates of ``p + h R``."""

    @staticmethod
    def forward(ctx: Any, pushed: Tensor, back: Tensor, mask: Tensor) -> Tensor:
        h = c = pushed.new_zeros(len(pushed), back.shape[1])
        outputs, cells, kept = [h], [c], []
        there = mask.unsqueeze(-1) > 0
        for t in range(pushed.shape[1]):
            gates = pushed[:, t] + times(h.unsqueeze(1), back).squeeze(1)
            into, forget, new, out = gates.chunk(4, -1)
            into, forget, out = torch.sigmoid(into), torch.sigmoid(forget), torch.sigmoid(out)
            new = torch.tanh(new)
            kept.append(torch.stack([into, forget, new, out], 1))
            c = torch.where(there[:, t], forget * c + into * new, c)
            h = torch.where(there[:, t], out * torch.tanh(c), h)
            outputs.append(h)
            cells.append(c)
        found, memory = torch.stack(outputs, 1), torch.stack(cells, 1)
        gates = torch.stack(kept, 1) if kept else h.new_zeros(len(h), 0, 4, back.shape[1])
        ctx.save_for_backward(back, found, memory, gates, there)
        return found[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, Tensor, None]:
        """Step by step only what goes on to the step before; the rest for all of them at once."""
        back, found, memory, gates, there = ctx.saved_tensors
        into, forget, new, out = gates.unbind(2)
        level = torch.tanh(memory[:, 1:])
        by_level = out * (1.0 - level * level)
        # by the cell, of each gate but the last; that one by the output
        slopes = torch.stack([
            new * into * (1.0 - into), memory[:, :-1] * forget * (1.0 - forget),
            into * (1.0 - new * new),
        ], 2)  # fmt: skip
        by_out = level * out * (1.0 - out)
        turned, pushed = back.mT, []
        by_h = by_c = torch.zeros_like(found[:, 0])
        for t in range(by.shape[1] - 1, -1, -1):
            by_h = by_h + by[:, t]
            here = there[:, t]
            own = torch.where(here, by_h, 0.0)
            by_cell = own * by_level[:, t] + torch.where(here, by_c, 0.0)
            gated = (by_cell.unsqueeze(1) * slopes[:, t]).flatten(1)
            pushed.append(torch.cat([gated, own * by_out[:, t]], 1))
            by_h = (by_h - own) + times(pushed[-1].unsqueeze(1), turned).squeeze(1)
            by_c = torch.where(here, by_cell * forget[:, t], by_c)
        by_pushed = torch.stack(pushed[::-1], 1) if pushed else by.new_zeros(
            len(by), 0, 4 * back.shape[1]
        )  # fmt: skip
        return by_pushed, torch.bmm(found[:, :-1].mT, by_pushed), None
