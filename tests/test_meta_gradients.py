"""The gradient that an outer step follows is the one that is stated, for every learner.

What a learner minimises is written here once more as a plain loop over tasks and steps that
autograd differentiates; no code is shared but the network and the loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from learner_tasks import tasks_of
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.cavia import code
from streammeta.meta.gradient_based import GradientLearner, Outer, Slopes
from streammeta.meta.in_context import CODE, codes
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Task, losses, masked_mean
from streammeta.meta.net import Net
from streammeta.registry import components, load

TASKS: tuple[Task, ...] = ("classification", "regression")
CLASSES, STEPS, RATE = 3, 3, 0.08
WIDTHS = (7, 6)

both_tasks = pytest.mark.parametrize("task", TASKS)


def make(name: str, task: Task, **options: Any) -> GradientLearner:
    net = Net((4, *WIDTHS, 1 if task == "regression" else CLASSES + 2))
    outer = Outer(**options)
    made = load("learners", name)(net, task, inner_lr=RATE, steps=STEPS, outer_lr=1e-3, outer=outer)
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


def after_steps(
    learner: GradientLearner, one: Plain, on: Callable[[list[Tensor], Tensor], Tensor],
    context: Tensor,
) -> Tensor:  # fmt: skip
    """Query loss after steps of a context on the support; ``on``: the loss of rows with it."""
    context.requires_grad_()
    for _ in range(STEPS):
        context = context - learner.inner_lr * slope(on(one.support, context), context)
    total = on(one.query, context)
    if learner.outer.modulation is not None:
        total = (1.0 - torch.exp(-learner.outer.modulation * total)) * total
    return total


def through_the_context(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """CAVIA: a network with more inputs, of which the last are the context."""
    width = state.extra.numel() // WIDTHS[0]
    wide = Net((4 + width, *WIDTHS, learner.net.sizes[-1]))  # type: ignore[attr-defined]
    cut = 4 * WIDTHS[0]
    start = learner.unadapted(state)
    theta = torch.cat([start[:cut], state.extra, start[cut:]])

    def on(rows: list[Tensor], context: Tensor) -> Tensor:
        x, y, mask = rows
        return one.on([torch.cat([x, context.expand(len(x), -1)], 1), y, mask], theta, wide)

    return after_steps(learner, one, on, torch.zeros(width, dtype=theta.dtype))


def through_the_scales(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """CAVIA whose context scales and shifts the first layer's units, before their ReLU."""
    gains, shifts = state.extra.view(2, -1)
    layers = learner.net.layers()  # type: ignore[attr-defined]
    start = learner.unadapted(state)

    def on(rows: list[Tensor], context: Tensor) -> Tensor:
        x, y, mask = rows
        for depth, layer in enumerate(layers):
            weight = start[layer.start : layer.bias].view(layer.n_in, layer.n_out)
            x = x @ weight + start[layer.bias : layer.end]
            if depth == 0:
                x = x * (1.0 + gains * context) + shifts * context
            if depth + 1 < len(layers):
                x = x.clamp(min=0.0)
        return masked_mean(losses(x, y, one.kind), mask)

    return after_steps(learner, one, on, torch.zeros_like(gains))


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


def through_the_belief(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """ALPaCA: support and query are one normal vector, of which the support is then known."""
    x, y, mask = one.support
    far, wanted, counts = one.query
    last = learner.net.layers()[-1]  # type: ignore[attr-defined]
    head = state.theta[last.start :].unsqueeze(1)
    spread, noise = state.extra[:-1].view(last.n_in + 1, -1), state.extra[-1].exp()
    rows = torch.cat([x[mask > 0], far])
    h = learner.net.features(state.theta, rows)  # type: ignore[attr-defined]
    h = torch.cat([h, torch.ones_like(h[:, :1])], 1)
    joint = noise * (torch.eye(len(rows), dtype=h.dtype) + h @ spread @ spread.T @ h.T)
    n = int(mask.sum())
    gain = torch.linalg.solve(joint[:n, :n], joint[:n, n:]).T
    mean = (h[n:] @ head).squeeze(1) + gain @ (y[mask > 0] - (h[:n] @ head).squeeze(1))
    variance = (joint[n:, n:] - gain @ joint[:n, n:]).diagonal()
    told = -torch.distributions.Normal(mean, variance.sqrt()).log_prob(wanted)
    total = masked_mean(told, counts)
    if learner.outer.modulation is not None:
        total = (1.0 - torch.exp(-learner.outer.modulation * total)) * total
    return total


def through_the_means(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """Prototypical networks: squared distances to means, less what is the same for all classes."""
    x, y, _ = (part[one.support[2] > 0] for part in one.support)
    net: Any = learner.net
    h, asked = (net.features(state.theta, rows) for rows in (x, one.query[0]))
    scores = list(net.apply(state.theta, one.query[0]).T[:CLASSES])
    for k in {int(label) for label in y}:
        away = (asked - h[y == k].mean(0)).square().sum(1)
        scores[k] = state.extra.exp() * (asked.square().sum(1) - away)
    return modulated(learner, one, torch.stack(scores, 1))


def through_the_attention(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """Matching networks: votes by cosine, one more from the meta-parameters."""
    x, y, _ = (part[one.support[2] > 0] for part in one.support)
    net: Any = learner.net
    h, asked = (net.features(state.theta, rows) for rows in (x, one.query[0]))
    own = net.apply(state.theta, one.query[0])
    if learner.__class__.__name__ == "Matching" and learner.context:  # type: ignore[attr-defined]
        h, asked = in_context_of_each_other(state.extra[2:], h, asked)
    like = torch.cosine_similarity(asked[:, None], h[None], -1)
    votes = (state.extra[0].exp() * like).exp()
    if learner.task == "regression":
        last = state.extra[1].exp()
        value = (votes @ y + last * own[:, 0]) / (votes.sum(1) + last)
        return modulated(learner, one, value[:, None])
    scores = [(votes[:, y == k].sum(1) + own[:, k].exp()).log() for k in range(CLASSES)]
    return modulated(learner, one, torch.stack(scores, 1))


def in_context_of_each_other(readers: Tensor, h: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Full context embeddings, one reading of the support, with torch's own cells."""
    width = h.shape[1]
    sizes = [(2 * width + 1) * 4 * width] * 2 + [(3 * width + 1) * 4 * width]
    forwards, backwards, asking = torch.split(readers, sizes)
    read = list(h)
    for flat, order in ((forwards, range(len(h))), (backwards, range(len(h) - 1, -1, -1))):
        memory = h.new_zeros(2, 1, width)
        for i in order:
            memory = torch.stack(torch_cell(flat, h[i : i + 1], memory, width))
            read[i] = read[i] + memory[0, 0]
    rows = torch.stack(read)
    found = (asked @ rows.T).softmax(1) @ rows
    memory = torch.stack([asked, torch.zeros_like(asked)])
    return rows, torch_cell(asking, torch.cat([asked, found], 1), memory, width)[0] + asked


def through_the_reading(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """In-context learning: row by row, with torch's own cell; each is predicted, then read."""
    net, units = learner.net, learner.units  # type: ignore[attr-defined]
    layers, theta = net.layers(), state.theta  # type: ignore[attr-defined]
    wide = 4 + layers[-1].n_in + (1 if learner.task == "regression" else CODE)
    cut = (wide + units + 1) * 3 * units
    into, back, bias = torch.split(state.extra[1 : 1 + cut], [wide * 3 * units, 3 * units**2,
                                                             3 * units])  # fmt: skip
    named = {
        # torch turns its update gate the same way, and has the new state in the same place
        "weight_ih": into.view(wide, -1).T, "weight_hh": back.view(units, -1).T,
        "bias_ih": bias, "bias_hh": torch.zeros_like(bias),
    }  # fmt: skip
    cell = torch.nn.GRUCell(wide, units, dtype=theta.dtype)
    words = state.extra[1 + cut :][: units * sum(WIDTHS)].view(units, -1)
    h, error, read, told = theta.new_zeros(units), theta.new_zeros(layers[-1].n_out), 0, []
    keys: list[tuple[int, Tensor]] = []
    for x, y, mask in zip(*(torch.cat(p) for p in zip(one.support, one.query, strict=True)),
                          strict=True):  # fmt: skip
        if mask == 0:
            continue
        fast, place = theta.clone(), 0
        said = h @ words
        for layer in layers[:-1]:
            fast[layer.bias : layer.end] += said[place : place + layer.n_out]
            place += layer.n_out
        fast[layers[-1].bias :] += error / (read + state.extra[0].exp())
        if keys:
            fast[layers[-1].start : layers[-1].bias] += recalled(keys, state.extra)
        told.append(losses(net.apply(fast, x[None]), y[None], one.kind)[0])
        guess, seen = net.apply(theta, x[None])[0], net.features(theta, x[None])[0]  # type: ignore[attr-defined]
        if learner.task == "regression":
            label, error = y[None], error + y - guess
        else:
            keys.append((int(y), seen / seen.norm()))
            label, more = codes(CLASSES + 2)[int(y)], torch.zeros_like(error)
            more[:CLASSES] = torch.eye(CLASSES, dtype=x.dtype)[int(y)] - guess[:CLASSES].softmax(0)
            error = error + more
        inputs = torch.cat([x, seen, label])[None]
        h = torch.func.functional_call(cell, named, (inputs, h[None]))[0]
        read += 1
    total = torch.stack(told).mean()
    if learner.outer.modulation is not None:
        total = (1.0 - torch.exp(-learner.outer.modulation * total)) * total
    return total


def recalled(keys: list[tuple[int, Tensor]], extra: Tensor) -> Tensor:
    """The sum of each class's keys less the mean of all, over its rows and the pseudo-rows."""
    mean = torch.stack([key for _, key in keys]).mean(0)
    head = torch.stack([torch.zeros_like(mean)] * (CLASSES + 2), 1)
    for k in {k for k, _ in keys}:
        mine = torch.stack([key for of, key in keys if of == k])
        column = extra[-1].exp() * (mine - mean).sum(0) / (len(mine) + extra[0].exp())
        head = head + column[:, None] * (torch.arange(CLASSES + 2) == k)
    return head.flatten()


def modulated(learner: GradientLearner, one: Plain, outputs: Tensor) -> Tensor:
    """Query loss of outputs, as the outer update wants it."""
    _, y, mask = one.query
    total = masked_mean(losses(outputs, y, one.kind), mask)
    if learner.outer.modulation is not None:
        total = (1.0 - torch.exp(-learner.outer.modulation * total)) * total
    return total


def through_the_clouds(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """PCOC: class by class, the density of a cloud around its mean times how frequent it is."""
    x, y, mask = one.support
    far, wanted, counts = one.query
    net, last = learner.net, learner.net.layers()[-1]  # type: ignore[attr-defined]
    weight = state.theta[last.start : last.bias].view(last.n_in, last.n_out)[:, :CLASSES]
    bias = state.theta[last.bias : last.end][:CLASSES]
    variance, pseudo = state.extra[:-1].exp().view(2, -1)
    h, q = (net.features(state.theta, rows) for rows in (x, far))  # type: ignore[attr-defined]
    prior = weight * variance.unsqueeze(1)
    share = torch.softmax(bias + 0.5 * (prior**2 / variance.unsqueeze(1)).sum(0), 0)
    joint = []
    for label in range(CLASSES):
        mine = h[(y == label) & (mask > 0)]
        mean = (pseudo * prior[:, label] + mine.sum(0)) / (pseudo + len(mine))
        spread = variance + variance / (pseudo + len(mine))  # of a row, and of the mean itself
        cloud = torch.distributions.Normal(mean, spread.sqrt()).log_prob(q).sum(1)
        joint.append(cloud + (state.extra[-1].exp() * share[label] + len(mine)).log())
    told = -torch.log_softmax(torch.stack(joint, 1), 1)
    total = masked_mean(told.gather(1, wanted.long().unsqueeze(1)).squeeze(1), counts)
    if learner.outer.modulation is not None:
        total = (1.0 - torch.exp(-learner.outer.modulation * total)) * total
    return total


def by_a_rule(learner: GradientLearner, state: State, one: Plain) -> Tensor:
    """Both learned update rules, weight by weight, with torch's own LSTM cells."""
    rule, theta, units = state.extra, state.theta, learner.units  # type: ignore[attr-defined]
    of_cells = learner.cells()  # type: ignore[attr-defined]
    memory = [theta.new_zeros(2, len(theta), units) for _ in of_cells]
    gates = theta.new_zeros(2, len(theta))
    judged = []
    for _ in range(STEPS):
        at = theta.detach().requires_grad_()
        loss = one.on(one.support, at)
        (gradient,) = torch.autograd.grad(loss, at)
        h, place = in_two(gradient), 0
        if learner.__class__.__name__ == "MetaLstm":
            h = torch.cat([h, in_two(loss.detach()[None]).expand(len(theta), -1)], 1)
        for i, cell in enumerate(of_cells):
            flat = rule[place : place + cell.n_params]
            h, c = torch_cell(flat, h, memory[i], units)
            memory[i] = torch.stack([h, c])
            place += cell.n_params
        if learner.__class__.__name__ == "MetaLstm":
            said = []
            for gate, row in zip(gates, rule[place:].view(2, -1), strict=True):
                seen = torch.cat([h, theta[:, None], gate[:, None]], 1)
                said.append(torch.sigmoid(seen @ row[:-1] + row[-1]))
            gates = torch.stack(said)
            theta = gates[1] * theta - 10.0 * RATE * gates[0] * gradient
        else:
            out = rule[place:].view(-1, 2)
            a, b = (h @ out[:-1] + out[-1]).T
            theta = theta - RATE * torch.exp(3.0 * torch.tanh(a / 3.0)) * gradient + 0.1 * b
        judged.append(one.on(one.query, theta))
    whole = sum(judged) / STEPS
    assert isinstance(whole, Tensor)
    return whole


def in_two(value: Tensor) -> Tensor:
    """As the paper's appendix A: a logarithm and a sign, or -1 and the value made large."""
    rows = [
        [math.log(abs(v)) / 10.0, math.copysign(1.0, v)]
        if abs(v) >= math.exp(-10.0)
        else [-1.0, math.exp(10.0) * v]
        for v in value.tolist()
    ]
    return torch.tensor(rows, dtype=value.dtype)


def torch_cell(flat: Tensor, x: Tensor, memory: Tensor, units: int) -> tuple[Tensor, Tensor]:
    cell = torch.nn.LSTMCell(x.shape[1], units, dtype=x.dtype)
    weight = flat[: -4 * units].view(-1, 4 * units).T
    named = {
        "weight_ih": weight[:, : x.shape[1]],
        "weight_hh": weight[:, x.shape[1] :],
        "bias_ih": flat[-4 * units :],
        "bias_hh": torch.zeros_like(flat[-4 * units :]),
    }
    found: tuple[Tensor, Tensor] = torch.func.functional_call(cell, named, (x, tuple(memory)))
    return found


EXACT: dict[str, Callable[[GradientLearner, State, Plain], Tensor]] = {
    "maml": through_all_weights,
    "anil": through_all_weights,
    "meta_sgd": through_all_weights,
    "cavia": through_the_context,
    "cavia_film": through_the_scales,
    "r2d2": through_the_solution,
    "alpaca": through_the_belief,
    "pcoc": through_the_clouds,
    "prototypical": through_the_means,
    "matching": through_the_attention,
    "matching_context": through_the_attention,
    "in_context": through_the_reading,
}
RULES = ("meta_lstm", "learned_optimiser")
STATED = ("fomaml", "reptile", "fine_tuning", *RULES)
CASES = [
    *((name, {}) for name in EXACT),
    ("maml", {"each_step": 0.5}),
    ("maml", {"proximity": 0.7}),
    ("meta_sgd", {"proximity": 0.7, "each_step": 0.3, "modulation": 2.0}),
    ("anil", {"modulation": 0.5, "proximity": 0.2}),
    ("cavia", {"modulation": 1.0}),
    ("cavia_film", {"modulation": 1.0}),
    ("r2d2", {"modulation": 1.0}),
    ("alpaca", {"modulation": 0.1}),
    ("pcoc", {"modulation": 1.0}),
    ("prototypical", {"modulation": 1.0}),
    ("matching", {"modulation": 1.0}),
    ("in_context", {"modulation": 1.0}),
]
every_case = pytest.mark.parametrize(
    ("name", "options", "task"),
    [(name, options, task) for name, options in CASES for task in tasks_of(name)],
    ids=str,
)


def moved(state: State, **parts: Tensor) -> State:
    return state._replace(**parts)


# -- the tests ---------------------------------------------------------------------------------


def test_every_learner_is_judged_here() -> None:
    assert {*EXACT, *STATED} == set(components("learners"))


@every_case
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
@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_trained_through_its_steps_with_gradients_as_given(name: str, task: Task) -> None:
    learner, batch = make(name, task), tasks(task)
    state = start(learner)
    noise = np.random.default_rng(2).normal(0.0, 0.3, state.extra.shape)
    state = state._replace(extra=state.extra + torch.from_numpy(noise))
    found = learner.slopes(state, batch, CLASSES)
    for i in range(3):
        leaves = [part.clone().requires_grad_() for part in (state.theta, state.extra)]
        there = state._replace(theta=leaves[0], extra=leaves[1])
        wanted = torch.autograd.grad(by_a_rule(learner, there, Plain(learner, batch, i)), leaves)
        for part, expected in zip((found.by_theta, found.by_extra), wanted, strict=True):
            torch.testing.assert_close(part[i], expected, rtol=0, atol=1e-11)


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
    for name in ("cavia", "cavia_film"):
        with pytest.raises(
            UsageError, match=r"cavia moves hidden units; .* its sizes are \(4, 3\)"
        ):
            load("learners", name)(Net((4, 3)), "classification")
        for option in ({"per_parameter": True}, {"head_only": True}, {"second_order": False}):
            with pytest.raises(UsageError, match="about weights that adapt"):
                load("learners", name)(Net((4, 5, 3)), "classification", **option)


def test_a_class_keeps_its_code_whatever_comes_behind_it() -> None:
    few, many = code(400, 3), code(400, 8)
    assert torch.equal(few, many[:, :3])
    assert torch.allclose(many.abs(), torch.full_like(many, 0.05))
    alike = many.T @ many
    assert torch.allclose(alike.diagonal(), torch.ones(8))
    assert float((alike - torch.eye(8)).abs().max()) < 0.25, "nearly orthogonal"


def test_r2d2_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UsageError, match="about inner steps"):
        make("r2d2", "regression", each_step=0.5)


@pytest.mark.parametrize(
    ("name", "task", "options", "words"),
    [
        ("alpaca", "regression", {"gated": True}, "about inner steps"),
        ("alpaca", "classification", {}, "for classes there is pcoc"),
        ("pcoc", "classification", {"proximity": 0.5}, "about inner steps"),
        ("pcoc", "regression", {}, "for values there is alpaca"),
    ],
)
def test_closed_forms_refuse_what_they_cannot_do(
    name: str, task: Task, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        make(name, task, **options)


def test_slopes_have_a_row_for_each_task() -> None:
    for name in components("learners"):
        task = tasks_of(name)[-1]
        learner = make(name, task)
        found = learner.slopes(start(learner), tasks(task), CLASSES)
        assert isinstance(found, Slopes)
        assert {len(part) for part in found} == {3}
