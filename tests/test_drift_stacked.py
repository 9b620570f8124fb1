"""Ten thousand keys, one loop: the same alarms as one detector per key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drift import Detector, Status, make_detector
from drift.charts import Cusum, Ewma, Shewhart, Sprt
from drift.river_detectors import Ddm, HddmA, PageHinkley
from drift.stacked import StackedDetectors

ERRORS: list[Detector] = [
    Ddm(), Ddm(warm_start=5, drift_threshold=2.5), HddmA(), HddmA(drift_confidence=0.05),
    PageHinkley(min_instances=30, delta=0.1, threshold=4.0), Cusum(), Cusum(6.0, slack=0.3),
    Ewma(), Ewma(3.0, weight=0.2), Shewhart(), Shewhart(2.5, group=7), Sprt(), Sprt(3.0, shift=0.5),
]  # fmt: skip
REAL = [d for d in ERRORS if d.input == "real"]


def again(like: Detector) -> Detector:
    """A new one with the same settings."""
    if isinstance(like, (Ddm, HddmA, PageHinkley)):
        return type(like)(**_own(like))
    own = {"cusum": ("slack",), "ewma": ("weight",), "shewhart": ("group",), "sprt": ("shift",)}
    settings = {name: getattr(like, name) for name in own[like.name]}
    made = type(like)(like.threshold, **settings)  # type: ignore[attr-defined]
    assert isinstance(made, Detector)
    return made


def _own(like: Ddm | HddmA | PageHinkley) -> dict[str, float]:
    return {name: value for name, value in like.params.items() if name != "mode"}


def drifting(seed: int, rows: int, keys: int, *, errors: bool) -> NDArray[np.float64]:
    """``(rows, keys)``: every key has levels of its own, and changes at rows of its own."""
    rng = np.random.default_rng(seed)
    level = np.empty((rows, keys))
    for k in range(keys):
        cuts = np.sort(rng.integers(0, rows, 3))
        for part in np.split(np.arange(rows), cuts):
            level[part, k] = rng.choice([0.0, 0.02, 0.1, 0.3, 0.6, 1.0])
    if errors:
        return (rng.random((rows, keys)) < level).astype(float)
    return np.minimum(10.0, (0.5 + 3.0 * level) * rng.exponential(size=(rows, keys)))


def one_by_one(like: Detector, values: NDArray[np.float64]) -> NDArray[np.int8]:
    found = np.empty(values.shape, np.int8)
    for k in range(values.shape[1]):
        detector = again(like)
        found[:, k] = [detector.update(value) for value in values[:, k].tolist()]
    return found


@pytest.mark.parametrize("like", ERRORS, ids=lambda d: d.name)
@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_the_same_statuses_of_errors_at_the_same_rows(like: Detector, seed: int) -> None:
    values = drifting(seed, 400, 4, errors=True)
    stacked = StackedDetectors(like, 4)
    found = np.array([stacked.update(row) for row in values])
    assert (found == one_by_one(like, values)).all()


@pytest.mark.parametrize("like", REAL, ids=lambda d: d.name)
@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_the_same_statuses_of_losses_at_the_same_rows(like: Detector, seed: int) -> None:
    values = drifting(seed, 400, 4, errors=False)
    stacked = StackedDetectors(like, 4)
    found = np.array([stacked.update(row) for row in values])
    assert (found == one_by_one(like, values)).all()


@pytest.mark.slow
@pytest.mark.parametrize("like", ERRORS, ids=lambda d: d.name)
def test_many_keys_over_many_rows_raise_the_same_alarms(like: Detector) -> None:
    values = drifting(11, 4_000, 25, errors=True)
    stacked = StackedDetectors(like, 25)
    found = np.array([stacked.update(row) for row in values])
    expected = one_by_one(like, values)
    assert (expected == Status.DRIFT).sum() >= 10
    assert (found == expected).all()


def test_keys_come_in_any_order_and_as_often_as_they_like() -> None:
    values = drifting(3, 900, 2, errors=True)
    together, mixed = StackedDetectors(Ewma(), 2), StackedDetectors(Ewma(), 2)
    expected = np.array([together.update(row) for row in values])
    first = mixed.update(values[:, 1], np.ones(900, np.int64))  # one key alone
    second = mixed.update(values[:, 0], np.zeros(900, np.int64))
    assert (first == expected[:, 1]).all()
    assert (second == expected[:, 0]).all()


def test_a_key_that_is_reset_is_as_new_and_the_others_go_on() -> None:
    values = drifting(5, 300, 3, errors=True)
    used, new = StackedDetectors(Cusum(), 3), StackedDetectors(Cusum(), 3)
    for row in values:
        used.update(row)
    used.reset(np.array([1]))
    kept = one_by_one(Cusum(), np.concatenate([values, values]))[300:]
    for row, value in enumerate(values):
        found, fresh = used.update(value), new.update(value)
        assert found[1] == fresh[1]
        assert found[0] == kept[row, 0]


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match="keys is 0; expected at least 1"):
        StackedDetectors(Cusum(), 0)
    with pytest.raises(TypeError, match="'adwin' has no stacked form; expected one of page_hink"):
        StackedDetectors(make_detector("adwin"), 2)
    stacked = StackedDetectors(Cusum(), 2)
    with pytest.raises(ValueError, match=r"values have shape \(3,\) and keys \(2,\)"):
        stacked.update([0.0, 1.0, 0.0])
    with pytest.raises(IndexError, match="keys 0 to 2; expected 0 to 1"):
        stacked.update(np.zeros(2), np.array([0, 2]))
    with pytest.raises(IndexError, match="keys -1 to -1; expected 0 to 1"):
        stacked.reset(np.array([-1]))
    with pytest.raises(ValueError, match="cusum: a loss is not finite"):
        stacked.update([0.0, float("nan")])
