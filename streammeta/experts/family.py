"""What a family of experts is to the engine: a few members that predict and learn side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from streammeta.boxed import Box
from streammeta.experts.kernels import CLASSIFICATION

Floats = NDArray[np.float64]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]
#: Keys that have the families; any further ones have the networks of the bank alone, for families
#: take some megabytes for each. Rows that are kept of each of those keys.
KEYS, PAST = 64, 4096
#: A ``NamedTuple`` of arrays.
Table = TypeVar("Table", bound=NamedTuple)


class World(NamedTuple):
    """How rows are read, of all keys; families get it in a box (``streammeta.boxed``).

    ``scaled (D,)``: 1 where a column is standardised, by ``means`` and ``spreads (K, D)`` (mean and
    variance, of ``counts (K, D)`` values), ``kernels.NOT_READ`` where nobody reads it now; ``units
    (K, 2)``: centre and scale of the target; ``n_classes (1,)``, 1 of values.

    Of the first ``KEYS`` keys also the newest rows with labels: rings ``rows (K', R, D)`` and
    ``targets (K', R)``, in units of the target, with their row ``numbers (K', R)``; ``seen (K',)``
    of them were added, the newest ``inside (K',)`` of all in it are of the segment.
    """

    scaled: Floats
    counts: Floats
    means: Floats
    spreads: Floats
    units: Floats
    n_classes: I64
    rows: Floats
    targets: Floats
    numbers: I64
    seen: I64
    inside: I64
    task: int


@njit(cache=True, nogil=True)
def _boxed(table: World) -> Box:
    return Box(table)  # type: ignore[no-untyped-call]


def boxed_world(world: World) -> Box:
    """For compiled code; Python finds it as ``table``."""
    box: Box = _boxed(world)
    box.table = world
    return box


class Space(NamedTuple):
    """What a family is made for: raw rows of ``width`` columns, of which the first ``hatted`` are
    numbers, or may be; ``outputs``: room for so many classes, 1 for values; ``replay``: whether
    rows may be learned from again. The last ``lagged`` columns hold labels that have arrived.
    ``doubt``: whether it may be allowed for that some classes were given wrongly."""

    width: int
    hatted: int
    outputs: int
    task: int = CLASSIFICATION
    seed: int = 0
    replay: bool = True
    lagged: int = 0
    doubt: bool = True


class Family(Protocol):
    """Members whose state is stacked over keys; all of it is in ``tensors``."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of its members, in order."""

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays, a new key starts afresh."""

    def start(self, key: int) -> None:
        """Forget everything of a key."""

    def predict(self, key: int, raw: Floats, world: Box, out: Floats, at: int) -> None:
        """``out (n, M, O)`` <- from row ``at`` on, what each member says to raw rows ``(n, D)``:
        probabilities, or a value in units of the target. Changes nothing."""

    def learn(self, key: int, world: Box) -> None:
        """A label of the current segment has come: the newest row of ``world``."""

    def awake(self, key: int) -> Flags:
        """Which members ``(M,)`` have something to say; looked at after ``start``, ``settle``."""

    def close(self, key: int, world: Box, ended: int) -> None:
        """The segment has ended: its ``ended`` newest rows stand before those ``inside`` of the new
        one. What takes long waits for ``settle``."""

    def settle(self, key: int, world: Box) -> I64:
        """There is time for what ``close`` has left to do, if anything. The places of members that
        are others from now on."""

    def seed_class(self, index: int) -> None:
        """Class ``index`` is new; there is room for it."""

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name to array, for a snapshot."""

    def load(self, tensors: dict[str, NDArray[Any]]) -> None:
        """What ``tensors`` returned."""


class Stacked(ABC, Generic[Table]):
    """A table of arrays with a leading axis of keys: the part that all families share.

    Compiled code takes it in one piece, as ``box``.
    """

    names: tuple[str, ...]
    #: Arrays of the table that ``predict`` does not read.
    unread: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        """With room for no key."""
        fresh = self._fresh()
        self.table = fresh._replace(
            **{n: np.empty((0, *a.shape), a.dtype) for n, a in fresh._asdict().items()}
        )

    @abstractmethod
    def _fresh(self) -> Table:
        """The arrays of one key that has just begun."""

    @abstractmethod
    def _boxed(self, table: Table) -> Box:
        """The table in a box, by a compiled function of its own module."""

    @property
    def table(self) -> Table:
        """The arrays, stacked over keys."""
        return self._table

    @table.setter
    def table(self, table: Table) -> None:
        self._table, self.box = table, self._boxed(table)

    def twin(self) -> Self:
        """One that answers the same, with arrays of its own of those that answering reads."""
        made = object.__new__(type(self))
        vars(made).update(vars(self))
        own = {n: a.copy() for n, a in self.table._asdict().items() if n not in self.unread}
        made.table = self.table._replace(**own)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "box"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.box = self._boxed(self._table)  # a copy has arrays of its own

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays, a new key starts afresh."""
        grown = {}
        for name, array in self._fresh()._asdict().items():
            old = getattr(self.table, name)
            new = np.empty((min(keys, KEYS), *array.shape), array.dtype)
            new[: len(old)] = old
            new[len(old) :] = array
            grown[name] = new
        self.table = self.table._replace(**grown)

    def start(self, key: int) -> None:
        """Forget everything of a key."""
        if key < KEYS:
            for array, fresh in zip(self.table, self._fresh(), strict=True):
                array[key] = fresh

    def awake(self, key: int) -> Flags:
        """All of them, always."""
        return np.ones(len(self.names), np.bool_)

    def close(self, key: int, world: Box, ended: int) -> None:
        """Members see for themselves where segments end, and go on."""

    def settle(self, key: int, world: Box) -> I64:
        """Nothing was left to do."""
        return np.empty(0, np.int64)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name to array, for a snapshot."""
        return dict(self.table._asdict())

    def load(self, tensors: dict[str, NDArray[Any]]) -> None:
        """What ``tensors`` returned."""
        self.table = self.table._replace(**{n: tensors[n].copy() for n in self.table._fields})
