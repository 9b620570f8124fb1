"""The classic binary streams of the drift literature, by River's generators.

Their concepts are a few fixed labelling functions. ``noise`` is the share of labels turned over,
10 % as most papers have it, decided here and not by River, so that the true label is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from scenarios.generated import ROWS, Between, Family, Generated, Row, Vector, derived, named
from streammeta.events import Label

NOISE = 0.10
SEA_THRESHOLDS = (8.0, 9.0, 7.0, 9.5)


def sea(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Three features U[0, 10]; is x0 + x1 above the concept's threshold? (Street & Kim 2001)."""
    return _generated("sea", seed, rows, noise)


def stagger(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Size, colour and shape, three values each; three rules (Schlimmer & Granger 1986)."""
    return _generated("stagger", seed, rows, noise)


def sine(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Below or above one of two sines; two of four features matter (Gama et al. 2004)."""
    return _generated("sine", seed, rows, noise)


def mixed(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Two booleans and two numbers; the second concept is the first reversed (Gama 2004)."""
    return _generated("mixed", seed, rows, noise)


def agrawal(seed: int = 0, rows: int | None = None, *, noise: float = NOISE) -> Generated:
    """Nine features of people who want a loan; ten rules (Agrawal et al. 1993)."""
    return _generated("agrawal", seed, rows, noise)


def _sea_threshold(concept: int, _: int) -> Vector:
    return np.array([SEA_THRESHOLDS[concept]])


def _sea_row(threshold: Vector, rng: np.random.Generator) -> Row:
    x = rng.uniform(0.0, 10.0, 3).tolist()
    return {f"x{i}": value for i, value in enumerate(x)}, x[0] + x[1] > float(threshold[0])


def _rows(
    constant: int, river: str, concept_is: str = "classification_function", **options: Any
) -> Callable[[int, int], Iterator[Row]]:
    """River's ``synth.<river>``, each concept with random numbers of its own.

    ``concept_is`` is its argument that chooses the concept; ``constant`` tells the families apart.
    """

    def stream(concept: int, seed: int) -> Iterator[Row]:
        from river.datasets import synth

        make = getattr(synth, river)
        chosen = {concept_is: concept, "seed": derived(seed, constant, concept)}
        return named(make(**chosen, **options))

    return stream


def _family(
    name: str,
    description: str,
    reference: str,
    rows: Callable[[int, int], Iterator[Row]],
    concepts: int,
    labels: tuple[Label, Label] = (0, 1),
    between: Between | None = None,
) -> Family:
    return Family(
        name=name,
        task="classification",
        description=description,
        reference=reference,
        rows=rows,
        concepts=concepts,
        labels=labels,
        between=between,
    )


_GAMA = "Gama, Medas, Castillo & Rodrigues 2004, Learning with drift detection, SBIA"
_FAMILIES = {
    family.name: family
    for family in (
        _family(
            "sea",
            "is the sum of two of three features above 8, 9, 7 or 9.5",
            "Street & Kim 2001, A streaming ensemble algorithm (SEA), KDD",
            _rows(1, "SEA", "variant"),
            4,
            (False, True),
            Between(_sea_threshold, _sea_row),
        ),
        _family(
            "stagger",
            "small and red; green or round; medium or large",
            "Schlimmer & Granger 1986, Incremental learning from noisy data",
            _rows(2, "STAGGER"),
            3,
        ),
        _family(
            "sine",
            "below sin(x), above it, below .5 + .3 sin(3 pi x), above it",
            _GAMA,
            _rows(3, "Sine", has_noise=True),
            4,
        ),
        _family(
            "mixed",
            "two of three conditions on two booleans and a sine hold, or do not",
            _GAMA,
            _rows(4, "Mixed"),
            2,
        ),
        _family(
            "agrawal",
            "is the loan granted, by one of ten rules on nine features",
            "Agrawal, Imielinski & Swami 1993, Database mining: a performance perspective",
            _rows(5, "Agrawal"),
            10,
        ),
    )
}


def _generated(name: str, seed: int, rows: int | None, noise: float) -> Generated:
    family = replace(_FAMILIES[name], noise=noise)
    return Generated(family, seed=seed, rows=rows or ROWS)
