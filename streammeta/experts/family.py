"""What a family of experts is to the engine: a few members that predict and learn side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
#: Keys that have the families; any further ones have the networks of the bank alone, for families
#: take some megabytes for each. Rows that are kept of each of those keys.
KEYS, PAST = 64, 4096


class World(NamedTuple):
    """How rows of a key are read: ``scaled (D,)``, ``means (D,)``, ``spreads (D,)`` of its columns
    (``streammeta.experts.kernels.standardise``), classes known (1 of values) and the task; centre
    and scale of the target.

    ``rows (R, D)``, ``targets (R,)``: a ring of its newest rows with labels, in units of the
    target; ``seen`` of them were added, the ``inside`` newest of all in it are of the segment.
    """

    scaled: Floats
    means: Floats
    spreads: Floats
    n_classes: int
    task: int
    centre: float
    scale: float
    rows: Floats
    targets: Floats
    seen: int
    inside: int


class Family(Protocol):
    """Members whose state is stacked over keys; all of it is in ``tensors``."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its members, in order."""

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays, a new key starts afresh."""

    def start(self, key: int) -> None:
        """Forget everything of a key."""

    def predict(self, key: int, raw: Floats, world: World, out: Floats) -> None:
        """``out (n, m, O)`` <- what each member says to raw rows ``(n, D)``: probabilities, or a
        value in units of (centre, scale). Changes nothing."""

    def learn(self, key: int, world: World) -> None:
        """A label of the current segment has come: the newest row of ``world``."""

    def seed_class(self, index: int) -> None:
        """Class ``index`` is new; there is room for it."""

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name to array, for a snapshot."""

    def load(self, tensors: dict[str, NDArray[Any]]) -> None:
        """What ``tensors`` returned."""


class Stacked(ABC):
    """Arrays with a leading axis of keys, by name: the part that all families share.

    A subclass names its arrays in ``FIELDS`` and makes those of one new key in ``_fresh``.
    """

    FIELDS: tuple[str, ...] = ()

    @abstractmethod
    def _fresh(self) -> dict[str, NDArray[Any]]:
        """The arrays of one key that has just begun."""

    def _allocate(self) -> None:
        for name, array in self._fresh().items():
            setattr(self, name, np.empty((0, *array.shape), array.dtype))

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays, a new key starts afresh."""
        for name, array in self._fresh().items():
            old = getattr(self, name)
            new = np.empty((min(keys, KEYS), *array.shape), array.dtype)
            new[: len(old)] = old
            new[len(old) :] = array
            setattr(self, name, new)

    def start(self, key: int) -> None:
        """Forget everything of a key."""
        if key < KEYS:
            for name, array in self._fresh().items():
                getattr(self, name)[key] = array

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name to array, for a snapshot."""
        return {name: getattr(self, name) for name in self.FIELDS}

    def load(self, tensors: dict[str, NDArray[Any]]) -> None:
        """What ``tensors`` returned."""
        for name in self.FIELDS:
            setattr(self, name, tensors[name].copy())
