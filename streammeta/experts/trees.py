"""A bag of decision trees that grow, fold up and are replaced as the stream goes on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from drift.stacked import start_of
from streammeta.boxed import Box
from streammeta.experts import tree_growth as growth
from streammeta.experts import tree_kernels
from streammeta.experts.family import I64, PAST, Floats, Space, Stacked
from streammeta.experts.kernels import NOT_READ

#: Trees that answer; each may have a challenger beside it.
BAG = 10
#: Nodes of a tree: a full one grows no more until a part of it folds up.
NODES = 256


class _Table(NamedTuple):
    """``links (K, 2 T, N, LINKS)``, ``facts (K, 2 T, N, FACTS + O)``, ``marks (K, 2 T, MARKS)`` and
    ``before (K, 2 T, R)`` are what ``tree_growth`` says; ``merits``, ``sums`` and ``filled`` what
    ``tree_kernels`` says; ``roles (K, T, 2)``: which trees answer, and which challenge them;
    ``varied (K, D)``: columns that have had two values."""

    links: I64
    facts: Floats
    marks: I64
    merits: Floats
    sums: Floats
    filled: I64
    before: NDArray[np.int16]
    roles: I64
    varied: NDArray[np.bool_]


@njit(cache=True, nogil=True)
def _boxed(table: _Table) -> Box:
    return Box(table)  # type: ignore[no-untyped-call]


class Trees(Stacked[_Table]):
    """Trees that answer together, each with room for a challenger; the seed is of the columns and
    values that they look at. With 8 outputs and 8 columns a key takes .9 MB."""

    unread = ("marks", "sums", "filled", "before", "varied")

    def __init__(self, space: Space) -> None:
        self.width, self.outputs, self.seed = space.width, space.outputs, space.seed
        self.names = ("trees",)
        super().__init__()

    def _boxed(self, table: _Table) -> Box:
        found: Box = _boxed(table)
        return found

    def _fresh(self) -> _Table:
        trees, levels = 2 * BAG, tree_kernels.LEVELS
        new = _Table(
            links=np.zeros((trees, NODES, growth.LINKS), np.int64),
            facts=np.zeros((trees, NODES, growth.FACTS + max(2, self.outputs))),
            marks=np.zeros((trees, growth.MARKS), np.int64),
            merits=np.zeros((trees, tree_kernels.MERITS)),
            sums=np.zeros((trees, levels, tree_kernels.BUCKETS, 2)),
            filled=np.zeros((trees, levels), np.int64),
            before=np.zeros((trees, PAST), np.int16),
            roles=np.arange(trees).reshape(2, BAG).T.copy(),
            varied=np.zeros(self.width, np.bool_),
        )
        for k in range(trees):
            tree_kernels.start_tree(
                new.links[k], new.facts[k], new.marks[k], new.merits[k], new.filled[k], 0
            )
        new.marks[:, growth.ACTIVE] = np.arange(trees) < BAG
        new.marks[:, growth.CHANCE] = start_of(self.seed) + (np.arange(trees) << 40)
        return new

    def predict(self, key: int, raw: Floats, world: Box, out: Floats, at: int) -> None:
        """``out (n, M, O)`` <- in row ``at``, what the trees say to raw rows ``(n, D)``."""
        ask(self.box, world, key, raw, out, at)

    def learn(self, key: int, world: Box) -> None:
        """Every tree takes the newest row, and looks at its rows where it is time."""
        learn(self.box, world, key)

    def seed_class(self, index: int) -> None:
        """No node has seen it yet."""

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""
        facts = self.table.facts
        more = max(0, growth.FACTS + outputs - facts.shape[-1])
        self.outputs = outputs
        wide = np.pad(facts, ((0, 0), (0, 0), (0, 0), (0, more)))
        self.table = self.table._replace(facts=wide)


@njit(cache=True, nogil=True, error_model="numpy")
def ask(own: Box, world: Box, key: int, raw: Floats, out: Floats, at: int) -> None:
    t, w = own.of, world.of
    n_out, centre, scale = w.n_classes[0], w.units[key, 0], w.units[key, 1]
    for r in range(len(raw)):
        tree_kernels.predict_row(t.links[key], t.facts[key], t.merits[key], t.roles[key], raw[r],
                                 n_out, w.task, centre, scale, out[r, at, :n_out])  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def learn(own: Box, world: Box, key: int) -> None:
    t, w = own.of, world.of
    tree_kernels.see_columns(t.varied[key], w.rows[key], w.seen[key])
    read = t.varied[key] & (w.scaled != NOT_READ)
    tree_kernels.learn_trees(t.links[key], t.facts[key], t.marks[key], t.merits[key], t.sums[key],
                             t.filled[key], t.before[key], t.roles[key], read,
                             w.rows[key], w.targets[key], w.seen[key], w.n_classes[0], w.task,
                             w.units[key, 0], w.units[key, 1])  # fmt: skip
