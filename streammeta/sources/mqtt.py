"""Messages of an MQTT broker as a source."""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from random import Random
from typing import Annotated, Any

from pydantic import Field

from streammeta.errors import SourceError, StreamMetaError, UsageError
from streammeta.events import Event
from streammeta.sources.base import Position, SourceStatus
from streammeta.sources.clock import Clock
from streammeta.sources.journal import Fsync
from streammeta.sources.journaled import Inbox, JournaledSource
from streammeta.sources.outage import Outage
from streammeta.sources.wire import Records

TURN = 0.1  # seconds that one turn of the network loop may wait
KEEPALIVE = 30  # seconds without traffic after which the broker is asked whether it is there
REMEMBERED = 4  # times ``inflight``: not every broker keeps to the bound that it is given
FOREVER = 0xFFFFFFFF  # the broker keeps our session, and what comes meanwhile, without a limit
_HEADER = struct.Struct("<HH")  # of a record: packet identifier, length of the topic


class MqttSource(JournaledSource):
    """Messages of a topic filter, journaled and synced before they are acknowledged.

    A session that outlives connections (MQTT 5, ``client_id``): the broker keeps messages of
    quality of service 1 while we are away. None is acknowledged while ``queue`` wait to be read,
    and once ``inflight`` more have come nothing is read from the broker. A message that is sent
    again because its acknowledgement got lost is known by its packet identifier and its bytes
    among the last records, and is not taken twice; two messages of the same bytes should differ in
    something, such as their time. Messages of quality 0 are lost with the connection or the
    process, as they always may be.

    The payload is JSON (see ``sources.wire``). While the broker is gone tries are spaced out, and
    after ``give_up_after`` seconds the fault is raised.

    Args:
        host: of the broker.
        topic: a topic filter, such as ``plant/+/temperature``.
        client_id: names the session; no two runs may share one.
        journal: folder of the journal.
        port: of the broker.
        username: where the broker wants one.
        password: where the broker wants one.
        tls: speak TLS, with the system's certificates.
        topic_is_key: an event without a key gets its topic for one.
        target: column to predict; ``None``: envelopes.
        time: column with the event time.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids.
        ignore: columns that are left out.
        inflight: messages that may be on their way without an acknowledgement.
        queue: messages in the journal that nobody has read, at most.
        fsync: ``always``, or ``never`` to leave it to the system.
        give_up_after: seconds without the broker after which ``SourceError`` is raised.
        name: the first part of the ids ``name:0:record``.
        clock: time; the machine's own by default.
        random: for the jitter between tries.

    Raises:
        UsageError: the package is missing, or a column is given two parts.
    """

    def __init__(
        self,
        host: str,
        topic: str,
        client_id: str,
        journal: str,
        *,
        port: Annotated[int, Field(ge=1, le=65535)] = 1883,
        username: str | None = None,
        password: str | None = None,
        tls: bool = False,
        topic_is_key: bool = False,
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        inflight: Annotated[int, Field(ge=1, le=65535)] = 100,
        queue: Annotated[int, Field(ge=1)] = 10_000,
        fsync: Fsync = "always",
        give_up_after: Annotated[float, Field(ge=0)] = 300.0,
        name: str = "mqtt",
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        try:
            import paho.mqtt.client as paho
        except ImportError as error:
            raise UsageError(
                "MQTT needs the package paho-mqtt: pip install streammeta[mqtt]"
            ) from error
        records = Records(name, target=target, time=time, key=key, id=id, ignore=ignore)
        super().__init__(name, records, journal, queue, fsync)
        self._paho: Any = paho
        self._host, self._port, self._topic, self._client_id = host, port, topic, client_id
        self._user = (username, password)
        self._tls, self._topic_is_key, self._inflight = tls, topic_is_key, inflight
        self._outage = Outage(f"mqtt {host}:{port}", SourceError, give_up_after, clock, random)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed: StreamMetaError | None = None
        self._pending: list[Any] = []  # messages that are not in the journal yet
        self._recent: OrderedDict[int, bytes] = OrderedDict()  # packet identifier -> digest

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` journaled messages after ``position``.

        Raises:
            SourceError: as every journaled source; the broker has been gone for too long or
                refuses us.
        """
        events, after = super().read(position, n)
        if self._failed is not None and not events:
            raise self._failed
        return events, after

    def status(self) -> SourceStatus:
        """How the connection is; ``lag`` counts what is in the journal, not what the broker has."""
        return SourceStatus(self._outage.fault, super().status().lag)

    def _event(self, number: int, record: bytes) -> Event:
        _, topic, payload = _opened(record)
        event = self._records.event(number, f"record {number} ({topic})", payload)
        if self._topic_is_key and not event.key:
            event.key = topic
        return event

    def _listen(self, inbox: Inbox) -> None:
        self._stop.clear()
        self._pending, self._recent, self._failed = [], OrderedDict(), None
        journal = inbox.journal
        first = max(journal.end - REMEMBERED * self._inflight, journal.first)
        for record in journal.read(first, REMEMBERED * self._inflight):
            packet, topic, payload = _opened(record)
            self._remember(packet, topic, payload)
        self._thread = threading.Thread(
            target=self._guarded, args=(inbox,), name=f"{self.name}-mqtt", daemon=True
        )
        self._thread.start()

    def _hush(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _guarded(self, inbox: Inbox) -> None:
        try:
            self._run(inbox)
        except StreamMetaError as error:
            self._failed = error
        except Exception as error:  # noqa: BLE001 - else it would look like a quiet stream
            self._failed = SourceError(f"{self.name}: {type(error).__name__}: {error}")
            self._failed.__cause__ = error

    def _run(self, inbox: Inbox) -> None:
        while not self._stop.is_set():
            client = self._client()
            self._pending.clear()  # the broker sends them again
            try:
                self._connect(client)
                while not self._stop.is_set():
                    self._turn(inbox, client)
                    self._keep(inbox, client)
                client.disconnect()
            except (OSError, ValueError) as error:
                self._outage.failed(error)
                self._stop.wait(self._outage.wait())

    def _turn(self, inbox: Inbox, client: Any) -> None:
        """Read what the broker sends; nothing while too much waits, so that the broker has to."""
        if len(self._pending) >= self._inflight:
            inbox.wait_for_room(TURN)
            status = client.loop_misc()  # it may find that we have been silent for too long
        else:
            waiting = len(self._pending)
            status = client.loop(timeout=TURN)
            while waiting < len(self._pending) < self._inflight and not status:
                waiting = len(self._pending)
                status = client.loop(timeout=0.0)  # more is there: one sync for all of it
        if status != self._paho.MQTT_ERR_SUCCESS:
            raise ConnectionError(self._paho.error_string(status))
        if self._failed is not None:
            raise self._failed

    def _client(self) -> Any:
        paho = self._paho
        client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=paho.MQTTv5,
            manual_ack=True,
        )
        if self._user[0] is not None:
            client.username_pw_set(*self._user)
        if self._tls:
            client.tls_set()
        client.on_connect = self._connected
        client.on_message = self._received
        return client

    def _connect(self, client: Any) -> None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        wishes: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        wishes.SessionExpiryInterval = FOREVER
        wishes.ReceiveMaximum = self._inflight
        client.connect(
            self._host, self._port, keepalive=KEEPALIVE, clean_start=False, properties=wishes
        )

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, more: Any) -> None:
        if reason.is_failure:
            self._failed = SourceError(f"mqtt {self._host}:{self._port}: refuses us: {reason}")
            return
        self._outage.over()
        client.subscribe(self._topic, qos=1)

    def _received(self, client: Any, data: Any, message: Any) -> None:
        """Called in the middle of ``client.loop``: what comes is only put aside."""
        digest = _digest(message.topic, message.payload)
        if message.qos and message.dup and self._recent.get(message.mid) == digest:
            if not any(waiting.mid == message.mid for waiting in self._pending):
                client.ack(message.mid, message.qos)  # in the journal: only the answer got lost
            return
        self._pending.append(message)

    def _keep(self, inbox: Inbox, client: Any) -> None:
        """Journal what came as far as there is room, then acknowledge it."""
        room = min(inbox.room(), len(self._pending))
        if not room:
            return
        batch, self._pending = self._pending[:room], self._pending[room:]
        inbox.put([_closed(m.mid if m.qos else 0, m.topic, m.payload) for m in batch])
        for message in batch:
            if message.qos:
                self._remember(message.mid, message.topic, message.payload)
                client.ack(message.mid, message.qos)

    def _remember(self, packet: int, topic: str, payload: bytes) -> None:
        if packet:
            self._recent.pop(packet, None)
            self._recent[packet] = _digest(topic, payload)
            while len(self._recent) > REMEMBERED * self._inflight:
                self._recent.popitem(last=False)


def _closed(packet: int, topic: str, payload: bytes) -> bytes:
    name = topic.encode()
    return _HEADER.pack(packet, len(name)) + name + payload


def _opened(record: bytes) -> tuple[int, str, bytes]:
    packet, length = _HEADER.unpack_from(record)
    start = _HEADER.size + length
    return packet, record[_HEADER.size : start].decode(), record[start:]


def _digest(topic: str, payload: bytes) -> bytes:
    return sha256(topic.encode() + b"\0" + payload).digest()
