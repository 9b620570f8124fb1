"""The command as a person or a script meets it: stdout, stderr, exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from streammeta.cli.comparison import Comparison
from streammeta.cli.live import LiveView
from streammeta.config_file import load_config
from streammeta.events import DriftDetected, Predicted, Rejected, Scored

HEAVY = ("torch", "river", "numba", "pandas", "numpy", "sklearn", "matplotlib", "bokeh")
COMMANDS = ("run", "evaluate", "replay", "bench", "pretrain", "validate", "components")
COMMANDS += ("init", "schema", "doctor", "checkpoint")


def command(*args: str) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "streammeta.cli", *args]


def streammeta(
    *args: str, cwd: Path | None = None, code: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own and check its exit code."""
    done = subprocess.run(
        command(*args),
        cwd=cwd,
        env=settings(**environment),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done


def settings(**environment: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if "STREAMMETA" not in name}
    root = str(Path(__file__).parent.parent)
    return {**ours, "PYTHONPATH": root, "NO_COLOR": "1", "COLUMNS": "100", **environment}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """120 rows whose label follows x, a category, one short line and one missing target."""
    lines = ["x,colour,label"]
    for row in range(120):
        lines.append(f"{row % 2 + row / 1000},{'red' if row % 3 else ''},{'ab'[row % 2]}")
    lines[31] = "0.5,red"
    lines[52] = "0.5,red,"
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom streammeta.cli import app\n"
        f"for args in ([], *([c] for c in {COMMANDS!r})):\n"
        "    try: app([*args, '--help'])\n"
        "    except SystemExit: pass\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=settings(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_two_examples(name: str) -> None:
    page = streammeta(name, "--help").stdout
    _, heading, examples = page.partition("Examples")
    assert heading
    shown = [line for line in examples.splitlines() if line.strip().startswith("streammeta ")]
    assert len(shown) >= 2
    assert any(f"streammeta {name}" in line for line in shown)


def test_evaluate_prints_scores_on_stdout_and_the_rest_on_stderr(table: Path) -> None:
    done = streammeta("evaluate", str(table), "--target", "label", "--models", "majority,no_change")
    assert "majority" in done.stdout
    assert "kappa-temporal" in done.stdout
    assert "classification of 'label' (the target has texts, such as 'a')" in done.stderr
    assert "chunk 1" in done.stderr
    assert "2 events rejected" in done.stderr
    assert "line 32: 2 fields, expected 3" in done.stderr
    assert "missing_target" in done.stderr


def test_evaluate_json_is_one_object_per_model_the_default_first(table: Path) -> None:
    args = ("--models", "no_change,streammeta", "--json", "--seed", "2")
    done = streammeta("evaluate", str(table), "--target", "label", *args)
    ours, other = (json.loads(line) for line in done.stdout.splitlines())
    assert (ours["model"], other["model"]) == ("streammeta", "no_change")
    assert ours["rows"] == other["rows"] == 118
    assert ours["metric"]["accuracy"] > 0.5 > other["metric"]["accuracy"]
    assert (ours["seed"], ours["chunk"]) == (2, 1)
    assert ours["experts"]
    assert {"p50", "p99", "max"} == set(ours["latency_us"])


def test_what_evaluate_has_learned_can_be_given_to_the_next_run(table: Path) -> None:
    args = ("evaluate", str(table), "--target", "label", "--models", "streammeta", "--json")
    file = table.parent / "made" / "meta.init"
    first = streammeta(*args, "--save-init", str(file))
    assert f"meta-parameters: {file}" in first.stderr
    second = json.loads(streammeta(*args, "--init", str(file)).stdout)
    assert second["rows"] == json.loads(first.stdout)["rows"] == 118
    numbers = table.parent / "numbers.csv"
    numbers.write_text("a,b,y\n" + "".join(f"{i},{i % 3},{i * 1.5}\n" for i in range(40)))
    other = streammeta("evaluate", str(numbers), "--target", "y", "--init", str(file), code=78)
    assert "was made for classification with layers" in other.stderr
    assert "this stream needs regression with" in other.stderr
    assert "Traceback" not in other.stderr


def test_evaluate_forecasts_at_a_horizon_and_writes_a_report(tmp_path: Path) -> None:
    path = tmp_path / "load.jsonl"
    rows = [{"hour": h % 24, "load": (h % 24) * 1.5 + 0.25} for h in range(150)]
    path.write_text("\n".join(map(json.dumps, rows)))
    report = tmp_path / "out" / "report.html"
    done = streammeta(
        *("evaluate", str(path), "--target", "load", "--horizon", "2", "--chunk", "4"),
        *("--models", "no_change", "--json", "--report", str(report)),
    )
    told = json.loads(done.stdout)
    assert told["rows"] == 148
    assert set(told["metric"]) == {"mae", "rmse", "r2", "mase", "mae_last_value"}
    page = report.read_text()
    assert "error (units of the target)" in page
    assert "default-src &#x27;none&#x27;" in page, "the report must not need a network"


def test_settings_change_the_model_and_the_report_says_what_it_learned(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = streammeta(
        *("replay", "sine_switch", "--rows", "400", "--models", "streammeta", "--json"),
        *("--set", "model.learner=anil", "--set", "model.partner=none", "--report", str(report)),
    )
    (told,) = json.loads(done.stdout)["insights"]
    assert told["learner"] == "anil"
    shares = {layer["name"]: layer["share"] for layer in told["layers"]}
    assert shares["layer 3 weights"] + shares["layer 3 biases"] == pytest.approx(1.0)
    page = report.read_text()
    assert "What anil has learned about adapting" in page
    assert "share of the moves" in page


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["evaluate", "none.csv", "--target", "y"], 69, "no such file"),
        (["evaluate", "TABLE", "--target", "labl"], 2, "did you mean 'label'"),
        (["evaluate", "TABLE", "--target", "label", "--task", "regression"], 2, "holds texts"),
        (["evaluate", "TABLE", "--target", "label", "--task", "ranking"], 2, "expected auto"),
        (["evaluate", "TABLE", "--target", "label", "--models", "nope"], 2, "no model is called"),
        (["evaluate", "TABLE", "--target", "label", "--set", "model.seed=1"], 78, "use --seed"),
        (["replay", "sine_switch", "--set", "model.learnr=maml"], 78, "did you mean 'learner'"),
        (["replay", "sine_switch", "--set", "model.partner=mamml"], 78, "did you mean maml"),
        (["evaluate", "TABLE", "--target", "label", "--models", ","], 2, "expected names such as"),
        (
            ["evaluate", "TABLE", "--target", "label", "--report", "/dev/null/r.html"],
            69,
            "cannot w",
        ),
        (["replay", "sine_swich"], 2, "did you mean sine_switch"),
        (["replay", "sine_switch", "--pace", "fast"], 2, "expected max, realtime, 10x or 500/s"),
        (["bench", "nothing"], 2, "known: quickstart, ablation, sine-switch"),
        (["bench", "classification", "--check"], 2, "classification has no gates"),
        (
            ["evaluate", "TABLE", "--target=label", "--models=majority", "--save-init", "x.init"],
            2,
            "which is not among the models: majority",
        ),
        (
            ["evaluate", "TABLE", "--target", "label", "--save-init", "/dev/null/x"],
            69,
            "cannot write /dev/null/x",
        ),
        (["components", "show", "no_chang"], 2, "did you mean no_change"),
        (["run", "none.toml"], 78, "cannot read none.toml"),
        (["validate", "none.toml"], 78, "cannot read none.toml"),
        (["fly"], 2, "No such command"),
    ],
)
def test_a_wrong_call_says_why_in_one_line_and_has_its_exit_code(
    table: Path, args: list[str], code: int, words: str
) -> None:
    args = [str(table) if arg == "TABLE" else arg for arg in args]
    done = streammeta(*args, cwd=table.parent, code=code)
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_replay_tells_the_drifts_found_from_the_true_ones() -> None:
    args = ("concept_mix", "--rows", "4200", "--models", "no_change")
    done = streammeta("replay", *args)
    assert "4,000" in done.stdout
    assert "0 of 1 drifts found" in done.stdout
    listed = streammeta("replay", "--list").stdout
    assert "sensor_fault" in listed
    told = json.loads(streammeta("replay", *args, "--json").stdout)
    assert told["true_drifts"] == [[4_000, 4_000]]


def test_replay_freezes_at_the_drift_that_its_card_knows() -> None:
    args = ("replay", "sine_switch", "--rows", "230", "--json", "--models")
    at_drift, at_row = (
        json.loads(streammeta(*args, f"frozen@{where}").stdout)["metric"]
        for where in ("drift", "200")
    )
    assert at_drift == at_row


GATED = """
from scenarios.bench import Gate, Suite

def gates(book):
    value = book.mean("majority", "concept_mix")
    return [Gate(f"accuracy {value:.4f}, above .1", value > 0.1), *STRICT]

STRICT = []
SUITE = Suite("gated", "for tests", 0.1, ("concept_mix",), ("majority",), (0,), gates=gates)
"""


def test_bench_check_prints_each_gate_and_exits_1_when_one_fails(tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent)
    place = {"PYTHONPATH": os.pathsep.join((root, str(tmp_path)))}
    (tmp_path / "gated.py").write_text(GATED)
    done = streammeta("bench", "gated:SUITE", "--quick", "--check", **place)
    assert re.search(r"^ok +accuracy 0\.\d{4}, above \.1$", done.stdout, re.MULTILINE)
    (tmp_path / "strict.py").write_text(GATED.replace("[]", "[Gate('never', False)]"))
    done = streammeta("bench", "strict:SUITE", "--quick", "--check", code=1, **place)
    assert "FAILED  never" in done.stdout
    assert "ok " in done.stdout
    (tmp_path / "empty.py").write_text(GATED.replace("return [", "return []; [", 1))
    done = streammeta("bench", "empty:SUITE", "--quick", "--check", code=1, **place)
    assert "no gate can be checked" in done.stdout


def test_bench_writes_json_lines_and_a_leaderboard(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    args = ("classification", "--quick", "--models", "no_change,majority", "--json", str(out))
    done = streammeta("bench", *args, "--report", str(tmp_path / "r.html"))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["model"] for line in lines] == ["no_change", "majority"]
    assert lines[0]["command"].startswith("streammeta bench classification --quick")
    assert "concept_mix: 6,000 rows scored, chunk 1, seeds 0" in done.stdout
    assert "2 of 2" in done.stderr
    assert "bench classification" in (tmp_path / "r.html").read_text()


def test_bench_lists_its_suites_into_a_file_too(tmp_path: Path) -> None:
    file = tmp_path / "made" / "suites.jsonl"
    assert streammeta("bench", "--list", "--json", str(file)).stdout == ""
    lines = file.read_text().splitlines()
    assert {"quickstart", "sine-switch"} <= {json.loads(line)["name"] for line in lines}
    assert streammeta("bench", "--list", "--json", "-").stdout.splitlines() == lines


def test_bench_help_names_the_variables_it_reads() -> None:
    page = streammeta("bench", "--help").stdout
    assert "STREAMMETA_DATA" in page
    assert "STREAMMETA_PEERS" in page


def test_components_are_listed_and_shown() -> None:
    rows = [json.loads(line) for line in streammeta("components", "--json").stdout.splitlines()]
    assert {"kind", "name", "target", "summary"} == set(rows[0])
    assert {"maml", "sensor_fault", "jsonl", "sine-switch"} <= {row["name"] for row in rows}
    assert "red and the blue wire" in streammeta("components", "show", "sensor_fault").stdout


CONFIG = """
[source]
scenario = "sine_switch"
rows = 900

[[sinks]]
path = "out/predictions.jsonl"
outputs = ["predicted"]

[metrics]
port = 0

[checkpoint]
folder = "out/checkpoints"
every_events = 100
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return path


def rows_of(folder: Path) -> list[int]:
    text = (folder / "out" / "predictions.jsonl").read_text()
    return [json.loads(line)["row"] for line in text.splitlines()]


def test_a_dry_run_checks_everything_and_starts_nothing(config: Path) -> None:
    done = streammeta("run", str(config), "--dry-run", cwd=config.parent)
    assert "nothing started" in done.stderr
    assert not (config.parent / "out").exists()
    wrong = streammeta("run", str(config), "--set", "sinks.0.kind=pulsar", code=78)
    assert "no sink is called 'pulsar'" in wrong.stderr
    wrong = streammeta("run", str(config), "--set", "model.sed=1", code=78)
    assert "did you mean 'seed'" in wrong.stderr


@pytest.mark.parametrize(
    ("sets", "code", "words"),
    [
        (["model.device=cuda:99"], 78, "model.device is 'cuda:99'"),
        (["model.init=none.init"], 78, "none.init does not exist"),
        (["model.init=run.toml"], 78, "run.toml holds no meta-parameters"),
        (["model.learner=no_module:make"], 78, "No module named 'no_module'"),
        (["model.detectors=['ddm']"], 78, "model.detectors"),
        (["pace=fast"], 78, "expected max, realtime, 10x or 500/s"),
        (["sinks.0.path=/dev/null/p.jsonl"], 69, "/dev/null/p.jsonl: cannot be opened"),
        (["checkpoint.folder=/dev/null/c"], 69, "checkpoint.folder: /dev/null/c"),
    ],
)
def test_fresh_forgets_nothing_when_the_run_cannot_start(
    config: Path, sets: list[str], code: int, words: str
) -> None:
    folder = config.parent
    streammeta("run", str(config), "--max-events", "20", cwd=folder)
    given = [word for text in sets for word in ("--set", text)]
    done = streammeta("run", str(config), "--fresh", *given, cwd=folder, code=code)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    resumed = streammeta("run", str(config), "--max-events", "1", "--resume", cwd=folder)
    assert "resumed after event 20" in resumed.stderr


def test_two_sinks_of_one_name_are_refused_by_run_and_by_validate(config: Path) -> None:
    config.write_text(CONFIG + '\n[[sinks]]\npath = "elsewhere/predictions.jsonl"\n')
    for args in (["run", "--dry-run"], ["validate"]):
        done = streammeta(*args, str(config), cwd=config.parent, code=78)
        assert "two are called 'predictions.jsonl'" in done.stderr


def test_a_pace_by_event_time_needs_event_time(config: Path, table: Path) -> None:
    config.write_text(f'pace = "10x"\n[source]\npath = "{table}"\ntarget = "label"\n')
    done = streammeta("run", str(config), "--fresh", cwd=config.parent, code=78)
    assert "by event time, but the events have none" in done.stderr


def test_a_port_in_use_is_69_and_costs_no_commit(config: Path) -> None:
    folder = config.parent
    streammeta("run", str(config), "--max-events", "20", cwd=folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = f"metrics.port={taken.getsockname()[1]}"
        done = streammeta("run", str(config), "--fresh", "--set", port, cwd=folder, code=69)
    assert "metrics cannot be served at 127.0.0.1" in done.stderr
    resumed = streammeta("run", str(config), "--max-events", "1", "--resume", cwd=folder)
    assert "resumed after event 20" in resumed.stderr


def test_validate_builds_the_model(config: Path) -> None:
    assert "ok" in streammeta("validate", str(config)).stdout
    wrong = streammeta("validate", str(config), "--set", "model.learner=mamml", code=78)
    assert "no learner is called 'mamml'; did you mean maml, fomaml?" in wrong.stderr
    wrong = streammeta("validate", str(config), "--set", "model.device=cuda:99", code=78)
    assert "model.device is 'cuda:99'" in wrong.stderr


def test_validate_refuses_a_task_that_nothing_tells_as_run_does(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    source = '[source]\nkind = "redis"\nurl = "redis://127.0.0.1:1/0"\nstream = "rows"\n'
    path.write_text(source)
    for command in ("validate", "run"):
        wrong = streammeta(command, str(path), code=78)
        assert "model.task: source 'redis' has no labels to decide by" in wrong.stderr
    path.write_text('[serve]\njournal = "j"\n')
    assert "over HTTP have no labels" in streammeta("validate", str(path), code=78).stderr
    path.write_text(f'{source}[model]\ntask = "regression"\n')
    assert "ok" in streammeta("validate", str(path)).stdout


def test_the_comparison_waits_for_labels_as_long_as_the_live_run(config: Path) -> None:
    compare = '[compare]\nmodels = ["no_change"]\nseeds = [0]\n'
    config.write_text(CONFIG.replace("rows = 900", "rows = 60\nlabel_delay = 7") + compare)
    settings = load_config(config, environment={}).config
    assert settings.compare is not None
    assert [job.label_delay for job in Comparison(settings, settings.compare).jobs] == [7]
    done = streammeta("run", str(config), cwd=config.parent)
    assert "labels 7 rows late" in done.stdout


def test_a_run_that_stops_goes_on_where_it_was(config: Path) -> None:
    folder = config.parent
    first = streammeta("run", str(config), "--max-events", "250", cwd=folder)
    assert "--max-events: 250 events" in first.stderr
    assert rows_of(folder) == list(range(250))
    second = streammeta("run", str(config), "--resume", cwd=folder)
    assert "resumed after event 250" in second.stderr
    assert rows_of(folder) == list(range(900))
    third = streammeta("run", str(config), "--fresh", "--max-events", "10", cwd=folder)
    assert "resumed" not in third.stderr
    assert rows_of(folder) == list(range(10))


def test_sigterm_drains_commits_and_exits_0_while_metrics_are_served(config: Path) -> None:
    folder = config.parent
    running = subprocess.Popen(
        command("run", str(config), "--pace", "60/s"),
        cwd=folder,
        env=settings(),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    address = ""
    while not address:
        line = running.stderr.readline()
        assert line, "the run ended before it served metrics"
        if line.startswith("metrics: "):
            address = line.split()[1]
    deadline = time.monotonic() + 60
    page = ""
    ingested = re.compile(r"^streammeta_events_ingested_total\{.*\} [1-9]", re.MULTILINE)
    while not ingested.search(page) and time.monotonic() < deadline:
        with urllib.request.urlopen(address, timeout=5) as answer:
            page = answer.read().decode()
        time.sleep(0.2)
    running.send_signal(signal.SIGTERM)
    told = running.communicate(timeout=60)[1]
    assert running.returncode == 0, told
    assert "stopped: " in told
    rows = rows_of(folder)
    assert 0 < len(rows) < 900
    streammeta("run", str(config), "--resume", cwd=folder)
    assert rows_of(folder) == list(range(900))


def test_the_live_view_names_a_fault_and_the_alarm_that_found_it() -> None:
    from io import StringIO

    from rich.console import Console

    page = StringIO()
    view = LiveView(Console(file=page, width=200), "classification", 40, {20: "FAULT wires"})
    with view:
        for row in range(40):
            view.take([Predicted(str(row), "", row, None, "a")])
            view.take([Scored(str(row), "", row, "a", "a", 0.0, 0.1, 0)])
            if row in (10, 27):
                view.take([DriftDetected("", row, row - 2, 1, "hddm_w", "error")])
        view.take([Rejected("x", "decode", "malformed", "line 3")])
    told = page.getvalue()
    assert "row     20: FAULT wires" in told
    assert "row     27: drift detected by hddm_w on error (7 rows after the fault)" in told
    assert "false alarm" in told
    assert "40 of 40 rows" in view.line(time.monotonic())
    assert "1 rejected" in view.line(time.monotonic())


def test_an_alarm_is_credited_to_a_fault_of_its_own_key() -> None:
    from io import StringIO

    from rich.console import Console

    page = StringIO()
    told = {20: "b: FAULT wires", 30: "c: first row"}
    view = LiveView(Console(file=page, width=200), "classification", 60, told, faults={20})
    for row in range(60):
        key = "ab"[row % 2 == 0] if row < 30 else "abc"[row % 3]
        view.take([Predicted(str(row), key, row, None, "a")])
        if row in (21, 26, 33, 35):
            view.take([DriftDetected(key, row, row, 1, "bank", "error")])
    said = page.getvalue()
    assert "row     21: a: drift detected by bank on error (no fault before it" in said
    assert "row     26: b: drift detected by bank on error (3 of its rows after the fault)" in said
    assert "row     33: a: drift detected by bank on error (no fault before it" in said
    assert "row     35: c: drift detected by bank on error (no fault before it" in said


def test_a_model_of_ones_own_is_found_where_the_command_is_given(
    tmp_path: Path, table: Path
) -> None:
    source = "from river.naive_bayes import GaussianNB\n\nclass Mine(GaussianNB):\n    pass\n"
    (tmp_path / "my_module.py").write_text(source)
    args = ("evaluate", str(table), "--target", "label", "--ignore", "colour", "--json", "--models")
    script = Path(sys.executable).with_name("streammeta")  # its own folder is first on the path
    done = subprocess.run(
        [str(script), *args, "my_module:Mine,river.nb"],
        cwd=tmp_path,
        env={k: v for k, v in settings().items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    mine, same = map(json.loads, done.stdout.splitlines())
    assert (mine["model"], mine["metric"]) == ("my_module:Mine", same["metric"])
    told = streammeta(*args, "my_modul:Mine", cwd=tmp_path, code=2).stderr
    assert "there is no module 'my_modul'" in told
