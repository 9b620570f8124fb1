"""Event times: how a column writes them, found out once from its first rows.

ISO 8601 is read as it stands. Other dates follow one layout per column where one fits, found with
the rules of ``pandas.to_datetime`` (month first where the day cannot be told from the month).
Numbers are seconds since 1970, or milliseconds, microseconds or nanoseconds by their size.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from streammeta.errors import RejectedEvent
from streammeta.sources.cells import MISSING, as_float, finite, is_number, show

WANTED = "seconds since 1970 or a date and time"
MAX_LAYOUTS = 4  # layouts that one column may mix
GIVEN_UP = 20  # unreadable cells after which a column is taken to hold no times
# From this size on a number is taken for milliseconds, microseconds, nanoseconds. 1e11 seconds is
# the year 5138, 1e11 milliseconds is March 1973.
TICKS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
COMPACT = "%Y%m%d"
# Layouts that pandas reads but does not guess.
UNGUESSED = (
    *("%m/%d/%y", "%m/%d/%y %H:%M", "%m/%d/%y %I:%M %p", "%m/%d/%Y %I:%M %p"),
    *("%m/%d/%Y %I:%M:%S %p", "%d/%m/%y", "%d/%m/%y %H:%M", "%d.%m.%y", "%d.%m.%y %H:%M"),
    *("%d-%b-%y", "%b %Y", "%B %Y", "%b-%Y", "%b-%y", "%m/%Y", "%Y/%m"),
)
_LIKE_A_DATE = re.compile(r"\d[-/. ]\S|\S[-/. ]\d")


@dataclass(frozen=True, slots=True)
class Clock:
    """How the times of one column are written.

    ``layouts`` are formats of ``strptime``, tried in order after ISO 8601. ``ticks`` is how many
    of a number make a second; ``None``: by the size of each number. ``compact`` numbers are days
    such as 20240131.
    """

    layouts: tuple[str, ...] = ()
    ticks: float | None = None
    compact: bool = False

    def seconds(self, value: Any) -> float | None:
        """Seconds since 1970 from a number, a text or a datetime; UTC where no zone is given.

        Raises:
            RejectedEvent: the value is no time.

        >>> ISO.seconds("1970-01-01 00:01"), ISO.seconds("60"), ISO.seconds(1_700_000_000_000)
        (60.0, 60.0, 1700000000.0)
        >>> Clock(("%d/%m/%Y",)).seconds("02/01/1970")
        86400.0
        """
        if isinstance(value, str):
            text = value.strip()
            if text in MISSING:
                return None
            value = float(text) if is_number(text) else self._moment(text)
        if value is None:
            return None
        if isinstance(value, date):
            return _since_1970(value)
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
            raise RejectedEvent("wrong_type", f"is {show(value)}, expected {WANTED}")
        number = finite(as_float(value), value)
        if number is None:
            return None
        if self.compact and (day := _read(f"{number:.0f}", COMPACT)) is not None:
            return _since_1970(day)
        return number / (_ticks(number) if self.ticks is None else self.ticks)

    def _moment(self, text: str) -> datetime:
        moment = _iso(text)
        for layout in self.layouts:
            if moment is not None:
                break
            moment = _read(text, layout)
        if moment is None:
            raise RejectedEvent("wrong_type", f"is {show(text)}, expected {WANTED}")
        return moment


ISO = Clock()
"""The clock of a value that stands alone."""


def time_layouts(texts: Sequence[str]) -> tuple[str, ...] | None:
    """The layouts that read all of the texts, none for ISO; ``None`` when they are no dates.

    >>> time_layouts(["2024-01-31 10:00", "2024-02-01"]), time_layouts(["03/04/20", "31/04/20"])
    ((), None)
    >>> time_layouts(["1949-01"]), time_layouts(["07/04/2020", "31/04/2020"])
    (('%Y-%m',), None)
    >>> time_layouts(["07/04/2020", "07/31/2020"]), time_layouts(["07/04/2020", "31/12/2020"])
    (('%m/%d/%Y',), ('%d/%m/%Y',))
    """
    strange = [text for text in texts if _iso(text) is None]
    if not strange:
        return ()
    for layout in _candidates(strange[0]):
        if all(_read(text, layout) is not None for text in strange):
            return (layout,)
    return None


def clock_of(values: Iterable[Any]) -> Clock:
    """The clock of a column that was named as the time; single bad cells are passed over."""
    present = [v for v in values if v is not None and v == v]
    texts = [v.strip() for v in present if isinstance(v, str) and v.strip() not in MISSING]
    numbers = [float(t) for t in texts if is_number(t)]
    numbers += [as_float(v) for v in present if isinstance(v, (int, float, Decimal))]
    compact = bool(numbers) and all(_is_compact(v) for v in numbers)
    ticks = max(map(_ticks, numbers)) if numbers else None
    left = [t for t in texts if not is_number(t) and _iso(t) is None]
    layouts: list[str] = []
    failures = 0
    while left and len(layouts) < MAX_LAYOUTS and failures < GIVEN_UP:
        read = {layout: [t for t in left if _read(t, layout)] for layout in _candidates(left[0])}
        if not read:
            failures += 1
            left = left[1:]
            continue
        best = max(read, key=lambda layout: len(read[layout]))
        layouts.append(best)
        left = [t for t in left if _read(t, best) is None]
    return Clock(tuple(layouts), ticks, compact)


def _candidates(text: str) -> list[str]:
    """The layouts that the text may have, month first before day first."""
    if not _LIKE_A_DATE.search(text):
        return []
    from pandas.tseries.api import guess_datetime_format

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where it has to swap day and month
        guessed = [guess_datetime_format(text, dayfirst=first) for first in (False, True)]
    layouts = dict.fromkeys([g for g in guessed if g] + list(UNGUESSED))
    return [layout for layout in layouts if _read(text, layout) is not None]


def _iso(text: str) -> datetime | None:
    if len(text) < 8:  # "2024" and "202401" are numbers, not days
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _read(text: str, layout: str) -> datetime | None:
    try:
        return datetime.strptime(text, layout)
    except ValueError:
        return None


def _since_1970(moment: date) -> float:
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _ticks(number: float) -> float:
    return next((ticks for size, ticks in TICKS if abs(number) >= size), 1.0)


def _is_compact(number: float) -> bool:
    """A whole number such as 20240131; as seconds it would be an hour of August 1970."""
    if not 19_000_101 <= number <= 22_001_231 or not number.is_integer():
        return False
    return _read(f"{number:.0f}", COMPACT) is not None
