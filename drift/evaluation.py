"""How good were the alarms? From two lists alone: alarms, and the drifts that were there.

Measures as in Bifet 2017 (Classifier concept drift detection and the illusion of progress) and
as streams with known drifts are scored today: always with ``max_delay`` said, gradual drifts
as intervals, and beside the dummies ``every`` and ``never``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

Drift = int | tuple[int, int]


class Report(NamedTuple):
    """What ``evaluate`` found.

    ``delays``: rows from each found drift's start to its alarm, in the order of the drifts;
    ``mean_delay`` their mean, None if nothing was found. ``precision``, ``recall`` and ``f1`` lie
    in [0, 1]; precision is 1 when nothing was raised, recall is 1 when there was nothing to find.
    """

    found: int
    missed: int
    false_alarms: int
    mean_delay: float | None
    delays: tuple[int, ...]
    precision: float
    recall: float
    f1: float
    false_alarms_per_1000: float


def evaluate(alarms: Sequence[int], drifts: Sequence[Drift], rows: int, max_delay: int) -> Report:
    """Match ``alarms`` with ``drifts`` over a stream of ``rows`` rows.

    A drift is a row (abrupt) or ``(start, end)``, both included (gradual). Its window is
    [start, end + max_delay], cut off before the start of the next drift. The first alarm in
    the window finds the drift; further alarms in it are neither found nor false (a detector may
    settle in two steps, and a gradual drift is one change for the scorer only). Alarms outside
    all windows are false. The order of either list does not matter.

    Raises:
        ValueError: rows < 1, max_delay < 0, a row outside [0, rows), an interval that
            ends before it starts, or two drifts with the same start.

    >>> report = evaluate(alarms=[120, 130, 400, 640], drifts=[100, (600, 650)], rows=1000,
    ...                   max_delay=50)
    >>> report.found, report.missed, report.false_alarms, report.delays, report.mean_delay
    (2, 0, 1, (20, 40), 30.0)
    >>> round(report.precision, 3), report.recall, report.false_alarms_per_1000
    (0.667, 1.0, 1.0)
    """
    if rows < 1:
        raise ValueError(f"rows is {rows}; expected at least 1")
    if max_delay < 0:
        raise ValueError(f"max_delay is {max_delay}; expected 0 or more")
    spans = _intervals(drifts, rows)
    raised = sorted(alarms)
    for alarm in raised:
        if not 0 <= alarm < rows:
            raise ValueError(f"alarm at row {alarm}; expected a row in [0, {rows})")
    delays: list[int] = []
    inside = 0
    for number, (start, end) in enumerate(spans):
        last = end + max_delay
        if number + 1 < len(spans):
            last = min(last, spans[number + 1][0] - 1)
        hits = [alarm for alarm in raised if start <= alarm <= last]
        inside += len(hits)
        if hits:
            delays.append(hits[0] - start)
    return _report(delays, len(spans), len(raised) - inside, rows)


def _intervals(drifts: Sequence[Drift], rows: int) -> list[tuple[int, int]]:
    """All drifts as intervals, in order, checked."""
    spans = sorted((d, d) if isinstance(d, int) else (d[0], d[1]) for d in drifts)
    for start, end in spans:
        if not 0 <= start <= end < rows:
            raise ValueError(f"drift ({start}, {end}); expected 0 <= start <= end < {rows} rows")
    for (start, _), (after, _) in pairwise(spans):
        if start == after:
            raise ValueError(f"two drifts start at row {start}; expected one")
    return spans


def _report(delays: list[int], drifts: int, false_alarms: int, rows: int) -> Report:
    """The ratios."""
    found = len(delays)
    precision = found / (found + false_alarms) if found + false_alarms else 1.0
    recall = found / drifts if drifts else 1.0
    both = precision + recall
    return Report(
        found=found,
        missed=drifts - found,
        false_alarms=false_alarms,
        mean_delay=sum(delays) / found if found else None,
        delays=tuple(delays),
        precision=precision,
        recall=recall,
        f1=2.0 * precision * recall / both if both else 0.0,
        false_alarms_per_1000=1000.0 * false_alarms / rows,
    )


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
