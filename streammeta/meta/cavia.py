"""CAVIA: Zintgraf, Shiarli, Kurin, Hofmann, Whiteson 2019 (arXiv 1810.03642), algorithm 1.

A few context parameters are inputs of the first layer besides the features; they alone take inner
steps, from zero. What they add to the first layer's bias is all that a task changes, so a
network that has been adapted is a plain ``Net`` with another bias there.

The last layer never adapts, so a code of the classes is added to it (``code``): where all classes
have the same weights, as at first, no context could tell them apart. This is not in the paper.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta import rule
from streammeta.meta.gradient_based import GradientLearner, Slopes, Step
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Loss
from streammeta.meta.net import Layer, Net

SEED = 1810_03642  # of the first weights of the context


@cache
def code(n_in: int, n_out: int) -> Tensor:
    """A code ``(n_in, n_out)`` of +-1 over the root of ``n_in``, drawn once and for all: over many
    units those of two classes are nearly orthogonal. A class has the same, however many there are.
    """
    columns = []
    for c in range(n_out):
        generator = torch.Generator().manual_seed(SEED + c)
        columns.append(torch.randint(0, 2, (n_in,), generator=generator) * 2 - 1)
    return torch.stack(columns, 1) / math.sqrt(n_in)


@dataclass(frozen=True)
class ContextLearner(GradientLearner):
    """A learner that adapts a context, and through it the first layer of a ``Net``; no weights.

    Raises:
        UsageError: the model is not a ``Net``, or an option is asked that would adapt weights.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.net, Net):
            raise UsageError("cavia adapts inputs of a Net's first layer; other modules have none")
        if self.outer.proximity or self.outer.gated or self.outer.each_step:
            raise UsageError("cavia: proximity, gated and each_step are about weights that adapt")
        if self.per_parameter or self.head_only or not self.second_order:
            raise UsageError(
                "cavia: per_parameter, head_only and second_order are about weights that adapt"
            )

    def unadapted(self, state: State) -> Tensor:
        """``theta (P,)``, of classes with their code in the last layer."""
        if self.task == "regression":
            return state.theta
        last = self._layers()[-1]
        coded = state.theta.clone()
        coded[last.start : last.bias] += code(last.n_in, last.n_out).to(coded).flatten()
        return coded

    def _layers(self) -> tuple[Layer, ...]:
        assert isinstance(self.net, Net)
        return self.net.layers()

    def _first(self) -> Layer:
        return self._layers()[0]


@dataclass(frozen=True)
class Cavia(ContextLearner):
    """Only ``context`` numbers per task are adapted; ``extra`` holds their weights ``(C x H,)``."""

    context: int = 5

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
        start = self.unadapted(state)
        fast = start.expand(x.shape[0], -1)
        trail: list[Step] = []
        for _ in range(self.steps):
            at = self.net.differentiate(fast, x, y, mask, loss, with_loss=False)
            direction = at.gradient[:, self._bias()] @ weights.T
            trail.append(Step(fast, at, direction))
            context = rule.step(context, direction, rates)
            fast = start.repeat(x.shape[0], 1)
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

    def _bias(self) -> slice:
        first = self._first()
        return slice(first.bias, first.end)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """``(B, C)`` and ``(B, H)`` -> ``(B, C, H)``."""
    return a.unsqueeze(2) * b.unsqueeze(1)
