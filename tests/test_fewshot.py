"""Few-shot protocols: tasks are drawn as the papers say, and a run says what it learned."""

from __future__ import annotations

import math

import numpy as np
import pytest
from learner_tasks import CLASSES_ONLY, RULES

from scenarios.bench import Book, Job, compare, finish, run_job
from scenarios.bench.jobs import cards, check, unfit
from scenarios.fewshot.sine import MAIN, STEPS, sines
from scenarios.suites.sine import SUITE
from streammeta.errors import UsageError
from streammeta.registry import components

TASKS = 24  # of a test run: 300 outer steps


def job(model: str, stream: str = "sine@10", seed: int = 0, rows: int = TASKS) -> Job:
    return Job(model, stream, seed, rows, protocol="sine")


def test_a_task_is_a_sine_and_its_rows_stay_apart() -> None:
    batch = sines(10, 15)(np.random.default_rng(0), 400)
    assert batch.support_x.shape == (400, 10, 1)
    assert batch.query_x.shape == (400, 15, 1)
    x, y = batch.query_x.double().numpy()[..., 0], batch.query_y.double().numpy()
    assert -5.0 <= x.min() < -4.9
    assert 4.9 < x.max() <= 5.0
    amplitudes, phases = [], []
    for task in range(400):
        basis = np.stack([np.sin(x[task]), np.cos(x[task])], 1)
        (a, b), *_ = np.linalg.lstsq(basis, y[task], rcond=None)
        np.testing.assert_allclose(basis @ (a, b), y[task], atol=1e-4)
        amplitudes.append(math.hypot(a, b))
        phases.append(math.atan2(-b, a))
        support = batch.support_x[task, :, 0].double().numpy()
        wave = a * np.sin(support) + b * np.cos(support)
        np.testing.assert_allclose(wave, batch.support_y[task].double().numpy(), atol=1e-3)
    assert min(amplitudes) >= 0.1 - 1e-3
    assert max(amplitudes) <= 5.0 + 1e-3
    assert 2.3 < np.mean(amplitudes) < 2.8
    assert min(phases) >= -1e-2
    assert max(phases) <= math.pi + 1e-2
    assert 1.4 < np.mean(phases) < 1.75


def test_a_run_is_told_by_steps_and_the_same_seed_gives_the_same_bits() -> None:
    one, two, other = (run_job(job("meta_sgd@1", seed=seed)) for seed in (0, 0, 1))
    assert next(iter(one.result.metric)) == MAIN
    assert set(one.result.metric) == {f"mse@{steps}" for steps in STEPS}
    assert one.result.losses == two.result.losses != other.result.losses
    assert one.result.metric == two.result.metric
    assert one.result.metric[MAIN] == pytest.approx(np.mean(one.result.losses))
    assert one.result.metric[MAIN] < one.result.metric["mse@0"], "it did not learn to adapt"


def test_every_learner_does_the_protocol_on_the_same_tasks() -> None:
    suite_has = {model.partition("@")[0] for model in SUITE.models}
    elsewhere = {
        "matching",
        "matching_context",
        "cavia_film",
        *CLASSES_ONLY,
        *RULES,
    }  # in suites of their own
    assert suite_has == set(components("learners")) - elsewhere
    done = [finish(run_job(job(model, rows=2)), SUITE, "") for model in SUITE.models]
    book = Book([kept.record for kept in done], compare(done))
    (table,) = SUITE.summarise(book) if SUITE.summarise else []
    assert [row[0] for row in table.rows] == list(SUITE.models)
    assert table.rows[0][table.head.index("published")] == "0.77"
    assert SUITE.gates is not None
    told = [gate.text for gate in SUITE.gates(book)]
    assert any(text.startswith("meta_sgd@1, 10-shot, 1 steps") for text in told)
    assert not any("5-shot" in text for text in told if "10" not in text), "it did not run"


def test_an_error_that_is_no_number_passes_for_no_convergence() -> None:
    done = [finish(run_job(job(model, rows=2)), SUITE, "") for model in ("maml@1", "r2d2@1")]
    records = [kept.record for kept in done]
    assert SUITE.gates is not None

    def calm(book: Book) -> bool:
        assert SUITE.gates is not None
        (gate,) = (gate for gate in SUITE.gates(book) if "diverges" in gate.text)
        return gate.ok

    for record in records:
        record.metric.update({"mse@1": 1.0, "mse@10": 0.5})
    assert calm(Book(records, []))
    for record in records:
        record.metric["mse@10"] = float("nan")
        assert not calm(Book(records, []))
        record.metric["mse@10"] = 0.5


def test_nothing_is_solved_for_in_no_steps() -> None:
    found = run_job(job("r2d2@1", rows=24)).result.metric
    assert found["mse@0"] > 2.0 * found["mse@1"]
    assert found["mse@1"] == found["mse@10"]


def test_intervals_are_judged_by_what_they_cover() -> None:
    done = [finish(run_job(job(model, rows=4)), SUITE, "") for model in ("alpaca@1", "maml@1")]
    ours, other = (kept.record for kept in done)
    assert 0.5 < ours.metric["coverage"] <= 1.0
    assert "coverage" not in other.metric
    assert SUITE.gates is not None
    for share, ok in ((0.86, False), (0.88, True), (0.94, False)):
        ours.metric["coverage"] = share
        told = [gate for gate in SUITE.gates(Book([ours, other], [])) if "cover" in gate.text]
        assert [gate.ok for gate in told] == [ok]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("pcoc@1", "for values there is alpaca"),
        ("maml", "expected a meta-learner as NAME@STEPS, 1 to 10 steps, such as maml@1"),
        ("maml@0", "as NAME@STEPS"),
        ("maml@11", "as NAME@STEPS"),
        ("mamml@1", "did you mean"),
    ],
)
def test_a_model_that_cannot_do_it_is_refused_before_any_work(model: str, words: str) -> None:
    asked = [job(model)]
    ((_, why),) = unfit(asked, cards(asked)).items()
    assert words in why
    with pytest.raises(UsageError, match="on stream 'sine@10'"):
        check(asked)


def test_a_stream_that_is_no_number_of_shots_is_refused() -> None:
    with pytest.raises(UsageError, match="expected sine@SHOTS, such as sine@10"):
        check([job("maml@1", "sine@many")])
