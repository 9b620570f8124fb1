"""``doctor``: finds what would keep a run from working, and leaves everything as it was."""

from __future__ import annotations

import json
import socket
import sys
import tomllib
from collections import namedtuple
from importlib import util
from pathlib import Path

import pytest
import servers
from test_cli import streammeta

from streammeta.cli import doctor
from streammeta.cli.init import template_text, with_setting
from streammeta.cli.reaching import Finding

ROOT = Path(__file__).parent.parent


def found(*args: object, code: int = 0, cwd: Path | None = None, **how: str) -> dict[str, dict]:
    done = streammeta("doctor", *map(str, args), "--json", code=code, cwd=cwd, **how)
    assert "Traceback" not in done.stderr
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def looked_at(path: Path) -> dict[str, Finding]:
    """What ``doctor CONFIG`` says of the config's own things, in this process."""
    settings, finding = doctor._config(path, [])
    assert settings is not None, finding
    return {finding.name: finding for finding in doctor._named(path, settings)}


def written(folder: Path, template: str, *sets: str) -> Path:
    text = template_text(template)
    for setting in sets:
        text = with_setting(text, setting)
    path = folder / "run.toml"
    path.write_text(text.replace("runs/", f"{folder}/runs/"))
    return path


def test_a_sound_installation_is_0_and_every_part_is_named(tmp_path):
    rows = found(cwd=tmp_path)
    assert {row["outcome"] for row in rows.values()} <= {"ok", "absent", "warning"}
    for name in ("python", "drift", "scenarios", "torch", "device", "compiler", "disk", "commits"):
        assert rows[name]["told"]
    assert str(ROOT) in rows["drift"]["told"]
    assert list(tmp_path.iterdir()) == []


def test_another_package_that_hides_ours_is_a_fault_and_1(tmp_path):
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "__init__.py").write_text("")
    place = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    rows = found(code=1, cwd=tmp_path, **place)
    assert rows["scenarios"]["outcome"] == "fault"
    assert f"comes from {tmp_path}" in rows["scenarios"]["told"]


def test_the_extras_are_those_of_the_distribution():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert doctor.EXTRAS.keys() == project["optional-dependencies"].keys() - {"dev"}


def test_an_extra_that_is_not_there_is_named_with_how_to_get_it(monkeypatch):
    spec = util.find_spec
    missing = lambda name, *more: None if name == "redis" else spec(name, *more)  # noqa: E731
    monkeypatch.setattr(doctor.util, "find_spec", missing)
    (row,) = [row for row in doctor._extras() if row.name == "extra redis"]
    assert row.outcome == "absent"
    assert "pip install 'streammeta[redis]'" in row.told


@pytest.mark.parametrize(("free", "outcome"), [(10 * 2**20, "fault"), (2**29, "warning")])
def test_little_room_is_a_warning_and_none_a_fault(tmp_path, monkeypatch, free, outcome):
    usage = namedtuple("usage", "free")(free)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    assert next(doctor._disk(tmp_path)).outcome == outcome


def test_a_place_without_hard_links_cannot_have_commits(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(doctor.os, "link", refused)
    rows = {row.name: row for row in doctor._disk(tmp_path / "not" / "there")}
    assert rows["commits"].outcome == "fault"
    assert "Operation not permitted" in rows["commits"].told
    assert list(tmp_path.iterdir()) == []


def test_clocks_that_cannot_be_right_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.time, "time", lambda: 86_400.0)
    rows = {row.name: row for row in doctor._disk(tmp_path)}
    assert rows["clock"].outcome == "fault"
    monkeypatch.undo()
    monkeypatch.setattr(doctor, "_commit", lambda folder: (0.001, 90.0))
    rows = {row.name: row for row in doctor._disk(tmp_path)}
    assert rows["clock"].outcome == "warning"
    assert "+90 s away" in rows["clock"].told


def test_a_config_is_followed_to_its_source_sinks_and_port(tmp_path):
    (tmp_path / "data.csv").write_text("a,y\n1,2\n")
    path = written(tmp_path, "csv", f"source.path={tmp_path}/data.csv", "metrics.port=0")
    rows = looked_at(path)
    assert rows["source data.csv"] == ("source data.csv", "ok", "has events")
    assert rows["checkpoints"].told.endswith("none yet")
    assert rows["sink predictions.jsonl"].outcome == "ok"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data.csv", "run.toml"]


def test_what_is_not_there_is_a_fault(tmp_path):
    port = servers.free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()[1]
        path = written(
            tmp_path, "redis", f"source.url=redis://127.0.0.1:{port}/0",
            f"sinks.0.url=redis://127.0.0.1:{port}/0", f"metrics.port={used}",
            "sinks.1.path=/dev/null/p.jsonl",
        )  # fmt: skip
        rows = looked_at(path)
    assert rows["metrics"].outcome == "fault"
    for name in ("source events", "sink events:predicted"):
        assert rows[name].outcome == "fault"
        assert "cannot be reached" in rows[name].told
    assert rows["sink p.jsonl"].outcome == "fault"


def test_a_redis_that_is_there_is_reached_and_nothing_is_changed(tmp_path):
    import redis

    folder = tmp_path / "redis"
    folder.mkdir()
    server = servers.Redis(folder)
    server.start()
    try:
        with redis.Redis.from_url(server.url) as client:
            client.xadd("events", {"data": '{"x": {"a": 1}}'})
            path = written(
                tmp_path, "redis", f"source.url={server.url}", f"sinks.0.url={server.url}",
                "metrics.enabled=false",
            )  # fmt: skip
            rows = looked_at(path)
            assert client.xlen("events") == 1
            assert client.keys() == [b"events"]
    finally:
        server.kill()
    assert {row.outcome for row in rows.values()} == {"ok"}
    assert rows["source events"].told == "has events"


def test_a_source_that_is_told_things_once_is_not_read_for_a_trial(tmp_path):
    feed_folder = tmp_path / "feed"
    feed_folder.mkdir()
    feed = servers.Feed(feed_folder, "websocket", "forgets")
    feed.rows(3)
    feed.start()
    try:
        path = written(tmp_path, "websocket", f"source.url={feed.url()}", "metrics.enabled=false")
        assert looked_at(path)["source websocket"].outcome == "ok"
        assert not (feed_folder / "feed.cursor").exists()
    finally:
        feed.kill()
    assert looked_at(path)["source websocket"].outcome == "fault"
    path = written(tmp_path, "http", f"source.port={servers.free_port()}", "metrics.enabled=false")
    assert "is free" in looked_at(path)["source http"].told
    assert not (tmp_path / "runs").exists()


def test_labels_of_their_own_are_looked_at_too(tmp_path):
    (tmp_path / "rows.csv").write_text("id,a\n1,2\n")
    path = tmp_path / "run.toml"
    path.write_text(
        f'[source]\npath = "{tmp_path}/rows.csv"\ntarget = ""\nid = "id"\n'
        f'[labels]\npath = "{tmp_path}/labels.csv"\ntarget = "y"\nid = "id"\n'
        "[metrics]\nenabled = false\n"
    )
    rows = looked_at(path)
    assert rows["source rows.csv"].told == "has events"
    assert rows["labels"].outcome == "fault"
    (tmp_path / "labels.csv").write_text("id,y\n1,2\n")
    assert looked_at(path)["labels labels.csv"].outcome == "ok"


def test_a_wrong_config_is_a_fault_of_one_line(tmp_path):
    (tmp_path / "run.toml").write_text("[source]\nscenario = 'sea'\n[model]\nsed = 1\n")
    settings, finding = doctor._config(tmp_path / "run.toml", [])
    assert settings is None
    assert finding.outcome == "fault"
    assert "did you mean 'seed'" in finding.told


def test_the_table_says_it_in_words():
    done = streammeta("doctor")
    assert f"{sys.version.split()[0]} at {sys.executable}" in " ".join(done.stdout.split())
