"""ALPaCA: Bayesian linear regression on features that are meta-learned.

Harrison, Sharma, Pavone 2018 (arXiv 1807.08912), algorithm 1. Of a value ``y`` with noise of
variance ``s`` the belief before any row is ``y = h (k + C w) + noise``, ``h`` the features and a 1,
``w ~ N(0, s I)``: ``k`` is the last layer of the meta-parameters, ``C C'`` the inverse of the
papers' prior precision. What rows teach is a belief about ``w``, whose precision never falls below
that of the start, so that it can be factored whatever the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.differentiated import Differentiated, bare
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Task, masked_mean
from streammeta.meta.net import Net

SPREAD = 0.25  # of every weight before any row, as it starts, in units of the noise
SEED = 1807_08912  # of the first directions where there are fewer than features
NOISE_PACE = 20.0  # a logarithm moves so much further than a weight
LOG_NOISE = (-16.0, 8.0)  # bounds of the logarithm of the noise's variance


class Rows(NamedTuple):
    """Rows as the last layer sees them: the value ``centre (..., n)`` that is expected before any
    row was learned, and along which directions of ``w`` it may differ, ``along (..., n, r)``."""

    centre: Tensor
    along: Tensor


class Belief(NamedTuple):
    """``w`` is normal with ``mean (..., r)`` and covariance ``s (root root')^-1``, the
    lower triangle ``root (..., r, r)`` being the Cholesky factor of the precision."""

    mean: Tensor
    root: Tensor


class Predictive(NamedTuple):
    """Normal predictions: ``mean`` and ``variance`` of every row, noise included."""

    mean: Tensor
    variance: Tensor

    def negative_log_density(self, y: Tensor) -> Tensor:
        """Of values ``y`` of the same shape, in nats."""
        square = (y - self.mean) ** 2 / self.variance
        return 0.5 * (math.log(2.0 * math.pi) + self.variance.log() + square)


@dataclass(frozen=True)
class Alpaca(Differentiated):
    """The last layer is believed, not known; the query's log density trains what it rests on.

    ``extra`` holds ``C (H + 1, r)`` row by row and the logarithm of the noise's variance.
    ``rank``: how many directions ``r`` the belief has; ``None`` as many as features and the bias.
    The fast weights are those of the posterior mean; ``predictive`` has the variances as well.
    Where ``steps`` is 0 nothing is learned of a support.

    Raises:
        UsageError: the model is not a ``Net``, the task is not regression, or an option is asked
            that is about inner steps.
    """

    tasks: ClassVar[tuple[Task, ...]] = ("regression",)
    rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.net, Net):
            raise UsageError("alpaca learns the last layer of a Net; other modules have none")
        if self.task not in self.tasks:
            raise UsageError("alpaca predicts values; for classes there is pcoc")
        if self.rank is not None and not 1 <= self.rank <= self._last().n_in + 1:
            raise UsageError(f"alpaca: rank is {self.rank}; expected 1 to {self._last().n_in + 1}")

    def descend(self, state: State, gradient: Tensor) -> State:
        """The state after one outer step; the noise stays within reason."""
        new = super().descend(state, gradient)
        move = new.extra[-1:] - state.extra[-1:]
        noise = (state.extra[-1:] + NOISE_PACE * move).clamp(*LOG_NOISE)
        return new._replace(extra=torch.cat([new.extra[:-1], noise]))

    def extra(self, theta: Tensor) -> Tensor:
        """The same spread in every direction, and noise of variance 1."""
        width, rank = self._last().n_in + 1, self.directions
        along = torch.eye(width, dtype=torch.float64)
        if rank < width:
            generator = torch.Generator().manual_seed(SEED)
            drawn = torch.randn(width, rank, generator=generator, dtype=torch.float64)
            along = drawn * math.sqrt(1.0 / rank)
        return torch.cat([SPREAD * along.flatten(), along.new_zeros(1)]).to(theta)

    def judged(self, theta: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """Negative log density of the query ``(B,)``, row by row."""
        here = bare(theta, extra)
        belief = self.learn(here, *batch[:3])
        told = self.predictive(here, belief, batch.query_x)
        return masked_mean(told.negative_log_density(batch.query_y), batch.query_mask)

    def adapted(
        self, theta: Tensor, extra: Tensor, support: tuple[Tensor, Tensor, Tensor], n_classes: int
    ) -> Tensor:
        """``theta (B, P)`` with the posterior mean in the place of the last layer."""
        return self._mean_weights(theta, extra, self.learn(bare(theta, extra), *support))

    def noise(self, state: State) -> Tensor:
        """Its variance ``(...)``."""
        return state.extra[..., -1].exp()

    def rows(self, state: State, x: Tensor) -> Rows:
        """Rows ``x (..., n, D)`` as the last layer sees them."""
        assert isinstance(self.net, Net)
        h = self.net.features(state.theta, x)
        h = torch.cat([h, torch.ones_like(h[..., :1])], -1)
        last = self._last()
        head = state.theta[..., last.start : last.end]
        head = head.reshape(*head.shape[:-1], last.n_in + 1, last.n_out)
        return Rows((h @ head[..., :1]).squeeze(-1), h @ self._directions(state.extra))

    def learn(self, state: State, x: Tensor, y: Tensor, mask: Tensor) -> Belief:
        """What supports ``x (..., n, D)``, ``y`` and ``mask (..., n)`` teach."""
        rows = self.rows(state, x)
        on = mask.unsqueeze(-1)
        along = torch.where(on > 0, rows.along, 0.0)
        beside = torch.where(mask > 0, y - rows.centre, 0.0)
        return believed(along.mT @ along, (along.mT @ beside.unsqueeze(-1)).squeeze(-1))

    def predictive(self, state: State, belief: Belief, x: Tensor) -> Predictive:
        """Means and variances ``(..., n)`` for rows ``x (..., n, D)``."""
        return predicted(belief, self.rows(state, x), self.noise(state).unsqueeze(-1))

    def _mean_weights(self, theta: Tensor, extra: Tensor, belief: Belief) -> Tensor:
        """``theta (B, P)`` with ``k + C mean`` in the place of the last layer."""
        last = self._last()
        move = (self._directions(extra) @ belief.mean.unsqueeze(-1)).squeeze(-1)
        fast = theta.clone()
        fast[:, last.start : last.end].view(len(theta), -1, last.n_out)[..., 0] += move
        return fast

    def _directions(self, extra: Tensor) -> Tensor:
        """``C (..., H + 1, r)``."""
        return extra[..., :-1].reshape(*extra.shape[:-1], -1, self.directions)

    @property
    def directions(self) -> int:
        """In how many directions ``r`` the last layer may differ from what is expected of it."""
        return self._last().n_in + 1 if self.rank is None else self.rank


def believed(gram: Tensor, moment: Tensor) -> Belief:
    """The belief after rows with ``gram (..., r, r)``, the sum of squares of their directions, and
    ``moment (..., r)``, the sum of directions times how far values lay beside their centres."""
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    root, _ = torch.linalg.cholesky_ex(gram + eye)
    return Belief(torch.cholesky_solve(moment.unsqueeze(-1), root).squeeze(-1), root)


def predicted(belief: Belief, rows: Rows, noise: Tensor) -> Predictive:
    """Means and variances of ``rows``, whose axes before the last are those of the belief;
    ``noise`` broadcasts against ``(..., n)``."""
    mean = rows.centre + (rows.along @ belief.mean.unsqueeze(-1)).squeeze(-1)
    turned = torch.linalg.solve_triangular(belief.root, rows.along.mT, upper=False)
    return Predictive(mean, noise * (1.0 + turned.square().sum(-2)))
