"""A gated recurrent unit on flat parameter vectors, for many series at once.

Cho et al. 2014 (arXiv 1406.1078), the reset gate after the product as in cuDNN; gates in the order
reset, update, new. Going back through a series is written out, so that weights that all series
share are multiplied once for all of them and each series still has a gradient of its own.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from streammeta.meta.net import times


class Gru(NamedTuple):
    """The shape of one cell: ``inputs`` read at a step beside its own ``units`` states."""

    inputs: int
    units: int

    @property
    def n_params(self) -> int:
        """Length of its flat vector: weights ``(inputs + units, 3 units)``, biases."""
        return (self.inputs + self.units + 1) * 3 * self.units

    def init(self, generator: torch.Generator) -> Tensor:
        """Weights uniform within ``1 / sqrt(units)``, float64 ``(n_params,)``; no biases."""
        cut = 3 * self.units
        weights = torch.rand(self.n_params - cut, generator=generator, dtype=torch.float64)
        weights = (2.0 * weights - 1.0) / math.sqrt(self.units)
        return torch.cat([weights, torch.zeros(cut, dtype=torch.float64)])

    def read(self, flat: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """States ``(B, T + 1, U)`` before the first row and after each of ``x (B, T, I)``; where
        ``mask (B, T)`` is 0 a row is passed over. ``flat (B, n_params)`` may be expanded."""
        cut = 3 * self.units
        parts = torch.split(flat, [self.inputs * cut, self.units * cut, cut], -1)
        into, back = (part.view(len(flat), -1, cut) for part in parts[:2])
        pushed = rows_times(x, into) + parts[2].unsqueeze(1)
        states: Tensor = _Recurrence.apply(pushed, back, mask)  # type: ignore[no-untyped-call]
        return states


def rows_times(rows: Tensor, weight: Tensor) -> Tensor:
    """``rows (B, n, I)`` times ``weight (B, I, O)``; the gradient by a weight that all share is
    still one for each."""
    found: Tensor = _Product.apply(rows, weight)  # type: ignore[no-untyped-call]
    return found


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return times(rows, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, Tensor]:
        rows, weight = ctx.saved_tensors
        return times(by, weight.mT), torch.bmm(rows.mT, by)


class _Recurrence(torch.autograd.Function):
    """``h' = z h + (1 - z) tanh(p_n + r (h R_n))``, ``r`` and ``z`` sigmoids of ``p + h R``."""

    @staticmethod
    def forward(ctx: Any, pushed: Tensor, back: Tensor, mask: Tensor) -> Tensor:
        units = back.shape[1]
        gates, new_pushed = torch.split(pushed, [2 * units, units], -1)
        # where the update gate is 1 nothing is read
        gates = gates.clone()
        gates[..., units:].masked_fill_(mask.unsqueeze(-1) == 0, math.inf)
        h = pushed.new_zeros(len(pushed), units)
        states, kept = [h], []
        for push, new in zip(gates.unbind(1), new_pushed.unbind(1), strict=True):
            own = times(h.unsqueeze(1), back).squeeze(1)
            both = torch.sigmoid(push + own[:, : 2 * units])
            own = own[:, 2 * units :]
            new = torch.tanh(torch.addcmul(new, both[:, :units], own))
            kept.append(torch.cat([both, new, own], 1))
            h = torch.lerp(new, h, both[:, units:])
            states.append(h)
        found = torch.stack(states, 1)
        gates = torch.stack(kept, 1) if kept else h.new_zeros(len(h), 0, 4 * units)
        ctx.save_for_backward(back, found, gates)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradient by ``h'`` times ``slopes`` is that by the three products with ``h``; the
        last of them reaches what was pushed without the reset gate."""
        back, states, kept = ctx.saved_tensors
        reset, update, new, own = kept.chunk(4, -1)
        by_new = (1.0 - update) * (1.0 - new * new)
        by_update = (states[:, :-1] - new) * update * (1.0 - update)
        by_reset = by_new * own * reset * (1.0 - reset)
        slopes = torch.stack([by_reset, by_update, by_new * reset], 2)
        turned, by_h, after = back.mT, by[:, -1], []
        for t in range(kept.shape[1] - 1, -1, -1):
            after.append(by_h)
            products = (by_h.unsqueeze(1) * slopes[:, t]).flatten(1)
            through = by[:, t] + times(products.unsqueeze(1), turned).squeeze(1)
            by_h = torch.addcmul(through, by_h, update[:, t])
        later = torch.stack(after[::-1], 1)
        by_own = (later.unsqueeze(2) * slopes).flatten(2)
        by_pushed = torch.cat([by_own[..., : 2 * back.shape[1]], later * by_new], -1)
        return by_pushed, torch.bmm(states[:, :-1].mT, by_own), None
