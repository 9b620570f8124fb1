"""Outputs as messages of a Kafka topic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from streammeta.errors import SinkError
from streammeta.events import Output
from streammeta.sinks.base import Position
from streammeta.sinks.jsonl import kept, to_line
from streammeta.sources.kafka import TIMEOUT, library, properties_of, quiet


class KafkaSink:
    """One message per output, a JSON line; its key is the output's ``key``, or else its ``id``.

    Not durable in the sense of a commit: messages are sent at once, and after a crash those since
    the last commit are sent again with the same ids, so readers should go by ``id``. When a commit
    is written all messages before it have been acknowledged by all replicas in sync. librdkafka
    sends again what got lost on its way, in order and without doubling it (idempotence); there is
    no transaction.

    Args:
        servers: brokers to begin with, ``host:port,host:port``.
        topic: the topic.
        kinds: names of the outputs to send; all by default.
        properties: settings of librdkafka, such as ``compression.type=lz4``.
        give_up_after: seconds after which a message that nobody acknowledged is an error.
        name: by which messages name the sink; the topic by default.

    Raises:
        UsageError: the package is missing, or a property cannot be used.
    """

    durable = False

    def __init__(
        self,
        servers: str,
        topic: str,
        kinds: Sequence[str] | None = None,
        *,
        properties: Sequence[str] = (),
        give_up_after: Annotated[float, Field(gt=0)] = 30.0,
        name: str | None = None,
    ) -> None:
        self.name = name or topic
        self._kafka = library()
        self._topic, self._kinds, self._patience = topic, kept(kinds), give_up_after
        self._settings: dict[str, Any] = {
            "enable.idempotence": True,
            "message.timeout.ms": int(give_up_after * 1000),
            **properties_of(servers, properties),
        }
        self._producer: Any = None
        self._failed = ""

    def check(self) -> None:
        """Ask the brokers for the topic; that they are unreachable is a fault at once."""
        try:
            self._client().list_topics(self._topic, timeout=TIMEOUT)
        except self._kafka.KafkaException as error:
            raise SinkError(f"kafka topic {self._topic!r}: cannot be reached: {error}") from error

    def open(self, resume_at: Position | None) -> None:
        """Nothing to go back to: what was sent stays sent."""
        self._client()

    def write(self, outputs: Sequence[Output]) -> int:
        """Send the outputs of the kinds that are kept; returns how many."""
        taken = [output for output in outputs if isinstance(output, self._kinds)]
        for output in taken:
            key = getattr(output, "key", "") or getattr(output, "id", "")
            self._send(to_line(output).rstrip(), key)
        self._client().poll(0)
        self._raise()
        return len(taken)

    def position(self) -> Position:
        """Always the same."""
        return {}

    def flush(self) -> None:
        """Wait until everything is acknowledged."""
        left = self._client().flush(self._patience + TIMEOUT)
        self._raise()
        if left:
            raise SinkError(f"kafka topic {self._topic!r}: {left} messages were not acknowledged")

    def close(self) -> None:
        """Send what is left and let go."""
        if self._producer is not None:
            try:
                self.flush()
            finally:
                self._producer = None

    def _client(self) -> Any:
        if self._producer is None:
            self._producer = self._kafka.Producer(self._settings, logger=quiet())
        return self._producer

    def _send(self, line: str, key: str) -> None:
        producer = self._client()
        while True:
            try:
                producer.produce(self._topic, line, key or None, on_delivery=self._delivered)
            except BufferError:  # librdkafka's own queue is full: wait for answers
                producer.poll(0.1)
                self._raise()
            else:
                return

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed = self._failed or str(error)

    def _raise(self) -> None:
        if self._failed:
            raise SinkError(f"kafka topic {self._topic!r}: cannot be written: {self._failed}")
