"""How good the predictions are: running means, baselines, and how long recoveries take."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from streammeta.events import DriftDetected, Label, Output, Predicted, Scored
from streammeta.scores import FROZEN_EVERY

ROLLING = 1000  # scored predictions in the rolling window
# A recovery, as `streammeta bench` judges it: the loss of BEFORE rows is the level, that of WINDOW
# rows must be back there; LEAST say something.
BEFORE, WINDOW, LEAST = 200, 50, 20
FOLLOWED = 64  # keys whose recoveries are followed
KEPT = 700  # losses of a key: BEFORE, and 500 of the new world before an alarm

Task = Literal["classification", "regression"]


class Mean:
    """A mean over everything and over the last values."""

    __slots__ = ("_recent", "count", "total")

    def __init__(self, room: int = ROLLING) -> None:
        self.count, self.total = 0, 0.0
        self._recent: deque[float] = deque(maxlen=room)

    def extend(self, values: Sequence[float]) -> None:
        """Take some values."""
        self.count += len(values)
        self.total += math.fsum(values)
        self._recent.extend(values)

    @property
    def cumulative(self) -> float:
        """Over everything; there must be a value."""
        return self.total / self.count

    @property
    def rolling(self) -> float:
        """Over the last ones; from any thread."""
        recent = list(self._recent)
        return math.fsum(recent) / len(recent)


class Recovery:
    """The losses of one key, and how many events pass from a drift until they are back.

    Back are the first ``WINDOW`` losses whose mean is that of ``BEFORE`` before the drift, or one
    standard error above; with another drift before that, the whole segment counts. A drift with
    fewer than ``LEAST`` losses before it is not judged.
    """

    __slots__ = ("_after", "_onset", "_told", "_window", "level", "losses")

    def __init__(self, told: Callable[[float], None], row: int, loss: float) -> None:
        self._told = told  # called with the number of events
        self.losses: deque[tuple[int, float]] = deque([(row, loss)], KEPT)
        self.level: float | None = None  # of the drift that is being followed
        self._onset = self._after = 0
        self._window: deque[float] = deque(maxlen=WINDOW)

    def drift(self, onset: int) -> None:
        """The world has changed at row ``onset``."""
        if self.level is not None:
            self._told(float(self._after))
        before = [loss for row, loss in self.losses if row < onset][-BEFORE:]
        self.level, self._onset, self._after = None, onset, 0
        self._window.clear()
        if len(before) < LEAST:
            return
        mean = math.fsum(before) / len(before)
        variance = math.fsum((loss - mean) ** 2 for loss in before) / len(before)
        self.level = mean + math.sqrt(variance / WINDOW) + 1e-9
        for row, loss in list(self.losses):
            self.follow(row, loss)

    def follow(self, row: int, loss: float) -> None:
        """A label has come for a question of ``row``, while a drift is followed."""
        if self.level is None or row < self._onset:
            return
        self._after += 1
        self._window.append(loss)
        if self._after >= WINDOW and math.fsum(self._window) / WINDOW <= self.level:
            self._told(float(self._after - WINDOW))
            self.level = None


class Prequential:
    """Scores of the model and of its baselines on the same questions.

    ``loss``: every prediction that met its label. ``no_change``: repeating the truth that was the
    key's last when the question was asked, where there was one. ``frozen``: a network that has not
    learned since the last drift, on the rows on which the engine asked it. ``asked`` counts
    questions, ``newest`` is the event time of the last one.

    Args:
        task: by which a baseline is judged.
        recovered: called with the labelled events that a recovery took.
        delayed: called with the questions between each question and its label.
        delayed_seconds: the same in event time, where that is known.
    """

    def __init__(
        self,
        task: Task,
        recovered: Callable[[float], None],
        delayed: Callable[[float], None],
        delayed_seconds: Callable[[float], None],
    ) -> None:
        self.loss, self.no_change = Mean(), Mean()
        self.frozen = Mean(ROLLING // FROZEN_EVERY)
        self.asked = 0
        self.newest: float | None = None
        self._classes = task == "classification"
        self._recovered, self._delayed, self._seconds = recovered, delayed, delayed_seconds
        self._last: dict[str, Label] = {}
        self._guess: dict[str, Label] = {}  # of no_change by id, until the label is there
        self._recoveries: dict[str, Recovery] = {}

    def take(self, outputs: Sequence[Output], others: Callable[[Output], None]) -> None:
        """Read the outputs of some events, in order; ``others`` are no questions and no answers.

        Every event passes here: one loop, and hardly a call in it.
        """
        last, guess, recoveries = self._last, self._guess, self._recoveries
        classes, delayed = self._classes, self._delayed
        asked = 0
        losses: list[float] = []
        repeated: list[float] = []
        frozen: list[float] = []
        for output in outputs:
            if type(output) is Scored:
                key, truth, loss = output.key, output.truth, output.loss
                losses.append(loss)
                delayed(output.delay)
                if output.delay_seconds is not None:
                    self._seconds(max(output.delay_seconds, 0.0))
                if output.id in guess:
                    before = guess.pop(output.id)
                    if classes:
                        repeated.append(truth != before)
                    else:
                        repeated.append(abs(float(truth) - float(before)))
                last[key] = truth
                if output.frozen_loss is not None:
                    frozen.append(output.frozen_loss)
                if key in recoveries:
                    recovery = recoveries[key]
                    recovery.losses.append((output.row, loss))
                    if recovery.level is not None:
                        recovery.follow(output.row, loss)
                elif len(recoveries) < FOLLOWED:
                    recoveries[key] = Recovery(self._recovered, output.row, loss)
            elif type(output) is Predicted:
                asked += 1
                if output.key in last:
                    guess[output.id] = last[output.key]
                if output.ts is not None:
                    self.newest = output.ts
            else:
                others(output)
        self.asked += asked
        if losses:
            self.loss.extend(losses)
        if repeated:
            self.no_change.extend(repeated)
        if frozen:
            self.frozen.extend(frozen)

    def drift(self, output: DriftDetected) -> None:
        """An alarm."""
        if output.key in self._recoveries:
            self._recoveries[output.key].drift(output.onset)

    def expired(self, question: str) -> None:
        """No label will come."""
        self._guess.pop(question, None)
