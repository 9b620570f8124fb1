"""Compiled code before anybody waits for it: loaded, or made by several processes and said so.

Numba compiles a function where it is first called and keeps the result beside the module. On a
machine that has not run this version yet that takes minutes of one core. So where something has to
be compiled, whoever ``hears`` of it is told, and other processes begin with what will be wanted
later: a process that comes to a function which another one has compiled by then loads it.

``python -m streammeta.compiling`` compiles what the default model calls, on several cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

import numpy as np
from numba.core import event as compiler

from streammeta import challengers, core, pooling, together
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import DriftDetected, Event, Output
from streammeta.experts.family import Family
from streammeta.replay import pose
from streammeta.state import State

#: Rows before the change of ``rows_with_a_change``: as many as an archive wants of a segment, and
#: how many follow at most.
CHANGE, AFTER = 260, 100
#: Processes at most: each takes some 300 MB.
MOST = 4
TASKS = ("classification", "regression")
#: What the compiler calls it.
COMPILES = "numba:compile"


def rows_with_a_change(task: str) -> Iterator[Event]:
    """A number and a category, and a label that turns round at row ``CHANGE``."""
    names = ("no", "yes")
    for row in range(CHANGE + AFTER):
        value = float(row * row % 23)
        truth = value if row < CHANGE else 50.0 - value
        label = truth if task == "regression" else names[(value > 11) == (row < CHANGE)]
        yield Event(f"row {row}", {"a": value, "b": names[row % 2]}, label)


class Learns(Protocol):
    """What observes events and replays between them, such as an ``Engine``."""

    def observe(self, events: Sequence[Event]) -> list[Output]:
        """Answer questions and learn labels, in order."""

    def replay(self) -> list[Output]:
        """Take the outer steps that are due."""


def learn_a_change(model: Learns, task: str) -> None:
    """``model`` does all that it ever does, until it has noticed and explained a change."""
    for row in rows_with_a_change(task):
        outputs = model.observe([row])
        model.replay()
        if any(isinstance(output, DriftDetected) for output in outputs):
            break


# -- parts that can be compiled apart ----------------------------------------------------------


def _engine(task: str) -> Engine:
    return Engine(ModelConfig.model_validate({"task": task}))


def _begun() -> State:
    """A state that has seen one row."""
    state = _engine(TASKS[0]).state
    row = next(rows_with_a_change(TASKS[0]))
    core.accept(state, row, set())
    assert row.y is not None  # it has its label
    state.key_index(row.key)
    state.add_class(row.y)
    state.learn_columns()
    return state


def _judge() -> None:
    state = _begun()
    members, outputs = state.bank.live.shape[1], state.net.sizes[-1]
    together.judge(
        state.together, 0, np.zeros(state.width), np.full((members, outputs), 0.5),
        state.bank.births[0].copy(), np.full((pooling.SAID, outputs), 0.5), 0.0, 0.0, 1.0, True,
    )  # fmt: skip


def _learn() -> None:
    state = _begun()
    together.learn(state.together, 0, 0, np.zeros(state.width), 0.0, True, False)


def _meta() -> None:
    """The outer step of each learner of the default, and what its challengers take."""
    state = _begun()
    engine = Engine(state.config)
    engine.state = state
    engine._keep_up()
    c = state.config
    x = np.zeros((c.tasks_per_update, c.support + c.query, state.width), np.float32)
    y, support = np.zeros(x.shape[:2], np.float32), np.full(len(x), c.support)
    parts = pose(x, y, support, np.full_like(support, c.query), c.support)
    for meta in engine.metas:
        meta.update(parts, state.n_classes)
        challengers.adapted(state, meta, x[0], y[0], None)


def _family(kind: type[Family]) -> None:
    """Ask and teach one family."""
    state = _begun()
    state.past.add(0, 0, np.zeros(state.width), 0.0)
    place = state.in_families.start
    for family in state.families:
        if type(family) is kind:
            raw = np.zeros((1, state.width))
            out = np.zeros((1, state.bank.live.shape[1], state.net.sizes[-1]))
            family.predict(0, raw, state.world, out, place)
            family.learn(0, state.world)
            family.settle(0, state.world)
        place += len(family.names)


#: By name. A model asks first, so others begin with what it will want later.
PARTS: dict[str, Callable[[], None]] = {
    "learn": _learn,
    "meta": _meta,
    "judge": _judge,
    **{kind.__name__.lower(): partial(_family, kind) for kind in reversed(together.NATIVE)},
}


# -- several processes -------------------------------------------------------------------------


def begin(processes: int) -> list[subprocess.Popen[bytes]]:
    """Other processes that compile ``PARTS``, dealt out in turn; they end with this one, however it
    ends, for then nobody holds the other end of their standard input."""
    names, begun = list(PARTS), []
    command = [sys.executable, "-P", "-m", "streammeta.compiling", "--for-another"]
    quiet = subprocess.DEVNULL
    for first in range(min(processes, len(names))):
        parts = [*command, *names[first::processes]]
        try:
            begun.append(subprocess.Popen(parts, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet))
        except OSError:  # no room for it: compiling takes longer, and that is all
            break
    threading.Thread(target=_wait, args=(begun,), daemon=True).start()
    return begun


def _wait(begun: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in begun:
        with process:  # closes its standard input as well
            process.wait()


def _end_with_the_other() -> None:
    """End this process when whoever has begun it has gone."""

    def listen() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()


def cores() -> int:
    """How many this process may use, ``MOST`` at most."""
    known = getattr(os, "sched_getaffinity", None)  # not on every system
    return min(MOST, len(known(0)) if known else os.cpu_count() or 1)


class _Listener(compiler.Listener):
    """Calls ``heard`` when the first of our functions is compiled."""

    def __init__(self, heard: Callable[[], None]) -> None:
        self._heard: Callable[[], None] | None = heard

    def on_start(self, event: compiler.Event) -> None:
        module = event.data["dispatcher"].py_func.__module__ or ""  # made by the compiler: none
        if self._heard is not None and module.partition(".")[0] in ("streammeta", "drift"):
            heard, self._heard = self._heard, None
            heard()

    def on_end(self, event: compiler.Event) -> None:
        pass


_listener: _Listener | None = None


def when_compiling(tell: Callable[[str], None], *, helped: bool = False) -> None:
    """Where something has to be compiled in this process, say so once; other processes help where
    that is wanted and there is a core for them. Of several who want to be told it is the last."""
    global _listener

    def heard() -> None:
        tell("compiling for this machine, once: this takes a minute or a few")
        if helped:
            begin(cores() - 1)

    if _listener is not None:
        compiler.unregister(COMPILES, _listener)  # type: ignore[no-untyped-call]
    _listener = _Listener(heard)
    compiler.register(COMPILES, _listener)  # type: ignore[no-untyped-call]


def main(words: Sequence[str]) -> None:
    """Compile the parts that are named; without any, everything, with the help of others."""
    parser = ArgumentParser("python -m streammeta.compiling", description=main.__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--for-another", action="store_true", help="end when standard input does")
    given = parser.parse_args(words)
    if unknown := [part for part in given.parts if part not in PARTS]:
        parser.error(f"no part is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    if given.for_another:
        _end_with_the_other()
    for part in given.parts:
        PARTS[part]()
    if not given.parts:
        begin(cores() - 1)
        for task in TASKS:
            learn_a_change(_engine(task), task)


if __name__ == "__main__":
    main(sys.argv[1:])
