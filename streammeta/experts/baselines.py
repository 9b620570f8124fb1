"""Baselines that every table shows: what no learning at all is worth.

``Baseline`` is the loop they share with any learner that answers one question at a time: it
keeps the chunk rule (all questions of a chunk are answered before any label of it is learned),
joins late labels by id, and scores each prediction as it was when the question was asked.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence

from streammeta.encode import LARGEST
from streammeta.events import (
    Event,
    Label,
    LabelExpired,
    Output,
    Predicted,
    Rejected,
    Scored,
    Value,
)
from streammeta.scores import LastLabels

FLOOR = 1e-15  # probabilities are clipped here before the logarithm, as River's LogLoss does

KEY = "(key)"  # the feature that ``with_key`` adds

Answer = tuple[Label | None, dict[Label, float] | None]


def with_key(x: Mapping[str, Value], key: str) -> Mapping[str, Value]:
    """The features and, of a stream with keys, the key as a category beside them.

    So a learner that knows no keys can tell one key's rows from another's.
    """
    return {**x, KEY: key} if key else x


class Baseline(ABC):
    """A model made of ``answer`` and ``learn``; ``task`` and ``chunk`` as in ``ModelConfig``.

    At the end of a chunk at most ``max_pending`` questions wait for a label, as many as the
    engine's default: both give up the same ones, the oldest.
    """

    max_pending: int = 100_000

    def __init__(self, task: str, chunk: int = 1) -> None:
        self.task = task
        self.chunk = chunk
        self._row = 0
        self._clock = 0  # events seen
        self._pending: dict[str, tuple[Mapping[str, Value], Predicted, int]] = {}

    @abstractmethod
    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        """The prediction for ``x`` and, in classification, the probability of each class."""

    @abstractmethod
    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        """Take the label ``y`` of ``x``."""

    def observe(self, events: Sequence[Event]) -> list[Output]:
        """Answer the questions of each chunk, then learn its labels."""
        outputs: list[Output] = []
        for start in range(0, len(events), self.chunk):
            chunk = events[start : start + self.chunk]
            usable = [event for event in chunk if self._usable(event, outputs)]
            for event in usable:
                self._ask(event, outputs)
            for event in usable:
                if event.y is not None:
                    self._settle(event, event.y, outputs)
            while len(self._pending) > self.max_pending:
                self._give_up(next(iter(self._pending)), outputs)
        return outputs

    def replay(self) -> list[Output]:
        """Nothing to replay."""
        return []

    def _usable(self, event: Event, outputs: list[Output]) -> bool:
        self._clock += 1
        reason, detail = event.error or self._fault(event) or ("", "")
        if reason:
            outputs.append(Rejected(event.id, "decode", reason, detail))
        return not reason

    def _fault(self, event: Event) -> tuple[str, str] | None:
        """What the engine refuses is refused here too: all models are scored on the same rows."""
        y = event.y
        if isinstance(y, (int, float)) and not -LARGEST <= y <= LARGEST:
            return "not_finite", f"label {y!r} is not a number within {LARGEST:g} of 0"
        if self.task == "regression" and isinstance(y, str):
            return "wrong_type", f"label {y!r} is not a number"
        if event.x is None:
            return None
        if event.id in self._pending:
            return "duplicate_id", f"question {event.id!r} is still waiting for its label"
        for name, value in event.x.items():
            if isinstance(value, (int, float)) and value == value and abs(value) > LARGEST:
                return "not_finite", f"feature {name!r} is {value!r}, not within {LARGEST:g} of 0"
        return None

    def _ask(self, event: Event, outputs: list[Output]) -> None:
        if event.x is None:
            return
        prediction, probabilities = self.answer(event.x, event.key)
        told = Predicted(event.id, event.key, self._row, event.ts, prediction, probabilities)
        self._row += 1
        self._pending[event.id] = (event.x, told, self._clock)
        outputs.append(told)

    def _give_up(self, question: str, outputs: list[Output]) -> None:
        _, told, _ = self._pending.pop(question)
        outputs.append(LabelExpired(question, told.key, told.row, "table_full"))

    def _settle(self, event: Event, truth: Label, outputs: list[Output]) -> None:
        found = self._pending.pop(event.id, None)
        if found is None:
            text = f"a label for {event.id!r}, which was never asked"
            outputs.append(Rejected(event.id, "join", "unmatched", text))
            return
        x, told, asked = found
        delay = 0 if event.x is not None else self._clock - asked
        loss, log_loss = losses(self.task, truth, told.prediction, told.probabilities)
        outputs.append(
            Scored(event.id, told.key, told.row, truth, told.prediction, loss, log_loss, delay)
        )
        self.learn(x, truth, told.key)


def losses(
    task: str,
    truth: Label,
    prediction: Label | None,
    probabilities: Mapping[Label, float] | None,
) -> tuple[float, float]:
    """(0/1 error, -ln p(truth)) in classification; (absolute, squared error) in regression.

    A prediction of ``None`` counts as 0.0 in regression and as an error in classification.

    >>> losses("regression", 3.0, 1.0, None)
    (2.0, 4.0)
    """
    if task == "regression":
        error = float(truth) - float(prediction if prediction is not None else 0.0)
        return abs(error), error * error
    p = probabilities.get(truth, 0.0) if probabilities else 0.0
    return float(prediction != truth), -math.log(max(p, FLOOR))


class Follows:
    """How often each class was the truth when ``given`` was the guess, counted over all keys.

    p(class | given) = (1 + times) / (classes + all times of given), Laplace's rule.
    """

    def __init__(self) -> None:
        self._classes: dict[Label, None] = {}
        self._times: Counter[tuple[Label, Label]] = Counter()
        self._given: Counter[Label] = Counter()

    def of(self, given: Label) -> dict[Label, float]:
        """The probability of every class seen so far."""
        total = len(self._classes) + self._given[given]
        return {c: (1 + self._times[given, c]) / total for c in self._classes}

    def take(self, given: Label | None, truth: Label) -> None:
        """The truth has arrived; ``given`` is ``None`` where there was no guess."""
        if given is not None:
            self._times[given, truth] += 1
            self._given[given] += 1
        self._classes[truth] = None


class NoChange(Baseline):
    """Repeats the last label of the row's key that has arrived, with its transitions' frequencies.

    >>> model = NoChange()
    >>> rows = [Event(str(i), {}, y) for i, y in enumerate("aab")]
    >>> [o.prediction for o in model.observe(rows) if isinstance(o, Predicted)]
    [None, 'a', 'a']
    """

    def __init__(self, chunk: int = 1) -> None:
        super().__init__("classification", chunk)
        self._last = LastLabels()
        self._follows = Follows()

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        last = self._last.of(key)
        return last, None if last is None else self._follows.of(last)

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        self._follows.take(self._last.of(key), y)
        self._last.take(key, y)


class LastValue(Baseline):
    """Repeats the last value of the row's key that has arrived (regression)."""

    def __init__(self, chunk: int = 1) -> None:
        super().__init__("regression", chunk)
        self._last = LastLabels()

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        return self._last.of(key), None

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        self._last.take(key, y)


class Seasonal(Baseline):
    """Repeats the label ``period`` rows before the asked one (the seasonal naive forecast).

    Rows are counted within the row's key. Where that label has not arrived yet, the one a period
    before it is repeated, and so on; a key whose first labels of that phase are still to come
    gets its last label, as ``NoChange`` and ``LastValue`` do.
    The answer is for the time the label speaks of: with labels from ``horizon`` rows ahead, that
    of row t is repeated from the newest label of a row t - k * period that is known at t.

    Memory: one label for each key and phase, and the place of every question that waits for its
    label, ``max_pending`` of them at most.

    >>> model = Seasonal("classification", period=3)
    >>> rows = [Event(str(i), {}, y) for i, y in enumerate("abcabd")]
    >>> [o.prediction for o in model.observe(rows) if isinstance(o, Predicted)]
    [None, 'a', 'b', 'a', 'b', 'c']
    """

    def __init__(self, task: str, period: int, chunk: int = 1) -> None:
        super().__init__(task, chunk)
        self._period = period
        self._rows: Counter[str] = Counter()  # questions of each key
        self._places: dict[str, int] = {}  # id of a waiting question -> its row within its key
        self._newest: dict[tuple[str, int], tuple[int, Label]] = {}  # (key, phase) -> row, label
        self._last = LastLabels()
        self._follows = Follows()

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        found = self._newest.get((key, self._rows[key] % self._period))
        label = self._last.of(key) if found is None else found[1]
        if label is None or self.task == "regression":
            return label, None
        return label, self._follows.of(label)

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        self._last.take(key, y)

    def _ask(self, event: Event, outputs: list[Output]) -> None:
        super()._ask(event, outputs)
        if event.x is not None:
            self._places[event.id] = self._rows[event.key]
            self._rows[event.key] += 1

    def _give_up(self, question: str, outputs: list[Output]) -> None:
        super()._give_up(question, outputs)
        del self._places[question]

    def _settle(self, event: Event, truth: Label, outputs: list[Output]) -> None:
        super()._settle(event, truth, outputs)
        scored = outputs[-1]
        if not isinstance(scored, Scored):
            return
        self._follows.take(scored.prediction, truth)
        row = self._places.pop(event.id)
        phase = (scored.key, row % self._period)
        if row > self._newest.get(phase, (-1, truth))[0]:
            self._newest[phase] = row, truth


class Majority(Baseline):
    """The most frequent label so far (classification) or the mean of the labels (regression)."""

    def __init__(self, task: str, chunk: int = 1) -> None:
        super().__init__(task, chunk)
        self._counts: Counter[Label] = Counter()
        self._n = 0
        self._mean = 0.0

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        if not self._n:
            return None, None
        if self.task == "regression":
            return self._mean, None
        top = max(self._counts, key=self._counts.__getitem__)
        return top, {c: n / self._n for c, n in self._counts.items()}

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        self._n += 1
        if self.task == "regression":
            self._mean += (float(y) - self._mean) / self._n
        else:
            self._counts[y] += 1
