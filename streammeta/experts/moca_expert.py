"""MOCA as a member of the mixture: closed-form heads, and a belief over when the stream changed.

Harrison, Sharma, Finn, Pavone 2020 (arXiv 1912.08866): ``streammeta.meta.moca``. It asks no
detector and no mixture: every row moves the belief over where the present run began, and each
possible run has a Bayesian last layer of its own (ALPaCA for values, PCOC for classes). What these
rest on, how often changes come included, is meta-learned on stretches of the rows that came, whose
changes nobody marked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streammeta.boxed import Box
from streammeta.encode import CLIP
from streammeta.experts import kernels
from streammeta.experts.family import I64, KEYS, Flags, Floats, Space, World
from streammeta.experts.kernels import REGRESSION
from streammeta.meta.alpaca import Alpaca
from streammeta.meta.learner import State
from streammeta.meta.moca import Moca, Runs, Stats
from streammeta.meta.net import Net, refit, seed_class
from streammeta.meta.parameters import MetaParameters
from streammeta.meta.pcoc import Pcoc

#: Units of the hidden layers; the last one is what heads rest on. Runs that are kept.
HIDDEN, RUNS = (32, 16), 16
#: And in training, where each of them costs a way back as well.
TRAINED_RUNS = 6
#: Labels from one outer step to the next; after the first ``EARLY`` labels so many times as many.
EVERY, EARLY, RARER = 32, 4_096, 8
#: Of an outer step: so many stretches of so many rows each, and its rate.
SERIES, LENGTH, OUTER_LR = 8, 32, 5e-3
#: Newest rows that are learned again after it, for what features mean has changed.
AGAIN = 64


class MocaExpert:
    """One belief for each key, over double-precision meta-parameters of its own."""

    names = ("moca",)

    def __init__(self, space: Space) -> None:
        self.space, self.outputs = space, space.outputs
        self.metas: list[MetaParameters] = []
        self.runs: list[Runs] = []
        self.learned: list[int] = []

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays, a new key starts afresh."""
        while len(self.metas) < min(keys, KEYS):
            self.metas.append(self._meta())
            self.runs.append(self._begin(self.metas[-1]))
            self.learned.append(0)

    def start(self, key: int) -> None:
        """Forget everything of a key."""
        if key < KEYS:
            self.metas[key], self.learned[key] = self._meta(), 0
            self.runs[key] = self._begin(self.metas[key])

    def predict(self, key: int, raw: Floats, world: Box, out: Floats, at: int) -> None:
        """``out (n, M, O)`` <- in row ``at``, what runs say to ``raw (n, D)``, by the belief."""
        seen: World = world.table
        meta, n = self.metas[key], self._classes(seen)
        learner = self._learner(meta, n)
        beliefs = learner.beliefs(meta.state)
        runs = self._known(self.runs[key], n)
        x = torch.from_numpy(_standard(seen, key, raw))
        with torch.no_grad():
            for r in range(len(raw)):  # one by one: the same bits, however many are asked for
                (row,) = beliefs.rows(x[r : r + 1, None], x.new_zeros(1, 1))
                told, _ = beliefs.tell(runs.stats, row, runs.log_belief)
                share = told.log_belief.exp()
                if self.space.task == REGRESSION:
                    out[r, at, 0] = float((share * told.mean).sum())
                else:
                    said = (share.unsqueeze(-1) * told.mean.exp()).sum(1)[0]
                    out[r, at] = 0.0
                    out[r, at, :n] = (said / said.sum()).numpy()

    def learn(self, key: int, world: Box) -> None:
        """The newest row moves the belief; at times what all runs rest on is trained."""
        seen: World = world.table
        self.learned[key] += 1
        there = min(int(seen.seen[key]), seen.rows.shape[1])
        every = EVERY if self.learned[key] <= EARLY else RARER * EVERY
        rows = 1
        if self.learned[key] % every == 0 and self.space.replay and there >= LENGTH:
            self._train(key, seen, there)
            rows = min(there, AGAIN)
            self.runs[key] = self._begin(self.metas[key])
        x, y = self._newest(seen, key, rows, 0)
        n = self._classes(seen)
        with torch.no_grad():
            known = self._known(self.runs[key], n)
            found = self._learner(self.metas[key], n).filter(
                self.metas[key].state, x[None], y[None], known
            )
        self.runs[key] = self._kept(found.runs)

    def awake(self, key: int) -> Flags:
        """Always."""
        return np.ones(1, np.bool_)

    def close(self, key: int, world: Box, ended: int) -> None:
        """It has a belief of its own about that."""

    def settle(self, key: int, world: Box) -> I64:
        """Nothing was left to do."""
        return np.empty(0, np.int64)

    def seed_class(self, index: int) -> None:
        """Its cloud starts where those of the classes before are, in the mean."""
        for key, meta in enumerate(self.metas):
            theta = meta.state.theta.numpy().copy()
            seed_class(theta, meta.net, index)
            state = meta.state._replace(theta=torch.from_numpy(theta))
            self.metas[key] = replace(meta, state=state)

    def widen_outputs(self, outputs: int) -> None:
        """Room for more classes, of which no run has seen a row."""
        self.outputs = outputs
        self.metas = [meta.matching(self._net(), 0) for meta in self.metas]
        self.runs = [self._kept(runs) for runs in self.runs]

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name to array with a leading axis of keys."""
        if not self.metas:
            fresh = MocaExpert(self.space._replace(outputs=self.outputs))
            fresh.grow_keys(1)
            return {name: array[:0] for name, array in fresh.tensors().items()}
        parts = [_parts(*one) for one in zip(self.metas, self.runs, strict=True)]
        found = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        return {**found, "learned": np.array(self.learned, np.int64)}

    def load(self, tensors: dict[str, NDArray[Any]]) -> None:
        """What ``tensors`` returned."""
        keys = len(tensors["learned"])
        self.metas, self.runs = [], []
        for key in range(keys):
            own = {name: torch.from_numpy(np.array(array[key])) for name, array in tensors.items()}
            state = State(*(own[f"meta.{name}"] for name in State._fields))
            self.metas.append(replace(self._meta(), state=state))
            stats = (own["stats.0"], own["stats.1"])
            self.runs.append(Runs(own["log_belief"], own["start"], stats, int(own["row"])))
        self.learned = [int(n) for n in tensors["learned"]]

    def _meta(self) -> MetaParameters:
        """Before any row: the same for every key. All of one shape as long as it lives, though
        outputs may have been added: they are zeros."""
        first = Net((self.space.width, *HIDDEN, self.space.outputs))
        rng = np.random.default_rng([self.space.seed, 1912_08866])
        theta = refit(first.init(rng).astype(np.float64), first, self._net())
        learner: Any = self._model()
        state = Moca(learner, None, RUNS).init(torch.from_numpy(theta))
        return MetaParameters(learner, self._net(), state, torch.device("cpu"))

    def _net(self) -> Net:
        return Net((self.space.width, *HIDDEN, self.outputs))

    def _model(self) -> Alpaca | Pcoc:
        if self.space.task == REGRESSION:
            return Alpaca(self._net(), "regression", outer_lr=OUTER_LR)
        return Pcoc(self._net(), "classification", outer_lr=OUTER_LR)

    def _learner(self, meta: MetaParameters, n_classes: int) -> Moca:
        assert isinstance(meta.learner, Alpaca | Pcoc)
        return Moca(meta.learner, None, RUNS, n_classes)

    def _classes(self, world: World) -> int:
        return max(1, int(world.n_classes[0]))

    def _begin(self, meta: MetaParameters) -> Runs:
        """One run without a row, and room for as many as are kept."""
        with torch.no_grad():
            return self._learner(meta, self.outputs).begin(meta.state, 1, RUNS)

    def _known(self, runs: Runs, n_classes: int) -> Runs:
        """``runs`` as far as there are classes."""
        if self.space.task == REGRESSION:
            return runs
        return runs._replace(stats=tuple(part[:, :, :n_classes] for part in runs.stats))

    def _kept(self, runs: Runs) -> Runs:
        """``runs`` with room for further classes."""
        if self.space.task == REGRESSION:
            return runs
        return runs._replace(stats=_wide(runs.stats, self.outputs))

    def _newest(self, world: World, key: int, rows: int, back: int) -> tuple[torch.Tensor, ...]:
        """So many rows ``x (n, D)``, ``y (n,)``, the last of them ``back`` before the newest."""
        last = int(world.seen[key]) - back
        slots = np.arange(last - rows, last) % world.rows.shape[1]
        x, y = _standard(world, key, world.rows[key, slots]), world.targets[key, slots]
        if self.space.task == REGRESSION:
            centre, scale = world.units[key]
            y = np.clip((y - centre) / scale, -CLIP, CLIP)
        return torch.from_numpy(x), torch.from_numpy(y.astype(np.float64))

    def _train(self, key: int, world: World, there: int) -> None:
        """One outer step on stretches of the ``there`` rows kept, wherever they changed."""
        rng = np.random.default_rng([self.space.seed, self.learned[key]])
        meta = self.metas[key]
        learner = replace(self._learner(meta, self._classes(world)), runs=TRAINED_RUNS)
        backs = rng.integers(0, there - LENGTH + 1, SERIES)
        drawn = [self._newest(world, key, LENGTH, int(back)) for back in backs]
        x, y = (torch.stack(part) for part in zip(*drawn, strict=True))
        state, _ = learner.meta_update(meta.state, x, y)
        self.metas[key] = replace(meta, state=state, updates=meta.updates + 1)


def _standard(world: World, key: int, raw: Floats) -> Floats:
    """Rows ``(n, D)`` as networks read them, in double precision."""
    found = np.empty(raw.shape, np.float32)
    kernels.standardise(raw, world.scaled, world.means[key], world.spreads[key], CLIP, found)
    return found.astype(np.float64)


def _wide(stats: Stats, classes: int) -> Stats:
    """Counts ``(B, K, C)`` and sums ``(B, K, C, H)`` with zeros for classes beyond."""
    counts, sums = stats
    more = classes - counts.shape[2]
    pad = torch.nn.functional.pad
    return pad(counts, (0, more)), pad(sums, (0, 0, 0, more))


def _parts(meta: MetaParameters, runs: Runs) -> dict[str, NDArray[Any]]:
    """All there is of a key, by name."""
    found = {f"meta.{name}": part.numpy() for name, part in meta.state._asdict().items()}
    found |= {f"stats.{i}": part.numpy() for i, part in enumerate(runs.stats)}
    found |= {"log_belief": runs.log_belief.numpy(), "start": runs.start.numpy()}
    return {**found, "row": np.array(runs.row, np.int64)}
