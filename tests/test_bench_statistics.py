"""Intervals hold what they promise, ranks are those of the books, recovery is as one sees it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scenarios.bench.recovery import WINDOW, recovery
from scenarios.bench.statistics import (
    bootstrap,
    bootstrap_means,
    critical_difference,
    mean_ranks,
    student,
)


def covered(correlation: float, trials: int = 150, rows: int = 2_000) -> float:
    """How often the interval of the mean of an AR(1) series holds its true mean, 0."""
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(trials):
        noise = rng.normal(size=rows + 200)
        series = np.empty_like(noise)
        value = 0.0
        for i, shock in enumerate(noise):
            value = correlation * value + shock
            series[i] = value
        found = bootstrap(series[200:])
        hits += found.low <= 0.0 <= found.high
    return hits / trials


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_the_block_bootstrap_covers_the_mean_of_dependent_losses(correlation: float) -> None:
    assert 0.87 <= covered(correlation) <= 0.99


def test_resampling_single_rows_would_not_cover_it() -> None:
    rng = np.random.default_rng(3)
    level = np.repeat(rng.normal(size=20), 100)  # losses that stay together for 100 rows
    blocks = bootstrap_means(level).std()
    rows = np.array([rng.choice(level, len(level)).mean() for _ in range(300)]).std()
    assert blocks > 4.0 * rows


@given(arrays(np.float64, st.integers(1, 300), elements=st.floats(0, 1)))
@settings(max_examples=60, deadline=None)
def test_an_interval_holds_resamples_between_the_least_and_the_largest(losses: np.ndarray) -> None:  # type: ignore[type-arg]
    found = bootstrap(losses)
    assert losses.min() - 1e-9 <= found.low <= found.high <= losses.max() + 1e-9
    assert found.mean == pytest.approx(losses.mean())
    assert bootstrap(losses) == found, "the same losses give the same interval"


def test_series_are_resampled_each_on_its_own() -> None:
    """The mean over n alike has an interval narrower by the root of n; drawn alike, it had not."""
    rng = np.random.default_rng(7)
    series = [rng.normal(size=1_000) for _ in range(4)]
    one, four = bootstrap(series[0]), bootstrap(*series)
    assert four.mean == pytest.approx(np.mean(series))
    assert (four.high - four.low) / (one.high - one.low) == pytest.approx(0.5, abs=0.1)
    same = bootstrap(*[series[0]] * 4)
    assert (same.high - same.low) / (one.high - one.low) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(ValueError, match="no series"):
        bootstrap()


def test_student_is_the_textbook_interval() -> None:
    found = student([1.0, 2.0, 3.0])
    assert found.half == pytest.approx(4.30265 * 1.0 / np.sqrt(3.0), rel=1e-4)
    with pytest.raises(ValueError, match="expected at least 2"):
        student([1.0])


def test_ranks_and_critical_differences_are_those_of_demsar() -> None:
    # Demsar 2006, section 3.2.2: four algorithms, 14 data sets, CD = 1.25 at alpha .05
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    # table 5(a): q.05 for 2 to 10 classifiers
    table = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)
    for k, q in enumerate(table, 2):
        assert critical_difference(k, 10) == pytest.approx(q * np.sqrt(k * (k + 1) / 60), rel=1e-3)
    assert mean_ranks({"a": [1.0, 2.0], "b": [3.0, 2.0]}, False) == {"a": 1.25, "b": 1.75}


def errors(rng: np.random.Generator, *parts: tuple[int, float]) -> np.ndarray:  # type: ignore[type-arg]
    """0/1 losses: so many rows at such an error rate, one part after the other."""
    return np.concatenate([(rng.random(n) < rate).astype(float) for n, rate in parts])


def test_recovery_is_the_row_from_which_on_the_loss_is_back() -> None:
    losses = errors(np.random.default_rng(5), (1_000, 0.1), (120, 0.9), (800, 0.1))
    found = recovery(losses, [(1_000, 1_000)])
    assert found is not None
    assert (found.drifts, found.recovered) == (1, 1)
    assert 120 - 10 <= found.rows <= 120 + WINDOW
    assert found.area == pytest.approx((losses[1_000:] - losses[800:1_000].mean()).sum())


def test_a_small_rise_for_good_is_no_recovery_however_lucky_a_window_is() -> None:
    rng = np.random.default_rng(8)
    passed = 0
    for _ in range(100):
        found = recovery(errors(rng, (1_000, 0.1), (1_000, 0.2)), [(1_000, 1_000)])
        assert found is not None
        passed += found.recovered
    assert passed <= 10


def test_while_a_gradual_drift_lasts_nobody_has_recovered() -> None:
    rng = np.random.default_rng(9)
    losses = errors(rng, (1_000, 0.1), (300, 0.1), (700, 0.8))  # frozen: the old concept lingers
    found = recovery(losses, [(1_000, 1_300)])
    assert found is not None
    assert (found.recovered, found.rows) == (0, 1_000.0)
    adapted = recovery(errors(rng, (1_000, 0.1), (1_000, 0.1)), [(1_000, 1_300)])
    assert adapted is not None
    assert adapted.recovered == 1
    assert adapted.rows >= 300.0


def test_a_model_that_never_recovers_counts_with_the_whole_segment() -> None:
    losses = np.concatenate([np.zeros(300), np.ones(400)])
    found = recovery(losses, [(300, 300)])
    assert found is not None
    assert (found.recovered, found.rows, found.area) == (0, 400.0, 400.0)


def test_a_drift_without_rows_around_it_is_not_judged() -> None:
    assert recovery(np.zeros(100), [(5, 5)]) is None
    assert recovery(np.zeros(100), []) is None
    both = recovery(np.zeros(500), [(250, 250), (255, 255)])
    assert both is None, "five rows of a segment tell nothing, on either side"
