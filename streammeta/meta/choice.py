"""A policy that chooses among learners by what the recent past of a stream looks like.

logit_m = b(g)[kind of m] + sum_j a(g)[j] s[m, j]: a small network reads the meta-features ``g`` and
says for each kind of learner how much it is worth on such a stream, ``b``, and how much each of the
recent scores ``s`` of a learner counts there, ``a``. So there may be any number of learners, and of
a kind any number.

Trained as a contextual bandit by REINFORCE (Williams 1992, Machine Learning 8): learners are drawn
from the policy, each is rewarded by how far its loss in the time to come lies below the mean of all
learners, the baseline of a draw is the mean of the other draws (Kool, van Hoof & Welling 2019, Buy
4 REINFORCE samples, get a baseline for free), and an entropy bonus keeps it from deciding early.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from streammeta.aside import write_aside
from streammeta.errors import ConfigError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: What is said of a stream; ``streammeta.choosing`` measures it.
FEATURES = (
    "values", "segment_rows", "rows", "features", "numeric", "classes", "balance",
    "autocorrelation", "noise", "fresh_drift", "gradual", "width", "known_context", "moved",
    "best_loss", "loss_rises",
)  # fmt: skip
#: What is said of each learner: how much better than the mean it was over the last ten, thirty, a
#: hundred labels and over the segment, in errors and in log likelihood; how long it is known.
SCORES = (
    "error@10", "likelihood@10", "error@30", "likelihood@30", "error@100", "likelihood@100",
    "error@segment", "likelihood@segment", "age",
)  # fmt: skip
HIDDEN = 6
#: Standardised features beyond this are cut off.
BOUND = 5.0


class Decisions(NamedTuple):
    """``N`` moments at which somebody was to be chosen among ``M`` learners: ``features (N, G)``,
    ``scores (N, M, J)``, of which ``kinds (N, M)`` they are (numbers of the policy's), who was
    ``known (N, M)``, and what each lost in the time to come, ``losses (N, M)``, where known."""

    features: Floats
    scores: Floats
    kinds: NDArray[np.int64]
    known: Flags
    losses: Floats


@dataclass(frozen=True, eq=False)
class Policy:
    """Weights of the network: features less ``centre`` over ``spread (G,)``, ``first (G + 1, H)``,
    ``last (H + 1, K + J)`` with the biases in the last rows; ``kinds``: names of the K kinds."""

    kinds: tuple[str, ...]
    centre: Floats
    spread: Floats
    first: Floats
    last: Floats

    def weights(
        self, names: Sequence[str], features: Floats, scores: Floats, known: Flags
    ) -> Floats:
        """Weights ``(M,)`` of learners called ``names``, which sum to 1; 0 of the unknown."""
        of = np.array([self.kind(name) for name in names])
        found: Floats = self.all_weights(features[None], scores[None], of[None], known[None])[0]
        return found

    def all_weights(
        self, features: Floats, scores: Floats, kinds: NDArray[np.int64], known: Flags
    ) -> Floats:
        """The same of many moments, as in ``Decisions``: ``(N, M)``. A kind that the policy has
        never met (-1) has no bias."""
        z = np.clip((features - self.centre) / self.spread, -BOUND, BOUND)
        hidden = np.tanh(z @ self.first[:-1] + self.first[-1])
        out = hidden @ self.last[:-1] + self.last[-1]
        n = len(self.kinds)
        bias = np.where(kinds >= 0, np.take_along_axis(out[:, :n], np.maximum(kinds, 0), 1), 0.0)
        logits = bias + (scores * out[:, None, n:]).sum(2)
        logits = np.where(known, logits, -np.inf)
        found = np.exp(logits - logits.max(1, keepdims=True))
        shares: Floats = found / found.sum(1, keepdims=True)
        return shares

    def kind(self, name: str) -> int:
        """The number of the kind of a learner; -1 where the policy has never met one."""
        found = kind_of(name)
        return self.kinds.index(found) if found in self.kinds else -1

    def tensors(self) -> dict[str, Floats]:
        """Name to array, in the order in which they are given."""
        return {name: getattr(self, name) for name in _TENSORS}

    def write(self, path: str | Path) -> None:
        """Save it with the names of its features, scores and kinds; the file is there in whole or
        as it was before."""
        told = {"features": FEATURES, "scores": SCORES, "kinds": self.kinds}
        image = save(self.tensors(), metadata={"choice": json.dumps(told)})
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, image)

    @classmethod
    def read(cls, path: str | Path) -> Policy:
        """What ``write`` has written.

        Raises:
            ConfigError: no such file, not such a file, or one whose features are others than this
                version's.
        """
        try:
            data = Path(path).read_bytes()
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            told = json.loads(header["__metadata__"]["choice"])
            tensors = load(data)
            made = cls(tuple(told["kinds"]), *(tensors[name] for name in _TENSORS))
            names = {name: tuple(told[name]) for name in ("features", "scores")}
            outputs = made.last.shape[1]
        except FileNotFoundError:
            raise ConfigError(f"model.chooser: {path} does not exist") from None
        except (SafetensorError, LookupError, TypeError, ValueError, OSError) as error:
            raise ConfigError(f"model.chooser: {path} holds no policy ({error})") from None
        if names != {"features": FEATURES, "scores": SCORES}:
            raise ConfigError(
                f"model.chooser: {path} was made for other features "
                f"({', '.join((*names['features'], *names['scores']))}): train it anew"
            )
        if outputs != len(made.kinds) + len(SCORES):
            raise ConfigError(f"model.chooser: {path} has {outputs} outputs: train it anew")
        return made


_TENSORS = ("centre", "spread", "first", "last")


def kind_of(name: str) -> str:
    """What a learner is, without the number of its slot.

    >>> kind_of("challenger-3"), kind_of("scout-r2d2@8"), kind_of("trees")
    ('challenger', 'scout-r2d2@8', 'trees')
    """
    stem, _, number = name.rpartition("-")
    return stem if number.isdecimal() else name


@dataclass(frozen=True)
class Training:
    """How a policy is trained: ``steps`` of Adam on ``batch`` decisions each, with ``draws``
    actions for each; ``entropy``: weight of the bonus at the start, falling to 0; ``decay``: of
    weights. Rewards are multiplied by ``reward``."""

    steps: int = 1500
    batch: int = 128
    draws: int = 4
    rate: float = 3e-3
    entropy: float = 0.2
    decay: float = 1e-2
    reward: float = 10.0
    hidden: int = HIDDEN


def reinforce(
    decisions: Decisions, kinds: Sequence[str], seed: int, how: Training | None = None
) -> Policy:
    """A policy trained on ``decisions`` by policy gradient; the same seed gives the same policy.

    Raises:
        ValueError: there is no decision.
    """
    import torch

    how = how or Training()
    if not len(decisions.features):
        raise ValueError("nothing to learn from: no decision")
    rng = torch.Generator().manual_seed(seed)
    centre = decisions.features.mean(0)
    spread = np.maximum(decisions.features.std(0), 1e-3)
    z = torch.from_numpy(np.clip((decisions.features - centre) / spread, -BOUND, BOUND)).float()
    scores = torch.from_numpy(decisions.scores).float()
    of, known = torch.from_numpy(decisions.kinds), torch.from_numpy(decisions.known)
    rewards = torch.from_numpy(_rewards(decisions) * how.reward).float()
    sizes = z.shape[1], how.hidden, len(kinds) + scores.shape[2]
    first = torch.zeros(sizes[0] + 1, sizes[1])
    first[:-1] = torch.randn(sizes[0], sizes[1], generator=rng) / sizes[0] ** 0.5
    last = torch.zeros(sizes[1] + 1, sizes[2])
    first.requires_grad_(True)
    last.requires_grad_(True)
    adam = torch.optim.AdamW((first, last), how.rate, weight_decay=how.decay)
    for step in range(how.steps):
        rows = torch.randint(len(z), (how.batch,), generator=rng)
        out = torch.tanh(z[rows] @ first[:-1] + first[-1]) @ last[:-1] + last[-1]
        bias = out[:, : len(kinds)].gather(1, of[rows].clamp(min=0))
        bias = torch.where(of[rows] >= 0, bias, 0.0)
        logits = bias + (scores[rows] * out[:, None, len(kinds) :]).sum(2)
        logs = torch.log_softmax(logits.masked_fill(~known[rows], -torch.inf), 1)
        p = logs.exp()
        drawn = torch.multinomial(p.detach(), how.draws, replacement=True, generator=rng)
        gained = rewards[rows].gather(1, drawn)
        baseline = (gained.sum(1, keepdim=True) - gained) / (how.draws - 1)
        gain = ((gained - baseline) * logs.gather(1, drawn)).mean()
        entropy = -(p * logs.masked_fill(~known[rows], 0.0)).sum(1).mean()
        left = 1.0 - step / how.steps
        adam.zero_grad()
        (-gain - how.entropy * left * entropy).backward()  # type: ignore[no-untyped-call]
        for group in adam.param_groups:
            group["lr"] = how.rate * left
        adam.step()
    learned = [part.detach().double().numpy() for part in (first, last)]
    return Policy(tuple(kinds), centre, spread, *learned)


def _rewards(decisions: Decisions) -> Floats:
    """By how much each known learner's loss lies below the mean of them ``(N, M)``."""
    losses = np.where(decisions.known, decisions.losses, 0.0)
    mean = losses.sum(1, keepdims=True) / decisions.known.sum(1, keepdims=True)
    return np.where(decisions.known, mean - losses, 0.0)
