"""The switching sinusoid: series as the paper has them, models that know what they may, figures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from scenarios.bench import Book, Job, finish, run_job
from scenarios.bench.jobs import cards, check, unfit
from scenarios.fewshot import switching as protocol
from scenarios.fewshot.switching import (
    MAIN,
    Series,
    judge_closed_form,
    judge_maml,
    switching,
    trained,
)
from scenarios.suites.moca_sine import SUITE
from streammeta.errors import UsageError

EPISODES, ROWS = 2, 60  # of a test run


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Series of a fraction of their length, and few of them."""
    monkeypatch.setattr(protocol, "TEST_ROWS", ROWS)
    monkeypatch.setattr(protocol, "TRAIN_ROWS", 20)
    monkeypatch.setattr(protocol, "SCALE_SERIES", 2)
    monkeypatch.setattr(protocol, "SERIES", 4)
    monkeypatch.setattr(protocol, "MAML_UPDATES", 4)


def job(model: str, seed: int = 0, rows: int = EPISODES) -> Job:
    return Job(model, "sine", seed, rows, protocol="switching")


def drawn(hazard: float = 0.05, rows: int = ROWS) -> Series:
    return switching(np.random.default_rng(7), 2, rows, hazard)


def test_a_series_is_sines_with_noise_and_a_switch_now_and_then() -> None:
    found = switching(np.random.default_rng(0), 40, 500, 0.02)
    assert found.x.min() > -5.0
    assert found.x.max() < 5.0
    begins = found.since == 0
    assert begins[:, 0].all()
    assert 0.017 < begins[:, 1:].mean() < 0.023
    residuals, amplitudes = [], []
    for series in range(40):
        for begin in np.flatnonzero(begins[series]):
            run = found.start[series] == begin
            if run.sum() < 20:
                continue
            basis = np.stack([np.sin(found.x[series, run]), np.cos(found.x[series, run])], 1)
            (a, b), *_ = np.linalg.lstsq(basis, found.y[series, run], rcond=None)
            residuals += (found.y[series, run] - basis @ (a, b)).tolist()
            amplitudes.append(math.hypot(a, b))
    assert 0.045 < np.var(residuals) < 0.052
    assert max(amplitudes) < 5.2
    assert 2.2 < np.mean(amplitudes) < 2.9


@pytest.mark.parametrize("model", ["moca", "oracle", "window@5", "everything", "prior"])
def test_rows_to_come_change_nothing_that_was_said(model: str) -> None:
    series = drawn()
    shuffled = np.concatenate([np.arange(30), 30 + np.random.default_rng(1).permutation(30)])
    other = Series(series.x[:, shuffled], series.y[:, shuffled], series.start)
    state = trained(model, 5, 3).state
    one, two = (judge_closed_form(model, state, told) for told in (series, other))
    for before, after in zip(one, two, strict=True):
        np.testing.assert_array_equal(before[:, :30], after[:, :30])
        assert not np.array_equal(before[:, 30:], after[:, 30:])


def test_maml_and_its_detector_hear_no_future_either() -> None:
    series = drawn()
    y = series.y.copy()
    y[:, 40:] += 3.0
    one, _ = judge_maml("maml@page_hinkley", 5, 4, series)
    two, _ = judge_maml("maml@page_hinkley", 5, 4, series._replace(y=y))
    np.testing.assert_array_equal(one.mean[:, :41], two.mean[:, :41])
    np.testing.assert_array_equal(one.nll[:, :40], two.nll[:, :40])
    assert not np.array_equal(one.mean[:, 41:], two.mean[:, 41:])


def test_an_alarm_takes_the_rows_of_before_away() -> None:
    """Errors ten times as large from row 60 on: afterwards fewer rows are adapted on."""
    series = drawn(hazard=0.0, rows=100)
    y = series.y.copy()
    y[:, 60:] += 60.0
    learner, made = protocol.trained_maml(5, 4)
    watched = protocol.Watched(learner, made.state, "page_hinkley")
    _, used = watched.run(series._replace(y=y))
    assert (used[:, 60] == protocol.WINDOW).all()
    assert (used[:, 60:].min(1) < 10).all()
    assert (used <= protocol.WINDOW).all()


def test_the_density_is_the_slope_of_the_chance_of_a_lower_value() -> None:
    series = drawn(hazard=0.0)
    state = trained("oracle", 5, 20).state
    told = judge_closed_form("oracle", state, series)
    assert told.below.min() >= 0.0
    assert told.below.max() <= 1.0
    step = 1e-5
    y = series.y.copy()
    y[:, -1] += step
    above = judge_closed_form("oracle", state, series._replace(y=y))
    slope = (above.below[:, -1] - told.below[:, -1]) / step
    np.testing.assert_allclose(slope, np.exp(-told.nll[:, -1]), rtol=1e-3)


def test_every_model_of_the_suite_does_the_protocol_on_the_same_series() -> None:
    done = [finish(run_job(job(model)), SUITE, "") for model in SUITE.models]
    assert {kept.record.rows for kept in done} == {EPISODES * ROWS}
    for kept in done:
        assert kept.record.main == MAIN
        assert kept.record.score == pytest.approx(float(kept.losses.mean()), abs=1e-5)
        assert kept.record.interval is not None
        assert 0.0 < kept.record.metric["coverage"] <= 1.0  # type: ignore[operator]
    assert SUITE.summarise is not None
    (table,) = SUITE.summarise(Book([kept.record for kept in done], []))
    assert [row[0] for row in table.rows] == list(SUITE.models)


def test_the_same_seed_gives_the_same_bits() -> None:
    one = run_job(job("moca", seed=3)).result.losses
    trained.cache_clear()
    assert run_job(job("moca", seed=3)).result.losses == one
    assert run_job(job("moca", seed=4)).result.losses != one


def test_the_bar_is_a_tenth_of_the_way_to_the_best_window() -> None:
    done = {
        model: finish(run_job(job(model)), SUITE, "").record
        for model in ("oracle", "moca", "window@5", "window@50")
    }
    assert SUITE.gates is not None
    figures = {"oracle": 0.0, "window@5": 1.0, "window@50": 2.0}
    for model, figure in figures.items():
        done[model].metric[MAIN] = figure
    for ours, ok in ((0.09, True), (0.11, False), (math.nan, False)):
        done["moca"].metric[MAIN] = ours
        (gate,) = SUITE.gates(Book(list(done.values()), []))
        assert gate.ok is ok
        assert "window@5 1.000" in gate.text
    del done["oracle"]
    (gate,) = SUITE.gates(Book(list(done.values()), []))
    assert not gate.ok, "it did not run"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("window@0", "expected oracle, moca, moca@HAZARD, window@ROWS"),
        ("window", "window@ROWS"),
        ("moca@2", "moca@HAZARD"),
        ("oracle@3", "expected oracle"),
        ("maml@adwinn", "did you mean 'adwin'"),
    ],
)
def test_a_model_that_does_not_exist_is_refused_before_any_work(model: str, words: str) -> None:
    asked: Any = [job(model)]
    ((_, why),) = unfit(asked, cards(asked)).items()
    assert words in why
    with pytest.raises(UsageError, match="on stream 'sine'"):
        check(asked)


def test_there_is_one_stream() -> None:
    with pytest.raises(UsageError, match="expected sine"):
        check([Job("moca", "cosine", 0, 3, protocol="switching")])
