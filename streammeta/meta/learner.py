"""What a meta-learner is: what it carries (State), what it reports (Info), what it can do."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streammeta.meta.loss import Loss, Task

#: Decay of Adam's two moments, and the floor of the root of the second.
BETAS = (0.9, 0.999)
EPS = 1e-8


class Gradient(Protocol):
    """What differentiating gives: mean ``loss (B,)`` and its ``gradient (B, P)``; a model may
    keep more with it, for a Hessian-vector product."""

    @property
    def loss(self) -> Tensor: ...

    @property
    def gradient(self) -> Tensor: ...


class Model(Protocol):
    """A network on flat parameter vectors ``theta (..., P)``: ``Net``, or any module."""

    @property
    def n_params(self) -> int:
        """Length ``P`` of the flat vector."""

    def apply(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs ``(..., n, O)`` for ``theta (..., P)`` and ``x (..., n, D)``."""

    def head(self) -> slice:
        """Where the last layer lies in the flat vector."""

    def differentiate(
        self,
        theta: Tensor,
        x: Tensor,
        y: Tensor,
        mask: Tensor,
        loss: Loss,
        *,
        with_loss: bool = ...,
    ) -> Any:
        """The ``Gradient`` of the mean loss of tasks ``x (B, n, D)`` at ``theta (B, P)``."""

    def hessian_vector(self, at: Any, vector: Tensor) -> Tensor:
        """Hessian of each task's loss at ``at`` times ``vector (B, P)``."""


class Batch(NamedTuple):
    """Tasks stacked over a leading axis; ``mask`` is 0 where a row is padding.

    Shapes: ``support_x (B, S, D)``, ``support_y (B, S)``, ``support_mask (B, S)`` and the same
    with ``Q`` rows for the query, which comes later in time than the support.
    """

    support_x: Tensor
    support_y: Tensor
    support_mask: Tensor
    query_x: Tensor
    query_y: Tensor
    query_mask: Tensor


class State(NamedTuple):
    """What is carried: meta-parameters, inner rates, and the outer optimiser's moments.

    ``theta (P,)``; ``log_rates (1,)`` or ``(P,)``, natural logarithms; ``extra (E,)`` what a
    learner has beyond weights and rates, often nothing; ``first`` and ``second`` ``(P + R + E,)``
    moments of Adam over the three end to end; ``taken ()`` outer steps.
    """

    theta: Tensor
    log_rates: Tensor
    extra: Tensor
    first: Tensor
    second: Tensor
    taken: Tensor


class AdaptInfo(NamedTuple):
    """Mean support loss of each task ``(B,)`` before and after the inner steps."""

    loss_before: Tensor
    loss_after: Tensor


class MetaInfo(NamedTuple):
    """One outer step: mean query loss of the tasks that counted, the gradient's norm before
    clipping, and how many tasks were skipped because their loss was not finite."""

    loss: float
    gradient_norm: float
    skipped: int


class PlainSteps(NamedTuple):
    """So many ``steps`` of ``rates (1,)`` or ``(P,)`` along the gradient from ``theta (P,)``."""

    theta: NDArray[np.float32]
    rates: NDArray[np.float32]
    steps: int


class RidgeHead(NamedTuple):
    """The last layer of ``theta (P,)`` is solved for: ``ridge (H + 1,)``, ``sharpness``."""

    theta: NDArray[np.float32]
    ridge: NDArray[np.float32]
    sharpness: float


class MetaLearner(Protocol):
    """A meta-learner: pure functions over a ``State`` of tensors."""

    net: Model
    task: Task

    def init(self, theta: Tensor) -> State:
        """A fresh state around the initial parameters ``theta (P,)``."""

    def predict(self, theta: Tensor, x: Tensor) -> Tensor:
        """Outputs ``(..., n, O)`` of fast weights ``theta (..., P)`` on ``x (..., n, D)``."""

    def adapt(
        self, state: State, x: Tensor, y: Tensor, mask: Tensor, n_classes: int
    ) -> tuple[Tensor, AdaptInfo]:
        """Fast weights ``(B, P)`` for supports ``x (B, S, D)``; the state is left untouched."""

    def meta_update(self, state: State, batch: Batch, n_classes: int) -> tuple[State, MetaInfo]:
        """One outer step on a batch of tasks."""


def tasks_of(maker: Any) -> tuple[Task, ...]:
    """What learners are for that ``maker``, a row of the registry, makes: both tasks, unless its
    ``tasks`` says otherwise."""
    found: tuple[Task, ...] = getattr(maker, "tasks", get_args(Task))
    return found


def adam(
    state: State, gradient: Tensor, lr: float, betas: tuple[float, float] = BETAS
) -> tuple[State, Tensor]:
    """Moments after one more gradient and the step to subtract (Kingma & Ba 2015, alg. 1)."""
    taken = state.taken + 1
    first = betas[0] * state.first + (1.0 - betas[0]) * gradient
    second = betas[1] * state.second + (1.0 - betas[1]) * gradient**2
    first_hat = first / (1.0 - betas[0] ** taken)
    second_hat = second / (1.0 - betas[1] ** taken)
    move = lr * first_hat / (second_hat.sqrt() + EPS)
    return state._replace(first=first, second=second, taken=taken), move


def clip_by_norm(gradient: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """The gradient scaled down to Euclidean norm ``limit`` where it is longer, and its norm."""
    norm = torch.linalg.vector_norm(gradient)
    return gradient * (limit / norm.clamp(min=limit)), norm
