"""Scores are what they say: checked against scikit-learn and against themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, mean_absolute_error, r2_score

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event, LabelExpired, Predicted, Rejected, Scored
from streammeta.experts.baselines import LastValue, Majority, NoChange, losses
from streammeta.scores import ClassificationScores, RegressionScores, scores_for

pairs = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=2)


def scored(row: int, truth: object, guess: object, task: str = "classification") -> Scored:
    loss, log_loss = losses(task, truth, guess, None)  # type: ignore[arg-type]
    return Scored(str(row), "", row, truth, guess, loss, log_loss, 0)  # type: ignore[arg-type]


@given(pairs)
def test_accuracy_and_kappa_are_those_of_scikit_learn(rows: list[tuple[str, str]]) -> None:
    scores = ClassificationScores()
    for i, (truth, guess) in enumerate(rows):
        scores.update(scored(i, truth, guess))
    truths, guesses = zip(*rows, strict=True)
    values = scores.values()
    assert values["accuracy"] == pytest.approx(accuracy_score(truths, guesses))
    if len(set(truths) | set(guesses)) > 1:
        expected = cohen_kappa_score(truths, guesses)
        assert values["kappa"] == pytest.approx(expected, nan_ok=True)
    assert not values["accuracy"] > 1.0


@given(st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 2), min_size=3, max_size=50))
def test_regression_scores_are_those_of_scikit_learn(rows: list[tuple[float, float]]) -> None:
    scores = RegressionScores()
    for i, (truth, guess) in enumerate(rows):
        scores.update(scored(i, truth, guess, "regression"))
    truths, guesses = (np.array(column) for column in zip(*rows, strict=True))
    values = scores.values()
    assert values["mae"] == pytest.approx(mean_absolute_error(truths, guesses))
    assert values["rmse"] == pytest.approx(math.sqrt(np.mean((truths - guesses) ** 2)))
    if np.var(truths) > 1e-3:
        assert values["r2"] == pytest.approx(r2_score(truths, guesses), rel=1e-6, abs=1e-6)


@given(st.lists(st.sampled_from("ab"), min_size=5), st.integers(1, 4))
def test_repeating_the_last_label_is_the_zero_of_kappa_temporal(
    labels: list[str], chunk: int
) -> None:
    model, scores = NoChange(chunk), ClassificationScores()
    scores.observe(model.observe([Event(str(i), {}, y) for i, y in enumerate(labels)]))
    value = scores.values()["kappa_temporal"]
    assert math.isnan(value) or value == pytest.approx(0.0)


def test_last_value_is_the_one_of_mase_even_when_labels_come_late() -> None:
    values = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0]
    asked = [Event(str(i), {"a": 0.0}) for i in range(6)]
    answers = [Event(str(i), None, y) for i, y in enumerate(values)]
    late = [asked[0], asked[1], answers[0], asked[2], answers[1], asked[3], answers[2]]
    model, scores = LastValue(), RegressionScores()
    for event in late:
        scores.observe(model.observe([event]))
    assert scores.n == 3
    assert scores.values()["mase"] == pytest.approx(1.0)


def test_the_last_label_is_that_of_the_key_and_of_any_key_before_it_has_one() -> None:
    rows = [("a", 1.0), ("b", 9.0), ("a", 2.0), ("b", 8.0), ("c", 7.0), ("a", 2.0)]
    model, scores = LastValue(), RegressionScores()
    events = [Event(str(i), {}, y, key) for i, (key, y) in enumerate(rows)]
    outputs = model.observe(events)
    told = [o.prediction for o in outputs if isinstance(o, Predicted)]
    assert told == [None, 1.0, 1.0, 9.0, 8.0, 2.0]
    scores.observe(outputs)
    assert scores.values()["mae_last_value"] == pytest.approx((8 + 1 + 1 + 1 + 0) / 5)
    assert scores.values()["mase"] == pytest.approx(1.0)
    words = [Event(str(i), {}, y, key) for i, (key, y) in enumerate(["ax", "by", "ax", "by"])]
    told = [o.prediction for o in NoChange().observe(words) if isinstance(o, Predicted)]
    assert told == [None, "x", "x", "y"]


def test_a_late_label_without_a_key_belongs_to_the_key_of_its_question() -> None:
    model = LastValue()
    model.observe([Event("0", {}, key="a"), Event("1", {}, 5.0, "b"), Event("0", None, 3.0)])
    (told,) = model.observe([Event("2", {}, key="a")])
    assert isinstance(told, Predicted)
    assert told.prediction == 3.0


def test_a_baseline_refuses_the_rows_that_the_engine_refuses() -> None:
    rows = [Event("0", {"a": 1e300}, 1.0), Event("1", {"a": 1.0}, 1e300), Event("2", {"a": 1}, 1.0)]
    refused = {
        type(model).__name__: [o.id for o in model.observe(rows) if isinstance(o, Rejected)]
        for model in (Engine(ModelConfig(task="regression")), LastValue())
    }
    assert refused == {"Engine": ["0", "1"], "LastValue": ["0", "1"]}


def test_the_rolling_value_forgets_and_the_cumulative_one_does_not() -> None:
    scores = ClassificationScores(window=10)
    for row in range(100):
        scores.update(scored(row, "a", "b" if row < 90 else "a"))
    assert scores.rolling == pytest.approx(1.0)
    assert scores.values()["accuracy"] == pytest.approx(0.10)


def test_before_the_first_label_every_score_is_undefined() -> None:
    for task in ("classification", "regression"):
        assert all(math.isnan(value) for value in scores_for(task).values().values())
    with pytest.raises(ValueError, match="'auto', expected one of classification, regression"):
        scores_for("auto")


def test_an_expired_question_leaves_nothing_behind() -> None:
    scores = ClassificationScores()
    scores.observe([Predicted("q", "", 0, None, "a"), LabelExpired("q", "", 0, "time_to_live")])
    assert scores.n == 0
    assert not scores._known


def test_baselines_answer_before_they_learn_and_reject_what_they_cannot_use() -> None:
    model = Majority("regression")
    outputs = model.observe([Event("0", {}, 2.0), Event("1", {}, 4.0), Event("2", {}, 9.0)])
    assert [o.prediction for o in outputs if isinstance(o, Predicted)] == [None, 2.0, 3.0]
    bad = [
        Event("3", {}, "high"),
        Event("4", {}, float("nan")),
        Event("5", error=("malformed", "line 7: 2 fields, expected 3")),
        Event("6", None, 1.0),
    ]
    reasons = [getattr(output, "reason", None) for output in model.observe(bad)]
    assert reasons == ["wrong_type", "not_finite", "malformed", "unmatched"]
