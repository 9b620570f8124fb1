"""MOCA: meta-learning on series whose tasks change without a sign.

Harrison, Sharma, Finn, Pavone 2020 (arXiv 1912.08866), algorithm 1. A *run* is the rows since a
change. Nobody knows where the present one began, so there is a belief over all places where it may
have, each with what a closed-form learner (ALPaCA for values, PCOC for classes) has made of the
rows since; Bayesian online change points (Adams & MacKay 2007, arXiv 0710.3742) say how the belief
moves. All of it can be differentiated: training goes back through the recursion, over windows of
series whose changes nobody marked.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from streammeta.meta import alpaca, pcoc
from streammeta.meta.alpaca import Alpaca, Predictive
from streammeta.meta.gradient_based import GRADIENT_LIMIT
from streammeta.meta.learner import MetaInfo, State, clip_by_norm
from streammeta.meta.pcoc import Counted, Pcoc

RUNS = 32  # that are kept
FIRST_HAZARD = 0.03  # where a hazard that is learned starts; it stays within a factor of e^3

Stats = tuple[Tensor, ...]
Row = tuple[Tensor, ...]


class Runs(NamedTuple):
    """What is carried from row to row, for ``B`` series with ``K`` runs each.

    ``log_belief (B, K)``: natural logarithm of the chance that the next row belongs to the run,
    ``-inf`` where there is none; ``start (B, K)``: the first row of the run; ``stats``: what the
    run's rows taught, each ``(B, K, ...)``; ``row``: how many rows there were.
    """

    log_belief: Tensor
    start: Tensor
    stats: Stats
    row: int


class Told(NamedTuple):
    """What is said of a row before its label: the belief over runs ``(B, K)``, in nats, and what
    each run says: ``mean`` and ``variance (B, K)`` of a value, or in ``mean`` log probabilities
    ``(B, K, C)`` of classes, ``variance`` being empty."""

    log_belief: Tensor
    mean: Tensor
    variance: Tensor


class Filtered(NamedTuple):
    """Log density of every label ``(B, T)`` before it was learned, in nats; what was told of each
    row; the runs in the end."""

    log_density: Tensor
    told: list[Told]
    runs: Runs


class Slope(NamedTuple):
    """Mean negative log density ``()`` of a batch of series, and its ``gradient (P + 1 + E,)`` by
    weights, rate and extra parameters end to end."""

    loss: Tensor
    gradient: Tensor


class Beliefs(ABC):
    """What a run knows of the rows since it began: the closed-form learner, row by row."""

    @abstractmethod
    def rows(self, x: Tensor, y: Tensor) -> list[Row]:
        """Series ``x (B, T, D)``, ``y (B, T)`` row by row, each with a leading axis ``B``."""

    @abstractmethod
    def fresh(self, *shape: int) -> Stats:
        """Of runs without rows, with leading axes ``shape``."""

    @abstractmethod
    def tell(self, stats: Stats, row: Row, log_belief: Tensor) -> tuple[Told, Any]:
        """What is said of a row, whose label is not looked at; its features may move the belief.
        And what ``learn`` need not work out again."""

    @abstractmethod
    def learn(self, stats: Stats, row: Row, told: Told, kept: Any) -> tuple[Tensor, Stats]:
        """Log density of the label under each run ``(B, K)``, and the runs with the row."""

    @abstractmethod
    def since(self, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        """Log density ``(B, T)`` of every label where the first row ``start (B, T)`` of its run is
        known: rows from there to the one before are learned."""


class Values(Beliefs):
    """ALPaCA: covariance and mean of ``w``, in units of the noise, by rank-one updates."""

    def __init__(self, learner: Alpaca, state: State, n_classes: int) -> None:
        self.learner, self.state, self.noise = learner, state, learner.noise(state)

    def rows(self, x: Tensor, y: Tensor) -> list[Row]:
        seen = self.learner.rows(self.state, x)
        return list(zip(seen.centre.unbind(1), seen.along.unbind(1), y.unbind(1), strict=True))

    def fresh(self, *shape: int) -> Stats:
        theta, rank = self.state.theta, self.learner.directions
        eye = torch.eye(rank, dtype=theta.dtype, device=theta.device)
        return eye.expand(*shape, -1, -1), theta.new_zeros(*shape, rank)

    def tell(self, stats: Stats, row: Row, log_belief: Tensor) -> tuple[Told, Any]:
        covariance, mean = stats
        centre, at = row[0].unsqueeze(1), row[1].unsqueeze(1)
        spread = (covariance @ at.unsqueeze(-1)).squeeze(-1)
        scale = 1.0 + (spread * at).sum(-1).clamp(min=0.0)
        said = centre + (mean * at).sum(-1)
        return Told(log_belief, said, self.noise * scale), (spread, scale)

    def learn(self, stats: Stats, row: Row, told: Told, kept: Any) -> tuple[Tensor, Stats]:
        covariance, mean = stats
        spread, scale = kept
        error = row[2].unsqueeze(1) - told.mean
        square = error**2 / told.variance
        density = -0.5 * (square + told.variance.log() + math.log(2.0 * math.pi))
        gain = spread / scale.unsqueeze(-1)
        lower = covariance - gain.unsqueeze(-1) * spread.unsqueeze(-2)
        return density, (lower, mean + gain * error.unsqueeze(-1))

    def since(self, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        return -self.predictive(x, y, start).negative_log_density(y)

    def predictive(self, x: Tensor, y: Tensor, start: Tensor) -> Predictive:
        """Means and variances ``(B, T)`` under the runs of ``since``."""
        seen = self.learner.rows(self.state, x)
        grams = _between(seen.along.unsqueeze(-1) * seen.along.unsqueeze(-2), start)
        moments = _between(seen.along * (y - seen.centre).unsqueeze(-1), start)
        rows = alpaca.Rows(seen.centre.unsqueeze(-1), seen.along.unsqueeze(-2))
        told = alpaca.predicted(alpaca.believed(grams, moments), rows, self.noise)
        return Predictive(told.mean.squeeze(-1), told.variance.squeeze(-1))


class Classes(Beliefs):
    """PCOC: counts and sums of features of every class."""

    def __init__(self, learner: Pcoc, state: State, n_classes: int) -> None:
        self.learner, self.state, self.n_classes = learner, state, n_classes
        self.prior = learner.clouds(state, n_classes)

    def rows(self, x: Tensor, y: Tensor) -> list[Row]:
        h = self.learner.features(self.state, x)
        return list(zip(h.unbind(1), y.long().unbind(1), strict=True))

    def fresh(self, *shape: int) -> Stats:
        both = (*shape, *self.prior.mean.shape)
        return self.state.theta.new_zeros(both[:-1]), self.state.theta.new_zeros(both)

    def tell(self, stats: Stats, row: Row, log_belief: Tensor) -> tuple[Told, Any]:
        joint = pcoc.log_joint(self.prior, Counted(*stats), row[0].unsqueeze(1))
        of_features = torch.logsumexp(joint, -1)
        seen = torch.log_softmax(log_belief + of_features, -1)
        return Told(seen, joint - of_features.unsqueeze(-1), joint.new_empty(0)), None

    def learn(self, stats: Stats, row: Row, told: Told, kept: Any) -> tuple[Tensor, Stats]:
        h, y = row
        counts, sums = stats
        one = torch.nn.functional.one_hot(y, self.n_classes).to(h.dtype).unsqueeze(1)
        density = (told.mean * one).sum(-1)
        return density, (counts + one, sums + one.unsqueeze(-1) * h[:, None, None, :])

    def since(self, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        h = self.learner.features(self.state, x)
        one = torch.nn.functional.one_hot(y.long(), self.n_classes).to(h.dtype)
        known = Counted(_between(one, start), _between(one.unsqueeze(-1) * h.unsqueeze(-2), start))
        told = torch.log_softmax(pcoc.log_joint(self.prior, known, h), -1)
        return (told * one).sum(-1)


@dataclass(frozen=True)
class Moca:
    """``model``, an ``Alpaca`` or ``Pcoc``, on series that change, and a belief over when they did.

    ``hazard``: the chance that the next row is of another run; ``None``: learned with the rest (its
    logarithm is the state's ``log_rates``). ``runs``: the most that are kept, the likeliest, and
    always the one that begins with the next row; ``None`` keeps all. ``n_classes``: of PCOC.

    Raises:
        ValueError: ``hazard`` outside [0, 1]; fewer than two runs where the hazard is neither 0
            nor 1.
    """

    model: Alpaca | Pcoc
    hazard: float | None = 0.01
    runs: int | None = RUNS
    n_classes: int = 1

    def __post_init__(self) -> None:
        if self.hazard is not None and not 0.0 <= self.hazard <= 1.0:
            raise ValueError(f"hazard is {self.hazard}; expected 0 to 1, or None")
        least = 1 if self.hazard in (0.0, 1.0) else 2
        if self.runs is not None and self.runs < least:
            raise ValueError(f"runs is {self.runs}; expected at least {least}, or None")

    def init(self, theta: Tensor) -> State:
        """A fresh state around the initial parameters ``theta (P,)``."""
        return replace(self.model, inner_lr=FIRST_HAZARD).init(theta)

    def begin(self, state: State, series: int, rows: int) -> Runs:
        """One run of no rows in each of so many series, and room for those of ``rows``."""
        shape = (series, rows + 1 if self.runs is None else min(self.runs, rows + 1))
        belief = state.theta.new_full(shape, -math.inf)
        belief[:, 0] = 0.0
        start = torch.zeros(shape, dtype=torch.long, device=belief.device)
        return Runs(belief, start, self.beliefs(state).fresh(*shape), 0)

    def filter(self, state: State, x: Tensor, y: Tensor, runs: Runs | None = None) -> Filtered:
        """Predict and then learn every row of series ``x (B, T, D)``, ``y (B, T)``, after ``runs``
        where those are given, or from the first row of the series on."""
        runs = self.begin(state, *x.shape[:2]) if runs is None else runs
        beliefs, told, densities = self.beliefs(state), [], []
        for row in beliefs.rows(x, y):
            said, kept = beliefs.tell(runs.stats, row, runs.log_belief)
            density, stats = beliefs.learn(runs.stats, row, said, kept)
            joint = said.log_belief + density
            found = torch.logsumexp(joint, -1)
            runs = self._grown(state, runs, joint - found.unsqueeze(-1), stats, beliefs)
            told.append(said)
            densities.append(found)
        return Filtered(torch.stack(densities, 1), told, runs)

    def since(self, state: State, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
        """Log density ``(B, T)`` of the labels of a series of which it is known where the run of
        each row began, ``start (B, T)``, at most the row itself: no belief, one run."""
        return self.beliefs(state).since(x, y, start)

    def predictive(self, state: State, x: Tensor, y: Tensor, start: Tensor) -> Predictive:
        """Means and variances ``(B, T)`` of values where the runs are known as in ``since``.

        Raises:
            TypeError: the model predicts classes.
        """
        beliefs = self.beliefs(state)
        if not isinstance(beliefs, Values):
            raise TypeError("classes have no mean and no variance")
        return beliefs.predictive(x, y, start)

    def meta_update(
        self, state: State, x: Tensor, y: Tensor, start: Tensor | None = None
    ) -> tuple[State, MetaInfo]:
        """One outer step on the mean negative log density of series ``x (B, T, D)``, ``y (B, T)``,
        by the belief over runs, or with ``start`` as ``since`` does; series that are not finite are
        skipped."""
        sound = torch.isfinite(x).all(2).all(1) & torch.isfinite(y).all(1)
        x, y, start = x[sound], y[sound], None if start is None else start[sound]
        skipped = int((~sound).sum())
        if not len(x):
            return state, MetaInfo(math.nan, math.nan, skipped)
        loss, gradient = self.slope(state, x, y, start)
        gradient, norm = clip_by_norm(gradient, GRADIENT_LIMIT)
        if not bool(torch.isfinite(norm)):
            return state, MetaInfo(math.nan, math.nan, len(x) + skipped)
        return self._descend(state, gradient), MetaInfo(float(loss), float(norm), skipped)

    def slope(self, state: State, x: Tensor, y: Tensor, start: Tensor | None = None) -> Slope:
        """Mean negative log density of series as in ``meta_update``, and its gradient."""
        with torch.enable_grad():
            leaves = [part.detach().requires_grad_() for part in state[:3]]
            here = state._replace(theta=leaves[0], log_rates=leaves[1], extra=leaves[2])
            loss = -self._density(here, x, y, start).mean()
            parts = torch.autograd.grad(loss, leaves, allow_unused=True)
        flat = [
            torch.zeros_like(leaf) if part is None else part
            for part, leaf in zip(parts, leaves, strict=True)
        ]
        return Slope(loss.detach(), torch.cat(flat).detach())

    def log_hazard(self, state: State) -> tuple[Tensor, Tensor]:
        """Logarithms of the chances that a change comes before the next row, and that none does."""
        if self.hazard is None:
            told = state.log_rates[0].clamp(max=-1e-3)
            return told, torch.log(-torch.expm1(told))
        both = state.theta.new_tensor([self.hazard, 1.0 - self.hazard]).log()
        return both[0], both[1]

    def _density(self, state: State, x: Tensor, y: Tensor, start: Tensor | None) -> Tensor:
        if start is None:
            return self.filter(state, x, y).log_density
        return self.since(state, x, y, start)

    def _grown(
        self, state: State, runs: Runs, log_belief: Tensor, stats: Stats, beliefs: Beliefs
    ) -> Runs:
        """All runs a row older; the run that begins with the next row takes the place of the least
        likely one, or one that is free."""
        row = runs.row + 1
        if self.hazard == 0.0:
            return Runs(log_belief, runs.start, stats, row)
        change, none = self.log_hazard(state)
        grown = log_belief + none
        slot = grown.detach().argmin(-1, keepdim=True)
        new = torch.zeros_like(grown, dtype=torch.bool).scatter_(1, slot, value=True)
        belief = torch.log_softmax(torch.where(new, change, grown), -1)
        fresh = beliefs.fresh(1, 1)
        stats = tuple(
            torch.where(new.view(*new.shape, *([1] * (part.dim() - 2))), start, part)
            for part, start in zip(stats, fresh, strict=True)
        )
        return Runs(belief, torch.where(new, row, runs.start), stats, row)

    def beliefs(self, state: State) -> Beliefs:
        """What a run knows, with the model at ``state``."""
        if isinstance(self.model, Alpaca):
            return Values(self.model, state, self.n_classes)
        return Classes(self.model, state, self.n_classes)

    def _descend(self, state: State, gradient: Tensor) -> State:
        """An outer step of the model; a hazard that is learned moves as an inner rate does."""
        learned = self.hazard is None
        return replace(self.model, inner_lr=FIRST_HAZARD, per_parameter=learned).descend(
            state, gradient
        )


def _between(values: Tensor, start: Tensor) -> Tensor:
    """Sums of ``values (B, T, ...)`` over the rows from ``start (B, T)`` to the one before."""
    sums = torch.nn.functional.pad(values.cumsum(1), (0, 0) * (values.dim() - 2) + (1, 0))
    at = start.view(*start.shape, *([1] * (values.dim() - 2))).expand_as(values)
    return sums[:, :-1] - sums.gather(1, at)
