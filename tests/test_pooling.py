"""The pool: begins as its mixtures, learns what members say together, forgets nobody asleep."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streammeta import pooling
from streammeta.experts.kernels import CLASSIFICATION, REGRESSION

Floats = NDArray[np.float64]


class Pool:
    """Members who speak, two mixtures of them, and what is made of it."""

    def __init__(self, members: int, task: int = CLASSIFICATION, classes: int = 2) -> None:
        self.task, self.classes = task, classes
        self.live = np.ones(members, np.bool_)
        self.exponents, self.squares = pooling.fresh(members)

    def say(self, members: Floats, shared: Floats) -> Floats:
        out = np.zeros((1, members.shape[1]))
        pooling.pool(self.exponents, self.live, members[None], shared[None], self.classes,
                     self.task, out)  # fmt: skip
        return out[0]

    def learn(self, members: Floats, shared: Floats, truth: float) -> None:
        pooling.learn_pool(self.exponents, self.squares, self.live, members, shared, truth,
                           self.classes, self.task)  # fmt: skip


def two(p: float) -> list[float]:
    return [1.0 - p, p]


def test_a_pool_begins_as_its_mixtures() -> None:
    members = np.array([two(0.99), two(0.1), two(0.5)])
    said = Pool(3).say(members, np.array([two(0.7), two(0.7)]))
    np.testing.assert_allclose(said, two(0.7), atol=1e-12)
    values = np.array([[3.0], [-4.0], [0.0]])
    said = Pool(3, REGRESSION, 1).say(values, np.array([[1.0], [2.0]]))
    np.testing.assert_allclose(said, [1.5])


def test_witnesses_of_different_things_are_surer_together_than_the_best_of_them() -> None:
    """Each of three members sees another sign of the class and is right in 75 of 100 cases."""
    rng = np.random.default_rng(0)
    pool, right, alone = Pool(3), [], []
    for row in range(6_000):
        truth = int(rng.random() < 0.5)
        signs = np.where(rng.random(3) < 0.75, truth, 1 - truth)
        members = np.array([two(0.75 if sign else 0.25) for sign in signs])
        shared = np.array([members.mean(0), members.mean(0)])
        said = pool.say(members, shared)
        if row > 3_000:
            right.append(-math.log(said[truth]))
            alone.append(-math.log(members.mean(0)[truth]))
        pool.learn(members, shared, truth)
    log_odds = math.log(0.75 / 0.25)
    best = np.mean([
        math.log1p(math.exp(-log_odds * (2 * (rng.random(3) < 0.75).sum() - 3)))
        for _ in range(20_000)
    ])  # fmt: skip
    assert np.mean(right) < np.mean(alone) - 0.02
    assert np.mean(right) == pytest.approx(best, abs=0.03), "near what Bayes' rule would lose"


def test_what_a_member_always_overstates_is_taken_back() -> None:
    rng = np.random.default_rng(1)
    pool = Pool(1)
    for _ in range(8_000):
        sign = int(rng.random() < 0.5)
        truth = sign if rng.random() < 0.7 else 1 - sign
        members = np.array([two(0.99 if sign else 0.01)])
        shared = np.array([members[0], members[0]])
        pool.learn(members, shared, truth)
    said = pool.say(np.array([two(0.99)]), np.array([two(0.99), two(0.99)]))
    assert said[1] == pytest.approx(0.7, abs=0.08)


def test_values_move_to_the_member_that_is_right() -> None:
    """Both mixtures stand halfway to a member that is always 1 too high."""
    rng = np.random.default_rng(2)
    pool, off = Pool(2, REGRESSION, 1), []
    for _ in range(3_000):
        truth = rng.normal()
        members = np.array([[truth + 1.0], [truth + 0.1 * rng.normal()]])
        shared = np.array([[truth + 0.5], [truth + 0.5]])
        off.append(abs(pool.say(members, shared)[0] - truth))
        pool.learn(members, shared, truth)
    assert np.mean(off[:10]) == pytest.approx(0.5, abs=0.05)
    assert np.mean(off[-500:]) < 0.1


def test_the_steady_voice_is_the_quick_mixture_without_scouts() -> None:
    members = np.array([[two(0.9), two(0.2), two(0.6)]])
    live, weights = np.ones(3, np.bool_), np.log([0.5, 0.3, 0.2])
    exponents, _ = pooling.fresh(3)
    said = np.zeros((1, pooling.SAID, 2))
    pooling.answer(weights, np.zeros(3), exponents, np.zeros(pooling.VOICES), live, 1, 2, members,
                   2, CLASSIFICATION, said)  # fmt: skip
    quick, steady = 0.5 * 0.9 + 0.3 * 0.2 + 0.2 * 0.6, (0.5 * 0.9 + 0.2 * 0.6) / 0.7
    assert said[0, pooling.QUICK, 1] == pytest.approx(quick)
    assert said[0, pooling.SLOW, 1] == pytest.approx((0.9 + 0.2 + 0.6) / 3)
    assert said[0, pooling.STEADY, 1] == pytest.approx(steady)
    assert said[0, pooling.ANSWER] == pytest.approx(said[0, : pooling.VOICES].mean(0))
    assert live.all(), "they were only left out of one voice"


def test_the_voice_that_is_right_is_soon_the_answer() -> None:
    voices, variances = np.zeros(pooling.VOICES), np.full(pooling.VOICES, 0.3)
    ages = np.zeros(pooling.VOICES, np.int64)
    said = np.zeros((pooling.SAID, 2))
    said[:] = two(0.5)
    said[pooling.POOLED] = two(0.9)
    for _ in range(30):
        pooling.learn_voices(voices, variances, ages, said, 1.0, 2, CLASSIFICATION)
    assert np.exp(voices).sum() == pytest.approx(1.0)
    assert np.exp(voices)[pooling.POOLED] > 0.95


def test_who_sleeps_neither_speaks_nor_learns() -> None:
    pool = Pool(2)
    pool.exponents[1] = 5.0
    pool.live[1] = False
    members = np.array([two(0.6), two(0.999)])
    shared = np.array([two(0.6), two(0.6)])
    np.testing.assert_allclose(pool.say(members, shared), two(0.6), atol=1e-12)
    pool.learn(members, shared, 0)
    assert pool.exponents[1] == 5.0
    assert pool.squares[1] == pooling.SQUARE_AT_BIRTH
    assert pool.exponents[0] != 0.0


wild = st.one_of(st.floats(0, 1), st.sampled_from([math.nan, math.inf, 0.0, 1.0, 1e-300]))


@given(st.sampled_from([CLASSIFICATION, REGRESSION]), st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_members_say_an_answer_is_an_answer(task: int, data: st.DataObject) -> None:
    classes = 3 if task == CLASSIFICATION else 1
    pool = Pool(3, task, classes)
    calm = np.full((2, classes), 1.0 / classes)
    for _ in range(data.draw(st.integers(1, 12))):
        rows = data.draw(st.lists(wild, min_size=3 * classes, max_size=3 * classes))
        members = np.array(rows).reshape(3, classes)
        truth = data.draw(st.integers(0, classes - 1))
        pool.learn(members, calm, float(truth))
        said = pool.say(members, calm)
        assert np.isfinite(said).all()
        assert np.isfinite(pool.exponents).all()
        if task == CLASSIFICATION:
            assert said.sum() == pytest.approx(1.0, abs=1e-9)


def test_many_classes_have_room_below_the_floor() -> None:
    """Of 200 classes none is given more than members believe, for all floors together."""
    classes = 200
    pool = Pool(1, CLASSIFICATION, classes)
    sure = np.full(classes, 1e-9)
    sure[7] = 1.0 - sure.sum()
    said = pool.say(sure[None], np.array([sure, sure]))
    assert said[7] > 0.9


def test_a_step_goes_down_the_slope_of_the_log_loss() -> None:
    """Of every exponent, by differences; a member that slept, or said nothing usable, has none."""
    rng = np.random.default_rng(3)
    members, shared = rng.dirichlet(np.ones(3), 5), rng.dirichlet(np.ones(3), 2)
    members[3] = math.nan
    exponents, awake, truth = rng.normal(size=7), np.array([True, True, False, True, True]), 2
    slopes = np.full(7, math.nan)
    pooling._class_slopes(exponents, awake, members, shared, truth, 3, slopes)
    assert np.isnan(slopes[[2, 3]]).all()

    def loss(moved: Floats) -> float:
        out = np.zeros((1, 3))
        pooling.pool(moved, awake, members[None], shared[None], 3, CLASSIFICATION, out)
        return -math.log(out[0, truth])

    for m in (0, 1, 4, 5, 6):
        step = 1e-5 * np.eye(7)[m]
        by_differences = (loss(exponents + step) - loss(exponents - step)) / 2e-5
        assert slopes[m] == pytest.approx(by_differences, abs=1e-6)
