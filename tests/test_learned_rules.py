"""Learned update rules: they begin as plain descent, and learn to do better than tuned rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scenarios.bench import Book, Job, compare, finish, run_job
from scenarios.bench.jobs import cards, unfit
from scenarios.fewshot.descent import descend
from scenarios.fewshot.optimising import (
    FAMILIES,
    GRID,
    STEPS,
    TEST,
    learned,
    learner_of,
    path,
    tuned,
)
from scenarios.suites.learned_optimisers import SUITE
from streammeta.errors import UsageError
from streammeta.meta.learned_optimiser import LearnedOptimiser
from streammeta.meta.meta_lstm import MetaLstm
from streammeta.meta.net import Net


def job(model: str, stream: str = "quadratics", rows: int = 30) -> Job:
    return Job(model, stream, 7, rows, protocol="optimising")


@pytest.mark.parametrize("how", ["sgd", "momentum", "adam"])
def test_plain_descent_is_torchs(how: str) -> None:
    family = FAMILIES["clouds"]
    start, rows = family.draw(np.random.default_rng(0), 3)
    mine = [theta for _, (theta, _) in zip(range(6), descend(
        family.net, start, rows, family.loss, how, 0.05), strict=False)]  # fmt: skip
    for task in range(3):
        theta = start[task].clone().requires_grad_()
        makes = {
            "sgd": lambda p: torch.optim.SGD(p, 0.05),
            "momentum": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
            "adam": lambda p: torch.optim.Adam(p, 0.05),
        }
        optimiser = makes[how]([theta])
        for step in range(5):
            optimiser.zero_grad()
            said = family.net.apply(theta, rows[0][task])
            torch.nn.functional.cross_entropy(said, rows[1][task].long()).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            torch.testing.assert_close(mine[step + 1][task], theta.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [LearnedOptimiser, MetaLstm])
def test_before_any_training_a_rule_is_nearly_plain_descent(kind: type) -> None:
    family = FAMILIES["quadratics"]
    start, rows = family.draw(np.random.default_rng(1), 20)
    learner = kind(family.net, "regression", inner_lr=0.03, steps=1, huber=family.loss.huber)
    rule = learner.extra(start[0]).expand(20, -1)
    (fast,) = learner.unroll(start, rule, rows, 1)
    at = family.net.differentiate(start, *rows, family.loss)
    moved, expected = fast - start, -0.03 * at.gradient
    assert float((moved * expected).sum() / moved.norm() / expected.norm()) > 0.95
    assert float(moved.norm() / expected.norm()) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("kind", [LearnedOptimiser, MetaLstm])
def test_one_rule_fits_networks_of_any_shape(kind: type) -> None:
    small, large = Net((3, 4, 2)), Net((6, 20, 20, 5))
    sizes = {
        kind(net, "classification").extra(torch.zeros(net.n_params)).numel()
        for net in (small, large)
    }
    assert len(sizes) == 1
    with pytest.raises(UsageError, match="units is 0; expected at least 1"):
        kind(small, "classification", units=0)


@pytest.mark.slow
def test_on_held_out_tasks_a_learned_optimiser_is_below_tuned_adam_and_sgd() -> None:
    family = FAMILIES["quadratics"]
    tests = family.draw(np.random.default_rng([100, TEST]), 100)
    ours = learned("learned_optimiser", "quadratics", 100, 0.12, tests)[-1]
    for how in ("adam", "sgd"):
        rate, _ = tuned(how, "quadratics", 100)
        assert GRID[0] < rate < GRID[-1], "the best rate lies within the grid"
        difference = (ours - path(how, "quadratics", tests, rate)[-1]).double()
        upper = float(difference.mean() + 1.96 * difference.std() / len(difference) ** 0.5)
        assert upper < 0.0


def test_a_run_tells_the_losses_on_the_way_and_the_rate() -> None:
    done = [finish(run_job(job(model)), SUITE, "") for model in ("sgd", "adam")]
    book = Book([kept.record for kept in done], compare(done))
    (table,) = SUITE.summarise(book) if SUITE.summarise else []
    assert [row[0].partition(" ")[0] for row in table.rows] == ["sgd", "adam"]
    for kept in done:
        record = kept.record
        assert record.note.startswith("rate ")
        assert record.score == pytest.approx(np.mean(kept.losses), abs=1e-5)
        assert record.value("loss@20") < record.value("loss@5") < record.value("loss@0")
    assert done[0].record.value("loss@0") == done[1].record.value("loss@0"), "the same tasks"
    assert SUITE.gates is not None
    assert SUITE.gates(book) == [], "no learned rule ran"


def test_a_gate_holds_only_where_the_whole_interval_is_below() -> None:
    done = [finish(run_job(job("sgd")), SUITE, "") for _ in range(3)]
    for kept, name in zip(done, ("sgd", "adam", "learned_optimiser"), strict=True):
        object.__setattr__(kept.record, "model", name)
    ends = done[2].record.extra["ends"]
    assert SUITE.gates is not None
    for shift, expected in ((-1e-3, True), (1e-3, False)):
        done[2].record.extra["ends"] = [loss + shift for loss in ends]
        gates = SUITE.gates(Book([kept.record for kept in done], []))
        assert [gate.ok for gate in gates] == [expected] * 2


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (job("maml"), "learns no update rule; expected meta_lstm, learned_optimiser"),
        (job("adamm"), "no learner is called 'adamm'"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(asked: Job, words: str) -> None:
    ((_, why),) = unfit([asked], cards([asked])).items()
    assert words in why
    with pytest.raises(UsageError, match="expected one of quadratics, clouds"):
        cards([job("sgd", "parabolas")])


def test_a_rule_takes_as_many_steps_as_the_suite_judges() -> None:
    assert learner_of("meta_lstm", "clouds").steps == STEPS
