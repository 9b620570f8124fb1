"""Reptile: Nichol, Achiam, Schulman 2018 (arXiv 1803.02999), algorithm 1, batched, with Adam."""

from __future__ import annotations

from dataclasses import dataclass

from streammeta.meta.gradient_based import GradientLearner, Slopes, joined
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import losses, masked_mean
from streammeta.meta.net import Net


@dataclass(frozen=True)
class Reptile(GradientLearner):
    """The meta-parameters move to where ordinary training on a task leads.

    Support and query are one training set; the stated gradient is the mean inner gradient
    ``(theta - fast) / (inner_lr steps)``. With one step that is joint training on all tasks.
    """

    @property
    def written_out(self) -> bool:
        """As in the base class."""
        return isinstance(self.net, Net)

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Loss of support and query after the steps, and the stated gradient."""
        loss = self.loss(n_classes)
        x, y, mask = joined(batch)
        fast, _ = self.inner(state, x, y, mask, loss)
        after = masked_mean(losses(self.net.apply(fast, x), y, loss), mask)
        towards = (state.theta - fast) / (self.inner_lr * self.steps)
        return Slopes(
            after, towards, towards.new_zeros(len(after), 1), towards.new_empty(len(after), 0)
        )  # fmt: skip
