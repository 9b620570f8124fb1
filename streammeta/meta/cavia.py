"""CAVIA: Zintgraf, Shiarli, Kurin, Hofmann, Whiteson 2019 (arXiv 1810.03642), algorithm 1.

A few context parameters are inputs of the first layer besides the features; they alone take inner
steps, from zero. What they add to the first layer's bias is all that a task changes, so a
network that has been adapted is a plain ``Net`` with another bias there.

``Film`` scales and shifts the units of that layer instead (FiLM, Perez et al. 2018, arXiv
1709.07871; CAVIA's authors use it for pictures), which can also say which class is which: what a
bias adds is the same for every row.
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
from streammeta.meta.loss import Loss, losses, masked_mean
from streammeta.meta.net import Layer, Net

Rows = tuple[Tensor, Tensor, Tensor]  # x (B, S, D), y and mask (B, S)
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


@dataclass(frozen=True)
class Film(Cavia):
    """CAVIA whose context scales and shifts the ``H`` units of the first layer, before their ReLU.

    Each unit has a context number of its own: ``context`` is not read, and the map from context to
    scales and shifts is diagonal. ``extra (2 H,)`` holds that map, gains and then shifts, from 1
    and 0. The last layer never adapts, so it starts as a random code of the classes, +-1/sqrt(in):
    over many units codes of two classes are nearly orthogonal, and scales alone can then do what a
    linear last layer does.

    Raises:
        UsageError: as ``Cavia``, or the network has no hidden layer.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.net, Net) and len(self.net.layers()) < 2:
            raise UsageError("film scales hidden units; the network has none")

    def extra(self, theta: Tensor) -> Tensor:
        """Gains of 1 and shifts of 0."""
        width = self._first().n_out
        return torch.cat([theta.new_ones(width), theta.new_zeros(width)])

    def init(self, theta: Tensor) -> State:
        """As in the base class, with a last layer that is a code of the classes."""
        state = super().init(theta)
        assert isinstance(self.net, Net)
        last = self.net.layers()[-1]
        generator = torch.Generator().manual_seed(SEED)
        signs = torch.randint(0, 2, (last.bias - last.start,), generator=generator) * 2 - 1
        coded = state.theta.clone()
        coded[last.start : last.bias] = signs.to(coded) / math.sqrt(last.n_in)
        return state._replace(theta=coded)

    def inner(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, loss: Loss
    ) -> tuple[Tensor, list[Step]]:
        """Fast weights ``(B, P)``; no step of the way is kept."""
        with torch.enable_grad():
            theta = state.theta.detach().expand(x.shape[0], -1)
            fast = self._scaled(theta, state, (x, y, mask), loss, through=False)
        return fast.detach(), []

    @property
    def written_out(self) -> bool:
        """By autograd."""
        return False

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Query loss of each task and its gradients, by autograd through the steps."""
        loss, tasks = self.loss(n_classes), batch.support_x.shape[0]
        with torch.enable_grad():
            theta, extra = (
                part.detach().repeat(tasks, 1).requires_grad_()
                for part in (state.theta, state.extra)
            )
            here = state._replace(extra=extra)
            fast = self._scaled(theta, here, batch[:3], loss, through=True)
            outputs = self.net.apply(fast, batch.query_x)
            judged = masked_mean(losses(outputs, batch.query_y, loss), batch.query_mask)
            found = torch.autograd.grad(judged.sum(), (theta, extra))
        judged = judged.detach()
        weight = self.weight(judged).unsqueeze(1)
        by_theta, by_extra = (weight * part for part in found)
        return Slopes(judged, by_theta, by_theta.new_zeros(tasks, 1), by_extra)

    def _scaled(
        self, theta: Tensor, state: State, support: Rows, loss: Loss, *, through: bool
    ) -> Tensor:
        """``theta (B, P)`` after the steps of a context on ``support``; with ``through`` autograd
        may go back through them."""
        x, y, mask = support
        context = theta.new_zeros(x.shape[0], self._first().n_out).requires_grad_()
        for _ in range(self.steps):
            outputs = self.net.apply(self._folded(theta, state, context), x)
            total = masked_mean(losses(outputs, y, loss), mask).sum()
            (direction,) = torch.autograd.grad(total, context, create_graph=through)
            context = rule.step(context, direction, state.log_rates.exp())
            if not through:
                context = context.detach().requires_grad_()
        return self._folded(theta, state, context)

    def _folded(self, theta: Tensor, state: State, context: Tensor) -> Tensor:
        """The same network with scales and shifts of ``context (B, H)`` in its weights."""
        first = self._first()
        gains, shifts = state.extra.view(-1, 2, first.n_out).unbind(1)
        scale = 1.0 + context * gains
        weight = theta[:, first.start : first.bias].reshape(-1, first.n_in, first.n_out)
        bias = theta[:, first.bias : first.end] * scale + context * shifts
        parts = (theta[:, : first.start], (weight * scale.unsqueeze(1)).flatten(1), bias,
                 theta[:, first.end :])  # fmt: skip
        return torch.cat(parts, 1)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    """``(B, C)`` and ``(B, H)`` -> ``(B, C, H)``."""
    return a.unsqueeze(2) * b.unsqueeze(1)
