"""MAML and Meta-SGD: a few inner gradient steps, and the gradient through them.

MAML: Finn, Abbeel, Levine 2017 (arXiv 1703.03400), algorithm 1; second order.
Meta-SGD: Li, Zhou, Chen, Li 2017 (arXiv 1707.09835), algorithm 1; one rate per parameter, kept
positive and bounded through its logarithm so that more steps than trained for do not diverge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from streammeta.meta import rule
from streammeta.meta.learner import AdaptInfo, Batch, MetaInfo, State, adam, clip_by_norm
from streammeta.meta.net import (
    Net,
    Pass,
    Task,
    hessian_vector,
    loss_and_gradient,
    losses,
    masked_mean,
)

#: Inner rates stay within a factor of e^3 of where they start.
RATE_SPAN = 3.0
#: Longest outer gradient that is followed in full.
GRADIENT_LIMIT = 10.0


@dataclass(frozen=True)
class GradientLearner:
    """A learner whose inner loop is ``steps`` gradient steps from the meta-parameters.

    ``per_parameter`` gives every parameter a rate of its own and learns it; otherwise the one
    rate ``inner_lr`` stays fixed. ``second_order`` differentiates through the inner gradients.
    """

    net: Net
    task: Task
    inner_lr: float = 0.1
    steps: int = 5
    outer_lr: float = 1e-3
    second_order: bool = True
    per_parameter: bool = False

    def init(self, theta: Tensor) -> State:
        """A fresh state around the initial parameters ``theta (P,)``."""
        n_rates = theta.numel() if self.per_parameter else 1
        log_rates = theta.new_full((n_rates,), math.log(self.inner_lr))
        moments = theta.new_zeros(theta.numel() + n_rates)
        return State(theta.clone(), log_rates, moments, moments.clone(), theta.new_zeros(()))

    def predict(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs ``(..., n, O)`` of fast weights ``theta (..., P)`` on ``x (..., n, D)``."""
        return self.net.apply(theta, x)

    def adapt(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, n_classes: int
    ) -> tuple[Tensor, AdaptInfo]:
        """Fast weights ``(B, P)`` after the inner steps on supports ``x (B, S, D)``."""
        with torch.no_grad():
            start = state.theta.expand(x.shape[0], -1)
            fast, trail = self._inner(start, state.log_rates.exp(), x, y, mask, n_classes)
            after = masked_mean(losses(self.net.apply(fast, x), y, self.task, n_classes), mask)
        return fast, AdaptInfo(trail[0].loss, after)

    def meta_update(self, state: State, batch: Batch, n_classes: int) -> tuple[State, MetaInfo]:
        """One Adam step on the mean query loss after adaptation; non-finite tasks are skipped."""
        with torch.no_grad():
            loss, by_theta, by_rates = self._outer_gradients(state, batch, n_classes)
            each = torch.cat([by_theta, by_rates], 1)
            total = loss.sum() + each.sum()
            skipped = 0
            if not bool(torch.isfinite(total)):
                # a bad task is cut out, not multiplied by zero: NaN times zero is NaN
                good = torch.isfinite(loss) & torch.isfinite(each).all(1)
                skipped = int((~good).sum())
                if skipped == len(good):
                    return state, MetaInfo(math.nan, math.nan, skipped)
                loss, each = loss[good], each[good]
            gradient, mean = each.mean(0), float(loss.mean())
            gradient, norm = clip_by_norm(gradient, GRADIENT_LIMIT)
            return self._descend(state, gradient), MetaInfo(mean, float(norm), skipped)

    def _descend(self, state: State, gradient: Tensor) -> State:
        new, move = adam(state, gradient, self.outer_lr)
        n, centre = state.theta.numel(), math.log(self.inner_lr)
        rates = state.log_rates
        if self.per_parameter:
            # a logarithm may move further than a weight: by default 3 % of the rate per step
            rates = rates - 10.0 * move[n:]
            rates = rates.clamp(centre - RATE_SPAN, centre + RATE_SPAN)
        return new._replace(theta=state.theta - move[:n], log_rates=rates)

    def _outer_gradients(
        self, state: State, batch: Batch, n_classes: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query loss ``(B,)`` of each task and its gradients by theta and by the log rates.

        Backwards through ``theta_{k+1} = theta_k - rates * grad(theta_k)``: with ``g`` the
        gradient by ``theta_{k+1}``, that by ``theta_k`` is ``g - H_k (rates * g)`` and that by
        the rates ``-grad(theta_k) * g``.
        """
        rates = state.log_rates.exp()
        tasks = batch.support_x.shape[0]
        start = state.theta.expand(tasks, -1)
        fast, trail = self._inner(start, rates, *batch[:3], n_classes)
        query = loss_and_gradient(self.net, fast, *batch[3:], self.task, n_classes)
        g = query.gradient
        by_rates = g.new_zeros(tasks, rates.numel())
        for at in reversed(trail):
            if self.per_parameter:
                by_rates -= at.gradient * g * rates
            if self.second_order:
                g = g - hessian_vector(self.net, at, rates * g, self.task)
        return query.loss, g, by_rates

    def _inner(
        self, fast: Tensor, rates: Tensor, x: Tensor, y: Tensor, mask: Tensor, n_classes: int
    ) -> tuple[Tensor, list[Pass]]:
        """The inner loop: fast weights ``(B, P)``, and the pass of each step."""
        trail: list[Pass] = []
        for _ in range(self.steps):
            at = loss_and_gradient(
                self.net, fast, x, y, mask, self.task, n_classes, with_loss=not trail
            )
            trail.append(at)
            fast = rule.step(fast, at.gradient, rates)
        return fast, trail


def maml(net: Net, task: Task, *, inner_lr: float, steps: int, outer_lr: float) -> GradientLearner:
    """Model-agnostic meta-learning, second order, one fixed inner rate."""
    return GradientLearner(net, task, inner_lr, steps, outer_lr)


def meta_sgd(
    net: Net, task: Task, *, inner_lr: float, steps: int, outer_lr: float
) -> GradientLearner:
    """Meta-SGD: the rate of every parameter is learned with the meta-parameters."""
    return GradientLearner(net, task, inner_lr, steps, outer_lr, per_parameter=True)
