"""Learning to choose: a policy learns from the past of streams whom to believe in the next rows."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from drift import Explanation
from scenarios.bench import Book, Job
from scenarios.choosing import trial
from scenarios.choosing.courses import Course, run_course
from scenarios.choosing.judging import (
    best_fixed,
    blended,
    decisions_of,
    followed,
    kinds_of,
    regret,
    shared,
    weights_of,
)
from scenarios.scenario import scenario
from scenarios.suites.choosing import SUITE, gates, summarise
from streammeta import mixture
from streammeta.choosing import show
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import ConfigError, UsageError
from streammeta.events import DriftDetected, Event
from streammeta.meta.choice import FEATURES, SCORES, Decisions, Policy, Training, reinforce
from streammeta.meta.traces import DISCOUNTS, SEGMENT, Traces, autocorrelation, balance, noise
from streammeta.snapshot import Snapshot

QUICK = Training(steps=300)


def made(weight_of_error: float = 0.0, **biases: float) -> Policy:
    """A policy by hand: what kinds are worth, and how much fewer recent errors count."""
    kinds = tuple(biases)
    last = np.zeros((2, len(kinds) + len(SCORES)))
    last[-1, : len(kinds)] = list(biases.values())
    last[-1, len(kinds) + SCORES.index("error@30")] = weight_of_error
    g = len(FEATURES)
    return Policy(kinds, np.zeros(g), np.ones(g), np.zeros((g + 1, 1)), last)


def bandit(n: int, seed: int, told_by: str) -> Decisions:
    """Two learners, of which one is better by .2: a feature, or their scores, tell which."""
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 0.5
    features = rng.normal(size=(n, len(FEATURES)))
    scores = rng.normal(size=(n, 2, len(SCORES)))
    sign = np.where(first, 1.0, -1.0)
    if told_by == "features":
        features[:, 3] = sign
    else:
        scores[:, 0, 2], scores[:, 1, 2] = sign, -sign
    losses = 0.3 + 0.1 * np.stack([-sign, sign], 1) + 0.1 * rng.normal(size=(n, 2))
    kinds = np.tile([0, 1], (n, 1))
    return Decisions(features, scores, kinds, np.ones((n, 2), np.bool_), losses)


def lost(policy: Policy, d: Decisions) -> float:
    """Mean loss of the policy's first choice."""
    chosen = policy.all_weights(d.features, d.scores, d.kinds, d.known).argmax(1)
    return float(np.take_along_axis(d.losses, chosen[:, None], 1).mean())


# -- the policy ------------------------------------------------------------------------------


@pytest.mark.parametrize("told_by", ["features", "scores"])
def test_what_tells_the_learners_apart_is_found_and_used(told_by: str) -> None:
    policy = reinforce(bandit(600, 0, told_by), ("a", "b"), 0, QUICK)
    later = bandit(400, 1, told_by)
    fixed = float(later.losses.mean(0).min())
    assert lost(policy, later) < fixed - 0.08  # .1 would be all there is
    order = np.random.default_rng(2).permutation(400)
    blind = later._replace(features=later.features[order], scores=later.scores[order])
    assert lost(policy, blind) > fixed - 0.03


def test_the_same_seed_gives_the_same_policy_and_no_decision_none() -> None:
    d = bandit(100, 0, "features")
    one, two = (reinforce(d, ("a", "b"), 3, Training(steps=20)) for _ in range(2))
    assert all(np.array_equal(a, two.tensors()[n]) for n, a in one.tensors().items())
    with pytest.raises(ValueError, match="no decision"):
        reinforce(Decisions(*(part[:0] for part in d)), ("a", "b"), 0)


def test_learners_of_a_kind_differ_by_their_scores_alone() -> None:
    policy = made(1.0, archive=2.0, trees=0.0)
    scores = np.zeros((4, len(SCORES)))
    scores[1, SCORES.index("error@30")] = 3.0
    names = ("archive-1", "archive-2", "trees", "never-met")
    known = np.array([True, True, True, False])
    w = policy.weights(names, np.zeros(len(FEATURES)), scores, known)
    assert w.sum() == pytest.approx(1.0)
    assert w[3] == 0.0
    assert w[1] / w[0] == pytest.approx(np.exp(3.0))
    assert w[0] / w[2] == pytest.approx(np.exp(2.0))


def test_a_policy_is_kept_in_a_file_and_others_are_refused(tmp_path: Path) -> None:
    policy, path = made(1.0, trees=0.5), tmp_path / "new" / "policy.safetensors"
    policy.write(path)
    back = Policy.read(path)
    assert back.kinds == ("trees",)
    assert all(np.array_equal(a, back.tensors()[n]) for n, a in policy.tensors().items())
    with pytest.raises(ConfigError, match="does not exist"):
        Policy.read(tmp_path / "absent")
    (tmp_path / "text").write_text("this is no policy")
    with pytest.raises(ConfigError, match="holds no policy"):
        Policy.read(tmp_path / "text")
    path.write_bytes(path.read_bytes().replace(b"autocorrelation", b"autocorrelatiom"))
    with pytest.raises(ConfigError, match="made for other features"):
        Policy.read(path)
    with pytest.raises(ConfigError, match=r"model\.chooser: .*absent does not exist"):
        Engine(ModelConfig(task="regression", chooser=str(tmp_path / "absent")))


# -- what it is shown ------------------------------------------------------------------------


def test_traces_are_discounted_sums_and_who_is_replaced_begins_anew() -> None:
    rng = np.random.default_rng(0)
    losses, awake = rng.random((40, 2, 3)), rng.random((40, 3)) < 0.7
    traces = Traces(1, 3)
    for each, heard in zip(losses, awake, strict=True):
        traces.add(0, np.zeros(3, np.int64), heard, each)
    fading = DISCOUNTS[:, None] ** np.arange(39, -1, -1)
    assert np.allclose(traces.counts[0], fading @ awake)
    assert np.allclose(traces.sums[0, :, 1], fading @ (awake * losses[:, 1]))
    traces.segment(0, 40, Explanation({}, shape="gradual", width=9, context="known"))
    assert not traces.counts[0, SEGMENT].any()
    assert traces.drift[0].tolist() == [1.0, 40.0, 1.0, np.log(10.0), 1.0, 0.0]
    traces.add(0, np.array([0, 40, 0]), np.array([True, False, True]), np.ones((2, 3)))
    assert traces.counts[0, :, 1].tolist() == [0.0] * 4
    assert traces.counts[0, 0, 0] > 1.0


def test_noise_balance_and_autocorrelation_say_what_they_are_called() -> None:
    rng = np.random.default_rng(1)
    x = rng.random((64, 2))
    rule = (x[:, 0] > 0.5).astype(float)
    chance = rng.integers(0, 2, 64).astype(float)
    assert noise(x, rule, values=False) < 0.4 < noise(x, chance, values=False)
    assert noise(x, x[:, 0] + x[:, 1], values=True) < 0.4
    assert balance((np.arange(64) % 8 == 0).astype(float)) < balance(rule)
    walk = np.cumsum(rng.normal(size=64))
    assert autocorrelation(walk, values=True) > 0.5 > abs(autocorrelation(chance, values=False))


@pytest.fixture(scope="module")
def course() -> Course:
    """Linear functions that switch every 200 rows; the model notices."""
    return run_course("linear_switch", "linear_switch", 460, 5)


def test_what_is_shown_comes_from_labels_of_the_past(course: Course) -> None:
    # the labels change their sign at row 300: nothing that was shown before may know it
    other = run_course("linear_switch", "linear_switch | label_swap(300)", 460, 5)
    before = course.at <= 300
    n = int(before.sum())
    assert n >= 4
    assert np.array_equal(course.at[:n], other.at[:n])
    assert np.array_equal(course.features[:n], other.features[:n])
    assert np.array_equal(course.scores[:n], other.scores[:n])
    assert not np.array_equal(course.scores[-1], other.scores[-1])


def test_a_course_has_what_every_member_said_and_lost(course: Course) -> None:
    assert course.alarmed.any()
    assert course.starts == (0, 200, 400)
    gaps = np.abs(course.members[..., 0] - course.truth[:, None])
    awake = np.isfinite(course.losses)
    assert np.allclose(course.losses[awake], np.minimum(gaps, 5.0)[awake], atol=1e-5)
    for n, at in enumerate(course.at):
        assert np.isfinite(course.losses[at, course.known[n]]).all()


# -- judging ---------------------------------------------------------------------------------


def test_regret_is_to_the_best_learner_of_each_true_segment(course: Course) -> None:
    first = int(course.at[0])
    ends = [first, 200, 400, len(course.truth)]
    hindsight = np.full(len(course.truth), np.nan)
    for start, stop in pairwise(ends):
        part = course.losses[start:stop]
        hindsight[start:stop] = part[:, np.nanargmin(part.sum(0))]
    assert regret(course, hindsight) == pytest.approx(0.0, abs=1e-12)
    fixed = course.losses[:, course.names.index(best_fixed([course]))]
    assert regret(course, fixed) >= 0.0
    assert regret(course, hindsight + 0.25) == pytest.approx(0.25)


def test_weights_that_are_all_on_one_member_follow_it(course: Course) -> None:
    chosen = course.known.argmax(1)
    weights = np.eye(len(course.names))[chosen]
    one, two = blended(course, weights), followed(course, chosen)
    first = int(course.at[0])
    assert np.isnan(one[:first]).all()
    assert np.allclose(one[first:], two[first:], atol=1e-6)


def test_a_better_prior_makes_a_better_mixture(course: Course) -> None:
    ahead = decisions_of([course], kinds_of([course])).losses
    best = np.where(course.known, ahead, np.inf).argmin(1)
    worst = np.where(course.known, ahead, -np.inf).argmax(1)
    good, bad = (shared(course, np.eye(len(course.names))[who]) for who in (best, worst))
    assert np.nanmean(good) < np.nanmean(bad)


# -- the model that asks it ------------------------------------------------------------------


def engine(folder: Path, policy: Policy | None, **options: str) -> Engine:
    config = ModelConfig(task="regression", seed=1)
    if policy is not None:
        policy.write(folder / "policy")
        config = config.model_copy(update={"chooser": str(folder / "policy"), **options})
    return Engine(config)


def events(rows: int = 330) -> list[Event]:
    return list(scenario("linear_switch", seed=5, rows=rows).events())


def until_drift(model: Engine) -> int:
    """Rows up to the first alarm, which has just been heard."""
    for row, event in enumerate(events()):
        if any(isinstance(out, DriftDetected) for out in model.observe([event]) + model.replay()):
            return row
    raise AssertionError("no drift")


@pytest.mark.parametrize(("choice", "share"), [("soft", 0.85), ("hard", 0.985)])
def test_at_a_drift_the_policys_weights_are_those_of_both_mixtures(
    tmp_path: Path, choice: str, share: float
) -> None:
    model = engine(tmp_path, made(trees=6.0), choice=choice)
    assert until_drift(model) > 190
    state = model.state
    assert state.traces is not None
    _, _, known = show(state, state.traces, 0)
    trees = state.member_names.index("trees")
    for logs in (state.log_weights[0], state.slow_weights[0]):
        weights = mixture.weights(logs, state.bank.live[0])
        assert weights[trees] / weights[known].sum() > share
        newcomers = weights[state.bank.live[0] & ~known]
        assert len(newcomers) >= 2  # challengers of the drift have the share they always have
        assert newcomers.min() > 0.005


def test_without_a_policy_nothing_is_other_than_before(tmp_path: Path) -> None:
    plain, asking = engine(tmp_path, None), engine(tmp_path, made(trees=6.0))
    at = until_drift(plain)
    assert until_drift(asking) == at
    assert plain.state.traces is None
    kept = plain.snapshot()
    assert not [name for name in kept.tensors if name.startswith(("traces/", "policy/"))]
    assert "policy" not in kept.info
    told = [
        [out for event in events(230) for out in model.observe([event]) + model.replay()]
        for model in (engine(tmp_path, None), engine(tmp_path, made(trees=6.0)))
    ]
    one, two = ([getattr(out, "prediction", None) for out in outs] for outs in told)
    alarms = [i for i, out in enumerate(told[0]) if isinstance(out, DriftDetected)]
    assert one[: alarms[0]] == two[: alarms[0]]
    assert one != two


def test_who_is_stopped_goes_on_bit_by_bit_even_if_the_file_has_changed(tmp_path: Path) -> None:
    whole = engine(tmp_path, made(1.0, trees=1.0))
    first = engine(tmp_path, made(1.0, trees=1.0))
    rows = events()
    for event in rows[:150]:
        for model in (whole, first):
            model.observe([event])
            model.replay()
    image = first.snapshot().to_bytes()
    made(-1.0, trees=-5.0).write(tmp_path / "policy")
    second = Engine.restore(first.config, Snapshot.from_bytes(image))
    heard: list[list[object]] = [[], []]
    for event in rows[150:]:
        for model, outputs in zip((whole, second), heard, strict=True):
            outputs += model.observe([event]) + model.replay()
    assert any(isinstance(out, DriftDetected) for out in heard[0])
    assert [repr(out) for out in heard[0]] == [repr(out) for out in heard[1]]
    assert whole.snapshot().to_bytes() == second.snapshot().to_bytes()


def test_classes_can_be_chosen_for_with_one_key_after_another(tmp_path: Path) -> None:
    made(1.0, trees=1.0).write(tmp_path / "policy")
    config = ModelConfig(task="classification", chooser=str(tmp_path / "policy"))
    model = Engine(config.model_copy(update={"known_drifts": (120, 200)}))
    alarms = 0
    for row, event in enumerate(scenario("sea", seed=1, rows=260).events()):
        outputs = model.observe([replace(event, key="ab"[row % 2])]) + model.replay()
        alarms += sum(isinstance(out, DriftDetected) for out in outputs)
    assert alarms == 4
    assert np.isfinite(model.state.log_weights[:2]).all()
    assert model.state.traces is not None
    assert (model.state.traces.counts[:2].max((1, 2)) > 0.0).all()


# -- the suite -------------------------------------------------------------------------------


def test_every_generator_is_held_out_once_and_named_streams_exist() -> None:
    held = [name for names in trial.FOLDS.values() for name in names]
    assert len(held) == len(set(held)) == 13
    for name in held:
        for stream in trial.streams_of(name):
            assert scenario(stream, rows=800).card.rows == 800
    with pytest.raises(UsageError, match="expected one of planes"):
        trial.CHOOSING_TRIAL.check(Job("l2l", "sea", 0))
    with pytest.raises(UsageError, match="expected one of l2l"):
        trial.CHOOSING_TRIAL.check(Job("sgd", "planes", 0))


@pytest.mark.slow
def test_a_small_bench_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "FOLDS", {"planes": ("sea",), "switches": ("linear_switch",)})
    monkeypatch.setattr(trial, "DRIFTS", ("drift('abrupt', every=200)", "drift('none')"))
    monkeypatch.setattr(trial, "WORDS_ONLY", ())
    ran: list[str] = []

    def counted(generator: str, stream: str, rows: int, seed: int) -> Course:
        ran.append(stream)
        return run_course(generator, stream, rows, seed)

    monkeypatch.setattr(trial, "run_course", counted)
    forget()
    from scenarios.bench.book import finish

    runs = []
    for stream in ("planes", "switches"):
        for model in trial.MODELS:
            job = Job(model, stream, 0, 320, protocol="choosing")
            trial.CHOOSING_TRIAL.check(job)
            runs.append(finish(trial.CHOOSING_TRIAL.run(job), SUITE, "by hand").record)
    book = Book(runs)
    overall, detail = summarise(book)
    assert len(overall.rows) == len(trial.MODELS)
    assert [row[0] for row in detail.rows] == ["sea", "linear_switch"]
    assert len(gates(book)) == 9
    (fixed,) = book.of(stream="planes", model=trial.FIXED)
    (known, _) = trial.split("planes", 320, 0)
    assert fixed.note == best_fixed(known)
    assert {course.generator for course in known} == {"linear_switch"}
    assert len(ran) == len(set(ran)) == 4  # each stream once, whatever is asked of it
    forget()


def forget() -> None:
    """What a process keeps of one bench is of no other one."""
    for kept in (trial.all_courses, trial.policy_of, trial.constant_policy_of):
        kept.cache_clear()


def test_weights_of_a_course_are_shares_of_those_who_are_known(course: Course) -> None:
    policy = reinforce(
        decisions_of([course], kinds_of([course])), kinds_of([course]), 0, Training(steps=30)
    )
    weights = weights_of(course, policy)
    assert np.allclose(weights.sum(1), 1.0)
    assert not weights[~course.known].any()
