"""A small convolutional network that has learned to tell pictures of the classes of training apart.

What it sees in a picture is what every learner of the digits reads. It is trained first and then
left as it is, which is a strong start for few shots (Tian et al. 2020, arXiv 2003.11539).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scenarios.fewshot.class_data import DATA, SIDE, Split, scaled

Rows = NDArray[np.float32]

CHANNELS, SEEN = 32, 96  # of the first two layers; numbers that tell what is in a picture
# AdamW (Loshchilov & Hutter 2019), its rate falling to 0
STEPS, ROWS, RATE, DECAY = 1_200, 128, 3e-3, 1e-3
DROPPED = 0.3  # of what the last convolution gave (Srivastava et al. 2014)
WARP = 0.25  # radians of a turn at most; half as much of the size, and of half a side
WARPED = 2  # warped ones of each picture of training, of which learners are meta-trained
EYE = 6  # stream of random numbers; few_shot.py has those up to 5


class Eye(nn.Module):
    """Three convolutions, one full layer, and a last one for the classes of training."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, CHANNELS, 3, padding=1), nn.ReLU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1), nn.ReLU(), nn.Flatten(),
        )  # fmt: skip
        self.full = nn.Linear(2 * CHANNELS * (SIDE // 2) ** 2, SEEN)
        self.head = nn.Linear(SEEN, classes)

    def features(self, x: Tensor) -> Tensor:
        """``(n, SEEN)``, at least 0, of pictures ``(n, 64)``."""
        read = self.convolutions(x.view(-1, 1, SIDE, SIDE))
        return torch.relu(self.full(functional.dropout(read, DROPPED, self.training)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes of training ``(n, classes)``."""
        told: Tensor = self.head(self.features(x))
        return told

    def see(self, x: Rows) -> Rows:
        """The same features ``(n, SEEN)`` of pictures ``(n, 64)``, each row of length 1."""
        with torch.no_grad():
            return functional.normalize(self.features(torch.from_numpy(x)), dim=1).numpy()


def warped(x: Rows, rng: np.random.Generator) -> Rows:
    """Pictures ``(n, 64)``, each a little turned, larger or smaller, and moved."""
    n = len(x)
    turn, grown, *moved = rng.uniform(-WARP, WARP, (4, n)).astype(np.float32)
    size = 1.0 + grown / 2
    cos, sin = np.cos(turn) * size, np.sin(turn) * size
    maps = np.stack([cos, -sin, moved[0] / 2, sin, cos, moved[1] / 2], 1).reshape(n, 2, 3)
    pictures = torch.from_numpy(x).view(n, 1, SIDE, SIDE)
    grid = functional.affine_grid(torch.from_numpy(maps), [n, 1, SIDE, SIDE], align_corners=False)
    found = functional.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
    return found.flatten(1).numpy()


def trained_eye(train: tuple[Rows, ...], rng: np.random.Generator, steps: int) -> Eye:
    """An eye that tells warped pictures ``(n, 64)`` of each class of ``train`` apart."""
    x = np.concatenate(train)
    y = torch.from_numpy(np.repeat(np.arange(len(train)), [len(part) for part in train]))
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(int(rng.integers(2**31)))
        eye = Eye(len(train))
        descent = torch.optim.AdamW(eye.parameters(), RATE, weight_decay=DECAY)
        for step in range(steps):
            descent.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            at = rng.integers(0, len(x), ROWS)
            told = eye(torch.from_numpy(warped(x[at], rng)))
            descent.zero_grad()
            functional.cross_entropy(told, y[torch.from_numpy(at)]).backward()  # type: ignore[no-untyped-call]
            descent.step()
    return eye.eval()


@cache
def seen(data: str, seed: int, effort: float) -> Split:
    """What an eye sees of a split, rows ``(n, SEEN)``, scaled as pictures are; those of training
    are of warped copies, so that they lie about as far apart as others do."""
    split, rng = DATA[data].split(seed), np.random.default_rng([seed, EYE])
    eye = trained_eye(split.train, rng, max(1, round(STEPS * effort)))
    train = [
        np.concatenate([eye.see(warped(part, rng)) for _ in range(WARPED)]) for part in split.train
    ]
    return scaled(train, [eye.see(part) for part in split.test])
