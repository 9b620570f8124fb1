"""Who is believed: weights stay a distribution, evidence counts, nobody is forgotten."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streammeta import mixture
from streammeta.experts.kernels import CLASSIFICATION, REGRESSION

Floats = NDArray[np.float64]


class Panel:
    """Some members with weights, judged one label at a time."""

    def __init__(self, members: int, task: int = CLASSIFICATION, classes: int = 2) -> None:
        self.task, self.classes = task, classes
        self.log_weights, self.slow_weights = np.zeros(members), np.zeros(members)
        self.variances = np.full(members, mixture.VARIANCE_AT_BIRTH)
        self.ages = np.zeros(members, np.int64)
        self.live = np.ones(members, np.bool_)
        self.losses = np.empty(members)

    def judge(self, said: Floats, truth: float, awake: NDArray[np.bool_] | None = None) -> Floats:
        """Members said ``(M, O)``; the truth came; their losses."""
        here = self.live if awake is None else awake
        mixture.judge(
            self.log_weights, self.slow_weights, self.variances, self.ages, self.live, here, said,
            truth, self.classes, self.task, self.losses,
        )  # fmt: skip
        return self.losses

    def blend(self, said: Floats) -> Floats:
        out = np.empty((1, said.shape[1]))
        mixture.blend(self.log_weights, self.live, said[None], self.classes, self.task, out)
        return out[0]

    @property
    def weights(self) -> Floats:
        return mixture.weights(self.log_weights, self.live)


def sure(p: float) -> Floats:
    """Two classes, the first with probability ``p``."""
    return np.array([p, 1.0 - p])


wild = st.one_of(
    st.floats(-1e3, 1e3), st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300, 0.0])
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([CLASSIFICATION, REGRESSION]), st.data())
def test_weights_stay_a_distribution_whatever_comes(task: int, data: st.DataObject) -> None:
    panel = Panel(4, task, 3 if task == CLASSIFICATION else 1)
    panel.live[1] = data.draw(st.booleans())
    for _ in range(data.draw(st.integers(1, 15))):
        said = np.array(data.draw(st.lists(wild, min_size=12, max_size=12))).reshape(4, 3)
        awake = np.array(data.draw(st.lists(st.booleans(), min_size=4, max_size=4)))
        truth = float(data.draw(st.integers(0, 2)) if task == CLASSIFICATION else data.draw(wild))
        panel.judge(said, truth, awake)
        weights = panel.weights
        assert np.isfinite(weights).all()
        assert weights.sum() == pytest.approx(1.0, abs=1e-9)
        live = weights[panel.live]
        assert (live >= 0.99 * mixture.SHARE / len(live)).all()  # nobody is forgotten
        assert (weights[~panel.live] == 0).all()
        assert np.isfinite(panel.variances).all()
        assert (panel.variances >= mixture.VARIANCE_FLOOR).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-20, 20), min_size=4, max_size=4), st.data())
def test_the_blend_is_inside_the_members_hull(
    log_weights: list[float], data: st.DataObject
) -> None:
    panel = Panel(4, REGRESSION, 1)
    panel.log_weights[:] = log_weights
    panel.live[2] = False
    said = np.array(data.draw(st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4)))[:, None]
    mixed = panel.blend(said)[0]
    live = said[panel.live]
    assert live.min() - 1e-6 <= mixed <= live.max() + 1e-6
    assert mixed == pytest.approx(float(panel.weights @ said[:, 0]), rel=1e-9, abs=1e-6)


def test_blended_probabilities_are_probabilities() -> None:
    panel = Panel(3, classes=3)
    said = np.random.default_rng(0).dirichlet([1, 1, 1], 3)
    said = np.pad(said, ((0, 0), (0, 2)))  # room for classes that have not been seen
    said = said.astype(np.float32).astype(float)  # as the networks give them
    mixed = panel.blend(said)
    assert mixed.sum() == pytest.approx(1.0, abs=1e-12)
    assert (mixed[3:] == 0).all()


def test_a_member_that_talks_nonsense_is_left_out() -> None:
    panel = Panel(3, REGRESSION, 1)
    said = np.array([[1.0], [math.nan], [2.0]])
    assert panel.blend(said)[0] == pytest.approx(1.5)
    for _ in range(20):
        panel.judge(said, 1.0)
    assert panel.weights[1] < 0.01


@pytest.mark.parametrize("task", [CLASSIFICATION, REGRESSION])
def test_the_better_member_gains(task: int) -> None:
    panel = Panel(2, task, 2 if task == CLASSIFICATION else 1)
    said = np.array([sure(0.8), sure(0.4)])
    truth = 0.0 if task == CLASSIFICATION else 0.8
    last = panel.weights[0]
    for _ in range(8):
        panel.judge(said, truth)
        assert panel.weights[0] > last
        last = panel.weights[0]
    assert last > 0.85


def test_losses_are_errors_or_absolute_errors_and_nothing_for_those_asleep() -> None:
    panel = Panel(3)
    awake = np.array([True, True, False])
    assert panel.judge(np.array([sure(0.9), sure(0.2), sure(0.9)]), 0.0, awake)[:2].tolist() == [
        0,
        1,
    ]
    assert math.isnan(panel.losses[2])
    assert panel.ages.tolist() == [1, 1, 0]
    panel = Panel(2, REGRESSION, 1)
    assert panel.judge(np.array([[1.0], [4.0]]), 2.0).tolist() == [1.0, 2.0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-6, 0), min_size=4, max_size=4),
    st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4),
)
def test_a_sleeping_member_keeps_its_share(log_weights: list[float], p: list[float]) -> None:
    """It ends where it would if everybody had said the same; only discount and sharing move it."""
    said = np.array([sure(each) for each in p])
    awake = np.array([True, True, False, True])
    panel, quiet = Panel(4), Panel(4)
    panel.log_weights[:] = quiet.log_weights[:] = log_weights
    panel.judge(said, 0.0, awake)
    quiet.judge(np.array([sure(0.5)] * 4), 0.0)
    assert panel.weights[2] == pytest.approx(quiet.weights[2], rel=1e-9)
    assert panel.variances[2] == mixture.VARIANCE_AT_BIRTH


def test_when_everybody_slept_nothing_is_learned() -> None:
    panel, quiet = Panel(3), Panel(3)
    panel.log_weights[:] = quiet.log_weights[:] = np.log([0.6, 0.3, 0.1])
    panel.judge(np.array([sure(0.9)] * 3), 1.0, np.zeros(3, np.bool_))
    quiet.judge(np.array([sure(0.5)] * 3), 1.0)
    np.testing.assert_allclose(panel.weights, quiet.weights)


def test_never_much_worse_than_the_best_on_a_long_stationary_stream() -> None:
    rng = np.random.default_rng(0)
    panel = Panel(8)
    accuracies = np.linspace(0.5, 0.9, 8)
    mixed_loss, member_loss = 0.0, np.zeros(8)
    n = 4000
    for _ in range(n):
        truth = int(rng.random() < 0.5)
        right = rng.random(8) < accuracies
        confidence = np.where(right, accuracies, 1 - accuracies)  # calibrated members
        said = np.stack([confidence, 1 - confidence], 1)
        said = said[:, ::-1] if truth else said
        p = panel.blend(said)[truth]
        mixed_loss -= math.log(p)
        smooth = (1 - mixture.SMOOTHING) * said[:, truth] + mixture.SMOOTHING / 2
        member_loss -= np.log(smooth)
        panel.judge(said, float(truth))
    regret = mixed_loss - member_loss.min()
    # ln 8 to find the best, then sharing and forgetting: under a hundredth of a nat per event
    assert regret < math.log(8) + 0.01 * n


def test_regression_follows_the_surer_member() -> None:
    rng = np.random.default_rng(0)
    panel = Panel(2, REGRESSION, 1)
    errors: list[tuple[float, float]] = []
    for truth in rng.normal(size=600):
        said = np.array([[truth + rng.normal(0, 0.1)], [truth + rng.normal(0, 1.0)]])
        errors.append(((panel.blend(said)[0] - truth) ** 2, (said[0, 0] - truth) ** 2))
        panel.judge(said, float(truth))
    mixed, best = np.mean(errors[50:], 0)
    assert mixed < 1.2 * best
    assert panel.variances[0] < 0.05 < 0.3 < panel.variances[1]


@pytest.mark.parametrize("task", [CLASSIFICATION, REGRESSION])
def test_a_swap_of_the_best_member_is_followed_within_tens_of_events(task: int) -> None:
    rng = np.random.default_rng(1)
    panel = Panel(3, task, 2 if task == CLASSIFICATION else 1)
    best = 0
    for swap in range(6):
        for event in range(400):
            truth = float(rng.integers(0, 2))
            quality = np.full(3, 0.5)
            quality[best] = 0.95
            right = rng.random(3) < quality
            said = np.array([sure(0.9) if r == (truth == 0) else sure(0.1) for r in right])
            if task == REGRESSION:
                spread = np.where(np.arange(3) == best, 0.1, 1.0)
                said = truth + spread[:, None] * rng.normal(size=(3, 1))
            panel.judge(said, truth)
            if event == 60:
                assert panel.weights[best] > 0.5, f"swap {swap}"
        assert panel.weights[best] > 0.7
        best = (best + 1) % 3


def test_a_jump_that_nobody_foresaw_leaves_who_was_right_ahead() -> None:
    """A series of levels: the first member repeats the last one, the second is always a bit off.
    Both miss every jump, and the first is believed right after it all the same."""
    rng, level, panel = np.random.default_rng(0), 0.0, Panel(2, REGRESSION)
    after_jump = []
    for t in range(400):
        before = level
        if t % 40 == 39:
            level += rng.choice((-1.0, 1.0))
        elif t % 40 == 0 and t:
            after_jump.append(panel.weights[0])
        panel.judge(np.array([[before], [before + 0.4 + 0.1 * rng.normal()]]), level)
    assert min(after_jump) > 0.5


@given(st.floats(1e-5, 10.0), st.floats(-50.0, 50.0), st.integers(0, 1000))
def test_no_residual_blurs_what_is_known_of_a_grown_member(
    variance: float, gap: float, age: int
) -> None:
    score, after = mixture.value_score(gap, variance, age)
    assert mixture.WORST <= score <= 0.5 * math.log(1.0 / mixture.VARIANCE_FLOOR) + 1e-9
    assert after >= mixture.VARIANCE_FLOOR
    if age >= 20:
        assert after <= variance * (1.0 + 0.05 * mixture.MOST_AT_ONCE)
    assert mixture.value_score(math.nan, variance, age)[0] == mixture.WORST
