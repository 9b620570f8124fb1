"""Forecasts know nothing of the future, and the forecasters of the bench learn what they may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.forecast import ForecastStream, lookback, table_rows
from scenarios.forecasters.dlinear import decompose
from scenarios.forecasters.ogd import OnlineGradient
from scenarios.forecasters.ridge import ALPHAS, Ridge, ridges
from scenarios.forecasters.split import Pairs, SplitModel
from scenarios.models import build
from scenarios.prequential import prequential
from scenarios.regimes import DAY, MEMORY, SHOCK, WEEK, Regimes
from scenarios.scenario import Card, Scenario, scenario
from scenarios.series import Series, series
from scenarios.suites.forecast import SUITE
from streammeta.errors import SourceError, UsageError
from streammeta.events import Event, Label, Predicted, Scored
from streammeta.sources.labels import delayed

HORIZONS = (1, 24, 48)
FITTED = ("ridge", "dlinear", "ogd")
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def table(rows: int, seed: int = 0) -> Series:
    """A noisy day with a trend, and another column that runs ahead of it by six hours."""
    rng = np.random.default_rng([seed, 1])
    t = np.arange(rows)
    day = 3.0 * np.sin(2.0 * np.pi * t / 24)
    return Series(
        name="test",
        target=10.0 + 0.01 * t + day + rng.normal(0.0, 0.3, rows),
        others={"ahead": np.roll(day, -6) + rng.normal(0.0, 0.3, rows)},
        times=tuple(BEGIN + timedelta(hours=int(row)) for row in t),
    )


def named(name: str, card: Card) -> str:
    """The name as the bench resolves it."""
    return name.replace("split", f"{card.train_until}:{card.score_from}")


def split_model(name: str, card: Card, seed: int = 0) -> SplitModel:
    model = build(named(f"{name}@split", card), task="regression", seed=seed)
    assert isinstance(model, SplitModel)
    return model


def answers(name: str, stream: Scenario, seed: int = 0) -> list[Label | None]:
    model = build(named(name, stream.card), task="regression", seed=seed)
    return prequential(model, stream.events(), task="regression").predictions


def errors(name: str, stream: Scenario, seed: int = 0) -> float:
    """Mean absolute error on the scored part."""
    model = build(named(name, stream.card), task="regression", seed=seed)
    run = prequential(model, stream.events(), task="regression", score_from=stream.card.score_from)
    return run.metric["mae"]


# --- the stream -----------------------------------------------------------------------------


@pytest.mark.parametrize("horizon", HORIZONS)
def test_an_answer_comes_right_before_the_question_of_the_row_that_it_tells(horizon: int) -> None:
    made = table(1_300)
    stream = ForecastStream(made, horizon)
    first = stream.lookback - 1
    mean, scale = made.target[:260].mean(), made.target[:260].std()
    told, row = {}, first - 1  # row of the question asked last
    events = list(stream.events())
    for place, event in enumerate(events):
        if event.x is not None:
            row += 1
            told[event.id] = row
            assert event.x["target-0"] == pytest.approx((made.target[row] - mean) / scale)
            assert event.x["target-47"] == pytest.approx((made.target[row - 47] - mean) / scale)
            continue
        following = events[place + 1]
        target = told[event.id] + horizon
        assert following.x is not None
        assert target == row + 1, "the next question is the one of the target's row"
        assert event.y == following.x["target-0"], "which shows the same value"
    asked = sum(event.x is not None for event in events)
    assert asked == stream.card.rows == 1_300 - first
    assert len(events) - asked == asked - horizon


@pytest.mark.parametrize("horizon", [1, 24])
def test_the_newest_arrived_label_is_the_value_at_the_row_itself(horizon: int) -> None:
    stream = ForecastStream(table(600), horizon)
    asked = [event.x for event in stream.events() if event.x is not None]
    told = answers("no_change", stream)
    assert told[:horizon] == [None] * horizon
    assert told[horizon:] == [x["target-0"] for x in asked[horizon:]]


@given(rows=st.integers(400, 2_000), horizon=st.sampled_from((1, 5, 24)), seed=st.integers(0, 9))
@settings(max_examples=6, deadline=None)
def test_only_the_first_fifth_of_the_rows_decides_the_scale(
    rows: int, horizon: int, seed: int
) -> None:
    made = table(rows, seed)
    fifth, quarter = int(0.2 * rows), int(0.25 * rows)
    wild = replace(
        made,
        target=np.where(np.arange(rows) < fifth, made.target, 1e4 * made.target),
        others={"ahead": np.where(np.arange(rows) < fifth, made.others["ahead"], -7.0)},
    )
    one, two = ForecastStream(made, horizon), ForecastStream(wild, horizon)
    first = one.lookback - 1
    assert one.card.train_until == fifth - first
    assert one.card.score_from == quarter - first
    before = [event.x for event in one.events() if event.x is not None][: fifth - first]
    assert before == [event.x for event in two.events() if event.x is not None][: fifth - first]
    known = np.concatenate(
        [[before[0][f"target-{lag}"] for lag in range(first, 0, -1)],
         [x["target-0"] for x in before]]
    ).astype(float)  # fmt: skip
    assert len(known) == fifth
    assert known.mean() == pytest.approx(0.0, abs=1e-9)
    assert known.std() == pytest.approx(1.0)


def test_the_calendar_is_two_circles_where_rows_are_close_enough() -> None:
    hourly = next(iter(ForecastStream(table(500), 1)))[0]
    assert {name for name in hourly if "-" in name and "target" not in name} == {
        "hour-sin", "hour-cos", "weekday-sin", "weekday-cos",
    }  # fmt: skip
    days = tuple(BEGIN + timedelta(days=row) for row in range(500))
    daily = next(iter(ForecastStream(replace(table(500), times=days), 1)))[0]
    assert "hour-sin" not in daily
    assert "weekday-sin" in daily
    bare = next(iter(ForecastStream(replace(table(500), times=None), 1)))[0]
    assert set(bare) == {f"target-{lag}" for lag in range(20)} | {"ahead"}


@given(questions=st.integers(1, 5_000))
def test_as_many_questions_as_asked_for_and_not_a_row_more(questions: int) -> None:
    rows = table_rows(questions, None)
    assert rows - lookback(rows) + 1 == questions


def test_a_missing_value_is_a_missing_feature_and_a_label_that_never_comes() -> None:
    made = table(500)
    made.target[300] = float("nan")
    stream = ForecastStream(made, 2)
    shown = [event for event in stream.events() if event.x and event.x["target-0"] is None]
    lost = [event for event in stream.events() if event.error]
    assert [event.id.split(":")[-1] for event in shown] == [str(300 - stream.lookback + 1)]
    assert [event.id.split(":")[-1] for event in lost] == [str(298 - stream.lookback + 1)]
    told = answers("ogd@split", stream)
    assert all(value == value for value in told if value is not None)


# --- nobody sees the future -----------------------------------------------------------------


@pytest.mark.parametrize("horizon", HORIZONS)
@pytest.mark.parametrize(
    "name", ["ridge@split", "dlinear@split", "ogd@split", "no_change", "seasonal@24", "streammeta"]
)
def test_changing_the_raw_future_changes_no_answer_of_the_past(name: str, horizon: int) -> None:
    rows, cut = 700, 420  # rows up to the cut are the same, and it lies in the scored part
    if name == "streammeta":
        rows, cut = 480, 300
    made = table(rows)
    rng = np.random.default_rng(5)
    later = np.arange(rows) > cut
    other = replace(
        made,
        target=np.where(later, rng.permutation(made.target) * 3.0, made.target),
        others={"ahead": np.where(later, rng.normal(size=rows), made.others["ahead"])},
    )
    one, two = (ForecastStream(series, horizon) for series in (made, other))
    past = cut - one.lookback + 2  # questions up to the one of row ``cut``
    assert past > one.card.score_from
    before, after = answers(name, one), answers(name, two)
    assert before[:past] == after[:past]
    assert before[past:] != after[past:], "the future did not differ: no test"


def fed(name: str, stream: Scenario) -> tuple[SplitModel, list[tuple[int, Sequence[float]]]]:
    """The model after the stream, and its weights at each question from the scored part on."""
    model = split_model(name, stream.card)
    weights: list[tuple[int, Sequence[float]]] = []
    asked = 0
    for event in stream.events():
        outputs = model.observe([event])
        asked += any(isinstance(output, Predicted) for output in outputs)
        if model.fitted:
            weights.append((asked, model.forecaster.weights.tolist()))  # type: ignore[attr-defined]
    return model, weights


@pytest.mark.parametrize(("name", "moves"), [("ridge", False), ("dlinear", False), ("ogd", True)])
def test_frozen_is_frozen_from_a_quarter_on_and_the_online_head_moves(
    name: str, moves: bool
) -> None:
    stream = ForecastStream(table(800), 24)
    _, weights = fed(name, stream)
    assert weights[0][0] == stream.card.score_from, "fitted when its last label had come"
    assert (weights[0][1] != weights[-1][1]) == moves
    distinct = {tuple(values) for _, values in weights}
    assert (len(distinct) > 300) if moves else (len(distinct) == 1)


@pytest.mark.parametrize("horizon", HORIZONS)
def test_only_targets_of_the_first_fifth_train(horizon: int) -> None:
    """The same ridge from a list of pairs that was cut by hand, without events."""
    rows = 1_300
    made = table(rows)
    fifth = int(0.2 * rows)
    stream = ForecastStream(made, horizon)
    model, _ = fed("ridge", stream)
    shown = [(x, y) for x, y in stream]
    pairs = shown[: fifth - horizon - stream.lookback + 1]
    names = model._columns
    x = np.array([[row[name] for name in names] for row, _ in pairs], float)
    expected = ridges(x, np.array([y for _, y in pairs], float))
    chosen = ALPHAS.index(model.forecaster.alpha)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(model.forecaster.weights, expected[chosen])  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", FITTED)
def test_before_it_is_fitted_a_forecaster_repeats_the_newest_value(name: str) -> None:
    stream = ForecastStream(table(700), 24)
    asked = [event.x["target-0"] for event in stream.events() if event.x is not None]
    told = answers(f"{name}@split", stream)
    start = stream.card.score_from
    assert told[:start] == asked[:start]
    assert told[start:] != asked[start:]


@pytest.mark.parametrize("name", FITTED)
def test_the_same_seed_gives_the_same_bytes_and_batches_depend_on_the_seed(name: str) -> None:
    stream = ForecastStream(table(700), 1)
    one, two, other = (answers(f"{name}@split", stream, seed) for seed in (1, 1, 2))
    assert one == two
    assert (one != other) == (name == "dlinear")


# --- what the forecasters are worth ---------------------------------------------------------


@pytest.mark.parametrize("horizon", [1, 24])
@pytest.mark.parametrize("name", FITTED)
def test_every_forecaster_beats_the_mean_and_the_last_value_on_trend_and_season(
    name: str, horizon: int
) -> None:
    stream = ForecastStream(replace(table(2_000), others={}), horizon)
    ours = errors(f"{name}@split", stream)
    assert ours < 0.5 * errors("majority", stream)
    if horizon == 1:
        assert ours < 0.7 * errors("no_change", stream)


def test_on_a_pure_season_the_value_of_a_day_ago_is_exact_and_ridge_finds_it() -> None:
    t = np.arange(1_000)
    pure = Series("pure", np.random.default_rng(3).normal(size=24)[t % 24])
    for horizon in (24, 48):
        assert errors("no_change", ForecastStream(pure, horizon)) == pytest.approx(0.0)
    half = ForecastStream(pure, 12)
    assert errors("no_change", half) > 0.5
    assert errors("seasonal@24", half) == pytest.approx(0.0)
    assert errors("ridge@split", half) < 1e-3


def test_ridge_with_next_to_no_penalty_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)) + 3.0
    y = x @ np.array([1.0, -2.0, 0.5, 0.0]) + 7.0 + rng.normal(0.0, 0.1, 60)
    design = np.column_stack([x, np.ones(60)])
    best = np.linalg.lstsq(design, y, rcond=None)[0]
    paths = ridges(x, y)
    np.testing.assert_allclose(paths[0], best, atol=1e-3)
    centred, alpha = x - x.mean(axis=0), ALPHAS[4]
    closed = np.linalg.solve(centred.T @ centred + alpha * np.eye(4), centred.T @ (y - y.mean()))
    np.testing.assert_allclose(paths[4][:4], closed, rtol=1e-9)


@given(window=st.integers(1, 60))
@settings(deadline=None)
def test_trend_and_remainder_add_up_to_the_window_and_a_level_has_no_remainder(
    window: int,
) -> None:
    parts = decompose(window)
    values = np.random.default_rng(window).normal(size=window)
    spread = values @ parts
    np.testing.assert_allclose(spread[:window] + spread[window:], values, atol=1e-12)
    np.testing.assert_allclose((np.ones(window) @ parts)[window:], 0.0, atol=1e-12)


def test_when_a_sign_turns_round_the_online_head_learns_it_and_the_frozen_one_does_not() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(600, 3))
    sign = np.where(np.arange(600) < 220, 1.0, -1.0)  # turns while the rate is chosen
    y = sign * x[:, 0] + 2.0 + rng.normal(0.0, 0.1, 600)
    parts = [
        Pairs(list(x[a:b]), y[a:b].tolist(), list(range(a, b))) for a, b in ((0, 200), (200, 300))
    ]
    frozen, online = Ridge(seed=0), OnlineGradient(seed=0)
    missed: dict[str, list[float]] = {"frozen": [], "online": []}
    for forecaster in (frozen, online):
        forecaster.fit(*parts)
    for row, truth in zip(x[300:], y[300:].tolist(), strict=True):
        missed["frozen"].append(abs(truth - frozen.forecast(row)))
        missed["online"].append(abs(truth - online.forecast(row)))
        frozen.update(row, truth)
        online.update(row, truth)
    assert np.mean(missed["frozen"]) > 0.75, "no better than knowing nothing: E|x| = 0.80"
    assert np.mean(missed["online"]) < 0.15, "near the noise: 0.08"


def test_the_rate_is_chosen_with_the_weights_that_were_known_when_each_question_was_asked() -> None:
    """Answers that come 50 labels late make a quick head look as slow as it will be."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(400, 2))
    drifting = np.sin(np.arange(400) / 12.0)  # is another within 50 rows
    y = drifting * x[:, 0]
    chosen = []
    for late in (0, 50):
        known = [max(0, row - late) for row in range(400)]
        parts = [
            Pairs(list(x[a:b]), y[a:b].tolist(), known[a:b]) for a, b in ((0, 100), (100, 400))
        ]
        head = OnlineGradient(seed=0)
        head.fit(*parts)
        chosen.append(head.rate)
    assert chosen[0] > chosen[1]


# --- wrong calls ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ridge", "expected ridge@FIRST:SECOND"),
        ("ogd@300", "expected ogd@FIRST:SECOND"),
        ("dlinear@split", "in a bench dlinear@split takes them"),
        ("ridge@300:200", "expected ridge@FIRST:SECOND"),
    ],
)
def test_a_forecaster_without_its_two_questions_says_what_it_wants(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(name, task="regression")


def test_a_forecaster_on_another_stream_says_so() -> None:
    with pytest.raises(UsageError, match="no form for classification"):
        build("ridge@10:20", task="classification")
    with pytest.raises(UsageError, match=r"no feature 'target-0' \(it has x"):
        build("ridge@10:20", task="regression").observe([Event("0", {"x": 1.0}, 2.0)])
    words = [Event("0", {"target-0": 1.0, "day": "mon"}, 2.0)]
    with pytest.raises(UsageError, match="'day' is 'mon', expected numbers"):
        build("ogd@10:20", task="regression").observe(words)
    unanswered = [Event(str(i), {"target-0": 1.0}) for i in range(30)]
    with pytest.raises(UsageError, match="0 labels came before question 10"):
        build("dlinear@10:20", task="regression").observe(unanswered)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("forecast:regimes", "expected forecast:NAME@H"),
        ("forecast:regimes@soon", "expected forecast:NAME@H"),
        ("forecast:regimes@0", "horizon is 0, expected at least 1"),
        ("forecast:WaterFlaw@1", "did you mean WaterFlow"),
        ("forecast:AirlinePassengers@24", "hold 0 pairs 24 rows apart"),
    ],
)
def test_a_forecast_that_cannot_be_had_says_why(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scenario(name)


# --- the series -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_regimes_change_at_the_rows_of_their_card_and_nowhere_else(seed: int) -> None:
    """Two waves and a level fit every stretch down to the noise; a row off, and they do not."""
    made = Regimes(seed)
    values, starts = made.values(), [0, *(change.row for change in made.changes), made.rows]
    level = SHOCK / np.sqrt(1.0 - MEMORY**2)
    for start, end in pairwise(starts):
        t = np.arange(start, end)
        turns = [(24, t), (12, t), (WEEK, t)]
        waves = [f(2 * np.pi * u / p) for p, u in turns for f in (np.sin, np.cos)]
        design = np.stack([np.ones(len(t)), *waves], axis=1)
        season = design @ np.linalg.lstsq(design, made.season()[start:end], rcond=None)[0]
        np.testing.assert_allclose(season, made.season()[start:end], atol=1e-9)
        assert (values[start:end] - season).std() == pytest.approx(level, rel=0.2)
    jumps = [c.row for c in made.changes if c.kind == "level"]
    calm = np.abs(np.diff(made.season()))[: starts[1] - 1].max()
    assert all(abs(np.diff(made.season())[row - 1]) > calm / 2 for row in jumps)
    assert sorted(c.kind for c in made.changes) == ["amplitude"] * 2 + ["level"] * 2 + ["phase"] * 2


@pytest.mark.parametrize("horizon", [1, 24])
def test_the_card_of_regimes_counts_questions_and_knows_what_the_noise_leaves(
    horizon: int,
) -> None:
    stream = scenario(f"forecast:regimes@{horizon}", seed=4)
    assert isinstance(stream, ForecastStream)
    made = Regimes(4)
    first = stream.lookback - 1
    assert stream.card.drifts == tuple((c.row - first,) * 2 for c in made.changes)
    assert stream.card.horizon == horizon
    assert all(start > stream.card.score_from for start, _ in stream.card.drifts)
    noise = (made.values() - made.season())[int(0.25 * made.rows) :]
    known = noise[:-horizon] * MEMORY**horizon  # all that can be told of the noise ahead
    left = np.abs(noise[horizon:] - known).mean() / made.values()[: made.rows // 5].std()
    assert stream.card.best == pytest.approx(left, rel=0.05)


def test_regimes_are_seeded_and_as_long_as_asked() -> None:
    one, two, other = (scenario("forecast:regimes@1", seed=s, rows=1_500) for s in (3, 3, 4))
    assert list(one.events()) == list(two.events())
    assert list(one.events()) != list(other.events())
    assert one.card.rows == 1_500
    assert sum(event.x is not None for event in one.events()) == 1_500
    assert one.card.default_rows == scenario("forecast:regimes@1").card.rows
    assert Regimes(3).times()[DAY].weekday() == 1


def test_river_series_are_hourly_and_monthly() -> None:
    flow, passengers = series("WaterFlow", 0, None), series("AirlinePassengers", 0, None)
    assert (len(flow), len(passengers)) == (1_268, 144)
    assert flow.times is not None
    assert (flow.times[1] - flow.times[0]).total_seconds() == 3_600.0
    stream = scenario("forecast:AirlinePassengers@1")
    assert set(next(iter(stream))[0]) == {f"target-{lag}" for lag in range(5)}
    assert stream.card.checksum == passengers.checksum != ""


def test_a_known_file_is_read_with_its_clock_and_its_other_columns(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("STREAMMETA_DATA", str(folder))
    with pytest.raises(SourceError, match="has no etth1"):
        scenario("forecast:etth1@24")
    assert SUITE.unavailable("forecast:etth1@24")
    lines = [f"{BEGIN + timedelta(hours=t):%Y-%m-%d %H:%M:%S},{t % 7},{t / 8}" for t in range(400)]
    (folder / "etth1.csv").write_text("date,HUFL,OT\n" + "\n".join(lines) + "\n")
    assert not SUITE.unavailable("forecast:etth1@24")
    stream = scenario("forecast:etth1@24")
    events = list(stream.events())
    assert {"HUFL", "hour-cos", "target-15"} <= set(events[0].x or ())
    assert (stream.card.licence, stream.card.reference) == ("not stated", "not known")
    assert events[0].ts == (BEGIN + timedelta(hours=15)).timestamp()
    assert events[0].x is not None
    assert events[0].x["hour-cos"] == pytest.approx(np.cos(2 * np.pi * 15 / 24))


def test_the_suite_can_be_built_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STREAMMETA_DATA", raising=False)
    streams = [stream for stream in SUITE.streams if not SUITE.unavailable(stream)]
    assert streams == [stream for stream in SUITE.streams if "etth1" not in stream]
    for name in streams:
        card = scenario(name, rows=600 if "regimes" in name else None).card
        assert 0 < card.train_until < card.score_from < card.rows
        assert card.task == "regression"


@pytest.mark.parametrize("name", FITTED)
def test_one_large_batch_gives_the_answers_of_single_events_and_chunks_lose_no_label(
    name: str,
) -> None:
    stream = ForecastStream(table(700), 1)
    card = stream.card
    outputs = split_model(name, card).observe(list(stream.events()))
    told = [output.prediction for output in outputs if isinstance(output, Predicted)]
    assert told == answers(f"{name}@split", stream)
    chunked = build(named(f"{name}@split", card), task="regression", chunk=16).observe(
        list(stream.events())
    )
    assert sum(isinstance(output, Scored) for output in chunked) == card.rows - 1


def test_a_label_that_comes_later_than_its_row_trains_in_the_part_in_which_it_comes() -> None:
    stream, late = ForecastStream(table(700), 1), 10
    model = split_model("ridge", stream.card)
    for event in delayed(stream.events(), late):
        if model.fitted or model._row == stream.card.score_from:
            break
        model.observe([event])
    pairs = stream.card.train_until - stream.horizon
    assert len(model._train.rows) == pairs - late
