"""librdkafka's mock cluster: brokers that speak the protocol, in a thread of this process.

It lives as long as the client that began it. It has no disk and cannot be started again.
"""

from __future__ import annotations

import json

import confluent_kafka as kafka

from streammeta.sources.kafka import quiet


class Cluster:
    """One broker; a topic is there, with four partitions, once somebody produces to it."""

    def __init__(self) -> None:
        settings = {"test.mock.num.brokers": 1, "bootstrap.servers": "none"}
        self._holder = kafka.Producer(settings, logger=quiet())
        brokers = self._holder.list_topics(timeout=10).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
        self._producer = kafka.Producer(
            {"bootstrap.servers": self.servers, "linger.ms": 0}, logger=quiet()
        )

    def produce(
        self, topic: str, payloads: list[bytes], partition: int = 0, key: str | None = None
    ) -> None:
        for payload in payloads:
            self._producer.produce(topic, payload, key, partition=partition)
        assert self._producer.flush(20) == 0

    def fill(self, topic: str, n: int, first: int = 0, partition: int = 0) -> None:
        rows = [{"a": i, "y": i % 7} for i in range(first, first + n)]
        self.produce(topic, [json.dumps(row).encode() for row in rows], partition)

    def ends(self, topic: str, partition: int = 0) -> tuple[int, int]:
        """The first offset that is there, and the next one to come."""
        settings = {"bootstrap.servers": self.servers, "group.id": "test"}
        consumer = kafka.Consumer(settings, logger=quiet())
        found = consumer.get_watermark_offsets(kafka.TopicPartition(topic, partition), timeout=10)
        consumer.close()
        return found

    def messages(self, topic: str) -> list[tuple[str, dict]]:
        settings = {"bootstrap.servers": self.servers, "group.id": "test"}
        consumer = kafka.Consumer(settings, logger=quiet())
        found, expected = [], 0
        where = []
        for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
            low, high = consumer.get_watermark_offsets(kafka.TopicPartition(topic, partition))
            where.append(kafka.TopicPartition(topic, partition, low))
            expected += high - low
        consumer.assign(where)
        while len(found) < expected:
            for message in consumer.consume(expected, timeout=1):
                found.append((message.key().decode(), json.loads(message.value())))
        consumer.close()
        return found

    def end(self) -> None:
        """The brokers are gone for good."""
        self._holder = self._producer = None
