"""River's generators whose concepts are drawn at random, so that there are endlessly many.

A concept is a seed of the model (weights, centres, a tree), or an order of the columns.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from scenarios.generated import ROWS, Between, Family, Generated, Row, Vector, derived, named

NOISE = 0.10
SEGMENT_NOISE = 0.10  # of a LED, as in Breiman et al. 1984
PLANE_FEATURES = 10
SEGMENTS = (  # of the digits 0 to 9, from the top to the bottom
    "1110111", "0010010", "1011101", "1011011", "0111010",
    "1101011", "1101111", "1010010", "1111111", "1111011",
)  # fmt: skip


def hyperplane(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Ten features U[0, 1]; on which side of a plane through the middle? (Hulten et al. 2001)."""

    def stream(concept: int, seed: int) -> Iterator[Row]:
        from river.datasets import synth

        return named(
            synth.Hyperplane(
                seed=derived(seed, 6, concept), n_features=PLANE_FEATURES, noise_percentage=0.0
            )
        )

    def parameters(concept: int, seed: int) -> Vector:
        # River draws the weights before anything else; a test holds these to its labels.
        rng = random.Random(derived(seed, 6, concept))
        return np.array([rng.random() for _ in range(PLANE_FEATURES)])

    def row(weights: Vector, rng: np.random.Generator) -> Row:
        x = rng.random(PLANE_FEATURES)
        label = int(float(weights @ x) >= 0.5 * float(weights.sum()))
        return {f"x{i}": value for i, value in enumerate(x.tolist())}, label

    family = Family(
        name="hyperplane",
        task="classification",
        description="on which side of a random plane through the middle of ten features",
        reference="Hulten, Spencer & Domingos 2001, Mining time-changing data streams, KDD",
        rows=stream,
        labels=(0, 1),
        noise=noise,
        between=Between(parameters, row),
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def random_rbf(seed: int = 0, rows: int | None = None, *, noise: float = 0.0) -> Generated:
    """Fifty clouds of four classes in ten features; a concept has its own clouds."""

    def stream(concept: int, seed: int) -> Iterator[Row]:
        from river.datasets import synth

        model, sample = derived(seed, 7, concept), derived(seed, 8, concept)
        return named(synth.RandomRBF(seed_model=model, seed_sample=sample, n_classes=4))

    family = Family(
        name="random_rbf",
        task="classification",
        description="fifty Gaussian clouds of four classes in ten features; they overlap",
        reference="Bifet et al. 2010, MOA: massive online analysis, RandomRBFGenerator",
        rows=stream,
        labels=(0, 1, 2, 3),
        noise=noise,
        clean=None,
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def random_tree(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Five numbers and five categories labelled by a random tree (Domingos & Hulten 2000)."""

    def stream(concept: int, seed: int) -> Iterator[Row]:
        from river.datasets import synth

        model, sample = derived(seed, 9, concept), derived(seed, 10, concept)
        return named(synth.RandomTree(seed_tree=model, seed_sample=sample))

    family = Family(
        name="random_tree",
        task="classification",
        description="a random tree on five numbers and five categories; a concept is a tree",
        reference="Domingos & Hulten 2000, Mining high-speed data streams, KDD",
        rows=stream,
        labels=(0, 1),
        noise=noise,
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def led(seed: int = 0, rows: int | None = None) -> Generated:
    """The digit on a display: 7 segments, each wrong 1 time in 10, and 17 irrelevant features.

    The first concept has the columns in the book's order, every other one in an order of its own.
    """

    def stream(concept: int, seed: int) -> Iterator[Row]:
        from river.datasets import synth

        # River inverts a segment with a probability .01 below what it is told.
        display = synth.LED(
            seed=derived(seed, 11, concept),
            noise_percentage=SEGMENT_NOISE + 0.01,
            irrelevant_features=True,
        )
        return _reordered(named(display), concept, derived(seed, 12, concept))

    family = Family(
        name="led",
        task="classification",
        description="a digit on seven unreliable segments among 17 irrelevant features; "
        "a concept is an order of the columns",
        reference="Breiman, Friedman, Olshen & Stone 1984, Classification and regression trees",
        rows=stream,
        labels=tuple(range(10)),
        clean=_led_bayes(),
        limits="each segment is inverted 1 time in 10",
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def friedman(seed: int = 0, rows: int | None = None) -> Generated:
    """Friedman's function of five of ten features plus N(0, 1) (Friedman 1991).

    The first concept has the columns in the paper's order, every other one in an order of its own,
    as the global drifts of Ikonomovska et al. 2011.
    """

    def stream(concept: int, seed: int) -> Iterator[Row]:
        from river.datasets import synth

        plain = named(synth.Friedman(seed=derived(seed, 13, concept)))
        return _reordered(plain, concept, derived(seed, 14, concept))

    family = Family(
        name="friedman",
        task="regression",
        description="Friedman's function of five of ten features; "
        "a concept is an order of the columns",
        reference="Friedman 1991, Multivariate adaptive regression splines; "
        "Ikonomovska, Gama & Dzeroski 2011",
        rows=stream,
        noise=1.0,
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def _reordered(rows: Iterable[Row], concept: int, seed: int) -> Iterator[Row]:
    """The columns in a seeded order; in their own for concept 0."""
    order: list[str] | None = None
    for x, y in rows:
        if order is None:
            order = list(x)
            if concept:
                random.Random(seed).shuffle(order)
        values: dict[str, Any] = dict(zip(order, x.values(), strict=True))
        yield {name: values[name] for name in x}, y


@cache
def _led_bayes() -> float:
    """What the best guess from seven unreliable segments is right in, over all patterns."""
    digits = np.array([[int(segment) for segment in digit] for digit in SEGMENTS])
    patterns = np.array(list(product((0, 1), repeat=digits.shape[1])))
    wrong = (patterns[:, None, :] != digits).sum(axis=2)
    right = digits.shape[1] - wrong
    likelihood = SEGMENT_NOISE**wrong * (1.0 - SEGMENT_NOISE) ** right
    return float(likelihood.max(axis=1).sum() / len(digits))
