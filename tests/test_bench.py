"""The bench runs models x streams x seeds and says how to get each number again."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scenarios import peers
from scenarios.bench import (
    Book,
    Done,
    Job,
    Journal,
    Outcome,
    Suite,
    Summary,
    check,
    compare,
    drift_report,
    finish,
    found_drifts,
    interval_of,
    leaderboard,
    new_counter,
    read_book,
    run_job,
    run_jobs,
    standard,
)
from scenarios.bench.jobs import cards, unfit
from scenarios.bench.results import page
from scenarios.concept_mix import ConceptMix
from scenarios.models import SGD_RATES
from scenarios.prequential import Latency, Result
from scenarios.scenario import scenario
from scenarios.sine_switch import SineSwitch
from scenarios.suites import ablation, open_streams, quickstart, sine_switch
from streammeta.cli.bench import GAP
from streammeta.config import EXPERTS, ModelConfig
from streammeta.errors import SourceError, UsageError
from streammeta.events import Scored
from streammeta.meta.learner import tasks_of
from streammeta.registry import components, load
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
        called = [m for m in suite.models if m.startswith(peers.PREFIX)]
        assert {m.removeprefix(peers.PREFIX) for m in called} <= set(peers.NAMES)
        here = [m for m in suite.models if m not in called]  # peers may not be installed
        jobs = suite.jobs(models=here, quick=True)  # nor the files of the open streams be there
        jobs = jobs or [Job(model, "concept_mix", 0) for model in here]
        misfits = unfit(jobs, cards(jobs))
        for model in here:  # one stream may be nothing for a model, most must be something
            assert 2 * sum(m == model for m, _ in misfits) < len({job.stream for job in jobs})
        told = (suite.about + suite.summary).replace("`", "")
        assert all(f"{name} = {value}" in told for name, value in suite.overrides)


def test_two_processes_give_the_same_numbers_as_one() -> None:
    jobs = TINY.jobs(quick=True)
    alone = {o.job: list(o.result.losses) for o in run_jobs(jobs, 1)}
    spread = {o.job: list(o.result.losses) for o in run_jobs(jobs, 2)}
    assert alone == spread


def test_a_json_line_says_how_to_get_the_number_again(tmp_path: Path) -> None:
    book = Book([ran(Job("no_change", "concept_mix", 0, 60)).record])
    line = json.loads(next(iter(book.lines())))
    assert (line["kind"], line["suite"], line["command"]) == (
        "run",
        "tiny",
        "streammeta bench tiny",
    )
    assert {"stream", "model", "seed", "asked", "interval"} <= set(line)
    assert {"commit", "versions", "machine"} == set(line["provenance"])
    assert "river" in line["provenance"]["versions"]
    assert line["drift_report"] is None  # no drift within 60 rows


def ran(job: Job) -> Done:
    return finish(run_job(job), TINY, "streammeta bench tiny")


def test_a_book_comes_back_from_its_file_and_a_broken_line_is_named(tmp_path: Path) -> None:
    done = [ran(Job(m, "concept_mix", s, 300)) for m in ("majority", "no_change") for s in (0, 1)]
    book = Book([d.record for d in done], compare(done, against="majority"))
    file = tmp_path / "tiny.jsonl"
    file.write_text("\n".join(book.lines()) + "\n")
    assert read_book(file) == book
    assert [pair.seeds for pair in book.pairs] == [[0, 1]]
    for line in ('{"kind": "run"}', '{"kind": "walk"}', "{}", "[]", "7", "{"):
        file.write_text(f"{line}\n")
        with pytest.raises(SourceError, match=r"tiny\.jsonl line 1: no record of a bench"):
            read_book(file)


def test_a_book_of_an_earlier_version_says_how_to_write_it_again(tmp_path: Path) -> None:
    line = {"suite": "tiny", "stream": "s", "model": "m", "seed": 0, "rows": 9, "metric": {}}
    file = tmp_path / "tiny.jsonl"
    file.write_text(f"{json.dumps(line)}\n")
    with pytest.raises(SourceError, match="written by an earlier version") as told:
        read_book(file)
    assert f"streammeta bench tiny --json {file} again" in str(told.value)


def test_a_record_keeps_the_settings_that_its_job_asked_for(tmp_path: Path) -> None:
    settings = (("learner", "maml"), ("rates", (0.1, 0.01)))
    outcome = judged("streammeta", "sensor_fault", 5)
    outcome.job = replace(outcome.job, overrides=settings)
    made = book([outcome])
    assert made.runs[0].asked["overrides"] == {"learner": "maml", "rates": [0.1, 0.01]}
    file = tmp_path / "tiny.jsonl"
    file.write_text("\n".join(made.lines()) + "\n")
    assert read_book(file) == made


def test_a_bench_that_was_cut_off_goes_on_and_another_plan_does_not(tmp_path: Path) -> None:
    jobs = TINY.jobs(quick=True)
    journal = Journal(TINY, jobs, tmp_path)
    first = ran(jobs[0])
    journal.write(0, first)
    (journal.folder / "00001.part").write_bytes(b"cut off while it was written")
    found = Journal(TINY, jobs, tmp_path).read(jobs)
    assert list(found) == [jobs[0]]
    assert found[jobs[0]].record == first.record
    assert np.array_equal(found[jobs[0]].losses, first.losses)
    assert Journal(TINY, [replace(job, rows=51) for job in jobs], tmp_path).read(jobs) == {}
    journal.clear()
    assert Journal(TINY, jobs, tmp_path).read(jobs) == {}


def test_the_best_rate_in_hindsight_is_the_best_of_all_rates() -> None:
    best = run_job(Job("sgd@best", "sine_switch", 0, 300)).result
    rates = [run_job(Job(f"sgd@{rate:g}", "sine_switch", 0, 300)).result for rate in (1e-2, 0.1)]
    assert best.model == "sgd@best"
    assert best.metric["mae"] <= min(r.metric["mae"] for r in rates)
    rate = best.note.removeprefix("rate ")
    again = run_job(Job(f"sgd@{rate}", "sine_switch", 0, 300)).result
    assert again.losses == best.losses


def test_a_capped_model_sees_the_beginning_of_the_very_same_stream() -> None:
    whole = run_job(Job("no_change", "sine_switch", 0, 500)).result.losses
    short = run_job(Job("no_change", "sine_switch", 0, 500, cap=120)).result.losses
    assert list(short) == list(whole[:120])
    suite = replace(TINY, caps=(("maj", 20),))
    assert [(j.model, j.seed, j.cap) for j in suite.jobs()] == [
        ("no_change", 0, None), ("majority", 0, 20), ("no_change", 1, None)]  # fmt: skip


@pytest.mark.parametrize("processes", [1, 2])
def test_rows_are_counted_while_jobs_run_and_to_the_last_when_they_end(processes: int) -> None:
    counter = new_counter()
    jobs = [Job("no_change", "concept_mix", 0, 2_000), Job("sgd@best", "sine_switch", 0, 70, 64)]
    read = [counter.value for _ in run_jobs(jobs, processes, counter)]
    assert read[-1] == counter.value == 2_000 + len(SGD_RATES) * 70
    assert 0 < read[0] <= read[-1]


def test_warm_up_rows_are_learned_and_not_scored() -> None:
    from scenarios.models import build
    from scenarios.prequential import prequential

    rows = ConceptMix(rows=400)
    whole = prequential(build("river.nb", task="classification"), rows.events())
    late = prequential(build("river.nb", task="classification"), rows.events(), score_from=150)
    assert late.losses == whole.losses[150:]
    assert list(late.rows) == list(range(150, 400))
    assert late.scores.n == 250
    assert late.metric["accuracy"] == 1.0 - sum(late.losses) / 250


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
    asked(result, card.rows)
    report = drift_report(Outcome(Job("m", "concept_mix", 0), card, result))
    assert report is not None
    assert (report["found"], report["missed"], report["false_alarms"]) == (2, 2, 1)


def asked(result: Result, n: int) -> None:
    """So many questions, all of one key."""
    result.key_names = [""]
    result.keys, result.key_rows = array("l", [0] * n), array("l", range(n))


def made_up(model: str, seed: int, losses: list[float], stream: str = "sine_switch") -> Outcome:
    """An outcome with these losses, on the sine stream."""
    card = SineSwitch(rows=len(losses)).card
    scores = RegressionScores()
    for row, loss in enumerate(losses):
        scores.update(Scored(str(row), "", row, 0.0, loss, loss, loss * loss, 0))
    result = Result(model, seed, 1, "regression", scores, seconds=1.0, events=len(losses))
    result.rows, result.losses = array("q", range(len(losses))), array("d", losses)
    asked(result, len(losses))
    return Outcome(Job(model, stream, seed), card, result)


def book(outcomes: Sequence[Outcome], suite: Suite = TINY) -> Book:
    done = [finish(outcome, suite, "made up") for outcome in outcomes]
    return Book([d.record for d in done], compare(done))


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
    (summary,) = sine_switch.summarise(book(outcomes, sine_switch.SUITE))
    assert "best SGD (sgd@0.1) / ours = 6.25" in summary.note
    assert "random challengers / ours = 4.00" in summary.note
    assert [row[0] for row in summary.rows][:2] == ["streammeta", "random_challengers"]


def sine_losses(early: float, late: float) -> list[float]:
    return [early] * 1_000 + [late] * 1_000


def test_the_gates_of_the_sine_suite_hold_both_ratios_and_the_fall_to_their_bounds() -> None:
    ours = made_up("streammeta", 0, sine_losses(2.0, 1.0))
    others = {"random_challengers": 1.5, "sgd@0.01": 2.0}
    made = [ours, *(made_up(m, 0, [loss] * 2_000) for m, loss in others.items())]
    gates = sine_switch.gates(book(made, sine_switch.SUITE))
    assert [gate.ok for gate in gates] == [True, True, True]
    assert gates[0].text == "best SGD (sgd@0.01) / ours = 4.00, at least 3"
    worse = [made_up("streammeta", 0, sine_losses(1.0, 1.4)), *made[1:]]
    assert [gate.ok for gate in sine_switch.gates(book(worse, sine_switch.SUITE))] == [
        False,
        False,
        False,
    ]


def test_a_gate_whose_models_did_not_run_does_not_hold() -> None:
    alone = [made_up("no_challengers", 0, [1.0] * 2_000)]
    assert not any(gate.ok for gate in sine_switch.gates(book(alone, sine_switch.SUITE)))
    assert not any(gate.ok for gate in quickstart.gates(book(alone)))


def test_the_gate_of_elec2_is_its_accuracy() -> None:
    for errors, ok in ((9, True), (11, False)):
        (gate,) = ablation.gates(book([judged("streammeta", "open:elec2", errors)]))
        assert gate.ok is ok
        assert f"accuracy {1 - errors / 100:.4f}" in gate.text


def judged(model: str, stream: str, errors: int, seed: int = 0) -> Outcome:
    """An outcome with so many errors in 100 rows."""
    scores = ClassificationScores()
    for row in range(100):
        wrong = row < errors
        scores.update(Scored(str(row), "", row, "a", "b" if wrong else "a", float(wrong), 0.1, 0))
    result = Result(model, seed, 1, "classification", scores)
    result.rows = array("q", range(100))
    result.losses = array("d", [float(row < errors) for row in range(100)])
    asked(result, 100)
    return Outcome(Job(model, stream, seed), ConceptMix().card, result)


def test_the_quickstart_runs_the_model_of_its_example_and_must_win_on_average() -> None:
    assert {job.overrides for job in quickstart.SUITE.jobs()} == {(("learner", "maml"),)}
    ours = [judged("streammeta", "sensor_fault", n, seed) for seed, n in enumerate((5, 7))]
    others = [judged(m, "sensor_fault", 8) for m in quickstart.OTHERS]
    assert [gate.ok for gate in quickstart.gates(book([*ours, *others]))] == [True] * 4
    others[1] = judged("reset", "sensor_fault", 6)  # a tie is no win
    assert [gate.ok for gate in quickstart.gates(book([*ours, *others]))] == [
        True,
        False,
        True,
        True,
    ]


def test_the_ablation_prints_the_gain_with_its_sign() -> None:
    outcomes = [
        made_up("streammeta", 0, [1.0] * 50),
        made_up("no_replay", 0, [1.5] * 50),
        made_up("reset", 0, [0.5] * 50),
    ]
    gains = {row[1]: row[3] for row in ablation.gains(book(outcomes))[-1].rows}
    assert gains == {"no_replay": "+0.5000", "reset": "-0.5000"}


def test_the_ablation_has_every_learner_where_it_fits_and_families_that_are_not_in_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STREAMMETA_DATA", str(tmp_path))
    assert set(ablation.LEARNERS) == set(components("learners"))
    assert set(ablation.MORE) == set(components("families")) - set(EXPERTS)
    assert not any(name in ModelConfig().experts for name in ablation.MORE)
    generated = [name for name in ablation.SUITE.streams if not name.startswith("open:")]
    for stream in generated:
        task = scenario(stream, rows=1000).card.task
        assert (task == "regression") is (stream in ablation.VALUES)
        shown = {job.model for job in ablation.SUITE.jobs() if job.stream == stream}
        fit = {f"learner@{name}" for name in ablation.LEARNERS
               if task in tasks_of(load("learners", name))}  # fmt: skip
        assert {model for model in shown if model.startswith("learner@")} == fit
        assert {f"with@{name}" for name in ablation.MORE} <= shown


def test_the_leaderboard_shows_mean_and_interval_by_student_from_three_seeds_on() -> None:
    outcomes = [made_up("m", seed, [1.0 + seed] * 50) for seed in (0, 1, 2)]
    (summary,) = leaderboard(book(outcomes))
    assert summary.rows[0][:2] == ["m", "2.0000 ± 2.4841"]  # t(.975, 2) = 4.3027, s = 1, n = 3
    assert "seeds 0, 1, 2" in summary.title


def test_differences_are_taken_row_by_row_on_the_rows_that_both_have() -> None:
    ours = finish(made_up("streammeta", 0, [1.0, 5.0] * 30), TINY, "")
    theirs = finish(made_up("capped", 0, [3.0, 7.0] * 20), TINY, "")
    (pair,) = compare([ours, theirs])
    assert (pair.model, pair.against, pair.rows, pair.difference) == (
        "capped",
        "streammeta",
        40,
        2.0,
    )
    assert pair.verdict == "win"
    (same,) = compare([ours, finish(made_up("same", 0, [1.0, 5.0] * 30), TINY, "")])
    assert (same.difference, same.verdict) == (0.0, "draw")


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_a_difference_is_judged_by_the_rows_within_each_seed_however_many_there_are(
    seeds: int,
) -> None:
    """Seeds that differ in how much is gained do not blur that on these rows it is gained."""
    done = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, 6])
        noise = rng.normal(0.0, 0.2, 400)
        for model, gain in (("streammeta", 0.0), ("other", 0.2 * (1 + seed))):
            losses = (2.0 + gain + (noise if gain else 0.0) + np.zeros(400)).tolist()
            done.append(finish(made_up(model, seed, losses), TINY, ""))
    (pair,) = compare(done)
    assert pair.difference == pytest.approx(0.1 * (seeds + 1), abs=0.03)
    expected = 1.96 * 0.2 / np.sqrt(400 * seeds)  # of independent rows
    assert 0.6 * expected < (pair.high - pair.low) / 2 < 1.4 * expected
    assert (pair.low < pair.difference < pair.high, pair.verdict) == (True, "win")


def test_several_streams_give_a_glance_ranks_and_wins() -> None:
    outcomes = [
        made_up(model, 0, [loss] * 60, stream)
        for stream in ("one", "two", "three")
        for model, loss in (("streammeta", 1.0), ("worse", 2.0), ("better", 0.5))
    ]
    *_, glance, standings = standard(book(outcomes))
    assert glance.head == ["model", "one", "two", "three"]
    assert glance.rows[1] == ["worse", "2.0000", "2.0000", "2.0000"]
    assert [row[:2] for row in standings.rows] == [
        ["better", "1.00"], ["streammeta", "2.00"], ["worse", "3.00"]]  # fmt: skip
    assert standings.rows[0][2:] == ["0", "0", "3"]
    assert standings.rows[2][2:] == ["3", "0", "0"]


LOSSES = (("streammeta", 1.0), ("worse", 2.0), ("better", 0.5))


def test_who_misses_a_stream_has_no_rank_and_the_stream_stays_for_the_others() -> None:
    made = [
        made_up(model, 0, [loss] * 60, stream)
        for stream in ("one", "two", "three")
        for model, loss in (*LOSSES, ("fussy", 0.1))
        if (model, stream) != ("fussy", "two")
    ]
    capped = made_up("slow", 0, [0.1] * 60, "one")
    capped.job = replace(capped.job, cap=60)
    capped.card = replace(capped.card, rows=600)
    standings = standard(book([*made, capped]))[-1]
    assert [row[:2] for row in standings.rows] == [
        ["better", "1.00"], ["streammeta", "2.00"], ["worse", "3.00"], ["fussy", "-"], ["slow", "-"]
    ]  # fmt: skip
    assert "mean ranks over 3 streams" in standings.note
    assert standings.note.endswith("without a rank: slow (first 60 rows), fussy (not on two)")


def test_a_stream_that_only_one_model_had_costs_nobody_a_rank() -> None:
    made = [
        made_up(model, 0, [loss] * 60, stream)
        for stream in ("one", "two")
        for model, loss in LOSSES
    ]
    standings = standard(book([*made, made_up("worse", 0, [0.0] * 60, "own")]))[-1]
    assert "mean ranks over 2 of 3 streams" in standings.note
    assert [row[1] for row in standings.rows] == ["1.00", "2.00", "3.00"]


def test_streams_of_two_tasks_are_each_ranked_in_their_own_direction() -> None:
    """The default errs least on both: lower is better on one, higher on the other."""
    ours, theirs = ("streammeta", 1.0, 5), ("other", 2.0, 40)
    made = [
        outcome
        for model, loss, wrong in (ours, theirs)
        for outcome in (made_up(model, 0, [loss] * 100, "one"), judged(model, "two", wrong))
    ]
    *_, glance, standings = standard(book(made))
    assert [row[:2] for row in standings.rows] == [["streammeta", "1.00"], ["other", "2.00"]]
    assert glance.title == "main score: every model on every stream"
    assert glance.rows[0] == ["streammeta", "1.0000", "95.0"]
    assert glance.note.endswith("mae on one; accuracy, % on two")


def test_of_several_chunks_means_and_ranks_are_of_the_smallest() -> None:
    made = []
    for chunk, factor in ((4, 1.0), (16, -3.0)):  # another order, were the chunks averaged
        for stream in ("one", "two"):
            for model, loss in LOSSES:
                outcome = made_up(model, 0, [10.0 + factor * loss] * 60, stream)
                outcome.job = replace(outcome.job, chunk=chunk)
                outcome.result.chunk = chunk
                made.append(outcome)
    *_, glance, standings = standard(book(made))
    assert book(made).mean("worse", "one") == 12.0
    assert glance.rows[1] == ["worse", "12.0000", "12.0000"]
    assert [row[:2] for row in standings.rows] == [
        ["better", "1.00"], ["streammeta", "2.00"], ["worse", "3.00"]]  # fmt: skip
    assert standings.rows[0][2:] == ["0", "0", "2"]
    for table in (glance, standings):
        assert "chunk 4 only, of 4, 16" in table.note


def test_the_leaderboard_shows_latency_and_stays_within_120_columns() -> None:
    outcomes = []
    for seed in (0, 1):
        for model in ("streammeta", "capymoa.samknn"):
            outcome = judged(model, "open:elec2", 12 + seed, seed)
            outcome.card = replace(outcome.card, drifts=())
            outcome.result.latency = Latency(150.0 * (1 + seed), 9_000.0, 1e6)
            outcome.result.seconds, outcome.result.events = 0.01, 100
            outcomes.append(outcome)
    (table,) = leaderboard(book(outcomes))
    assert table.head[-1] == "p50/p99 us"
    assert [row[-1] for row in table.rows] == ["225/9,000"] * 2
    columns = zip(table.head, *table.rows, strict=True)
    assert sum(max(map(len, column)) + GAP for column in columns) <= 120


def test_results_are_written_from_books_alone(tmp_path: Path) -> None:
    made = book([judged("streammeta", "sensor_fault", 5), judged("reset", "sensor_fault", 8)])
    (tmp_path / "results").mkdir()
    file = tmp_path / "results" / "quickstart.jsonl"
    file.write_text("\n".join(made.lines()) + "\n")
    text = page(tmp_path / "results")
    assert "## quickstart: " in text
    assert "| streammeta | 0.9500" in text
    assert "- held: accuracy 0.9500, above reset's 0.9200" in text
    assert "**missed**: accuracy 0.9500, above no_change's nan" in text
    with pytest.raises(SourceError, match=r"no SUITE\.jsonl"):
        page(tmp_path)


def test_streams_without_a_file_are_left_out_and_nothing_left_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STREAMMETA_DATA", raising=False)
    streams = {job.stream for job in ablation.SUITE.jobs()}
    assert streams == {name for name in ablation.SUITE.streams if not name.startswith("open:")}
    assert ablation.gates(Book([])) == [], "no file, no claim about it"
    with pytest.raises(UsageError, match="nothing to run"):
        check([])


def test_more_seeds_of_recorded_rows_make_no_more_certainty() -> None:
    """The rows of a recorded stream are the same for every seed: they count once."""
    rng = np.random.default_rng(4)
    theirs, ours = rng.random(400).tolist(), rng.random(400).tolist()

    def made(seeds: int) -> Book:
        outcomes = [
            made_up(model, seed, losses)
            for seed in range(seeds)
            for model, losses in (("streammeta", ours), ("other", theirs))
        ]
        for outcome in outcomes:
            outcome.card = replace(outcome.card, fixed=True)
        return book(outcomes)

    one, six = made(1), made(6)
    assert one.pairs[0].low == six.pairs[0].low < one.pairs[0].high == six.pairs[0].high
    for interval in (interval_of(b.of(model="other")) for b in (one, six)):
        assert interval.low == pytest.approx(interval_of(one.of(model="other")).low)


def test_a_capped_run_is_not_asked_for_drifts_that_it_never_saw() -> None:
    report = drift_report(run_job(Job("no_drift", "concept_mix", 0, cap=5_000)))
    assert report is not None
    assert report["found"] + report["missed"] == 1  # of the four, one lies before row 5,000


def test_who_watches_and_finds_nothing_has_found_none_and_who_does_not_watch_a_dash() -> None:
    watching, blind = (
        run_job(Job(model, "sea", 0, 800)) for model in ("no_challengers", "no_change")
    )
    watching.result.drifts.clear()
    (table,) = leaderboard(book([watching, blind]))
    column = list(table.head).index("found")
    assert [row[column] for row in table.rows] == ["0 of 4", "-"]


def test_recovery_of_a_key_counts_that_keys_own_rows() -> None:
    """Losses of two keys, interleaved; the second drifts at its row 100 and errs for 40 rows."""
    outcome = run_job(Job("no_change", "sensors:2", 0, 600))
    result, names = outcome.result, outcome.result.key_names
    for place, row in enumerate(result.rows):
        second, own = result.keys[row] == 1, result.key_rows[row]
        result.losses[place] = float(second and 100 <= own < 140)
    outcome.card = replace(
        outcome.card, drifts=((200, 200),), key_drifts={names[0]: (), names[1]: ((100, 100),)}
    )
    found = finish(outcome, TINY, "").record.recovery
    assert found is not None
    assert (found["drifts"], found["recovered"], found["rows"], found["area"]) == (1, 1, 40.0, 40.0)


def test_a_drift_of_a_key_is_found_by_an_alarm_of_that_key_alone() -> None:
    """The second key drifts at its row 100; both are alarmed, at rows of their own."""
    outcome = run_job(Job("no_change", "sensors:2", 0, 600))
    result, names = outcome.result, outcome.result.key_names
    row_of = {
        (key, own): row
        for row, (key, own) in enumerate(zip(result.keys, result.key_rows, strict=True))
    }
    begin, alarm = row_of[1, 100], row_of[1, 107]
    outcome.card = replace(
        outcome.card, drifts=((begin, begin),), announcements={},
        key_drifts={names[0]: (), names[1]: ((100, 100), (250, 250))},
    )  # fmt: skip
    result.key_alarms = {names[0]: [101, 251], names[1]: [60, 107]}
    first, second = found_drifts(outcome)
    assert first == (begin, "abrupt", alarm, 7)
    assert second == (row_of[1, 250], "abrupt", None, None)
    assert second.cells()[2:] == ["missed", ""]
    report = drift_report(outcome)
    assert report is not None
    assert (report["found"], report["missed"], report["mean_delay"]) == (1, 1, 7.0)


def test_recovery_of_a_forecast_begins_with_the_first_value_beyond_the_change() -> None:
    """Losses of 1 for 40 values from the change on: asked for before it, and part of its cost."""
    name = "forecast:regimes@24"
    outcome = run_job(Job("no_change", name, 0, 1_500))
    (change, _), *_ = outcome.card.drifts
    outcome.card = replace(outcome.card, drifts=((change, change),))
    for place, row in enumerate(outcome.result.rows):
        outcome.result.losses[place] = float(change <= row + 24 < change + 40)
    found = finish(outcome, TINY, "").record.recovery
    assert found is not None
    assert (found["drifts"], found["recovered"], found["rows"], found["area"]) == (1, 1, 40.0, 40.0)


# -- what the suites show -----------------------------------------------------------------------


OF_STREAMS = [name for name, row in components("suites").items() if not row.load().protocol]


@pytest.mark.parametrize("name", OF_STREAMS)  # the others: tests/test_fewshot.py
def test_every_suite_makes_tables_of_whatever_ran(name: str) -> None:
    suite = components("suites")[name].load()
    models = ("no_change", "majority")
    there = (s for s in suite.streams if not (suite.unavailable(s) or s.startswith("open:")))
    stream = next(there, "concept_mix")
    outcomes = [run_job(Job(model, stream, 0, 600, suite.chunks[-1])) for model in models]
    done = [finish(outcome, suite, "") for outcome in outcomes]
    tables = (suite.summarise or standard)(Book([kept.record for kept in done], compare(done)))
    assert tables
    assert any(row[0] == "no_change" or "no_change" in row for row in tables[0].rows)


def test_a_table_with_a_cell_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="made up: 3 cells, expected 2"):
        Summary("made up", ["a", "b"], [["1", "2"], ["1", "2", "3"]])


@pytest.fixture
def first_60(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the figures elsewhere were over 60 rows."""
    monkeypatch.setattr(open_streams, "ELSEWHERE_ROWS", 60)


@pytest.mark.usefixtures("first_60")
def test_peers_stand_beside_what_they_scored_elsewhere_over_the_same_first_rows() -> None:
    """Ten errors, all among the first 60 of 100 rows: 50 of 60 are right."""
    models = ("no_change", "capymoa.arf", "streammeta", "sgd@best")
    made = [judged(model, f"open:{name}", 10) for model in models for name in ("elec2", "sea")]
    (table,) = open_streams.elsewhere(book(made, open_streams.SUITE))
    assert list(table.head) == ["accuracy %", "elec2", "sea"]
    assert list(table.rows) == [
        ["no_change", "83.3 (85.3)", "83.3 (51.3)"],
        ["capymoa.arf", "83.3 (87.5)", "83.3 (89.0)"],
    ]


@pytest.mark.usefixtures("first_60")
def test_other_rows_than_elsewhere_are_not_compared() -> None:
    cut = judged("no_change", "open:elec2", 10)
    del cut.result.rows[50:], cut.result.losses[50:]
    chunked, seeded, late = (judged("no_change", "open:elec2", 10) for _ in range(3))
    chunked.result.chunk = 16
    seeded.result.seed = 1
    late.job = replace(late.job, label_delay=5)
    for outcome in (cut, chunked, seeded, late):
        made = book([outcome], open_streams.SUITE)
        assert open_streams.elsewhere(made) == []
        assert open_streams.gates(made) == []


def test_a_file_that_is_shorter_is_compared_as_a_whole() -> None:
    rows = open_streams.KNOWN["weather"].rows
    assert rows < open_streams.ELSEWHERE_ROWS
    outcome = judged("no_change", "open:weather", 32)
    outcome.result.rows = array("q", range(rows))
    outcome.result.losses = array("d", [float(row % 25 < 8) for row in range(rows)])
    (gate,) = open_streams.gates(book([outcome], open_streams.SUITE))
    assert gate.ok
    outcome.result.rows.pop()
    outcome.result.losses.pop()
    assert open_streams.gates(book([outcome], open_streams.SUITE)) == []


@pytest.mark.usefixtures("first_60")
@pytest.mark.parametrize(("wrong", "ok"), [(9, True), (10, False)])
def test_a_peer_without_a_seed_must_score_what_it_scored_elsewhere(
    monkeypatch: pytest.MonkeyPatch, wrong: int, ok: bool
) -> None:
    """A loop of no shared code had 9 of 60 wrong on elec2; those with a seed may differ."""
    figures = {"no_change": (85.0,), "river.hat": (0.0,), "capymoa.arf": (0.0,)}
    monkeypatch.setattr(open_streams, "ELSEWHERE", figures)
    made = book([judged(model, "open:elec2", wrong) for model in figures], open_streams.SUITE)
    (gate,) = open_streams.gates(made)
    assert gate.ok is ok
    apart = "0.00" if ok else "1.67"
    assert f"farthest on open:elec2, {apart} points" in gate.text


def test_the_page_of_results_is_what_the_command_writes() -> None:
    root = Path(__file__).parent.parent
    assert (root / "RESULTS.md").read_text(encoding="utf-8") == page(root / "results")
