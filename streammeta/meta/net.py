"""A multilayer perceptron on flat parameter vectors with any leading batch axes.

``theta (..., P)`` holds, layer after layer, the weight matrix ``(in, out)`` row-major and the
bias ``(out,)``. Leading axes stand for keys, experts or tasks: many networks in one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streammeta.meta.loss import Loss, Task, losses, masked_mean


class Layer(NamedTuple):
    """Where one layer lies in the flat vector: weights ``[start, bias)``, bias ``[bias, end)``."""

    start: int
    bias: int
    end: int
    n_in: int
    n_out: int


@cache
def _layers(sizes: tuple[int, ...]) -> tuple[Layer, ...]:
    found, start = [], 0
    for n_in, n_out in pairwise(sizes):
        bias = start + n_in * n_out
        found.append(Layer(start, bias, bias + n_out, n_in, n_out))
        start = bias + n_out
    return tuple(found)


class Pass(NamedTuple):
    """One forward and backward pass over tasks, kept for a Hessian-vector product.

    ``loss (B,)``; ``gradient (B, P)``; ``hidden[l] (B, n, in_l)`` what layer ``l`` read;
    ``weights[l] (B, in_l, out_l)``;
    ``deltas[l] (B, n, out_l)`` the loss's derivative by what it gave, before its ReLU;
    ``curvature`` of the loss in the outputs: class probabilities ``(B, n, C)``, or 1 inside and
    0 outside Huber's square ``(B, n, 1)``; ``share (B, n, 1)`` the weight of each row.
    """

    loss: Tensor
    gradient: Tensor
    task: Task
    hidden: list[Tensor]
    weights: list[Tensor]
    deltas: list[Tensor]
    curvature: Tensor
    share: Tensor

    def by_reads(self) -> Tensor:
        """The loss's derivative by what the first layer read ``(B, n, D)``."""
        return times(self.deltas[0], self.weights[0].mT)


@dataclass(frozen=True)
class Net:
    """The shape of a network: ``sizes`` = inputs, hidden units of each layer, outputs.

    >>> net = Net((3, 40, 40, 2))
    >>> net.n_params
    1882
    """

    sizes: tuple[int, ...]

    @property
    def n_params(self) -> int:
        """Length ``P`` of the flat vector."""
        return self.layers()[-1].end

    def layers(self) -> tuple[Layer, ...]:
        """The layers in order."""
        return _layers(self.sizes)

    def init(self, rng: np.random.Generator, count: int | None = None) -> NDArray[np.float32]:
        """He-normal weights (He et al. 2015), zero biases, the last layer ten times smaller.

        Returns:
            float32 ``(P,)``, or ``(count, P)`` when ``count`` is given.
        """
        n = 1 if count is None else count
        theta = np.zeros((n, self.n_params), np.float32)
        layers = self.layers()
        for layer in layers:
            scale = np.sqrt(2.0 / layer.n_in) * (0.1 if layer is layers[-1] else 1.0)
            size = (n, layer.n_in * layer.n_out)
            theta[:, layer.start : layer.bias] = rng.normal(0.0, scale, size)
        return theta[0] if count is None else theta

    def apply(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs ``(..., n, outputs)`` for ``theta (..., P)`` and ``x (..., n, inputs)``."""
        weight, bias = unpack(theta, self.layers()[-1])
        return self.features(theta, x) @ weight + bias.unsqueeze(-2)

    def features(self, theta: Tensor, x: Tensor) -> Tensor:
        """What the last layer reads ``(..., n, H)``."""
        h = x
        for layer in self.layers()[:-1]:
            weight, bias = unpack(theta, layer)
            h = torch.relu(h @ weight + bias.unsqueeze(-2))
        return h

    def head(self) -> slice:
        """Where the last layer lies in the flat vector."""
        last = self.layers()[-1]
        return slice(last.start, last.end)

    def above(self) -> Net:
        """All but the first layer: a network that reads what that gives, after its ReLU."""
        return Net(self.sizes[1:])

    def differentiate(
        self,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        mask: Tensor,
        loss: Loss,
        *,
        with_loss: bool = True,
    ) -> Pass:
        """Mean loss over the rows of each task and its gradient, without building a graph.

        Shapes: ``theta (B, P)``, ``x (B, n, D)``, ``y`` and ``mask`` ``(B, n)``. Without
        ``with_loss`` the loss is left empty. Backpropagation written out, so that thousands of
        small networks cost a few batched products.
        """
        hidden, h = [], x
        layers = self.layers()
        unpacked = [unpack(theta, layer) for layer in layers]
        for layer, (weight, bias) in zip(layers, unpacked, strict=True):
            hidden.append(h)
            h = _affine(h, weight, bias)
            if layer is not layers[-1]:
                h = h.relu_()
        share = (mask / mask.sum(-1, keepdim=True).clamp(min=1.0)).unsqueeze(-1)
        delta = torch.zeros_like(h)
        if loss.task == "regression":
            residual = h[..., :1] - y.unsqueeze(-1)
            curvature = (residual.abs() <= loss.huber).to(h.dtype)
            delta[..., :1] = residual.clamp(-loss.huber, loss.huber) * share
        else:
            curvature = torch.softmax(h[..., : loss.n_classes], -1)
            delta[..., : loss.n_classes] = curvature * share
            delta.scatter_add_(-1, y.long().unsqueeze(-1), -share)
        mean = masked_mean(losses(h, y, loss), mask) if with_loss else share.new_empty(0)
        deltas, pieces = [delta], []
        for i in range(len(layers) - 1, -1, -1):
            pieces += [delta.sum(-2), torch.bmm(hidden[i].mT, delta).flatten(1)]
            if i > 0:
                delta = where_active(times(delta, unpacked[i][0].mT), hidden[i])
                deltas.append(delta)
        gradient = torch.cat(pieces[::-1], -1)
        weights = [weight for weight, _ in unpacked]
        return Pass(
            mean, gradient, loss.task, hidden, weights, deltas[::-1], curvature, share
        )  # fmt: skip

    def hessian_vector(self, at: Pass, vector: Tensor) -> Tensor:
        """Hessian of each task's loss times ``vector (B, P)``, exactly (Pearlmutter 1994).

        The second derivative of a ReLU is taken as 0.
        """
        by_theta, _ = self._curved(at, vector, None)
        return by_theta

    def hessian_reads(self, at: Pass, along: Tensor) -> tuple[Tensor, Tensor]:
        """The same along a direction of what the first layer reads, ``along (B, n, D)``: the
        change of the gradient by the weights, ``(B, P)``, and by what is read, ``(B, n, D)``."""
        by_theta, by_reads = self._curved(at, None, along)
        assert by_reads is not None
        return by_theta, by_reads

    def _curved(
        self, at: Pass, vector: Tensor | None, reads: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        last = len(self.layers()) - 1
        along = None if vector is None else [unpack(vector, layer) for layer in self.layers()]
        r_h = reads  # derivative of what the layer reads, along the direction
        r_hidden: list[Tensor | None] = []
        for i, hidden in enumerate(at.hidden):
            r_hidden.append(r_h)
            r_z = _sum(
                None if along is None
                else torch.baddbmm(along[i][1].unsqueeze(-2), hidden, along[i][0]),
                None if r_h is None else times(r_h, at.weights[i]),
            )  # fmt: skip
            if i < last:
                r_h = where_active(r_z, at.hidden[i + 1])
        r_delta = torch.zeros_like(r_z)
        width = at.curvature.shape[-1]
        inner = at.curvature * r_z[..., :width]
        if at.task == "classification":
            inner = inner - at.curvature * inner.sum(-1, keepdim=True)
        r_delta[..., :width] = inner * at.share
        pieces, by_reads = [], None
        for i in range(last, -1, -1):
            r_in, delta = r_hidden[i], at.deltas[i]
            product = torch.bmm(at.hidden[i].mT, r_delta)
            if r_in is not None:
                product = torch.baddbmm(product, r_in.mT, delta)
            pieces += [r_delta.sum(-2), product.flatten(1)]
            if i == 0 and reads is None:
                break
            back = times(r_delta, at.weights[i].mT)
            if along is not None:
                back = torch.baddbmm(back, delta, along[i][0].mT)
            if i == 0:
                by_reads = back
            else:
                r_delta = where_active(back, at.hidden[i])
        return torch.cat(pieces[::-1], -1), by_reads


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor:
    """Of those that there are, of which there is one at least."""
    if a is None or b is None:
        found = a if b is None else b
        assert found is not None
        return found
    return a + b


def times(h: Tensor, weight: Tensor) -> Tensor:
    """``h (B, n, I)`` times ``weight (B, I, O)``: one product where all tasks share the weight."""
    if weight.stride(0):
        return torch.bmm(h, weight)
    return (h.reshape(-1, h.shape[-1]) @ weight[0]).view(*h.shape[:-1], -1)


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same with ``bias (B, O)`` added."""
    if weight.stride(0):
        return torch.baddbmm(bias.unsqueeze(-2), h, weight)
    found = torch.addmm(bias[0], h.reshape(-1, h.shape[-1]), weight[0])
    return found.view(*h.shape[:-1], -1)


def where_active(slope: Tensor, read: Tensor) -> Tensor:
    """``slope`` where a ReLU gave more than 0, as the next layer ``read`` it, and 0 elsewhere."""
    found: Tensor = torch.ops.aten.threshold_backward(slope, read, 0.0)
    return found


def unpack(flat: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """Weight ``(..., in, out)`` and bias ``(..., out)`` of one layer, as views."""
    weight = flat[..., layer.start : layer.bias]
    weight = weight.reshape(*flat.shape[:-1], layer.n_in, layer.n_out)
    return weight, flat[..., layer.bias : layer.end]


def refit(theta: NDArray[np.float32], old: Net, new: Net) -> NDArray[np.float32]:
    """``theta (..., P)`` of ``old`` laid out for ``new``, which differs in its outputs alone.

    Further outputs are zeros; outputs that ``new`` has no room for are cut off.
    """
    fitted = np.zeros((*theta.shape[:-1], new.n_params), theta.dtype)
    lead = theta.shape[:-1]
    for a, b in zip(old.layers(), new.layers(), strict=True):
        n = min(a.n_out, b.n_out)
        weight = np.zeros((*lead, b.n_in, b.n_out), theta.dtype)
        weight[..., :n] = theta[..., a.start : a.bias].reshape(*lead, a.n_in, a.n_out)[..., :n]
        fitted[..., b.start : b.bias] = weight.reshape(*lead, b.bias - b.start)
        fitted[..., b.bias : b.bias + n] = theta[..., a.bias : a.bias + n]
    return fitted


def seed_class(theta: NDArray[np.float32], net: Net, index: int) -> None:
    """Output ``index`` of ``theta (..., P)`` <- the mean of the outputs before it, in place."""
    if index == 0:
        return
    last = net.layers()[-1]
    shape = (*theta.shape[:-1], last.n_in, last.n_out)
    weight = theta[..., last.start : last.bias].reshape(shape)
    weight[..., index] = weight[..., :index].mean(-1)
    theta[..., last.start : last.bias] = weight.reshape(*theta.shape[:-1], last.bias - last.start)
    theta[..., last.bias + index] = theta[..., last.bias : last.bias + index].mean(-1)
