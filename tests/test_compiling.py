"""Code is compiled once on a machine: somebody is told, others help, and nothing is done twice."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from streammeta import compiling, together
from streammeta.mixture import GROWN

ROOT = Path(__file__).parent.parent


def compiled(name: str) -> None:
    """Compile something new that says it is of the module ``name``."""

    def function(x: int) -> int:
        return x + 1

    function.__module__ = name
    assert numba.njit(function)(1) == 2


def test_whoever_listens_is_told_once_and_not_of_what_others_compile() -> None:
    told: list[str] = []
    compiling.when_compiling(told.append)
    compiled("somebody.elses")
    assert told == []
    compiled("streammeta.of_a_test")
    compiled("drift.of_a_test")
    assert told == ["compiling for this machine, once: this takes a minute or a few"]


def test_of_several_who_listen_the_last_is_told() -> None:
    first: list[str] = []
    last: list[str] = []
    compiling.when_compiling(first.append)
    compiling.when_compiling(last.append)
    compiled("streammeta.of_a_test")
    assert (len(first), len(last)) == (0, 1)


def test_parts_compile_what_a_model_calls_for_all_members_and_not_something_like_it() -> None:
    compiling.main(["learn", "judge", "meta"])
    for task in compiling.TASKS:
        compiling.learn_a_change(compiling._engine(task), task)
    for function in (together.ask, together.judge, together.learn):
        assert len(function.signatures) == 1


def test_every_part_can_be_compiled_by_a_process_of_its_own() -> None:
    begun = compiling.begin(len(compiling.PARTS) + 1)
    assert len(begun) == len(compiling.PARTS)
    assert [process.wait() for process in begun] == [0] * len(begun)


def test_a_part_that_does_not_exist_is_told_with_those_that_do(capsys) -> None:
    with pytest.raises(SystemExit):
        compiling.main(["lern"])
    assert "no part is called 'lern'; there are learn, meta, judge" in capsys.readouterr().err


def test_where_no_process_can_be_begun_nothing_fails(monkeypatch) -> None:
    def refuse(*args, **kwargs):
        raise OSError("no room for another process")

    monkeypatch.setattr(compiling.subprocess, "Popen", refuse)
    assert compiling.begin(3) == []


def test_helpers_end_with_whoever_began_them_however_that_ends() -> None:
    code = (
        "import time\n"
        "from streammeta import compiling\n"
        "compiling._end_with_the_other()\n"
        "time.sleep(600)"
    )
    helper = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert helper.stdin is not None
    helper.stdin.close()  # as the system does it for a process that is killed
    assert helper.wait(timeout=60) == 1
    begun = compiling.begin(1)
    assert begun[0].stdin is not None
    assert "--for-another" in begun[0].args  # which is what listens
    begun[0].kill()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("a,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(50)))
    return path


def test_the_command_says_that_it_compiles_and_the_next_time_does_not(
    tmp_path: Path, table: Path
) -> None:
    def evaluated() -> str:
        command = [sys.executable, "-m", "streammeta.cli", "evaluate", str(table), "--target", "y"]
        done = subprocess.run(
            [*command, "--models", "sgd@0.01"],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    assert evaluated().count("compiling for this machine, once") == 1
    assert "compiling" not in evaluated()


def test_what_was_compiled_is_of_the_sources_as_they_are(tmp_path: Path) -> None:
    for package in ("drift", "streammeta"):
        without = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=without)
    asked = (
        "import numpy as np; from streammeta.surprise import is_surprise as asked;"
        "print(asked(10.0, np.ones(3), 3), sum(asked.stats.cache_hits.values()))"
    )

    def answer() -> str:
        done = subprocess.run(
            [sys.executable, "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )  # fmt: skip
        return done.stdout.strip()

    def change(module: str, old: str, new: str) -> None:
        path = tmp_path / "streammeta" / module
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    assert answer() == "False 0"
    assert answer() == "False 1"  # kept
    change("cli/console.py", '"""What', '"""Again, what')  # of which it knows nothing
    assert answer() == "False 1"
    # drawn in from there
    change("mixture.py", f"GROWN = 100.0, 30.0, {GROWN}", "GROWN = 100.0, 30.0, 2")
    assert answer() == "True 0"


def test_code_is_loaded_before_a_model_is_timed_but_somebodys_own_is_not_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scenarios import evaluation

    loaded: list[str] = []
    monkeypatch.setattr(evaluation, "learn_a_change", lambda model, task: loaded.append(task))
    data = tmp_path / "rows.csv"
    data.write_text("a,y\n" + "1,0\n2,1\n" * 10)
    for experts, calls in ((("persistence",), 1), (("river.dummy:NoChangeClassifier",), 0)):
        loaded.clear()
        asked = evaluation.Question(
            data, "y", models=("streammeta", "no_change"), overrides={"experts": experts}
        )
        results = list(evaluation.evaluate(asked, "classification"))
        assert [result.scores.n for result in results] == [20, 20]
        assert len(loaded) == calls
