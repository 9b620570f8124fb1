"""What the detectors listen to besides the mixture: a copy of an expert that no longer learns.

The better the mixture recovers, the quieter its error is after a change. The reference does not
recover: it is frozen when a segment is young, and anew each time the segment has doubled its
length. When the segment ends it is kept as that segment's context, so that a later change can be
told to lead back to it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streammeta.encode import CLIP
from streammeta.experts import kernels
from streammeta.experts.frozen import loss_of_frozen
from streammeta.meta.net import Net, refit

Floats = NDArray[np.float64]
#: Labelled rows of a segment at which the reference is frozen for the first time; then at each
#: doubling.
FIRST = 64
#: Rows that a reference has to be judged on before it is kept as a context.
JUDGED = 16
#: Past contexts that are kept for each key.
CONTEXTS = 12
#: Rows of a new segment before it can be said to be like a past one, by how many standard errors
#: their loss may be above what that context was used to, and at most how much it may be of what it
#: is by the reference of the segment that has just ended: a poor context is at home nowhere.
ENOUGH, ERRORS, SHARE = 3, 2.0, 0.33
#: Of a context: its network, and how it reads rows.
READING = ("theta", "means", "spreads", "scaled")


class Context(NamedTuple):
    """A frozen network with what it reads columns by, and the units it answers in.

    ``loss``: rows that it was judged on, mean and variance of its loss (half the Brier score or
    |residual|).
    """

    segment: int
    theta: NDArray[np.float32]
    means: Floats
    spreads: Floats
    scaled: Floats
    units: tuple[float, float]
    classes: int
    loss: tuple[float, float, float]


class References:
    """The reference of every key, and the contexts of its past segments.

    Arrays have a row for each key: ``theta (K, P)``, ``means``, ``spreads`` and ``scaled
    (K, D)``, by which it reads; ``about (K, 4)``: labelled rows at which it was frozen (0: there is
    none), classes known then, centre and scale of the target; ``loss (K, 3)``: rows, mean and sum
    of squared distances.
    """

    FIELDS = ("theta", "means", "spreads", "scaled", "about", "loss")

    def __init__(self, net: Net, width: int, task: int) -> None:
        self.task = task
        self._use(net)
        self.theta = np.zeros((0, net.n_params), np.float32)
        self.means, self.spreads = np.zeros((0, width)), np.zeros((0, width))
        self.scaled = np.zeros((0, width))
        self.about, self.loss = np.zeros((0, 4)), np.zeros((0, 3))
        self.contexts: dict[int, list[Context]] = {}

    def _use(self, net: Net) -> None:
        self.net, self.sizes = net, np.array(net.sizes, np.int64)

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays."""
        for name in self.FIELDS:
            old = getattr(self, name)
            new = np.zeros((keys, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    def widen_outputs(self, net: Net) -> None:
        """Move to ``net``, which differs in having more outputs."""
        self.theta = refit(self.theta, self.net, net)
        for key, kept in self.contexts.items():
            self.contexts[key] = [
                c._replace(theta=refit(c.theta[None], self.net, net)[0]) for c in kept
            ]
        self._use(net)

    def freeze(
        self, key: int, theta: NDArray[np.float32], means: Floats, spreads: Floats,
        scaled: Floats, age: int, classes: int, units: tuple[float, float],
    ) -> None:  # fmt: skip
        """``theta (P,)`` is the reference from now on; it has seen ``age`` rows of the segment."""
        self.theta[key], self.means[key], self.spreads[key] = theta, means, spreads
        self.scaled[key] = scaled
        self.about[key] = (age, classes, *units)
        self.loss[key] = 0.0

    @property
    def kept(self) -> int:
        """Contexts of all keys."""
        return sum(map(len, self.contexts.values()))

    def due(self, key: int, age: int) -> bool:
        """Whether a segment of ``age`` labelled rows gets a new reference."""
        return age >= FIRST and age >= 2.0 * self.about[key, 0]

    def frozen_loss(self, key: int, raw: Floats, truth: float) -> float | None:
        """Of a row ``raw (D,)`` the error (0 or 1) or |residual| of the newest context, or of the
        reference before there is any; ``None`` where there is neither."""
        contexts = self.contexts.get(key)
        if contexts:
            theta, means, spreads, scaled, (centre, scale), classes = contexts[-1][1:7]
        elif self.about[key, 0]:
            theta, means, spreads = self.theta[key], self.means[key], self.spreads[key]
            scaled = self.scaled[key]
            _, classes, centre, scale = self.about[key].tolist()
        else:
            return None
        found: float = loss_of_frozen(
            theta, self.sizes, raw, scaled, means, spreads, CLIP, centre, scale, truth,
            int(classes), self.task,
        )  # fmt: skip
        return found

    def close(self, key: int, segment: int, like: int | None) -> None:
        """The segment has ended: its reference becomes a context, in the place of the one that it
        was ``like``, or of the oldest where there are too many."""
        made, age = self._context(key, segment), self.about[key, 0]
        self.about[key] = self.loss[key] = 0.0
        if not age or made.loss[0] < JUDGED:
            return
        kept = [c for c in self.contexts.get(key, []) if c.segment != like]
        self.contexts[key] = [*kept, made][-CONTEXTS:]

    def known(self, key: int, raw: Floats, truths: Floats) -> int | None:
        """The segment whose context does on rows ``raw (n, D)``, ``truths (n,)`` as well as it was
        used to, the best of several; -1 where none does, ``None`` where rows are too few to say or
        the segment that ends has no reference to compare with."""
        if len(truths) < ENOUGH or not self.about[key, 0]:
            return None
        ended = self._context(key, -1)
        found, best = -1, SHARE * self._loss(ended, raw, truths)
        for context in self.contexts.get(key, ()):
            _, mean, variance = context.loss
            allowed = mean + ERRORS * math.sqrt(variance / len(truths))
            loss = self._loss(context, raw, truths)
            if loss <= allowed and loss < best:
                found, best = context.segment, loss
        return found

    def _loss(self, context: Context, raw: Floats, truths: Floats) -> float:
        """Its mean loss on rows ``raw (n, D)``."""
        out = np.empty(len(truths))
        kernels.frozen_losses(
            context.theta, self.sizes, raw, context.scaled, context.means, context.spreads, CLIP,
            *context.units, truths, context.classes, self.task, out,
        )  # fmt: skip
        return float(out.mean())

    def _context(self, key: int, segment: int) -> Context:
        """The reference of a key as the context of ``segment``."""
        _, classes, centre, scale = self.about[key].tolist()
        rows, mean, squares = self.loss[key].tolist()
        theta, means, spreads, scaled = (getattr(self, name)[key].copy() for name in READING)
        units, told = (centre, scale), (rows, mean, squares / max(rows, 1.0))
        return Context(segment, theta, means, spreads, scaled, units, int(classes), told)

    # -- snapshots ---------------------------------------------------------------------------

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], list[list[Any]]]:
        """Tensors, those of contexts stacked, and a JSON-ready row for each context."""
        tensors = {name: getattr(self, name) for name in self.FIELDS}
        kept = [(key, c) for key, contexts in self.contexts.items() for c in contexts]
        if kept:
            for name in READING:
                tensors[f"past-{name}"] = np.stack([getattr(c, name) for _, c in kept])
        return tensors, [[key, c.segment, c.units, c.classes, c.loss] for key, c in kept]

    def load_parts(self, tensors: dict[str, NDArray[Any]], info: list[list[Any]]) -> None:
        """What ``to_parts`` returned."""
        for name in self.FIELDS:
            setattr(self, name, tensors[name].copy())
        self.contexts = {}
        for i, (key, segment, units, classes, loss) in enumerate(info):
            theta, means, spreads, scaled = (tensors[f"past-{name}"][i].copy() for name in READING)
            about = tuple(units), classes, tuple(loss)
            made = Context(segment, theta, means, spreads, scaled, *about)
            self.contexts.setdefault(key, []).append(made)
