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
from typing import NamedTuple

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta import rule
from streammeta.meta.gradient_based import GradientLearner, Slopes, Step
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Loss
from streammeta.meta.net import Layer, Net, Pass, unpack, where_active

Rows = tuple[Tensor, Tensor, Tensor]  # x (B, S, D), y and mask (B, S)

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
        UsageError: the model is not a ``Net`` with a hidden layer, or an option is asked that would
            adapt weights.
    """

    def __post_init__(self) -> None:
        if not isinstance(self.net, Net):
            raise UsageError("cavia adapts inputs of a Net's first layer; other modules have none")
        if len(self._layers()) < 2:
            sizes = self.net.sizes
            raise UsageError(
                f"cavia moves hidden units; the network has none: its sizes are {sizes}"
            )
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

    def _above(self) -> Net:
        """The layers that no context reaches."""
        assert isinstance(self.net, Net)
        return self.net.above()


class Move(NamedTuple):
    """One inner step: the ``context (B, C)`` it starts from, what the layers above the first one
    do there, and the gradient by the first bias ``(B, H)``."""

    context: Tensor
    at: Pass
    by_bias: Tensor


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
        """Fast weights ``(B, P)``; of the way no weights are kept, for there were none."""
        _, context = self._walk(state, (x, y, mask), loss)
        return self._folded(state, context), []

    def _walk(self, state: State, support: Rows, loss: Loss) -> tuple[list[Move], Tensor]:
        """Each step of the context, and where it ends ``(B, C)``.

        What the first layer makes of the rows is the same for all steps but for its bias, and the
        layers above never change.
        """
        x, y, mask = support
        weights, rates, above = self._weights(state), state.log_rates.exp(), self._above()
        start = self.unadapted(state)
        weight, bias = unpack(start, self._first())
        plain = (x.reshape(-1, x.shape[2]) @ weight + bias).view(*x.shape[:2], -1)
        rest = start[self._first().end :].expand(len(x), -1)
        context = start.new_zeros(len(x), self.context)
        moves: list[Move] = []
        for _ in range(self.steps):
            reads = torch.relu(plain + (context @ weights).unsqueeze(1))
            at = above.differentiate(rest, reads, y, mask, loss, with_loss=False)
            by_bias = where_active(at.by_reads(), reads).sum(1)
            moves.append(Move(context, at, by_bias))
            context = rule.step(context, by_bias @ weights.T, rates)
        return moves, context

    def _folded(self, state: State, context: Tensor) -> Tensor:
        """Weights ``(B, P)`` of the plain network that ``context (B, C)`` makes of it."""
        fast = self.unadapted(state).repeat(len(context), 1)
        fast[:, self._bias()] += context @ self._weights(state)
        return fast

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
        loss, weights, first = self.loss(n_classes), self._weights(state), self._first()
        rate, above = state.log_rates.exp(), self._above()
        moves, context = self._walk(state, batch[:3], loss)
        judged, (by_theta,) = self.judge(self._folded(state, context), [], batch, loss)
        by_bias = by_theta[:, self._bias()].clone()
        u = by_bias @ weights.T
        contexts, biases = [context], [by_bias]  # whose products are the gradient by the weights
        by_plain = by_theta.new_zeros(*batch.support_x.shape[:2], first.n_out)
        for move in reversed(moves):
            back = -rate * u
            reads = move.at.hidden[0]
            along = where_active((back @ weights).unsqueeze(1).expand_as(reads), reads)
            by_rest, by_reads = above.hessian_reads(move.at, along)
            curved = where_active(by_reads, reads)
            by_theta[:, first.end :] += by_rest
            by_plain = by_plain + curved
            contexts += [back, move.context]
            biases += [move.by_bias, curved.sum(1)]
            u = u + biases[-1] @ weights.T
        by_theta[:, first.start : first.bias] += (batch.support_x.mT @ by_plain).flatten(1)
        by_theta[:, self._bias()] += by_plain.sum(1)
        by_weights = torch.stack(contexts, 2) @ torch.stack(biases, 1)
        return Slopes(judged, by_theta, by_theta.new_zeros(len(u), 1), by_weights.flatten(1))

    def _weights(self, state: State) -> Tensor:
        return state.extra.view(self.context, -1)

    def _bias(self) -> slice:
        first = self._first()
        return slice(first.bias, first.end)
