"""Alarms are judged from two lists, the same way for every detector and for the dummies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift import evaluate, every, never

ROWS = 1000
alarm_lists = st.lists(st.integers(0, ROWS - 1), max_size=40)
drift_lists = st.lists(
    st.tuples(st.integers(0, ROWS - 1), st.integers(0, 80)),
    max_size=12,
    unique_by=lambda drift: drift[0],
).map(lambda drifts: [(a, min(a + length, ROWS - 1)) for a, length in drifts])


def test_the_first_alarm_finds_the_drift_and_its_echoes_are_forgiven() -> None:
    report = evaluate([110, 120, 149], [100], ROWS, max_delay=50)
    assert (report.found, report.false_alarms, report.delays) == (1, 0, (10,))
    assert report.precision == report.recall == report.f1 == 1.0


def test_before_the_drift_or_too_late_is_false() -> None:
    report = evaluate([99, 151], [100], ROWS, max_delay=50)
    assert (report.found, report.missed, report.false_alarms) == (0, 1, 2)
    assert report.mean_delay is None
    assert report.f1 == 0.0
    assert report.false_alarms_per_1000 == 2.0


def test_both_ends_of_the_window_count() -> None:
    assert evaluate([100], [100], ROWS, 50).delays == (0,)
    assert evaluate([150], [100], ROWS, 50).delays == (50,)


def test_a_gradual_drift_may_be_found_while_it_lasts() -> None:
    assert evaluate([340], [(100, 300)], ROWS, max_delay=50).delays == (240,)
    assert evaluate([351], [(100, 300)], ROWS, max_delay=50).found == 0


def test_an_alarm_after_the_next_drift_belongs_to_the_next() -> None:
    report = evaluate([205], [100, 200], ROWS, max_delay=500)
    assert (report.found, report.missed, report.delays) == (1, 1, (5,))


def test_the_dummies_show_what_a_number_is_worth() -> None:
    often = evaluate(every(100, ROWS), [150, 550, 950], ROWS, max_delay=60)
    assert often.recall == 1.0
    assert often.precision < 0.5
    silent = evaluate(never(), [150, 550, 950], ROWS, max_delay=60)
    assert (silent.recall, silent.false_alarms, silent.f1) == (0.0, 0, 0.0)


def test_nothing_to_find_and_nothing_raised_is_perfect() -> None:
    assert evaluate(never(), [], ROWS, 10).f1 == 1.0


@pytest.mark.parametrize(
    ("alarms", "drifts", "rows", "max_delay", "message"),
    [
        ([], [], 0, 5, "rows is 0"),
        ([], [], 10, -1, "max_delay is -1"),
        ([10], [], 10, 5, "alarm at row 10"),
        ([], [(8, 3)], 10, 5, r"drift \(8, 3\)"),
        ([], [12], 10, 5, r"drift \(12, 12\)"),
        ([], [(3, 4), (3, 6)], 10, 5, "two drifts start at row 3"),
    ],
)
def test_impossible_input_is_named(
    alarms: list[int],
    drifts: list[int | tuple[int, int]],
    rows: int,
    max_delay: int,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(alarms, drifts, rows, max_delay)
    with pytest.raises(ValueError, match="n is 0"):
        every(0, 10)


@given(alarm_lists, drift_lists, st.integers(0, 200), st.randoms(use_true_random=False))
def test_the_order_of_the_lists_does_not_matter(
    alarms: list[int], drifts: list[int | tuple[int, int]], max_delay: int, rng: object
) -> None:
    report = evaluate(alarms, drifts, ROWS, max_delay)
    shuffled, mixed = alarms[:], drifts[:]
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    rng.shuffle(mixed)  # type: ignore[attr-defined]
    assert evaluate(shuffled, mixed, ROWS, max_delay) == report


@given(alarm_lists, drift_lists, st.integers(0, 200))
def test_every_drift_is_found_or_missed_and_every_ratio_is_one(
    alarms: list[int], drifts: list[int | tuple[int, int]], max_delay: int
) -> None:
    report = evaluate(alarms, drifts, ROWS, max_delay)
    assert report.found + report.missed == len(drifts)
    assert len(report.delays) == report.found
    assert report.found + report.false_alarms <= len(alarms)
    assert all(0.0 <= ratio <= 1.0 for ratio in (report.precision, report.recall, report.f1))


@given(alarm_lists, drift_lists, st.integers(0, 200), st.integers(0, 200))
def test_more_patience_never_finds_less(
    alarms: list[int], drifts: list[int | tuple[int, int]], patience: int, more: int
) -> None:
    short = evaluate(alarms, drifts, ROWS, patience)
    long = evaluate(alarms, drifts, ROWS, patience + more)
    assert long.found >= short.found
    assert long.false_alarms <= short.false_alarms


def test_a_detector_that_repeats_itself_is_told_from_one_that_finds_more() -> None:
    once, often = (evaluate(a, [100, 600], ROWS, 50) for a in ([110], [110, 120, 130]))
    assert (once.recall, often.recall) == (0.5, 0.75)
    assert once.episode_recall == often.episode_recall == 0.5


def test_times_are_told_in_rows_and_in_shares_of_the_delay_that_is_allowed() -> None:
    report = evaluate([10, 120, 640, 900], [100, (600, 650), 800], ROWS, max_delay=50)
    assert (report.mean_delay, report.normalised_delay) == (30.0, 0.6)
    outside = ROWS - 51 - 101 - 51
    assert (report.outside, report.between_false_alarms) == (outside, outside / 2)
    assert report.mean_time_ratio == pytest.approx(outside / 2 / 30.0 * 2 / 3)


def test_without_false_alarms_the_time_between_them_is_not_made_up() -> None:
    quiet = evaluate([110], [100], ROWS, 50)
    assert quiet.between_false_alarms is None
    assert quiet.mean_time_ratio == float("inf")
    assert evaluate([], [100], ROWS, 50).mean_time_ratio == 0.0
    assert evaluate([7], [], ROWS, 50).mean_time_ratio is None
    assert evaluate([7, 9], [], ROWS, 50).between_false_alarms == ROWS / 2


@given(alarm_lists, drift_lists, st.integers(0, 60))
def test_every_alarm_and_every_drift_is_counted_once(
    alarms: list[int], drifts: list[tuple[int, int]], max_delay: int
) -> None:
    report = evaluate(alarms, drifts, ROWS, max_delay)
    assert report.hits + report.false_alarms == len(alarms)
    assert report.found + report.missed == len(drifts) == report.drifts
    assert report.found <= report.hits
    assert 0 <= report.outside <= ROWS
    for share in (report.precision, report.recall, report.episode_recall, report.f1):
        assert 0.0 <= share <= 1.0
