"""The other side of an MQTT broker: who publishes, and who waits until we have subscribed."""

from __future__ import annotations

import time
from collections.abc import Callable

import paho.mqtt.client as paho

from streammeta.sources.mqtt import MqttSource

PATIENCE = 20.0


def until(true: Callable[[], bool]) -> None:
    """A thread or a broker has to come round to it."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


QUEUED = 20_000  # messages that a client holds at once


def publish(port: int, payloads: list[bytes], topic: str = "plant/a", qos: int = 1) -> None:
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    for first in range(0, len(payloads), QUEUED):
        part = payloads[first : first + QUEUED]
        for sent in [client.publish(topic, payload, qos=qos) for payload in part]:
            sent.wait_for_publish(PATIENCE)
    client.disconnect()
    client.loop_stop()


def subscribed(source: MqttSource) -> MqttSource:
    """The session is there: from now on the broker keeps messages for it."""
    done = []
    connected = source._connected

    def noted(client, *more) -> None:
        connected(client, *more)
        client.on_subscribe = lambda *_: done.append(True)

    source._connected = noted
    source.read(source.start(), 0)
    until(lambda: bool(done) or source._failed is not None)
    return source
