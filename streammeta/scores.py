"""Prequential scores: what a stream of ``Predicted`` and ``Scored`` outputs is worth.

Every score is cumulative over the stream and costs O(1) per label, in plain Python. ``rolling``
is the mean loss over the last ``WINDOW`` labels, as accuracy or as mean absolute error.

Feed all outputs through ``observe``. The reference that repeats the last label is scored with the
label of the same key that had *arrived when the question was answered*: with delayed labels or a
chunk above 1 it is as stale as the model it is compared with. Before a key's first label it
repeats the newest label of any key, as ``NoChange`` and ``LastValue`` do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from math import sqrt

from streammeta.events import Label, LabelExpired, Output, Predicted, Scored

WINDOW = 500  # labels in the rolling value
FROZEN_EVERY = 4  # the frozen baseline is asked for so many rows less often


class LastLabels:
    """The newest label of each key; a key that has none yet gets the newest of all.

    >>> last = LastLabels()
    >>> last.take("a", 1.0)
    >>> last.take("b", 2.0)
    >>> last.of("a"), last.of("b"), last.of("c")
    (1.0, 2.0, 2.0)
    """

    def __init__(self) -> None:
        self._of_key: dict[str, Label] = {}
        self._newest: Label | None = None

    def of(self, key: str) -> Label | None:
        """What repeating the last label would answer; ``None`` before the first label of all."""
        return self._of_key.get(key, self._newest)

    def take(self, key: str, label: Label) -> None:
        """A label has arrived."""
        self._of_key[key] = self._newest = label


class Scores(ABC):
    """Cumulative scores of one model on one stream; ``n`` counts the labels that are scored.

    Questions before row ``start`` are a warm-up: known to the reference, not scored.
    """

    main: str  # the key of ``values`` that ranks models
    higher_is_better: bool

    def __init__(self, window: int = WINDOW, start: int = 0) -> None:
        self.n = 0
        self._start = start
        self._recent: deque[float] = deque(maxlen=window)
        self._recent_sum = 0.0
        self._last = LastLabels()
        self._known: dict[int, Label | None] = {}  # row -> newest label when it was asked
        self._loss = 0.0

    def observe(self, outputs: Iterable[Output]) -> None:
        """Read what a model reported, in order; other kinds of outputs are passed over."""
        for output in outputs:
            if isinstance(output, Scored):
                self.update(output)
            elif isinstance(output, Predicted):
                self._known[output.row] = self._last.of(output.key)
            elif isinstance(output, LabelExpired):
                self._known.pop(output.row, None)

    def update(self, scored: Scored) -> None:
        """Take one label; without its ``Predicted``, the label before it is the reference."""
        known = self._known
        at = scored.row
        repeated = known.pop(at) if at in known else self._last.of(scored.key)
        if at >= self._start:
            self._count(scored.loss)
            self._take(scored, repeated)
        self._last.take(scored.key, scored.truth)

    def _count(self, loss: float) -> None:
        self.n += 1
        self._loss += loss
        if len(self._recent) == self._recent.maxlen:
            self._recent_sum -= self._recent[0]
        self._recent.append(loss)
        self._recent_sum += loss

    @property
    def rolling_loss(self) -> float:
        """Mean loss over the last window; ``nan`` before the first label."""
        return self._recent_sum / len(self._recent) if self._recent else float("nan")

    @property
    def rolling(self) -> float:
        """The main score over the last window; ``nan`` before the first label."""
        return 1.0 - self.rolling_loss if self.higher_is_better else self.rolling_loss

    @abstractmethod
    def _take(self, scored: Scored, repeated: Label | None) -> None:
        """Add what the subclass counts; ``repeated`` is the answer of repeating the last label."""

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Every score by name, ``main`` first; ``nan`` where it is not defined yet."""


class ClassificationScores(Scores):
    """Accuracy, kappa, kappa-temporal and log loss.

    With p0 the accuracy, pe the accuracy of guessing at random with the model's own class
    frequencies, and pt the accuracy of repeating the last label:

    - ``kappa`` = (p0 - pe) / (1 - pe), Cohen 1960
    - ``kappa_temporal`` = (p0 - pt) / (1 - pt), Zliobaite et al. 2015,
      doi:10.1007/s10994-014-5441-4
    - ``log_loss`` = mean of -ln p(truth), in nats

    Both kappas are 0 for the reference itself, negative below it, 1 for a perfect model.

    >>> scores = ClassificationScores()
    >>> for row, (truth, guess) in enumerate(zip("aabb", "aaab")):
    ...     scores.update(Scored(str(row), "", row, truth, guess, float(truth != guess), 0.1, 0))
    >>> {name: round(value, 2) for name, value in scores.values().items()}
    {'accuracy': 0.75, 'kappa': 0.5, 'kappa_temporal': 0.5, 'log_loss': 0.1}
    """

    main = "accuracy"
    higher_is_better = True

    def __init__(self, window: int = WINDOW, start: int = 0) -> None:
        super().__init__(window, start)
        self._truths: dict[Label, int] = {}
        self._guesses: dict[Label | None, int] = {}
        self._repeat_right = 0
        self._log_loss = 0.0

    def _take(self, scored: Scored, repeated: Label | None) -> None:
        truth, guess = scored.truth, scored.prediction
        self._truths[truth] = self._truths.get(truth, 0) + 1
        self._guesses[guess] = self._guesses.get(guess, 0) + 1
        self._repeat_right += repeated == truth
        self._log_loss += scored.log_loss

    def values(self) -> dict[str, float]:
        n = self.n
        if not n:
            return dict.fromkeys(("accuracy", "kappa", "kappa_temporal", "log_loss"), float("nan"))
        accuracy = 1.0 - self._loss / n
        chance = sum(c * self._guesses.get(label, 0) for label, c in self._truths.items()) / n**2
        return {
            "accuracy": accuracy,
            "kappa": _against(accuracy, chance),
            "kappa_temporal": _against(accuracy, self._repeat_right / n),
            "log_loss": self._log_loss / n,
        }


class RegressionScores(Scores):
    """MAE, RMSE, R2 and the mean absolute error scaled by that of repeating the last value.

    - ``r2`` = 1 - sum (y - p)^2 / sum (y - mean y)^2
    - ``mase`` = MAE / ``mae_last_value`` on the rows where a last value was known; below 1 is
      better than repeating it (after Hyndman & Koehler 2006, doi:10.1016/j.ijforecast.2006.03.001,
      with the reference taken on the same rows instead of on a training part)

    >>> scores = RegressionScores()
    >>> for row, (truth, guess) in enumerate([(1.0, 1.0), (3.0, 2.0), (2.0, 2.0)]):
    ...     error = abs(truth - guess)
    ...     scores.update(Scored(str(row), "", row, truth, guess, error, error**2, 0))
    >>> {name: round(value, 3) for name, value in scores.values().items()}
    {'mae': 0.333, 'rmse': 0.577, 'r2': 0.5, 'mase': 0.333, 'mae_last_value': 1.5}
    """

    main = "mae"
    higher_is_better = False

    def __init__(self, window: int = WINDOW, start: int = 0) -> None:
        super().__init__(window, start)
        self._squared = 0.0
        self._mean = 0.0
        self._spread = 0.0  # sum of squared deviations from the mean (Welford 1962)
        self._compared = 0  # rows with a known last value
        self._compared_loss = 0.0
        self._repeat_loss = 0.0

    def _take(self, scored: Scored, repeated: Label | None) -> None:
        truth = float(scored.truth)
        self._squared += scored.log_loss
        step = truth - self._mean
        self._mean += step / self.n
        self._spread += step * (truth - self._mean)
        if repeated is not None:
            self._compared += 1
            self._compared_loss += scored.loss
            self._repeat_loss += abs(truth - float(repeated))

    def values(self) -> dict[str, float]:
        nan = float("nan")
        if not self.n:
            return dict.fromkeys(("mae", "rmse", "r2", "mase", "mae_last_value"), nan)
        repeat = self._repeat_loss / self._compared if self._compared else nan
        return {
            "mae": self._loss / self.n,
            "rmse": sqrt(self._squared / self.n),
            "r2": 1.0 - self._squared / self._spread if self._spread > 0 else nan,
            "mase": self._compared_loss / self._repeat_loss if self._repeat_loss > 0 else nan,
            "mae_last_value": repeat,
        }


def scores_for(task: str, window: int = WINDOW, start: int = 0) -> Scores:
    """The scores of ``task``, which is ``classification`` or ``regression``."""
    kinds: dict[str, type[Scores]] = {
        "classification": ClassificationScores,
        "regression": RegressionScores,
    }
    if task not in kinds:
        raise ValueError(f"task is {task!r}, expected one of {', '.join(kinds)}")
    return kinds[task](window, start)


def _against(accuracy: float, reference: float) -> float:
    """(p0 - pr) / (1 - pr); undefined (nan) where the reference is never wrong."""
    if reference >= 1.0:
        return float("nan")
    return (accuracy - reference) / (1.0 - reference) + 0.0  # + 0.0: never -0.0


class Measured(Scores):
    """Scores of ``n`` rows that come from elsewhere than from labels; the first is the main one.

    >>> Measured({"f1": 0.5, "delay": 20.0}, 1_000, higher_is_better=True).main
    'f1'
    """

    def __init__(self, values: Mapping[str, float], n: int, *, higher_is_better: bool) -> None:
        super().__init__()
        self.n, self._values = n, dict(values)
        self.main, self.higher_is_better = next(iter(values)), higher_is_better

    def _take(self, scored: Scored, repeated: Label | None) -> None:
        raise TypeError("these scores are measured, not counted row by row")

    def values(self) -> dict[str, float]:
        """By name, the main one first."""
        return dict(self._values)
