"""Intervals: the asked coverage through every change, and as narrow as the noise allows."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scenarios.open_stream import VARIABLE, available
from scenarios.scenario import Scenario, scenario
from streammeta.conformal import AT_REST, CORRECTION, PACE, TOLD, Intervals
from streammeta.errors import ConfigError
from streammeta.estimators import MetaRegressor

Floats = NDArray[np.float64]
ROWS, WINDOW = 20_000, 2_000


def half_widths(residuals: Floats, coverage: float = 0.9) -> Floats:
    """Half the width of the interval that each row was given, one row after the other."""
    intervals, found = Intervals(coverage), []
    for y in residuals.tolist():
        asked = intervals.ask(0.0)
        found.append(asked[1])
        intervals.learn(0.0, asked, y)
    return np.array(found)


def least_and_most(inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Coverage of the worst and of the best ``WINDOW`` rows that follow one another."""
    sums = np.concatenate([[0], np.cumsum(inside)])
    shares = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
    return float(shares.min()), float(shares.max())


def interval_score(residuals: Floats, halves: Floats, rate: float = 0.1) -> float:
    """Mean of width + 2 / rate x what a label is outside by (Gneiting & Raftery 2007), after the
    first hundred rows."""
    over = np.maximum(np.abs(residuals) - halves, 0.0)
    return float(np.mean((2.0 * halves + 2.0 / rate * over)[100:]))


def volatile(rng: np.random.Generator) -> Floats:
    """Noise whose spread wanders: its logarithm forgets in a hundred rows."""
    log_spread = np.zeros(ROWS)
    for t in range(1, ROWS):
        log_spread[t] = 0.99 * log_spread[t - 1] + 0.2 * rng.normal()
    return rng.normal(size=ROWS) * np.exp(log_spread)


def residuals_of(kind: str, seed: int = 3) -> Floats:
    rng, row = np.random.default_rng([seed, 71]), np.arange(ROWS)
    if kind == "steady":
        return rng.normal(size=ROWS)
    if kind == "tenfold":  # every 1,000 rows, and back
        return rng.normal(size=ROWS) * np.where(row // 1_000 % 2, 10.0, 1.0)
    if kind == "heavy":  # without a variance
        return rng.standard_t(1.5, ROWS)
    if kind == "cauchy":  # without a mean
        return rng.standard_cauchy(ROWS)
    if kind == "bounded":
        return rng.uniform(-1.0, 1.0, ROWS)
    if kind == "one-sided":
        return rng.exponential(1.0, ROWS)
    if kind == "relearning":  # what a learner is off by after a change every 200 rows
        return rng.normal(size=ROWS) + np.where(row % 200 < 20, 5.0, 0.0)
    return volatile(rng)


KINDS = (
    "steady", "tenfold", "heavy", "cauchy", "bounded", "one-sided", "relearning", "volatile",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_any_two_thousand_rows_are_covered_as_asked(kind: str) -> None:
    residuals = residuals_of(kind)
    least, most = least_and_most(np.abs(residuals) <= half_widths(residuals))
    assert least >= 0.88
    assert most <= 0.92


@pytest.mark.parametrize(("coverage", "slack"), [(0.5, 0.03), (0.8, 0.025), (0.95, 0.015),
                                                 (0.99, 0.02)])  # fmt: skip
@pytest.mark.parametrize("kind", ["tenfold", "volatile"])
def test_other_coverages_are_held_too(kind: str, coverage: float, slack: float) -> None:
    residuals = residuals_of(kind)
    least, most = least_and_most(np.abs(residuals) <= half_widths(residuals, coverage))
    assert coverage - slack <= least <= most <= coverage + slack


class Textbook:
    """Adaptive conformal inference as Gibbs & Candes 2021 have it, its step .005, on |residuals|
    of the last 500 rows over their running scale (a row counts .97 of the one after it)."""

    def __init__(self) -> None:
        self.rate, self.scale, self.mass = 0.1, 0.0, 0.0
        self.ranked: list[float] = []
        self.recent: deque[float] = deque()

    def half_width(self) -> float:
        n = len(self.ranked)
        rank = int(np.ceil((1.0 - self.rate) * (n + 1)))
        if not 0 < rank <= n:
            return np.inf if rank > n else 0.0
        return self.ranked[rank - 1] * self.scale / self.mass

    def learn(self, gap: float) -> None:
        self.rate += 0.005 * (0.1 - (gap > self.half_width()))
        if self.mass:
            score = gap / (self.scale / self.mass)
            insort(self.ranked, score)
            self.recent.append(score)
            if len(self.recent) > 500:
                del self.ranked[bisect_left(self.ranked, self.recent.popleft())]
        self.scale, self.mass = 0.97 * self.scale + 0.03 * gap, 0.97 * self.mass + 0.03


@pytest.mark.parametrize(
    ("kind", "share"),
    [("steady", 1.0), ("tenfold", 1.0), ("heavy", 0.98), ("relearning", 0.85), ("volatile", 0.85)],
)
def test_they_say_more_than_textbook_intervals_of_the_same_coverage(
    kind: str, share: float
) -> None:
    """Of steady noise both know the same; the faster its spread moves, the more these know."""
    residuals, textbook, told = residuals_of(kind), Textbook(), []
    for gap in np.abs(residuals).tolist():
        told.append(textbook.half_width())
        textbook.learn(gap)
    rival = np.array(told)
    rival[np.isinf(rival)] = rival[np.isfinite(rival)].max()
    least, most = least_and_most(np.abs(residuals) <= rival)
    assert 0.88 <= least <= most <= 0.92, "the rival is a fair one"
    ours = half_widths(residuals)
    assert ours[100:].mean() < rival[100:].mean()
    assert interval_score(residuals, ours) < share * interval_score(residuals, rival)


numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(rows=st.lists(st.tuples(numbers, numbers), max_size=40), coverage=st.floats(0.05, 0.95))
def test_misses_are_what_the_correction_says_whatever_comes(
    rows: list[tuple[float, float]], coverage: float
) -> None:
    """The law that coverage rests on: each miss moves the log correction up by ``PACE`` times the
    coverage, each hit down by ``PACE`` times the rest, and nothing else moves it."""
    intervals, moved = Intervals(coverage), 0.0
    for prediction, y in rows:
        told = intervals.tensors()["tally"][TOLD] > 0
        asked = intervals.ask(prediction)
        intervals.learn(prediction, asked, y)
        if told:
            missed = not asked[0] <= y <= asked[1]
            moved += missed - (1.0 - coverage)
    found = intervals.tensors()["tally"][CORRECTION]
    assert abs(found) < AT_REST, "too few rows to reach a bound"
    assert found == pytest.approx(PACE * moved, abs=1e-9)


@given(rows=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40))
def test_an_interval_is_around_its_prediction_and_asking_changes_nothing(
    rows: list[tuple[float, float]],
) -> None:
    intervals = Intervals()
    assert intervals.ask(1.0) == (-np.inf, np.inf), "before the first label nothing is known"
    for prediction, y in rows:
        low, high = intervals.ask(prediction)
        assert low <= prediction <= high
        assert intervals.ask(prediction) == (low, high)
        intervals.learn(prediction, (low, high), y)
        assert np.isfinite(intervals.ask(prediction)).all()


def test_a_larger_unit_makes_larger_intervals_and_nothing_else() -> None:
    residuals = residuals_of("volatile")[:2_000]
    np.testing.assert_allclose(
        half_widths(1e9 * residuals)[1:], 1e9 * half_widths(residuals)[1:], rtol=1e-9
    )


def test_more_coverage_takes_wider_intervals() -> None:
    residuals = residuals_of("steady")
    widths = [half_widths(residuals, c)[1_000:].mean() for c in (0.5, 0.8, 0.9, 0.99)]
    assert widths == sorted(widths)
    assert widths[2] == pytest.approx(1.645, rel=0.04), "what Gaussian noise needs"


def test_noise_that_grows_tenfold_is_followed_within_rows() -> None:
    rng = np.random.default_rng(5)
    noise = np.concatenate([rng.normal(size=3_000), 10.0 * rng.normal(size=3_000)])
    halves = half_widths(noise)
    assert np.median(halves[2_900:3_000]) < 2.5
    assert np.median(halves[3_020:3_060]) > 10.0
    back = half_widths(noise[::-1].copy())
    assert np.median(back[3_060:3_160]) < 4.0


def test_residuals_of_zero_for_long_do_not_spoil_what_comes_after() -> None:
    rng = np.random.default_rng(6)
    residuals = np.concatenate([np.zeros(5_000), rng.normal(size=4_000)])
    halves = half_widths(residuals)
    assert halves[1:5_000].max() == 0.0, "a prediction that is always right needs no width"
    inside = np.abs(residuals) <= halves
    assert inside[5_000:7_000].mean() >= 0.88
    assert inside[7_000:].mean() >= 0.88
    again = np.concatenate([rng.normal(size=1_000), residuals])
    inside = np.abs(again) <= half_widths(again)
    assert inside[6_000:6_200].mean() >= 0.6
    assert inside[6_200:].mean() >= 0.88


def test_predictions_that_are_often_exactly_right_are_covered_as_asked_too() -> None:
    """Two residuals of three are 0: of the others, seven in ten have to lie inside."""
    rng = np.random.default_rng(7)
    residuals = rng.normal(size=ROWS) * (rng.random(ROWS) < 1 / 3)
    least, most = least_and_most(np.abs(residuals) <= half_widths(residuals))
    assert 0.88 <= least <= most <= 0.92


def test_the_interval_given_then_is_the_one_that_is_judged() -> None:
    """Labels come 50 rows late: what was said then counts, and coverage is as asked."""
    intervals, residuals = Intervals(), residuals_of("tenfold")
    waiting: deque[tuple[tuple[float, float], float]] = deque()
    inside = []
    for y in residuals.tolist():
        asked = intervals.ask(0.0)
        inside.append(asked[0] <= y <= asked[1])
        waiting.append((asked, y))
        if len(waiting) > 50:
            before, late = waiting.popleft()
            intervals.learn(0.0, before, late)
    least, most = least_and_most(np.array(inside))
    assert 0.87 <= least <= most <= 0.93


def test_what_is_kept_goes_on_as_if_nothing_had_happened() -> None:
    residuals, one = residuals_of("volatile")[:600].tolist(), Intervals(0.8)
    for y in residuals[:300]:
        one.learn(0.0, one.ask(0.0), y)
    kept, other = one.tensors(), Intervals(0.8)
    before = {name: array.copy() for name, array in kept.items()}
    other.load(kept)
    for y in residuals[300:]:
        assert one.ask(0.0) == other.ask(0.0)
        one.learn(0.0, one.ask(0.0), y)
        other.learn(0.0, other.ask(0.0), y)
    for name, array in before.items():
        np.testing.assert_array_equal(kept[name], array, "what was kept is a copy")


@pytest.mark.parametrize("y", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_is_passed_over(y: float) -> None:
    intervals = Intervals()
    intervals.learn(0.0, intervals.ask(0.0), 1.0)
    before = intervals.ask(0.0)
    intervals.learn(0.0, before, y)
    assert intervals.ask(0.0) == before


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 90.0, np.nan])
def test_a_coverage_is_a_share(coverage: float) -> None:
    with pytest.raises(ConfigError, match=r"coverage is .*; expected above 0 and below 1"):
        Intervals(coverage)


# -- around the default model, on streams that change ----------------------------------------

LONG = 4_000


def heavy_tails(stream: Scenario) -> Iterator[tuple[dict[str, float], float]]:
    """Student's t with two degrees of freedom on every label: no variance."""
    rng = np.random.default_rng([stream.seed, 72])
    for x, y in stream:
        yield x, float(y) + float(rng.standard_t(2))  # type: ignore[misc]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "heavy"),
    [
        ("friedman | drift('abrupt', every=1000)", False),
        ("linear_switch", False),
        ("polynomial_switch", False),
        ("friedman | drift('abrupt', every=1000)", True),
        ("open:etth1", False),
    ],
)
def test_nine_of_ten_labels_lie_inside_through_every_drift(name: str, heavy: bool) -> None:
    """Any 2,000 rows after one another, drifts among them: 88 to 92 % inside intervals that were
    given before the label was known, and not by being wide."""
    if name.startswith("open:") and not available(name):
        pytest.skip(f"{VARIABLE} has no {name.removeprefix('open:')}")
    stream = scenario(name, seed=11, rows=LONG)
    model, inside, widths, labels = MetaRegressor(), [], [], []
    for x, y in heavy_tails(stream) if heavy else stream:
        interval = model.predict_one(x, with_interval=True)
        inside.append(y in interval)
        widths.append(interval.width)
        labels.append(float(y))
        model.learn_one(x, y)
    least, most = least_and_most(np.array(inside))
    assert least >= 0.88
    assert most <= 0.92
    # an interval that knows nothing of x is as wide as nine tenths of the labels
    knows_nothing = np.quantile(labels, 0.95) - np.quantile(labels, 0.05)
    assert np.mean(widths[100:]) < knows_nothing
