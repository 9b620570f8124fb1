"""``init``: every template validates and runs, with what it names there."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import kafkas
import mqtt_clients
import pytest
import servers
from test_cli import command, settings, streammeta

from streammeta.cli.init import TEMPLATES, template_text, with_setting
from streammeta.config_file import load_config
from streammeta.errors import ConfigError

ROWS = 24
SECRETS = {"EVENTS_TOKEN": "t", "FEED_TOKEN": "t", "MQTT_PASSWORD": "p"}
SMALL = ("model.experts=['persistence']", "model.hidden=[2]", "metrics.port=0")


def test_every_template_is_a_config_that_shows_what_else_there_is(tmp_path):
    for name in TEMPLATES:
        path = tmp_path / f"{name}.toml"
        path.write_text(template_text(name))
        config = load_config(path, environment={}).config
        assert config.checkpoint is not None
        assert config.checkpoint.folder == f"runs/{name}/checkpoints"
        assert len(config.sinks) >= 3
        assert "NAME" not in path.read_text()


def test_every_commented_field_can_be_uncommented(tmp_path):
    import re

    for name in TEMPLATES:
        text = template_text(name)
        found = re.findall(r"^# (\w+ = (?:\[.*?\](?=  )|\S+))  ", text, re.MULTILINE)
        for line in found:
            path = tmp_path / "one.toml"
            text_with = text.replace(f"# {line}", line, 1)
            others = ("key =", "url =", "outputs =", "dead_letter =", "kind =")
            if line.startswith(others[1:]):
                continue  # a line of the commented sink
            path.write_text(text_with)
            load_config(path, environment=SECRETS)
        assert found


def test_settings_are_written_where_they_belong_and_keep_their_comments():
    text = with_setting(template_text("csv"), "source.path=sales.csv")
    assert '\npath = "sales.csv"\n' in text
    text = with_setting(text, "source.time=day")
    text = with_setting(text, "source.ignore=['a', 'b']")
    for line in ('time = "day"', "ignore = ['a', 'b']"):
        assert f"\n{line:<32}# column" in text
    text = with_setting(text, "model.seed=7")
    assert "[model]\nseed = 7\ntask" in text
    text = with_setting(text, "sinks.1.path=d.jsonl")
    assert text.count('path = "d.jsonl"') == 1
    for wrong in ("source", "nowhere.x=1", "sinks.9.path=x", "sinks.0.a.b=1"):
        with pytest.raises(ConfigError):
            with_setting(text, wrong)


def test_the_command_writes_the_file_once_and_says_what_next(tmp_path):
    done = streammeta("init", "--template", "csv", "--set", "source.target=sold", cwd=tmp_path)
    assert "streammeta run streammeta.toml" in done.stderr
    assert done.stdout == ""
    text = (tmp_path / "streammeta.toml").read_text()
    assert 'target = "sold"' in text
    again = streammeta("init", "--template", "http", cwd=tmp_path, code=2)
    assert "is there already: --force replaces it" in again.stderr
    assert (tmp_path / "streammeta.toml").read_text() == text
    streammeta("init", "--template", "http", "--force", cwd=tmp_path)
    assert (tmp_path / "streammeta.toml").read_text() == template_text("http")
    assert streammeta("init", "-", "--template", "http").stdout == template_text("http")


def test_a_second_config_of_a_kind_does_not_go_on_where_the_first_one_stopped(tmp_path):
    for name in ("first", "second"):
        streammeta("init", f"{name}.toml", "--template", "http", cwd=tmp_path)
        text = (tmp_path / f"{name}.toml").read_text()
        for kept in ("checkpoints", "journal", "predictions.jsonl", "drifts.jsonl"):
            assert f'= "runs/{name}/{kept}"' in text
        assert "runs/http" not in text


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--template", "pulsar"], 2, "templates: csv, follow, http"),
        (["x.yaml"], 2, "expected .toml"),
        (["--set", "model.sed=1"], 78, "did you mean 'seed'"),
        (["no/such/folder.toml"], 69, "cannot write"),
    ],
)
def test_what_cannot_be_written_is_said_and_leaves_no_file(tmp_path, args, code, words):
    done = streammeta("init", *args, cwd=tmp_path, code=code)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# Every template against the real thing: who fills the stream, and what has to be set for the test.


class Stage:
    """A folder, and the servers of one test."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        self.folder, self.request = folder, request
        self.stdin = subprocess.DEVNULL
        self.fill: Callable[[], None] = lambda: None  # once the run is up

    def started(self, server: servers.Server) -> servers.Server:
        self.request.addfinalizer(server.kill)
        server.start()
        return server

    def own(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder


def lines() -> list[bytes]:
    return [json.dumps({"a": i % 5, "y": i % 5 * 2.0}).encode() for i in range(ROWS)]


def scenario(stage: Stage) -> list[str]:
    return []


def csv(stage: Stage) -> list[str]:
    text = "a,y\n" + "".join(f"{i % 5}.5,{i % 5}\n" for i in range(ROWS))
    (stage.folder / "data.csv").write_text(text)
    return []


def follow(stage: Stage) -> list[str]:
    (stage.folder / "events.jsonl").write_bytes(b"\n".join(lines()) + b"\n")
    return ["source.target=y"]


def stdin(stage: Stage) -> list[str]:
    (stage.folder / "pipe").write_bytes(b"\n".join(lines()))
    stage.stdin = stage.folder / "pipe"
    return ["source.target=y"]


def http(stage: Stage) -> list[str]:
    port = servers.free_port()

    def fill() -> None:
        def post() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/events", b"\n".join(lines())):
                    return True
            except OSError:
                return False

        mqtt_clients.until(post)

    stage.fill = fill
    return ["source.target=y", f"source.port={port}"]


def fed(stage: Stage, protocol: str, how: str) -> list[str]:
    feed = servers.Feed(stage.own("feed"), protocol, how)
    feed.say(*(["data", line.decode()] for line in lines()))
    stage.started(feed)
    return ["source.target=y", f"source.url={feed.url()}"]


def sse(stage: Stage) -> list[str]:
    return fed(stage, "sse", "resumes")


def websocket(stage: Stage) -> list[str]:
    return fed(stage, "websocket", "forgets")


def redis(stage: Stage) -> list[str]:
    import redis as client

    server = stage.started(servers.Redis(stage.own("redis")))
    with client.Redis.from_url(server.url) as link:
        for line in lines():
            link.xadd("events", {"data": line})
    return ["source.target=y", f"source.url={server.url}", f"sinks.0.url={server.url}"]


def nats(stage: Stage) -> list[str]:
    import jetstreams

    server = stage.started(servers.Nats(stage.own("nats")))
    streams = jetstreams.Streams(server.url)
    streams.make("events")
    streams.publish("events.a", lines())
    return ["source.target=y", f"source.url={server.url}"]


def kafka(stage: Stage) -> list[str]:
    cluster = kafkas.Cluster()
    stage.request.addfinalizer(cluster.end)
    cluster.produce("events", lines())
    return ["source.target=y", f"source.servers={cluster.servers}"]


def mqtt(stage: Stage) -> list[str]:
    server = stage.started(servers.Mosquitto(stage.own("mosquitto")))
    from streammeta.sources.mqtt import MqttSource

    first = MqttSource("127.0.0.1", "plant/+/reading", "streammeta", "j", port=server.port)
    first._folder = stage.folder / "other"
    mqtt_clients.subscribed(first)  # the session is there before anything is published
    first.close()
    mqtt_clients.publish(server.port, lines(), "plant/a/reading")
    return ["source.target=y", f"source.port={server.port}"]


STAGES = {
    "scenario": scenario, "csv": csv, "follow": follow, "stdin": stdin, "http": http, "sse": sse,
    "websocket": websocket, "redis": redis, "nats": nats, "kafka": kafka, "mqtt": mqtt,
}  # fmt: skip


def test_every_template_has_a_stage():
    assert STAGES.keys() == set(TEMPLATES)


@pytest.mark.slow  # each starts the command, and a server
@pytest.mark.parametrize("name", STAGES)
def test_a_template_runs_as_it_is_written(name, tmp_path, request):
    stage = Stage(tmp_path, request)
    sets = [word for text in (*STAGES[name](stage), *SMALL) for word in ("--set", text)]
    streammeta("init", "run.toml", "--template", name, *sets, cwd=tmp_path)
    stream = open(stage.stdin, "rb") if isinstance(stage.stdin, Path) else None  # noqa: SIM115
    run = subprocess.Popen(
        command("run", "run.toml", "--max-events", str(ROWS)),
        cwd=tmp_path,
        env=settings(OMP_NUM_THREADS="1"),
        stdin=stream or subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if stream is not None:
        stream.close()
    stage.fill()
    told = run.communicate(timeout=600)[1]
    assert run.returncode == 0, told
    out = tmp_path / "runs" / "run"
    answers = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [answer["row"] for answer in answers] == list(range(ROWS))
    assert (out / "rejected.jsonl").read_text() == ""
    assert len(list((out / "checkpoints" / "shard-0000").glob("*.commit"))) == 1
