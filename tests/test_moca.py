"""MOCA: the belief over runs is the exact recursion, hears no future, and can be learned from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streammeta.meta import pcoc
from streammeta.meta.alpaca import Alpaca
from streammeta.meta.learner import State
from streammeta.meta.moca import Moca
from streammeta.meta.net import Net
from streammeta.meta.pcoc import Counted, Pcoc

CLASSES = 3
VALUES, LABELS = "values", "labels"
both_kinds = pytest.mark.parametrize("kind", [VALUES, LABELS])


def moca(kind: str, **options: Any) -> Moca:
    """Around a small network of two inputs."""
    if kind == VALUES:
        return Moca(Alpaca(Net((2, 7, 5, 1)), "regression", rank=4), **options)
    model = Pcoc(Net((2, 7, 5, CLASSES + 1)), "classification")
    return Moca(model, n_classes=CLASSES, **options)


def start(learner: Moca, seed: int = 3) -> State:
    """Double precision; every parameter another."""
    rng = np.random.default_rng(seed)
    net = learner.model.net
    state = learner.init(torch.from_numpy(rng.normal(0.0, 0.7, net.n_params)))
    extra = state.extra + torch.from_numpy(rng.normal(0.0, 0.2, state.extra.shape))
    return state._replace(extra=extra)


def series(kind: str, rows: int = 14, count: int = 3, seed: int = 5) -> tuple[Tensor, Tensor]:
    """``x (B, T, 2)`` and labels ``(B, T)`` that turn over half-way."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, rows, 2))
    y = x[..., 0] * np.where(np.arange(rows) < rows // 2, 2.0, -2.0)
    if kind == LABELS:
        y = np.digitize(y, (-1.0, 1.0)).astype(float)
    return torch.from_numpy(x), torch.from_numpy(y)


# -- what a run knows, worked out from its rows alone ----------------------------------------------


def told_by(learner: Moca, state: State, x: Tensor, y: Tensor, at: int, begin: int) -> Any:
    """Of row ``at`` of one series, by a run whose rows are those from ``begin`` to before ``at``:
    log densities of its features (0 where they are not modelled) and of its label given them."""
    past, label = slice(begin, at), y[at]
    ones = torch.ones(at - begin, dtype=x.dtype)
    if isinstance(learner.model, Alpaca):
        belief = learner.model.learn(state, x[past], y[past], ones)
        told = learner.model.predictive(state, belief, x[at : at + 1])
        normal = torch.distributions.Normal(told.mean[0], told.variance[0].sqrt())
        return torch.zeros((), dtype=x.dtype), normal.log_prob(label)
    model = learner.model
    prior = model.clouds(state, CLASSES)
    known = model.learn(state, x[past], y[past], ones, CLASSES)
    joint = pcoc.log_joint(prior, known, model.features(state, x[at : at + 1])[0])
    of_features = torch.logsumexp(joint, 0)
    return of_features, joint[int(label)] - of_features


def exact(learner: Moca, state: State, x: Tensor, y: Tensor, hazard: float) -> list[float]:
    """Algorithm 1 of the paper for one series, run by run and row by row, in probabilities."""
    belief: dict[int, float] = {0: 1.0}  # by the first row of the run
    densities = []
    for at in range(len(y)):
        told = {begin: told_by(learner, state, x, y, at, begin) for begin in belief}
        seen = {begin: belief[begin] * math.exp(told[begin][0]) for begin in belief}
        total = sum(seen.values())
        joint = {begin: seen[begin] / total * math.exp(told[begin][1]) for begin in belief}
        density = sum(joint.values())
        densities.append(math.log(density))
        belief = {begin: (1.0 - hazard) * part / density for begin, part in joint.items()}
        belief[at + 1] = hazard
    return densities


# -- the filter ------------------------------------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("hazard", [0.05, 0.4])
def test_with_all_runs_kept_it_is_the_exact_recursion(kind: str, hazard: float) -> None:
    learner = moca(kind, hazard=hazard, runs=None)
    state, (x, y) = start(learner), series(kind)
    found = learner.filter(state, x, y)
    for i in range(len(x)):
        expected = exact(learner, state, x[i], y[i], hazard)
        np.testing.assert_allclose(found.log_density[i].numpy(), expected, rtol=0, atol=1e-9)


@both_kinds
def test_without_a_hazard_all_rows_are_learned_and_with_a_certain_one_none(kind: str) -> None:
    x, y = series(kind)
    learner = moca(kind)
    state = start(learner)
    rows = torch.arange(x.shape[1]).expand(len(x), -1)
    for hazard, begin in ((0.0, torch.zeros_like(rows)), (1.0, rows)):
        one = replace(learner, hazard=hazard, runs=1)
        found = one.filter(state, x, y).log_density
        torch.testing.assert_close(found, one.since(state, x, y, begin), rtol=0, atol=1e-9)
    everything = replace(learner, hazard=0.0).since(state, x, y, torch.zeros_like(rows))
    for at in (0, 1, 9):
        alone = told_by(learner, state, x[1], y[1], at, 0)[1]
        torch.testing.assert_close(everything[1, at], alone, rtol=0, atol=1e-9)


@both_kinds
def test_where_runs_are_known_only_their_rows_count(kind: str) -> None:
    learner = moca(kind)
    state, (x, y) = start(learner), series(kind)
    begin = (torch.arange(x.shape[1]) - 4).clamp(min=0).expand(len(x), -1)
    found = learner.since(state, x, y, begin)
    for at in (0, 3, 11):
        alone = told_by(learner, state, x[2], y[2], at, int(begin[2, at]))[1]
        torch.testing.assert_close(found[2, at], alone, rtol=0, atol=1e-9)


@both_kinds
@settings(max_examples=15, deadline=None)
@given(
    hazard=st.floats(0.001, 0.999), runs=st.integers(2, 20), seed=st.integers(0, 99)
)  # fmt: skip
def test_the_belief_is_one_in_all_and_no_run_begins_in_the_future(
    kind: str, hazard: float, runs: int, seed: int
) -> None:
    learner = moca(kind, hazard=hazard, runs=runs)
    state, (x, y) = start(learner, seed), series(kind, seed=seed)
    found = learner.filter(state, x, y)
    for told in found.told:
        assert torch.allclose(told.log_belief.exp().sum(1), torch.ones(len(x), dtype=x.dtype))
    alive = found.runs.log_belief > -math.inf
    assert int(alive.sum(1).max()) == min(runs, x.shape[1] + 1)
    assert bool((found.runs.start <= x.shape[1]).all())
    newest = (found.runs.start == x.shape[1]) & alive
    assert bool((newest.sum(1) == 1).all()), "the run that begins next is always there"
    assert bool(torch.isfinite(found.log_density).all())


@both_kinds
def test_other_rows_to_come_change_nothing_that_was_said(kind: str) -> None:
    learner = moca(kind, hazard=0.1, runs=5)
    state, (x, y) = start(learner), series(kind)
    order = torch.cat([torch.arange(7), 7 + torch.randperm(7, generator=torch.manual_seed(0))])
    one, other = learner.filter(state, x, y), learner.filter(state, x[:, order], y[:, order])
    assert torch.equal(one.log_density[:, :7], other.log_density[:, :7])
    assert not torch.equal(one.log_density[:, 7:], other.log_density[:, 7:])
    for before, after in zip(one.told[:7], other.told[:7], strict=True):
        assert torch.equal(before.mean, after.mean)
        assert torch.equal(before.log_belief, after.log_belief)


@both_kinds
def test_a_series_in_two_parts_is_the_series(kind: str) -> None:
    learner = moca(kind, hazard=0.1, runs=6)
    state, (x, y) = start(learner), series(kind)
    whole = learner.filter(state, x, y)
    first = learner.filter(state, x[:, :5], y[:, :5], learner.begin(state, len(x), 14))
    second = learner.filter(state, x[:, 5:], y[:, 5:], first.runs)
    both = torch.cat([first.log_density, second.log_density], 1)
    torch.testing.assert_close(both, whole.log_density, rtol=0, atol=1e-12)
    assert torch.equal(second.runs.start, whole.runs.start)


def test_the_belief_moves_to_the_rows_after_a_switch() -> None:
    learner = moca(VALUES, hazard=0.01)
    state = start(learner)
    # a linear world that the features of the network can follow, and then its reverse
    x, _ = series(VALUES, rows=60, count=4)
    features = learner.model.rows(state, x)  # type: ignore[union-attr]
    weight = torch.tensor([3.0, -2.0, 2.0, -3.0], dtype=x.dtype)
    sign = torch.where(torch.arange(60) < 30, 1.0, -1.0)
    y = features.centre + sign * (features.along @ weight)
    state = state._replace(extra=torch.cat([state.extra[:-1], state.extra[-1:] - 6.0]))
    told = learner.filter(state, x, y).runs
    likeliest = told.start.gather(1, told.log_belief.argmax(1, keepdim=True))
    assert bool((likeliest == 30).all())


def test_few_runs_cost_little_where_changes_are_rare() -> None:
    state, (x, y) = start(moca(VALUES)), series(VALUES, rows=40)
    whole = moca(VALUES, hazard=0.05, runs=None).filter(state, x, y).log_density.mean()
    few = moca(VALUES, hazard=0.05, runs=10).filter(state, x, y).log_density.mean()
    assert abs(float(whole - few)) < 0.01


# -- learning to learn through the recursion -------------------------------------------------------


@both_kinds
@pytest.mark.parametrize("known", [False, True])
def test_the_gradient_is_the_slope_of_finite_differences(kind: str, known: bool) -> None:
    learner = moca(kind, hazard=None, runs=6)
    state, (x, y) = start(learner), series(kind)
    begin = (torch.arange(x.shape[1]) // 5 * 5).expand(len(x), -1) if known else None
    found = learner.slope(state, x, y, begin).gradient
    rng, step = np.random.default_rng(5), 1e-6
    sizes = [part.numel() for part in state[:3]]
    for _ in range(4):
        d = torch.from_numpy(rng.normal(size=sum(sizes)))
        losses = []
        for sign in (1.0, -1.0):
            parts = [p + sign * step * q for p, q in zip(state[:3], d.split(sizes), strict=True)]
            losses.append(learner.slope(State(*parts, *state[3:]), x, y, begin).loss)
        torch.testing.assert_close(
            found @ d, (losses[0] - losses[1]) / (2 * step), rtol=1e-5, atol=1e-6
        )


@both_kinds
def test_training_on_unmarked_series_makes_them_likelier(kind: str) -> None:
    learner = moca(kind, hazard=None, runs=5)
    learner = replace(learner, model=replace(learner.model, outer_lr=1e-2))
    first = state = start(learner)
    told = []
    for i in range(40):
        state, info = learner.meta_update(state, *series(kind, count=8, seed=i))
        told.append(info.loss)
    assert np.mean(told[-10:]) < np.mean(told[:10]) - 0.1
    assert float(state.log_rates) != float(first.log_rates), "the hazard is learned too"
    before = replace(learner, hazard=0.1)
    after, _ = before.meta_update(first, *series(kind))
    assert torch.equal(after.log_rates, first.log_rates), "a hazard that is known stays"


def test_a_series_that_is_not_finite_is_skipped_alone() -> None:
    learner = moca(VALUES, hazard=0.1)
    state, (x, y) = start(learner), series(VALUES)
    bad = y.clone()
    bad[1, 4] = math.nan
    after, info = learner.meta_update(state, x, bad)
    expected, _ = learner.meta_update(state, x[[0, 2]], y[[0, 2]])
    assert info.skipped == 1
    for part, other in zip(after, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=1e-12)
    same, info = learner.meta_update(state, x[1:2], bad[1:2])
    assert (same, info.skipped) == (state, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hazard": 1.5}, "hazard is 1.5; expected 0 to 1, or None"),
        ({"hazard": 0.1, "runs": 1}, "runs is 1; expected at least 2, or None"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        moca(VALUES, **options)


def test_classes_have_no_variance() -> None:
    learner = moca(LABELS)
    state, (x, y) = start(learner), series(LABELS)
    with pytest.raises(TypeError, match="no variance"):
        learner.predictive(state, x, y, torch.zeros(y.shape, dtype=torch.long))


# -- the closed forms ------------------------------------------------------------------------------


def test_the_belief_of_alpaca_does_not_break_on_rows_that_are_all_alike() -> None:
    """A thousand equal rows in single precision, and features of ten thousand: the precision is
    still factored."""
    learner = Alpaca(Net((2, 7, 5, 1)), "regression")
    state = learner.init(torch.full((learner.net.n_params,), 0.5))
    for size, close in ((1.0, 0.01), (1e3, 0.3)):
        x, y = torch.full((1, 1000, 2), size), torch.full((1, 1000), 3.0)
        belief = learner.learn(state, x, y, torch.ones_like(y))
        told = learner.predictive(state, belief, x[:, :1])
        assert float(told.mean) == pytest.approx(3.0, abs=close)
        assert 1.0 <= float(told.variance) < 1.0 + close


def test_an_unknown_class_is_a_wider_cloud() -> None:
    learner = Pcoc(Net((2, 7, 5, CLASSES)), "classification")
    state = start(moca(LABELS))._replace(
        theta=torch.from_numpy(np.random.default_rng(0).normal(size=learner.net.n_params))
    )
    prior = learner.clouds(state, CLASSES)
    counts = torch.tensor([0.0, 5.0, 500.0], dtype=torch.float64)
    known = Counted(counts, prior.mean * counts.unsqueeze(1))
    mean, scatter = pcoc.posterior(prior, known)
    torch.testing.assert_close(mean, prior.mean)
    assert bool((scatter[0] > scatter[1]).all())
    assert bool((scatter[1] > scatter[2]).all())
    assert bool((scatter[2] < 1.01).all())
    shares = torch.softmax(pcoc.log_joint(prior, known, mean[2]), 0)
    assert int(shares.argmax()) == 2
