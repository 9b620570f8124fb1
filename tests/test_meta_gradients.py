"""The gradient that an outer step follows is the one that is stated, for every learner.

What a learner minimises is written here once more as a plain loop over tasks and steps that
autograd differentiates; no code is shared but the network and the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.gradient_based import GradientLearner, Outer, Slopes
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Task, losses, masked_mean
from streammeta.meta.net import Net
from streammeta.registry import components, load

TASKS: tuple[Task, ...] = ("classification", "regression")
CLASSES, STEPS = 3, 3
WIDTHS = (7, 6)

both_tasks = pytest.mark.parametrize("task", TASKS)


def make(name: str, task: Task, **options: Any) -> GradientLearner:
    net = Net((4, *WIDTHS, 1 if task == "regression" else CLASSES + 2))
    outer = Outer(**options)
    made = load("learners", name)(net, task, inner_lr=0.1, steps=STEPS, outer_lr=1e-3, outer=outer)
    assert isinstance(made, GradientLearner)
    return made


def start(learner: GradientLearner) -> State:
    """Float64 meta-parameters; rates differ from parameter to parameter where they may."""
    rng = np.random.default_rng(3)
    state = learner.init(torch.from_numpy(rng.normal(0.0, 0.5, learner.net.n_params)))
    noise = torch.from_numpy(rng.normal(0.0, 0.3, state.log_rates.shape))
    return state._replace(log_rates=state.log_rates + noise * learner.per_parameter)


def tasks(task: Task, n: int = 3) -> Batch:
    """Random tasks of 6 support and 5 query rows; some rows of the first are padding."""
    rng = np.random.default_rng(7)

    def rows(length: int) -> list[Tensor]:
        x = rng.normal(size=(n, length, 4))
        y = rng.normal(0.0, 3.0, (n, length))
        if task == "classification":
            y = rng.integers(0, CLASSES, (n, length)).astype(float)
        mask = np.ones((n, length))
        mask[0, : length // 3] = 0.0
        return [torch.from_numpy(a) for a in (x, y, mask)]

    return Batch(*rows(6), *rows(5))


# -- the plain loops ---------------------------------------------------------------------------


class Plain:
    """One task of a batch, judged by ``net`` with weights ``theta (P,)``."""

    def __init__(self, learner: GradientLearner, batch: Batch, i: int) -> None:
        self.net, self.kind = learner.net, learner.loss(CLASSES)
        self.support = [part[i] for part in batch[:3]]
        self.query = [part[i] for part in batch[3:]]

    def on(self, rows: list[Tensor], theta: Tensor, net: Any = None) -> Tensor:
        x, y, mask = rows
        return masked_mean(losses((net or self.net).apply(theta, x), y, self.kind), mask)


def slope(loss: Tensor, at: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, at, create_graph=True)
    return found


def through_all_weights(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """MAML, ANIL and Meta-SGD with every option, as their papers write them."""
    options, rates = learner.outer, state.log_rates.exp()
    if learner.head_only:
        frozen = torch.ones_like(state.theta)
        frozen[: learner.net.head().start] = 0.0
        rates = rates * frozen
    fast, judged = state.theta, []
    for step in range(STEPS):
        pull = options.proximity * (fast - state.theta)
        fast = fast - rates * (slope(one.on(one.support, fast), fast) + pull)
        weight = 1.0 if step == STEPS - 1 else options.each_step
        judged.append((weight, one.on(one.query, fast)))
    total = sum(w * loss for w, loss in judged) / sum(w for w, _ in judged)
    assert isinstance(total, Tensor)
    if options.modulation is not None:
        total = (1.0 - torch.exp(-options.modulation * total)) * total
    return total


def through_the_context(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """CAVIA: a network with more inputs, of which the last are the context."""
    width = state.extra.numel() // WIDTHS[0]
    wide = Net((4 + width, *WIDTHS, learner.net.sizes[-1]))  # type: ignore[attr-defined]
    cut = 4 * WIDTHS[0]
    theta = torch.cat([state.theta[:cut], state.extra, state.theta[cut:]])

    def on(rows: list[Tensor], context: Tensor) -> Tensor:
        x, y, mask = rows
        return one.on([torch.cat([x, context.expand(len(x), -1)], 1), y, mask], theta, wide)

    context = torch.zeros(width, dtype=theta.dtype, requires_grad=True)
    for _ in range(STEPS):
        context = context - learner.inner_lr * slope(on(one.support, context), context)
    total = on(one.query, context)
    if learner.outer.modulation is not None:
        total = (1.0 - torch.exp(-learner.outer.modulation * total)) * total
    return total


def through_the_solution(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """R2-D2: least squares with the ridge as further rows, which draw the layer to its prior."""
    x, y, mask = (part[one.support[2] > 0] for part in one.support)
    net, last = learner.net, learner.net.layers()[-1]  # type: ignore[attr-defined]
    prior = state.theta[last.start :].reshape(last.n_in + 1, last.n_out)
    h = torch.cat([net.features(state.theta, x), mask.unsqueeze(1)], 1)  # type: ignore[attr-defined]
    root = (0.5 * state.extra[:-1]).exp().diag()
    if learner.task == "regression":
        columns, wanted = 1, y.unsqueeze(1)
    else:
        columns = CLASSES
        coded = torch.eye(CLASSES, dtype=x.dtype)[y.long()]
        wanted = state.extra[-1].exp() * (coded - 1.0 / CLASSES)
    rows = torch.cat([wanted, root @ prior[:, :columns]])
    solved = torch.linalg.lstsq(torch.cat([h, root]), rows).solution
    head = torch.cat([solved, prior[:, columns:]], 1)
    total = one.on(one.query, torch.cat([state.theta[: last.start], head.flatten()]))
    if learner.outer.modulation is not None:
        total = (1.0 - torch.exp(-learner.outer.modulation * total)) * total
    return total


EXACT: dict[str, Callable[[GradientLearner, State, Plain], Tensor]] = {
    "maml": through_all_weights,
    "anil": through_all_weights,
    "meta_sgd": through_all_weights,
    "cavia": through_the_context,
    "r2d2": through_the_solution,
}
STATED = ("fomaml", "reptile", "fine_tuning")
CASES = [
    *((name, {}) for name in EXACT),
    ("maml", {"each_step": 0.5}),
    ("maml", {"proximity": 0.7}),
    ("meta_sgd", {"proximity": 0.7, "each_step": 0.3, "modulation": 2.0}),
    ("anil", {"modulation": 0.5, "proximity": 0.2}),
    ("cavia", {"modulation": 1.0}),
    ("r2d2", {"modulation": 1.0}),
]
every_case = pytest.mark.parametrize(("name", "options"), CASES, ids=str)


def moved(state: State, **parts: Tensor) -> State:
    return state._replace(**parts)


# -- the tests ---------------------------------------------------------------------------------


def test_every_learner_is_judged_here() -> None:
    assert {*EXACT, *STATED} == set(components("learners"))


@every_case
@both_tasks
def test_the_meta_gradient_is_autograds_through_the_plain_loop(
    name: str, options: dict[str, Any], task: Task
) -> None:
    learner, batch = make(name, task, **options), tasks(task)
    state = start(learner)
    found = learner.slopes(state, batch, CLASSES)
    leaves = {
        n: getattr(state, n).clone().requires_grad_() for n in ("theta", "log_rates", "extra")
    }
    for i in range(3):
        total = EXACT[name](learner, moved(state, **leaves), Plain(learner, batch, i))
        wanted = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
        for part, expected, leaf in zip(
            (found.by_theta, found.by_rates, found.by_extra), wanted, leaves.values(), strict=True
        ):
            if leaf is leaves["log_rates"] and not learner.per_parameter:
                assert (part == 0).all()  # the one rate stays as it was set
            elif leaf.numel():
                assert expected is not None
                torch.testing.assert_close(part[i], expected, rtol=0, atol=1e-11)


@every_case
@both_tasks
def test_the_meta_gradient_is_the_slope_of_finite_differences(
    name: str, options: dict[str, Any], task: Task
) -> None:
    learner, batch = make(name, task, **options), tasks(task)
    state = start(learner)
    found = learner.slopes(state, batch, CLASSES)
    rng, step = np.random.default_rng(5), 1e-6
    slopes = {"theta": found.by_theta, "log_rates": found.by_rates, "extra": found.by_extra}
    if not learner.per_parameter:
        del slopes["log_rates"]

    def value(part: str, at: Tensor, i: int) -> Tensor:
        # the plain loop needs a graph for its inner gradients
        there = moved(state, **{part: at.clone().requires_grad_()})
        if part != "theta":
            there = moved(there, theta=there.theta.clone().requires_grad_())
        return EXACT[name](learner, there, Plain(learner, batch, i)).detach()

    for part, by in slopes.items():
        at = getattr(state, part)
        for _ in range(2 if at.numel() else 0):
            d = torch.from_numpy(rng.normal(size=at.numel()))
            for i in range(3):
                rise = value(part, at + step * d, i) - value(part, at - step * d, i)
                torch.testing.assert_close(by[i] @ d, rise / (2 * step), rtol=1e-5, atol=1e-6)


@both_tasks
def test_first_order_maml_follows_the_query_gradient_at_the_adapted_weights(task: Task) -> None:
    learner, batch = make("fomaml", task), tasks(task)
    state = start(learner)
    found = learner.slopes(state, batch, CLASSES)
    for i in range(3):
        one, fast = Plain(learner, batch, i), state.theta.clone().requires_grad_()
        for _ in range(STEPS):
            moved_on = fast - learner.inner_lr * slope(one.on(one.support, fast), fast)
            fast = moved_on.detach().requires_grad_()
        expected = slope(one.on(one.query, fast), fast)
        torch.testing.assert_close(found.by_theta[i], expected, rtol=0, atol=1e-12)


@both_tasks
def test_reptile_follows_the_mean_gradient_of_ordinary_training(task: Task) -> None:
    learner, batch = make("reptile", task), tasks(task)
    state = start(learner)
    found = learner.slopes(state, batch, CLASSES)
    for i in range(3):
        one, fast = Plain(learner, batch, i), state.theta.clone().requires_grad_()
        rows = [torch.cat(pair) for pair in zip(one.support, one.query, strict=True)]
        gradients = []
        for _ in range(STEPS):
            gradients.append(slope(one.on(rows, fast), fast).detach())
            fast = (fast - learner.inner_lr * gradients[-1]).detach().requires_grad_()
        expected = torch.stack(gradients).mean(0)
        torch.testing.assert_close(found.by_theta[i], expected, rtol=0, atol=1e-12)


@both_tasks
def test_fine_tuning_follows_the_gradient_of_all_rows_alike(task: Task) -> None:
    learner, batch = make("fine_tuning", task), tasks(task)
    state = start(learner)
    found = learner.slopes(state, batch, CLASSES)
    theta = state.theta.clone().requires_grad_()
    for i in range(3):
        one = Plain(learner, batch, i)
        rows = [torch.cat(pair) for pair in zip(one.support, one.query, strict=True)]
        expected = slope(one.on(rows, theta), theta)
        torch.testing.assert_close(found.by_theta[i], expected, rtol=0, atol=1e-12)


def test_a_gated_update_moves_each_weight_by_its_own_new_rate() -> None:
    learner, batch = make("meta_sgd", "regression", gated=True), tasks("regression")
    state = start(learner)
    gradient = learner.slopes(state, batch, CLASSES).by_theta.mean(0)
    after, info = learner.meta_update(state, batch, CLASSES)
    assert not torch.equal(after.log_rates, state.log_rates)
    shrunk = gradient * min(1.0, 10.0 / info.gradient_norm)
    expected = state.theta - after.log_rates.exp() * shrunk
    torch.testing.assert_close(after.theta, expected, rtol=0, atol=1e-12)


def test_a_task_counts_by_how_far_it_is_from_solved() -> None:
    batch = tasks("regression")
    plain, weighed = (make("maml", "regression", modulation=m) for m in (None, 1.0))
    state = start(plain)
    one, other = (learner.slopes(state, batch, CLASSES) for learner in (plain, weighed))
    share = (other.by_theta * one.by_theta).sum(1) / one.by_theta.square().sum(1)
    torch.testing.assert_close(other.by_theta, one.by_theta * share[:, None])
    step = 1e-6
    up, down = ((1.0 - torch.exp(-loss)) * loss for loss in (one.loss + step, one.loss - step))
    torch.testing.assert_close(share, (up - down) / (2 * step), rtol=1e-6, atol=1e-6)
    assert share.min() < 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"each_step": -0.1}, "each_step is -0.1; expected at least 0"),
        ({"proximity": -1.0}, "proximity is -1.0; expected at least 0"),
        ({"modulation": 0.0}, "modulation is 0.0; expected more than 0, or None"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Outer(**options)


def test_cavia_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="about weights that adapt"):
        make("cavia", "regression", proximity=0.5)


def test_r2d2_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="about inner steps"):
        make("r2d2", "regression", each_step=0.5)


def test_slopes_have_a_row_for_each_task() -> None:
    for name in components("learners"):
        learner = make(name, "regression")
        found = learner.slopes(start(learner), tasks("regression"), CLASSES)
        assert isinstance(found, Slopes)
        assert {len(part) for part in found} == {3}
