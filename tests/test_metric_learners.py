"""Learners that compare rows: what they say is what the papers' formulas say, row by row."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import ConfigError, UsageError
from streammeta.events import Adapted, Event, MetaUpdated
from streammeta.meta.gradient_based import Outer
from streammeta.meta.learner import Batch, State
from streammeta.meta.matching import Matching
from streammeta.meta.net import Net
from streammeta.meta.pcoc import Pcoc
from streammeta.meta.prototypical import Prototypical

WAY = 3
NET = Net((4, 9, WAY + 1))


def begun(learner: Any, seed: int = 0) -> State:
    theta = np.random.default_rng(seed).normal(0.0, 0.5, learner.net.n_params)
    state: State = learner.init(torch.from_numpy(theta))
    return state


def rows(rng: np.random.Generator, labels: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.from_numpy(rng.normal(size=(1, len(labels), 4)))
    y = torch.tensor([labels], dtype=torch.float64)
    return x, y, torch.ones_like(y)


def episode(labels: list[int], seed: int = 0, queries: int = 6) -> Batch:
    rng = np.random.default_rng(seed)
    return Batch(*rows(rng, labels), *rows(rng, [i % WAY for i in range(queries)]))


# -- prototypical networks -----------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, WAY - 1), max_size=9), st.integers(0, 99))
def test_the_nearest_mean_wins(further: list[int], seed: int) -> None:
    learner = Prototypical(NET, "classification")
    batch, state = episode([0, 1, 2, *further], seed), begun(learner, seed)
    h, asked = (NET.features(state.theta, x)[0] for x in (batch.support_x, batch.query_x))
    means = torch.stack([h[batch.support_y[0] == k].mean(0) for k in range(WAY)])
    nearest = torch.cdist(asked, means).argmin(1)
    said = learner.answer(state, batch, WAY)[0, :, :WAY].argmax(1)
    assert torch.equal(said, nearest)


def test_sharpness_turns_distances_into_probabilities() -> None:
    learner, batch = Prototypical(NET, "classification"), episode([0, 1, 2, 2])
    state = begun(learner)._replace(extra=torch.tensor([math.log(0.3)], dtype=torch.float64))
    h, asked = (NET.features(state.theta, x)[0] for x in (batch.support_x, batch.query_x))
    means = torch.stack([h[batch.support_y[0] == k].mean(0) for k in range(WAY)])
    expected = (-0.3 * torch.cdist(asked, means).square()).softmax(1)
    said = learner.answer(state, batch, WAY)[0, :, :WAY].softmax(1)
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-10)


def test_a_class_that_the_support_lacks_keeps_what_was_learned_of_it() -> None:
    learner, batch = Prototypical(NET, "classification"), episode([0, 0, 2])
    state = begun(learner)
    said = learner.answer(state, batch, WAY)[0]
    before = NET.apply(state.theta, batch.query_x[0])
    torch.testing.assert_close(said[:, 1], before[:, 1])
    assert not torch.isclose(said[:, 0], before[:, 0]).any()


def test_values_have_no_means_of_classes() -> None:
    with pytest.raises(UsageError, match="for regression take matching"):
        Prototypical(Net((4, 9, 1)), "regression")
    with pytest.raises(ConfigError, match=r"model\.partner: prototypical has a mean"):
        Engine(ModelConfig(task="regression", partner="prototypical"))


# -- matching networks ---------------------------------------------------------------------------


def test_every_row_votes_as_loudly_as_it_is_alike() -> None:
    learner, batch = Matching(NET, "classification"), episode([0, 1, 1, 2, 2, 2])
    silent = begun(learner)
    theta = silent.theta.clone()
    head = theta[NET.head()].view(-1, WAY + 1)
    head[:-1], head[-1] = 0.0, -1e3  # the meta-parameters have no vote
    state = silent._replace(theta=theta)
    h, asked = (NET.features(theta, x)[0] for x in (batch.support_x, batch.query_x))
    attention = (10.0 * torch.cosine_similarity(asked[:, None], h[None], -1)).softmax(1)
    expected = attention @ torch.nn.functional.one_hot(batch.support_y[0].long(), WAY).double()
    said = learner.answer(state, batch, WAY)[0, :, :WAY].softmax(1)
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-10)


def test_of_values_it_says_the_weighted_mean() -> None:
    net = Net((4, 9, 1))
    learner = Matching(net, "regression")
    rng = np.random.default_rng(3)
    x, y, mask = rows(rng, [0, 0, 0, 0])
    y = torch.from_numpy(rng.normal(size=(1, 4)))
    state = begun(learner)
    state = state._replace(extra=torch.tensor([math.log(5.0), -1e3], dtype=torch.float64))
    batch = Batch(x, y, mask, *rows(rng, [0, 0, 0]))
    h, asked = (net.features(state.theta, part)[0] for part in (x, batch.query_x))
    weights = (5.0 * torch.cosine_similarity(asked[:, None], h[None], -1)).exp()
    expected = (weights * y).sum(1) / weights.sum(1)
    torch.testing.assert_close(learner.answer(state, batch, 1)[0, :, 0], expected)


def test_without_a_support_the_meta_parameters_speak() -> None:
    learner, batch = Matching(NET, "classification"), episode([0, 1])
    batch = batch._replace(support_mask=torch.zeros_like(batch.support_mask))
    state = begun(learner)
    own = NET.apply(state.theta, batch.query_x[0])
    torch.testing.assert_close(learner.answer(state, batch, WAY)[0], own)


@pytest.mark.parametrize("context", [0, 2])
def test_the_network_for_a_stream_agrees_with_the_attention_on_the_support(context: int) -> None:
    learner = Matching(NET, "classification", context=context)
    batch, state = episode([0, 1, 2, 0, 1, 2], seed=4), begun(learner)
    batch = batch._replace(query_x=batch.support_x, query_y=batch.support_y)
    fast, _ = learner.adapt(state, *batch[:3], WAY)
    attention = learner.answer(state, batch, WAY)[0, :, :WAY].argmax(1)
    network = learner.predict(fast, batch.query_x)[0, :, :WAY].argmax(1)
    assert torch.equal(attention, network)


def test_full_context_embeddings_read_the_support_in_both_directions() -> None:
    learner = Matching(NET, "classification", context=3)
    state, batch = begun(learner), episode([0, 1, 2, 0])
    theta, extra = state.theta[None], state.extra[None]
    kept = NET.features(theta, batch.support_x)
    width = kept.shape[-1]
    sizes = [(2 * width + 1) * 4 * width] * 2 + [(3 * width + 1) * 4 * width]
    flats = torch.split(state.extra[2:], sizes)

    def cell(flat: Tensor, inputs: int) -> torch.nn.LSTMCell:
        made = torch.nn.LSTMCell(inputs, width, dtype=torch.float64)
        weight = flat[: -4 * width].view(-1, 4 * width).T
        with torch.no_grad():
            made.weight_ih.copy_(weight[:, :inputs])
            made.weight_hh.copy_(weight[:, inputs:])
            made.bias_ih.copy_(flat[-4 * width :])
            made.bias_hh.zero_()
        return made

    read = kept[0].clone()
    for flat, order in ((flats[0], range(4)), (flats[1], range(3, -1, -1))):
        h = c = torch.zeros(1, width, dtype=torch.float64)
        for i in order:
            h, c = cell(flat, width)(kept[0, i : i + 1], (h, c))
            read[i] += h[0]
    asked = NET.features(theta, batch.query_x)[0]
    h, c = asked, torch.zeros_like(asked)
    for _ in range(3):
        found = (h @ read.T).softmax(1) @ read
        new, c = cell(flats[2], 2 * width)(torch.cat([asked, found], 1), (h, c))
        h = new + asked
    own = NET.apply(state.theta, batch.query_x[0])
    votes = (10.0 * torch.cosine_similarity(h[:, None], read[None], -1)).exp()
    of = torch.nn.functional.one_hot(batch.support_y[0].long(), WAY + 1).double()
    expected = (votes @ of + own.exp()).log()
    said = learner.attend(theta, extra, batch[:3], batch.query_x)[0]
    torch.testing.assert_close(said, expected, rtol=0, atol=1e-9)


def test_padding_does_not_change_what_is_read_in_context() -> None:
    learner = Matching(NET, "classification", context=2)
    batch, state = episode([1, 0, 1, 2]), begun(learner)
    padded = batch._replace(
        support_x=torch.cat([torch.full((1, 2, 4), 1e6, dtype=torch.float64), batch.support_x], 1),
        support_y=torch.cat([torch.zeros(1, 2, dtype=torch.float64), batch.support_y], 1),
        support_mask=torch.cat([torch.zeros(1, 2, dtype=torch.float64), batch.support_mask], 1),
    )
    one, two = (learner.answer(state, part, WAY) for part in (batch, padded))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-9)


def test_readers_of_the_context_are_trained() -> None:
    learner = Matching(NET, "classification", outer_lr=3e-3, context=1)
    state, told = begun(learner), []
    for i in range(40):
        state, info = learner.meta_update(state, episode([0, 1, 2] * 2, seed=i % 4), WAY)
        told.append(info.loss)
    assert np.mean(told[-4:]) < 0.8 * np.mean(told[:4])
    assert not torch.equal(state.extra[2:], learner.extra(state.theta)[2:])


def test_what_is_about_inner_steps_is_refused() -> None:
    for kind in (Prototypical, Matching):
        with pytest.raises(UsageError, match="about inner steps"):
            kind(NET, "classification", outer=Outer(proximity=0.5))
    with pytest.raises(UsageError, match="context is -1; expected at least 0"):
        Matching(NET, "classification", context=-1)


# -- pcoc ----------------------------------------------------------------------------------------


def test_pcoc_answers_with_the_density_of_a_row_given_those_of_its_class() -> None:
    """By the rule of conditioning alone: rows of a class are jointly normal, because they share a
    mean that nobody knows; no posterior is written down."""
    learner = Pcoc(NET, "classification")
    state = learner.init(torch.from_numpy(np.random.default_rng(2).normal(size=NET.n_params)))
    state = state._replace(extra=state.extra + 0.3 * torch.linspace(-1, 1, len(state.extra)))
    batch = episode([0, 1, 1, 0, 1])
    prior = learner.clouds(state, WAY)
    h, asked = (NET.features(state.theta, x[0]) for x in (batch.support_x, batch.query_x))
    joint = []
    for k in range(WAY):
        rows = h[batch.support_y[0] == k]
        told = torch.zeros(len(asked), dtype=torch.float64)
        for j in range(h.shape[1]):
            n = len(rows) + 1
            shared = torch.full((n, n), float(1.0 / prior.pseudo[j]), dtype=torch.float64)
            cover = prior.variance[j] * (torch.eye(n, dtype=torch.float64) + shared)
            normal = torch.distributions.MultivariateNormal
            mean = prior.mean[k, j].expand(n)
            both = torch.stack([torch.cat([rows[:, j], q[None]]) for q in asked[:, j]])
            told += normal(mean, cover).log_prob(both)
            if len(rows):
                told -= normal(mean[1:], cover[1:, 1:]).log_prob(rows[:, j])
        joint.append(told + (prior.log_labels[k].exp() + len(rows)).log())
    wanted = torch.stack(joint, -1).log_softmax(-1)
    said = learner.answer(state, batch, WAY)[0]
    torch.testing.assert_close(said[:, :WAY].log_softmax(-1), wanted, rtol=0, atol=1e-9)
    assert (said[:, WAY:] == -math.inf).all(), "no class that is not asked about"
    judged = learner.judged(state.theta[None], state.extra[None], batch, WAY)
    of_each = wanted.gather(1, batch.query_y[0].long().unsqueeze(1))
    assert float(judged) == pytest.approx(-float(of_each.mean()), abs=1e-9)
    fast, _ = learner.adapt(state, *batch[:3], WAY)
    plain = NET.apply(fast, batch.query_x)[0, :, :WAY].log_softmax(-1)
    assert not torch.allclose(plain, wanted, atol=1e-3), "the means are not known exactly"


# -- in a stream ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prototypical", "matching", "matching_context"])
def test_as_a_partner_it_sends_challengers_and_learns_to(name: str) -> None:
    engine = Engine(ModelConfig(task="classification", partner=name, hidden=(8,), meta_every=4))
    rng = np.random.default_rng(0)
    outputs: list[Any] = []
    for i in range(200):
        a, b = rng.normal(size=2)
        y = "up" if (a > b) == (i < 100) else "down"
        outputs += engine.observe([Event(str(i), {"a": float(a), "b": float(b)}, y)])
        outputs += engine.replay()
    updates = [o for o in outputs if isinstance(o, MetaUpdated) and o.learner == name]
    assert updates
    assert all(math.isfinite(o.loss) for o in updates)
    scouts = [o for o in outputs if isinstance(o, Adapted) and name in o.expert]
    assert scouts
    assert all(o.loss_after < o.loss_before for o in scouts)
