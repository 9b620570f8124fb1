"""Learners whose outer gradient autograd finds, in the place of one that is written out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.gradient_based import GradientLearner, Slopes
from streammeta.meta.learner import AdaptInfo, Batch, State
from streammeta.meta.loss import losses, masked_mean
from streammeta.meta.net import Layer, Net


@dataclass(frozen=True)
class Differentiated(GradientLearner, ABC):
    """What is left to say: what a task's query loss is, given weights and extra parameters.

    Raises:
        UsageError: an option is asked that is about plain inner steps.
    """

    def __post_init__(self) -> None:
        if self.outer.proximity or self.outer.gated or self.outer.each_step:
            name = type(self).__name__.lower()
            raise UsageError(f"{name}: proximity, gated and each_step are about inner steps")

    @abstractmethod
    def judged(self, theta: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """What is minimised: query losses ``(B,)`` from ``theta (B, P)``, ``extra (B, E)``."""

    @abstractmethod
    def adapted(
        self, theta: Tensor, extra: Tensor, support: tuple[Tensor, Tensor, Tensor], n_classes: int
    ) -> Tensor:
        """Fast weights ``(B, P)`` for a support ``x (B, S, D)``, ``y`` and ``mask (B, S)``."""

    def query_loss(self, fast: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """Query losses ``(B,)`` of networks ``fast (B, P)``."""
        each = losses(self.net.apply(fast, batch.query_x), batch.query_y, self.loss(n_classes))
        return masked_mean(each, batch.query_mask)

    def _last(self) -> Layer:
        """The last layer, of those learners that are about it."""
        assert isinstance(self.net, Net)
        return self.net.layers()[-1]

    def adapt(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, n_classes: int
    ) -> tuple[Tensor, AdaptInfo]:
        """Fast weights ``(B, P)``; none of ``steps`` leaves the meta-parameters as they are."""
        loss = self.loss(n_classes)
        with torch.no_grad():
            start = state.theta.repeat(len(x), 1)
            fast = start
            if self.steps:
                extra = state.extra.expand(len(x), -1)
                fast = self.adapted(start, extra, (x, y, mask), n_classes)
            before, after = (
                masked_mean(losses(self.net.apply(theta, x), y, loss), mask)
                for theta in (start, fast)
            )
        return fast, AdaptInfo(before, after)

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Query loss of each task and its gradients."""
        start = state.theta.expand(len(batch.support_x), -1)
        return self.slopes_from(start, state.extra, batch, n_classes)

    def slopes_from(self, start: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Slopes:
        """The same where each task begins at weights ``start (B, P)`` of its own."""
        tasks = len(start)
        with torch.enable_grad():
            # each task has a copy, so that one that is not finite spoils no other's gradient
            theta = start.clone().requires_grad_(True)
            # and a view here, which shared weights can be told by
            own = extra.expand(tasks, -1).detach().requires_grad_(True)
            loss = self.judged(theta, own, batch, n_classes)
            factor = self.weight(loss.detach())
            by_theta, by_extra = torch.autograd.grad((factor * loss).sum(), (theta, own))
        return Slopes(loss.detach(), by_theta, by_theta.new_zeros(tasks, 1), by_extra)


def bare(theta: Tensor, extra: Tensor) -> State:
    """A state of weights and extra parameters alone, for what reads no more of it."""
    nothing = theta.new_empty(0)
    return State(theta, nothing, extra, nothing, nothing, nothing)
