"""The tasks of the past, cut and standardised as those of a live run are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from streammeta import core, units
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import UsageError
from streammeta.events import Event, Output, Rejected
from streammeta.meta.parameters import MetaParameters
from streammeta.replay import Tasks

#: Told now and then: rows read and tasks found so far.
Told = Callable[[int, int], None]

ROWS_AT_ONCE = 256  # of a table of a folder, where nothing is predicted


@dataclass(frozen=True)
class History:
    """Tasks in the order of time, and meta-parameters of their shape that have not learned yet.

    ``x (N, L, D)`` standardised inputs and ``y (N, L)`` targets; support before column ``at``,
    query from there on. Of task ``i`` the ``support[i]`` rows before ``at`` and the ``query[i]``
    after it are its own, the others padding. ``metas``: of the learner, and of its partner where
    there is one, by name. ``rejected``: rows that could not be used, and the reason of the first.
    """

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    support: NDArray[np.int64]
    query: NDArray[np.int64]
    at: int
    metas: Mapping[str, MetaParameters]
    n_classes: int
    rows: int
    rejected: int = 0
    reason: str = ""

    def __len__(self) -> int:
        return len(self.y)


@dataclass
class _Collected:
    """What comes together while the engine reads."""

    parts: list[Tasks] = field(default_factory=list)
    rejected: int = 0
    reason: str = ""

    def note(self, outputs: Sequence[Output]) -> None:
        for output in outputs:
            if isinstance(output, Rejected):
                self.rejected += 1
                self.reason = self.reason or output.detail

    def tasks(self) -> Tasks:
        return Tasks(*(np.concatenate(arrays) for arrays in zip(*self.parts, strict=True)))


def from_events(config: ModelConfig, events: Iterable[Event], told: Told | None = None) -> History:
    """Every task that the model of ``config`` closes on a stream, in the order of closing.

    The model runs as it would live, detectors, rehearsal, challengers and all, but takes no
    outer step; its memory is larger where one chunk could close more tasks than it holds. Units
    are those at the end of the stream, as an outer step taken then would see them.

    Raises:
        ConfigError: the model cannot be built.
        UsageError: no task was closed.
    """
    # of one chunk each label may close a task: the ring has to hold them all
    engine = Engine(config.model_copy(update={"memory": max(config.memory, 3 * config.chunk)}))
    found, seen = _Collected(), 0
    for batch in _batches(events, config.chunk):
        found.note(engine.observe(batch))
        if engine.state.allocated and engine.state.memory.seen > seen:
            found.parts.append(engine.state.memory.since(seen))
            seen = engine.state.memory.seen
        if told is not None:
            told(engine.state.rows, seen)
    support, query = (np.full(seen, n, np.int64) for n in (config.support, config.query))
    return _history(engine, found, support, query)


def from_tables(
    config: ModelConfig, tables: Iterable[tuple[str, Iterable[Event]]], told: Told | None = None
) -> History:
    """One task of each table of rows: the first are its support, those that follow its query.

    Of a table with less than ``support + query`` rows the first half is the support; rows beyond
    are read for the units only, which are those of all tables end to end.

    Raises:
        ConfigError: the model cannot be built.
        UsageError: a table has less than two rows that can be used, or there is no table.
    """
    alone = {"on_drift": "ignore", "challengers": 0, "replay": False, "chunk": ROWS_AT_ONCE}
    engine = Engine(config.model_copy(update=alone))
    found, sizes = _Collected(), []
    for name, events in tables:
        own = (replace(event, id=f"{name}:{event.id}") for event in events)  # tables number alike
        part, size = _table(engine, config, name, own, found)
        found.parts.append(part)
        sizes.append(size)
        if told is not None:
            told(engine.state.rows, len(sizes))
    support, query = np.array(sizes, np.int64).reshape(-1, 2).T
    return _history(engine, found, support, query)


def _table(
    engine: Engine, config: ModelConfig, name: str, events: Iterator[Event], found: _Collected
) -> tuple[Tasks, tuple[int, int]]:
    """The task of one table, and how many rows its support and its query have."""
    state, length = engine.state, config.support + config.query
    if state.keys:
        state.segment_rows.cut(0, state.rows)  # what was before belongs to other tasks
    found.note(engine.observe(list(islice(events, length))))
    n = int(state.segment_rows.inside[0]) if state.keys else 0
    if n < 2:
        why = f"; {found.reason}" if found.reason else ""
        raise UsageError(f"{name}: {n} rows can be used, expected at least 2 (support, query){why}")
    rows, targets = state.segment_rows.newest(0, length)
    support = config.support if n == length else min(config.support, n // 2)
    query = min(config.query, n - support)
    raw, y = np.zeros((1, length, state.width)), np.zeros((1, length))
    own = slice(config.support - support, config.support + query)
    raw[0, own], y[0, own] = rows[: support + query], targets[: support + query]
    for batch in _batches(events, ROWS_AT_ONCE):
        found.note(engine.observe(batch))
    return Tasks(raw, y, np.zeros(1, np.int64)), (support, query)


def _history(
    engine: Engine, found: _Collected, support: NDArray[np.int64], query: NDArray[np.int64]
) -> History:
    state, c = engine.state, engine.config
    if not found.parts or engine.meta is None:
        keys, of = (
            (f" of {len(state.keys)} keys", " of one key") if len(state.keys) > 1 else ("", "")
        )
        why = f"; {found.rejected:,} rows rejected, the first: {found.reason}"
        raise UsageError(
            f"no task in {state.rows:,} rows{keys}: a task is {c.support} rows of support and "
            f"{c.query} of query{of} without a drift between them, and {core.HELD_BACK} rows after "
            f"it; smaller ones: --set model.support=N --set model.query=N"
            f"{why if found.rejected else ''}"
        )
    x, y = units.standard_tasks(state, found.tasks())
    metas = {n: m.matching(state.net, state.n_classes) for n, m in engine.learned.items()}
    return History(
        x, y, support, query, c.support, metas, state.n_classes, state.rows, found.rejected,
        found.reason,
    )  # fmt: skip


def _batches(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    source = iter(events)
    while batch := list(islice(source, size)):
        yield batch
