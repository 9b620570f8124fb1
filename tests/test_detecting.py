"""Detectors are judged on losses without a model, beside dummies, and by what they are worth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from drift import evaluate
from scenarios.bench import Job
from scenarios.bench.book import Book
from scenarios.bench.jobs import run_job
from scenarios.detecting import DETECTING, MAX_DELAY, fits, judged, named, warm_up
from scenarios.losses import CALM, DRIFTING, EVERY, STATIONARY, STREAMS, USUAL, losses
from scenarios.many_keys import STREAM as KEYED
from scenarios.many_keys import measure
from scenarios.suites.detectors import (
    CALIBRATED,
    DETECTORS,
    OURS,
    STILL,
    SUITE,
    extra,
    gates,
    leaves_out,
)
from streammeta.cli import app
from streammeta.errors import StreamMetaError, UsageError


def job(model: str, stream: str, rows: int | None = 6_000) -> Job:
    return Job(model, stream, 0, rows, protocol="detecting")


# -- losses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
def test_losses_are_what_their_signal_says(name: str) -> None:
    stream = losses(name, 20_000)
    assert np.isfinite(stream.values).all()
    if stream.signal == "error":
        assert set(stream.values.tolist()) == {0.0, 1.0}
    else:
        assert stream.values.min() >= 0.0
        assert stream.values[: EVERY - 100].mean() == pytest.approx(1.0, abs=0.15)
    assert (losses(name, 20_000).values == stream.values).all()
    assert (losses(name, 20_000, seed=1).values != stream.values).any()


@pytest.mark.parametrize("name", STATIONARY)
def test_nothing_changes_where_nothing_is_to_change(name: str) -> None:
    stream = losses(name, 200_000)
    assert stream.drifts == ()
    parts = stream.values.reshape(4, -1).mean(1)
    assert parts == pytest.approx(np.full(4, parts.mean()), rel=0.2)
    usual = USUAL if stream.signal == "error" else 1.0
    assert parts.mean() == pytest.approx(usual, rel=0.15)


@pytest.mark.parametrize("name", DRIFTING)
def test_losses_rise_at_a_drift_and_fall_back(name: str) -> None:
    stream = losses(name, 200_000)
    parts = stream.values[CALM : len(stream.values) // EVERY * EVERY].reshape(-1, EVERY).mean(0)
    width = stream.drifts[0][1] - stream.drifts[0][0]
    high, low = parts[width : width + 50].mean(), parts[-300:].mean()
    assert high > 1.4 * low
    assert parts[width + 150 : width + 250].mean() < high
    assert [start for start, _ in stream.drifts][:3] == [CALM, CALM + EVERY, CALM + 2 * EVERY]


def test_errors_of_a_wandering_rate_come_in_clusters() -> None:
    plain, clustered = (losses(n, 100_000).values for n in ("errors", "errors_clustered"))
    spread = [part.reshape(-1, 100).sum(1).var() for part in (plain, clustered)]
    assert spread[1] > 2 * spread[0]


def test_an_unknown_stream_of_losses_is_named() -> None:
    with pytest.raises(UsageError, match="no stream of losses is called 'error'; known: errors"):
        losses("error")


# -- a job -------------------------------------------------------------------------------------


def test_a_detector_is_judged_by_its_alarms_alone() -> None:
    outcome = run_job(job("cusum", "errors_abrupt"))
    stream = losses("errors_abrupt", 6_000)
    raised, report, _, skipped = judged("cusum", stream, 0)
    drifts = [(start - skipped, end - skipped) for start, end in stream.drifts]
    shifted = [row - skipped for row in raised]
    assert report == evaluate(shifted, drifts, 6_000 - skipped, MAX_DELAY)
    assert outcome.result.drifts == raised
    assert outcome.result.metric["f1"] == report.f1 > 0.9
    assert outcome.result.metric["mean_delay"] == report.mean_delay
    assert min(raised) >= skipped == 1_500


def test_no_alarm_depends_on_losses_that_come_later() -> None:
    stream = losses("errors_abrupt", 6_000)
    cut = 4_200
    shuffled = stream.values.copy()
    np.random.default_rng(5).shuffle(shuffled[cut:])
    other = stream._replace(values=shuffled)
    for model in ("adwin", "cusum@5000", "bocpd", "hddm_a"):
        before, after = (
            [row for row in judged(model, s, 0).alarms if row < cut] for s in (stream, other)
        )
        assert before == after


def test_no_loss_from_a_drift_on_calibrates() -> None:
    stream = losses("errors_abrupt", 50_000)
    assert warm_up(stream) == 2_000
    assert warm_up(stream._replace(drifts=((700, 700), (4_000, 4_000)))) == 700
    assert warm_up(stream._replace(values=stream.values[:4_400])) == 1_100


def test_the_dummies_are_what_a_detector_has_to_beat() -> None:
    stream = losses("errors_abrupt", 20_000)
    often, never = (judged(d, stream, 0).alarms for d in ("every@100", "never"))
    assert np.diff(often).tolist() == [100] * (len(often) - 1)
    assert never == []
    random = judged("at_random", stream, 0).alarms
    assert 3 <= len(random) <= 25
    f1 = {m: run_job(job(m, "errors_abrupt", 20_000)).result.metric["f1"]
          for m in ("every@100", "at_random", "never", "ewma@100000")}  # fmt: skip
    assert f1["never"] == 0.0
    assert f1["ewma@100000"] > max(f1["every@100"], f1["at_random"])


def test_what_cannot_be_read_is_not_asked() -> None:
    assert named("cusum@2000") == ("cusum", 2_000.0)
    assert named("sgd@best") == ("sgd@best", None)
    assert fits("errors", "ddm")
    assert not fits("residuals", "ddm")
    assert fits("residuals", "drift.charts:Cusum")
    assert not fits("open:sine1", "cusum")
    assert not fits("errors", "streammeta")
    assert fits("open:sine1", "streammeta")
    with pytest.raises(UsageError, match="no detector is called 'cusun'; did you mean 'cusum'"):
        DETECTING.check(job("cusun", "errors"))
    with pytest.raises(UsageError, match="'ddm' cannot be asked of residuals"):
        DETECTING.check(job("ddm", "residuals"))
    with pytest.raises(UsageError, match=r"every@0\.5: expected a whole number of rows"):
        DETECTING.check(job("every@0.5", "errors"))
    for rows in ("7", "inf", "1e9"):
        with pytest.raises(UsageError, match="expected 100 to 1,000,000 rows"):
            DETECTING.run(job(f"cusum@{rows}", "errors"))
    with pytest.raises(UsageError, match="errors: 100 losses; the first 30 at least"):
        DETECTING.run(job("cusum", "errors", 100))
    early = losses("errors_abrupt", 3_000)._replace(drifts=((10, 10),))
    with pytest.raises(UsageError, match="errors_abrupt: the first drift is at row 10; the first"):
        judged("cusum", early, 0)
    with pytest.raises(UsageError, match="'ddm' reads 0/1 errors, residuals has other losses"):
        judged("ddm", losses("residuals", 900), 0)
    for span in ((2_000, 9_000), (2_500, 2_000)):
        with pytest.raises(UsageError, match=f"a drift from row {span[0]} to {span[1]}: expected"):
            judged("cusum", early._replace(drifts=(span,)), 0)


def test_a_model_brings_its_own_detectors() -> None:
    outcome = run_job(job("no_drift", STILL, 300))
    assert outcome.card.drifts == ()
    assert extra(outcome) == {
        "found": 0,
        "drifts": 0,
        "false_alarms": 0,
        "delay": None,
        "from_centre": None,
        "gradual": False,
        "rows": 300,
    }


def test_keys_are_stacked_and_raise_the_same_alarms() -> None:
    for name in ("ddm", "cusum"):
        values = measure(name, keys=50, rows=120).values()
        assert values["same"] == 1.0
        assert values["alarms"] > 0
        assert values["speedup"] == pytest.approx(values["us_loop"] / values["us_stacked"])
    assert [n for n in ("adwin", "ewma", "streammeta") if fits(KEYED, n)] == ["ewma"]


# -- the suite ---------------------------------------------------------------------------------


def test_every_detector_that_ships_is_in_the_suite() -> None:
    from drift import DETECTORS as ALL

    assert {named(model)[0] for model in SUITE.models} >= set(ALL)
    asked = {(job.stream, job.model) for job in SUITE.jobs()}
    assert ("errors_abrupt", "kswin") in asked
    assert ("errors", "kswin") not in asked
    assert ("residuals", "ddm") not in asked
    assert (STILL, OURS) in asked
    assert leaves_out(STILL, "no_drift")
    assert all(model in dict.fromkeys(m for _, m in asked) for model in (*DETECTORS, *CALIBRATED))


def test_gates_hold_detectors_to_what_they_were_calibrated_to() -> None:
    from scenarios.bench.book import finish

    done = finish(run_job(job("cusum@100000", "errors", 4_000)), SUITE, "a story")

    def held(apart: float | None, rows: int = 4_000_000) -> list[bool]:
        metric = {**done.record.metric, "between_false_alarms": apart}
        return [gate.ok for gate in gates(Book([replace(done.record, metric=metric, rows=rows)]))]

    assert held(60_000.0) == held(190_000.0) == [True]
    assert held(49_000.0) == held(201_000.0) == held(None) == [False]
    assert held(100.0, rows=100_000) == []  # too few rows to tell


# -- eval-detector -----------------------------------------------------------------------------


def told(*args: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["eval-detector", *args, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_command_judges_the_losses_of_a_file(tmp_path: Path) -> None:
    stream = losses("errors_abrupt", 5_000)
    table = tmp_path / "errors.csv"
    table.write_text("wrong\n" + "\n".join(f"{int(v)}" for v in stream.values) + "\n")
    drifts = ",".join(f"{start}-{end}" for start, end in stream.drifts)
    ours, often, _, never = told(
        str(table), "--column", "wrong", "--drifts", drifts, "--detector", "cusum"
    )
    report = judged("cusum", stream, 0).report
    assert (ours["found"], ours["false_alarms"]) == (report.found, report.false_alarms)
    assert ours["mean_delay"] == report.mean_delay
    assert ours["us_per_update"] > 0.0
    assert (often["detector"], never["f1"]) == ("every@100", 0.0)


def test_the_command_brings_residuals_of_any_unit_to_ratios(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(size=2_000), 6.0 * rng.normal(size=200)]) * 3e4
    table = tmp_path / "residuals.csv"
    table.write_text("loss\n" + "\n".join(f"{v:.3f}" for v in values) + "\n")
    ours = told(str(table), "--drifts", "2000")
    assert [one["detector"] for one in ours[:4]] == ["adwin", "page_hinkley", "cusum", "ewma"]
    assert [(one["found"], one["false_alarms"]) for one in ours[:4]] == [(1, 0)] * 4
    assert ours[1]["mean_delay"] < 20


def test_the_command_judges_the_errors_of_a_model_on_a_scenario() -> None:
    ours = told("sea | drift('abrupt', every=2000)", "--rows", "4000", "--detector", "ddm,hddm_a")
    assert (ours[0]["drifts"], ours[0]["rows"]) == (1, 4_000 - 1_000)
    assert [one["detector"] for one in ours[:2]] == ["ddm", "hddm_a"]
    other = told("sea | drift('abrupt', every=2000)", "--rows", "4000", "--model", "no_change")
    assert other[0]["detector"] == "adwin"


def test_the_command_judges_alarms_alone() -> None:
    ours, often, never = told("--alarms", "120,2040", "--drifts", "100,2000", "--rows", "5000")
    assert (ours["found"], ours["delays"], ours["us_per_update"]) == (2, [20, 40], None)
    assert often["false_alarms"] > 20
    assert never["missed"] == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "expected SOURCE with losses, or --alarms"),
        (["--alarms", "3"], "--alarms needs --rows, and neither SOURCE nor --detector"),
        (["--alarms", "3-5", "--rows", "9"], "--alarms 3-5: an alarm is one row"),
        (["--alarms", "x", "--rows", "9"], "--alarms 'x': expected rows such as 2000,4000-4500"),
        (["--alarms", "12", "--rows", "9"], "alarm at row 12; expected a row in"),
        (["errors_abrupt", "--drifts", "9"], "--drifts: errors_abrupt has its own"),
        (["errrs"], "'errrs' is no file and none of the losses errors, errors_clustered"),
        (["errors", "--detector", "adwn", "--rows", "900"], "did you mean 'adwin'"),
        (["errors", "--rows", "90"], "errors: 90 losses; the first 30 at least"),
        (["errors", "--rows", "900", "--model", "sgd"], "--model: is for scenarios"),
        (["none.csv"], "none.csv"),
    ],
)
def test_the_command_says_what_is_wrong(args: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["eval-detector", *args])
    assert isinstance(done.exception, StreamMetaError), done.output
    assert message in str(done.exception)


def test_losses_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    table = tmp_path / "losses.csv"
    table.write_text("loss\n" + "0\n" * 700 + "bad\n" * 300)
    done = CliRunner().invoke(app, ["eval-detector", str(table)])
    assert isinstance(done.exception, UsageError)
    assert "loss is" in str(done.exception)
    table.write_text("loss\n" + "0\n1\n" * 50)
    done = CliRunner().invoke(app, ["eval-detector", str(table)])
    assert "100 losses; the first 30 at least" in str(done.exception)


def test_the_table_shows_every_detector_and_what_the_columns_mean() -> None:
    done = CliRunner().invoke(
        app, ["eval-detector", "errors_small", "--rows", "6000", "--detector", "ddm,kswin"]
    )
    assert done.exit_code == 0, done.output
    for part in (
        "errors_small: 6,000 losses, judged from the 1,500th on, 1 drift,",
        "ddm",
        "kswin",
        "at_random",
        "MTFA",
    ):
        assert part in done.output
