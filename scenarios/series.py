"""Tables that a forecast stream is made of: one target, other columns, perhaps a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenarios.data_sets import KNOWN, NOT_STATED, sha256
from scenarios.file_stream import known_reading
from scenarios.open_stream import find_file
from scenarios.prequential import events_of
from scenarios.regimes import ROWS, Regimes
from scenarios.river_stream import data_set
from streammeta.errors import UsageError

Column = NDArray[np.float64]

RIVER = ("WaterFlow", "AirlinePassengers")  # River's bundled data sets with one value per moment


@dataclass(frozen=True, slots=True)
class Series:
    """A table in the order of time, as it was recorded.

    ``target`` and each of ``others`` are ``(rows,)`` in the units of the data, NaN where missing;
    ``times`` holds each row's moment on the clock of the place, if there is one. ``changes`` are
    the rows from which on another regime rules. ``noise(horizon)`` is the mean absolute error, in
    the target's units, of a forecaster who knows everything but what chance has not drawn yet.
    ``default_rows`` is how long a generated one is when nobody asks for other than that.
    """

    name: str
    target: Column
    others: Mapping[str, Column] = field(default_factory=dict)
    times: tuple[datetime, ...] | None = None
    changes: tuple[int, ...] = ()
    noise: Callable[[int], float] | None = None
    default_rows: int = 0
    description: str = ""
    reference: str = ""
    source: str = ""
    licence: str = ""
    checksum: str = ""

    def __len__(self) -> int:
        return len(self.target)


def series(name: str, seed: int, rows: int | None) -> Series:
    """The series called ``name``; ``rows`` asks the generator for that many.

    Raises:
        UsageError: no series has this name.
        SourceError: its file is not on this machine.
    """
    if name == "regimes":
        return regimes(seed, rows)
    if name in RIVER:
        return river_series(name)
    if name in forecastable():
        return open_series(name)
    known = ("regimes", *RIVER, *forecastable())
    near = get_close_matches(name, known, n=3) or known
    raise UsageError(f"no series is called {name!r}; did you mean {', '.join(near)}?")


def forecastable() -> tuple[str, ...]:
    """The known files that hold a series: those whose target is asked for ahead of its time."""
    return tuple(name for name, known in KNOWN.items() if known.horizon)


def open_series(name: str) -> Series:
    """A known file in the folder ``STREAMMETA_DATA``, all of its columns.

    Raises:
        SourceError: it is not there.
    """
    known, path = KNOWN[name], find_file(name)
    same = known.is_in(path)
    rows = list(events_of(known_reading(known, horizon=0).source(path, None)))
    columns = list(rows[0].x or ())
    return Series(
        name=name,
        target=np.array([_number(row.y) for row in rows]),
        others={c: np.array([_number((row.x or {}).get(c)) for row in rows]) for c in columns},
        times=tuple(datetime.fromtimestamp(row.ts or 0.0, UTC) for row in rows),
        description=f"{path.name}, {known.target} and {len(columns)} other columns",
        reference=known.source if same else "not known",
        source=known.source if same else str(path),
        licence=known.licence if same else NOT_STATED,
        checksum=sha256(path),
    )


def river_series(name: str) -> Series:
    """One of River's bundled data sets with a date and a value per row."""
    data = data_set(name)
    rows = [(next(iter(x.values())), y) for x, y in data]
    return Series(
        name=name,
        target=np.array([y for _, y in rows], float),
        times=tuple(moment for moment, _ in rows),
        description=" ".join(str(data.desc).strip().partition("\n\n")[0].split()),
        reference=f"river.datasets.{name}",
        source=f"bundled with River: {data.path.name}",
        licence=NOT_STATED,
        checksum=sha256(data.path),
    )


def regimes(seed: int, rows: int | None) -> Series:
    """The generated series: needs no data, and its changes are known."""
    made = Regimes(seed, rows)
    return Series(
        name="regimes",
        target=made.values(),
        times=made.times(),
        changes=tuple(change.row for change in made.changes),
        noise=made.noise,
        default_rows=ROWS,
        description="daily and weekly seasons, autoregressive noise; "
        + ", ".join(f"{change.kind} at {change.row:,}" for change in made.changes),
        reference="made here",
    )


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
