"""Recorded data split by class: some classes are meta-trained on, others held out for the test.

Everything ships with the dependencies: digits with scikit-learn (the extra ``dev``), ImageSegments
and Yeast with River. A seed gives a split; what is held out is in no way seen before the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from streammeta.errors import SourceError
from streammeta.meta.learner import Batch
from streammeta.meta.training import Draw

Rows = NDArray[np.float32]
SIDE = 8  # pixels of a digit
SPLIT = 20  # stream of random numbers
LEAST = 30  # rows of a class of yeast


class Split(NamedTuple):
    """Rows ``(n, D)`` of each class, standardised by those of ``train``; no row is in both."""

    train: tuple[Rows, ...]
    test: tuple[Rows, ...]


class ClassData(NamedTuple):
    """What is known of a data set, and how a seed splits it; ``pictures``: rows are ``(64,)``."""

    split: Callable[[int], Split]
    about: str
    source: str
    reference: str
    pictures: bool = False


@cache
def _digits() -> tuple[Rows, NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SourceError(
            "the digits ship with scikit-learn, which is not installed: "
            "pip install 'streammeta[dev]', or name streams of other data"
        ) from None
    x, y = load_digits(return_X_y=True)
    return (x / 16.0).astype(np.float32), y.astype(np.int64)


def _turned(x: Rows, quarters: int, *, mirrored: bool = False) -> Rows:
    """Pictures ``(n, 64)`` turned by so many times 90 degrees, after a look in a mirror."""
    pictures = x.reshape(-1, SIDE, SIDE)[:, :, :: -1 if mirrored else 1]
    return np.ascontiguousarray(np.rot90(pictures, quarters, axes=(1, 2))).reshape(len(x), -1)


def digits(seed: int) -> Split:
    """Forty classes, each digit upright and turned by 90, 180 and 270 degrees.

    Of each digit one of the four is held out, by the seed: ten classes. Half of the pictures of a
    digit are for training, half for the test, so no picture is seen in another orientation
    either. The thirty classes of training have thirty more, their mirror images.
    """
    x, y = _digits()
    rng = np.random.default_rng([seed, SPLIT])
    train: list[Rows] = []
    test: list[Rows] = []
    for digit in range(10):
        mine = rng.permutation(x[y == digit])
        half, out = len(mine) // 2, int(rng.integers(4))
        test.append(_turned(mine[half:], out))
        train += [_turned(mine[:half], q) for q in range(4) if q != out]
    train += [_turned(part, 0, mirrored=True) for part in train]
    return scaled(train, test)


def new_digits(seed: int) -> Split:
    """The harder split: five digits for training, in four orientations and their mirror images,
    and five digits, each in one orientation, that were never seen in any."""
    x, y = _digits()
    rng = np.random.default_rng([seed, SPLIT])
    order = rng.permutation(10)
    train = [_turned(x[y == digit], q) for digit in order[:5] for q in range(4)]
    train += [_turned(part, 0, mirrored=True) for part in train]
    test = [_turned(x[y == digit], int(rng.integers(4))) for digit in order[5:]]
    return scaled(train, test)


@cache
def _river(name: str) -> tuple[Rows, tuple[str, ...]]:
    """Features ``(n, D)`` and the class of each row; labels of several at once are one class."""
    from river import datasets

    xs, labels = [], []
    for x, y in getattr(datasets, name)():
        xs.append(list(x.values()))
        labels.append("+".join(k for k, on in y.items() if on) if isinstance(y, dict) else str(y))
    return np.array(xs, np.float32), tuple(labels)


def _by_class(name: str, seed: int, held_out: float) -> Split:
    """Classes of at least ``LEAST`` rows, of which so large a share is held out, by the seed."""
    x, labels = _river(name)
    known = sorted(label for label, n in Counter(labels).items() if n >= LEAST)
    order = np.random.default_rng([seed, SPLIT]).permutation(len(known))
    told = np.array(labels)
    parts = [x[told == known[i]] for i in order]
    cut = len(parts) - round(held_out * len(parts))
    return _standardised(parts[:cut], parts[cut:])


def segments(seed: int) -> Split:
    """Seven kinds of surface in pictures; three are held out."""
    return _by_class("ImageSegments", seed, 3 / 7)


def yeast(seed: int) -> Split:
    """Genes with the same functional groups are a class; two fifths of the classes are held out."""
    return _by_class("Yeast", seed, 0.4)


def scaled(train: Sequence[Rows], test: Sequence[Rows]) -> Split:
    """Centred pixel by pixel, one scale for all: distances stay those of the pictures."""
    rows = np.concatenate(train)
    centre = rows.mean(0)
    scale = float((rows - centre).std())
    return Split(*(tuple((part - centre) / scale for part in parts) for parts in (train, test)))


def _standardised(train: Sequence[Rows], test: Sequence[Rows]) -> Split:
    """Each column by its mean and deviation; one that does not vary is 0."""
    rows = np.concatenate(train)
    centre, scale = rows.mean(0), rows.std(0)
    scale = np.where(scale > 1e-6, scale, np.inf).astype(np.float32)
    return Split(*(tuple((part - centre) / scale for part in parts) for parts in (train, test)))


def episodes(
    classes: Sequence[Rows], way: int, shot: int, query: int, *, blended: float = 0.0
) -> Draw:
    """Draws tasks: ``way`` classes in random order, of each ``shot`` rows to adapt on and
    ``query`` others that judge, both shuffled: the place of a row says nothing of its class.

    So large a share as ``blended`` of the classes are new ones, between two: all rows of such a
    class are drawn from one by the same weight, 1/2 to 1, and from the other (blending across
    tasks, Yao, Zhang & Finn 2022, arXiv 2106.02695), so that few classes to train on are many.

    Raises:
        ValueError: there are fewer classes, or one has fewer rows.
    """
    if len(classes) < way or min(map(len, classes)) < shot + query:
        raise ValueError(
            f"{len(classes)} classes of at least {min(map(len, classes))} rows, expected "
            f"{way} of {shot + query}"
        )

    def rows_of(c: int, rng: np.random.Generator) -> Rows:
        rows: Rows = rng.choice(classes[c], shot + query, replace=False)
        if blended and rng.random() < blended:
            other = rng.choice(
                classes[int(rng.integers(len(classes)))], shot + query, replace=False
            )
            rows = other + np.float32(rng.uniform(0.5, 1.0)) * (rows - other)
        return rows

    def draw(rng: np.random.Generator, tasks: int) -> Batch:
        drawn: tuple[list[Rows], ...] = ([], [])
        labels: tuple[list[Rows], ...] = ([], [])
        for _ in range(tasks):
            mine = [rows_of(c, rng) for c in rng.choice(len(classes), way, replace=False)]
            for part, at in enumerate((slice(shot), slice(shot, None))):
                rows = np.concatenate([of[at] for of in mine])
                order = rng.permutation(len(rows))
                drawn[part].append(rows[order])
                labels[part].append((order // (len(rows) // way)).astype(np.float32))
        found: list[torch.Tensor] = []
        for x, told in zip(drawn, labels, strict=True):
            y = torch.from_numpy(np.stack(told))
            found += [torch.from_numpy(np.stack(x)), y, torch.ones_like(y)]
        return Batch(*found)

    return draw


_OPTICAL = "https://archive.ics.uci.edu/dataset/80 (Alpaydin & Kaynak 1998)"
DATA: Mapping[str, ClassData] = {
    "digits": ClassData(digits, "digits in orientations held out", "scikit-learn", _OPTICAL, True),
    "new_digits": ClassData(
        new_digits, "digits held out altogether", "scikit-learn", _OPTICAL, True
    ),
    "segments": ClassData(
        segments, "kinds of surface", "bundled with River: ImageSegments",
        "https://archive.ics.uci.edu/dataset/147",
    ),
    "yeast": ClassData(
        yeast, "sets of functional groups of genes", "bundled with River: Yeast",
        "Elisseeff & Weston 2001",
    ),
}  # fmt: skip
