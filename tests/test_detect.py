"""``streammeta detect``: a file changes, and is asked when, and what about it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from scenarios.bank_cost import BANKS, measure
from scenarios.unlabelled import alarms_of_features
from streammeta.cli import app
from streammeta.errors import UsageError
from streammeta.events import DriftDetected, Event, Rejected

CHANGE = 700


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """What the features mean turns round at row 700, where one of them moves as well."""
    rng = np.random.default_rng(0)
    path = tmp_path / "readings.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["a", "b", "site", "y"])
        for row in range(1200):
            a, b = rng.normal(size=2)
            late = row >= CHANGE
            label = "up" if (a > b) != late else "down"
            rows.writerow([a, b + 3.0 * late, "north" if row % 2 else "south", label])
    return path


def told(*args: object) -> list[dict[str, object]]:
    found = CliRunner().invoke(app, ["detect", *map(str, args), "--json"])
    assert found.exit_code == 0, found.output
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_alarms_with_their_reasons_as_json(table: Path) -> None:
    (alarm, *rest) = told(table, "--target", "y")
    assert not rest
    assert CHANGE <= int(str(alarm["row"])) < CHANGE + 60
    why = alarm["explanation"]
    assert isinstance(why, dict)
    assert {m["feature"] for m in why["moved"]} == {"b"}
    assert why["context"] in ("new", "")


def test_without_a_target_features_alone_are_watched(table: Path) -> None:
    alarms = told(table, "--ignore", "y")
    assert alarms[0]["signal"] == "features"
    assert CHANGE < int(str(alarms[0]["row"])) < CHANGE + 250
    assert abs(int(str(alarms[0]["onset"])) - CHANGE) <= 40


def test_people_are_shown_a_table(table: Path) -> None:
    found = CliRunner().invoke(app, ["detect", str(table), "--target", "y"])
    assert "alarms of readings.csv" in found.stdout
    assert "b moved up" in found.stdout
    calm = CliRunner().invoke(app, ["detect", str(table), "--target", "y", "--rows", "600"])
    assert calm.stdout.strip() == "no change"


def test_named_detectors_take_the_banks_place(table: Path) -> None:
    (alarm, *_) = told(table, "--target", "y", "--detector", "adwin")
    assert alarm["detector"] == "adwin"


def test_features_have_no_loss_that_a_detector_could_read(table: Path) -> None:
    found = CliRunner().invoke(app, ["detect", str(table), "--detector", "adwin"])
    assert isinstance(found.exception, UsageError)
    assert "need --target" in str(found.exception)


def test_rows_that_cannot_be_used_are_told_and_the_others_watched() -> None:
    rng = np.random.default_rng(1)
    events = [
        Event(f"e{row}", {"a": float(rng.normal() + 4.0 * (row >= 500))}) for row in range(800)
    ]
    events.insert(10, Event("bad", {"a": "a word"}))
    events.insert(20, Event("broken", error=("malformed", "line 21")))
    found = list(alarms_of_features(events))
    assert [one.reason for one in found if isinstance(one, Rejected)] == ["wrong_type", "malformed"]
    (alarm,) = [one for one in found if isinstance(one, DriftDetected)]
    assert alarm.explanation is not None
    assert [m.feature for m in alarm.explanation.moved] == ["a"]
    assert alarm.explanation.moved[0].effect > 2.0


@pytest.mark.parametrize("name", list(BANKS))
def test_what_the_bank_costs_is_measured_on_real_events(name: str) -> None:
    timed = measure(name, rows=200)
    assert timed.n == 200
    assert 0.1 < timed.values()["us_per_event"] < 1e6


def test_reports_and_tables_say_what_changed(table: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    command = ["evaluate", str(table), "--target", "y", "--report", str(page)]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    assert "alarms of streammeta" in found.stdout
    html = page.read_text()
    assert "Alarms of streammeta" in html
    assert "Features that moved" in html
    assert "votes, in nats" in html
