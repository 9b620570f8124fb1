"""Any ``torch.nn.Module`` as a model: flat parameter vectors, one network per task by ``vmap``."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vjp, vmap

from streammeta.meta.loss import Loss, losses, masked_mean


class ModulePass(NamedTuple):
    """A gradient and where it was taken: ``loss (B,)``, ``gradient (B, P)``."""

    loss: Tensor
    gradient: Tensor
    theta: Tensor
    rows: tuple[Tensor, Tensor, Tensor]
    judged: Loss


class ModuleNet:
    """``module`` maps rows ``(n, D)`` to outputs ``(n, O)``; inside it may see them as it likes.

    Modules that draw random numbers or keep running statistics (dropout, batch normalisation
    with its defaults) are no functions of their parameters: put them in evaluation mode.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = deepcopy(module)
        self._shapes = {name: p.shape for name, p in self.module.named_parameters()}

    @property
    def n_params(self) -> int:
        """Length ``P`` of the flat vector."""
        return sum(shape.numel() for shape in self._shapes.values())

    def initial(self) -> Tensor:
        """The module's own parameters as one vector ``(P,)``."""
        return nn.utils.parameters_to_vector(self.module.parameters()).detach().clone()

    def head(self) -> slice:
        """Where the parameters of the last submodule that has any lie in the flat vector."""
        names = list(self._shapes)
        last = names[-1].rpartition(".")[0]
        size = sum(s.numel() for n, s in self._shapes.items() if n.rpartition(".")[0] == last)
        return slice(self.n_params - size, self.n_params)

    def apply(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs ``(..., n, O)`` for ``theta (..., P)`` and ``x (..., n, D)``."""
        call: Callable[..., Tensor] = self._decomposed
        for _ in range(theta.dim() - 1):
            call = vmap(call)
        return call(theta, x)

    def differentiate(
        self,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        mask: Tensor,
        loss: Loss,
        *,
        with_loss: bool = True,
    ) -> ModulePass:
        """Mean loss over the rows of each task and its gradient."""
        rows = (x, y, mask)
        gradient, mean = vmap(grad_and_value(self._mean(loss)))(theta, *rows)
        return ModulePass(mean, gradient, theta, rows, loss)

    def hessian_vector(self, at: ModulePass, vector: Tensor) -> Tensor:
        """Hessian of each task's loss times ``vector (B, P)``, by a second backward pass."""
        slope = grad(self._mean(at.judged))

        def along(theta: Tensor, fixed: Tensor, *rows: Tensor) -> Tensor:
            along_it: Tensor = (slope(theta, *rows) * fixed).sum()
            return along_it

        product: Tensor = vmap(grad(along))(at.theta, vector, *at.rows)
        return product

    def _decomposed(self, theta: Tensor, x: Tensor) -> Tensor:
        """``vmap`` batches recurrent modules where they are differentiated, not elsewhere."""
        outputs: Tensor = vjp(lambda at: self._call(at, x), theta)[0]
        return outputs

    def _mean(self, loss: Loss) -> Callable[..., Tensor]:
        def mean(theta: Tensor, x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
            return masked_mean(losses(self._call(theta, x), y, loss), mask)

        return mean

    def _call(self, theta: Tensor, x: Tensor) -> Tensor:
        parts = torch.split(theta, [shape.numel() for shape in self._shapes.values()])
        named = {n: p.view(s) for (n, s), p in zip(self._shapes.items(), parts, strict=True)}
        # fused recurrent kernels have no second derivative
        with torch.backends.cudnn.flags(enabled=False):
            outputs: Tensor = functional_call(self.module, named, (x,))
        return outputs
