"""A bag of decision trees that grow, fold up and are replaced as the stream goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift.stacked import start_of
from streammeta.experts import tree_growth as growth
from streammeta.experts import tree_kernels
from streammeta.experts.family import PAST, Floats, Stacked, World

#: Trees that answer; each may have a challenger beside it.
BAG = 10
#: Nodes of a tree: a full one grows no more until a part of it folds up.
NODES = 256


class Trees(Stacked):
    """Trees that answer together, each with room for a challenger.

    ``links (K, 2 T, N, LINKS)``, ``facts (K, 2 T, N, FACTS + O)``, ``marks (K, 2 T, MARKS)`` and
    ``before (K, 2 T, R)`` are what ``tree_growth`` says; ``merits``, ``sums`` and ``filled`` what
    ``tree_kernels`` says; ``roles (K, T, 2)``: which trees answer, and which challenge them;
    ``varied (K, D)``: columns that have had two values. With 8 outputs and 8 columns a key takes
    .9 MB.

    Args:
        width: raw columns.
        outputs: room for so many classes, 1 for values.
        seed: of the columns and values that trees look at.
    """

    FIELDS = (
        "links", "facts", "marks", "merits", "sums", "filled", "before", "roles", "varied",
    )  # fmt: skip
    links: NDArray[np.int64]
    facts: Floats
    marks: NDArray[np.int64]
    merits: Floats
    sums: Floats
    filled: NDArray[np.int64]
    before: NDArray[np.int16]
    roles: NDArray[np.int64]
    varied: NDArray[np.bool_]

    def __init__(self, width: int, outputs: int, seed: int) -> None:
        self.width, self.outputs, self.seed = width, outputs, seed
        self.names = ("trees",)
        self._allocate()

    def _fresh(self) -> dict[str, NDArray[Any]]:
        trees, levels = 2 * BAG, tree_kernels.LEVELS
        new: dict[str, NDArray[Any]] = {
            "links": np.zeros((trees, NODES, growth.LINKS), np.int64),
            "facts": np.zeros((trees, NODES, growth.FACTS + max(2, self.outputs))),
            "marks": np.zeros((trees, growth.MARKS), np.int64),
            "merits": np.zeros((trees, tree_kernels.MERITS)),
            "sums": np.zeros((trees, levels, tree_kernels.BUCKETS, 2)),
            "filled": np.zeros((trees, levels), np.int64),
            "before": np.zeros((trees, PAST), np.int16),
            "roles": np.arange(trees).reshape(2, BAG).T.copy(),
            "varied": np.zeros(self.width, np.bool_),
        }
        for k in range(trees):
            tree_kernels.start_tree(
                new["links"][k], new["facts"][k], new["marks"][k], new["merits"][k],
                new["filled"][k], 0,
            )  # fmt: skip
        new["marks"][:, growth.ACTIVE] = np.arange(trees) < BAG
        new["marks"][:, growth.CHANCE] = start_of(self.seed) + (np.arange(trees) << 40)
        return new

    def predict(self, key: int, raw: Floats, world: World, out: Floats) -> None:
        """``out (n, 1, O)`` <- what the trees say to raw rows ``(n, D)``."""
        tree_kernels.predict_trees(
            self.links[key], self.facts[key], self.merits[key], self.roles[key], raw,
            world.n_classes, world.task, world.centre, world.scale, out,
        )  # fmt: skip

    def learn(self, key: int, world: World) -> None:
        """Every tree takes the newest row, and looks at its rows where it is time."""
        tree_kernels.learn_trees(
            self.links[key], self.facts[key], self.marks[key], self.merits[key], self.sums[key],
            self.filled[key], self.before[key], self.roles[key], self.varied[key], world.rows,
            world.targets, world.seen, world.n_classes, world.task, world.centre, world.scale,
        )  # fmt: skip

    def seed_class(self, index: int) -> None:
        """No node has seen it yet."""

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes."""
        more = max(0, growth.FACTS + outputs - self.facts.shape[-1])
        self.facts = np.pad(self.facts, ((0, 0), (0, 0), (0, 0), (0, more)))
        self.outputs = outputs
