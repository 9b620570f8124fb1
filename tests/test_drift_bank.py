"""Signals vote: as rarely wrong as was asked for, sooner than other detectors, and explained."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from drift import (
    DistributionWatch,
    Evidence,
    Explanation,
    Segmenter,
    Status,
    VotingBank,
    Watch,
    features_that_moved,
    half_brier,
    make_detector,
    width_of_change,
)
from drift.bank import SHARE
from drift.evidence import USUAL, learn_usual, times_longer
from drift.rise import Rise
from drift.watch import VOTERS
from streammeta.experts.kernels import CLASSIFICATION, judge_shown

Floats = NDArray[np.float64]
UNIT = (0.0, 1.0)


def votes_of_a_classifier(rng: np.random.Generator, rows: int, wrong: float) -> Floats:
    """Error, half Brier score, and that of a reference that is much like it: ``(rows, 3)``."""
    p, other = (np.clip(rng.beta(8, 0.9, rows) + d, 0, 1) for d in (0.0, rng.normal(0, 0.1, rows)))
    missed = rng.random(rows) < wrong
    return np.stack([missed, *(np.where(missed, q, 1 - q) ** 2 for q in (p, other))], 1) * 1.0


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5])
def test_errors_raise_alarms_as_rarely_as_was_asked_for(rate: float) -> None:
    errors = (np.random.default_rng(1).random((5_000, 1)) < rate).astype(float)
    for expected in (1_000, 10_000):
        rows = 400 * expected
        alarms = VotingBank([UNIT], SHARE * expected).count_alarms(errors, rows)
        assert 0.5 < rows / alarms / expected < 2.0
        assert VotingBank([UNIT], expected).count_alarms(errors, rows) < rows / expected


@pytest.mark.parametrize("kind", ["normal", "exponential", "t3"])
def test_residuals_raise_alarms_as_rarely_as_was_asked_for(kind: str) -> None:
    rng = np.random.default_rng(2)
    draw: dict[str, Any] = {
        "normal": lambda n: np.abs(rng.normal(size=n)),
        "exponential": lambda n: rng.exponential(size=n),
        "t3": lambda n: np.abs(rng.standard_t(3, size=n)),
    }
    sizes = draw[kind](20_000)
    ratios = np.minimum(sizes / sizes.mean(), 10.0)[:, None]
    rows = 2_000_000
    alarms = VotingBank([(0.0, 10.0)], SHARE * 10_000).count_alarms(ratios, rows)
    assert 0.5 < rows / alarms / 10_000 < 2.0


def test_the_whole_bank_of_a_classifier_raises_no_more_than_that() -> None:
    values = votes_of_a_classifier(np.random.default_rng(3), 20_000, 0.1)
    rows = 2_000_000
    alarms = VotingBank([UNIT] * 3, 10_000).count_alarms(values, rows)
    assert 1.0 < rows / alarms / 10_000 < 4.0


def test_one_signal_alone_has_to_be_twice_as_sure_in_a_bank_of_three() -> None:
    bank = VotingBank([UNIT] * 3)
    found = []
    for row in range(600):
        value = float(row % 10 == 0)
        found.append(bank.update(row, (value, 1.0 if row >= 400 else value, value)))
        if found[-1] is Status.DRIFT:
            break
    sure = math.log(bank.expected)
    assert Status.DRIFT not in found[:400]
    assert math.log(bank.votes[1]) > 2 * sure > math.log(max(bank.votes[0], bank.votes[2], 1.0))

    both = VotingBank([UNIT] * 3)
    for row in range(600):
        value = float(row % 10 == 0 or row >= 400)
        if both.update(row, (value, value, float(row % 10 == 0))) is Status.DRIFT:
            break
    assert 400 < row < len(found) - 1


def test_a_signal_that_is_not_there_has_no_vote() -> None:
    bank = VotingBank([UNIT] * 3)
    values = [float(row % 10 == 0 or row >= 300) for row in range(320)]
    alarms = [
        row
        for row, value in enumerate(values)
        if bank.update(row, (value, value, math.nan)) is Status.DRIFT
    ]
    assert 300 <= alarms[0] <= 310


def test_residuals_that_stop_falling_are_no_change_and_the_next_rise_is_one() -> None:
    too_many = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        # a learner that gets better for 150 rows, then no more, until the world changes
        size = np.concatenate([np.linspace(4.0, 1.0, 150), np.ones(850), np.full(300, 3.0)])
        residuals = size * rng.normal(size=1300)
        segmenter = Segmenter(["bank"], "ratio")
        alarms = [a for i, r in enumerate(residuals) if (a := segmenter.update(i, abs(r), (r, r)))]
        assert 1000 <= alarms[-1].row < 1050
        assert abs(alarms[-1].onset - 1000) <= 25
        too_many += len(alarms) - 1
    assert too_many <= 6  # it would be 20


def test_errors_to_one_side_are_a_change_though_they_are_no_larger() -> None:
    for seed in range(10):
        residuals = np.random.default_rng(seed).normal(size=1000) + 0.5 * (np.arange(1000) >= 600)
        segmenter = Segmenter(["bank"], "ratio")
        alarms = [
            alarm
            for row, r in enumerate(residuals)
            if (alarm := segmenter.update(row, abs(r), (r, math.nan)))
        ]
        assert [(alarm.row >= 600, alarm.signal) for alarm in alarms] == [(True, "residual")]


@pytest.mark.parametrize("first", [0, 2**32 - 280])
@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_a_rise_is_one_of_losses_and_not_of_what_they_are_compared_with(
    first: int, unit: float
) -> None:
    rng, rise = np.random.default_rng(3), Rise(2)
    for row in range(300):
        noise = unit * rng.normal()
        rise.add(first + row, (noise, noise * (1.0 + 2.0 * (row >= 250))))
    assert [rise.since(first + 250, signal) for signal in (0, 1)] == [False, True]
    assert rise.since(first + 5, 0)  # too little before it is known
    rise.forget(0)
    assert rise.since(first + 250, 0)
    for i, wild in enumerate((math.inf, -1e300, math.nan, 0.0)):
        rise.add(first + 300 + i, (unit, wild))
    assert rise.since(first + 300, 1)


@pytest.mark.parametrize("wild", [1e3, 1e9, math.inf])
def test_a_stray_before_it_hides_no_rise_and_nothing_is_no_rise_over_nothing(wild: float) -> None:
    rng, rise = np.random.default_rng(3), Rise(2)
    for row in range(300):
        noise = wild if row == 200 else rng.normal() * (1.0 + 2.0 * (row >= 250))
        rise.add(row, (noise, 0.0))
    assert [rise.since(250, signal) for signal in (0, 1)] == [True, False]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e9, 1e9) | st.just(math.nan), min_size=1, max_size=300),
    st.sampled_from([UNIT, (-4.0, 4.0)]),
)
def test_whatever_comes_evidence_is_a_number_that_is_not_negative(
    values: list[float], bounds: tuple[float, float]
) -> None:
    bank = VotingBank([bounds, UNIT])
    for row, value in enumerate(values):
        bank.update(row, (value, 0.5))
        assert np.isfinite(bank.votes).all()
        assert (bank.votes >= 0.0).all()


def test_a_change_is_found_sooner_than_by_adwin_and_hddm_a_together() -> None:
    sooner = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rate = np.where(np.arange(2600) < 2000, 0.1, 0.3)
        errors = (rng.random(2600) < rate).astype(float).tolist()
        late = [
            next((a.row for row, e in enumerate(errors) if (a := found.update(row, e))), 2600)
            for found in (Segmenter(["bank"]), Segmenter(["adwin", "hddm_a"]))
        ]
        sooner += late[0] < late[1]
    assert sooner >= 15


def test_the_onset_is_near_the_change() -> None:
    misses = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        segmenter = Segmenter(["bank"])
        for row in range(1200):
            error = float(rng.random() < (0.1 if row < 1000 else 0.5))
            alarm = segmenter.update(row, error, (error, error))
            if alarm is not None and row >= 1000:
                misses.append(alarm.onset - 1000)
                break
    assert len(misses) >= 38
    assert abs(float(np.median(misses))) <= 3
    assert np.quantile(np.abs(misses), 0.9) <= 15


def test_series_that_follow_themselves_have_to_be_longer() -> None:
    rng = np.random.default_rng(5)
    for phi, least, most in ((0.0, 1.0, 1.3), (0.5, 2.0, 4.0), (0.8, 5.0, 12.0)):
        usual, x = np.zeros(USUAL), 0.0
        for _ in range(4_000):
            x = phi * x + rng.normal() * math.sqrt(1 - phi * phi)
            learn_usual(usual, 0.5 + 0.1 * x)
        assert least <= times_longer(usual) <= most


def test_evidence_is_a_detector_like_any_other() -> None:
    detector = make_detector("evidence")
    assert isinstance(detector, Evidence)
    assert detector.at(math.log(5_000)).level == pytest.approx(math.log(5_000))
    with pytest.raises(ValueError, match="a loss is nan"):
        detector.update(math.nan)


@pytest.mark.parametrize(
    ("bounds", "expected", "told"),
    [([], 1e5, "at least one signal"), ([UNIT], 0.0, "expected is 0"),
     ([(1.0, 1.0)], 1e5, "1.0 to 1.0 is empty")],
)  # fmt: skip
def test_a_bank_that_cannot_be_is_refused(
    bounds: list[tuple[float, float]], expected: float, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        VotingBank(bounds, expected)


# -- without labels --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mean", "spread", "category"])
def test_a_distribution_that_moves_is_found_without_labels(kind: str) -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(3000, 4))
    x[:, 3] = rng.random(3000) < 0.1
    if kind == "mean":
        x[2000:, 1] += 1.0
    elif kind == "spread":
        x[2000:, 1] *= 2.5
    else:
        x[2000:, 3] = rng.random(1000) < 0.5
    watch = DistributionWatch(4)
    alarms = [row for row in range(3000) if watch.update(row, x[row]) is Status.DRIFT]
    assert 2000 < alarms[0] < 2400
    column, onset = watch.surest()
    assert column == (3 if kind == "category" else 1)
    assert abs(onset - 2000) <= 32


def test_distributions_that_stay_raise_alarms_as_rarely_as_was_asked_for() -> None:
    rng = np.random.default_rng(7)
    rows, expected = 60_000, 2_000
    x = np.column_stack([rng.normal(size=rows), rng.exponential(size=rows), rng.random(rows) < 0.1])
    watch, alarms = DistributionWatch(3, expected), 0
    for row in range(rows):
        if watch.update(row, x[row]) is Status.DRIFT:
            alarms += 1
            watch.reset()
    assert 0.5 < rows / alarms / expected < 3.0


def test_what_is_missing_says_nothing() -> None:
    watch = DistributionWatch(2)
    for row in range(2_000):
        assert watch.update(row, (math.nan, 1.0)) is Status.STABLE
    assert (watch.votes >= 0.0).all()


def test_features_raise_an_alarm_only_while_labels_are_late() -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(2000, 2)) + np.where(np.arange(2000) < 1200, 0.0, 3.0)[:, None]
    for late in (False, True):
        segmenter, alarms = Segmenter(["bank"]), []
        for row in range(2000):
            alarms.append(segmenter.look(row, x[row], np.array([0.5]), late=late))
            alarms.append(segmenter.update(row, float(rng.random() < 0.1), late=late))
        found = [alarm for alarm in alarms if alarm is not None]
        assert [alarm.signal for alarm in found] == (["features"] if late else [])
        assert all(1200 < alarm.row < 1400 and alarm.votes["features"] > 5 for alarm in found)


@given(cut=st.integers(0, 1100))
@settings(max_examples=15, deadline=None)
def test_a_bank_goes_on_after_a_restart_as_if_nothing_had_happened(cut: int) -> None:
    rng = np.random.default_rng(9)
    x = rng.normal(size=(1100, 3)) + np.where(np.arange(1100) < 700, 0.0, 4.0)[:, None]
    values = votes_of_a_classifier(rng, 1100, 0.1)
    values[1050:] = 1.0

    def run(segmenter: Segmenter, rows: range) -> list[Any]:
        found: list[Any] = []
        for row in rows:
            found.append(segmenter.look(row, x[row, :2], x[row, 2:], late=row < 980))
            error, *more = values[row].tolist()
            found.append(segmenter.update(row, error, more, late=row < 980))
        return [alarm for alarm in found if alarm is not None]

    whole, before, after = (Segmenter(["bank"]) for _ in range(3))
    expected = run(whole, range(1100))
    without_labels = [alarm.signal in ("features", "predictions") for alarm in expected]
    assert without_labels == [True, False]
    alarms = run(before, range(cut))
    after.load(before.state())
    assert alarms + run(after, range(cut, 1100)) == expected
    assert after.state() == whole.state()


def test_a_reference_that_is_renewed_has_to_be_heard_again() -> None:
    watch = Watch("error")
    for row in range(200):
        watch.update(row, 0.0, (0.0, 0.1 + 0.001 * (row % 7)))
    watch.renew()
    for row in range(200, 225):
        watch.update(row, 0.0, (0.0, 0.9))
    assert watch.votes()["reference"] == 0.0


def test_there_are_voters_for_both_tasks_and_no_other_signal() -> None:
    assert {name for name, _ in VOTERS["error"]} == {"error", "brier", "reference"}
    assert {name for name, _ in VOTERS["ratio"]} == {"ratio", "residual", "reference"}
    with pytest.raises(ValueError, match="no bank listens to 'brier'"):
        Watch("brier")


def test_a_regressor_that_errs_to_one_side_is_noticed() -> None:
    rng = np.random.default_rng(10)
    watch = Watch("ratio")
    found = None
    for row in range(900):
        residual = float(rng.normal() + 1.5 * (row >= 600))
        if watch.update(row, abs(residual), (residual, math.nan)) is Status.DRIFT:
            found = row
            break
    assert found is not None
    assert 600 < found < 660
    assert watch.votes()["residual"] > 10.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6), st.integers(-1, 7))
@settings(deadline=None)
def test_half_a_brier_score_is_that_of_the_paper(raw: list[float], truth: int) -> None:
    total = sum(raw)
    p = [v / total for v in raw] if total > 0 else [1.0 / len(raw)] * len(raw)
    expected = sum((q - (i == truth)) ** 2 for i, q in enumerate(p))
    expected += 0.0 if 0 <= truth < len(p) else 1.0
    assert half_brier(p, truth) == pytest.approx(min(expected / 2, 1.0), abs=1e-9)
    _, compiled = judge_shown(np.array(p), 0.0, 1.0, float(truth), len(p), CLASSIFICATION)
    assert compiled == pytest.approx(half_brier(p, truth), abs=1e-12)


# -- explanations ----------------------------------------------------------------------------


def test_a_feature_whose_median_stands_still_is_told_by_its_means() -> None:
    rows = np.arange(400)
    before = {"promo": (rows % 20 == 0).astype(float), "price": 1_000.0 + rows % 2}
    after = {"promo": (rows % 5 < 2).astype(float), "price": 1_001.2 + rows % 2}
    why = Explanation({}, features_that_moved(before, after), (400, 400))
    assert "promo moved up (mean 0.05 -> 0.4)" in why.text()
    assert "price moved up (1000.5 -> 1001.7)" in why.text()  # not 1e+03 -> 1e+03
    assert Explanation.from_record(json.loads(json.dumps(why.to_record()))) == why


def test_the_features_that_moved_are_named_and_the_others_are_not() -> None:
    rng = np.random.default_rng(11)
    before = {f"x{i}": rng.normal(size=200) for i in range(10)}
    after = {f"x{i}": rng.normal(size=40) for i in range(10)}
    after["x3"] = after["x3"] + 2.0
    after["x7"] = after["x7"] - 1.2
    found = features_that_moved(before, after)
    assert [m.feature for m in found] == ["x3", "x7"]
    assert found[0].effect == pytest.approx(2.0, abs=0.5)
    assert found[1].effect < 0
    assert found[0].before[1] == pytest.approx(float(np.median(before["x3"])))


def test_features_that_stay_are_hardly_ever_said_to_move() -> None:
    rng = np.random.default_rng(12)
    told = 0
    for _ in range(300):
        before = {f"x{i}": rng.normal(size=200) for i in range(8)}
        after = {f"x{i}": rng.normal(size=30) for i in range(8)}
        told += bool(features_that_moved(before, after))
    assert told <= 15  # 1 % was asked for; the statistic is a little wider than normal


def test_a_constant_that_changes_has_moved_and_can_be_written_as_json() -> None:
    (moved,) = features_that_moved({"a": np.ones(20)}, {"a": np.full(20, 2.0)})
    assert (moved.feature, moved.effect) == ("a", 100.0)


def test_abrupt_changes_and_gradual_ones_are_told_apart() -> None:
    right = {0: 0, 300: 0}
    for width in right:
        for seed in range(20):
            rng = np.random.default_rng(seed)
            t = np.arange(500) - 200
            rise = np.clip(t / width, 0, 1) if width else (t >= 0) * 1.0
            values = 0.1 + 0.6 * rise + rng.normal(0, 0.15, 500)
            found = width_of_change(range(500), values, 200 + width // 6)
            right[width] += found == 0 if width == 0 else found >= 150
    assert min(right.values()) >= 18


def test_too_few_rows_say_nothing_about_the_width() -> None:
    assert width_of_change(range(20), np.arange(20.0), 15) == 0
    assert width_of_change([], np.zeros(0), 3) == 0


def test_an_explanation_is_one_line_and_a_record() -> None:
    told = Explanation({"error": 12.3456}, (), (100, 20), "abrupt", 0, "known", 4)
    assert told.text() == "abrupt, no feature moved, known context (as in segment 4)"
    soon = replace(told, rows=(400, 1), context="", like=None)
    assert soon.text() == "abrupt, too soon to say what moved"
    record = told.to_record()
    assert record["votes"] == {"error": 12.3456}
    assert (record["context"], record["like"]) == ("known", 4)
    assert Explanation({}).text() == "abrupt"
