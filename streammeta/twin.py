"""A twin of a state: what answering reads, in arrays of its own, so that somebody else can ask it
while the state goes on learning.

To follow the state it copies the arrays of those keys that have changed, in place: no memory is
asked for and no box is made anew unless an array was replaced (a key that does not fit, classes
that do not fit), when a new twin takes its place.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streammeta import core
from streammeta.errors import RejectedEvent
from streammeta.events import Value
from streammeta.experts.baselines import Answer
from streammeta.experts.family import KEYS, Family, Stacked
from streammeta.replay import SegmentRows
from streammeta.state import State
from streammeta.together import Native

#: What a question needs: its features and its key.
Question = tuple[Mapping[str, Value], str]
#: Of the bank; what its experts need to learn is not among them.
OF_BANK = ("theta", "live", "births")
#: Of ``State``: parts that no answer depends on.
UNREAD = ("pending", "ended", "memory", "segmenters", "sketch", "rng", "class_index",
          "traces", "policy")  # fmt: skip


class Twin:
    """Answers as ``state`` did when ``follow`` was called last; made of an allocated state.

    One thread at a time: either somebody asks, or it follows.
    """

    def __init__(self, state: State) -> None:
        self._boxes = _boxes(state)
        own: State = object.__new__(State)
        vars(own).update({n: v for n, v in vars(state).items() if n not in UNREAD})
        for name in (*State.STACKED, *State.POOLED, "scaled", "class_count"):
            setattr(own, name, getattr(state, name).copy())
        own.bank, own.past = copy.copy(state.bank), copy.copy(state.past)
        for name in OF_BANK:
            setattr(own.bank, name, getattr(state.bank, name).copy())
        for name in SegmentRows.FIELDS:
            setattr(own.past, name, getattr(state.past, name).copy())
        own.families = [_copied(family) for family in state.families]
        copies = dict(zip(map(id, state.families), own.families, strict=True))
        own.places = state.places.copy()
        own.native = Native._make(copies.get(id(family), family) for family in state.native)
        own.foreign = [(place, copies[id(family)]) for place, family in state.foreign]
        self._opaque = [i for i, f in enumerate(state.families) if not isinstance(f, Stacked)]
        own._box()
        self.state = own
        self._pairs = _pairs(state, own)
        self._columns: tuple[int, ...] = ()
        self._seen = own.past.count.copy()
        self._copy_names(state)

    def follow(self, state: State, keys: Iterable[str], recut: Iterable[str] = ()) -> bool:
        """Answer as ``state`` does now; ``keys``: those it has learned about since the last time,
        of which ``recut`` have begun a new segment. False, nothing done: a new twin is needed.
        """
        if any(a is not b for a, b in zip(self._boxes, _boxes(state), strict=True)):
            return False
        own, places = self.state, state.keys
        if len(state.classes) > len(own.classes):
            keys = places  # every network has learned of the new class
        again = {places[name] for name in recut if name in places}
        for key in {places[name] for name in keys if name in places}:
            for new, old in self._pairs:
                if key < len(old):
                    old[key] = new[key]
            if key < KEYS:
                self._follow_rows(state, key, key in again)
        for name in (*State.POOLED, "scaled", "class_count"):
            getattr(own, name)[:] = getattr(state, name)
        for i in self._opaque:
            own.families[i] = copy.deepcopy(state.families[i])
        if self._opaque:
            copies = dict(zip(map(id, state.families), own.families, strict=True))
            own.foreign = [(place, copies[id(family)]) for place, family in state.foreign]
        self._copy_names(state)
        return True

    def answers(self, questions: Iterable[Question]) -> list[Answer | RejectedEvent]:
        """The answer to each question, as ``Engine.answers`` gives it; for one whose features
        cannot be used, why. Those of a key are answered in one call."""
        own = self.state
        found: list[Answer | RejectedEvent] = []
        rows: dict[int, list[tuple[int, NDArray[np.float64]]]] = {}
        for place, (x, name) in enumerate(questions):
            found.append((None, None))
            try:
                row = own.columns.row(x, grow=False)
            except RejectedEvent as fault:
                found[-1] = fault
                continue
            if name in own.keys:
                rows.setdefault(own.keys[name], []).append((place, row))
        for key, of_key in rows.items():
            said = core.answers_to(own, key, [row for _, row in of_key])
            for (place, _), answer in zip(of_key, said, strict=True):
                found[place] = answer
        return found

    def _follow_rows(self, state: State, key: int, whole: bool) -> None:
        """The ring of a key: the rows that have come since, or all of them."""
        now, own = state.past, self.state.past
        seen, size = int(now.count[key]), now.size
        if whole or not 0 <= seen - self._seen[key] < size:
            slots: Any = slice(None)
        else:
            slots = np.arange(self._seen[key], seen) % size
        for name in ("raw", "y", "row"):
            getattr(own, name)[key, slots] = getattr(now, name)[key, slots]
        self._seen[key] = seen

    def _copy_names(self, state: State) -> None:
        """Keys, classes, columns and counts, where they have changed."""
        own, columns = self.state, state.columns
        own.rows, own.labels = state.rows, state.labels
        if len(own.keys) < len(state.keys) or own.keys is state.keys:
            own.keys, own.key_names = dict(state.keys), list(state.key_names)
        if len(own.classes) < len(state.classes) or own.classes is state.classes:
            own.classes = list(state.classes)
        version = _version(columns)
        if version != self._columns:
            own.columns, self._columns = copy.deepcopy(columns), version


def _boxes(state: State) -> tuple[object, ...]:
    """What is made anew whenever an array is replaced."""
    families = (f.box for f in state.families if isinstance(f, Stacked))
    return state.world, state.networks, state.beliefs, *families


def _copied(family: Family) -> Family:
    """With arrays of its own; what is not stacked is copied whole."""
    made: Family = family.twin() if isinstance(family, Stacked) else copy.deepcopy(family)
    return made


def _pairs(state: State, own: State) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Arrays of both with a leading axis of keys that are copied whole for each key."""
    pairs = [(getattr(state, name), getattr(own, name)) for name in State.STACKED]
    pairs += [(getattr(state.bank, name), getattr(own.bank, name)) for name in OF_BANK]
    pairs += [(getattr(state.past, name), getattr(own.past, name)) for name in ("count", "inside")]
    for theirs, ours in zip(state.families, own.families, strict=True):
        if isinstance(theirs, Stacked) and isinstance(ours, Stacked):
            read = [name for name in theirs.table._fields if name not in theirs.unread]
            pairs += [(getattr(theirs.table, n), getattr(ours.table, n)) for n in read]
    return pairs


def _version(columns: Any) -> tuple[int, ...]:
    """Changes whenever the map of columns has: it only ever grows."""
    known = sum(len(block[2]) for block in columns.blocks.values())
    used = (columns.used, len(columns.numeric), len(columns.blocks), len(columns.flags))
    return (columns.width, *used, known)
