"""MAML and its kin: a few inner gradient steps, and the gradient through them.

MAML, FOMAML: Finn, Abbeel, Levine 2017 (arXiv 1703.03400), algorithm 1; second and first order.
ANIL: Raghu et al. 2020 (arXiv 1909.09157): only the last layer takes inner steps.
Meta-SGD: Li, Zhou, Chen, Li 2017 (arXiv 1707.09835), algorithm 1; one rate per parameter, kept
positive and bounded through its logarithm so that more steps than trained for do not diverge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from streammeta.meta import compiled, rule
from streammeta.meta.learner import (
    BETAS,
    EPS,
    AdaptInfo,
    Batch,
    Gradient,
    MetaInfo,
    Model,
    PlainSteps,
    RidgeHead,
    State,
    adam,
    clip_by_norm,
)
from streammeta.meta.loss import HUBER, Loss, Task, losses, masked_mean
from streammeta.meta.net import Net

#: Inner rates stay within a factor of e^3 of where they start.
RATE_SPAN = 3.0
#: Longest outer gradient that is followed in full.
GRADIENT_LIMIT = 10.0
#: A logarithm of a rate may move further than a weight: by default 3 % of the rate per step.
RATE_LR = 10.0


@dataclass(frozen=True)
class Outer:
    """Options of the outer update; as it stands the papers' plain one.

    ``each_step``: weight of the query loss after every earlier inner step, that of the last
    being 1 (multi-step loss of MAML++, Antoniou, Edwards, Storkey 2019, arXiv 1810.09502, eq. 4).
    ``modulation``: lambda of ``(1 - exp(-lambda L)) L`` in the place of a task's query loss
    ``L``: tasks that are solved already hardly move the meta-parameters (update modulation of
    C-MAML, Caccia et al. 2020, arXiv 2003.05856, sec. 4.2, taken into the loss).
    ``gated``: weights move by their own inner rates in the place of Adam's, after the rates have
    moved (asynchronous update of La-MAML, Gupta et al. 2020, arXiv 2007.13904, eq. 6; what is
    gated there at 0 cannot be reached here, for rates are exponentials).
    ``proximity``: inner steps are drawn back towards the meta-parameters by this much of the
    distance (FOML, Rajasegaran et al. 2022, arXiv 2202.00263, eq. 3).
    """

    each_step: float = 0.0
    modulation: float | None = None
    gated: bool = False
    proximity: float = 0.0

    def __post_init__(self) -> None:
        for name in ("each_step", "proximity"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 0")
        if self.modulation is not None and self.modulation <= 0:
            raise ValueError(f"modulation is {self.modulation}; expected more than 0, or None")


class Step(NamedTuple):
    """One inner step: the weights ``(B, P)`` it starts from, the gradient there, where it goes."""

    fast: Tensor
    at: Gradient
    direction: Tensor


class Slopes(NamedTuple):
    """Of each task: query loss ``(B,)`` and its gradients by theta ``(B, P)``, by the logarithms
    of the rates ``(B, R)`` and by the extra parameters ``(B, E)``."""

    loss: Tensor
    by_theta: Tensor
    by_rates: Tensor
    by_extra: Tensor


@dataclass(frozen=True)
class GradientLearner:
    """A learner whose inner loop is ``steps`` gradient steps from the meta-parameters.

    ``per_parameter`` gives every parameter a rate of its own and learns it; otherwise the one
    rate ``inner_lr`` stays fixed. ``second_order`` differentiates through the inner gradients.
    ``head_only`` keeps all layers but the last where they are.
    """

    net: Model
    task: Task
    inner_lr: float = 0.1
    steps: int = 5
    outer_lr: float = 1e-3
    outer: Outer = Outer()
    huber: float = HUBER
    second_order: bool = True
    per_parameter: bool = False
    head_only: bool = False

    def plan(self, state: State) -> PlainSteps | RidgeHead | None:
        """Where ``adapt`` is nothing but steps of ``rates`` along the gradient of a ``Net``, what
        compiled code needs to take them."""
        own = type(self)
        changed = own.adapt is not GradientLearner.adapt or own.inner is not GradientLearner.inner
        if changed or not isinstance(self.net, Net) or self.outer.proximity or self.huber != HUBER:
            return None
        return PlainSteps(state.theta.numpy(), self.rates(state).numpy(), self.steps)

    def init(self, theta: Tensor) -> State:
        """A fresh state around the initial parameters ``theta (P,)``."""
        n_rates = theta.numel() if self.per_parameter else 1
        log_rates = theta.new_full((n_rates,), math.log(self.inner_lr))
        extra = self.extra(theta)
        moments = theta.new_zeros(theta.numel() + n_rates + extra.numel())
        return State(
            theta.clone(), log_rates, extra, moments, moments.clone(), theta.new_zeros(())
        )  # fmt: skip

    def extra(self, theta: Tensor) -> Tensor:
        """Parameters ``(E,)`` beyond weights and rates, as they start."""
        return theta.new_empty(0)

    @property
    def extra_pace(self) -> float:
        """How much further extra parameters move in an outer step than weights."""
        return 1.0

    @property
    def extra_bound(self) -> float:
        """How far from 0 they may come."""
        return math.inf

    def unadapted(self, state: State) -> Tensor:
        """The weights ``(P,)`` before any inner step."""
        return state.theta

    def predict(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs ``(..., n, O)`` of fast weights ``theta (..., P)`` on ``x (..., n, D)``."""
        return self.net.apply(theta, x)

    def adapt(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, n_classes: int
    ) -> tuple[Tensor, AdaptInfo]:
        """Fast weights ``(B, P)`` after the inner steps on supports ``x (B, S, D)``."""
        loss = self.loss(n_classes)
        with torch.no_grad():
            fast, _ = self.inner(state, x, y, mask, loss)
            before, after = (
                masked_mean(losses(self.net.apply(theta, x), y, loss), mask)
                for theta in (self.unadapted(state).expand_as(fast), fast)
            )
        return fast, AdaptInfo(before, after)

    def answer(self, state: State, batch: Batch, n_classes: int) -> Tensor:
        """Outputs ``(B, Q, O)`` for the query's rows after adaptation to the support."""
        fast, _ = self.adapt(state, *batch[:3], n_classes)
        with torch.no_grad():
            return self.predict(fast, batch.query_x)

    @property
    def written_out(self) -> bool:
        """Whether all derivatives are written out, so that torch need not be ready for autograd,
        which costs time where networks are so small."""
        return isinstance(self.net, Net) and type(self).slopes is GradientLearner.slopes

    def meta_update(self, state: State, batch: Batch, n_classes: int) -> tuple[State, MetaInfo]:
        """One outer step on the mean query loss after adaptation; non-finite tasks are skipped."""
        if type(self).descend is GradientLearner.descend:
            found = self.compiled_slopes(state, batch, n_classes)
            if found is not None:
                return self._stepped(state, found)
        if not self.written_out:
            with torch.no_grad():
                return self._updated(state, batch, n_classes)
        with torch.inference_mode():
            new, info = self._updated(state, batch, n_classes)
        return State(*(part.clone() for part in new)), info

    def compiled_slopes(self, state: State, batch: Batch, n_classes: int) -> compiled.Found | None:
        """What ``slopes`` finds, of compiled code; ``None`` where that does not do the same."""
        stated = ("inner", "judge", "slopes", "weight")
        if any(getattr(type(self), n) is not getattr(GradientLearner, n) for n in stated):
            return None
        posed = compiled.problem(self.net, state, batch, self.loss(n_classes))
        if posed is None or not self.steps or self.outer.each_step or self.outer.proximity:
            return None
        rates = np.empty_like(posed.theta)
        rates[:] = self.rates(state).numpy()
        found = posed.found()
        if not compiled.step_slopes(
            posed.theta, rates, self.steps, self.second_order, self.per_parameter, *posed[3:],
            *found,
        ):  # fmt: skip
            return None
        return self._weighed(found)

    def _weighed(self, found: compiled.Found) -> compiled.Found:
        """The same, each task's gradient with its ``weight``."""
        if self.outer.modulation is not None:
            found.by[:] *= self.weight(torch.from_numpy(found.loss)).numpy()[:, None]
        return found

    def _stepped(self, state: State, found: compiled.Found) -> tuple[State, MetaInfo]:
        """What ``_updated`` does, of compiled code."""
        old = compiled.Moved(*(np.ascontiguousarray(part.numpy()) for part in state[:5]))
        new = compiled.Moved(*(np.empty_like(part) for part in old))
        taken = state.taken + 1
        pace = compiled.Pace(
            self.outer_lr, *BETAS, EPS, GRADIENT_LIMIT, RATE_LR if self.per_parameter else 0.0,
            math.log(self.inner_lr), RATE_SPAN, self.extra_pace, self.extra_bound,
            self.outer.gated,
        )  # fmt: skip
        info = MetaInfo(*compiled.outer_step(*found, old, float(taken), pace, new))
        if info.skipped == len(found.loss):
            return state, info
        theta, log_rates, extra, first, second = (torch.from_numpy(part) for part in new)
        return State(theta, log_rates, extra, first, second, taken), info

    def _updated(self, state: State, batch: Batch, n_classes: int) -> tuple[State, MetaInfo]:
        loss, *slopes = self.slopes(state, batch, n_classes)
        gradient, skipped = _mean(slopes), 0
        if not bool(torch.isfinite(loss.sum() + gradient.sum())):
            # a bad task is cut out, not multiplied by zero: NaN times zero is NaN
            good = torch.isfinite(loss) & torch.isfinite(torch.cat(slopes, 1)).all(1)
            skipped = int((~good).sum())
            if skipped == len(good):
                return state, MetaInfo(math.nan, math.nan, skipped)
            loss, gradient = loss[good], _mean([slope[good] for slope in slopes])
        mean = float(loss.mean())
        gradient, norm = clip_by_norm(gradient, GRADIENT_LIMIT)
        return self.descend(state, gradient), MetaInfo(mean, float(norm), skipped)

    def descend(self, state: State, gradient: Tensor) -> State:
        """The state after one outer step along ``gradient (P + R + E,)``."""
        new, move = adam(state, gradient, self.outer_lr)
        n, centre, r = state.theta.numel(), math.log(self.inner_lr), state.log_rates.numel()
        rates = state.log_rates
        if self.per_parameter:
            rates = rates - RATE_LR * move[n : n + r]
            rates = rates.clamp(centre - RATE_SPAN, centre + RATE_SPAN)
        step = rates.exp() * gradient[:n] if self.outer.gated else move[:n]
        theta, extra = state.theta - step, state.extra - self.extra_pace * move[n + r :]
        extra = extra.clamp(-self.extra_bound, self.extra_bound)
        return new._replace(theta=theta, log_rates=rates, extra=extra)

    def loss(self, n_classes: int) -> Loss:
        """What supports and queries are judged by."""
        return Loss(self.task, n_classes, self.huber)

    def rates(self, state: State) -> Tensor:
        """The inner rates: ``(1,)`` or ``(P,)``."""
        rates = state.log_rates.exp()
        if not self.head_only:
            return rates
        moves = torch.zeros_like(state.theta)
        moves[self.net.head()] = 1.0
        return rates * moves

    def inner(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, loss: Loss
    ) -> tuple[Tensor, list[Step]]:
        """The inner loop: fast weights ``(B, P)``, and each step on the way."""
        rates, start = self.rates(state), state.theta.expand(x.shape[0], -1)
        fast: Tensor = start
        trail: list[Step] = []
        for _ in range(self.steps):
            at = self.net.differentiate(fast, x, y, mask, loss, with_loss=False)
            direction = at.gradient
            if self.outer.proximity:
                direction = direction + self.outer.proximity * (fast - start)
            trail.append(Step(fast, at, direction))
            fast = rule.step(fast, direction, rates)
        return fast, trail

    def slopes(self, state: State, batch: Batch, n_classes: int) -> Slopes:
        """Query loss of each task and its gradients.

        Backwards through ``theta_{k+1} = theta_k - rates * d_k`` with ``d_k`` the gradient at
        ``theta_k`` plus the pull of ``proximity`` p: with ``g`` the gradient by ``theta_{k+1}``,
        that by ``theta_k`` is ``g - H_k (rates * g) - p rates * g``, that by the start gains
        ``p rates * g``, that by the rates ``-d_k * g``. First order takes all but ``g`` as 0.
        """
        found = self.compiled_slopes(state, batch, n_classes)
        if found is not None:
            return split(state, found)
        loss, rates = self.loss(n_classes), self.rates(state)
        fast, trail = self.inner(state, *batch[:3], loss)
        judged, marks = self.judge(fast, trail, batch, loss)
        g = marks.pop()
        by_rates = g.new_zeros(len(g), state.log_rates.numel())
        by_start: Tensor | None = None
        for step in reversed(trail):
            push = rates * g
            if self.per_parameter:
                by_rates -= step.direction * g * rates
            if self.second_order:
                g = g - self.net.hessian_vector(step.at, push)
                if self.outer.proximity:
                    g = g - self.outer.proximity * push
                    pull = self.outer.proximity * push
                    by_start = pull if by_start is None else by_start + pull
            if self.outer.each_step and marks:
                g = g + marks.pop()
        by_theta = g if by_start is None else g + by_start
        return Slopes(judged, by_theta, by_rates, g.new_empty(len(g), 0))

    def judge(
        self, fast: Tensor, trail: list[Step], batch: Batch, loss: Loss
    ) -> tuple[Tensor, list[Tensor]]:
        """Query loss ``(B,)`` in the end, and the gradient of what the outer update minimises by
        the weights after each step that counts, the last in the end: each ``(B, P)``."""
        stops = [step.fast for step in trail[1:]] if self.outer.each_step else []
        judged = [self.net.differentiate(at, *batch[3:], loss) for at in (*stops, fast)]
        weights = [self.outer.each_step] * len(stops) + [1.0]
        shares = [weight / sum(weights) for weight in weights]
        marks = [share * at.gradient for share, at in zip(shares, judged, strict=True)]
        if self.outer.modulation is not None:
            means = [share * at.loss for share, at in zip(shares, judged, strict=True)]
            factor = self.weight(torch.stack(means).sum(0))
            marks = [factor.unsqueeze(1) * mark for mark in marks]
        return judged[-1].loss, marks

    def weight(self, loss: Tensor) -> Tensor:
        """What the gradient of each task's query loss ``(B,)`` is multiplied by."""
        if self.outer.modulation is None:
            return torch.ones_like(loss)
        return modulation(loss, self.outer.modulation)


def _mean(slopes: Sequence[Tensor]) -> Tensor:
    """Gradients of each task, ``(B, .)`` of several kinds, averaged and laid end to end."""
    return torch.cat([slope.mean(0) for slope in slopes])


def split(state: State, found: compiled.Found) -> Slopes:
    """What compiled code has found, by kind."""
    n, r = state.theta.numel(), state.theta.numel() + state.log_rates.numel()
    by = torch.from_numpy(found.by)
    return Slopes(torch.from_numpy(found.loss), by[:, :n], by[:, n:r], by[:, r:])


def modulation(loss: Tensor, strength: float) -> Tensor:
    """Derivative of ``(1 - exp(-strength L)) L`` by ``L``.

    >>> modulation(torch.tensor([0.0, 1.0, 1000.0]), 1.0)
    tensor([0., 1., 1.])
    """
    return 1.0 - torch.exp(-strength * loss) * (1.0 - strength * loss)


def joined(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Support and query as one set of rows: ``x (B, S + Q, D)``, ``y`` and ``mask``."""
    x, y, mask = (torch.cat(pair, 1) for pair in zip(batch[:3], batch[3:], strict=True))
    return x, y, mask


def maml(net: Model, task: Task, **options: Any) -> GradientLearner:
    """Model-agnostic meta-learning: second order, one fixed inner rate."""
    return GradientLearner(net, task, **options)


def fomaml(net: Model, task: Task, **options: Any) -> GradientLearner:
    """First-order MAML: the query's gradient at the adapted weights is taken for the start's."""
    return GradientLearner(net, task, second_order=False, **options)


def anil(net: Model, task: Task, **options: Any) -> GradientLearner:
    """Almost no inner loop: only the last layer adapts."""
    return GradientLearner(net, task, head_only=True, **options)


def meta_sgd(net: Model, task: Task, **options: Any) -> GradientLearner:
    """Meta-SGD: the rate of every parameter is learned with the meta-parameters."""
    return GradientLearner(net, task, per_parameter=True, **options)
