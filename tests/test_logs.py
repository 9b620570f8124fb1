"""What a run says on stderr, for people and for collectors of logs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import servers
import structlog
from test_cli import streammeta

from streammeta.cli import logs

CONFIG = """
[source]
scenario = "sine_switch"
rows = 230

[model]
experts = ["persistence"]
hidden = [2]

[metrics]
enabled = false
"""


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(autouse=True)
def as_before():
    yield
    logs.configure("console")
    structlog.reset_defaults()


def told(stderr: str) -> list[dict]:
    rows = [json.loads(line) for line in stderr.splitlines()]
    assert all({"event", "level", "timestamp"} <= row.keys() for row in rows)
    return rows


def test_with_json_logs_every_line_of_stderr_is_an_object(config):
    rows = told(streammeta("run", str(config), "--logs", "json").stderr)
    assert all(row["level"] == "info" for row in rows)
    assert rows[-1]["event"].startswith("end of the stream: 230 events")


def test_a_fault_is_the_last_of_the_objects_and_the_environment_may_ask_for_them(config):
    config.write_text(
        CONFIG.replace('scenario = "sine_switch"\nrows = 230', 'kind = "redis"\nstream = "s"\n'
                       f'url = "redis://127.0.0.1:{servers.free_port()}/0"\ngive_up_after = 0.2')
        .replace("[model]", '[model]\ntask = "regression"')
    )  # fmt: skip
    done = streammeta("run", str(config), code=69, STREAMMETA_LOGS="json")
    last = told(done.stderr)[-1]
    assert last["level"] == "error"
    assert "redis stream 's': cannot be reached" in last["event"]


def test_another_form_is_refused(config):
    done = streammeta("run", str(config), "--logs", "xml", code=2)
    assert "--logs is 'xml', expected console or json" in done.stderr


def test_the_warnings_of_the_library_have_the_same_form(capsys):
    logs.configure("json")
    structlog.get_logger("streammeta.store").warning("damaged commit skipped", path="p")
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger().error("failed", exc_info=True)
    logs.fault("over", exception="Traceback")
    one, other, last = told(capsys.readouterr().err)
    assert (one["event"], one["level"], one["path"]) == ("damaged commit skipped", "warning", "p")
    assert "ValueError: why" in other["exception"]
    assert (last["event"], last["exception"]) == ("over", "Traceback")


def test_for_people_there_are_no_colours_where_nobody_sees_them(capsys):
    logs.configure("console")
    structlog.get_logger("streammeta.store").warning("damaged commit skipped", path="p")
    try:
        raise ValueError("why")
    except ValueError:
        structlog.get_logger().error("failed", exc_info=True)
    said = capsys.readouterr().err
    assert "damaged commit skipped" in said
    assert "ValueError: why" in said
    assert "\x1b" not in said
