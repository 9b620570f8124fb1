"""From a feature dict to a row of numbers, one column map per stream, append-only.

A raw row is float64 ``(width,)``: numbers as they are (missing = NaN), categories one-hot,
reserved columns 0. ``standardise`` turns raw rows into float32 network inputs with running
moments of the key. The width is fixed at the first event with room to spare, so meta-parameters
keep their shape when features appear; once the room is used up, features share hashed columns.
"""

from __future__ import annotations

import copy
import math
import re
import zlib
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streammeta.errors import RejectedEvent
from streammeta.events import Value

#: Columns reserved for each categorical feature; further categories share them by hash.
CATEGORY_COLUMNS = 16
#: Standardised values are clipped here, so that a unit that explodes stays bounded.
CLIP = 5.0
#: The running moments weigh an event by at least this, so that they follow a moving stream.
MOMENT_FLOOR = 1.0 / 5000.0
#: Numbers beyond this are taken for damage: their squares would overflow the running moments.
LARGEST = 1e100
#: More columns than this are never reserved.
MAX_WIDTH = 1024
#: Names that are kept; features beyond share hashed columns and are not got to know.
MAX_NAMES = 4096
#: Characters of a name; of a longer category the beginning and a hash are kept.
LONGEST_TEXT = 200
#: Events without a value after which a feature is said to have vanished.
VANISHED = 256
#: Events in a row with another type after which a feature is said to have changed it.
CHANGED_TYPE = 32
#: In the first events of a stream categories are got to know, not told as news.
GRACE = 100
#: Events that pass before it is told again that values of a feature were clipped.
TOLD_EVERY = 1000
#: Text that stands for no number: what a sensor says instead of one is still a fault.
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


class Change(NamedTuple):
    """The features are no longer what they were: ``kind`` is a word for metrics."""

    kind: str
    feature: str
    detail: str


class ColumnMap:
    """Feature names (and categories, and "is missing" flags) to columns of the raw row.

    Within one event new features take their columns in the order of their names, so that the
    order of the keys of a record means nothing.

    >>> columns = ColumnMap()
    >>> columns.row({"temp": 21.5, "day": "mon"})[columns.numeric["temp"]]
    np.float64(21.5)
    >>> columns.row({"temp": None, "day": "tue", "wind": True})[columns.numeric["wind"]]
    np.float64(1.0)
    """

    def __init__(self) -> None:
        self.width = 0
        self.numeric: dict[str, int] = {}
        #: first column, number of columns, and the categories that have one of their own
        self.blocks: dict[str, tuple[int, int, dict[str, int]]] = {}
        self.flags: dict[str, int] = {}
        self.used = 0
        #: (width,) 1 where the column is standardised, 0 where it is used as it is
        self.scaled: NDArray[np.float64] = np.zeros(0)
        #: how often each kind of change was noticed, ever
        self.schema_changes: dict[str, int] = {}
        #: what was noticed since ``take_changes``
        self._changes: list[Change] = []
        self.events = 0
        #: features without a value, and since which event; then those that were told to be gone
        self.absent: dict[str, int] = {}
        self.vanished: dict[str, int] = {}
        #: events in a row in which a feature had another type than before
        self.strange: dict[str, int] = {}
        #: the event at which it was last told that a feature was clipped
        self.clipped: dict[str, int] = {}
        self._present: frozenset[str] = frozenset()
        self._absent: NDArray[np.float64] = np.zeros(0)

    def row(self, x: Mapping[str, Value], *, grow: bool = True) -> NDArray[np.float64]:
        """The raw row ``(width,)`` of one event; new features take reserved columns.

        With ``grow`` false the map stays as it is, whatever ``x`` holds; so it does when the
        event is refused, but that it counts words in the place of numbers: after ``CHANGED_TYPE``
        in a row the feature has categories too.

        Raises:
            RejectedEvent: a value is not finite or beyond ``LARGEST``, of an unusable type, or a
                string where the feature has been a number so far.
        """
        row = self._absent.copy()
        numeric = self.numeric
        others: list[str] = []
        for name, value in x.items():
            column = numeric.get(name)
            if column is not None and type(value) is float and -LARGEST <= value <= LARGEST:
                row[column] = value  # the common case: a finite number of a known feature
            else:
                others.append(name)
        if not others and self.width:
            if grow:
                if self.strange:
                    self._hear_types(x, others)
                self._follow(x.keys())
            return row
        if grow:
            self._hear_types(x, others)
        checked = {name: self._checked(name, x[name]) for name in others}
        if not grow and not (self.width and self._knows(checked)):
            return copy.deepcopy(self).row(x)
        if self._admit(checked):
            row = self._absent.copy()
            checked = {name: self._checked(name, value) for name, value in x.items()}
        for name in sorted(checked):
            self._place(row, name, checked[name])
        if grow:
            self._follow({n for n in x if checked.get(n, 0.0) is not None and self._is_known(n)})
        return row

    def take_changes(self) -> list[Change]:
        """What was noticed about the features since the last call."""
        if not self._changes:
            return []
        taken, self._changes = self._changes, []
        return taken

    def note_clipped(self, feature: str, detail: str) -> None:
        """A value was far outside of what is usual; told at most every ``TOLD_EVERY`` events."""
        last = self.clipped.get(feature)
        if last is None or self.events - last >= TOLD_EVERY:
            self.clipped[feature] = self.events
            self.note("value_clipped", feature, detail)

    def note(self, kind: str, feature: str, detail: str) -> None:
        """Something about the features, or the target, is no longer what it was."""
        self._count(kind)
        self._changes.append(Change(kind, feature, detail))

    def feature_of(self, column: int) -> str:
        """The feature whose numbers stand in a column; "" for none."""
        return next((name for name, at in self.numeric.items() if at == column), "")

    def _follow(self, present: AbstractSet[str]) -> None:
        """Another event was read: who is there, who is not, and who has not been for long."""
        self.events += 1
        if present != self._present:
            for name in sorted(self._present - present):
                self.absent[name] = self.events
            for name in sorted(present - self._present):
                self.absent.pop(name, None)
                if self.vanished.pop(name, None) is not None:
                    self.note("feature_returned", name, f"{name!r} has values again")
            self._present = frozenset(present)
        while self.absent:
            name, since = next(iter(self.absent.items()))
            if self.events - since < VANISHED:
                return
            del self.absent[name]
            self.vanished[name] = since
            self.note("feature_vanished", name, f"{name!r} has had no value for {VANISHED} events")

    def _hear_types(self, x: Mapping[str, Value], others: list[str]) -> None:
        """Count values of another type than before; after many in a row they are taken for good."""
        strange = {name for name in others if self._is_strange(name, x[name])}
        for name in [n for n in self.strange if n not in strange and x.get(n) is not None]:
            del self.strange[name]
        for name in sorted(strange):
            self.strange[name] = self.strange.get(name, 0) + 1
            if self.strange[name] < CHANGED_TYPE:
                continue
            del self.strange[name]
            words = name in self.numeric
            told = "words where numbers were" if words else "numbers where words were"
            self.note("type_changed", name, f"{name!r} has {told}, {CHANGED_TYPE} times in a row")
            if words:
                self._admit_categories(name, first=False)
            else:
                self._admit_number(name)
            self._absent = self._absent_row()

    def _is_strange(self, name: object, value: object) -> bool:
        """A word where numbers have been; or a number that no category would be called."""
        if isinstance(value, str):
            known = name in self.numeric and name not in self.blocks
            return known and _NUMBER.fullmatch(value[:LONGEST_TEXT]) is None
        if name not in self.blocks or name in self.numeric or not isinstance(value, float):
            return False
        return math.isfinite(value) and not value.is_integer()

    def _knows(self, checked: Mapping[str, float | str | None]) -> bool:
        """Whether these values leave the map as it is."""
        for name, value in checked.items():
            if isinstance(value, str):
                _, room, known = self.blocks.get(name, (0, 1, {}))
                if value not in known and len(known) < room:
                    return False
            elif value is not None:
                if name not in self.numeric:
                    return False
            elif name in self.numeric and name not in self.flags and self.used < self.width:
                return False
        return True

    def _admit(self, checked: Mapping[str, float | str | None]) -> bool:
        """Give columns to what is new; whether anything was.

        A feature that is missing may turn out to be a number or a category: it waits for its
        first value before it takes a column.
        """
        before = self.width, len(self.numeric), len(self.blocks), len(self.flags)
        first = self.width == 0
        if first:
            self._reserve(checked)
        for name in sorted(checked):
            value = checked[name]
            if isinstance(value, str):
                self._admit_categories(name, first=first)
            elif value is not None:
                self._admit_number(name)
            elif name in self.numeric and name not in self.flags and self.used < self.width:
                self.flags[name] = self._take(scaled=False)
        if first:
            self.schema_changes, self._changes = {}, []
        after = self.width, len(self.numeric), len(self.blocks), len(self.flags)
        if after != before:
            self._absent = self._absent_row()
        return after != before

    def _checked(self, name: str, value: object) -> float | str | None:
        """The value as a number, a category or ``None``; nothing is changed yet."""
        if not isinstance(name, str):
            raise RejectedEvent("wrong_type", f"feature name {name!r} is not a string")
        if len(name) > LONGEST_TEXT:
            detail = f"the name of feature {name[:40]!r}... has {len(name):,} characters"
            raise RejectedEvent("too_long", detail)
        if isinstance(value, str):
            value = _shortened(str(value))  # also numpy's
            if name in self.numeric and name not in self.blocks:
                if _NUMBER.fullmatch(value):  # a sender that began to quote its numbers
                    return self._checked(name, float(value))
                detail = f"feature {name!r} is {value[:40]!r}, expected a number as before"
                raise RejectedEvent("wrong_type", detail)
            return value
        if value is None:
            return None
        if not isinstance(value, (bool, int, float, np.integer, np.floating, np.bool_)):
            kind = type(value).__name__
            detail = f"feature {name!r} is a {kind}, expected a number, string, boolean or null"
            raise RejectedEvent("wrong_type", detail)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isnan(number):
            return None
        if not -LARGEST <= number <= LARGEST:
            detail = f"feature {name!r} is {number:.4g}, expected a number within {LARGEST:g} of 0"
            raise RejectedEvent("not_finite", detail)
        return str(value) if name in self.blocks and name not in self.numeric else number

    def _place(self, row: NDArray[np.float64], name: str, value: float | str | None) -> None:
        if value is None:  # its number stays NaN: the mean, once standardised
            if name in self.flags:
                row[self.flags[name]] = 1.0
        elif isinstance(value, str):
            row[self._category_column(name, value)] = 1.0
        else:
            column = self.numeric.get(name)
            row[_hashed(name, self.width) if column is None else column] = value

    def _is_known(self, name: str) -> bool:
        return name in self.numeric or name in self.blocks

    def _is_full(self, name: str) -> bool:
        """There are so many names that another one is not kept."""
        return len(self.numeric) + len(self.blocks) >= MAX_NAMES and not self._is_known(name)

    def _category_column(self, name: str, value: str) -> int:
        start, room, known = self.blocks.get(name, (0, 0, {}))
        if room == 0:
            return _hashed(f"{name}={value}", self.width)
        if value not in known and len(known) < room:
            known[value] = len(known)
            if self.events >= GRACE:
                self._tell_category(name, value, len(known) == room)
        offset = known.get(value)
        return start + (_hashed(value, room) if offset is None else offset)

    def _tell_category(self, name: str, value: str, full: bool) -> None:
        rest = "; further ones share columns" if full else ""
        self.note("category_added", name, f"{name!r} can be {value[:40]!r}{rest}")

    def _admit_categories(self, name: str, *, first: bool) -> None:
        if name not in self.blocks and not self._is_full(name):
            self._tell_feature(name)
            free = self.width - self.used
            # columns were reserved for those of the first event; later ones leave half to others
            room = min(CATEGORY_COLUMNS, free if first else (free + 1) // 2)
            self.blocks[name] = (self.used, room, {})
            for _ in range(room):
                self._take(scaled=False)

    def _tell_feature(self, name: str) -> None:
        if not self._is_known(name):
            self.note("feature_added", name, f"{name[:80]!r} was not there before")

    def _admit_number(self, name: str) -> None:
        if name not in self.numeric and not self._is_full(name):
            self._tell_feature(name)
            free = self.used < self.width
            self.numeric[name] = self._take(scaled=True) if free else _hashed(name, self.width)

    def _absent_row(self) -> NDArray[np.float64]:
        """The row of an event without features: NaN where a number would stand.

        Columns that nobody uses yet are NaN too: should a number come to stand there, rows that
        were kept from before read as its mean.
        """
        row = np.zeros(self.width)
        row[self.used :] = math.nan
        row[list(self.numeric.values())] = math.nan
        return row

    def _reserve(self, x: Mapping[str, float | str | None]) -> None:
        """Fix the width: what this event needs and a quarter, at least 4 columns, to spare."""
        # a feature that is missing: a number and its flag, or a few categories
        sizes = {str: CATEGORY_COLUMNS, float: 1, type(None): 2}
        needed = sum(sizes[type(v)] for v in x.values())
        self.width = min(needed + max(4, needed // 4), MAX_WIDTH)
        self.scaled = np.zeros(self.width)

    def _take(self, *, scaled: bool) -> int:
        column = self.used
        self.scaled[column] = 1.0 if scaled else 0.0
        self.used += 1
        return column

    def _count(self, kind: str) -> None:
        self.schema_changes[kind] = self.schema_changes.get(kind, 0) + 1

    def columns(self) -> dict[str, list[int]]:
        """The columns of each feature: none where its categories have no room of their own, and
        stand where their hashes say.

        >>> columns = ColumnMap()
        >>> row = columns.row({"day": "mon", "temp": 21.5})
        >>> columns.columns()["temp"]
        [16]
        """
        found = {name: [column] for name, column in self.numeric.items()}
        for name, (start, room, _) in self.blocks.items():
            found[name] = found.get(name, []) + list(range(start, start + room))
        for name, column in self.flags.items():
            found[name].append(column)
        return found

    def by_name(self, raw: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The features of raw rows ``(n, width)`` by name, ``(n,)`` each; of categories, whether
        it is that one, and of what can be missing, whether it is."""
        found = {name: raw[:, column] for name, column in self.numeric.items()}
        for name, (start, _, known) in self.blocks.items():
            found |= {f"{name}={category}": raw[:, start + at] for category, at in known.items()}
        for name, column in self.flags.items():
            found[f"{name} is missing"] = raw[:, column]
        return found

    def to_info(self) -> dict[str, Any]:
        """JSON-ready form, a copy; changes are taken before."""
        blocks = self.blocks.items()
        return {
            "width": self.width,
            "numeric": dict(self.numeric),
            "blocks": {n: [start, room, dict(known)] for n, (start, room, known) in blocks},
            "flags": dict(self.flags),
            "used": self.used,
            "scaled": self.scaled.tolist(),
            "schema_changes": dict(self.schema_changes),
            "events": self.events,
            **{name: dict(getattr(self, name)) for name in _FOLLOWED},
        }

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> ColumnMap:
        """The map that ``to_info`` described."""
        made = cls()
        made.width, made.used = info["width"], info["used"]
        made.numeric, made.flags = dict(info["numeric"]), dict(info["flags"])
        blocks = info["blocks"].items()
        made.blocks = {n: (start, room, dict(known)) for n, (start, room, known) in blocks}
        made.scaled = np.array(info["scaled"], dtype=np.float64)
        made.schema_changes = dict(info["schema_changes"])
        made.events = info["events"]
        for name in _FOLLOWED:
            setattr(made, name, dict(info[name]))
        gone = made.absent.keys() | made.vanished.keys()
        made._present = frozenset((made.numeric.keys() | made.blocks.keys()) - gone)
        made._absent = made._absent_row()
        return made


#: What is kept about features by name.
_FOLLOWED = ("absent", "vanished", "strange", "clipped")


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_TEXT:
        return text
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{text[: LONGEST_TEXT - 20]}...{digest}"


def _hashed(text: str, n: int) -> int:
    """A column from a hash that is the same in every process."""
    # JSON can carry lone surrogates, which plain UTF-8 refuses
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % n
