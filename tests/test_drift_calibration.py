"""How many rows lie between two false alarms is all that anybody has to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from drift import DETECTORS, AnyOf, Detector, Status, calibrated, make_detector
from drift.stacked import StackedDetectors, stackable

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]


def errors(share: float) -> Draw:
    return lambda rng, n: (rng.random(n) < share).astype(float)


def ratios(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Residuals of Student's t with 3 degrees of freedom, in units of their mean, clipped."""
    return np.minimum(10.0, np.abs(rng.standard_t(3, n)) / 1.1)


def between(detector: Detector, draw: Draw, rows: int, keys: int = 40) -> float:
    """Mean rows between two alarms."""
    rng = np.random.default_rng(77)
    stacked = StackedDetectors(detector, keys)
    alarms = sum(int((stacked.update(draw(rng, keys)) == Status.DRIFT).sum()) for _ in range(rows))
    assert alarms > 0
    return rows * keys / alarms


STACKABLE = [name for name in DETECTORS if stackable(make_detector(name))]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.4])
@pytest.mark.parametrize("name", STACKABLE)
def test_false_alarms_are_as_far_apart_as_was_asked_for(name: str, share: float) -> None:
    draw = errors(share)
    made = calibrated(name, draw(np.random.default_rng(1), 4_000), 2_000)
    assert 1_000 < between(made, draw, 20_000) < 4_000


@pytest.mark.parametrize("name", ["cusum", "ewma", "shewhart", "sprt", "page_hinkley"])
def test_so_they_are_for_losses_with_heavy_tails(name: str) -> None:
    made = calibrated(name, ratios(np.random.default_rng(1), 4_000), 2_000, "ratio")
    assert 1_000 < between(made, ratios, 20_000) < 4_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cusum", "ewma", "shewhart", "sprt"])
def test_a_hundred_thousand_rows_from_five_hundred_losses(name: str) -> None:
    draw = errors(0.1)
    made = calibrated(name, np.repeat([0.0, 1.0], [450, 50]))
    assert 50_000 < between(made, draw, 30_000, 300) < 200_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adwin", "fhddm"])
def test_a_detector_without_a_statistic_is_tried_at_looser_settings(name: str) -> None:
    draw = errors(0.2)
    made = calibrated(name, draw(np.random.default_rng(1), 4_000), 20_000)
    values = draw(np.random.default_rng(3), 600_000).tolist()
    alarms = sum(made.update(value) is Status.DRIFT for value in values)
    assert 10 < alarms < 90


@pytest.mark.parametrize("name", [n for n in DETECTORS if n not in ("kswin", "bocpd")])
def test_a_higher_level_raises_fewer_alarms(name: str) -> None:
    values = errors(0.2)(np.random.default_rng(4), 20_000).tolist()
    counts = []
    for level in (0.05, 0.5, 5.0):
        detector: Any = make_detector(name)
        detector = detector.at(level)
        counts.append(sum(detector.update(value) is Status.DRIFT for value in values))
    assert counts[0] > counts[-1]
    assert counts == sorted(counts, reverse=True)


def test_other_settings_are_kept() -> None:
    from drift.charts import Ewma
    from drift.river_detectors import Adwin

    sample = errors(0.2)(np.random.default_rng(0), 500)
    made = calibrated(Ewma(weight=0.2), sample, 1_000)
    assert made.weight == 0.2
    kept = Adwin(clock=4, scale=0.5).at(3.0)
    assert (kept.params["clock"], kept.params["delta"]) == (4, pytest.approx(np.exp(-3.0)))
    assert kept._scale == 0.5


def test_what_cannot_be_calibrated_is_refused_with_the_reason() -> None:
    sample = [0.0] * 80 + [1.0] * 20
    with pytest.raises(ValueError, match="12 losses; expected at least 30, all of them finite"):
        calibrated("cusum", [0.0] * 12)
    with pytest.raises(ValueError, match="100 losses; expected at least 30, all of them finite"):
        calibrated("cusum", [0.0] * 99 + [float("nan")])
    for rows in (5, float("inf"), float("nan"), 1e9):
        with pytest.raises(ValueError, match="expected 100 to 1,000,000 rows"):
            calibrated("cusum", sample, rows)
    with pytest.raises(ValueError, match="adwin never raises more than one alarm in"):
        calibrated("adwin", sample, 150)
    with pytest.raises(ValueError, match="did you mean 'cusum'"):
        calibrated("cusun", sample)
    with pytest.raises(ValueError, match="ddm cannot have 100,000 rows between two alarms"):
        calibrated("ddm", [0.0] * 999 + [1.0])  # one error after none is infinitely many

    class Own:
        name, input, has_warning = "own", "real", False

        def update(self, value: float) -> Status:
            return Status.STABLE

        def reset(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"'own' cannot be calibrated: it has no at\(level\)"):
        calibrated(Own(), sample)
    with pytest.raises(TypeError, match="'own' cannot be calibrated"):
        calibrated(AnyOf([Own()]), sample)
    never: Any = type("Never", (Own,), {"at": lambda self, level: Own()})()
    with pytest.raises(ValueError, match="own raises 0 alarms in 1,000,000 rows"):
        calibrated(never, sample)


def test_one_seed_one_threshold() -> None:
    sample = errors(0.1)(np.random.default_rng(0), 500)
    assert calibrated("sprt", sample).threshold == calibrated("sprt", sample).threshold
    other = calibrated("sprt", sample, seed=1).threshold
    assert other != calibrated("sprt", sample).threshold
    assert other == pytest.approx(calibrated("sprt", sample).threshold, rel=0.1)


def test_a_large_seed_is_as_good_as_any() -> None:
    sample = errors(0.1)(np.random.default_rng(0), 500)
    usual = calibrated("cusum", sample).threshold
    assert calibrated("cusum", sample, seed=2**40).threshold == pytest.approx(usual, rel=0.1)


def test_the_usual_thresholds_are_those_of_a_hundred_thousand_rows() -> None:
    sample = np.repeat([0.0, 1.0], [900, 100])
    for name in ("cusum", "ewma", "shewhart", "sprt"):
        usual: Any = make_detector(name)
        assert calibrated(name, sample).threshold == pytest.approx(usual.threshold, rel=0.06)
