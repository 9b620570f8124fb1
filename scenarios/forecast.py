"""Forecasting without a leak: a value is known from its own row on, and to nobody before.

At row ``t`` of a series the question is the target at row ``t + H``. Its answer is an event of
its own, right before the question of row ``t + H``: whoever learns from answers when they come
has seen, at ``t``, only pairs whose targets are at or before ``t``. Training on the pair of the
row at hand, as soon as its features are known, would be learning from the next ``H`` rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from math import cos, pi, sin
from statistics import median

import numpy as np

from scenarios.scenario import Card, Scenario
from scenarios.series import Column, Series, series
from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value
from streammeta.sources.labels import at_horizon

LOOKBACK = 48  # last values of the target that a question shows
ROWS_PER_LAG = 25  # a table with fewer than LOOKBACK times this many rows shows fewer
TRAIN, VALIDATE = 0.20, 0.25  # shares of the rows: up to here to learn, up to here to choose
FEWEST_PAIRS = 10  # that the first 20 % must hold
DAY_SECONDS = 86_400.0


def lookback(rows: int) -> int:
    """How many last values a question of a table of ``rows`` rows shows: 1 to 48.

    >>> lookback(17_420), lookback(1_268), lookback(144)
    (48, 48, 5)
    """
    return max(1, min(LOOKBACK, rows // ROWS_PER_LAG))


class ForecastStream(Scenario):
    """Questions for the target ``horizon`` rows ahead, one at every row with a full lookback.

    Features: ``target-0`` (the value at the row itself) to ``target-47`` (see ``lookback``), the
    other columns at the row, and where there is a clock the sine and cosine of the hour of the
    day (rows less than a day apart) and of the day of the week (less than a week apart).

    Every column is z-scored with mean and standard deviation of its first 20 % of rows. The next
    5 % are for choosing settings; questions from 25 % on are scored. The card counts questions:
    question 0 is asked at row ``lookback - 1``. A change of regime is a drift at the question of
    its row; the ``horizon`` questions before have their answers beyond it, which the card's
    ``horizon`` tells whoever judges the losses around a change. The last ``horizon`` questions
    get no answer.

    Args:
        table: the series; the seed of a recorded one changes nothing.
        horizon: rows ahead, at least 1.
        rows: questions, all that the table has by default.

    Raises:
        UsageError: the horizon is not positive, or the table is too short for it.
    """

    def __init__(self, table: Series, horizon: int, seed: int = 0, rows: int | None = None) -> None:
        if horizon < 1:
            raise UsageError(f"forecast:{table.name}: horizon is {horizon}, expected at least 1")
        self.seed = seed
        self.table, self.horizon = table, horizon
        self.rows = table_rows(rows, len(table))  # of the table, with those before question 0
        self.lookback = lookback(self.rows)
        train, scored = int(TRAIN * self.rows), int(VALIDATE * self.rows)
        _enough(table, horizon, train - horizon - self.lookback + 1)
        self._mean, self._scale = _moments(table.target[:train])
        self._target = (table.target[: self.rows] - self._mean) / self._scale
        self._columns = {
            name: _standardised(values[: self.rows], train) for name, values in table.others.items()
        }
        self._calendar = _calendar(table.times[: self.rows], train) if table.times else {}
        self.card = self._card(train, scored)

    def _card(self, train: int, scored: int) -> Card:
        table, first = self.table, self.lookback - 1
        full = table.default_rows or len(table)
        best = table.noise(self.horizon) / self._scale if table.noise else None
        drifts = [row - first for row in table.changes if first < row < self.rows]
        return Card(
            name=f"forecast:{table.name}@{self.horizon}",
            task="regression",
            rows=self.rows - first,
            drifts=tuple((row, row) for row in drifts),
            description=f"{self.horizon} rows ahead from the last {self.lookback} values, z-scored "
            f"by the first 20 % of the rows: {table.description}",
            ceiling="unknown" if best is None else f"mean absolute error {best:.4f} (noise)",
            reference=table.reference,
            default_rows=full - lookback(full) + 1,
            best=best,
            score_from=scored - first,
            train_until=train - first,
            horizon=self.horizon,
            source=table.source,
            licence=table.licence,
            checksum=table.checksum,
            fixed=bool(table.checksum),  # of a file; a generated series has none
        )

    def events(self) -> Iterator[Event]:
        """Questions and answers apart, ids ``name:0:question``; ``ts`` is the row's own time."""
        return at_horizon(self._asked(), self.horizon)

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        """The questions that get an answer."""
        asked: dict[str, dict[str, Value]] = {}
        for event in self.events():
            if event.x is not None:
                asked[event.id] = dict(event.x)
            elif event.y is not None:
                yield asked.pop(event.id), event.y

    def _asked(self) -> Iterator[Event]:
        """Each row as question with its own target beside it, which ``at_horizon`` moves."""
        first = self.lookback - 1
        times = self.table.times
        for row in range(first, self.rows):
            y = _value(self._target[row])
            ts = times[row].timestamp() if times else float(row)
            yield Event(f"{self.card.name}:0:{row - first}", self._features(row), y, ts=ts)

    def _features(self, row: int) -> dict[str, Value]:
        past = self._target[row - self.lookback + 1 : row + 1][::-1]
        x: dict[str, Value] = {f"target-{lag}": _value(v) for lag, v in enumerate(past)}
        for name, values in (*self._columns.items(), *self._calendar.items()):
            x[name] = _value(values[row])
        return x


def forecast_stream(
    argument: str = "", *, seed: int = 0, rows: int | None = None
) -> ForecastStream:
    """``forecast:NAME@H``: ``regimes``, ``etth1``, ``WaterFlow``, ``AirlinePassengers``.

    Raises:
        UsageError: no such series, no horizon, or the series is too short for it.
        SourceError: the series is a file that is not on this machine.
    """
    name, _, horizon = argument.rpartition("@")
    if not (name and horizon.isdecimal()):
        raise UsageError(
            f"forecast:{argument}: expected forecast:NAME@H, H rows ahead, as forecast:regimes@24"
        )
    needed = None if rows is None else table_rows(rows, None)
    return ForecastStream(series(name, seed, needed), int(horizon), seed, rows)


def table_rows(questions: int | None, available: int | None) -> int:
    """The fewest rows that ask ``questions`` questions, but no more than there are.

    >>> table_rows(17_373, None), table_rows(140, 144), table_rows(None, 144)
    (17420, 144, 144)
    """
    if questions is None:
        return available or 0
    rows = questions
    while rows - lookback(rows) + 1 < questions:
        rows += 1
    return rows if available is None else min(rows, available)


def _enough(table: Series, horizon: int, pairs: int) -> None:
    if pairs < FEWEST_PAIRS:
        raise UsageError(
            f"forecast:{table.name}@{horizon}: the first 20 % of the rows hold {max(pairs, 0)} "
            f"pairs {horizon} rows apart, expected at least {FEWEST_PAIRS}: take more rows or a "
            "smaller horizon"
        )


def _moments(values: Column) -> tuple[float, float]:
    """Mean and standard deviation of what is not missing; 1 in place of no deviation."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    return float(known.mean()), float(known.std()) or 1.0


def _standardised(values: Column, train: int) -> Column:
    mean, scale = _moments(values[:train])
    return (values - mean) / scale


def _calendar(times: tuple[datetime, ...], train: int) -> dict[str, Column]:
    """Where each row is in its day and its week, on two circles."""
    step = median((b - a).total_seconds() for a, b in pairwise(times[:train]))
    angles: dict[str, list[float]] = {}
    if step < DAY_SECONDS:
        angles["hour"] = [(m.hour + m.minute / 60) / 24 for m in times]
    if step < 7 * DAY_SECONDS:
        angles["weekday"] = [m.weekday() / 7 for m in times]
    return {
        f"{name}-{wave.__name__}": np.array([wave(2.0 * pi * turn) for turn in turns])
        for name, turns in angles.items()
        for wave in (sin, cos)
    }


def _value(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
