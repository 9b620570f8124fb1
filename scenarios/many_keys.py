"""What stacking is worth: one detector per key in a loop, and all keys in one call."""

from __future__ import annotations

from time import perf_counter

import numpy as np

from drift import DETECTORS, StackedDetectors, Status, make_detector
from drift.stacked import stackable
from streammeta.scores import Measured

STREAM = "keys"  # its name
KEYS, ROWS = 10_000, 200
USUAL, LATER = 0.1, 0.6  # errors before and after the drift of half of the keys, in the middle


def stacks(name: str) -> bool:
    """Whether detectors called ``name`` can be stacked."""
    return name in DETECTORS and stackable(make_detector(name))


def measure(name: str, keys: int = KEYS, rows: int = ROWS, seed: int = 0) -> Measured:
    """Show ``rows`` errors of each of ``keys`` keys to detectors called ``name``, both ways:
    microseconds per update, and whether both raised the same alarms.

    Raises:
        TypeError: there is no stacked form.
    """
    rng = np.random.default_rng(seed)
    level = np.full((rows, keys), USUAL)
    level[rows // 2 :, ::2] = LATER
    errors = (rng.random((rows, keys)) < level).astype(np.float64)
    stacked = StackedDetectors(make_detector(name), keys)
    stacked.update(errors[0])  # compiled, if it was not
    stacked.reset()
    begun = perf_counter()
    together = [stacked.update(row) == Status.DRIFT for row in errors]
    fast = perf_counter() - begun
    detectors = [make_detector(name) for _ in range(keys)]
    lists = errors.tolist()
    begun = perf_counter()
    one_by_one = [
        [d.update(value) is Status.DRIFT for d, value in zip(detectors, row, strict=True)]
        for row in lists
    ]
    slow = perf_counter() - begun
    found = np.array(together)
    same = bool((found == np.array(one_by_one)).all())
    each = 1e6 / (rows * keys)
    values = {
        "speedup": slow / fast,
        "us_loop": each * slow,
        "us_stacked": each * fast,
        "alarms": float(found.sum()),
        "same": float(same),
    }
    return Measured(values, rows * keys, higher_is_better=True)
