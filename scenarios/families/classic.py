"""The classic binary streams of the drift literature, by River's generators.

Their concepts are a few fixed labelling functions. ``noise`` is the share of labels turned over,
10 % as most papers have it, decided here and not by River, so that the true label is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scenarios.generated import ROWS, Between, Family, Generated, Row, Vector, derived, named

NOISE = 0.10
SEA_THRESHOLDS = (8.0, 9.0, 7.0, 9.5)

_Make = Callable[[int, int], Any]  # (concept, seed of the rows) -> an endless data set of River


def sea(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Three features U[0, 10]; is x0 + x1 above the concept's threshold? (Street & Kim 2001)."""

    def make(concept: int, seed: int) -> Any:
        from river.datasets import synth

        return synth.SEA(variant=concept, seed=seed)

    def parameters(concept: int, _: int) -> Vector:
        return np.array([SEA_THRESHOLDS[concept]])

    def row(threshold: Vector, rng: np.random.Generator) -> Row:
        x = rng.uniform(0.0, 10.0, 3).tolist()
        return {f"x{i}": value for i, value in enumerate(x)}, x[0] + x[1] > float(threshold[0])

    family = Family(
        name="sea",
        task="classification",
        description="is the sum of two of three features above 8, 9, 7 or 9.5",
        reference="Street & Kim 2001, A streaming ensemble algorithm (SEA), KDD",
        rows=_rows(make, 1),
        concepts=4,
        labels=(False, True),
        noise=noise,
        between=Between(parameters, row),
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def stagger(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Size, colour and shape, three values each; three rules (Schlimmer & Granger 1986)."""

    def make(concept: int, seed: int) -> Any:
        from river.datasets import synth

        return synth.STAGGER(classification_function=concept, seed=seed)

    family = Family(
        name="stagger",
        task="classification",
        description="small and red; green or round; medium or large",
        reference="Schlimmer & Granger 1986, Incremental learning from noisy data",
        rows=_rows(make, 2),
        concepts=3,
        labels=(0, 1),
        noise=noise,
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def sine(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Below or above one of two sines; two of four features matter (Gama et al. 2004)."""

    def make(concept: int, seed: int) -> Any:
        from river.datasets import synth

        return synth.Sine(classification_function=concept, seed=seed, has_noise=True)

    family = Family(
        name="sine",
        task="classification",
        description="below sin(x), above it, below .5 + .3 sin(3 pi x), above it",
        reference="Gama, Medas, Castillo & Rodrigues 2004, Learning with drift detection, SBIA",
        rows=_rows(make, 3),
        concepts=4,
        labels=(0, 1),
        noise=noise,
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def mixed(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Two booleans and two numbers; the second concept is the first reversed (Gama 2004)."""

    def make(concept: int, seed: int) -> Any:
        from river.datasets import synth

        return synth.Mixed(classification_function=concept, seed=seed)

    family = Family(
        name="mixed",
        task="classification",
        description="two of three conditions on two booleans and a sine hold, or do not",
        reference="Gama, Medas, Castillo & Rodrigues 2004, Learning with drift detection, SBIA",
        rows=_rows(make, 4),
        concepts=2,
        labels=(0, 1),
        noise=noise,
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def agrawal(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Nine features of people who want a loan; ten rules (Agrawal et al. 1993)."""

    def make(concept: int, seed: int) -> Any:
        from river.datasets import synth

        return synth.Agrawal(classification_function=concept, seed=seed)

    family = Family(
        name="agrawal",
        task="classification",
        description="is the loan granted, by one of ten rules on nine features",
        reference="Agrawal, Imielinski & Swami 1993, Database mining: a performance perspective",
        rows=_rows(make, 5),
        concepts=10,
        labels=(0, 1),
        noise=noise,
    )
    return Generated(family, seed=seed, rows=rows or ROWS)


def _rows(make: _Make, constant: int) -> Callable[[int, int], Iterator[Row]]:
    """Each concept with random numbers of its own; ``constant`` tells the families apart."""
    return lambda concept, seed: named(make(concept, derived(seed, constant, concept)))
