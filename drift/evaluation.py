"""How good were the alarms? From two lists alone: alarms, and the drifts that were there.

The measures of the field, always with ``max_delay`` said, gradual drifts as intervals from their
onset, and beside the dummies ``every`` and ``never``: what a detector has to beat at the same
density of drifts. Sources: Bifet, Classifier concept drift detection and the illusion of
progress, ICAISC 2017 (times between false alarms, MTR); Cerqueira, Gomes, Bifet, Torgo (alarms
and episodes, as CapyMOA 0.15 computes them), with which ``evaluate`` agrees where no two windows
overlap. Where they do, a window ends here before the next drift, which CapyMOA counts as found by
alarms of its own window only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

Drift = int | tuple[int, int]


class Report(NamedTuple):
    """What ``evaluate`` found.

    ``drifts``: how many there were, ``found`` of them by ``hits`` alarms; ``delays``: rows from
    each found drift's onset to its first alarm, in the order of the drifts; ``outside``: rows in
    no drift's window. All shares lie in [0, 1]; None where nothing was found or raised.
    """

    rows: int
    max_delay: int
    drifts: int
    found: int
    hits: int
    false_alarms: int
    delays: tuple[int, ...]
    outside: int

    @property
    def missed(self) -> int:
        """Drifts that no alarm found."""
        return self.drifts - self.found

    @property
    def precision(self) -> float:
        """Alarms in a window / alarms; without any, 1 if there was nothing to find, else 0."""
        alarms = self.hits + self.false_alarms
        return self.hits / alarms if alarms else float(self.drifts == 0)

    @property
    def recall(self) -> float:
        """Alarms in a window / (these + missed drifts); 1 where there was nothing to find.

        Whoever repeats an alarm raises it: ``episode_recall`` counts each drift once.
        """
        return self.hits / (self.hits + self.missed) if self.drifts else 1.0

    @property
    def episode_recall(self) -> float:
        """Drifts found / drifts; 1 where there was nothing to find."""
        return self.found / self.drifts if self.drifts else 1.0

    @property
    def f1(self) -> float:
        """Harmonic mean of ``precision`` and ``recall``."""
        both = self.precision + self.recall
        return 2.0 * self.precision * self.recall / both if both else 0.0

    @property
    def mean_delay(self) -> float | None:
        """Mean detection time (MDT): mean of ``delays``, in rows."""
        return sum(self.delays) / self.found if self.found else None

    @property
    def normalised_delay(self) -> float | None:
        """NDT: ``mean_delay`` / ``max_delay``."""
        if self.mean_delay is None:
            return None
        return self.mean_delay / self.max_delay if self.max_delay else 0.0

    @property
    def false_alarms_per_1000(self) -> float:
        """False alarms / rows x 1,000."""
        return 1000.0 * self.false_alarms / self.rows

    @property
    def between_false_alarms(self) -> float | None:
        """Mean time between false alarms (MTFA): rows in no window / false alarms. On a stream
        without drifts, where a detector starts over after each alarm, that is its ARL0."""
        return self.outside / self.false_alarms if self.false_alarms else None

    @property
    def mean_time_ratio(self) -> float | None:
        """MTR = MTFA / MDT (1 row at least) x (share of drifts found); infinite without a false
        alarm."""
        if not self.drifts:
            return None
        if not self.found:
            return 0.0
        apart = math.inf if self.between_false_alarms is None else self.between_false_alarms
        return apart / max(self.mean_delay or 0.0, 1.0) * self.episode_recall


def evaluate(alarms: Sequence[int], drifts: Sequence[Drift], rows: int, max_delay: int) -> Report:
    """Match ``alarms`` with ``drifts`` over a stream of ``rows`` rows.

    A drift is a row (abrupt) or ``(start, end)``, both included (gradual). Its window is
    [start, end + max_delay], cut off before the start of the next drift. The first alarm in
    the window finds the drift; further alarms in it are no false ones (a detector may settle in
    two steps, and a gradual drift is one change for the scorer only). Alarms outside all windows
    are false. The order of either list does not matter.

    Raises:
        ValueError: rows < 1, max_delay < 0, a row outside [0, rows), an interval that
            ends before it starts, or two drifts with the same start.

    >>> report = evaluate(alarms=[120, 130, 400, 640], drifts=[100, (600, 650)], rows=1000,
    ...                   max_delay=50)
    >>> report.found, report.missed, report.false_alarms, report.delays, report.mean_delay
    (2, 0, 1, (20, 40), 30.0)
    >>> report.precision, report.recall, report.normalised_delay, report.false_alarms_per_1000
    (0.75, 1.0, 0.6, 1.0)
    """
    if rows < 1:
        raise ValueError(f"rows is {rows}; expected at least 1")
    if max_delay < 0:
        raise ValueError(f"max_delay is {max_delay}; expected 0 or more")
    raised = sorted(alarms)
    for alarm in raised:
        if not 0 <= alarm < rows:
            raise ValueError(f"alarm at row {alarm}; expected a row in [0, {rows})")
    delays: list[int] = []
    hits = inside = 0
    windows = _windows(_intervals(drifts, rows), rows, max_delay)
    for start, last in windows:
        own = [alarm for alarm in raised if start <= alarm <= last]
        hits += len(own)
        inside += last - start + 1
        if own:
            delays.append(own[0] - start)
    return Report(
        rows, max_delay, len(windows), len(delays), hits, len(raised) - hits, tuple(delays),
        rows - inside,
    )  # fmt: skip


def _intervals(drifts: Sequence[Drift], rows: int) -> list[tuple[int, int]]:
    """All drifts as intervals, in order, checked."""
    spans = sorted(
        (int(d), int(d)) if isinstance(d, (int, np.integer)) else (int(d[0]), int(d[1]))
        for d in drifts
    )
    for start, end in spans:
        if not 0 <= start <= end < rows:
            raise ValueError(f"drift ({start}, {end}); expected 0 <= start <= end < {rows} rows")
    for (start, _), (after, _) in pairwise(spans):
        if start == after:
            raise ValueError(f"two drifts start at row {start}; expected one")
    return spans


def _windows(spans: Sequence[tuple[int, int]], rows: int, max_delay: int) -> list[tuple[int, int]]:
    """First and last row in which an alarm finds a drift."""
    following = [*(start for start, _ in spans[1:]), rows]
    return [
        (start, min(end + max_delay, after - 1))
        for (start, end), after in zip(spans, following, strict=False)
    ]


def every(n: int, rows: int) -> list[int]:
    """The dummy that raises an alarm at every ``n``-th row: what a detector has to beat.

    >>> every(300, 1000)
    [299, 599, 899]
    """
    if n < 1:
        raise ValueError(f"n is {n}; expected at least 1")
    return list(range(n - 1, rows, n))


def never() -> list[int]:
    """The dummy that never raises one.

    >>> evaluate(never(), [500], rows=1000, max_delay=100).recall
    0.0
    """
    return []
