"""Every detector speaks one language: 1 is wrong, and only a change for the worse is news."""

from __future__ import annotations

import pickle
import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift import DETECTORS, AnyOf, Detector, RatioSignal, Status, Vote, Warned, make_detector
from drift.combined import WITHIN
from drift.detector import Input
from drift.river_detectors import Adwin, Ddm, Kswin, PageHinkley

COMBINED = [
    "any_of(adwin, hddm_a)",
    "vote(cusum, ewma, sprt)",
    "warned(adwin)",
    "vote(warned(adwin), hddm_a)",
]
NAMES = [*sorted(DETECTORS), *COMBINED]


def errors(seed: int, *parts: tuple[int, float]) -> list[float]:
    """0/1 errors: each part is (rows, share of wrong ones)."""
    rng = random.Random(seed)
    return [float(rng.random() < share) for rows, share in parts for _ in range(rows)]


def alarms(detector: Detector, values: list[float]) -> list[int]:
    return [row for row, v in enumerate(values) if detector.update(v) is Status.DRIFT]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_gets_worse_raises_an_alarm(name: str) -> None:
    found = alarms(make_detector(name), errors(7, (600, 0.1), (300, 0.6)))
    assert found
    assert 600 <= found[0] < 800


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_gets_better_raises_none(name: str) -> None:
    assert alarms(make_detector(name), errors(7, (600, 0.6), (300, 0.1))) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_steady_model_raises_none(name: str) -> None:
    assert alarms(make_detector(name), errors(7, (2000, 0.1))) == []


@pytest.mark.parametrize("name", NAMES)
def test_after_an_alarm_a_detector_is_as_new(name: str) -> None:
    values = errors(7, (600, 0.1), (300, 0.6))
    used, new = make_detector(name), make_detector(name)
    row = alarms(make_detector(name), values)[0]
    for value in values[: row + 1]:
        used.update(value)
    rest = errors(5, (300, 0.2), (200, 0.8))
    assert [used.update(v) for v in rest] == [new.update(v) for v in rest]


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_detector_is_as_new(name: str) -> None:
    used, new = make_detector(name), make_detector(name)
    for value in errors(1, (150, 0.3)):
        used.update(value)
    used.reset()
    rest = errors(5, (300, 0.1), (200, 0.7))
    assert [used.update(v) for v in rest] == [new.update(v) for v in rest]


@pytest.mark.parametrize("name", NAMES)
def test_only_detectors_that_say_so_warn(name: str) -> None:
    detector = make_detector(name)
    seen = {detector.update(v) for v in errors(7, (600, 0.1), (60, 0.25), (300, 0.5))}
    assert (Status.WARNING in seen) == detector.has_warning


@pytest.mark.parametrize("name", [n for n in NAMES if n != "kswin"])
@given(st.integers(0, 10_000), st.integers(0, 120), st.integers(0, 60))
@settings(max_examples=15, deadline=None)
def test_a_pickled_detector_goes_on_where_it_was(name: str, seed: int, cut: int, more: int) -> None:
    values = errors(seed, (cut, 0.2), (more, 0.6))
    detector = make_detector(name)
    for value in values[:cut]:
        detector.update(value)
    copy = pickle.loads(pickle.dumps(detector))
    again = pickle.loads(pickle.dumps(copy))
    assert pickle.dumps(copy) == pickle.dumps(again)
    assert [detector.update(v) for v in values[cut:]] == [copy.update(v) for v in values[cut:]]


def test_kswin_draws_the_same_sample_for_the_same_seed() -> None:
    values = errors(2, (150, 0.1), (100, 0.7))
    assert alarms(Kswin(seed=3), values) == alarms(Kswin(seed=3), values) != []
    assert pickle.dumps(Kswin(seed=3)) != pickle.dumps(Kswin(seed=4))


def test_both_two_sided_detectors_hear_the_improvement_and_keep_silent() -> None:
    values = errors(7, (300, 0.8), (200, 0.05))
    for detector in (Adwin(), Kswin(seed=0)):
        heard = False
        for value in values:
            before = detector._river
            assert detector.update(value) is Status.STABLE
            heard = heard or detector._river is not before  # made anew: River saw a change
        assert heard


def test_page_hinkley_finds_a_tenfold_ratio_in_two_rows() -> None:
    rng = random.Random(0)
    ratios = [min(10.0, rng.expovariate(1.0)) for _ in range(300)]
    assert alarms(PageHinkley(), [*ratios, 10.0, 10.0, 10.0]) == [301]


@pytest.mark.slow
def test_page_hinkley_seldom_cries_wolf_on_heavy_tails() -> None:
    rng = random.Random(3)
    signal, detector = RatioSignal(), PageHinkley()
    draws: list[float] = []
    for _ in range(20_000):
        chi = sum(rng.gauss(0, 1) ** 2 for _ in range(3)) / 3
        draws.append(signal.update(rng.gauss(0, 1) / chi**0.5))
    assert len(alarms(detector, draws)) <= 1


def test_a_long_quiet_segment_does_not_make_page_hinkley_nervous() -> None:
    rng = random.Random(1)
    values = [abs(rng.gauss(0, 1)) / 0.8 for _ in range(60_000)]
    assert alarms(PageHinkley(), values) == []
    assert alarms(PageHinkley(threshold=8.0, delta=0.5, alpha=0.9999), values) != []


def test_ratios_are_read_by_the_same_detectors_as_errors() -> None:
    rng = random.Random(0)
    ratios = [min(10.0, rng.expovariate(1.0)) for _ in range(400)] + [6.0] * 100
    for name in ("adwin", "kswin", "page_hinkley"):
        found = alarms(make_detector(name, "ratio"), ratios)
        assert found, name
        assert 400 <= found[0] < 460, name


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'page_hinkly'; did you mean 'page_hinkley'\?"):
        make_detector("page_hinkly")
    with pytest.raises(ValueError, match="known: adwin, page_hinkley"):
        make_detector("zzz")


def test_a_river_without_the_class_is_named() -> None:
    class Missing(Ddm):
        _spellings = ("NoSuch",)

    with pytest.raises(ImportError, match="no detector NoSuch"):
        Missing()


def test_the_ratio_has_no_units() -> None:
    rng = random.Random(0)
    residuals = [rng.gauss(0, 1) for _ in range(300)]
    small, large = RatioSignal(), RatioSignal()
    for residual in residuals:
        assert small.update(residual) == pytest.approx(large.update(residual * 1e6), rel=1e-9)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=300))
@settings(max_examples=60, deadline=None)
def test_the_ratio_stays_in_its_range_whatever_comes(residuals: list[float]) -> None:
    signal = RatioSignal()
    for residual in residuals:
        assert 0.0 <= signal.update(residual) <= 10.0


def test_a_perfect_model_that_errs_is_news() -> None:
    signal = RatioSignal()
    assert {signal.update(0.0) for _ in range(50)} == {1.0}
    assert signal.update(1e-9) == 10.0


@pytest.mark.parametrize("name", ["cusum", "ewma", "shewhart", "sprt", "bocpd"])
def test_a_loss_that_is_not_finite_is_refused_and_changes_nothing(name: str) -> None:
    values = errors(7, (300, 0.1), (100, 0.7))
    used, clean = make_detector(name), make_detector(name)
    found = []
    for value in values:
        with pytest.raises(ValueError, match=f"{name}: a loss is (nan|inf); expected a finite"):
            used.update(float("nan") if len(found) % 2 else float("inf"))
        found.append(used.update(value))
    assert found == [clean.update(value) for value in values]
    assert pickle.dumps(used) == pickle.dumps(clean)


# -- several as one ----------------------------------------------------------------------------


class Scripted:
    """Raises alarms in the rows that it is told."""

    input: Input = "real"
    has_warning = False

    def __init__(self, *rows: int) -> None:
        self.rows, self.row, self.name = rows, -1, "scripted"

    def update(self, value: float) -> Status:
        self.row += 1
        return Status.DRIFT if self.row in self.rows else Status.STABLE

    def reset(self) -> None:
        pass


def test_any_of_alarms_when_the_first_does() -> None:
    assert alarms(AnyOf([Scripted(5, 30), Scripted(20)]), [0.0] * 40) == [5, 20, 30]


def test_a_vote_needs_most_of_them_within_a_while() -> None:
    near = Vote([Scripted(5), Scripted(5 + WITHIN - 1), Scripted()])
    assert alarms(near, [0.0] * 300) == [5 + WITHIN - 1]
    far = Vote([Scripted(5), Scripted(5 + WITHIN), Scripted()])
    assert alarms(far, [0.0] * 300) == []
    assert alarms(Vote([Scripted(5), Scripted(9)], least=1), [0.0] * 40) == [5, 9]
    all_of_them = Vote([Scripted(5), Scripted(9), Scripted(40)], least=3)
    assert alarms(all_of_them, [0.0] * 60) == [40]


def test_one_vote_is_a_warning() -> None:
    vote = Vote([Scripted(5), Scripted(), Scripted()])
    found = [vote.update(0.0) for _ in range(2 * WITHIN)]
    assert found.count(Status.WARNING) == WITHIN
    assert found[5] is Status.WARNING


def test_a_warning_comes_before_the_alarm_where_there_was_none() -> None:
    for name in ("adwin", "page_hinkley", "fhddm"):
        plain, warned = make_detector(name), make_detector(f"warned({name})")
        values = errors(7, (900, 0.1), (300, 0.5))
        found = [warned.update(v) for v in values]
        row = found.index(Status.DRIFT)
        assert row == alarms(plain, values)[0]
        assert Status.WARNING in found[900:row]
        assert Status.WARNING not in found[:900]


def test_a_combination_has_a_level_as_its_members_have() -> None:
    values = errors(3, (20_000, 0.2))
    counts = []
    for level in (0.3, 0.6, 1.0):
        made: Any = make_detector("vote(cusum, ewma, sprt)")
        counts.append(len(alarms(made.at(level), values)))
    assert counts[0] > counts[1] >= counts[2]
    strict: Any = make_detector("warned(adwin)")
    assert strict.at(9.0).level == pytest.approx(9.0)


def test_faulty_combinations_are_refused() -> None:
    with pytest.raises(ValueError, match="combined by any_of, vote, warned, not by 'most'"):
        make_detector("most(adwin, ddm)")
    with pytest.raises(ValueError, match=r"no detector is called 'adwn'; did you mean 'adwin'"):
        make_detector("vote(cusum, any_of(adwn, ddm))")
    with pytest.raises(ValueError, match=r"warned\(adwin, ddm\): expected one detector, found 2"):
        make_detector("warned(adwin, ddm)")
    with pytest.raises(ValueError, match=r"'vote\(cusum, ewma': expected any_of or vote or warned"):
        make_detector("vote(cusum, ewma")
    with pytest.raises(ValueError, match="any_of: expected at least one detector"):
        make_detector("any_of()")
    with pytest.raises(ValueError, match="least is 3; expected 1 to 2"):
        Vote([Scripted(), Scripted()], least=3)
    with pytest.raises(ValueError, match="'scripted' has no level that could be lower"):
        Warned(Scripted())


def test_a_detector_of_ones_own_plugs_in_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    module = types.ModuleType("somebodys")
    module.Own = type("Own", (Scripted,), {"__init__": lambda s: Scripted.__init__(s, 3)})  # type: ignore[attr-defined]
    module.Wrong = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somebodys", module)
    assert alarms(make_detector("any_of(somebodys:Own, adwin)"), [0.0] * 10) == [3]
    with pytest.raises(ValueError, match="somebodys:Wrong is no detector: expected name, input"):
        make_detector("somebodys:Wrong")
    with pytest.raises(ValueError, match="no detector is called 'somebodys:Nobody'"):
        make_detector("somebodys:Nobody")
