"""Compiled outer steps and those on tensors say the same; where they might not, tensors are used.

The same learner on tensors is one whose ``compiled_slopes`` finds nothing. Slopes in float32 are
compared with those in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streammeta.meta.gradient_based import GradientLearner, Outer
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Task
from streammeta.meta.net import Net
from streammeta.meta.r2d2 import R2D2
from streammeta.registry import load

COMPILED = ("maml", "fomaml", "anil", "meta_sgd", "r2d2")
TASKS: tuple[Task, ...] = ("classification", "regression")
CLASSES = 3

every_learner = pytest.mark.parametrize("name", COMPILED)
both_tasks = pytest.mark.parametrize("task", TASKS)


class StepsOnTensors(GradientLearner):
    def compiled_slopes(self, state: State, batch: Batch, n_classes: int) -> None:
        return None


class SolutionOnTensors(R2D2):
    def compiled_slopes(self, state: State, batch: Batch, n_classes: int) -> None:
        return None


def make(name: str, task: Task, hidden: tuple[int, ...] = (7, 6), **changes: Any) -> Any:
    """A learner with spare outputs, as after a class has been reserved."""
    net = Net((4, *hidden, 1 if task == "regression" else CLASSES + 2))
    options: dict[str, Any] = {"inner_lr": 0.1, "steps": 3, "outer_lr": 1e-3} | changes
    return load("learners", name)(net, task, **options)


def on_tensors(learner: GradientLearner) -> GradientLearner:
    """The same learner, which never asks compiled code."""
    kind = SolutionOnTensors if isinstance(learner, R2D2) else StepsOnTensors
    return kind(**{field: getattr(learner, field) for field in learner.__dataclass_fields__})


def start(learner: GradientLearner, seed: int = 3) -> State:
    """Meta-parameters of which all differ."""
    rng = np.random.default_rng(seed)
    state = learner.init(torch.from_numpy(rng.normal(0.0, 0.5, learner.net.n_params)).float())
    rates, extra = (
        part + torch.from_numpy(rng.normal(0.0, 0.3, part.shape)).float()
        for part in (state.log_rates, state.extra)
    )
    if not learner.per_parameter:
        rates = state.log_rates
    return state._replace(log_rates=rates, extra=extra)


def tasks(
    learner: GradientLearner, rows: tuple[int, int] = (6, 5), n: int = 4, seed: int = 7
) -> Batch:
    """Random tasks with any number of rows up to so many; supports are padded before, queries
    behind, and what pads them is wild. Some residuals lie beyond Huber's square."""
    rng = np.random.default_rng(seed)

    def side(length: int, before: bool) -> list[Tensor]:
        x = rng.normal(size=(n, length, 4))
        y = rng.normal(0.0, 3.0, (n, length))
        if learner.task == "classification":
            y = rng.integers(0, CLASSES, (n, length)).astype(float)
        used = rng.integers(1, length + 1, n)[:, None]
        at = np.arange(length)
        mask = (at >= length - used) if before else (at < used)
        x[~mask] = 100.0
        return [torch.from_numpy(a.astype(np.float32)) for a in (x, y, mask)]

    return Batch(*side(rows[0], True), *side(rows[1], False))


def double(parts: Any) -> Any:
    return type(parts)(*(part.double() for part in parts))


def furthest(found: Tensor, exact: Tensor) -> Tensor:
    """How far each task's slopes are off at most."""
    return (found.double() - exact).abs().reshape(len(exact), -1).amax(1)


def close(found: Tensor, rounded: Tensor, exact: Tensor) -> None:
    """To 1e-5 of the largest of each task's, or to 1e-6 where all are small; where rounding takes
    the tensors further off than that in float32, twice as far."""
    assert found.dtype == torch.float32
    assert found.shape == exact.shape
    if exact.numel():
        scale = furthest(torch.zeros_like(exact), exact).clamp(min=0.1)
        gap = furthest(found, exact)
        assert (gap <= 1e-5 * scale + 2.0 * furthest(rounded, exact)).all(), (gap / scale).max()


def compare_slopes(learner: GradientLearner, state: State, batch: Batch, classes: int) -> None:
    assert learner.compiled_slopes(state, batch, classes) is not None
    found, other = learner.slopes(state, batch, classes), on_tensors(learner)
    rounded = other.slopes(state, batch, classes)
    exact = other.slopes(double(state), double(batch), classes)
    for parts in zip(found, rounded, exact, strict=True):
        close(*parts)


# -- the slopes --------------------------------------------------------------------------------


@every_learner
@both_tasks
@pytest.mark.parametrize("hidden", [(), (7,), (7, 6), (5, 4, 3)], ids=str)
def test_slopes_are_those_of_the_tensors(name: str, task: Task, hidden: tuple[int, ...]) -> None:
    learner = make(name, task, hidden)
    compare_slopes(learner, start(learner), tasks(learner), CLASSES)


@every_learner
@both_tasks
@settings(max_examples=25, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 9), max_size=3).map(tuple),
    rows=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    n=st.integers(1, 4),
    steps=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_whatever_the_shapes(
    name: str, task: Task, hidden: tuple[int, ...], rows: tuple[int, int], n: int, steps: int,
    seed: int,
) -> None:  # fmt: skip
    learner = make(name, task, hidden, steps=steps)
    compare_slopes(learner, start(learner, seed), tasks(learner, rows, n, seed), CLASSES)


@every_learner
@pytest.mark.parametrize("huber", [0.5, math.inf])
def test_any_huber_loss(name: str, huber: float) -> None:
    learner = make(name, "regression", huber=huber)
    compare_slopes(learner, start(learner), tasks(learner), 1)


@every_learner
@both_tasks
def test_a_support_of_one_row_and_one_of_none(name: str, task: Task) -> None:
    learner = make(name, task)
    state, batch = start(learner), tasks(learner)
    for first in (5, 6):  # of 6 rows
        mask = torch.zeros_like(batch.support_mask)
        mask[:, first:] = 1.0
        compare_slopes(learner, state, batch._replace(support_mask=mask), CLASSES)


@every_learner
def test_without_a_query_there_is_nothing_to_follow(name: str) -> None:
    learner = make(name, "classification")
    state, batch = start(learner), tasks(learner)
    found = learner.slopes(
        state, batch._replace(query_mask=torch.zeros_like(batch.query_mask)), CLASSES
    )
    assert all((part == 0).all() for part in found)


@every_learner
def test_padding_may_lie_anywhere(name: str) -> None:
    learner = make(name, "regression")
    batch = tasks(learner)
    gaps = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0])
    scattered = batch._replace(
        support_x=batch.support_x.clamp(max=3.0),
        support_mask=torch.cat([gaps, gaps[:1]]).expand(4, -1),
        query_x=batch.query_x.clamp(max=3.0),
        query_mask=gaps.expand(4, -1),
    )
    compare_slopes(learner, start(learner), scattered, 1)


@every_learner
@both_tasks
def test_modulation_weighs_the_tasks(name: str, task: Task) -> None:
    learner = make(name, task, outer=Outer(modulation=0.7))
    compare_slopes(learner, start(learner), tasks(learner), CLASSES)


@both_tasks
def test_more_rows_than_features_take_the_other_form_of_the_ridge(task: Task) -> None:
    learner = make("r2d2", task, (3,))
    state = start(learner)
    for most in (3, 4, 40):  # the system has 4 columns
        batch = tasks(learner, (most, 5))
        full = batch._replace(
            support_x=batch.support_x.clamp(max=3.0),
            support_mask=torch.ones_like(batch.support_mask),
        )
        compare_slopes(learner, state, full, CLASSES)


# -- the outer step ----------------------------------------------------------------------------


def compare_steps(learner: GradientLearner, batch: Batch, *, bad: int = 0) -> None:
    """Three outer steps by both ways. Adam makes steps of one size of gradients of rounding size,
    so those are left out."""
    state, other = start(learner), on_tensors(learner)
    for _ in range(3):
        after, told = learner.meta_update(state, batch, CLASSES)
        twin, info = other.meta_update(state, batch, CLASSES)
        assert told.skipped == info.skipped == bad
        assert told.loss == pytest.approx(info.loss, rel=1e-5)
        assert told.gradient_norm == pytest.approx(info.gradient_norm, rel=1e-5)
        sure = (after.second.sqrt() > 1e-5) | (after.second == 0)
        assert sure.float().mean() > 0.7
        moved = torch.cat([after.theta, after.log_rates, after.extra])
        wanted = torch.cat([twin.theta, twin.log_rates, twin.extra])
        torch.testing.assert_close(moved[sure], wanted[sure], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(after.first, twin.first, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(after.second, twin.second, rtol=1e-4, atol=1e-8)
        assert torch.equal(after.taken, twin.taken)
        assert not torch.equal(after.theta, state.theta)
        state = after


@every_learner
@both_tasks
def test_an_outer_step_leads_to_the_same_state(name: str, task: Task) -> None:
    learner = make(name, task)
    compare_steps(learner, tasks(learner))


@pytest.mark.parametrize("name", ["maml", "anil", "meta_sgd"])
def test_a_gated_step_too(name: str) -> None:
    learner = make(name, "regression", outer=Outer(gated=True))
    compare_steps(learner, tasks(learner))


@every_learner
def test_long_gradients_are_cut_to_the_same_length(name: str) -> None:
    learner = make(name, "regression", huber=math.inf, inner_lr=1e-3)
    batch = tasks(learner)
    far = batch._replace(query_y=100.0 * batch.query_y)
    _, info = learner.meta_update(start(learner), far, CLASSES)
    assert info.gradient_norm > 10.0
    compare_steps(learner, far)


def test_rates_ridge_and_sharpness_stay_where_they_may() -> None:
    for name, part, bound in (("meta_sgd", "log_rates", 3.0), ("r2d2", "extra", 7.0)):
        learner = make(name, "classification", outer_lr=10.0)
        state, batch = start(learner), tasks(learner)
        centre = math.log(0.1) if part == "log_rates" else 0.0
        after, _ = learner.meta_update(state, batch, CLASSES)
        twin, _ = on_tensors(learner).meta_update(state, batch, CLASSES)
        moved = getattr(after, part)
        assert (moved - centre).abs().max() == pytest.approx(bound, abs=1e-6)
        torch.testing.assert_close(moved, getattr(twin, part), rtol=1e-5, atol=1e-5)


@every_learner
@pytest.mark.parametrize("field", ["support_x", "query_x", "query_y"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38])
def test_a_task_that_is_not_finite_is_cut_out_by_both(name: str, field: str, value: float) -> None:
    learner = make(name, "regression", huber=math.inf)
    batch = tasks(learner)
    poisoned = getattr(batch, field).clone()
    at = (2, -1) if field == "support_x" else (2, 0)
    poisoned[at] = value
    compare_steps(learner, batch._replace(**{field: poisoned}), bad=1)


@every_learner
def test_where_no_task_is_finite_nothing_moves(name: str) -> None:
    learner = make(name, "regression")
    state, batch = start(learner), tasks(learner)
    lost = batch._replace(query_x=torch.full_like(batch.query_x, math.nan))
    after, info = learner.meta_update(state, lost, CLASSES)
    assert all(a is b for a, b in zip(after, state, strict=True))
    assert info.skipped == 4
    assert math.isnan(info.loss)
    assert math.isnan(info.gradient_norm)


@every_learner
def test_the_state_that_is_given_stays_as_it_was(name: str) -> None:
    learner = make(name, "classification")
    state, batch = start(learner), tasks(learner)
    before = State(*(part.clone() for part in state))
    learner.meta_update(state, batch, CLASSES)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))


# -- where tensors are used --------------------------------------------------------------------


@every_learner
def test_what_compiled_code_does_not_do_is_left_to_the_tensors(name: str) -> None:
    learner = make(name, "classification")
    state, batch = start(learner), tasks(learner)
    assert learner.compiled_slopes(state, batch, CLASSES) is not None
    assert learner.compiled_slopes(double(state), double(batch), CLASSES) is None
    assert learner.compiled_slopes(state, double(batch), CLASSES) is None
    leaf = state._replace(theta=state.theta.clone().requires_grad_())
    assert learner.compiled_slopes(leaf, batch, CLASSES) is None
    assert learner.compiled_slopes(state, batch, CLASSES + 3) is None  # one more than outputs
    strange = batch._replace(query_y=batch.query_y + CLASSES)
    assert learner.compiled_slopes(state, strange, CLASSES) is None
    with pytest.raises((RuntimeError, IndexError)):
        learner.slopes(state, strange, CLASSES)
    halves = batch._replace(support_mask=0.5 * batch.support_mask)  # rows that count in part
    assert learner.compiled_slopes(state, halves, CLASSES) is None
    narrow = batch._replace(query_x=batch.query_x[..., :3])
    assert learner.compiled_slopes(state, narrow, CLASSES) is None


@pytest.mark.parametrize("options", [{"each_step": 0.5}, {"proximity": 0.5}], ids=str)
def test_so_are_options_of_inner_steps(options: dict[str, float]) -> None:
    learner = make("meta_sgd", "regression", outer=Outer(**options))
    assert learner.compiled_slopes(start(learner), tasks(learner), 1) is None


@pytest.mark.parametrize("name", ["cavia", "cavia_film", "reptile", "fine_tuning"])
def test_so_are_learners_with_slopes_of_their_own(name: str) -> None:
    learner = make(name, "regression")
    assert learner.compiled_slopes(start(learner), tasks(learner), 1) is None


@every_learner
def test_what_lies_scattered_in_memory_is_read_in_order(name: str) -> None:
    learner = make(name, "regression")
    state, batch = start(learner), tasks(learner)
    turned = Batch(*(part.transpose(0, 1).contiguous().transpose(0, 1) for part in batch))
    assert not turned.support_x.is_contiguous()
    one, other = (learner.slopes(state, each, 1) for each in (batch, turned))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
