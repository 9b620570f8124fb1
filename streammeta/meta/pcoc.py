"""PCOC: classes as Gaussian clouds in a space of features that is meta-learned.

Probabilistic clustering for online classification (Harrison, Sharma, Finn, Pavone 2020, arXiv
1912.08866, section 4.2). The features of a class are normal around its mean, with a variance of
each feature that all classes share; the mean itself is normal around what it is before any row,
with that variance divided by so many pseudo-rows; how frequent classes are is Dirichlet. All of it
is meta-learned, and what rows teach is sums and counts.

A network's last layer tells the same classes apart as clouds of one variance do (linear
discriminants), so the prior means are kept as the last layer of the meta-parameters: weights are
means over variances. A network that was adapted is a plain ``Net`` with another last layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.differentiated import Differentiated, bare
from streammeta.meta.gradient_based import RATE_LR
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Task, losses, masked_mean
from streammeta.meta.net import Net

VARIANCE = 4.0  # of every feature within a class, as it starts
PSEUDO_ROWS = 4.0  # that the prior mean of a class counts for, as it starts
PSEUDO_LABELS = 10.0  # that the prior frequencies of all classes count for, as they start
LOGARITHMS = 7.0  # bound of their natural logarithms


class Clouds(NamedTuple):
    """What is believed before any row: ``mean (..., C, H)`` of each class, ``variance (..., H)``
    within classes, ``pseudo (..., H)`` rows that the means count for, and logarithms of the
    ``log_labels (..., C)`` that the frequencies count for."""

    mean: Tensor
    variance: Tensor
    pseudo: Tensor
    log_labels: Tensor


class Counted(NamedTuple):
    """What rows taught: ``counts (..., C)`` of each class and ``sums (..., C, H)`` of features."""

    counts: Tensor
    sums: Tensor


@dataclass(frozen=True)
class Pcoc(Differentiated):
    """Class means and frequencies follow the support by their conjugate updates.

    ``extra`` holds logarithms: of the variance of each feature ``(H,)``, of the pseudo-rows
    ``(H,)`` and of the pseudo-labels ``(1,)``. ``answer`` and the outer update use the predictive
    density, ``log_joint``, which knows how uncertain the means are. A stream's experts are
    networks, whose outputs are linear in the features, so ``adapt`` takes the posterior means for
    exact. Where ``steps`` is 0 nothing is learned of a support.

    Raises:
        UsageError: the model is not a ``Net``, the task is not classification, or an option is
            asked that is about inner steps.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("classification",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.net, Net):
            raise UsageError("pcoc tells classes apart by the last layer of a Net")
        if self.task not in self.tasks:
            raise UsageError("pcoc tells classes apart; for values there is alpaca")

    def extra(self, theta: Tensor) -> Tensor:
        """The same for every feature."""
        starts = (VARIANCE, PSEUDO_ROWS)
        parts = [theta.new_full((self._last().n_in,), math.log(start)) for start in starts]
        return torch.cat([*parts, theta.new_full((1,), math.log(PSEUDO_LABELS))])

    @property
    def extra_pace(self) -> float:
        """Logarithms may move as those of inner rates do."""
        return RATE_LR

    @property
    def extra_bound(self) -> float:
        """Variances and pseudo-rows stay within reason."""
        return LOGARITHMS

    def judged(self, theta: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """Query loss ``(B,)`` of the predictive, back through sums and counts."""
        said = self.predictive(bare(theta, extra), batch[:3], batch.query_x, n_classes)
        return masked_mean(losses(said, batch.query_y, self.loss(n_classes)), batch.query_mask)

    def answer(self, state: State, batch: Batch, n_classes: int) -> Tensor:
        """Outputs ``(B, Q, O)`` of the predictive for the query's rows: log densities together
        with each class, none where a class is not among the first ``n_classes``."""
        with torch.no_grad():
            tasks = len(batch.support_x)
            own = bare(state.theta.expand(tasks, -1), state.extra.expand(tasks, -1))
            if not self.steps:
                return self.net.apply(own.theta, batch.query_x)
            said = self.predictive(own, batch[:3], batch.query_x, n_classes)
            spare = self._last().n_out - n_classes
            return torch.nn.functional.pad(said, (0, spare), value=-math.inf)

    def predictive(
        self, state: State, support: tuple[Tensor, Tensor, Tensor], x: Tensor, n_classes: int
    ) -> Tensor:
        """``log_joint (B, n, C)`` of rows ``x (B, n, D)`` after each support, of ``theta (B, P)``
        and ``extra (B, E)``."""
        prior, known = self.clouds(state, n_classes), self.learn(state, *support, n_classes)
        prior = Clouds(*(part.unsqueeze(1) for part in prior))
        known = Counted(*(part.unsqueeze(1) for part in known))
        return log_joint(prior, known, self.features(state, x))

    def adapted(
        self, theta: Tensor, extra: Tensor, support: tuple[Tensor, Tensor, Tensor], n_classes: int
    ) -> Tensor:
        """``theta (B, P)`` with the last layer of the posterior means in its place."""
        return self._fast(bare(theta, extra), *support, n_classes)

    def features(self, state: State, x: Tensor) -> Tensor:
        """In which space ``(..., n, H)`` rows ``x (..., n, D)`` are clustered."""
        assert isinstance(self.net, Net)
        return self.net.features(state.theta, x)

    def clouds(self, state: State, n_classes: int) -> Clouds:
        """What is believed of the first ``n_classes`` classes before any row."""
        weight, bias = self._head(state.theta, n_classes)
        width = self._last().n_in
        variance, pseudo = state.extra[..., :width].exp(), state.extra[..., width:-1].exp()
        mean = weight * variance.unsqueeze(-2)
        frequent = torch.log_softmax(bias + 0.5 * (weight * mean).sum(-1), -1)
        return Clouds(mean, variance, pseudo, frequent + state.extra[..., -1:])

    def learn(self, state: State, x: Tensor, y: Tensor, mask: Tensor, n_classes: int) -> Counted:
        """Sums and counts of supports ``x (..., n, D)``, ``y`` and ``mask (..., n)``."""
        h = self.features(state, x)
        on = mask.unsqueeze(-1)
        mine = torch.nn.functional.one_hot(y.long(), n_classes).to(h.dtype) * on
        return Counted(mine.sum(-2), mine.mT @ torch.where(on > 0, h, 0.0))

    def _fast(self, state: State, x: Tensor, y: Tensor, mask: Tensor, n_classes: int) -> Tensor:
        """``state.theta (B, P)`` with the last layer of the posterior means in its place."""
        prior = self.clouds(state, n_classes)
        known = self.learn(state, x, y, mask, n_classes)
        mean, _ = posterior(prior, known)
        weight, bias = self._head(state.theta, n_classes)
        solved = mean / prior.variance.unsqueeze(-2)
        more = torch.logaddexp(prior.log_labels, known.counts.log()) - prior.log_labels
        lower = 0.5 * (solved * mean - weight * prior.mean).sum(-1)
        moved = torch.cat([solved.mT, (bias + more - lower).unsqueeze(-2)], -2)
        last = self._last()
        head = state.theta[:, last.start : last.end].reshape(len(x), -1, last.n_out)
        head = torch.cat([moved, head[..., n_classes:]], -1)
        return torch.cat([state.theta[:, : last.start], head.flatten(1)], -1)

    def _head(self, theta: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
        """Weights ``(..., C, H)`` and biases ``(..., C)`` of the last layer."""
        last = self._last()
        weight = theta[..., last.start : last.bias]
        weight = weight.reshape(*theta.shape[:-1], last.n_in, last.n_out).mT
        return weight[..., :n_classes, :], theta[..., last.bias : last.end][..., :n_classes]


def posterior(prior: Clouds, known: Counted) -> tuple[Tensor, Tensor]:
    """Means ``(..., C, H)`` of the classes after what is known, and by how much a row of theirs
    scatters more than the variance says, ``(..., C, H)``, because its class is not known better."""
    pseudo = prior.pseudo.unsqueeze(-2)
    rows = pseudo + known.counts.unsqueeze(-1)
    return (pseudo * prior.mean + known.sums) / rows, 1.0 + 1.0 / rows


def log_joint(prior: Clouds, known: Counted, h: Tensor) -> Tensor:
    """Log density of features ``h (..., H)`` together with each class ``(..., C)``: Dirichlet
    frequencies times the normal predictive of the class."""
    mean, scatter = posterior(prior, known)
    variance = prior.variance.unsqueeze(-2) * scatter
    square = (h.unsqueeze(-2) - mean) ** 2 / variance + variance.log() + math.log(2.0 * math.pi)
    labels = torch.logaddexp(prior.log_labels, known.counts.log())
    return torch.log_softmax(labels, -1) - 0.5 * square.sum(-1)
