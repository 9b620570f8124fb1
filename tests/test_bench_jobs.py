"""A job that must be alone has a fresh process and a warm model; peers fit or are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios import peers
from scenarios.bench import Job, check, new_counter, run_job, run_jobs
from scenarios.bench.jobs import WARM_UP_ROWS
from streammeta.errors import UsageError
from streammeta.registry import components

OWN = '''
"""A model that takes down in which process it is made, and how many rows it sees there."""

import os
from pathlib import Path

from streammeta.experts.baselines import NoChange

FOLDER = Path(__file__).parent


class Noted(NoChange):
    def observe(self, events):
        with (FOLDER / "seen.txt").open("a") as file:
            file.write("." * len(events))
        return super().observe(events)


def noted(*, task, seed, chunk, argument, overrides):
    with (FOLDER / "seen.txt").open("a") as file:
        file.write(f"\\n{os.getpid()} ")
    return Noted(chunk)
'''


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the model ``own_noted:noted`` has written: a line for each time it was made."""
    (tmp_path / "own_noted.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "seen.txt"


def test_each_job_that_must_be_alone_has_a_fresh_process_and_a_warm_up(seen: Path) -> None:
    jobs = [Job("own_noted:noted", "concept_mix", seed, 50, alone=True) for seed in (0, 1)]
    counter = new_counter()
    outcomes = list(run_jobs(jobs, 1, counter))
    made = [line.split() for line in seen.read_text().splitlines() if line]
    first, second = made[0][0], made[2][0]
    assert [pid for pid, _ in made] == [first, first, second, second]
    assert len({first, second, str(os.getpid())}) == 3
    assert [len(rows) for _, rows in made] == [WARM_UP_ROWS, 50, WARM_UP_ROWS, 50]
    assert [outcome.job for outcome in outcomes] == jobs, "with one process in the order of jobs"
    assert counter.value == 100, "a warm-up is not counted"
    for outcome in outcomes:
        usual = run_job(replace(outcome.job, alone=False)).result
        assert list(outcome.result.losses) == list(usual.losses)


def test_a_job_alone_that_fails_is_told_and_the_others_go_on(seen: Path) -> None:
    jobs = [Job(m, "concept_mix", 0, 30, alone=True) for m in ("sgd@soon", "no_change")]
    told: list[Job] = []
    done = list(run_jobs(jobs, 1, failed=lambda job, fault: told.append(job)))
    assert ([outcome.job for outcome in done], told) == (jobs[1:], jobs[:1])


def test_only_the_suite_that_measures_speed_and_memory_runs_its_jobs_alone() -> None:
    suites = {name: row.load() for name, row in components("suites").items()}
    assert [name for name, suite in suites.items() if suite.alone] == ["speed"]
    for suite in suites.values():
        assert {job.alone for job in suite.jobs(quick=True)} <= {suite.alone}


@pytest.mark.parametrize(
    ("stream", "on_time"),
    [
        ("random_rbf | delay(200)", "random_rbf | delay(0)"),
        ("friedman | delay(0, jitter=5)", "friedman"),
        ("forecast:regimes@24", "forecast:regimes@1"),
    ],
)
def test_a_peer_is_refused_on_late_labels_before_any_work(
    monkeypatch: pytest.MonkeyPatch, stream: str, on_time: str
) -> None:
    monkeypatch.setattr(peers, "missing", lambda model: "")
    model = "capymoa.knn"
    with pytest.raises(UsageError, match=rf"'{model}' on stream .*the label of row \d+ .* delay"):
        check([Job(model, stream, 0, 600)])
    check([Job(model, on_time, 0, 600)])
