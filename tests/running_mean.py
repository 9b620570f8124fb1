"""A small real model for tests of the runtime: predicts the mean of all labels so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streammeta.events import Event, MetaUpdated, Output, Predicted, Rejected, Scored
from streammeta.snapshot import Snapshot


class RunningMean:
    """Every chunk is answered with the mean at its start; every 10 labels are an outer step."""

    def __init__(self, snapshot: Snapshot | None = None, chunk: int = 1) -> None:
        self.chunk = chunk
        self.total, self.labels, self.row, self.updates = 0.0, 0, 0, 0
        self.waiting: dict[str, tuple[int, float | None]] = {}
        if snapshot is not None:
            self.total = float(snapshot.tensors["total"])
            self.labels, self.row = snapshot.info["labels"], snapshot.info["row"]
            self.updates = snapshot.info["updates"]
            self.waiting = {i: (r, p) for i, r, p in snapshot.info["waiting"]}

    def observe(self, events: Sequence[Event]) -> list[Output]:
        outputs: list[Output] = []
        for start in range(0, len(events), self.chunk):
            mean = self.total / self.labels if self.labels else None
            for event in events[start : start + self.chunk]:
                outputs += self._one(event, mean)
        return outputs

    def _one(self, event: Event, mean: float | None) -> list[Output]:
        if event.error is not None:
            return [Rejected(event.id, "decode", *event.error)]
        outputs: list[Output] = []
        if event.x is not None:
            self.waiting[event.id] = (self.row, mean)
            outputs.append(Predicted(event.id, event.key, self.row, event.ts, mean))
            self.row += 1
        if event.y is not None:
            row, guess = self.waiting.pop(event.id)
            truth = float(event.y)
            loss = abs(truth - (guess or 0.0))
            delay = self.row - 1 - row
            outputs.append(Scored(event.id, event.key, row, truth, guess, loss, loss**2, delay))
            self.total += truth
            self.labels += 1
        return outputs

    def replay(self) -> list[Output]:
        if self.labels // 10 == self.updates:
            return []
        self.updates += 1
        self.total *= 0.999  # an outer step whose place in the stream shows in the state
        return [MetaUpdated(self.row, self.updates, 1, self.total, 0.0)]

    def snapshot(self) -> Snapshot:
        waiting = [[i, r, p] for i, (r, p) in self.waiting.items()]
        counts = {"labels": self.labels, "row": self.row, "updates": self.updates}
        return Snapshot({"total": np.array(self.total)}, {**counts, "waiting": waiting})
