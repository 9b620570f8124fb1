"""Alarms of features alone, for streams without a label."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from drift import EXPECTED, DistributionWatch, Explanation, Status, features_that_moved
from drift.watch import FEATURES
from streammeta.encode import ColumnMap
from streammeta.errors import RejectedEvent
from streammeta.events import DriftDetected, Event, Rejected

LOOKED_AT = 512  # newest rows that an explanation looks at


class UnlabelledWatch:
    """The features of one key: their means and spreads, and what moved at an alarm."""

    def __init__(self, key: str, columns: ColumnMap, expected: float) -> None:
        self._key, self._columns, self._expected = key, columns, expected
        self._watch: DistributionWatch | None = None
        self._rows: deque[tuple[int, NDArray[np.float64]]] = deque(maxlen=LOOKED_AT)
        self._segment, self._start = 0, 0

    def update(self, row: int, raw: NDArray[np.float64]) -> DriftDetected | None:
        """Take one row ``(D,)``."""
        watch = self._watch
        if watch is None:
            watch = self._watch = DistributionWatch(len(raw), self._expected)
        self._rows.append((row, raw))
        if watch.update(row, raw) is not Status.DRIFT:
            return None
        onset = max(watch.surest()[1], self._start)
        votes = {FEATURES: float(np.log(max(watch.votes.max(), 1.0)))}
        kept = np.array([at for at, _ in self._rows])
        rows = np.stack([kept_row for _, kept_row in self._rows])
        new = kept >= onset
        before, after = (self._columns.by_name(rows[side]) for side in (~new, new))
        moved, sizes = features_that_moved(before, after), (int((~new).sum()), int(new.sum()))
        watch.reset()
        self._segment, self._start = self._segment + 1, onset
        while self._rows and self._rows[0][0] < onset:
            self._rows.popleft()
        told = Explanation(votes, moved, sizes, shape="")
        return DriftDetected(
            self._key, row, onset, self._segment, DistributionWatch.name, FEATURES, told
        )


def alarms_of_features(
    events: Iterable[Event], expected: float = EXPECTED
) -> Iterator[DriftDetected | Rejected]:
    """The alarms that the features of ``events`` raise, of each key its own; labels are not read.

    Events that cannot be used come out as ``Rejected``.
    """
    columns = ColumnMap()
    watches: dict[str, UnlabelledWatch] = {}
    row = 0
    for event in events:
        if event.x is None and event.error is None:
            continue  # a label
        try:
            if event.error is not None:
                raise RejectedEvent(*event.error)
            raw = columns.row(event.x or {})
        except RejectedEvent as reject:
            yield Rejected(event.id, "decode", reject.reason, reject.detail)
            continue
        if event.key not in watches:
            watches[event.key] = UnlabelledWatch(event.key, columns, expected)
        alarm = watches[event.key].update(row, raw)
        row += 1
        if alarm is not None:
            yield alarm
