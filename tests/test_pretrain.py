"""`pretrain`: history becomes tasks, tasks meta-parameters, and a stream starts from them."""

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

import numpy as np
import pytest
from engine_stories import CLASSES, NUMBERS, both_tasks, config, stream
from learner_tasks import tasks_of
from typer.testing import CliRunner

from scenarios.scenario import scenario
from streammeta.cli import app
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import ConfigError, StreamMetaError, UsageError
from streammeta.events import Event, Scored, TaskClosed
from streammeta.meta.initial import described, write_initial
from streammeta.meta.training import Plan
from streammeta.pretraining import (
    History,
    Partial,
    Pretraining,
    from_events,
    from_tables,
    write_pretrained,
)
from streammeta.registry import components
from streammeta.replay import pose

SHORT = Plan(iterations=6, tasks=3, every=2, patience=10)


@pytest.fixture(scope="module")
def histories() -> dict[str, History]:
    return {task: from_events(config(task), stream(task, 400)) for task in (CLASSES, NUMBERS)}


def pretrain(*args: str, out: Path) -> dict[str, Any]:
    """The command in this process; its JSON line."""
    done = CliRunner().invoke(
        app, ["pretrain", *args, "--out", str(out), "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def complaint(*args: str) -> str:
    """What the command says when it refuses."""
    done = CliRunner().invoke(app, ["pretrain", *args, "--iterations", "2"])
    assert isinstance(done.exception, StreamMetaError), done.output
    return str(done.exception)


def trained(history: History, task: str, out: Path, **changes: Any) -> None:
    jobs = [
        Pretraining(config(task, **changes), history, SHORT, "a story", name)
        for name in history.metas
    ]
    found = []
    for job in jobs:
        training = job.training()
        list(job.run(training, Partial(out, job.name, job.identity(""))))
        found.append(job.done(training))
    write_pretrained(out, jobs[0], found)


# -- what it is for ----------------------------------------------------------------------------


def test_a_stream_that_starts_from_history_is_better_on_its_first_tasks(tmp_path: Path) -> None:
    file = tmp_path / "meta.safetensors"
    found = pretrain("sine_switch", "--rows", "4000", "--iterations", "600", out=file)
    assert list(found["learners"]) == ["meta_sgd", "r2d2"]
    for one in found["learners"].values():
        assert one["held_out_loss"]["after"] < 0.6 * one["held_out_loss"]["before"]
    assert found["tasks"] > 100
    assert list(tmp_path.iterdir()) == [file]

    def early_error(*init: str) -> float:
        """Of the first five tasks of another stream."""
        args = ["replay", "sine_switch", "--seed", "1", "--rows", "1000", "--json"]
        args += ["--models", "streammeta", *init]
        done = CliRunner().invoke(app, args, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return float(json.loads(done.stdout)["metric"]["mae"])

    # much of the early error is that units are not known yet, and experts that need no
    # meta-parameters, such as the head of the segment, take most of the rest
    assert early_error("--init", str(file)) < 0.97 * early_error()


@both_tasks
def test_every_learner_can_be_trained_on_history_and_started_from(
    task: str, histories: dict[str, History], tmp_path: Path
) -> None:
    events = stream(task, 400)
    for name in components("learners"):
        if task not in tasks_of(name):
            continue
        learner = config(task, learner=name, partner="none")
        engine = Engine(learner)
        engine.observe(events)
        assert engine.meta is not None
        start = engine.meta.matching(engine.state.net, engine.state.n_classes)
        file = tmp_path / f"{name}.safetensors"
        trained(replace(histories[task], metas={name: start}), task, file, learner=name)
        told = described(file)["origin"]["learners"][name]
        assert told["after"] <= told["before"]
        started = Engine(config(task, learner=name, init=str(file)))
        outputs = started.observe(events[:20])
        assert sum(isinstance(output, Scored) for output in outputs) == 20
        assert started.meta is not None
        if told["best_iteration"]:
            assert not np.array_equal(started.meta.tensors()["theta"], start.tensors()["theta"])


def test_the_file_tells_where_it_comes_from_and_no_folder(
    histories: dict[str, History], tmp_path: Path
) -> None:
    file = tmp_path / "meta.safetensors"
    trained(histories[NUMBERS], NUMBERS, file)
    told = described(file)["origin"]
    assert {"source", "learners", "seed", "tasks", "held_out", "rows"} <= set(told)
    for one in told["learners"].values():
        assert {"iterations", "best_iteration", "before", "after"} <= set(one)
    assert {"python", "streammeta", "torch"} <= set(told["versions"])
    assert str(tmp_path).encode() not in file.read_bytes()


def test_the_file_holds_the_learner_and_its_partner_each_by_its_name(
    histories: dict[str, History], tmp_path: Path
) -> None:
    file = tmp_path / "meta.safetensors"
    trained(histories[NUMBERS], NUMBERS, file)
    kept = {one["name"]: one for one in described(file)["learners"]}
    assert list(kept) == ["meta_sgd", "r2d2"]

    def started(**changes: Any) -> Engine:
        engine = Engine(config(NUMBERS, **changes))
        engine.observe(stream(NUMBERS, 1))
        return engine

    def same(a: Engine, b: Engine) -> dict[str, bool]:
        return {n: np.array_equal(m.start, b.learned[n].start) for n, m in a.learned.items()}

    both = started(init=str(file))
    assert same(started(), both) == {"meta_sgd": False, "r2d2": False}
    swapped = started(init=str(file), learner="r2d2", partner="meta_sgd")
    assert same(swapped, both) == {"meta_sgd": True, "r2d2": True}
    of_its_kind = started(init=str(file), learner="maml")  # from the file's first learner
    assert np.array_equal(of_its_kind.learned["maml"].start, both.learned["meta_sgd"].start)
    other = started(init=str(file), partner="maml")  # the file has no such partner
    assert same(started(partner="maml"), other) == {"meta_sgd": False, "maml": True}

    again = tmp_path / "again.safetensors"
    write_initial(again, both.learned)
    assert same(started(init=str(again)), both) == {"meta_sgd": True, "r2d2": True}


def test_meta_parameters_of_classes_are_refused_for_numbers(
    histories: dict[str, History], tmp_path: Path
) -> None:
    file = tmp_path / "classes.safetensors"
    trained(histories[CLASSES], CLASSES, file)
    engine = Engine(config(NUMBERS, init=str(file)))
    with pytest.raises(ConfigError, match=r"made for classification .* needs regression"):
        engine.observe(stream(NUMBERS, 1))


def test_every_command_takes_the_file(tmp_path: Path) -> None:
    file = tmp_path / "meta.safetensors"
    engine = Engine(ModelConfig(task="regression", seed=9))
    table = tmp_path / "sine.csv"
    events = list(scenario("sine_switch", rows=40).events())
    engine.observe(events)
    assert engine.meta is not None
    write_initial(file, engine.learned)
    table.write_text("x,y\n" + "".join(f"{e.x['x']},{e.y}\n" for e in events if e.x))
    settings = tmp_path / "run.toml"
    settings.write_text(f"[source]\npath = '{table}'\ntarget = 'y'\n[metrics]\nenabled = false\n")
    commands = (
        ["evaluate", str(table), "--target", "y", "--models", "streammeta"],
        ["replay", "sine_switch", "--rows", "40", "--models", "streammeta"],
        ["run", str(settings), "--dry-run"],
    )
    for command in commands:
        done = CliRunner().invoke(app, [*command, "--init", str(file)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        missing = CliRunner().invoke(app, [*command, "--init", str(tmp_path / "none")])
        assert isinstance(missing.exception, ConfigError)
        assert "none does not exist" in str(missing.exception)


# -- tasks -------------------------------------------------------------------------------------


@both_tasks
@pytest.mark.parametrize(("chunk", "memory"), [(1, 3), (64, 128)])
def test_the_tasks_are_those_that_a_live_run_closes(task: str, chunk: int, memory: int) -> None:
    made = config(task, chunk=chunk, memory=memory)
    events = stream(task, 400)
    outputs = Engine(made).observe(events)
    closed = [output for output in outputs if isinstance(output, TaskClosed)]
    history = from_events(made, events)
    assert len(history) == len(closed) > 10
    assert history.x.shape == (len(closed), 16, history.metas["r2d2"].net.sizes[0])
    assert np.isfinite(history.x).all()
    assert history.rows == 400


def test_the_latest_tasks_are_held_out_and_never_drawn(histories: dict[str, History]) -> None:
    history = histories[NUMBERS]
    n = len(history)
    marked = replace(history, y=np.repeat(np.arange(n, dtype=np.float32)[:, None], 16, 1))
    job = Pretraining(config(NUMBERS), marked, SHORT, "a story", "meta_sgd")
    kept = round(0.2 * n)
    training = job.training()
    assert training.held_out.query_y[:, 0].tolist() == list(range(n - kept, n))
    assert training.held_out.support_mask.bool().all()
    drawn = training.draw(np.random.default_rng(0), 2_000)
    assert set(drawn.query_y[:, 0].int().tolist()) == set(range(n - kept))
    assert set(drawn.support_mask.sum(1).int().tolist()) == set(range(1, 9))


def test_a_task_is_posed_with_the_newest_rows_before_its_query_as_support() -> None:
    y = np.arange(12, dtype=np.float32).reshape(2, 6)
    parts = pose(y[:, :, None], y, np.array([1, 3]), np.array([3, 2]), 3)
    assert parts[1].tolist() == [[0, 1, 2], [6, 7, 8]]
    assert parts[2].tolist() == [[0, 0, 1], [1, 1, 1]]
    assert parts[4].tolist() == [[3, 4, 5], [9, 10, 11]]
    assert parts[5].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_one_chunk_may_close_a_task_of_every_key() -> None:
    made = config(NUMBERS, chunk=60, memory=3, support=1, query=1)
    events = []
    for t in range(40):
        for k in range(60):
            x = float((3 * k + t) % 7)
            events.append(Event(f"{k}:{t}", {"a": x}, 2.0 * x, f"key-{k}"))
    closed = [o for o in Engine(made).observe(events) if isinstance(o, TaskClosed)]
    assert len(from_events(made, events)) == len(closed) > 60


def test_too_few_tasks_are_refused_with_what_was_found(histories: dict[str, History]) -> None:
    h = histories[NUMBERS]
    few = replace(h, x=h.x[:9], y=h.y[:9], support=h.support[:9], query=h.query[:9])
    with pytest.raises(UsageError, match="a story: 9 tasks in 400 rows, expected at least 10"):
        Pretraining(config(NUMBERS), few, SHORT, "a story", "meta_sgd")
    with pytest.raises(UsageError, match="no task in 30 rows: a task is"):
        from_events(config(NUMBERS), stream(NUMBERS, 30))


def test_a_file_is_read_as_evaluate_reads_it(tmp_path: Path) -> None:
    lines = ["shop,day,x,colour,label"]
    for i, event in enumerate(stream(CLASSES, 500)):
        assert event.x is not None
        lines.append(f"{'ab'[i % 2]},{1_700_000_000 + i},{event.x['a']},red,{event.y}")
    lines[40] = "a,1700000039,broken"
    table = tmp_path / "shops.csv"
    table.write_text("\n".join(lines) + "\n")
    found = pretrain(
        str(table), "--target", "label", "--key", "shop", "--time", "day", "--ignore", "colour",
        "--label-delay", "3", "--iterations", "4", "--set", "model.support=4",
        "--set", "model.query=4", "--set", "model.hidden=[6]", out=tmp_path / "out.safetensors",
    )  # fmt: skip
    assert (found["source"], found["task"]) == ("shops.csv", "classification")
    assert (found["rows"], found["rejected"]) == (499, 1)
    assert found["tasks"] > 30
    told = described(tmp_path / "out.safetensors")["learners"]
    assert [(one["name"], one["n_classes"], one["sizes"][1]) for one in told] == [
        ("meta_sgd", 2, 6),
        ("r2d2", 2, 6),
    ]


# -- a folder of tasks -------------------------------------------------------------------------


def folder_of_tasks(folder: Path, rows: int = 20, files: int = 12) -> Path:
    """Lines of another slope each; the later the file's number, the earlier its day."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for i in range(files):
        xs = rng.normal(size=rows)
        lines = [f"{x},{(i + 1) * x},{1_700_000_000 - 1_000 * i + r}" for r, x in enumerate(xs)]
        (folder / f"task{i + 1}.csv").write_text("\n".join(["x,y,day", *lines]) + "\n")
    (folder / "notes.md").write_text("not a table\n")
    return folder


def test_a_folder_is_one_task_for_each_file(tmp_path: Path) -> None:
    tasks = folder_of_tasks(tmp_path / "tasks")
    found = pretrain(
        str(tasks), "--target", "y", "--ignore", "day", "--iterations", "4",
        out=tmp_path / "out.safetensors",
    )  # fmt: skip
    assert (found["tasks"], found["held_out_tasks"], found["rows"]) == (12, 2, 240)
    assert found["source"] == "tasks"


def test_a_file_that_is_too_short_is_halved_and_one_that_is_too_long_is_cut() -> None:
    def rows(slope: float, n: int) -> list[Event]:
        return [Event(f"{slope}:{i}", {"x": float(i)}, slope * i + 0.5) for i in range(n)]

    tables = [("a", rows(1, 6)), ("b", rows(2, 16)), ("c", rows(3, 600)), ("d", rows(4, 3))]
    history = from_tables(config(NUMBERS), tables)
    assert history.support.tolist() == [3, 8, 8, 1]
    assert history.query.tolist() == [3, 8, 8, 2]
    step = np.diff(history.y, axis=1)  # of a line it is the slope, in units of the targets
    unit = step[1, 0] / 2
    assert step[0, 5:10] == pytest.approx(np.full(5, unit), rel=1e-3)
    assert step[2] == pytest.approx(np.full(15, 3 * unit), rel=1e-3)
    with pytest.raises(UsageError, match=r"e: 1 rows can be used, expected at least 2"):
        from_tables(config(NUMBERS), [("a", rows(1, 6)), ("e", rows(1, 1))])


def test_files_are_in_the_order_of_their_names_or_of_their_times(tmp_path: Path) -> None:
    from streammeta.cli.history_source import HistorySource, Wanted

    tasks = folder_of_tasks(tmp_path / "tasks")

    def slopes(time: str | None, ignore: tuple[str, ...]) -> list[float]:
        wanted = Wanted(target="y", time=time, ignore=ignore)
        made = config(NUMBERS, lags=0)
        history = HistorySource.open(str(tasks), wanted, made).history(None)
        used = history.x.std(axis=(0, 1)).argmax()
        steps = np.diff(history.y, axis=1) / np.diff(history.x[:, :, used], axis=1)
        ranked: list[float] = np.median(steps, axis=1).tolist()
        return ranked

    by_name = slopes(None, ("day",))
    assert by_name == sorted(by_name)
    assert slopes("day", ()) == pytest.approx(by_name[::-1], rel=1e-3)


# -- interrupted -------------------------------------------------------------------------------

SMALL = (
    "sine_switch", "--rows", "1000", "--iterations", "800", "--patience", "99", "--tasks", "4",
    "--learner", "maml", "--set", "model.hidden=[10]", "--set", "model.challengers=0",
    "--set", "model.replay=false",
)  # fmt: skip


LONGER = tuple("2400" if part == "800" else part for part in SMALL)  # not done before it is stopped


def test_ctrl_c_says_where_to_go_on_and_the_file_is_that_of_an_uninterrupted_run(
    tmp_path: Path,
) -> None:
    cut, partial = tmp_path / "cut.safetensors", tmp_path / "cut.safetensors.maml.partial"
    command = [sys.executable, "-m", "streammeta.cli", "pretrain", *LONGER, "--out", str(cut)]
    settings = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    running = subprocess.Popen(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    limit = time.monotonic() + 90
    while not partial.exists() and running.poll() is None and time.monotonic() < limit:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert f"interrupted; {partial} has the last judgement" in told
    assert not cut.exists()

    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "going on from iteration" in done.stderr
    assert "use it: streammeta run CONFIG" in done.stdout
    assert not partial.exists()
    whole = tmp_path / "whole.safetensors"
    pretrain(*LONGER, out=whole)
    assert cut.read_bytes() == whole.read_bytes()
    assert described(cut)["origin"]["learners"]["maml"]["best_iteration"] > 0


def test_a_training_of_something_else_is_not_gone_on_with(
    histories: dict[str, History], tmp_path: Path
) -> None:
    out = tmp_path / "meta.safetensors"
    job = Pretraining(config(NUMBERS), histories[NUMBERS], SHORT, "a story", "meta_sgd")
    training, kept = job.training(), Partial(out, job.name, job.identity("code"))
    next(job.run(training, kept))

    other = replace(job, plan=replace(SHORT, tasks=4), source="another")
    fresh = other.training()
    assert (
        Partial(out, job.name, other.identity("code")).read(fresh) == "is of another source, plan"
    )
    assert Partial(out, job.name, job.identity("newer code")).read(fresh) == "is of another code"
    reseeded = replace(job, config=config(NUMBERS, seed=1))
    assert Partial(out, job.name, reseeded.identity("code")).read(fresh) == "is of another seed"
    changed = replace(job, history=replace(histories[NUMBERS], y=histories[NUMBERS].y + 1))
    assert Partial(out, job.name, changed.identity("code")).read(fresh) == "is of another tasks"
    assert fresh.iteration == 0
    again = job.training()
    assert kept.read(again) == ""
    assert again.info() == training.info()
    kept.path.write_bytes(kept.path.read_bytes()[:-50])
    assert "cannot be read" in kept.read(job.training())
    kept.clear()
    assert kept.read(fresh) == ""


def test_fresh_begins_anew(tmp_path: Path) -> None:
    args = [*SMALL[:3], "--set", "model.hidden=[6]", "--iterations", "40"]
    out = tmp_path / "a.safetensors"
    pretrain(*args, out=out)
    out.with_name("a.safetensors.meta_sgd.partial").write_bytes(b"left behind")
    done = CliRunner().invoke(app, ["pretrain", *args, "--out", str(out), "--fresh"])
    assert done.exit_code == 0
    assert "begun afresh" not in done.stderr
    assert list(tmp_path.iterdir()) == [out]


# -- refused -----------------------------------------------------------------------------------


def test_faults_are_told_before_anything_is_read(tmp_path: Path) -> None:
    assert "'sine_swich' is neither a file nor a folder" in complaint("sine_swich")
    assert "did you mean sine_switch" in complaint("sine_swich")
    assert "nothing.csv: no such file" in complaint(str(tmp_path / "nothing.csv"))
    assert "--key k: is for files" in complaint("sine_switch", "--key", "k")
    told = complaint("sine_switch", "--set", "model.hiden=[6]")
    assert told.startswith("--set model.hiden: ")
    assert "did you mean 'hidden'?" in told
    assert "expected model.field=value" in complaint("sine_switch", "--set", "source.seed=1")
    assert "did you mean maml" in complaint("sine_switch", "--learner", "mammal")
    assert "is a folder" in complaint("sine_switch", "--out", str(tmp_path))
    assert "expected one for each task" in complaint(str(tmp_path), "--target", "y")
    tasks = str(folder_of_tasks(tmp_path / "tasks"))
    assert "each file is a task" in complaint(tasks, "--target", "y", "--rows", "9")
    assert "expected --target" in complaint(tasks)
    assert "but scenario sine_switch is regression" in complaint(
        "sine_switch", "--task", "classification"
    )
