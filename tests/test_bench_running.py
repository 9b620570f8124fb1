"""A bench as it runs: what is refused, what fails, what is interrupted, and what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scenarios.bench import (
    Book,
    Job,
    Journal,
    Outcome,
    Suite,
    check,
    command_line,
    finish,
    run_job,
    run_jobs,
)
from scenarios.bench.jobs import cards, unfit
from scenarios.bench.provenance import in_words, provenance
from scenarios.bench.results import page
from streammeta.errors import SinkError, SourceError, UsageError

ROOT = Path(__file__).parent.parent
TINY = Suite("tiny", "for tests", 0.1, ("concept_mix",), ("no_change", "majority"), (0,))
WEEK = 7 * 24 * 3600
FAR_FROM_DONE = 30.0  # seconds, of the 300 that a job of own:Slow takes

# What a user's own module may hold: a suite, and models that fail or take their time.
MODULE = """
import os, time
from pathlib import Path
from scenarios.bench import Suite

class Guess:
    def predict_one(self, x): return "a"
    def learn_one(self, x, y): pass

class Fails(Guess):
    rows = 0
    def learn_one(self, x, y):
        self.rows += 1
        if self.rows == 100 and not os.environ.get("MENDED"):
            raise ZeroDivisionError("row 100")

class Slow(Guess):
    def learn_one(self, x, y):
        Path("slow").touch()
        time.sleep(1)

def suite(name, *models):
    return Suite(name, "for tests", 0.1, ("concept_mix",), models, (0,), rows=300)

FAILING = suite("failing", "own:Fails", "no_change", "majority")
SLOW = suite("slow", "no_change", "own:Slow")
UNFIT = suite("unfit", "no_change", "ridge@split")
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A working directory with the user's module ``own`` in it."""
    (tmp_path / "own.py").write_text(MODULE)
    return tmp_path


def command(*args: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "streammeta.cli", "bench", *args]


def settings(home: Path, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if "STREAMMETA" not in name}
    path = os.pathsep.join((str(ROOT), str(home)))
    return {**ours, "PYTHONPATH": path, "NO_COLOR": "1", "OMP_NUM_THREADS": "1", **more}


def bench(home: Path, *args: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*args),
        cwd=home,
        env=settings(home, **more),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def kept(home: Path) -> list[Path]:
    return sorted((home / "runs" / "bench").rglob("*.npz"))


# -- refused before any work --------------------------------------------------------------------


def test_a_model_that_does_not_fit_its_stream_is_refused_by_both_names() -> None:
    jobs = [Job("no_change", "concept_mix", 0), Job("ridge@split", "concept_mix", 0)]
    with pytest.raises(UsageError, match="model 'ridge@split' on stream 'concept_mix': "):
        check(jobs)
    assert list(unfit(jobs, cards(jobs))) == [("ridge@split", "concept_mix")]
    check([Job("ridge@split", "forecast:regimes@1", 0, 600)])
    with pytest.raises(UsageError, match="no model is called 'nop'"):
        check([Job("nop", "concept_mix", 0)])


def test_the_drifts_of_the_stream_belong_to_what_is_tried() -> None:
    fleet = [Job("oracle@drift", "sensors", 0), Job("frozen@drift", "sensors", 0)]
    assert list(unfit(fleet, cards(fleet))) == [("oracle@drift", "sensors")]


def test_named_models_must_fit_and_those_of_a_suite_are_left_out(home: Path) -> None:
    named = bench(home, "own:UNFIT", "--models", "ridge@split", code=2)
    assert "model 'ridge@split' on stream 'concept_mix'" in named.stderr
    assert "1 runs" not in named.stderr, "nothing was begun"
    own = bench(home, "own:UNFIT")
    assert "skipped ridge@split on concept_mix: " in own.stderr
    assert "1 of 1" in own.stderr


def test_a_directory_that_cannot_be_written_is_refused_before_any_work(home: Path) -> None:
    (home / "runs").write_text("a file where the folder should be")
    done = bench(home, "own:UNFIT", code=69)
    assert "cannot keep finished runs in runs/bench/unfit-" in done.stderr
    assert "1 of 1" not in done.stderr
    with pytest.raises(SinkError, match="start the bench in a directory that can be written"):
        Journal(TINY, TINY.jobs(), home / "runs").open()


# -- failing and interrupted --------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_fails_is_told_and_the_others_go_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.chdir(home)
    jobs = [Job(m, "concept_mix", 0, 300) for m in ("own:Fails", "no_change")]
    told: list[tuple[Job, Exception]] = []

    def failed(job: Job, fault: Exception) -> None:
        told.append((job, fault))

    outcomes = list(run_jobs(jobs, processes, failed=failed))
    assert [outcome.job for outcome in outcomes] == jobs[1:]
    ((job, fault),) = told
    assert job == jobs[0]
    assert "ZeroDivisionError: row 100" in str(fault)
    with pytest.raises(UsageError, match="row 100"):
        list(run_jobs(jobs, processes))


def test_after_a_failure_the_same_command_does_only_what_failed(home: Path) -> None:
    first = bench(home, "own:FAILING", "--json", "out.jsonl", code=1)
    assert "FAILED  concept_mix  own:Fails  seed 0: " in first.stderr
    assert "(ZeroDivisionError: row 100)" in first.stderr
    assert "1 of 3 runs failed" in first.stderr
    assert "majority" in first.stdout
    assert "own:Fails" not in first.stdout
    assert len(kept(home)) == 2
    again = bench(home, "own:FAILING", "--json", "out.jsonl", MENDED="1")
    assert "2 of them are there from an interrupted run" in again.stderr
    assert "3 of 3  concept_mix  own:Fails" in again.stderr
    lines = [json.loads(line) for line in (home / "out.jsonl").read_text().splitlines()]
    runs = [line["model"] for line in lines if line["kind"] == "run"]
    assert runs == ["own:Fails", "no_change", "majority"]
    assert kept(home) == [], "all is written and shown"


def test_when_every_run_fails_no_earlier_file_is_touched(home: Path) -> None:
    (home / "out.jsonl").write_text("earlier\n")
    done = bench(home, "own:FAILING", "--models", "own:Fails", "--json", "out.jsonl", code=1)
    assert "1 of 1 runs failed" in done.stderr
    assert (home / "out.jsonl").read_text() == "earlier\n"


def test_an_interrupted_bench_ends_at_once_and_keeps_what_is_finished(home: Path) -> None:
    running = at_its_slow_job(home)
    os.killpg(running.pid, signal.SIGINT)  # a terminal's Ctrl-C: to every process of the group
    asked = time.monotonic()
    said = running.communicate(timeout=90)[1]
    assert running.returncode == 130, said
    assert time.monotonic() - asked < FAR_FROM_DONE, "the slow job has minutes to go"
    assert "1 of 2  concept_mix  no_change" in said
    assert "Traceback" not in said
    assert gone(running.pid), "somebody is left behind"
    assert [path.name for path in kept(home)] == ["00000.npz"]


def test_the_workers_of_a_bench_that_was_killed_end_with_it(home: Path) -> None:
    running = at_its_slow_job(home)
    running.kill()
    running.communicate(timeout=FAR_FROM_DONE)
    assert gone(running.pid, patience=FAR_FROM_DONE), "somebody is left behind"


def at_its_slow_job(home: Path) -> subprocess.Popen[str]:
    """A bench with one job done, and one that takes minutes."""
    running = subprocess.Popen(
        command("own:SLOW", "--jobs", "2"),
        cwd=home,
        env=settings(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (kept(home) and (home / "slow").exists()) and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.05)
    return running


def gone(group: int, patience: float = 5.0) -> bool:
    """Whether no process of the group is left but such as are dead and have not been buried."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        listed = subprocess.check_output(["ps", "-eo", "pgid=,stat="], text=True).splitlines()
        states = [state for pgid, state in map(str.split, listed) if int(pgid) == group]
        if all(state.startswith("Z") for state in states):
            return True
        time.sleep(0.05)
    return False


def test_what_is_finished_stays_when_the_tables_cannot_be_made(home: Path) -> None:
    text = "\ndef broken(book): raise RuntimeError('no table')\n"
    text += "BROKEN = Suite('broken', 't', 1, ('concept_mix',), ('majority',), (0,), broken, 50)\n"
    (home / "own.py").write_text(MODULE + text)
    done = subprocess.run(
        command("own:BROKEN"), cwd=home, env=settings(home), capture_output=True, timeout=100
    )
    assert done.returncode == 70
    assert len(kept(home)) == 1


# -- which finished runs count ------------------------------------------------------------------


def test_another_text_of_ones_own_model_is_another_plan_and_nothing_is_imported(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "mine").mkdir()
    (home / "mine" / "__init__.py").write_text("raise RuntimeError('imported')")
    (home / "mine" / "model.py").write_text("# first")
    jobs = [Job("mine.model:Model", "concept_mix", 0)]
    first = Journal(TINY, jobs).folder
    assert Journal(TINY, jobs).folder == first
    (home / "mine" / "model.py").write_text("# second")
    second = Journal(TINY, jobs).folder
    assert second != first
    (home / "own.py").write_text(MODULE + "# edited")
    assert Journal(TINY, jobs).folder == second, "a module that no job names"
    learner = [replace(jobs[0], model="streammeta", overrides=(("learner", "own:make"),))]
    before = Journal(TINY, learner).folder
    (home / "own.py").write_text(MODULE + "# edited again")
    assert Journal(TINY, learner).folder != before


def test_other_data_is_another_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = TINY.jobs()
    card = cards(jobs)["concept_mix"]
    folders = {Journal(TINY, jobs, cards={"concept_mix": card}).folder}
    folders.add(Journal(TINY, jobs, cards={"concept_mix": replace(card, checksum="ab")}).folder)
    for name in ("STREAMMETA_DATA", "STREAMMETA_PEERS", "RIVER_DATA"):
        monkeypatch.setenv(name, "/elsewhere")
        folders.add(Journal(TINY, jobs, cards={"concept_mix": card}).folder)
    assert len(folders) == 5


def test_what_a_suite_left_a_week_ago_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    journal = Journal(TINY, TINY.jobs(), tmp_path)
    old, recent, other = (
        tmp_path / f"{name}-{digits * 12}"
        for name, digits in (("tiny", "a"), ("tiny", "b"), ("tiny-too", "c"))
    )
    for folder, age in ((old, WEEK + 60), (recent, WEEK - 60), (other, WEEK + 60)):
        folder.mkdir()
        (folder / "00000.npz").touch()
        then = time.time() - age
        os.utime(folder, (then, then))
    journal.open()
    assert not old.exists()
    assert recent.exists()
    assert other.exists()
    assert journal.folder.is_dir()


# -- where a number comes from ------------------------------------------------------------------


def test_the_command_names_the_variables_it_needs_and_not_their_folders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("STREAMMETA_DATA", "STREAMMETA_PEERS", "RIVER_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["streammeta", "bench", "tiny", "--models", "a b"])
    assert command_line() == "streammeta bench tiny --models 'a b'"
    monkeypatch.setenv("STREAMMETA_DATA", "/somewhere/secret")
    assert command_line() == "STREAMMETA_DATA=... streammeta bench tiny --models 'a b'"


def gathered(folder: Path, suite: str, *provenances: dict[str, Any]) -> Path:
    """A book of one run per provenance, each by a command of its own."""
    done = finish(run_job(Job("majority", "concept_mix", 0, 60)), replace(TINY, name=suite), "")
    runs = [
        replace(done.record, provenance=told, command=f"streammeta bench {suite} --seeds {i + 1}")
        for i, told in enumerate(provenances)
    ]
    file = folder / f"{suite}.jsonl"
    file.write_text("\n".join(Book(runs).lines()) + "\n")
    return file


def test_results_tell_every_machine_and_command_of_gathered_runs(tmp_path: Path) -> None:
    here = provenance()
    there = {**here, "machine": {**here["machine"], "cpu": "another kind"}}
    gathered(tmp_path, "classification", here, there)
    text = page(tmp_path)
    commands = [f"streammeta bench classification --seeds {n}" for n in (1, 2)]
    assert "\n".join(["```sh", *commands, "```"]) in text
    assert f"- {in_words(here)}\n- {in_words(there)}" in text
    assert "cores of another kind" in text


def test_results_show_a_picture_only_where_the_suite_makes_one(tmp_path: Path) -> None:
    gathered(tmp_path, "classification", provenance())
    (tmp_path / "classification.png").touch()
    assert "![" not in page(tmp_path)


def test_results_of_a_suite_that_is_not_known_are_not_passed_over(tmp_path: Path) -> None:
    gathered(tmp_path, "tiny", provenance())
    with pytest.raises(SourceError, match=r"tiny\.jsonl: no suite is called 'tiny'"):
        page(tmp_path)


def test_the_report_says_in_words_where_its_numbers_come_from(home: Path) -> None:
    bench(home, "own:UNFIT", "--models", "majority", "--report", "r.html")
    text = (home / "r.html").read_text().partition("<script>")[0]  # without Bokeh's own code
    assert in_words(provenance()).partition(";")[0] in text
    assert "{&#x27;" not in text
    assert "{'" not in text


def test_minutes_are_those_of_the_suite_as_it_is(home: Path) -> None:
    assert "1 runs, about 0.1 minutes" in bench(home, "own:UNFIT").stderr
    assert "minutes" not in bench(home, "own:UNFIT", "--rows", "40").stderr


def test_an_outcome_that_is_not_asked_for_ends_the_rest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.chdir(home)
    jobs = [Job(m, "concept_mix", 0, 300) for m in ("no_change", "own:Slow")]
    outcomes = run_jobs(jobs, 2)
    first = next(outcomes)
    assert isinstance(first, Outcome)
    assert first.job == jobs[0]
    begun = time.monotonic()
    outcomes.close()
    assert time.monotonic() - begun < FAR_FROM_DONE, "the slow job has minutes to go"
