"""The meta-parameters that a stream shares: a learner, its state, and the device it lives on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streammeta.config import ModelConfig, OuterConfig
from streammeta.errors import ConfigError
from streammeta.meta.gradient_based import Outer
from streammeta.meta.learner import (
    AdaptInfo,
    Batch,
    MetaInfo,
    MetaLearner,
    PlainSteps,
    RidgeHead,
    State,
)
from streammeta.meta.loss import Task
from streammeta.meta.net import Net, refit, seed_class
from streammeta.registry import load


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: ``name`` is not a device of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.device is {name!r}, which cannot be used: {reason}") from None
    return device


def _theta(state: State) -> Tensor:
    """Of a learner that does not say."""
    return state.theta


def _none(state: State) -> None:
    """The plan of a learner that has none."""


@dataclass(frozen=True)
class MetaParameters:
    """A meta-learner with its state; every change makes a new one.

    ``n_classes``: outputs that have been seeded; ``updates``: outer steps taken.
    """

    learner: MetaLearner
    net: Net
    state: State
    device: torch.device
    n_classes: int = 0
    updates: int = 0

    @classmethod
    def fresh(cls, config: ModelConfig, net: Net, task: Task) -> MetaParameters:
        """Meta-parameters before any outer step, from the config's seed.

        Raises:
            UsageError: no such learner.
            ConfigError: no such device.
        """
        make = load("learners", config.learner)
        options = {}
        if config.outer != OuterConfig():  # a learner of one's own may have none
            options["outer"] = Outer(**config.outer.model_dump())
        learner = make(
            net, task, inner_lr=config.inner_lr, steps=config.inner_steps,
            outer_lr=config.outer_lr, **options,
        )  # fmt: skip
        device = pick_device(config.device)
        theta = torch.from_numpy(net.init(np.random.default_rng(config.seed + 1)))
        return cls(learner, net, learner.init(theta.to(device)), device)

    def matching(self, net: Net, n_classes: int) -> MetaParameters:
        """These parameters with room for ``net``'s outputs and every class seeded."""
        if net == self.net and n_classes <= max(self.n_classes, 1):
            return self
        old, state = self.net, self.state
        n = old.n_params

        def wide(part: Tensor) -> NDArray[np.float32]:
            return refit(part.cpu().numpy(), old, net)

        def moved(part: NDArray[np.float32]) -> Tensor:
            return torch.from_numpy(part).to(self.device)

        theta = wide(state.theta)
        for index in range(max(self.n_classes, 1), n_classes):
            seed_class(theta, net, index)
        first, second = moved(wide(state.first[:n])), moved(wide(state.second[:n]))
        log_rates, r = state.log_rates, n + state.log_rates.numel()
        tails = [state.first[n:], state.second[n:]]
        if log_rates.numel() == n:
            rates = wide(log_rates)
            rates[refit(np.ones(n, np.float32), old, net) == 0] = log_rates.mean().item()
            log_rates = moved(rates)
            tails = [
                torch.cat([moved(wide(part[n:r])), part[r:]])
                for part in (state.first, state.second)
            ]
        new = State(
            moved(theta), log_rates, state.extra, torch.cat([first, tails[0]]),
            torch.cat([second, tails[1]]), state.taken,
        )  # fmt: skip
        learner = replace(self.learner, net=net)  # type: ignore[type-var]
        return replace(self, learner=learner, net=net, state=new, n_classes=n_classes)

    def adapt(
        self, x: NDArray[np.float32], y: NDArray[np.float32], n_classes: int,
        start: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], AdaptInfo]:  # fmt: skip
        """Fast weights ``(P,)`` for one support ``x (S, D)``, ``y (S,)``.

        ``start (P,)`` takes the place of everything learned: other initial weights, and the
        inner rates as they were at first.
        """
        state = self.state
        if start is not None:
            state = self.learner.init(torch.from_numpy(start).to(self.device))
        tx = torch.from_numpy(x).to(self.device)[None]
        ty = torch.from_numpy(y).to(self.device)[None]
        fast, info = self.learner.adapt(state, tx, ty, torch.ones_like(ty), n_classes)
        return fast[0].cpu().numpy(), info

    @property
    def start(self) -> NDArray[np.float32]:
        """The initial weights ``(P,)``."""
        return self.state.theta.cpu().numpy()

    @property
    def unadapted(self) -> Tensor:
        """The weights ``(P,)`` that predict before any adaptation."""
        found: Tensor = getattr(self.learner, "unadapted", _theta)(self.state)
        return found

    def plan(self, start: NDArray[np.float32] | None = None) -> PlainSteps | RidgeHead | None:
        """What compiled code needs to adapt on the CPU in the place of ``adapt``, with the same
        ``start``; ``None`` where only the learner itself can."""
        if start is None:
            return self._plan
        return self._plan_from(self.learner.init(torch.from_numpy(start)))

    @cached_property
    def _plan(self) -> PlainSteps | RidgeHead | None:
        return self._plan_from(State(*(part.cpu() for part in self.state)))

    def _plan_from(self, state: State) -> PlainSteps | RidgeHead | None:
        made: PlainSteps | RidgeHead | None = getattr(self.learner, "plan", _none)(state)
        return made

    def update(
        self, parts: list[NDArray[np.float32]], n_classes: int
    ) -> tuple[MetaParameters, MetaInfo]:
        """One outer step on the six arrays of a ``Batch``."""
        batch = Batch(*(torch.from_numpy(part).to(self.device) for part in parts))
        state, info = self.learner.meta_update(self.state, batch, n_classes)
        return replace(self, state=state, updates=self.updates + 1), info

    def rates(self) -> tuple[float, float, float]:
        """Least, mean and greatest inner rate."""
        rates = self.state.log_rates.exp()
        return float(rates.min()), float(rates.mean()), float(rates.max())

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name to array on the CPU, for a snapshot."""
        return {name: part.cpu().numpy() for name, part in self.state._asdict().items()}

    def with_tensors(
        self, tensors: dict[str, NDArray[Any]], n_classes: int, updates: int
    ) -> MetaParameters:
        """These parameters with the state that ``tensors`` described."""
        nothing = np.empty(0, np.float32)  # of a learner without the part
        parts = {
            n: torch.from_numpy(np.array(tensors.get(n, nothing))).to(self.device)
            for n in State._fields
        }
        return replace(self, state=State(**parts), n_classes=n_classes, updates=updates)
