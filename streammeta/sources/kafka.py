"""A Kafka topic as a source, and what the sink shares with it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from random import Random
from typing import Annotated, Any, Literal

import structlog
from pydantic import Field

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.base import Position, SourceStatus
from streammeta.sources.clock import Clock
from streammeta.sources.outage import Outage
from streammeta.sources.wire import Records

TIMEOUT = 1.0  # seconds that a question to the brokers may take
AHEAD_KB = 16_384  # kilobytes that librdkafka may fetch ahead
_log = structlog.get_logger("streammeta.sources")


def library() -> Any:
    """The package ``confluent_kafka``.

    Raises:
        UsageError: it is missing.
    """
    try:
        import confluent_kafka
    except ImportError as error:
        raise UsageError(
            "Kafka needs the package confluent-kafka: pip install streammeta[kafka]"
        ) from error
    return confluent_kafka


def properties_of(servers: str, properties: Sequence[str]) -> dict[str, str]:
    """Settings of librdkafka from texts such as ``security.protocol=SASL_SSL``.

    Raises:
        UsageError: a text has no equals sign.
    """
    found = {"bootstrap.servers": servers}
    for text in properties:
        name, equals, value = text.partition("=")
        if not equals:
            # the text itself may be half a password
            raise UsageError("properties: expected texts like security.protocol=SASL_SSL")
        found[name.strip()] = value.strip()
    return found


def quiet() -> logging.Logger:
    """librdkafka's own log goes nowhere: what matters is in ``status``."""
    logger = logging.getLogger("streammeta.kafka")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
    return logger


class KafkaSource:
    """The messages of a topic, by their offsets; no group, and nothing is committed to Kafka.

    The position has the next offset of every partition, kept in the commits. librdkafka fetches
    ahead in threads of its own, at most ``queue`` messages or 16 MiB; a read takes what is there.
    It waits only to ask for partitions and offsets when it begins, a second at most. While the
    brokers are gone it gives nothing and ``status`` says why; after ``give_up_after`` seconds the
    fault is raised.

    Within a partition messages come in their order. With one partition a run that was killed ends
    exactly like one that was not; with several it learns each message once, but the order between
    partitions is as they came. Messages that retention removed before they were read are a gap.
    The payload is JSON (see ``sources.wire``).

    Args:
        servers: brokers to begin with, ``host:port,host:port``.
        topic: the topic; partitions that are added later are found at the next start.
        properties: settings of librdkafka, such as ``security.protocol=SASL_SSL``.
        message_key: an event without a key gets that of its message.
        target: column to predict; ``None``: envelopes.
        time: column with the event time; the message's own time where not given.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids; otherwise ``name:partition:offset``.
        ignore: columns that are left out.
        begin: where a run without a commit begins, at the ``earliest`` messages or after the
            ``latest``.
        on_gap: ``fail``, or go on at the ``earliest`` message left, or after the ``latest``.
        queue: messages of a partition fetched ahead, about.
        give_up_after: seconds without the brokers, or without the topic, after which
            ``SourceError`` is raised.
        name: the first part of the ids; the topic by default.
        clock: time; the machine's own by default.
        random: for the jitter between tries.

    Raises:
        UsageError: the package is missing, or an argument cannot be used.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        *,
        properties: Sequence[str] = (),
        message_key: bool = False,
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        begin: Literal["earliest", "latest"] = "earliest",
        on_gap: Literal["fail", "earliest", "latest"] = "fail",
        queue: Annotated[int, Field(ge=1)] = 1000,
        give_up_after: Annotated[float, Field(ge=0)] = 300.0,
        name: str | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self.name = name or topic
        self._kafka = library()
        self._topic, self._begin, self._on_gap = topic, begin, on_gap
        self._message_key = message_key
        self._columns: dict[str, Any] = {
            "target": target, "time": time, "key": key, "id": id, "ignore": ignore,
        }  # fmt: skip
        self._records = {"0": Records(self.name, **self._columns)}
        self._settings: dict[str, Any] = {
            "group.id": f"streammeta-{self.name}",  # librdkafka wants one; it is never used
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "queued.min.messages": queue,
            "queued.max.messages.kbytes": AHEAD_KB,
            "fetch.queue.backoff.ms": 10,  # else a second passes each time the queue was full
            **properties_of(servers, properties),
            "error_cb": self._noted,
        }
        self._outage = Outage(f"kafka topic {topic!r}", SourceError, give_up_after, clock, random)
        self._consumer: Any = None
        self._at: dict[str, int] = {}
        self._first: dict[str, int] | None = None
        self._down: Exception | None = None
        self._gaps = 0

    def start(self) -> Position:
        """Before the earliest messages, or after the newest ones at the first read."""
        return {"offsets": {}}

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` messages after ``position``; nothing while the brokers are gone.

        Raises:
            SourceError: the brokers have been gone for too long, the position is not one of ours,
                or messages are lost and ``on_gap`` is ``fail``.
        """
        offsets = self._checked(position)
        if not self._outage.due():
            return [], position
        try:
            if self._consumer is None or offsets != self._at:
                self._open(offsets)
            messages = self._consumer.consume(n, timeout=0)
            if not messages and self._down is not None:
                self._watermarks(next(iter(self._at)))
        except self._kafka.KafkaException as error:
            self._outage.failed(error)
            return [], position
        if messages or self._down is None:
            self._outage.over()
        events: list[Event] = []
        for message in messages:
            if message.error() is not None:
                if not events:
                    self._fault(message)
                self._seek()  # the fault comes again after the events, and so does what follows it
                break
            events.append(self._event(message))
            self._at[str(message.partition())] = message.offset() + 1
        return events, {"offsets": dict(self._at)}

    def finished(self, position: Position) -> bool:
        """Never: somebody may produce."""
        return False

    def status(self) -> SourceStatus:
        """How the last read went; ``lag`` counts what the brokers were last known to have."""
        return SourceStatus(self._outage.fault, self._lag(), self._gaps)

    def close(self) -> None:
        """Let go of the connections; the next read makes new ones."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer, self._down = None, None

    def _checked(self, position: Position) -> dict[str, int]:
        offsets = position.get("offsets")
        right = isinstance(offsets, Mapping) and all(
            isinstance(offset, int) and name.isdecimal() for name, offset in offsets.items()
        )
        if not right:
            raise SourceError(
                f"{self.name}: position is {position!r}, expected offsets like "
                f"{{'offsets': {{'0': 7}}}}"
            )
        if not offsets and self._first is not None:
            return self._first  # the moment when it was first asked for
        return dict(offsets or {})

    def _open(self, offsets: dict[str, int]) -> None:
        if self._consumer is None:
            self._consumer = self._kafka.Consumer(self._settings, logger=quiet())
        try:
            self._assign(offsets)
        except self._kafka.KafkaException:
            self.close()  # librdkafka remembers for a while that a topic is not there
            raise

    def _assign(self, offsets: dict[str, int]) -> None:
        """Go to these offsets, and to the beginning of partitions that are not among them."""
        topic = self._consumer.list_topics(self._topic, timeout=TIMEOUT).topics[self._topic]
        if topic.error is not None:
            raise self._kafka.KafkaException(topic.error)
        self._at = {}
        for partition in sorted(topic.partitions):
            low, high = self._watermarks(str(partition))
            default = high if self._begin == "latest" and not offsets else low
            offset = offsets.get(str(partition), default)
            if not low <= offset <= high:
                offset = self._over_the_gap(partition, offset, low, high)
            self._at[str(partition)] = offset
        if not offsets:
            self._first = dict(self._at)
        self._seek()

    def _seek(self) -> None:
        where = self._kafka.TopicPartition
        self._consumer.assign([where(self._topic, int(p), at) for p, at in self._at.items()])

    def _watermarks(self, partition: str) -> tuple[int, int]:
        """The first offset that is there, and the next one to come; the brokers are asked."""
        where = self._kafka.TopicPartition(self._topic, int(partition))
        found = self._consumer.get_watermark_offsets(where, timeout=TIMEOUT)
        if found is None:
            raise self._kafka.KafkaException(self._kafka.KafkaError(-185, "timed out"))
        self._down = None
        return int(found[0]), int(found[1])

    def _fault(self, message: Any) -> None:
        error = message.error()
        if error.code() == self._kafka.KafkaError._AUTO_OFFSET_RESET:
            partition = str(message.partition())
            try:
                low, high = self._watermarks(partition)
            except self._kafka.KafkaException as lost:
                self._outage.failed(lost)
                return
            at = self._at[partition]
            if not low <= at <= high:
                self._at[partition] = self._over_the_gap(message.partition(), at, low, high)
        elif error.fatal() or not (error.retriable() or self._is_outage(error)):
            raise SourceError(f"{self.name}: {error}")

    def _is_outage(self, error: Any) -> bool:
        kafka = self._kafka.KafkaError
        return error.code() in (kafka._ALL_BROKERS_DOWN, kafka._TRANSPORT, kafka._TIMED_OUT)

    def _noted(self, error: Any) -> None:
        """librdkafka says from within ``consume`` that no broker is there."""
        if error.code() == self._kafka.KafkaError._ALL_BROKERS_DOWN:
            self._down = self._kafka.KafkaException(error)

    def _over_the_gap(self, partition: int, offset: int, low: int, high: int) -> int:
        lost = f"{low - offset:,} messages from {offset} on were removed before they were read"
        anew = f"it ends at {high}, we have read up to {offset}: was the topic made anew?"
        told = f"{self.name}: partition {partition}: {lost if offset < low else anew}"
        if self._on_gap == "fail":
            raise SourceError(
                f"{told}; keep more (retention.ms, retention.bytes), or go on without them: "
                f'on_gap = "earliest" or "latest"'
            )
        self._gaps += 1
        _log.warning("gap", source=self.name, told=told, on_gap=self._on_gap)
        return high if self._on_gap == "latest" else low

    def _lag(self) -> int | None:
        if self._consumer is None or not self._at:
            return None
        lag = 0
        for partition, offset in self._at.items():
            where = self._kafka.TopicPartition(self._topic, int(partition))
            known = self._consumer.get_watermark_offsets(where, cached=True)
            if known is None or known[1] < 0:
                return None
            lag += max(known[1] - offset, 0)
        return lag

    def _event(self, message: Any) -> Event:
        partition, offset = str(message.partition()), message.offset()
        if partition not in self._records:
            self._records[partition] = Records(self.name, **self._columns, partition=partition)
        place = f"partition {partition} offset {offset}"
        event = self._records[partition].event(offset, place, message.value() or b"")
        if event.ts is None:
            kind, at = message.timestamp()
            event.ts = at / 1000.0 if kind != self._kafka.TIMESTAMP_NOT_AVAILABLE else None
        if self._message_key and not event.key and message.key():
            event.key = message.key().decode(errors="backslashreplace")
        return event
