"""MQTT against a real broker: journaled before acknowledged, sent again but taken once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import servers
from mqtt_clients import PATIENCE, publish, subscribed, until
from outage_stories import killed_server_and_killed_run

from streammeta.config_file import load_config
from streammeta.errors import ConfigError, SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.mqtt import MqttSource
from streammeta.testing import read_all


@pytest.fixture
def broker(tmp_path) -> Iterator[servers.Mosquitto]:
    folder = tmp_path / "broker"
    folder.mkdir()
    server = servers.Mosquitto(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def source(broker, tmp_path) -> Iterator[Callable[..., MqttSource]]:
    made = []

    def make(**options) -> MqttSource:
        options = {"port": broker.port, "target": "y", **options}
        where = str(tmp_path / "journal")
        made.append(MqttSource("127.0.0.1", "plant/#", "streammeta-test", where, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def rows(n: int, first: int = 1) -> list[bytes]:
    return [json.dumps({"a": i, "y": i % 7}).encode() for i in range(first, first + n)]


def numbers(events: list[Event]) -> list[float]:
    return [event.x["a"] for event in events]


def test_messages_come_in_order_and_the_topic_may_be_the_key(source, broker):
    made = subscribed(source(topic_is_key=True))
    publish(broker.port, [*rows(3), b'{"a": '])
    publish(broker.port, rows(1, first=4), topic="plant/b", qos=0)
    events, _ = read_all(made, made.start(), 5)
    assert numbers([e for e in events if e.error is None]) == [1, 2, 3, 4]
    assert [e.key for e in events] == ["plant/a"] * 4 + ["plant/b"]
    assert events[3].error[1].startswith("mqtt record 3 (plant/a): not JSON")
    assert made.status() == ("", 0, 0)


def test_the_broker_keeps_what_comes_while_we_are_away(source, broker):
    subscribed(source()).close()
    publish(broker.port, rows(300))
    broker.kill()
    broker.start()
    made = source()
    assert numbers(read_all(made, made.start(), 300)[0]) == list(range(1, 301))


def test_nothing_is_acknowledged_while_nobody_reads(source, broker):
    made = subscribed(source(queue=20, inflight=10))
    publish(broker.port, rows(100))
    until(lambda: made.status().lag == 20 and len(made._pending) == 10)
    found, position = [], made.start()
    while len(found) < 100:
        events, position = made.read(position, 7)
        assert len(made._pending) <= 10
        assert made.status().lag <= 20
        found += numbers(events)
    assert found == list(range(1, 101))


def test_a_message_whose_acknowledgement_got_lost_is_taken_once(source, broker):
    made = subscribed(source(inflight=50))
    client_class = made._paho.Client
    ack, client_class.ack = client_class.ack, lambda self, mid, qos: 0  # every answer is lost
    try:
        publish(broker.port, rows(30))
        until(lambda: made.status().lag == 30)
    finally:
        client_class.ack = ack
    made.close()  # and the process with it
    again = source(inflight=50)
    first, position = read_all(again, again.start(), 30)
    assert numbers(first) == list(range(1, 31))
    publish(broker.port, rows(30, first=31))
    assert numbers(read_all(again, position, 30)[0]) == list(range(31, 61))


def test_a_broker_killed_in_mid_run_and_a_run_killed_with_it_lose_and_double_nothing(
    source, broker
):
    subscribed(source()).close()
    ids = killed_server_and_killed_run(
        broker, source, lambda n, first: publish(broker.port, rows(n, first))
    )
    assert ids == [f"mqtt:0:{i}" for i in range(700)]


def test_a_broker_that_never_comes_is_given_up_with_the_error_for_69(tmp_path):
    lonely = MqttSource(
        "127.0.0.1", "t", "c", str(tmp_path), port=servers.free_port(), give_up_after=0.2
    )
    with pytest.raises(SourceError, match=r"cannot be reached: .*refused") as told:
        read_all(lonely, lonely.start(), 1, patience=PATIENCE)
    assert told.value.exit_code == 69
    lonely.close()


def test_a_broker_that_refuses_us_is_told_at_once(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    words = folder / "passwords"
    maker = servers.program("mosquitto_passwd", "mosquitto")
    subprocess.run([maker, "-b", "-c", str(words), "u", "secret"], check=True, capture_output=True)
    broker = servers.Mosquitto(folder, f"password_file {words}")
    broker.start()
    try:
        made = MqttSource(
            "127.0.0.1", "t", "c", str(tmp_path / "j"), port=broker.port, username="u",
            password="wrong",
        )  # fmt: skip
        with pytest.raises(SourceError, match="refuses us: Not authorized"):
            read_all(made, made.start(), 1, patience=PATIENCE)
        made.close()
    finally:
        broker.kill()


def test_a_config_says_what_is_wrong_and_the_extra_is_named(tmp_path, monkeypatch):
    path = tmp_path / "c.toml"
    path.write_text('[source]\nkind = "mqtt"\nhost = "h"\ntopic = "t"\njournal = "j"\nqos = 2\n')
    with pytest.raises(ConfigError) as fault:
        load_config(path, environment={})
    told = str(fault.value).replace(str(path), path.name)
    assert "c.toml:1: source.client_id: is missing, source 'mqtt' needs it" in told
    assert "c.toml:6: source.qos: there is no such field" in told
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    monkeypatch.delattr("paho.mqtt.client", raising=False)
    with pytest.raises(UsageError, match=r"pip install streammeta\[mqtt\]"):
        MqttSource("h", "t", "c", str(tmp_path))
