"""The owner of one shard: reads events, runs the model, commits, delivers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import NamedTuple, Protocol, runtime_checkable

from streammeta.errors import Fenced, SinkError, StoreError, UsageError
from streammeta.events import Event, MetaUpdated, Output
from streammeta.sinks.base import Sink
from streammeta.snapshot import Snapshot
from streammeta.sources.base import Forgets, Position, Source
from streammeta.store import KEPT, CommitRecord, Store


class Model(Protocol):
    """What the host drives: ``Engine``, or anything that predicts and learns like it."""

    def observe(self, events: Sequence[Event]) -> list[Output]:
        """Answer the questions, learn the answers, in order."""
        ...

    def replay(self) -> list[Output]:
        """Do the outer work that is due after the events so far."""
        ...

    def snapshot(self) -> Snapshot:
        """All that is needed to go on; must not change the model."""
        ...


class Observer(Protocol):
    """Who watches a host; ``Metrics`` does. All calls come from the host's own thread."""

    def ingested(self, source: str, events: int, ts: float | None) -> None:
        """Events were read; ``ts`` is the newest event time."""
        ...

    def record(self, outputs: Sequence[Output]) -> None:
        """Outputs were made (before any commit)."""
        ...

    def stage(self, stage: str, seconds: float) -> None:
        """A stage (decode, observe, meta, sink, checkpoint) took this long once."""
        ...

    def committed(self, outcome: str, size: int) -> None:
        """A commit was written (``ok``) or refused (``fenced``, ``failed``); size in bytes."""
        ...

    def delivered(self, sink: str, records: int, outcome: str = "ok") -> None:
        """A sink took records (``ok``), or could not (``failed``)."""
        ...


@runtime_checkable
class Timed(Protocol):
    """A model that tells which of its stages has been at work since it last told."""

    lap: Callable[[str], None]


class Laps:
    """A stopwatch: how long each stage of a model takes, added up until it is read.

    To look at a clock six times for each event would cost more than all other counting, so one
    chunk in ``every`` is timed. That is 7 where a chunk is one event: what a model does now and
    then it does every 2, 4 or 32 rows, and 7 meets all of those alike.
    """

    __slots__ = ("_chunks", "_last", "_spent", "every")

    def __init__(self, chunk: int) -> None:
        self.every = 7 if chunk == 1 else 1
        self._chunks = 0
        self._spent: dict[str, float] = {}
        self._last = 0.0

    def due(self) -> bool:
        """Whether the chunk that comes is to be timed; to be asked once for each."""
        self._chunks = (self._chunks + 1) % self.every
        return self._chunks == 0

    def start(self) -> None:
        """From here the first stage counts."""
        self._last = perf_counter()

    def __call__(self, stage: str) -> None:
        now = perf_counter()
        self._spent[stage] = self._spent.get(stage, 0.0) + now - self._last
        self._last = now

    def read(self) -> dict[str, float]:
        """Seconds by stage since it was last read."""
        spent, self._spent = self._spent, {}
        return spent


class HostStatistics(NamedTuple):
    """``events`` counts those read over the whole stream, ``ts`` is the newest event time."""

    events: int
    epoch: int
    ts: float | None
    undelivered: int
    finished: bool


class ShardHost:
    """Everything stateful about one shard, the same under every runner.

    A chunk of ``chunk`` events is observed at a time and ``model.replay`` follows each chunk, so
    that what the model sees depends on positions in the stream and not on how often or how much
    is polled. Commits fall between chunks only.

    A commit is
      1. the snapshot of the model, the source's position, the durable sinks' positions and the
         outputs since the last commit, as one record;
      2. ``store.commit`` under the next epoch - from here on the record is the truth;
      3. the outputs go to the durable sinks;
      4. the sinks are flushed;
      5. a source that keeps events itself is told what no commit on disk needs any more.
    A crash before 2 is as if these events had never been read; a crash after 2 is mended by
    ``open``: the sinks are taken back to the positions in the record and its outputs are
    delivered again. Sinks that are not durable get outputs at once. Without a store all sinks do,
    and a commit is only a flush.

    Args:
        source: where events come from.
        make: builds the model; called with ``None`` for a new one, else with the snapshot.
        store: where commits go; ``None`` for a run that cannot be resumed.
        sinks: where outputs go.
        commit_every: events between commits; rounded up to whole chunks.
        chunk: events observed at once; must be the model's own chunk.
        observer: who watches.

    Raises:
        UsageError: ``chunk`` or ``commit_every`` below 1, or two sinks of one name.
    """

    def __init__(
        self,
        source: Source,
        make: Callable[[Snapshot | None], Model],
        store: Store | None = None,
        sinks: Sequence[Sink] = (),
        *,
        commit_every: int = 1000,
        chunk: int = 1,
        observer: Observer | None = None,
    ) -> None:
        if chunk < 1 or commit_every < 1:
            raise UsageError(f"chunk is {chunk}, commit_every {commit_every}; expected 1 or more")
        names = [sink.name for sink in sinks]
        if len(set(names)) < len(names):
            raise UsageError(f"two sinks have one name: {', '.join(names)}")
        self.source, self.store, self.chunk = source, store, chunk
        self.sinks = tuple(sinks)
        self.commit_every = -(-commit_every // chunk) * chunk
        self._make = make
        self._observer = observer
        self._laps = Laps(chunk)
        self._held = [s for s in sinks if s.durable and store is not None]
        self._direct = [s for s in sinks if s not in self._held]
        self._model: Model | None = None
        self._timed: Timed | None = None  # the model too, where it tells its stages
        self._shard = 0
        self._epoch = 0
        self._events = 0
        self._committed = 0
        self._touched = False  # by what is no event
        self._meta_version = 0
        self._ts: float | None = None
        self._position: Position = {}
        self._fetched: tuple[list[Event], Position] | None = None
        self._undelivered: list[Output] = []
        self._kept: deque[Position] = deque(maxlen=KEPT if store is not None else 1)

    @property
    def model(self) -> Model:
        """The model of the open shard.

        Raises:
            UsageError: no shard is open.
        """
        if self._model is None:
            raise UsageError("no shard is open: call open(shard) first")
        return self._model

    def open(self, shard: int = 0) -> bool:
        """Take the shard up where its last commit left it; True when there was one.

        Raises:
            StoreError: the commits are damaged.
            SinkError: a sink cannot go back to where the commit was.
        """
        record = self.store.latest(shard) if self.store is not None else None
        self._shard, self._fetched, self._undelivered = shard, None, []
        self._kept.clear()
        if record is None:
            self._model = self._make(None)
            self._position, self._epoch, self._events = self.source.start(), 0, 0
            for sink in self.sinks:
                sink.open(None)
        else:
            missing = [s.name for s in self._held if s.name not in record.sinks]
            self._model = self._make(record.snapshot)
            self._position, self._epoch = record.position, record.epoch
            self._events, self._meta_version = record.events, record.meta_version
            for sink in self.sinks:
                sink.open(record.sinks.get(sink.name) if sink.name not in missing else None)
            # A sink that was added since the commit starts with what comes from now on.
            self._deliver([s for s in self._held if s.name not in missing], record.outputs)
            self._flush()
        self._committed, self._touched = self._events, False
        self._timed = self._model if isinstance(self._model, Timed) else None
        return record is not None

    def fetch(self, n: int) -> list[Event]:
        """The next events, not yet observed: whole chunks, one at least, and at most ``n`` events.

        Fewer than a whole number of chunks only where the source has no more for now: that ends
        the chunk. The next commit's place is never passed. Calling again before ``process`` gives
        the same events.
        """
        if self._fetched is None:
            start = perf_counter()
            due = self._committed + self.commit_every - self._events
            size = min(max(n // self.chunk, 1) * self.chunk, due)
            self._fetched = self.source.read(self._position, size)
            if self._observer is not None and self._fetched[0]:
                self._observer.stage("decode", perf_counter() - start)
        return self._fetched[0]

    def process(self) -> list[Output]:
        """Observe what was fetched, commit when that is due, and return all outputs.

        Raises:
            Fenced: another owner has committed; the shard is dropped.
        """
        if self._fetched is None:
            return []
        events, self._position = self._fetched
        self._fetched = None
        outputs = self._observe(events)
        self._events += len(events)
        self._emit(events, outputs)
        if self._events - self._committed >= self.commit_every:
            self.commit()
        return outputs

    def poll(self, n: int) -> list[Output]:
        """``fetch`` and ``process``: the outputs of the next events, at most ``n`` of them."""
        self.fetch(n)
        return self.process()

    def add(self, outputs: list[Output]) -> None:
        """Deliver what the model did without an event, because somebody asked for it. No run can
        repeat that by reading the events again: commit soon."""
        self._touched = True
        self._emit([], outputs)

    def commit(self) -> None:
        """Make everything so far durable, in the five steps of the class's description.

        Nothing happens when no event has been read since the last commit, nor outputs were added.

        Raises:
            Fenced: another owner has committed this epoch; the shard is dropped.
            StoreError: the commit could not be written.
        """
        if self._events == self._committed and not self._touched:
            return
        if self.store is not None:
            start = perf_counter()
            record = CommitRecord(
                self._epoch + 1,
                self.model.snapshot(),
                self._position,
                {sink.name: sink.position() for sink in self._held},
                self._undelivered if self._held else [],
                self._events,
                self._meta_version,
            )
            self._write(self.store, record)
            if self._observer is not None:
                self._observer.stage("checkpoint", perf_counter() - start)
            self._deliver(self._held, self._undelivered)
            self._undelivered = []
        self._epoch += 1
        self._committed, self._touched = self._events, False
        self._flush()
        self._kept.append(self._position)
        if isinstance(self.source, Forgets) and len(self._kept) == self._kept.maxlen:
            self.source.forget(self._kept[0])

    def close(self) -> None:
        """Commit what is left and let go of sinks and source; closing twice is fine."""
        if self._model is not None:
            self.commit()
        self.drop()

    def drop(self) -> None:
        """Let go without a commit: what came after the last one will be read again.

        All are closed, also when one of them cannot be.
        """
        self._model, self._fetched, self._undelivered = None, None, []
        with ExitStack() as closing:
            closing.callback(self.source.close)
            for sink in reversed(self.sinks):
                closing.callback(sink.close)

    def finished(self) -> bool:
        """True when the source has nothing more to give, ever."""
        return not (self._fetched and self._fetched[0]) and self.source.finished(self._position)

    def statistics(self) -> HostStatistics:
        """Where the host stands."""
        return HostStatistics(
            self._events, self._epoch, self._ts, len(self._undelivered), self.finished()
        )

    def _observe(self, events: list[Event]) -> list[Output]:
        model, observer, chunk = self.model, self._observer, self.chunk
        outputs: list[Output] = []
        for i in range(0, len(events), chunk):
            piece = events[i : i + chunk]
            if observer is None:
                outputs += model.observe(piece)
                outputs += model.replay()
                continue
            if self._laps.due():
                outputs += self._clocked(piece, observer)
            else:
                outputs += model.observe(piece)
            start = perf_counter()
            updates = model.replay()
            if updates:
                observer.stage("meta", perf_counter() - start)
                outputs += updates
        return outputs

    def _clocked(self, piece: list[Event], observer: Observer) -> list[Output]:
        """Observe a chunk and tell how long each stage took; all of it, where it does not tell."""
        laps, timed = self._laps, self._timed
        laps.start()
        if timed is None:
            outputs = self.model.observe(piece)
            laps("observe")
        else:
            untimed, timed.lap = timed.lap, laps
            outputs = self.model.observe(piece)
            timed.lap = untimed
        for stage, seconds in laps.read().items():
            observer.stage(stage, seconds)
        return outputs

    def _emit(self, events: list[Event], outputs: list[Output]) -> None:
        for event in reversed(events):
            if event.ts is not None:
                self._ts = event.ts if self._ts is None else max(self._ts, event.ts)
                break
        for output in outputs:
            if isinstance(output, MetaUpdated):
                self._meta_version = output.update
        if self._held:
            self._undelivered += outputs
        if self._observer is not None:
            self._observer.ingested(self.source.name, len(events), self._ts)
            self._observer.record(outputs)
        self._deliver(self._direct, outputs)

    def _deliver(self, sinks: Sequence[Sink], outputs: Sequence[Output]) -> None:
        for sink in sinks:
            start = perf_counter()
            try:
                records = sink.write(outputs)
            except SinkError:
                if self._observer is not None:
                    self._observer.delivered(sink.name, len(outputs), "failed")
                raise
            if self._observer is not None:
                self._observer.stage("sink", perf_counter() - start)
                self._observer.delivered(sink.name, records)

    def _flush(self) -> None:
        for sink in self.sinks:
            sink.flush()

    def _write(self, store: Store, record: CommitRecord) -> None:
        try:
            size = store.commit(self._shard, record.epoch, record)
        except StoreError as error:
            outcome = "fenced" if isinstance(error, Fenced) else "failed"
            if self._observer is not None:
                self._observer.committed(outcome, 0)
            self.drop()
            raise
        if self._observer is not None:
            self._observer.committed("ok", size)
