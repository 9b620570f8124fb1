"""What a policy that chooses (``streammeta.meta.choice``) reads a stream by: recent losses of each
learner, and figures of the newest rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift import Explanation

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Evidence of ``n`` labels ago counts so many times less: ten, thirty, a hundred are remembered;
#: and all of the segment.
DISCOUNTS = np.array([0.9, 0.97, 0.99, 1.0])
TEN, HUNDRED, SEGMENT = 0, 2, 3  # places of these


class Traces:
    """Recent losses of every member of every key, and the last drift.

    ``sums`` and ``counts (K, 4, 2, M)``: discounted (``DISCOUNTS``) sums of two losses (0/1 or
    absolute error; negative log likelihood, or the logarithm of the absolute error) and of ones;
    ``born (K, M)``: the row at which the member that they are of was born; ``drift (K, 6)``: of the
    last alarm whether there was one, the row, whether it was gradual, the logarithm of its width,
    whether the context was known, and how many standard deviations the feature moved that moved
    most.
    """

    FIELDS = ("sums", "counts", "born", "drift")

    def __init__(self, keys: int, members: int) -> None:
        self.sums = np.zeros((keys, len(DISCOUNTS), 2, members))
        self.counts = np.zeros((keys, len(DISCOUNTS), members))
        self.born = np.zeros((keys, members), np.int64)
        self.drift = np.zeros((keys, 6))

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays."""
        for name in self.FIELDS:
            old = getattr(self, name)
            new = np.zeros((keys, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def add(self, key: int, born: NDArray[np.int64], awake: Flags, losses: Floats) -> None:
        """A label has come: ``losses (2, M)`` of those who were ``awake (M,)`` when it was asked,
        born at ``born (M,)``; who has been replaced since begins anew."""
        new = self.born[key] != born
        self.sums[key][..., new] = 0.0
        self.counts[key][..., new] = 0.0
        self.born[key] = born
        self.sums[key] *= DISCOUNTS[:, None, None]
        self.counts[key] *= DISCOUNTS[:, None]
        self.sums[key][..., awake] += losses[:, awake]
        self.counts[key][..., awake] += 1.0

    def segment(self, key: int, row: int, told: Explanation | None) -> None:
        """A new segment begins with an alarm at ``row``."""
        self.sums[key, SEGMENT] = self.counts[key, SEGMENT] = 0.0
        self.drift[key] = 0.0
        self.drift[key, :2] = 1.0, row
        if told is not None:
            self.drift[key, 2:] = (
                told.shape == "gradual",
                math.log1p(told.width),
                told.context == "known",
                max((abs(m.effect) for m in told.moved), default=0.0),
            )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name to array, for a snapshot."""
        return {name: getattr(self, name) for name in self.FIELDS}


def balance(labels: Floats) -> float:
    """Entropy of the classes among ``labels (n,)`` over what it could be, 0 to 1.

    >>> round(balance(np.array([0.0, 1.0, 1.0, 0.0])), 3), balance(np.zeros(4))
    (1.0, 0.0)
    """
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2:
        return 0.0
    p = counts / counts.sum()
    return float(-(p * np.log(p)).sum() / math.log(len(counts)))


def autocorrelation(targets: NDArray[Any], values: bool) -> float:
    """Of ``targets (n,)`` in their order: the correlation of neighbours; of classes by how much
    more often a label repeats the one before than by chance.

    >>> autocorrelation(np.array([0.0, 0.0, 1.0, 1.0]), values=False)
    0.16666666666666663
    """
    n = len(targets)
    if n < 3:
        return 0.0
    if values:
        centred = targets - targets.mean()
        return float((centred[1:] * centred[:-1]).sum() / max(float((centred**2).sum()), 1e-12))
    _, counts = np.unique(targets, return_counts=True)
    chance = float(((counts / n) ** 2).sum())
    return float((targets[1:] == targets[:-1]).mean()) - chance


def noise(x: Floats, y: Floats, values: bool) -> float:
    """How much labels ``y (n,)`` differ from that of the nearest other row of ``x (n, D)``, over
    how much any two of them differ: 0 where neighbours agree, about 1 where x says nothing. Of
    classes the error of the nearest neighbour is at most twice the best possible (Cover & Hart
    1967)."""
    far = ((x[:, None] - x[None]) ** 2).sum(2)
    np.fill_diagonal(far, np.inf)
    nearest = far.argmin(1)
    apart = np.abs(y[:, None] - y[None]) if values else (y[:, None] != y[None]).astype(np.float64)
    usual = apart.sum() / (len(y) * (len(y) - 1))
    return float(min(apart[np.arange(len(y)), nearest].mean() / max(usual, 1e-9), 2.0))
