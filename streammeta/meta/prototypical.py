"""Prototypical networks: a class is the mean of its rows, the nearest mean wins.

Snell, Swersky, Zemel 2017 (arXiv 1703.05175), equations 1 and 2, with the squared Euclidean
distance in what the last layer reads. That is a linear classifier (section 2.4), so what a task is
adapted to is a plain ``Net`` with another last layer: weights ``2 s c``, biases ``-s |c|^2`` of
a class with mean ``c`` and the learned sharpness ``s``.

A class of which the support has no row keeps the last layer of the meta-parameters: at first, as
if its mean were 0, and later as was learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.differentiated import Differentiated
from streammeta.meta.gradient_based import RATE_LR
from streammeta.meta.learner import Batch
from streammeta.meta.loss import Task
from streammeta.meta.net import Net

SHARPNESS = 4.0  # bound of its natural logarithm, which starts at 0


@dataclass(frozen=True)
class Prototypical(Differentiated):
    """The features are meta-learned; ``extra`` is the logarithm of the sharpness ``(1,)``.

    Raises:
        UsageError: the task is regression, the model is not a ``Net``, or an option is asked that
            is about inner steps.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("classification",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task != "classification":
            raise UsageError(
                "prototypical has a mean for each class and values have none; for regression take "
                "matching (a weighted mean of the support's values) or r2d2"
            )
        if not isinstance(self.net, Net):
            raise UsageError("prototypical puts means in the last layer of a Net; no other module")

    def extra(self, theta: Tensor) -> Tensor:
        """Distances count as they are."""
        return theta.new_zeros(1)

    @property
    def extra_pace(self) -> float:
        """A logarithm may move as those of inner rates do."""
        return RATE_LR

    @property
    def extra_bound(self) -> float:
        """The sharpness stays within reason."""
        return SHARPNESS

    def judged(self, theta: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """Query loss ``(B,)`` with the means of the support."""
        return self.query_loss(self.adapted(theta, extra, batch[:3], n_classes), batch, n_classes)

    def adapted(
        self, theta: Tensor, extra: Tensor, support: tuple[Tensor, Tensor, Tensor], n_classes: int
    ) -> Tensor:
        """``theta (B, P)`` with the means in its last layer."""
        x, y, mask = support
        assert isinstance(self.net, Net)
        last = self._last()
        h = self.net.features(theta, x) * mask.unsqueeze(-1)
        of = torch.nn.functional.one_hot(y.long(), last.n_out).to(h.dtype) * mask.unsqueeze(-1)
        count = of.sum(-2).unsqueeze(1)
        means = h.mT @ of / count.clamp(min=1.0)  # (B, H, O)
        sharp = extra.exp().unsqueeze(-1)
        made = torch.cat([2.0 * sharp * means, -sharp * means.square().sum(1, keepdim=True)], 1)
        before = theta[:, last.start : last.end].reshape(-1, last.n_in + 1, last.n_out)
        head = torch.where(count > 0, made, before)
        return torch.cat([theta[:, : last.start], head.flatten(1)], -1)
