"""Baselines are honest: they know what they may know, and what they were told, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift import Segmenter
from scenarios.concept_mix import ConceptMix
from scenarios.models import at_drift, build
from scenarios.peers.bridge import Table
from scenarios.prequential import prequential
from scenarios.river_model import NAMES
from scenarios.scenario import Card
from scenarios.sine_switch import TASK_ROWS, SineSwitch
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import UsageError
from streammeta.events import (
    Adapted,
    DriftDetected,
    Event,
    Label,
    LabelExpired,
    Output,
    Predicted,
    Scored,
)
from streammeta.experts.baselines import KEY, Seasonal, with_key
from streammeta.registry import components
from streammeta.sources.labels import at_horizon, delayed

CARD = Card("told", "regression", 90, ((30, 30), (60, 70)), "", "", "", 90)


def answers(outputs: Sequence[Output]) -> list[Label | None]:
    return [output.prediction for output in outputs if isinstance(output, Predicted)]


def questions(labels: Sequence[Label], key: str = "") -> list[Event]:
    return [Event(f"{key}{i}", {}, y, key) for i, y in enumerate(labels)]


# -- seasonal naive ----------------------------------------------------------------------------


@given(
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=60),
    period=st.integers(1, 9),
    delay=st.integers(0, 25),
    chunk=st.integers(1, 7),
)
def test_a_season_is_repeated_from_the_newest_one_whose_label_has_arrived(
    labels: list[int], period: int, delay: int, chunk: int
) -> None:
    model = Seasonal("regression", period, chunk)
    told = answers(model.observe(list(delayed(questions(labels), delay))))
    stream = list(delayed(questions(labels), delay))
    asked_after: list[list[int]] = []  # rows whose label had arrived when each row was asked
    arrived: list[int] = []
    for start in range(0, len(stream), chunk):
        part = stream[start : start + chunk]
        asked_after += [list(arrived) for event in part if event.x is not None]
        arrived += [int(event.id) for event in part if event.y is not None]
    for row, known in enumerate(asked_after):
        same = [r for r in known if r < row and (row - r) % period == 0]
        expected = labels[max(same)] if same else labels[known[-1]] if known else None
        assert told[row] == expected


def test_a_seasonal_forecast_repeats_the_season_of_the_time_it_speaks_of() -> None:
    wave = [0.0, 5.0, 9.0, 2.0] * 10
    rows = [Event(str(t), {"y": y}, y) for t, y in enumerate(wave)]
    ahead = prequential(Seasonal("regression", 4), at_horizon(rows, 3), task="regression")
    assert set(ahead.losses[8:]) == {0.0}
    assert max(ahead.losses[:4]) > 0.0, "there was no season to repeat yet"


def test_each_key_has_its_own_season_and_words_have_probabilities() -> None:
    days, nights = questions("xyz" * 8, "day"), questions("pq" * 12, "night")
    mixed = [event for pair in zip(days, nights, strict=True) for event in pair]
    outputs = build("seasonal@6", task="classification").observe(mixed)
    told = [o for o in outputs if isinstance(o, Predicted)][-12:]
    assert [o.prediction for o in told] == [event.y for event in mixed[-12:]]
    last = told[-1].probabilities
    assert last is not None
    assert sum(last.values()) == pytest.approx(1.0)
    assert max(last, key=last.__getitem__) == told[-1].prediction


@pytest.mark.parametrize("chunk", [1, 8])
def test_questions_whose_label_never_comes_are_given_up_as_the_engine_gives_them_up(
    chunk: int,
) -> None:
    wave = [Event(str(t), {"v": t % 5}, float(t % 5), "ab"[t % 2]) for t in range(120)]
    answered = [e for e in delayed(wave, 4) if e.x is not None or int(e.id) % 3]
    model = Seasonal("regression", 5, chunk)
    model.max_pending = 10
    engine = Engine(ModelConfig(task="regression", chunk=chunk, max_pending=10))
    ours: list[Output] = []
    theirs: list[Output] = []
    for start in range(0, len(answered), chunk):
        ours += model.observe(answered[start : start + chunk])
        theirs += engine.observe(answered[start : start + chunk])
        assert len(model._places) == len(model._pending) <= 10
    gone = [o for o in ours if isinstance(o, LabelExpired)]
    assert len(gone) > 20
    assert gone == [o for o in theirs if isinstance(o, LabelExpired)]
    scored = [o.row for o in ours if isinstance(o, Scored)]
    assert scored == [o.row for o in theirs if isinstance(o, Scored)]
    assert Seasonal.max_pending == ModelConfig(task="regression").max_pending


# -- told of the drifts ------------------------------------------------------------------------


def run(model: Engine, events: Sequence[Event]) -> list[Output]:
    return [output for event in events for output in model.observe([event]) + model.replay()]


def test_the_oracle_hears_of_each_true_drift_with_its_first_label_and_of_nothing_else() -> None:
    stream = SineSwitch(seed=1, rows=3 * TASK_ROWS)
    name = at_drift("oracle@drift", stream.card)
    assert name == f"oracle@{TASK_ROWS}+{2 * TASK_ROWS}"
    model = build(name, task="regression")
    assert isinstance(model, Engine)
    outputs = run(model, list(stream.events()))
    alarms = [o for o in outputs if isinstance(o, DriftDetected)]
    assert [(a.row, a.onset, a.segment) for a in alarms] == [
        (TASK_ROWS, TASK_ROWS, 1),
        (2 * TASK_ROWS, 2 * TASK_ROWS, 2),
    ]
    assert {(a.detector, a.signal) for a in alarms} == {("known", "known")}
    drifted = [o.row for o in outputs if isinstance(o, Adapted) and o.trigger == "drift"]
    assert drifted == [TASK_ROWS] * 2 + [2 * TASK_ROWS] * 2  # the learner's and its partner's


def test_a_model_told_that_nothing_changes_has_no_detectors_left() -> None:
    stream = list(SineSwitch(seed=1, rows=3 * TASK_ROWS).events())
    told = Engine(ModelConfig(task="regression", known_drifts=()))
    assert not [o for o in run(told, stream) if isinstance(o, DriftDetected)]
    assert told.state.segmenters[0].names == ()
    watching = Engine(ModelConfig(task="regression", known_drifts=(), detectors=("page_hinkley",)))
    assert watching.state.segmenter().names == ("page_hinkley",)


def test_the_oracle_reset_starts_over_at_the_drift_and_at_no_alarm() -> None:
    stream = list(ConceptMix(seed=2, rows=400).events())
    model = build("reset@250", task="classification")
    assert isinstance(model, Engine)
    run(model, stream[:250])
    learned = model.state.bank.theta.copy()
    outputs = run(model, stream[250:252])
    assert [o.row for o in outputs if isinstance(o, DriftDetected)] == [250]
    fresh = Engine(ModelConfig(task="classification", on_drift="reset", known_drifts=()))
    run(fresh, stream[:1])
    distance = abs(model.state.bank.theta - fresh.state.bank.theta).max()
    assert distance < abs(learned - fresh.state.bank.theta).max() / 2


@pytest.mark.parametrize("cut", [199, 200, 201])
def test_a_resumed_oracle_goes_on_as_if_it_had_never_stopped(cut: int) -> None:
    config = ModelConfig(task="regression", known_drifts=(400, 200))
    stream = list(SineSwitch(seed=3, rows=420).events())
    whole = Engine(config)
    expected = run(whole, stream)
    first = Engine(config)
    outputs = run(first, stream[:cut])
    outputs += run(Engine.restore(config, first.snapshot()), stream[cut:])
    assert outputs == expected
    assert [o.row for o in outputs if isinstance(o, DriftDetected)] == [200, 400]


def test_late_labels_bring_the_known_drift_late_and_with_the_right_onset() -> None:
    stream = delayed(SineSwitch(seed=1, rows=300).events(), 30)
    model = Engine(ModelConfig(task="regression", known_drifts=(200,)))
    (alarm,) = (o for o in run(model, list(stream)) if isinstance(o, DriftDetected))
    assert (alarm.row, alarm.onset) == (230, 200)


def test_every_key_is_told_once_and_a_key_that_comes_later_never() -> None:
    keys = ["a", "b"] * 60 + ["late", "a", "b"] * 20
    stream = [Event(str(i), {"v": float(i % 7)}, float(i % 5), k) for i, k in enumerate(keys)]
    model = Engine(ModelConfig(task="regression", known_drifts=(50, 101)))
    alarms = [o for o in run(model, stream) if isinstance(o, DriftDetected)]
    told = {key: [a.onset for a in alarms if a.key == key] for key in ("a", "b", "late")}
    assert told == {"a": [50, 101], "b": [50, 101], "late": []}
    assert all(one.row < two.row or one.key != two.key for one, two in pairwise(alarms))


def test_a_told_segment_starts_its_detectors_over() -> None:
    segmenter = Segmenter(("adwin", "hddm_a"))
    for row in range(300):
        assert segmenter.update(row, float(row % 10 == 0)) is None
    alarm = segmenter.told(300, 290)
    assert (alarm.row, alarm.onset, alarm.segment) == (300, 290, 1)
    assert segmenter.start == 290
    assert not segmenter.in_warning
    found = [
        a.detector for row in range(300, 700) if (a := segmenter.update(row, float(row > 500)))
    ]
    assert found == ["hddm_a"] or found == ["adwin"]


def test_drift_in_a_name_means_the_drifts_of_the_card() -> None:
    assert at_drift("frozen@drift", CARD) == "frozen@30"
    assert at_drift("streammeta.reset@drift", CARD) == "streammeta.reset@30+60"
    assert at_drift("river.hat", CARD) == "river.hat"
    still = Card("still", "regression", 90, (), "", "", "", 90)
    assert at_drift("oracle@drift", still) == "oracle@90"
    keyed = Card("k", "regression", 9, ((3, 3),), "", "", "", 9, key_drifts={"a": ((2, 2),)})
    with pytest.raises(UsageError, match="keys of 'k' drift on their own"):
        at_drift("oracle@drift", keyed)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("oracle", "expected rows, such as oracle@3000"),
        ("oracle@drift", "whose drifts are known"),
        ("reset@3,4", "expected rows, such as reset@3000"),
        ("seasonal", "expected a period"),
        ("seasonal@0", "expected a period"),
        ("sgd@best", "model of `streammeta bench` alone"),
        ("capymoa.arf", "model of `streammeta bench` alone"),
        ("river.levbug", "did you mean river.levbag"),
    ],
)
def test_a_baseline_that_cannot_be_had_says_why(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(name, task="classification")


# -- River ---------------------------------------------------------------------------------------


def small(task: str) -> list[Event]:
    """Numbers, a word and a gap; the label follows one number; three classes."""
    made = []
    for i in range(90):
        x: dict[str, Any] = {"a": float(i * 7 % 10), "w": "xy"[i % 2], "b": i % 4}
        if i % 11 == 0:
            x["b"] = None
        y: Label = ["low", "mid", "high"][i * 7 % 10 // 4] if task == "classification" else x["a"]
        made.append(Event(str(i), x, y))
    return made


CASES = [(n, t) for n, e in NAMES.items() for t in ("classification", "regression") if e.form(t)]


@pytest.mark.parametrize(("name", "task"), CASES)
def test_every_short_name_of_river_learns_numbers_words_gaps_and_three_classes(
    name: str, task: str
) -> None:
    one, two = (
        prequential(build(f"river.{name}", task=task, seed=4), small(task)) for _ in range(2)
    )
    assert one.scores.n == 90
    assert one.predictions == two.predictions, "the seed does not decide"
    if task == "classification":
        assert {"low", "mid", "high"} >= set(one.predictions[1:]) != set()


def test_the_registry_tells_of_every_short_name_and_of_no_other() -> None:
    told = {n.removeprefix("river.") for n in components("models") if n.startswith("river.")}
    assert told == set(NAMES)


OWN = """
from river import naive_bayes, linear_model, tree

class Constant:
    def learn_one(self, x, y): self.last = y
    def predict_one(self, x): return getattr(self, "last", None)

ready = naive_bayes.GaussianNB()
def make(): return tree.HoeffdingTreeClassifier(grace_period=10)
def seeded(seed): return naive_bayes.GaussianNB() if seed == 5 else None
def needs(this): return this
line = linear_model.LinearRegression()
number = 3
class nested:
    Model = Constant
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{abs(hash(str(tmp_path)))}"  # a module is imported once per process
    (tmp_path / f"{name}.py").write_text(OWN)
    (tmp_path / f"{name}_broken.py").write_text("import no_such_thing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize("what", ["Constant", "ready", "make", "seeded", "nested.Model"])
@pytest.mark.parametrize("prefix", ["", "river:"])
def test_a_users_own_estimator_is_a_class_an_instance_or_a_function(
    own_module: str, what: str, prefix: str
) -> None:
    rows = [Event(str(i), {"a": float(i % 2)}, "pq"[i % 2]) for i in range(60)]
    name = f"{prefix}{own_module}:{what}"
    first = prequential(build(name, task="classification", seed=5), rows)
    assert first.scores.n == 60
    again = prequential(build(name, task="classification", seed=5), rows)
    assert again.predictions == first.predictions, "one run has taught the next one"
    if what in ("Constant", "nested.Model"):
        assert first.predictions == [None, *("pq"[i % 2] for i in range(59))]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("MODULE:Missing", "has no attribute 'Missing'"),
        ("MODULE_broken:X", "No module named 'no_such_thing'"),
        ("no_such_module:X", "there is no module 'no_such_module' in /"),
        ("MODULE:needs", "cannot be made: TypeError"),
        ("MODULE:line", "it is a regressor"),
        ("MODULE:number", "it is a int, expected a class"),
        ("MODULE:nested", "it has no learn_one"),
    ],
)
def test_a_users_own_estimator_that_cannot_be_had_says_why(
    own_module: str, name: str, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        build(name.replace("MODULE", own_module), task="classification")


def test_river_classes_are_found_with_and_without_rivers_name() -> None:
    for name in ("river.tree:HoeffdingTreeClassifier", "river.river.tree:HoeffdingTreeClassifier"):
        made = build(name, task="classification")
        assert type(made.estimator).__name__ == "HoeffdingTreeClassifier"  # type: ignore[attr-defined]


def test_logistic_regression_is_rivers_own_for_two_classes_and_for_more() -> None:
    from river.linear_model import LogisticRegression, SoftmaxRegression

    from scenarios.logistic import Logistic

    ours, two, more = Logistic(), LogisticRegression(), SoftmaxRegression()
    rows = [({"a": t % 7 / 7.0, "b": t % 3 / 3.0}, t % 7 > 3) for t in range(200)]
    for x, y in rows:
        ours.learn_one(dict(x), y)
        two.learn_one(dict(x), y)
    share = ours.predict_proba_one({"a": 0.9, "b": 0.1})[True]
    assert share == pytest.approx(two.predict_proba_one({"a": 0.9, "b": 0.1})[True], abs=0.02)
    for t in range(200):  # a third class: from here on it is softmax regression, from scratch
        x = {"a": t % 7 / 7.0, "b": t % 3 / 3.0}
        ours.learn_one(dict(x), "third" if t % 2 == 0 else False)
        more.learn_one(dict(x), "third" if t % 2 == 0 else False)
    assert ours.predict_proba_one({"a": 0.5, "b": 0.5}) == pytest.approx(
        more.predict_proba_one({"a": 0.5, "b": 0.5})
    )


# -- keys --------------------------------------------------------------------------------------


def two_keys(rows: int = 400) -> list[Event]:
    """Key and nothing else tells the label: ``a`` has one answer, ``b`` the other."""
    return [
        Event(str(i), {"x": float(i % 7)}, ("up", "down")[i % 2], key=("a", "b")[i % 2])
        for i in range(rows)
    ]


KNOWING = ("sgd@0.03", "river.hat", "river.logistic", "river.arf", "river.knn", "capymoa.hat")


@pytest.mark.parametrize("model", KNOWING)
def test_a_learner_that_knows_no_keys_is_given_the_key_as_a_feature(model: str) -> None:
    if model.startswith("capymoa."):
        table = Table("classification")
        table.read(iter(two_keys(4)), None)
        assert table.columns() == {"x": None, KEY: ["a", "b"]}
        return
    made = build(model, task="classification")
    result = prequential(made, two_keys(), task="classification", chunk=1)
    assert sum(result.losses[200:]) == 0.0


def test_a_stream_without_keys_gets_no_further_feature() -> None:
    assert with_key({"x": 1.0}, "") == {"x": 1.0}
    assert with_key({"x": 1.0}, "a") == {"x": 1.0, KEY: "a"}


def test_who_is_told_of_drifts_or_frozen_does_not_find_them() -> None:
    watching = {
        name: prequential(build(name, task="classification"), two_keys(5)).watches
        for name in ("streammeta", "reset", "no_drift", "frozen@3", "oracle@3", "reset@3", "sgd@1")
    }
    assert [name for name, watches in watching.items() if watches] == ["streammeta", "reset"]
