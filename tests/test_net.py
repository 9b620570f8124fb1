"""The network on flat vectors: its gradients are autograd's, and it can grow new outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streammeta.meta.loss import HUBER, Loss, Task, losses, masked_mean
from streammeta.meta.net import Net, refit, seed_class

shapes = st.lists(st.integers(1, 6), min_size=2, max_size=4).map(tuple)
either = st.sampled_from(["classification", "regression"])


def problem(
    sizes: tuple[int, ...], task: Task, seed: int
) -> tuple[Net, Tensor, Tensor, Tensor, Tensor, Loss]:
    """Three networks with five rows each, one of them padding; one output is spare."""
    classes = sizes[-1]
    net = Net((*sizes[:-1], classes + 1))
    rng = np.random.default_rng(seed)
    theta, x = rng.normal(size=(3, net.n_params)), rng.normal(size=(3, 5, sizes[0]))
    y = rng.normal(0.0, 4.0, (3, 5))
    if task == "classification":
        y = rng.integers(0, classes, (3, 5)).astype(float)
    mask = np.ones((3, 5))
    mask[1, 0] = 0.0
    made = [torch.from_numpy(a) for a in (theta, x, y, mask)]
    return net, made[0], made[1], made[2], made[3], Loss(task, classes)


@settings(max_examples=40, deadline=None)
@given(shapes, either, st.integers(0, 1000))
def test_the_written_out_gradient_is_autograds(
    sizes: tuple[int, ...], task: Task, seed: int
) -> None:
    net, theta, x, y, mask, loss = problem(sizes, task, seed)
    at = net.differentiate(theta, x, y, mask, loss)
    theta.requires_grad_()
    mean = masked_mean(losses(net.apply(theta, x), y, loss), mask)
    (expected,) = torch.autograd.grad(mean.sum(), theta)
    torch.testing.assert_close(at.loss, mean.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(at.gradient, expected, rtol=0, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(shapes, either, st.integers(0, 1000))
def test_the_hessian_times_a_vector_is_a_double_backward(
    sizes: tuple[int, ...], task: Task, seed: int
) -> None:
    net, theta, x, y, mask, loss = problem(sizes, task, seed)
    vector = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=theta.shape))
    at = net.differentiate(theta, x, y, mask, loss)
    product = net.hessian_vector(at, vector)
    theta.requires_grad_()
    mean = masked_mean(losses(net.apply(theta, x), y, loss), mask)
    (gradient,) = torch.autograd.grad(mean.sum(), theta, create_graph=True)
    (expected,) = torch.autograd.grad((gradient * vector).sum(), theta)
    torch.testing.assert_close(product, expected, rtol=0, atol=1e-9)


def test_huber_is_a_square_near_zero_and_a_line_beyond() -> None:
    outputs = torch.tensor([[0.5], [HUBER], [HUBER + 3.0], [-HUBER - 3.0]])
    found = losses(outputs, torch.zeros(4), Loss("regression"))
    line = 0.5 * HUBER**2 + 3.0 * HUBER
    assert found.tolist() == pytest.approx([0.125, 0.5 * HUBER**2, line, line])


def test_unseen_classes_have_no_say_in_the_loss() -> None:
    outputs = torch.tensor([[1.0, 1.0, 99.0]])
    found = losses(outputs, torch.tensor([0]), Loss("classification", 2))
    assert found.item() == pytest.approx(np.log(2.0))


def test_a_task_without_rows_has_no_loss_and_no_gradient() -> None:
    net, theta, x, y, mask, loss = problem((3, 4, 2), "classification", 0)
    at = net.differentiate(theta, x, y, torch.zeros_like(mask), loss)
    assert (at.loss == 0).all()
    assert (at.gradient == 0).all()


def test_initial_weights_are_he_normal_with_a_quiet_head() -> None:
    net = Net((50, 80, 80, 3))
    theta = net.init(np.random.default_rng(0), 20)
    assert theta.shape == (20, net.n_params)
    first, second, head = net.layers()
    assert theta[:, first.start : first.bias].std() == pytest.approx(np.sqrt(2 / 50), rel=0.02)
    assert theta[:, second.start : second.bias].std() == pytest.approx(np.sqrt(2 / 80), rel=0.02)
    assert theta[:, head.start : head.bias].std() == pytest.approx(0.1 * np.sqrt(2 / 80), rel=0.05)
    assert (theta[:, head.bias :] == 0).all()
    assert (net.init(np.random.default_rng(0), 20) == theta).all()
    assert net.init(np.random.default_rng(0)).shape == (net.n_params,)


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(1, 8), st.integers(0, 1000))
def test_a_wider_network_says_the_same_and_zero_for_what_is_new(
    sizes: tuple[int, ...], extra: int, seed: int
) -> None:
    old, new = Net(sizes), Net((*sizes[:-1], sizes[-1] + extra))
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(2, 3, old.n_params)).astype(np.float32)
    x = torch.from_numpy(rng.normal(size=(2, 3, 4, sizes[0])).astype(np.float32))
    wide = refit(theta, old, new)
    before = old.apply(torch.from_numpy(theta), x)
    after = new.apply(torch.from_numpy(wide), x)
    torch.testing.assert_close(after[..., : sizes[-1]], before, rtol=0, atol=1e-5)
    assert (after[..., sizes[-1] :] == 0).all()


@settings(max_examples=25, deadline=None)
@given(shapes, st.integers(0, 1000))
def test_a_new_class_starts_from_the_mean_of_the_others(sizes: tuple[int, ...], seed: int) -> None:
    index = sizes[-1]
    net = Net((*sizes[:-1], index + 2))
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(2, net.n_params)).astype(np.float32)
    x = torch.from_numpy(rng.normal(size=(2, 4, sizes[0])).astype(np.float32))
    before = net.apply(torch.from_numpy(theta.copy()), x)
    seed_class(theta, net, index)
    after = net.apply(torch.from_numpy(theta), x)
    torch.testing.assert_close(after[..., :index], before[..., :index], rtol=0, atol=0)
    torch.testing.assert_close(after[..., index + 1], before[..., index + 1], rtol=0, atol=0)
    torch.testing.assert_close(after[..., index], before[..., :index].mean(-1), rtol=0, atol=1e-4)


def test_the_first_class_has_nobody_to_learn_from() -> None:
    net = Net((2, 3))
    theta = net.init(np.random.default_rng(0))
    same = theta.copy()
    seed_class(theta, net, 0)
    assert (theta == same).all()


def test_refit_cuts_off_the_outputs_it_has_no_room_for() -> None:
    small, large = Net((3, 4, 2)), Net((3, 4, 8))
    theta = small.init(np.random.default_rng(0), 5)
    assert np.array_equal(refit(refit(theta, small, large), large, small), theta)
