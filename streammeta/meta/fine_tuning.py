"""Plain pre-training and fine-tuning: what a meta-learner has to be better than."""

from __future__ import annotations

from dataclasses import dataclass

from streammeta.meta.gradient_based import GradientLearner, Slopes, joined
from streammeta.meta.learner import Batch, State


@dataclass(frozen=True)
class FineTuning(GradientLearner):
    """One network trained on the rows of all tasks alike; on a task it takes the inner steps.

    The outer update is a step of ordinary training on support and query together: nothing in it
    knows of adaptation.
    """

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Loss of support and query before any step, and its gradient."""
        theta = state.theta.expand(len(batch.support_x), -1)
        at = self.net.differentiate(theta, *joined(batch), self.loss(n_classes))
        empty = at.gradient.new_empty(len(at.loss), 0)
        return Slopes(at.loss, at.gradient, at.gradient.new_zeros(len(at.loss), 1), empty)
