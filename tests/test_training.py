"""Offline meta-training: it gets better, keeps the best, stops in time and can be gone on with."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scenarios.fewshot.sine import sines
from streammeta.meta.gradient_based import GradientLearner, maml, meta_sgd
from streammeta.meta.learner import Batch, State
from streammeta.meta.loss import Loss
from streammeta.meta.module import ModuleNet
from streammeta.meta.net import Net
from streammeta.meta.training import MetaTraining, Plan, query_loss

NET = Net((1, 20, 20, 1))
SHORT = Plan(iterations=60, tasks=5, every=20)


def training(plan: Plan = SHORT, seed: int = 0, *, outer_lr: float = 3e-3) -> MetaTraining:
    learner = meta_sgd(NET, "regression", inner_lr=0.02, steps=1, outer_lr=outer_lr)
    state = learner.init(torch.from_numpy(NET.init(np.random.default_rng(seed))))
    held_out = sines(10, 10)(np.random.default_rng(99), 50)
    return MetaTraining(learner, state, sines(10, 10), held_out, plan, seed=seed)


def equal(a: State, b: State) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_it_learns_to_adapt_and_the_best_state_is_the_best_that_was_judged() -> None:
    made = training(Plan(iterations=400, tasks=5, every=50))
    before = query_loss(made.learner, made.state, made.held_out, 1)
    judged = list(made.run())
    assert [at.iteration for at in judged] == list(range(50, 401, 50))
    assert made.lowest == min(at.held_out for at in judged)
    assert made.lowest < 0.8 * before
    assert query_loss(made.learner, made.best, made.held_out, 1) == made.lowest
    assert [at.best for at in judged] == [
        at.held_out < min((b.held_out for b in judged[:i]), default=math.inf)
        for i, at in enumerate(judged)
    ]


def test_training_that_was_cut_off_goes_on_bit_for_bit() -> None:
    whole, cut, rest = training(), training(), training(seed=5)
    list(whole.run())
    list(islice(cut.run(), 2))
    rest.resume(cut.tensors(), json.loads(json.dumps(cut.info())))
    assert [at.iteration for at in rest.run()] == [60]
    assert equal(rest.state, whole.state)
    assert equal(rest.best, whole.best)
    assert rest.info() == whole.info()


def test_it_stops_when_the_held_out_tasks_get_no_better() -> None:
    made = training(Plan(iterations=1_000, tasks=2, every=5, patience=3), outer_lr=1e-12)
    made.lowest = 0.0  # nothing will be better
    assert len(list(made.run())) == 3
    assert made.out_of_patience
    assert equal(made.best, training(outer_lr=1e-12).state)


def test_the_outer_rate_falls_to_its_floor() -> None:
    made = training(replace(SHORT, floor=0.25))
    shares = []
    for iteration in (0, 30, 60):
        made.iteration = iteration
        shares.append(made._share())
    assert shares == pytest.approx([1.0, 0.625, 0.25])


# -- any module --------------------------------------------------------------------------------


class Convolutions(nn.Module):
    """Rows of 64 numbers seen as images of 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Unflatten(-1, (1, 8, 8)), nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(-3), nn.Linear(54, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class Recurrent(nn.Module):
    """Rows of 5 numbers read one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = nn.GRU(1, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        read, _ = self.reader(x.unsqueeze(-1))
        out: Tensor = self.head(read[:, -1])
        return out


def digits(rng: np.random.Generator, tasks: int) -> Batch:
    """Two of the ten handwritten digits, five images of each, and ten to judge by."""
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = [rng.choice(10, 2, replace=False) for _ in range(tasks)]

    def rows(each: int, part: int) -> list[Tensor]:
        places = np.stack([
            np.concatenate([rng.permutation(np.flatnonzero(data.target == digit)[part::2])[:each]
                            for digit in pair]) for pair in chosen
        ])  # fmt: skip
        x = data.data[places].astype(np.float32) / 8.0 - 1.0
        y = np.tile(np.repeat([0.0, 1.0], each), (tasks, 1)).astype(np.float32)
        return [torch.from_numpy(p) for p in (x, y, np.ones_like(y))]

    return Batch(*rows(5, 0), *rows(5, 1))


def echoes(rng: np.random.Generator, tasks: int) -> Batch:
    """The sign of the number so many places from the end: which place is the task."""
    place = rng.integers(0, 3, tasks)

    def rows(n: int) -> list[Tensor]:
        x = rng.normal(size=(tasks, n, 5)).astype(np.float32)
        y = (x[np.arange(tasks), :, 4 - place] > 0).astype(np.float32)
        return [torch.from_numpy(p) for p in (x, y, np.ones_like(y))]

    return Batch(*rows(20), *rows(20))


def accuracy(learner: GradientLearner, state: State, batch: Batch) -> float:
    fast, _ = learner.adapt(state, *batch[:3], 2)
    guess = learner.predict(fast, batch.query_x)[..., :2].argmax(-1)
    return float((guess == batch.query_y).float().mean())


STORIES = {
    "convolutions": (Convolutions, digits, 100, 0.90),
    "recurrent": (Recurrent, echoes, 300, 0.75),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", STORIES)
def test_any_module_learns_to_adapt(name: str) -> None:
    torch.manual_seed(0)
    make, draw, iterations, enough = STORIES[name]
    net = ModuleNet(make())
    learner = meta_sgd(net, "classification", inner_lr=0.1, steps=2, outer_lr=1e-2)
    state = learner.init(net.initial())
    plan = Plan(iterations=iterations, tasks=8, every=50)
    test = draw(np.random.default_rng(7), 100)
    made = MetaTraining(
        learner, state, draw, draw(np.random.default_rng(8), 50), plan, n_classes=2, seed=1
    )
    list(made.run())
    found = accuracy(learner, made.best, test)
    assert found > enough
    assert found > accuracy(learner, state, test) + 0.05, "random weights adapt as well"


def test_a_module_gives_the_gradients_of_the_network_written_out() -> None:
    net = Net((3, 5, 2))
    module = ModuleNet(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double())
    rng = np.random.default_rng(0)
    theta, vector = (torch.from_numpy(rng.normal(size=(4, net.n_params))) for _ in range(2))
    x = torch.from_numpy(rng.normal(size=(4, 6, 3)))
    y, mask = torch.from_numpy(rng.integers(0, 2, (4, 6)).astype(float)), torch.ones(4, 6).double()
    loss = Loss("classification", 2)

    def transposed(flat: Tensor) -> Tensor:
        """torch's layers hold the weight as (out, in)."""
        parts = []
        for layer in net.layers():
            weight = flat[:, layer.start : layer.bias].view(-1, layer.n_in, layer.n_out)
            parts += [weight.mT.flatten(1), flat[:, layer.bias : layer.end]]
        return torch.cat(parts, 1)

    ours = net.differentiate(theta, x, y, mask, loss)
    theirs = module.differentiate(transposed(theta), x, y, mask, loss)
    torch.testing.assert_close(theirs.loss, ours.loss)
    torch.testing.assert_close(theirs.gradient, transposed(ours.gradient))
    product = module.hessian_vector(theirs, transposed(vector))
    torch.testing.assert_close(product, transposed(net.hessian_vector(ours, vector)))
    torch.testing.assert_close(module.apply(transposed(theta), x), net.apply(theta, x))
    assert module.head() == net.head()


def test_every_gradient_learner_takes_a_module() -> None:
    net = ModuleNet(Recurrent())
    batch = echoes(np.random.default_rng(0), 3)
    learner = maml(net, "classification", inner_lr=0.1, steps=2)
    state, info = learner.meta_update(learner.init(net.initial()), batch, 2)
    assert math.isfinite(info.loss)
    assert info.gradient_norm > 0
    assert state.theta.shape == (net.n_params,)
