"""River's protocol: its own checks, and what River's users do with an estimator."""

from __future__ import annotations

import copy
import datetime as dt
import math
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import checks, compose, conf, datasets, evaluate, metrics, preprocessing
from river.datasets import synth

import streammeta
from streammeta.engine import Engine
from streammeta.errors import ConfigError, RejectedEvent
from streammeta.estimators import MetaClassifier, MetaRegressor
from streammeta.estimators.base import named, records
from streammeta.events import Predicted
from streammeta.meta.initial import write_initial

Estimator = type[MetaClassifier] | type[MetaRegressor]
BOTH = (MetaClassifier, MetaRegressor)
both = pytest.mark.parametrize("made", BOTH)

#: Enough of the model for what is not about how good it is.
SMALL: dict[str, Any] = {"challengers": 0, "partner": None}


def every_check() -> Iterator[Any]:
    for made in BOTH:
        model = made()
        seen: dict[str, int] = {}
        for check in checks.yield_checks(model):
            name = check.__name__
            seen[name] = seen.get(name, 0) + 1
            long = made is MetaClassifier or name == "check_bounded_memory_growth"
            told = f"{made.__name__}-{name}-{seen[name]}"
            yield pytest.param(model, check, id=told, marks=[pytest.mark.slow] * long)


@pytest.mark.parametrize(("model", "check"), list(every_check()))
def test_river_finds_nothing_wrong(model: Any, check: Callable[[Any], None]) -> None:
    check(model.clone())


@both
def test_none_of_the_checks_is_skipped_and_the_default_is_among_the_checked(
    made: Estimator,
) -> None:
    assert made()._unit_test_skips() == set()
    assert next(iter(made._unit_test_params())) == {}
    assert len(list(made._unit_test_params())) > 1


@pytest.mark.slow
@both
def test_nor_with_other_parameters(made: Estimator) -> None:
    checks.check_estimator(made(**list(made._unit_test_params())[1]))


# -- streams of the tests --------------------------------------------------------------------


def rows(made: Estimator, n: int = 120, seed: int = 0) -> list[tuple[dict[str, Any], Any]]:
    """Numbers, a category, missing values; the label follows from them with a little noise."""
    rng = np.random.default_rng([seed, 81])
    found = []
    for _ in range(n):
        a, b = (float(v) for v in rng.normal(size=2))
        day = str(rng.choice(["mon", "sun"]))
        level = 10.0 * a + (20.0 if day == "sun" else 0.0) + float(rng.normal())
        x: dict[str, Any] = {"a": a, "b": None if rng.random() < 0.1 else b, "day": day}
        found.append((x, level if made is MetaRegressor else level > 10.0))
    return found


def taught(made: Estimator, n: int = 120, **params: Any) -> Any:
    model = made(**params)
    for x, y in rows(made, n):
        model.learn_one(x, y)
    return model


def told(model: Any, x: dict[str, Any]) -> Any:
    """All that a model says of a row."""
    if isinstance(model, MetaClassifier):
        return model.predict_one(x), model.predict_proba_one(x)
    interval = model.predict_one(x, with_interval=True)
    return model.predict_one(x), interval.lower, interval.upper


# -- keeping, copying ------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "clone with attributes": lambda model: model.clone(include_attributes=True),
}


@both
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_goes_on_as_the_original_would_and_on_its_own(made: Estimator, how: str) -> None:
    model = taught(made)
    other = COPIES[how](model)
    before = pickle.dumps(model)
    answers = []
    for x, y in rows(made, 40, seed=1):
        answers.append(told(other, x))
        other.learn_one(x, y)
    assert pickle.dumps(model) == before
    for (x, y), answer in zip(rows(made, 40, seed=1), answers, strict=True):
        assert told(model, x) == answer
        model.learn_one(x, y)
    assert model.drifts == other.drifts
    assert pickle.dumps(model) == pickle.dumps(other)


@both
def test_a_clone_has_learned_nothing(made: Estimator) -> None:
    clone = taught(made, seed=3).clone()
    assert clone.seed == 3
    assert clone.predict_one({"a": 1.0}) == (0.0 if made is MetaRegressor else None)
    assert pickle.dumps(clone) == pickle.dumps(made(seed=3))


@both
def test_the_same_seed_gives_the_same_answers_and_another_one_others(made: Estimator) -> None:
    x, _ = rows(made)[-1]
    one, same, other = (told(taught(made, seed=seed), x) for seed in (5, 5, 6))
    assert one == same
    assert one != other


@both
def test_to_predict_changes_nothing(made: Estimator) -> None:
    model = taught(made)
    before = pickle.dumps(model)
    told(model, {"a": 1.0, "new": 3.0, "day": "never seen", "b": math.nan})
    model.predict_many(pd.DataFrame([{"a": 1.0, "other": "x"}]))
    assert pickle.dumps(model) == before


@both
def test_memory_counts_arrays_once_and_what_tensors_point_to(made: Estimator) -> None:
    model = taught(made)
    arrays = sum(array.nbytes for array in model.engine.snapshot().tensors.values())
    assert arrays < model._raw_memory_usage < 1.5 * arrays


# -- rows and labels as they come ------------------------------------------------------------


@pytest.mark.parametrize(
    ("no", "yes", "kind"),
    [
        ("cold", "warm", str),
        (0, 1, int),
        (False, True, bool),
        (np.bool_(False), np.bool_(True), bool),
        (np.int64(7), np.int64(9), int),
        (np.str_("n"), np.str_("y"), str),
        (0.5, 1.5, float),
    ],
)
def test_labels_may_be_of_any_kind_and_come_back_as_python_s_own(
    no: Any, yes: Any, kind: type
) -> None:
    model = MetaClassifier(**SMALL)
    for t in range(120):
        model.learn_one({"t": float(t % 7)}, yes if t % 7 > 3 else no)
    assert model.predict_one({"t": 6.0}) == yes
    assert model.predict_one({"t": 0.0}) == no
    assert type(model.predict_one({"t": 6.0})) is kind
    assert set(model.predict_proba_one({"t": 6.0})) == {no, yes}


def test_classes_may_come_late_and_be_many() -> None:
    model = MetaClassifier(**SMALL)
    for t in range(300):
        kinds = 3 if t < 150 else 12
        model.learn_one({"kind": f"k{t % kinds}"}, f"label {t % kinds}")
    assert len(model.predict_proba_one({"kind": "k11"})) == 12
    right = sum(model.predict_one({"kind": f"k{k}"}) == f"label {k}" for k in range(12))
    assert right >= 10


@both
def test_features_come_and_go(made: Estimator) -> None:
    """``a`` is all that matters; it is joined by another feature, left by it, and joined again."""
    model, rng, errors = made(**SMALL), np.random.default_rng(2), []
    for t in range(400):
        a = float(rng.normal())
        x = {"a": a, **({f"new{t // 100}": float(rng.normal())} if t // 100 % 2 else {})}
        y: Any = 5.0 * a if made is MetaRegressor else a > 0.0
        said: Any = model.predict_one(x)
        if t >= 200:
            errors.append(abs(said - y) if made is MetaRegressor else said != y)
        model.learn_one(x, y)
    assert np.mean(errors) < (1.0 if made is MetaRegressor else 0.1)
    assert told(model, {}) is not None, "a row without any feature has an answer too"


@both
def test_features_may_be_named_by_anything(made: Estimator) -> None:
    assert named({"a": 1.0}) == {"a": 1.0}
    assert named({1: 1.0, "1": 2.0, (0, 1): 3.0}) == {"int 1": 1.0, "1": 2.0, "tuple (0, 1)": 3.0}
    model = made(**SMALL)
    for t in range(100):
        high = t % 7 > 3
        model.learn_one(
            {0: float(t % 7), (0, 1): "z"}, 10.0 * high if made is MetaRegressor else high
        )
    assert model.predict_one({0: 6.0, (0, 1): "z"}) > 0.5  # type: ignore[operator]


@both
@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ({"a": 1.0}, None, "missing_target"),
        ({"a": 1.0}, pd.NA, "missing_target"),
        ({"a": 1.0}, math.nan, "not_finite"),
        ({"a": 1.0}, [1], "wrong_type"),
        ({"a": math.inf}, 1, "not_finite"),
        ({"a": "a string by now"}, 1, "wrong_type"),
        ({"a": 1.0, "when": dt.date(2026, 1, 1)}, 1, "wrong_type"),
    ],
)
def test_what_cannot_be_used_is_refused_aloud_and_leaves_no_trace(
    made: Estimator, x: dict[str, Any], y: Any, reason: str
) -> None:
    model = taught(made, **SMALL)
    before = pickle.dumps(model)
    with pytest.raises(RejectedEvent) as refused:
        model.learn_one(x, y)
    assert refused.value.reason == reason
    # words in the place of numbers are counted: after many in a row the feature has categories too
    assert model.engine.state.columns.strange == ({"a": 1} if isinstance(x["a"], str) else {})
    model.engine.state.columns.strange.clear()
    assert pickle.dumps(model) == before


@both
def test_to_predict_refuses_what_cannot_be_used(made: Estimator) -> None:
    with pytest.raises(RejectedEvent, match="feature 'a' is 'x', expected a number as before"):
        taught(made, **SMALL).predict_one({"a": "x"})


kinds_of_value = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(-1e3, 1e3), st.just(math.nan)
)
some_rows = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abcdefgh"), kinds_of_value, max_size=5),
        st.dictionaries(st.sampled_from(["day", "city"]), st.text(max_size=3), max_size=2),
        st.sampled_from(["p", "q", "r", True, 3, 2.5]),
    ),
    max_size=25,
)


@settings(max_examples=15, deadline=None)
@given(some_rows)
def test_probabilities_are_a_distribution_over_the_classes_seen(
    drawn: list[tuple[dict[str, Any], dict[str, Any], Any]],
) -> None:
    model, seen = MetaClassifier(**SMALL), set()
    for numbers, words, y in drawn:
        x = {**numbers, **words}
        shares = model.predict_proba_one(x)
        assert set(shares) == seen
        assert all(0.0 <= share <= 1.0 for share in shares.values())
        if seen:
            assert math.fsum(shares.values()) == pytest.approx(1.0, abs=1e-9)
            best = model.predict_one(x)
            assert shares[best] == max(shares.values())  # type: ignore[index]
        else:
            assert model.predict_one(x) is None
        model.learn_one(x, y)
        seen.add(y)


# -- frames ----------------------------------------------------------------------------------


@both
def test_a_frame_is_its_rows(made: Estimator) -> None:
    one, many = made(**SMALL), made(**SMALL)
    data = rows(made)
    frame = pd.DataFrame([x for x, _ in data], index=range(1000, 1000 + len(data)))
    labels = pd.Series([y for _, y in data], index=frame.index)
    for x, y in data:
        one.learn_one(x, y)
    for start in range(0, len(data), 50):
        many.learn_many(frame[start : start + 50], labels[start : start + 50])
    assert pickle.dumps(one) == pickle.dumps(many)
    said = many.predict_many(frame)
    assert list(said.index) == list(frame.index)
    for (x, _), answer in zip(data, said, strict=True):
        assert answer == pytest.approx(one.predict_one(x), abs=1e-6)


def test_a_frame_of_probabilities_has_a_column_for_each_class() -> None:
    model = taught(MetaClassifier, **SMALL)
    data = rows(MetaClassifier, 10, seed=4)
    shares = model.predict_proba_many(pd.DataFrame([x for x, _ in data], index=list("abcdefghij")))
    assert sorted(shares.columns) == [False, True]
    assert list(shares.index) == list("abcdefghij")
    for row, (x, _) in enumerate(data):
        assert shares[True].iloc[row] == pytest.approx(model.predict_proba_one(x)[True], abs=1e-6)


def test_what_a_frame_lacks_is_missing_in_every_dialect_of_pandas() -> None:
    frame = pd.DataFrame({
        "n": [1.0, math.nan], "i": pd.array([1, None], dtype="Int64"),
        "b": pd.array([True, None], dtype="boolean"), "s": ["x", None],
        "c": pd.Categorical(["u", None]),
    })  # fmt: skip
    first, second = records(frame)
    assert first == {"n": 1.0, "i": 1, "b": True, "s": "x", "c": "u"}
    assert set(second.values()) == {None}
    model = MetaRegressor(**SMALL)
    model.learn_many(frame, pd.Series([1.0, 2.0]))
    assert model.engine.state.rows == 2


@both
def test_frames_without_rows_and_before_the_first_label(made: Estimator) -> None:
    model, empty = made(**SMALL), pd.DataFrame({"a": []})
    model.learn_many(empty, pd.Series([], dtype=float))
    assert len(model.predict_many(empty)) == 0
    nothing = 0.0 if made is MetaRegressor else None
    assert model.predict_many(pd.DataFrame({"a": [1.0, 2.0]})).tolist() == [nothing] * 2
    if isinstance(model, MetaClassifier):
        assert model.predict_proba_many(pd.DataFrame({"a": [1.0]})).shape == (1, 0)


@both
def test_bad_rows_of_a_frame_are_named_and_the_others_learned(made: Estimator) -> None:
    model = made(**SMALL)
    frame = pd.DataFrame({"a": [1.0, math.inf, 3.0, -math.inf]})
    with pytest.raises(RejectedEvent, match="2 of 4 rows: feature 'a' is inf"):
        model.learn_many(frame, pd.Series([1, 0, 1, 0]))
    assert model.engine.state.labels == 2
    with pytest.raises(ValueError, match="zip"):
        model.learn_many(frame, pd.Series([1]))


@both
def test_a_chunk_is_answered_before_the_first_of_its_labels_is_learned(made: Estimator) -> None:
    """In chunks of ten the first ten answers know nothing, and the model learns all the same."""
    model = made(chunk=10, **SMALL)
    data = rows(made)
    model.learn_many(pd.DataFrame([x for x, _ in data]), pd.Series([y for _, y in data]))
    assert model.engine.state.labels == len(data)
    assert pickle.dumps(model) != pickle.dumps(taught(made, **SMALL))
    if isinstance(model, MetaRegressor):
        assert model._intervals.tensors()["tally"][0] == len(data) - 10


# -- in River's hands ------------------------------------------------------------------------


def test_pipelines_and_progressive_validation() -> None:
    classify = preprocessing.StandardScaler() | MetaClassifier()
    accuracy = evaluate.progressive_val_score(
        datasets.Phishing().take(400), classify, metrics.Accuracy()
    )
    assert accuracy.get() > 0.75
    regress = compose.SelectType(float, int) | preprocessing.StandardScaler() | MetaRegressor()
    error = evaluate.progressive_val_score(
        datasets.TrumpApproval().take(400), regress, metrics.MAE()
    )
    assert error.get() < 0.5
    interval = regress.predict_one(next(iter(datasets.TrumpApproval()))[0], with_interval=True)
    assert isinstance(interval, conf.Interval)


@pytest.mark.parametrize(
    ("moment", "delay"), [(None, 20), ("at", dt.timedelta(minutes=20))], ids=["rows", "minutes"]
)
def test_labels_may_come_later_than_their_questions(moment: str | None, delay: Any) -> None:
    start = dt.datetime(2026, 1, 1)
    data = [(x, y) for x, y in rows(MetaClassifier, 300)]
    timed = [({**x, "at": start + dt.timedelta(minutes=i)}, y) for i, (x, y) in enumerate(data)]
    model: Any = MetaClassifier(**SMALL)
    if moment is not None:
        model = compose.Discard("at") | model
    accuracy = evaluate.progressive_val_score(
        timed if moment else data, model, metrics.Accuracy(), moment=moment, delay=delay
    )
    assert accuracy.get() > 0.8


def test_in_an_ensemble_of_river_s() -> None:
    from river import ensemble

    voters = ensemble.VotingClassifier([MetaClassifier(seed=s, **SMALL) for s in (0, 1, 2)])
    data = rows(MetaClassifier, 200)
    accuracy = evaluate.progressive_val_score(data, voters, metrics.Accuracy())
    assert accuracy.get() > 0.8


def test_drifts_can_be_seen() -> None:
    dataset = synth.ConceptDriftStream(
        stream=synth.STAGGER(classification_function=0, seed=2),
        drift_stream=synth.STAGGER(classification_function=2, seed=2),
        position=300, width=10, seed=2,
    )  # fmt: skip
    model, alarms = MetaClassifier(), []
    for row, (x, y) in enumerate(dataset.take(500)):
        model.predict_one(x)
        model.learn_one(x, y)
        if model.drift_detected:
            alarms.append(row)
            assert pickle.loads(pickle.dumps(model)).drift_detected
    assert pickle.loads(pickle.dumps(model)).drifts == model.drifts
    assert alarms == model.drifts, "rows are those learned: questions between them do not count"
    assert any(290 <= row < 350 for row in alarms)
    assert not any(row < 290 for row in alarms)


def test_a_regressor_in_an_interval_protocol() -> None:
    """As River's own: ``predict_one(x, with_interval=True)``, before ``learn_one``."""
    model, inside = MetaRegressor(confidence_level=0.8, **SMALL), []
    first, _ = rows(MetaRegressor)[0]
    nothing = model.predict_one(first, with_interval=True)
    assert (nothing.lower, nothing.upper) == (-math.inf, math.inf)
    for x, y in rows(MetaRegressor, 1_500):
        interval = model.predict_one(x, with_interval=True)
        value = model.predict_one(x)
        assert interval.lower <= value <= interval.upper
        inside.append(y in interval)
        model.learn_one(x, y)
    assert np.mean(inside) == pytest.approx(0.8, abs=0.02)
    assert model.predict_one(first, with_interval=True).width < 20.0


def test_the_interval_that_was_given_is_the_one_that_was_judged() -> None:
    """Hits and misses that a user counts are those that the intervals have learned from."""
    model = MetaRegressor(**SMALL)
    misses, rows_told = 0, -2  # a prediction that knew no label, and one without a spread
    for x, y in rows(MetaRegressor, 200):
        interval = model.predict_one(x, with_interval=True)
        misses += y not in interval
        rows_told += 1
        model.learn_one(x, y)
    moved = model._intervals.tensors()["tally"][2]
    assert moved == pytest.approx(0.02 * (misses - 0.1 * rows_told), abs=1e-9)


# -- parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"challengers": 3}, "challengers=3"),
        ({"on_drift": "pray"}, "on_drift='pray'"),
        ({"learner": "mamel"}, "mamel"),
        ({"detectors": ("adwim",)}, "adwim"),
        ({"init": "nowhere.safetensors"}, "nowhere.safetensors does not exist"),
    ],
)
@both
def test_what_cannot_work_is_said_at_once(
    made: Estimator, params: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        made(**params)


def test_a_confidence_level_is_a_share() -> None:
    with pytest.raises(ConfigError, match="expected above 0 and below 1"):
        MetaRegressor(confidence_level=95)


@both
def test_parameters_reach_the_engine(made: Estimator) -> None:
    model = made(
        seed=7, learner="maml", partner=None, challengers=2, lags=1, detectors=("page_hinkley",),
        false_alarm_every=5_000, on_drift="ignore", chunk=3, device="cpu",
    )  # fmt: skip
    config = model.engine.config
    assert config.task == ("regression" if made is MetaRegressor else "classification")
    for name, value in model._get_params().items():
        if name != "confidence_level":
            assert getattr(config, name) == value, name
    assert made(detectors=()).clone().detectors is None


def test_a_model_that_began_from_a_file_does_not_need_it_later(tmp_path: Path) -> None:
    before = taught(MetaClassifier, 200)
    path = tmp_path / "meta.safetensors"
    write_initial(path, before.engine.learned)
    model = taught(MetaClassifier, 40, init=str(path))
    fresh = taught(MetaClassifier, 40)
    learned, unlearned = (m.engine.learned["meta_sgd"].tensors()["theta"] for m in (model, fresh))
    assert not np.array_equal(learned, unlearned)
    kept = pickle.dumps(model)
    path.unlink()
    back = pickle.loads(kept)
    x, y = rows(MetaClassifier)[41]
    assert told(back, x) == told(model, x)
    back.learn_one(x, y)
    assert pickle.loads(pickle.dumps(back)).init == str(path)


# -- the package -----------------------------------------------------------------------------


def test_names_of_the_package_load_nothing_until_they_are_used() -> None:
    script = (
        "import sys, streammeta\n"
        "assert {'MetaClassifier', 'MetaRegressor'} <= set(dir(streammeta))\n"
        "assert not {'torch', 'river', 'numpy'} & set(sys.modules)\n"
        "from streammeta import MetaClassifier, MetaRegressor\n"
        "print(MetaClassifier.__module__, MetaRegressor.__module__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == [
        f"streammeta.estimators.{n}" for n in ("classifier", "regressor")
    ]
    with pytest.raises(AttributeError, match="no attribute 'MetaCluster'"):
        streammeta.MetaCluster  # noqa: B018


def test_the_estimator_is_the_engine() -> None:
    """What it says of a row is what ``Engine`` says of that event, and what it learns too."""
    model = MetaClassifier(**SMALL)
    engine = Engine(model.engine.config)
    for x, y in rows(MetaClassifier, 60):
        label, shares = model.predict_one(x), model.predict_proba_one(x)
        assert label == engine.predict(x)
        (told,) = (o for o in engine.learn(x, y) if isinstance(o, Predicted))
        assert (label, shares) == (told.prediction, told.probabilities)
        model.learn_one(x, y)
