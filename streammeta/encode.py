"""From a feature dict to a row of numbers, one column map per stream, append-only.

A raw row is float64 ``(width,)``: numbers as they are (missing = NaN), categories one-hot,
reserved columns 0. ``standardise`` turns raw rows into float32 network inputs with running
moments of the key. The width is fixed at the first event with room to spare, so meta-parameters
keep their shape when features appear; once the room is used up, features share hashed columns.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Mapping
from typing import Any

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
#: More columns than this are never reserved.
MAX_WIDTH = 1024


class ColumnMap:
    """Feature names (and categories, and "is missing" flags) to columns of the raw row.

    >>> columns = ColumnMap()
    >>> columns.row({"temp": 21.5, "day": "mon"})[:1]
    array([21.5])
    >>> columns.row({"temp": None, "day": "tue", "wind": True})[columns.numeric["wind"]]
    np.float64(1.0)
    """

    def __init__(self) -> None:
        self.width = 0
        self.numeric: dict[str, int] = {}
        self.blocks: dict[str, tuple[int, dict[str, int]]] = {}
        self.flags: dict[str, int] = {}
        self.used = 0
        #: (width,) 1 where the column is standardised, 0 where it is used as it is
        self.scaled: NDArray[np.float64] = np.zeros(0)
        self.schema_changes: dict[str, int] = {}

    def row(self, x: Mapping[str, Value], *, grow: bool = True) -> NDArray[np.float64]:
        """The raw row ``(width,)`` of one event; new features take reserved columns.

        With ``grow`` false the map stays as it is, whatever ``x`` holds.

        Raises:
            RejectedEvent: a value is infinite, of an unusable type, or a string where the
                feature has been a number so far.
        """
        if self.width == 0:
            self._reserve(x)
        if not grow:
            return copy.deepcopy(self).row(x)
        row = np.zeros(self.width)
        numeric = self.numeric
        for name, value in x.items():
            column = numeric.get(name)
            if column is not None and type(value) is float and value - value == 0.0:
                row[column] = value  # the common case: a finite number of a known feature
            else:
                self._place(row, name, value)
        if len(x) != len(numeric) + len(self.blocks):
            for name, column in numeric.items():
                if name not in x:
                    row[column] = math.nan
        return row

    def _place(self, row: NDArray[np.float64], name: str, value: Value) -> None:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            self._place_missing(row, name)
        elif isinstance(value, str):
            self._place_category(row, name, value)
        elif isinstance(value, (bool, int, float, np.integer, np.floating, np.bool_)):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if not math.isfinite(number):
                detail = f"feature {name!r} is {str(value)[:40]}, expected a finite number"
                raise RejectedEvent("not_finite", detail)
            if name in self.blocks:
                self._place_category(row, name, str(value))
            else:
                row[self._numeric_column(name)] = number
        else:
            kind = type(value).__name__
            detail = f"feature {name!r} is a {kind}, expected a number, string, boolean or null"
            raise RejectedEvent("wrong_type", detail)

    def _place_missing(self, row: NDArray[np.float64], name: str) -> None:
        """NaN (the mean, once standardised) and a flag of its own, if there is room for one."""
        if name in self.numeric:
            row[self.numeric[name]] = math.nan
            if name not in self.flags and self.used < self.width:
                self.flags[name] = self._take(f"{name} is missing", scaled=False)
        if name in self.flags:
            row[self.flags[name]] = 1.0

    def _place_category(self, row: NDArray[np.float64], name: str, value: str) -> None:
        if name in self.numeric:
            detail = f"feature {name!r} is {value[:40]!r}, expected a number as before"
            raise RejectedEvent("wrong_type", detail)
        if name not in self.blocks:
            self._count("feature_added")
            room = min(CATEGORY_COLUMNS, self.width - self.used)
            self.blocks[name] = (self.used if room else -1, {})
            for _ in range(room):
                self._take(name, scaled=False)
        start, known = self.blocks[name]
        if start < 0:
            row[_hashed(f"{name}={value}", self.width)] += 1.0
            return
        if value not in known and len(known) < CATEGORY_COLUMNS:
            known[value] = len(known)
        offset = known.get(value)
        if offset is None or start + offset >= self.width:
            offset = _hashed(value, min(CATEGORY_COLUMNS, self.width - start))
        row[start + offset] = 1.0

    def _numeric_column(self, name: str) -> int:
        if name not in self.numeric:
            self._count("feature_added")
            free = self.used < self.width
            column = self._take(name, scaled=True) if free else _hashed(name, self.width)
            self.numeric[name] = column
        return self.numeric[name]

    def _reserve(self, x: Mapping[str, Value]) -> None:
        """Fix the width: what this event needs and a quarter, at least 4 columns, to spare."""
        needed = sum(CATEGORY_COLUMNS if isinstance(v, str) else 1 for v in x.values())
        self.width = min(needed + max(4, needed // 4), MAX_WIDTH)
        self.scaled = np.zeros(self.width)
        for name, value in x.items():
            if not isinstance(value, str):
                self._numeric_column(name)
            else:
                self._place_category(np.zeros(self.width), name, value)
        self.schema_changes = {}

    def _take(self, name: str, *, scaled: bool) -> int:
        column = self.used
        self.scaled[column] = 1.0 if scaled else 0.0
        self.used += 1
        return column

    def _count(self, kind: str) -> None:
        self.schema_changes[kind] = self.schema_changes.get(kind, 0) + 1

    def to_info(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "width": self.width,
            "numeric": self.numeric,
            "blocks": {name: [start, known] for name, (start, known) in self.blocks.items()},
            "flags": self.flags,
            "used": self.used,
            "scaled": self.scaled.tolist(),
            "schema_changes": self.schema_changes,
        }

    @classmethod
    def from_info(cls, info: dict[str, Any]) -> ColumnMap:
        """The map that ``to_info`` described."""
        made = cls()
        made.width, made.used = info["width"], info["used"]
        made.numeric, made.flags = dict(info["numeric"]), dict(info["flags"])
        made.blocks = {n: (start, dict(known)) for n, (start, known) in info["blocks"].items()}
        made.scaled = np.array(info["scaled"], dtype=np.float64)
        made.schema_changes = dict(info["schema_changes"])
        return made


def _hashed(text: str, n: int) -> int:
    """A column from a hash that is the same in every process."""
    return zlib.crc32(text.encode()) % n
