"""CAVIA: Zintgraf, Shiarli, Kurin, Hofmann, Whiteson 2019 (arXiv 1810.03642), algorithm 1.

A few context parameters are inputs of the first layer besides the features; they alone take inner
steps, from zero. What they add to the first layer's bias is all that a task changes, so a
network that has been adapted is a plain ``Net`` with another bias there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta import rule
from streammeta.meta.gradient_based import GradientLearner, Slopes, Step
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Loss
from streammeta.meta.net import Layer, Net

SEED = 1810_03642  # of the first weights of the context


@dataclass(frozen=True)
class Cavia(GradientLearner):
    """Only ``context`` numbers per task are adapted; ``extra`` holds their weights ``(C x H,)``.

    Raises:
        UsageError: the model is not a ``Net``, or an option is asked that would adapt weights.
    """

    context: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.net, Net):
            raise UsageError("cavia adapts inputs of a Net's first layer; other modules have none")
        if self.outer.proximity or self.outer.gated or self.outer.each_step:
            raise UsageError("cavia: proximity, gated and each_step are about weights that adapt")

    def extra(self, theta: Tensor) -> Tensor:
        """First weights of the context, He-normal like those of the features."""
        width = self._first().n_out
        fan_in = self._first().n_in + self.context
        generator = torch.Generator().manual_seed(SEED)
        drawn = torch.randn(self.context * width, generator=generator, dtype=torch.float64)
        return (drawn * math.sqrt(2.0 / fan_in)).to(theta)

    def inner(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, loss: Loss
    ) -> tuple[Tensor, list[Step]]:
        """Fast weights ``(B, P)``; the direction of each step is that of the context ``(B, C)``."""
        weights, rates = self._weights(state), state.log_rates.exp()
        context = state.theta.new_zeros(x.shape[0], self.context)
        fast = state.theta.expand(x.shape[0], -1)
        trail: list[Step] = []
        for _ in range(self.steps):
            at = self.net.differentiate(fast, x, y, mask, loss, with_loss=False)
            direction = at.gradient[:, self._bias()] @ weights.T
            trail.append(Step(fast, at, direction))
            context = rule.step(context, direction, rates)
            fast = state.theta.repeat(x.shape[0], 1)
            fast[:, self._bias()] += context @ weights
        return fast, trail

    @property
    def written_out(self) -> bool:
        """As in the base class."""
        return isinstance(self.net, Net)

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Query loss of each task and its gradients, back through the steps of the context.

        With ``W (C, H)`` the context's weights and ``b_k`` the gradient by the first bias at step
        k, ``c_{k+1} = c_k - rate W b_k`` and the bias is ``b + c_k W``: ``u``, the gradient by
        ``c_{k+1}``, reaches ``b_k`` as ``-rate u W`` and from there theta and ``c_k`` through the
        Hessian.
        """
        loss, weights, bias = self.loss(n_classes), self._weights(state), self._bias()
        rate = state.log_rates.exp()
        fast, trail = self.inner(state, *batch[:3], loss)
        judged, (by_theta,) = self.judge(fast, trail, batch, loss)
        reached = self._contexts(trail, rate)
        u = by_theta[:, bias] @ weights.T
        by_weights = _outer(reached.pop(), by_theta[:, bias])
        for step in reversed(trail):
            back = -rate * u
            by_weights = by_weights + _outer(back, step.at.gradient[:, bias])
            vector = torch.zeros_like(by_theta)
            vector[:, bias] = back @ weights
            curved = self.net.hessian_vector(step.at, vector)
            by_theta = by_theta + curved
            by_weights = by_weights + _outer(reached.pop(), curved[:, bias])
            u = u + curved[:, bias] @ weights.T
        return Slopes(judged, by_theta, by_theta.new_zeros(len(u), 1), by_weights.flatten(1))

    def _contexts(self, trail: list[Step], rate: Tensor) -> list[Tensor]:
        """The context ``(B, C)`` before the first step and after each."""
        found = [torch.zeros_like(trail[0].direction)]
        for step in trail:
            found.append(rule.step(found[-1], step.direction, rate))
        return found

    def _weights(self, state: State) -> Tensor:
        return state.extra.view(self.context, -1)

    def _first(self) -> Layer:
        assert isinstance(self.net, Net)
        return self.net.layers()[0]

    def _bias(self) -> slice:
        first = self._first()
        return slice(first.bias, first.end)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """``(B, C)`` and ``(B, H)`` -> ``(B, C, H)``."""
    return a.unsqueeze(2) * b.unsqueeze(1)
