"""R2-D2: the last layer of a task is solved for, on features that are meta-learned.

Bertinetto, Henriques, Torr, Vedaldi 2019 (arXiv 1805.08136), section 3.1: ridge regression to the
values, or to the classes coded as 1 and 0, less the mean of both. The ridge draws towards the last
layer of the meta-parameters instead of 0, as strongly in each feature as was learned (the prior of
ALPaCA, Harrison, Sharma, Pavone 2018, arXiv 1807.08912, equation 9, without its variance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.gradient_based import RATE_LR, GradientLearner, Slopes
from streammeta.meta.learner import AdaptInfo, Batch, RidgeHead, State
from streammeta.meta.loss import losses, masked_mean
from streammeta.meta.net import Layer, Net

RIDGE = 16.0  # of every feature, as it starts: rows that speak against it as loudly
LOGARITHMS = 7.0  # bound of their natural logarithms
SHARPNESS = 4.0  # of class scores, as it starts: how far apart logits of 0 and 1 lie


@dataclass(frozen=True)
class R2D2(GradientLearner):
    """One exact step in the place of ``steps`` along the gradient (none where ``steps`` is 0).

    ``extra`` holds logarithms: of the ridge of each feature and of the bias ``(H + 1,)``, and of
    the sharpness of class scores ``(1,)``.

    Raises:
        UsageError: the model is not a ``Net``, or an option is asked that is about inner steps.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.net, Net):
            raise UsageError("r2d2 solves for the last layer of a Net; other modules have none")
        if self.outer.proximity or self.outer.gated or self.outer.each_step:
            raise UsageError("r2d2: proximity, gated and each_step are about inner steps")

    def plan(self, state: State) -> RidgeHead | None:
        """What compiled code needs to solve for the last layer."""
        if not self.steps:
            return None
        *ridge, sharpness = state.extra.exp().tolist()
        return RidgeHead(state.theta.numpy(), np.array(ridge, np.float32), sharpness)

    def descend(self, state: State, gradient: Tensor) -> State:
        """The state after one outer step; ridge and sharpness stay within reason."""
        new = super().descend(state, gradient)
        return new._replace(extra=new.extra.clamp(-LOGARITHMS, LOGARITHMS))

    def extra(self, theta: Tensor) -> Tensor:
        """The same ridge everywhere."""
        ridge = theta.new_full((self._last().n_in + 1,), math.log(RIDGE))
        return torch.cat([ridge, theta.new_full((1,), math.log(SHARPNESS))])

    @property
    def extra_pace(self) -> float:
        """Logarithms may move as those of inner rates do."""
        return RATE_LR

    def adapt(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, n_classes: int
    ) -> tuple[Tensor, AdaptInfo]:
        """Fast weights ``(B, P)``: all but the last layer are those of the meta-parameters."""
        loss = self.loss(n_classes)
        with torch.no_grad():
            start = state.theta.expand(x.shape[0], -1)
            fast = start
            if self.steps:
                fast = self._solved(start, state.extra, x, y, mask, n_classes)
            before, after = (
                masked_mean(losses(self.net.apply(theta, x), y, loss), mask)
                for theta in (start, fast)
            )
        return fast, AdaptInfo(before, after)

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Query loss of each task and its gradients, back through the solution."""
        tasks = batch.support_x.shape[0]
        with torch.enable_grad():
            # each task has a copy, so that one that is not finite spoils no other's gradient
            theta = state.theta.repeat(tasks, 1).requires_grad_(True)
            extra = state.extra.repeat(tasks, 1).requires_grad_(True)
            fast = self._solved(theta, extra, *batch[:3], n_classes)
            outputs = self.net.apply(fast, batch.query_x)
            each = losses(outputs, batch.query_y, self.loss(n_classes))
            judged = masked_mean(each, batch.query_mask)
            factor = self.weight(judged.detach())
            by_theta, by_extra = torch.autograd.grad((factor * judged).sum(), (theta, extra))
        return Slopes(judged.detach(), by_theta, by_theta.new_zeros(tasks, 1), by_extra)

    def _solved(
        self, theta: Tensor, extra: Tensor, x: Tensor, y: Tensor, mask: Tensor, n_classes: int
    ) -> Tensor:
        """``theta (B, P)`` with the last layer ``W0 + (H'H + R)^-1 H'(Y - H W0)`` in its place."""
        assert isinstance(self.net, Net)
        last = self._last()
        h = torch.cat([self.net.features(theta, x), torch.ones_like(y).unsqueeze(-1)], -1)
        h = h * mask.unsqueeze(-1)
        ridge = torch.diag_embed(extra[..., :-1].exp())
        sharpness = 1.0 if self.task == "regression" else extra[..., -1:, None].exp()
        head = theta[..., last.start : last.end].reshape(-1, last.n_in + 1, last.n_out)
        residual = sharpness * self._targets(y, n_classes, last.n_out) - h @ head
        gram = h.mT @ h + ridge.expand(len(h), -1, -1)
        move, _ = torch.linalg.solve_ex(gram, h.mT @ residual)
        head = head + move * (torch.arange(last.n_out, device=h.device) < n_classes)
        return torch.cat([theta[..., : last.start].expand(len(h), -1), head.flatten(1)], -1)

    def _targets(self, y: Tensor, n_classes: int, outputs: int) -> Tensor:
        """What the outputs should be, ``(B, n, O)``: the value, or ``1 - 1/C`` and ``-1/C``."""
        if self.task == "regression":
            return torch.nn.functional.pad(y.unsqueeze(-1), (0, outputs - 1))
        return torch.nn.functional.one_hot(y.long(), outputs).to(y.dtype) - 1.0 / n_classes

    def _last(self) -> Layer:
        assert isinstance(self.net, Net)
        return self.net.layers()[-1]
