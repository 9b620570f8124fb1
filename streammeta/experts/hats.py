"""Networks on hat-basis inputs: online at several rates, and one that rehearses its segment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift.stacked import start_of
from streammeta.experts import hat_kernels
from streammeta.experts.family import Floats, Stacked, World
from streammeta.meta.net import Net, refit, seed_class

#: Step sizes of the networks that learn from each row once, and of those that rehearse the segment.
RATES, REHEARSING = (1e-3, 3e-3, 1e-2), (1e-3,)
#: Rows of a step of the latter: the newest, and others of the segment.
BATCH = 16
#: Rows of a segment before any is rehearsed.
ENOUGH = 8
BINS, HIDDEN = 10, 64
#: Labels at which knots are put where the newest rows lie: the first times, and then every so many.
RENEWED, EVERY, LOOKED_AT = (64, 256, 1024), 2048, 2048
#: Of the initial weights behind the hidden units: an answer begins near even.
HEAD = 0.1


class Hats(Stacked):
    """Stacked networks ``theta (K, E, P)`` with the knots ``(K, C, B)`` that they read columns by.

    Args:
        width: raw columns.
        hatted: the first C of them are numbers, or may be.
        outputs: room for so many classes, 1 for values.
        seed: of the initial weights and of what is rehearsed.
        replay: whether one of them rehearses.
    """

    FIELDS = ("theta", "second", "steps", "knots", "n_knots")
    theta: NDArray[np.float32]
    second: NDArray[np.float32]
    steps: NDArray[np.int64]
    knots: Floats
    n_knots: NDArray[np.int64]

    def __init__(
        self, width: int, hatted: int, outputs: int, seed: int, *, replay: bool = True
    ) -> None:
        self.width, self.hatted, self.seed = width, hatted, seed
        self.chances = start_of(seed)
        self.inputs = width + hatted * BINS
        self.net = Net((self.inputs, HIDDEN, outputs))
        rehearsing = REHEARSING if replay else ()
        self.rates = np.array([*RATES, *rehearsing], np.float32)
        self.batches = np.array([1] * len(RATES) + [BATCH] * len(rehearsing), np.int64)
        self.single = np.ones_like(self.batches)  # while there are no others to draw from
        self.names = tuple(f"hat@{r:g}" for r in RATES)
        self.names += tuple(f"hat-replay@{r:g}" for r in rehearsing)
        self._allocate()

    def _fresh(self) -> dict[str, NDArray[Any]]:
        shape = (len(self.rates), self.net.n_params)
        return {
            "theta": self._initial(),
            "second": np.zeros(shape, np.float32),
            "steps": np.zeros(len(self.rates), np.int64),
            "knots": np.zeros((self.hatted, BINS)),
            "n_knots": np.zeros(self.hatted, np.int64),
        }

    def _initial(self) -> NDArray[np.float32]:
        """Hats start at 0: a column is a straight line until it is known how it is not."""
        rng = np.random.default_rng(self.seed)
        theta = np.zeros((len(self.rates), self.net.n_params), np.float32)
        linear = [c * (1 + BINS) if c < self.hatted else self.hatted * BINS + c
                  for c in range(self.width)]  # fmt: skip
        cut, outputs = self.inputs * HIDDEN, self.net.sizes[-1]
        for e in range(len(theta)):
            first = theta[e, :cut].reshape(self.inputs, HIDDEN)
            first[linear] = rng.normal(0.0, np.sqrt(2.0 / max(4, self.width)), (self.width, HIDDEN))
            head = theta[e, cut + HIDDEN : cut + HIDDEN + HIDDEN * outputs]
            head[:] = rng.normal(0.0, HEAD * np.sqrt(2.0 / HIDDEN), len(head))
        return theta

    def predict(self, key: int, raw: Floats, world: World, out: Floats) -> None:
        """``out (n, m, O)`` <- what each network says to raw rows ``(n, D)``."""
        hat_kernels.predict_hats(
            self.theta[key], self.inputs, HIDDEN, raw, world.scaled, world.means, world.spreads,
            self.knots[key], self.n_knots[key], world.n_classes, world.task, out,
        )  # fmt: skip

    def learn(self, key: int, world: World) -> None:
        """One step of each network, on the newest row or on a batch of its segment."""
        if world.seen in RENEWED or world.seen % EVERY == 0:
            newest = np.arange(max(0, world.seen - LOOKED_AT), world.seen) % len(world.rows)
            hat_kernels.renew_knots(
                world.rows[newest], world.scaled, self.knots[key], self.n_knots[key],
                self.theta[key], self.second[key], HIDDEN,
            )  # fmt: skip
        hat_kernels.learn_hats(
            self.theta[key], self.second[key], self.steps[key], self.rates,
            self.batches if world.inside >= ENOUGH else self.single, self.inputs, HIDDEN,
            self.net.sizes[-1], world.rows, world.targets, world.seen, world.inside, world.scaled,
            world.means, world.spreads, self.knots[key], self.n_knots[key], world.n_classes,
            world.task, world.centre, world.scale, self.chances + world.seen * BATCH,
        )  # fmt: skip

    def seed_class(self, index: int) -> None:
        """Class ``index`` starts from the mean of the classes before it."""
        seed_class(self.theta, self.net, index)

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""
        wide = Net((self.inputs, HIDDEN, outputs))
        for name in ("theta", "second"):
            setattr(self, name, refit(getattr(self, name), self.net, wide))
        self.net = wide
