"""The bench runs models x streams x seeds and says how to get each number again."""

from __future__ import annotations

from array import array

import pytest

from scenarios.bench import Job, Outcome, Suite, check, leaderboard, run_job, run_jobs
from scenarios.concept_mix import ConceptMix
from scenarios.prequential import Result
from scenarios.sine_switch import SineSwitch
from scenarios.suites import ablation, quickstart, sine_switch
from streammeta.errors import UsageError
from streammeta.events import Scored
from streammeta.registry import components
from streammeta.scores import ClassificationScores, RegressionScores

TINY = Suite(
    name="tiny",
    summary="for tests",
    minutes=0.1,
    streams=("concept_mix",),
    models=("no_change", "majority"),
    seeds=(0, 1),
    quick_rows=50,
)


def test_a_suite_is_models_times_streams_times_seeds() -> None:
    jobs = TINY.jobs()
    assert len(jobs) == 4
    assert {job.rows for job in jobs} == {None}
    quick = TINY.jobs(models=["river.nb"], seeds=3, quick=True)
    assert quick == [Job("river.nb", "concept_mix", 0, 50)]


def test_every_suite_of_the_registry_is_complete() -> None:
    for name, row in components("suites").items():
        suite = row.load()
        assert suite.name == name
        assert suite.summary == row.summary
        assert suite.minutes > 0
        check([Job(model, "concept_mix", 0) for model in suite.models])


def test_two_processes_give_the_same_numbers_as_one() -> None:
    jobs = TINY.jobs(quick=True)
    alone = {o.job: list(o.result.losses) for o in run_jobs(jobs, 1)}
    spread = {o.job: list(o.result.losses) for o in run_jobs(jobs, 2)}
    assert alone == spread


def test_a_json_line_says_how_to_get_the_number_again() -> None:
    line = run_job(Job("no_change", "concept_mix", 0, 60)).to_json("tiny", "streammeta bench tiny")
    assert line["command"] == "streammeta bench tiny"
    assert {"suite", "stream", "model", "seed", "commit", "versions"} <= set(line)
    assert "river" in line["versions"]
    assert line["drift_report"] is None  # no drift within 60 rows


def test_frozen_at_the_drift_means_the_first_true_drift_of_that_seed() -> None:
    outcome = run_job(Job("frozen@drift", "sine_switch", 0, 260))
    assert outcome.card.drifts[0] == (200, 200)
    assert outcome.result.model == "frozen@drift"
    losses = outcome.result.losses
    assert losses == run_job(Job("frozen@200", "sine_switch", 0, 260)).result.losses
    learning = run_job(Job("streammeta", "sine_switch", 0, 260)).result.losses
    assert losses[:201] == learning[:201], "until the drift it learns like the default"
    assert losses[201:] != learning[201:], "and from there on it does not"


def test_labels_that_come_late_in_the_job_come_late_to_the_model() -> None:
    at_once = run_job(Job("no_change", "sine_switch", 0, 40)).result
    late = run_job(Job("no_change", "sine_switch", 0, 40, label_delay=5)).result
    truths = [y for _, y in SineSwitch(rows=40)]
    assert at_once.predictions == late.predictions == []
    for result, delay in ((at_once, 0), (late, 5)):
        expected = [abs(y - (truths[i - delay - 1] if i > delay else 0.0)) for i, y in
                    enumerate(truths)]  # fmt: skip
        assert list(result.losses) == pytest.approx(expected)


def test_alarms_are_judged_against_the_true_drifts() -> None:
    card = ConceptMix().card
    result = Result("m", 0, 1, "classification", ClassificationScores())
    result.drifts = [4_010, 6_000, 8_500]
    report = Outcome(Job("m", "concept_mix", 0), card, result).drift_report()
    assert report is not None
    assert (report["found"], report["missed"], report["false_alarms"]) == (2, 2, 1)


def made_up(model: str, seed: int, losses: list[float], stream: str = "sine_switch") -> Outcome:
    """An outcome with these losses, on the sine stream."""
    card = SineSwitch(rows=len(losses)).card
    scores = RegressionScores()
    for row, loss in enumerate(losses):
        scores.update(Scored(str(row), "", row, 0.0, loss, loss, loss * loss, 0))
    result = Result(model, seed, 1, "regression", scores, seconds=1.0, events=len(losses))
    result.rows, result.losses = array("q", range(len(losses))), array("d", losses)
    return Outcome(Job(model, stream, seed), card, result)


def test_the_sine_suite_counts_events_6_to_50_after_a_switch_and_no_others() -> None:
    losses = [9.0] * 600
    for switch in (200, 400):
        losses[switch + 5 : switch + 50] = [2.0] * 45
    assert sine_switch.errors_after_switches(made_up("m", 0, losses)) == [4.0, 4.0]


def test_the_sine_suite_prints_both_ratios() -> None:
    outcomes = [
        made_up("streammeta", 0, [1.0] * 2_000),
        made_up("random_challengers", 0, [2.0] * 2_000),
        made_up("sgd@0.01", 0, [3.0] * 2_000),
        made_up("sgd@0.1", 0, [2.5] * 2_000),
    ]
    (summary,) = sine_switch.summarise(outcomes)
    assert "best SGD (sgd@0.1) / ours = 6.25" in summary.note
    assert "random challengers / ours = 4.00" in summary.note
    assert [row[0] for row in summary.rows][:2] == ["streammeta", "random_challengers"]


def sine_losses(early: float, late: float) -> list[float]:
    return [early] * 1_000 + [late] * 1_000


def test_the_gates_of_the_sine_suite_hold_both_ratios_and_the_fall_to_their_bounds() -> None:
    ours = made_up("streammeta", 0, sine_losses(2.0, 1.0))
    others = {"random_challengers": 1.5, "sgd@0.01": 2.0}
    made = [ours, *(made_up(m, 0, [loss] * 2_000) for m, loss in others.items())]
    gates = sine_switch.gates(made)
    assert [gate.ok for gate in gates] == [True, True, True]
    assert gates[0].text == "best SGD (sgd@0.01) / ours = 4.00, at least 3"
    worse = [made_up("streammeta", 0, sine_losses(1.0, 1.4)), *made[1:]]
    assert [gate.ok for gate in sine_switch.gates(worse)] == [False, False, False]


def test_a_gate_whose_models_did_not_run_does_not_hold() -> None:
    alone = [made_up("no_challengers", 0, [1.0] * 2_000)]
    assert not any(gate.ok for gate in sine_switch.gates(alone))
    assert not any(gate.ok for gate in quickstart.gates(alone))


def test_the_gate_of_elec2_is_its_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation, "_missing", lambda stream: "")
    for errors, ok in ((9, True), (11, False)):
        (gate,) = ablation.gates([judged("streammeta", "open:elec2", errors)])
        assert gate.ok is ok
        assert f"accuracy {1 - errors / 100:.4f}" in gate.text


def judged(model: str, stream: str, errors: int, seed: int = 0) -> Outcome:
    """An outcome with so many errors in 100 rows."""
    scores = ClassificationScores()
    for row in range(100):
        wrong = row < errors
        scores.update(Scored(str(row), "", row, "a", "b" if wrong else "a", float(wrong), 0.1, 0))
    result = Result(model, seed, 1, "classification", scores)
    return Outcome(Job(model, stream, seed), ConceptMix().card, result)


def test_the_quickstart_runs_the_model_of_its_example_and_must_win_on_average() -> None:
    assert {job.overrides for job in quickstart.SUITE.jobs()} == {(("learner", "maml"),)}
    ours = [judged("streammeta", "sensor_fault", n, seed) for seed, n in enumerate((5, 7))]
    others = [judged(m, "sensor_fault", 8) for m in quickstart.OTHERS]
    assert [gate.ok for gate in quickstart.gates([*ours, *others])] == [True] * 4
    others[1] = judged("reset", "sensor_fault", 6)  # a tie is no win
    assert [gate.ok for gate in quickstart.gates([*ours, *others])] == [True, False, True, True]


def test_the_ablation_prints_the_gain_with_its_sign() -> None:
    outcomes = [
        made_up("streammeta", 0, [1.0] * 50),
        made_up("no_replay", 0, [1.5] * 50),
        made_up("reset", 0, [0.5] * 50),
    ]
    gains = {row[1]: row[3] for row in ablation.gains(outcomes)[-1].rows}
    assert gains == {"no_replay": "+0.5000", "reset": "-0.5000"}


def test_the_leaderboard_shows_mean_and_spread() -> None:
    outcomes = [made_up("m", seed, [1.0 + seed] * 50) for seed in (0, 1)]
    (summary,) = leaderboard(outcomes)
    assert summary.rows[0][:2] == ["m", "1.5000 ± 0.7071"]
    assert "seeds 0, 1" in summary.title


def test_streams_without_a_file_are_left_out_and_nothing_left_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STREAMMETA_DATA", raising=False)
    streams = {job.stream for job in ablation.SUITE.jobs()}
    assert streams == {"sine_switch"}
    assert ablation.gates([]) == [], "no file, no claim about it"
    with pytest.raises(UsageError, match="nothing to run"):
        check([])
