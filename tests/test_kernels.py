"""The compiled hot path and the tensors say the same, to 1e-5; moments are numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from streammeta.experts import kernels
from streammeta.meta import rule
from streammeta.meta.loss import HUBER, Loss, Task, losses
from streammeta.meta.net import Net

F32 = NDArray[np.float32]
CODES: dict[str, int] = {
    "classification": kernels.CLASSIFICATION,
    "regression": kernels.REGRESSION,
}

shapes = st.tuples(st.integers(1, 9), st.lists(st.integers(1, 12), max_size=3))
either = st.sampled_from(["classification", "regression"])


class Story:
    """Some experts, a stream of small batches, and both ways to learn from it."""

    def __init__(self, shape: tuple[int, list[int]], task: Task, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.classes = 1 if task == "regression" else 3
        outputs = 1 if task == "regression" else 5
        self.task, self.code = task, CODES[task]
        self.net = Net((shape[0], *shape[1], outputs))
        self.sizes = np.array(self.net.sizes, np.int64)
        self.theta = self.net.init(rng, 3)
        self.theta += rng.normal(0.0, 0.1, self.theta.shape).astype(np.float32)
        self.rates = np.array([1e-3, 3e-3, 1e-2], np.float32)
        self.rng = rng

    def batch(self, rows: int) -> tuple[F32, F32]:
        x = self.rng.normal(size=(rows, self.net.sizes[0])).astype(np.float32)
        x[self.rng.random(x.shape) < 0.3] = 0.0  # absent columns take the sparse path
        y = self.rng.normal(0.0, 2.5, rows).astype(np.float32)
        if self.task == "classification":
            y = self.rng.integers(0, self.classes, rows).astype(np.float32)
        return x, y

    def gradient(self, theta: Tensor, x: F32, y: F32) -> Tensor:
        """The mean gradient of every expert, by the tensors."""
        tx = torch.from_numpy(x).expand(len(theta), -1, -1)
        ty = torch.from_numpy(y).expand(len(theta), -1)
        loss = Loss(self.task, self.classes)
        return self.net.differentiate(theta, tx, ty, torch.ones_like(ty), loss).gradient


def close(found: F32, expected: Tensor, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=atol)


def test_both_sides_use_the_same_constants() -> None:
    assert float(kernels.DECAY) == pytest.approx(rule.DECAY)
    assert float(kernels.EPS) == pytest.approx(rule.EPS)
    assert float(kernels.HUBER) == HUBER


@settings(max_examples=30, deadline=None)
@given(shapes, either, st.integers(0, 1000))
def test_predictions_are_those_of_the_tensors(
    shape: tuple[int, list[int]], task: Task, seed: int
) -> None:
    story = Story(shape, task, seed)
    x, _ = story.batch(4)
    out = np.full((4, 3, story.net.sizes[-1]), -7.0, np.float32)
    live = np.array([True, False, True])
    kernels.predict_bank(story.theta, live, story.sizes, x, story.classes, story.code, out)
    raw = story.net.apply(torch.from_numpy(story.theta), torch.from_numpy(x))
    assert (out[:, 1] == -7.0).all()  # who is not live is left alone
    for expert in (0, 2):
        if task == "regression":
            close(out[:, expert, 0], raw[expert, :, 0])
        else:
            close(out[:, expert, :3], torch.softmax(raw[expert, :, :3], -1))
            assert (out[:, expert, 3:] == 0).all()


@settings(max_examples=30, deadline=None)
@given(shapes, either, st.integers(0, 1000), st.integers(1, 5))
def test_backward_is_the_gradient_of_the_tensors(
    shape: tuple[int, list[int]], task: Task, seed: int, rows: int
) -> None:
    story = Story(shape, task, seed)
    x, y = story.batch(rows)
    width, outputs = int(story.sizes.sum()), story.net.sizes[-1]
    for e, theta in enumerate(story.theta):
        acts, deltas = np.empty(width, np.float32), np.empty(width, np.float32)
        grad = np.zeros_like(theta)
        for row, target in zip(x, y, strict=True):
            acts[: len(row)] = row
            kernels.forward(theta, story.sizes, acts)
            kernels.output_delta(
                acts[width - outputs :],
                deltas[width - outputs :],
                target,
                story.classes,
                story.code,
            )
            kernels.backward(theta, story.sizes, acts, deltas, grad)
        close(grad / rows, story.gradient(torch.from_numpy(story.theta), x, y)[e])


@settings(max_examples=30, deadline=None)
@given(shapes, either, st.integers(0, 1000), st.integers(1, 4))
def test_online_steps_are_the_inner_rule_on_normalised_gradients(
    shape: tuple[int, list[int]], task: Task, seed: int, rows: int
) -> None:
    story = Story(shape, task, seed)
    theta, second = story.theta.copy(), np.zeros_like(story.theta)
    steps, learns = np.zeros(3, np.int64), np.array([True, True, False])
    t, s = torch.from_numpy(story.theta.copy()), torch.zeros(theta.shape)
    rates = torch.from_numpy(story.rates)[:, None]
    for count in range(1, 7):
        x, y = story.batch(rows)
        # both sides step from the same weights: what is compared is the step. At gradients of
        # rounding size its sign is anybody's guess, so those coordinates are left out.
        gradient = story.gradient(t, x, y)
        scaled, s_new = rule.scale_by_second_moment(gradient, s, count)
        t_new = rule.step(t, scaled, rates)
        kernels.learn_rows(
            theta, second, steps, story.rates, learns, story.sizes, x, y, story.classes, story.code
        )
        sure = ((gradient.abs() > 1e-4) | (gradient == 0))[:2].numpy()
        assert sure.mean() > 0.5
        np.testing.assert_allclose(theta[:2][sure], t_new[:2].numpy()[sure], atol=1e-5)
        np.testing.assert_allclose(second[:2][sure], s_new[:2].numpy()[sure], rtol=5e-3, atol=1e-8)
        t, s = torch.from_numpy(theta.copy()), torch.from_numpy(second.copy())
    assert (theta[2] == story.theta[2]).all()
    assert (second[2] == 0).all()
    assert steps.tolist() == [6, 6, 0]


@settings(max_examples=30, deadline=None)
@given(shapes, either, st.integers(0, 1000), st.integers(1, 4))
def test_plain_steps_are_the_inner_rule(
    shape: tuple[int, list[int]], task: Task, seed: int, rows: int
) -> None:
    story = Story(shape, task, seed)
    theta, expected = story.theta.copy(), torch.from_numpy(story.theta.copy())
    rates = torch.from_numpy(story.rates)[:, None]
    for _ in range(5):
        x, y = story.batch(rows)
        expected = rule.step(expected, story.gradient(expected, x, y), rates)
        kernels.sgd_rows(theta, story.rates, story.sizes, x, y, story.classes, story.code)
        close(theta, expected)


@settings(max_examples=30, deadline=None)
@given(shapes, either, st.integers(0, 1000), st.integers(1, 4))
def test_the_mean_loss_is_that_of_the_tensors(
    shape: tuple[int, list[int]], task: Task, seed: int, rows: int
) -> None:
    story = Story(shape, task, seed)
    x, y = story.batch(rows)
    outputs = story.net.apply(torch.from_numpy(story.theta[0]), torch.from_numpy(x))
    expected = losses(outputs, torch.from_numpy(y), Loss(task, story.classes)).mean()
    found = kernels.mean_loss(story.theta[0], story.sizes, x, y, story.classes, story.code)
    assert found == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(shapes, either, st.integers(0, 1000))
def test_priming_is_the_mean_square_of_each_rows_gradient(
    shape: tuple[int, list[int]], task: Task, seed: int
) -> None:
    story = Story(shape, task, seed)
    x, y = story.batch(5)
    theta, second = story.theta[0], np.ones_like(story.theta[0])
    kernels.prime_second(theta, second, story.sizes, x, y, story.classes, story.code)
    one = torch.from_numpy(story.theta[:1])
    each = [story.gradient(one, x[i : i + 1], y[i : i + 1])[0] ** 2 for i in range(5)]
    close(second, torch.stack(each).mean(0))


def test_an_absent_column_keeps_the_moments_of_its_weights() -> None:
    story = Story((3, [4]), "regression", 0)
    theta, second, steps = story.theta.copy(), np.ones_like(story.theta), np.zeros(3, np.int64)
    x, y = story.batch(1)
    x[0] = [1.0, 0.0, 2.0]
    learns = np.ones(3, np.bool_)
    kernels.learn_rows(theta, second, steps, story.rates, learns, story.sizes, x, y, 1, story.code)
    of_absent = slice(4, 8)  # weights of the second input, row-major (in, out)
    assert (second[:, of_absent] == 1.0).all()
    assert (theta[:, of_absent] == story.theta[:, of_absent]).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.just(np.nan), st.floats(-1e6, 1e6)), min_size=1, max_size=40))
def test_running_moments_are_the_mean_and_variance_so_far(values: list[float]) -> None:
    count, mean, var = np.zeros((3, 2))
    scaled = np.array([1.0, 0.0])
    for value in values:
        kernels.update_moments(np.array([value, 3.0]), scaled, count, mean, var, 0.0)
    seen = np.array([v for v in values if v == v])
    assert count.tolist() == [len(seen), 0.0]
    assert mean[1] == var[1] == 0.0  # a column that is not standardised has no moments
    if len(seen):
        size = max(1.0, np.abs(seen).max())
        assert mean[0] == pytest.approx(seen.mean(), abs=1e-9 * size)
        assert var[0] == pytest.approx(seen.var(), rel=1e-6, abs=1e-9 * size**2)


def test_running_moments_follow_a_stream_that_moved() -> None:
    count, mean, var = np.zeros((3, 1))
    rng = np.random.default_rng(0)
    for level in (0.0, 50.0):
        for value in rng.normal(level, 1.0, 2000):
            kernels.update_moments(np.array([value]), np.ones(1), count, mean, var, 0.01)
    assert mean[0] == pytest.approx(50.0, abs=0.5)
    assert var[0] == pytest.approx(1.0, abs=0.4)


def test_standardised_columns_are_clipped_and_missing_is_the_mean() -> None:
    raw = np.array([[3.0, np.nan, 1.0, 1e9], [1e12, -1e12, np.nan, -1e9]])
    scaled, mean = np.array([1.0, 1.0, 0.0, 0.0]), np.array([1.0, 0.0, 9.0, 9.0])
    out = np.empty((2, 4), np.float32)
    kernels.standardise(raw, scaled, mean, np.full(4, 4.0), 5.0, out)
    np.testing.assert_allclose(out, [[1.0, 0.0, 1.0, 5.0], [5.0, -5.0, 0.0, -5.0]], atol=1e-6)
