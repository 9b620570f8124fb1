"""What a drift costs, counted from losses; models that were meta-trained before the stream."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from learner_tasks import RULES

from scenarios import pretrained
from scenarios.bench import Book, Job, compare, finish, jobs, run_job
from scenarios.bench.jobs import Outcome, cards, unfit
from scenarios.prequential import Result
from scenarios.pretrained import HISTORY_SHARE, PRETRAINED, RECIPES
from scenarios.scenario import Card, scenario
from scenarios.suites.recovery import (
    EARLY,
    HORIZON,
    LATE,
    OPEN,
    RELATED,
    SUITE,
    costs,
    extra,
    leaves_out,
    recovered,
    segments,
)
from streammeta.meta.learner import tasks_of
from streammeta.meta.training import Plan
from streammeta.registry import components, load
from streammeta.scores import scores_for


def outcome(losses: np.ndarray, drifts: list[int], model: str = "streammeta") -> Outcome:
    """A run with these losses on a stream with these drifts."""
    card = Card("made", "regression", len(losses), tuple((d, d) for d in drifts), "", "", "", 0)
    result = Result(model, 0, 1, "regression", scores_for("regression"))
    result.rows, result.losses = array("q", range(len(losses))), array("d", losses.tolist())
    result.keys = array("l", [0] * len(losses))
    return Outcome(Job(model, "made", 0), card, result)


def losses_of(height: float, rows: int, floor: float = 1.0, drifts: int = 8) -> np.ndarray:
    """``drifts`` segments of 300 rows: ``rows`` rows of ``height`` above ``floor``, then none."""
    one = np.full(300, floor)
    one[:rows] += height
    return np.concatenate([np.full(300, floor), *([one] * drifts)])


def book(*runs: Outcome) -> Book:
    done = [finish(run, SUITE, "") for run in runs]
    return Book([kept.record for kept in done], compare(done))


def test_segments_are_cut_at_the_drifts_and_short_ones_are_left_out() -> None:
    losses = np.arange(700.0)
    found = segments(outcome(losses, [100, 120, 400]))
    assert [part.start for part in found] == [120, 400]  # 20 rows are too few to judge
    assert [len(part.after) for part in found] == [HORIZON, HORIZON]
    assert found[0].after[0] == 120.0
    assert found[0].settled == np.mean(losses[330:400])  # the last quarter of 280 rows
    assert extra(outcome(losses, [])) == {}


def test_area_is_counted_from_where_the_best_of_all_models_settles() -> None:
    drifts = list(range(300, 2_700, 300))
    quick = outcome(losses_of(2.0, 10), drifts)
    slow = outcome(losses_of(2.0, 30), drifts, "random_challengers")
    poor = outcome(losses_of(0.0, 0, floor=1.5), drifts, "reset")  # its own level hides the cost
    found = costs(book(quick, slow, poor), "made", LATE)
    assert found["streammeta"][0].area == pytest.approx(20.0)
    assert found["random_challengers"][0].area == pytest.approx(60.0)
    assert found["reset"][0].area == pytest.approx(0.5 * HORIZON)
    assert found["streammeta"][0].rows < found["random_challengers"][0].rows
    assert found["reset"][0].rows == HORIZON, "it never comes down"


def test_the_first_drifts_and_the_last_ones_stand_apart() -> None:
    losses = losses_of(2.0, 10)
    losses[300:330] += 5.0
    told = extra(outcome(losses, list(range(300, 2_700, 300))))
    assert told[EARLY]["drifts"] == 2
    assert told[LATE]["drifts"] == 4
    assert told[EARLY]["total"] == pytest.approx(HORIZON + 20.0 + 75.0)
    assert told[LATE]["total"] == pytest.approx(HORIZON + 20.0)
    assert len(told[LATE]["curve"]) == HORIZON


def test_a_lucky_row_is_no_recovery() -> None:
    curve = np.ones(100)
    curve[20] = 0.0
    curve[60:] = 0.05
    assert recovered(curve.tolist(), 0.1) == 60.0
    assert recovered([1.0] * 50, 0.1) == 50.0


def test_gates_are_about_related_tasks_and_say_what_was_measured() -> None:
    drifts = list(range(300, 2_700, 300))
    runs = [
        outcome(losses_of(2.0, rows), drifts, model)
        for model, rows in (("streammeta", 10), ("random_challengers", 19), ("reset", 40))
    ]
    for run in runs:
        run.job = Job(run.job.model, RELATED[0], 0)
    assert SUITE.gates is not None
    told = [(gate.text, gate.ok) for gate in SUITE.gates(book(*runs))]
    assert told == [
        ("sine_switch: random_challengers / ours = 1.90 in area, at least 2", False),
        ("sine_switch: reset / ours = 4.00 in area, at least 3", True),
    ]
    missing = SUITE.gates(book(runs[0], runs[2]))
    assert [gate.ok for gate in missing] == [False, True], "what did not run does not hold"


def test_every_learner_and_every_recipe_has_its_row() -> None:
    named = {model.partition("@")[2] for model in SUITE.models if model.startswith("learner@")}
    elsewhere = {
        "fine_tuning",
        "cavia_film",
        "prototypical",
        "matching",
        "matching_context",
        *RULES,
    }  # in few-shot
    assert named == set(components("learners")) - elsewhere
    assert set(RECIPES) <= set(SUITE.models)
    assert leaves_out(OPEN[0], "learner@maml")
    assert not leaves_out(OPEN[0], "offline_online")
    for stream in RELATED:
        task = scenario(stream, rows=1000).card.task
        for model in SUITE.models:
            fits = task in tasks_of(load("learners", model.partition("@")[2] or "maml"))
            assert leaves_out(stream, model) is not fits


# -- models that were trained before -------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "PLAN", Plan(iterations=30, tasks=4, every=10))
    pretrained._initial.cache_clear()


def job(model: str, stream: str = "sine_switch", rows: int = 900) -> Job:
    return Job(model, stream, 0, rows, protocol="pretrained")


@pytest.mark.usefixtures("short")
def test_recipes_start_from_what_another_stream_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = jobs.build

    def spy(name: str, **given: Any) -> Any:
        made.append(real(name, **given))
        return made[-1]

    monkeypatch.setattr(jobs, "build", spy)
    runs = {model: run_job(job(model)) for model in ("learner@meta_sgd", *RECIPES)}
    losses = {model: run.result.losses.tolist() for model, run in runs.items()}
    assert len({tuple(values) for values in losses.values()}) == 4, "each is a model of its own"
    engines = dict(zip(runs, made, strict=True))
    assert {name for name, engine in engines.items() if engine.config.init} == set(RECIPES)
    assert {name for name, engine in engines.items() if engine.meta.updates} == {
        "learner@meta_sgd",
        "offline_online",
    }
    assert engines["fine_tuned"].config.learner == "fine_tuning"
    assert runs["offline"].job.model == "offline"
    assert [run.result.model for run in runs.values()] == list(runs)


@pytest.mark.usefixtures("short")
def test_of_recorded_data_the_history_is_the_first_part_and_nobody_is_scored_on_it() -> None:
    name, rows = "river:ImageSegments", 2_300
    first = rows // HISTORY_SHARE
    for model in ("offline", "no_change"):
        run = run_job(job(model, name, rows))
        assert min(run.result.rows) == first
        assert len(run.result.rows) == rows - first
    assert PRETRAINED.card(job("streammeta", name, rows)).score_from == first
    assert PRETRAINED.card(job("streammeta")).score_from == 0


def test_what_does_not_exist_is_refused_before_any_work() -> None:
    asked = [job("offlin"), job("learner@mamml"), job("learner"), job("offline")]
    why = {model: words for (model, _), words in unfit(asked, cards(asked)).items()}
    assert set(why) == {"offlin", "learner@mamml", "learner"}
    assert "did you mean" in why["learner@mamml"]
    assert "expected a meta-learner, such as learner@maml" in why["learner"]
