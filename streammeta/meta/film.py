"""CAVIA whose context scales and shifts units: Zintgraf et al. 2019 (arXiv 1810.03642) with FiLM.

An input that is context moves a unit by the same amount for every row, before its ReLU; a scale
moves it by as much as the row itself does (feature-wise linear modulation, Perez et al. 2018, arXiv
1709.07871, which CAVIA's authors use for pictures). From there we depart: each unit of the first
layer has one context number of its own, which both scales and shifts it, where the paper maps a few
to all scales and shifts by a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from streammeta.meta import rule
from streammeta.meta.cavia import ContextLearner, Rows
from streammeta.meta.gradient_based import Slopes, Step
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Loss, losses, masked_mean
from streammeta.meta.net import unpack


@dataclass(frozen=True)
class Film(ContextLearner):
    """Only one number for each of the ``H`` units of the first layer is adapted, from 0; ``extra
    (2 H,)`` holds by how much it scales its unit and by how much it shifts it, from 1 and 0.

    Raises:
        UsageError: as for ``cavia``.
    """

    def extra(self, theta: Tensor) -> Tensor:
        """Gains of 1 and shifts of 0."""
        width = self._first().n_out
        return torch.cat([theta.new_ones(width), theta.new_zeros(width)])

    def inner(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, loss: Loss
    ) -> tuple[Tensor, list[Step]]:
        """Fast weights ``(B, P)``; no step of the way is kept."""
        with torch.enable_grad():
            start = self.unadapted(state).detach().expand(x.shape[0], -1)
            rates, extra = state.log_rates.exp(), state.extra.detach().expand(x.shape[0], -1)
            context = self._descend(start, extra, rates, (x, y, mask), loss, through=False)
            fast = self._folded(start, extra, context)
        return fast.detach(), []

    @property
    def written_out(self) -> bool:
        """By autograd."""
        return False

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Query loss of each task and its gradients, by autograd through the steps."""
        loss, tasks = self.loss(n_classes), batch.support_x.shape[0]
        with torch.enable_grad():
            start, extra = (
                part.detach().repeat(tasks, 1).requires_grad_()
                for part in (self.unadapted(state), state.extra)
            )
            context = self._descend(
                start, extra, state.log_rates.exp(), batch[:3], loss, through=True
            )
            outputs = self._outputs(start, extra, self._plain(start, batch.query_x), context)
            judged = masked_mean(losses(outputs, batch.query_y, loss), batch.query_mask)
            found = torch.autograd.grad(judged.sum(), (start, extra))
        judged = judged.detach()
        weight = self.weight(judged).unsqueeze(1)
        by_theta, by_extra = (weight * part for part in found)
        return Slopes(judged, by_theta, by_theta.new_zeros(tasks, 1), by_extra)

    def _descend(
        self, start: Tensor, extra: Tensor, rates: Tensor, support: Rows, loss: Loss, *,
        through: bool,
    ) -> Tensor:  # fmt: skip
        """The context ``(B, H)`` after its steps on ``support``, of weights ``start (B, P)``; with
        ``through`` autograd may go back through them."""
        x, y, mask = support
        plain = self._plain(start, x)
        context = start.new_zeros(x.shape[0], self._first().n_out).requires_grad_()
        for _ in range(self.steps):
            outputs = self._outputs(start, extra, plain, context)
            total = masked_mean(losses(outputs, y, loss), mask).sum()
            (direction,) = torch.autograd.grad(total, context, create_graph=through)
            context = rule.step(context, direction, rates)
            if not through:
                context = context.detach().requires_grad_()
        return context

    def _plain(self, start: Tensor, x: Tensor) -> Tensor:
        """What the first layer makes of rows, without context and before its ReLU ``(B, n, H)``:
        the same for all steps."""
        weight, bias = unpack(start, self._first())
        return torch.baddbmm(bias.unsqueeze(1), x, weight)

    def _outputs(self, start: Tensor, extra: Tensor, plain: Tensor, context: Tensor) -> Tensor:
        """What the network says ``(B, n, O)`` where its first layer gives ``plain (B, n, H)``."""
        scale, shift = self._moved(extra, context)
        reads = torch.relu(plain * scale.unsqueeze(1) + shift.unsqueeze(1))
        return self._above().apply(start[:, self._first().end :], reads)

    def _moved(self, extra: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """By how much ``context (B, H)`` scales and shifts each unit: ``(B, H)`` both."""
        gains, shifts = extra.reshape(-1, 2, self._first().n_out).unbind(1)
        return 1.0 + context * gains, context * shifts

    def _folded(self, start: Tensor, extra: Tensor, context: Tensor) -> Tensor:
        """``start (B, P)`` with what ``context (B, H)`` scales and shifts in its weights;
        ``extra (B, 2 H)``."""
        first = self._first()
        scale, shift = self._moved(extra, context)
        weight, bias = unpack(start, first)
        scaled = (weight * scale.unsqueeze(1)).flatten(1)
        return torch.cat([scaled, bias * scale + shift, start[:, first.end :]], 1)
