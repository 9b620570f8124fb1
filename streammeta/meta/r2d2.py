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
from streammeta.meta import compiled
from streammeta.meta.differentiated import Differentiated
from streammeta.meta.gradient_based import RATE_LR, Slopes, split
from streammeta.meta.learner import Batch, RidgeHead, State
from streammeta.meta.net import Net

RIDGE = 16.0  # of every feature, as it starts: rows that speak against it as loudly
LOGARITHMS = 7.0  # bound of their natural logarithms
SHARPNESS = 4.0  # of class scores, as it starts: how far apart logits of 0 and 1 lie


@dataclass(frozen=True)
class R2D2(Differentiated):
    """One exact step in the place of ``steps`` along the gradient (none where ``steps`` is 0).

    ``extra`` holds logarithms: of the ridge of each feature and of the bias ``(H + 1,)``, and of
    the sharpness of class scores ``(1,)``.

    Raises:
        UsageError: the model is not a ``Net``, or an option is asked that is about inner steps.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.net, Net):
            raise UsageError("r2d2 solves for the last layer of a Net; other modules have none")

    def plan(self, state: State) -> RidgeHead | None:
        """What compiled code needs to solve for the last layer."""
        if not self.steps:
            return None
        *ridge, sharpness = state.extra.exp().tolist()
        return RidgeHead(state.theta.numpy(), np.array(ridge, np.float32), sharpness)

    def extra(self, theta: Tensor) -> Tensor:
        """The same ridge everywhere."""
        ridge = theta.new_full((self._last().n_in + 1,), math.log(RIDGE))
        return torch.cat([ridge, theta.new_full((1,), math.log(SHARPNESS))])

    @property
    def extra_pace(self) -> float:
        """Logarithms may move as those of inner rates do."""
        return RATE_LR

    @property
    def extra_bound(self) -> float:
        """Ridge and sharpness stay within reason."""
        return LOGARITHMS

    def judged(self, theta: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """Query loss ``(B,)``, back through the solution."""
        return self.query_loss(self._solved(theta, extra, *batch[:3], n_classes), batch, n_classes)

    def adapted(
        self, theta: Tensor, extra: Tensor, support: tuple[Tensor, Tensor, Tensor], n_classes: int
    ) -> Tensor:
        """``theta (B, P)`` with another last layer."""
        return self._solved(theta, extra, *support, n_classes)

    def compiled_slopes(self, state: State, batch: Batch, n_classes: int) -> compiled.Found | None:
        """As in the base class."""
        stated = ("_solved", "slopes", "weight")
        if any(getattr(type(self), name) is not getattr(R2D2, name) for name in stated):
            return None
        posed = compiled.problem(self.net, state, batch, self.loss(n_classes))
        if posed is None:
            return None
        found = posed.found()
        if not compiled.ridge_slopes(posed.theta, posed.extra, *posed[3:], *found):
            return None
        return self._weighed(found)

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Query loss of each task and its gradients, back through the solution."""
        found = self.compiled_slopes(state, batch, n_classes)
        if found is not None:
            return split(state, found)
        return super().slopes(state, batch, n_classes)

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
