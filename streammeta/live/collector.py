"""What a page shows of a run, collected from the engine's outputs in bounded memory.

Pure: no clock, thread, file or socket; whoever looks says what time it is.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from streammeta.events import (
    Adapted,
    DriftDetected,
    Label,
    LabelExpired,
    MetaUpdated,
    Output,
    Predicted,
    Rejected,
    Scored,
)
from streammeta.live.curve import Curve, Points
from streammeta.scores import FROZEN_EVERY, WINDOW, LastLabels

MODEL, NO_CHANGE, FROZEN = "model", "no change", "frozen before the last drift"  # names of curves
SAMPLE = 16  # rows between two looks at the weights
EVERY, NEWEST = 10, 400  # labels between two points of the newest part of a curve, and its points
FEWEST = 20  # labels before a curve begins
MOST_DRIFTS, MOST_PREDICTIONS, MOST_KEYS = 200, 8, 4096  # kept
KEYS_TOLD, KEY_LABELS = 8, 100  # keys told; own labels over which the loss of a key fades
FEWEST_OF_KEY = 5  # labels that a key has before it is told
SPEED_OVER = 3.0  # seconds over which events per second are taken
DIGITS = 5  # significant ones, of numbers that travel
SMALLEST = 1e-12  # numbers nearer to 0 travel as 0, or nearly
MANY = 8  # numbers from which on they are rounded together


class Statistics(Protocol):
    """The part of ``Engine.statistics()`` that is shown."""

    @property
    def pending(self) -> int: ...
    @property
    def weights(self) -> dict[str, float]: ...
    @property
    def inner_lr(self) -> tuple[float, float, float]: ...


class Prediction(NamedTuple):
    """An answer; ``truth`` and ``loss`` once its label has come (``None`` before)."""

    row: int
    key: str
    prediction: Label | None
    truth: Label | None = None
    loss: float | None = None


class DriftTold(NamedTuple):
    """An alarm at ``row`` about a change since ``onset``; ``text`` says what moved, whether it was
    abrupt or gradual, and whether a past context is back."""

    row: int
    onset: int
    key: str
    signal: str
    text: str


class Snapshot(NamedTuple):
    """A run at one moment, as the page shows it; plain values, so that it can be handed over.

    ``at``, ``committed``: seconds since the epoch; ``committed`` is the newest commit's, ``None``
    where there is none. ``rows``: questions; ``labels``: those scored. ``events_per_second`` over
    the last seconds. ``lag``: events that wait at the source, ``None`` where nobody knows.
    ``pending``: questions without label.
    ``score`` is ``accuracy`` or ``mae``; ``scores`` has it over the last ``window`` labels, of
    ``model``, ``no change`` and further baselines; ``curves`` the same over the rows.
    ``weights``: share of the mixture by family of experts, over ``weight_rows``.
    ``before``, ``after``: mean support loss of challengers before and after adapting, over rows.
    ``meta``: query loss of the outer steps by learner, over rows. ``rates``: least, mean and
    greatest inner rate now. ``keys``: (key, recent mean loss, labels), the worst first.
    """

    at: float
    title: str
    task: str
    score: str
    higher_is_better: bool
    window: int
    rows: int
    labels: int
    events_per_second: float
    lag: int | None
    pending: int
    expired: int
    rejected: int
    adaptations: int
    meta_updates: int
    committed: float | None
    scores: dict[str, float]
    curves: dict[str, Points]
    drifts: tuple[DriftTold, ...]
    n_drifts: int
    weight_rows: tuple[float, ...]
    weights: dict[str, tuple[float, ...]]
    before: Points
    after: Points
    meta: dict[str, Points]
    rates: tuple[float, float, float] | None
    keys: tuple[tuple[str, float, int], ...]
    predictions: tuple[Prediction, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON-able, numbers in few digits; ``null`` where one is not finite."""
        told = {name: _plain(value) for name, value in self._asdict().items()}
        # moments need all their digits
        return told | {"at": round(self.at, 1), "committed": self.committed}


class _Rolling:
    """The mean loss over the last labels: now, over the newest rows, and coarsely over all.

    Of ``window`` labels one in ``every`` has a loss; the mean is over those.
    """

    def __init__(self, window: int, every: int = 1) -> None:
        self.curve = Curve(most=400)
        self._recent: deque[float] = deque()
        self._window, self._room = window, max(window // every, 1)
        self._step, self._fewest = max(EVERY // every, 1), FEWEST // every
        self._sum = 0.0
        self._n = 0
        self._newest: deque[tuple[int, float]] = deque(maxlen=NEWEST)

    def add(self, row: int, loss: float) -> None:
        self._recent.append(loss)
        self._sum += loss
        if len(self._recent) > self._room:
            self._sum -= self._recent.popleft()
        self._n += 1
        if self._n % self._room == 0:
            self._sum = sum(self._recent)  # keeps rounding from adding up
        self.curve.add(row, loss)
        if self._n % self._step == 0 and self._n >= self._fewest:
            self._newest.append((row, self.mean))

    @property
    def mean(self) -> float:
        return self._sum / len(self._recent) if self._recent else float("nan")

    def points(self) -> Points:
        """Coarse where the newest points do not reach."""
        coarse = self.curve.points(self._window)
        begin = self._newest[0][0] if self._newest else 0
        fine = len(self._newest) == NEWEST  # before that, the newest are all
        old = [(r, v) for r, v in zip(*coarse, strict=True) if fine and r < begin]
        both = [*old, *self._newest]
        return Points(tuple(float(r) for r, _ in both), tuple(v for _, v in both))


class Collector:
    """Reads outputs in order and keeps what a ``Snapshot`` tells.

    Args:
        title: what is being watched.
        task: ``classification`` or ``regression``.
        window: labels in the rolling score.

    >>> collector = Collector("demo", "classification")
    >>> collector.record([Predicted("a", "", 0, None, "x"), Scored("a", "", 0, "x", "x", 0, .1, 0)])
    >>> now = collector.look(at=0.0)
    >>> now.rows, now.scores["model"], now.predictions[-1].truth
    (1, 1.0, 'x')
    """

    def __init__(self, title: str, task: str, window: int = WINDOW) -> None:
        self._title, self._task, self._window = title, task, window
        self._rows = self._labels = self._expired = self._rejected = self._events = 0
        self._n_drifts = self._adaptations = self._meta_updates = 0
        self._pending = self._next_sample = 0
        self._losses = {MODEL: _Rolling(window), NO_CHANGE: _Rolling(window)}
        self._last = LastLabels()
        self._known: dict[str, Label | None] = {}  # id -> newest label when it was asked
        self._drifts: deque[DriftTold] = deque(maxlen=MOST_DRIFTS)
        self._weights: dict[str, Curve] = {}
        self._before, self._after = Curve(), Curve()
        self._meta: dict[str, Curve] = {}
        self._rates: tuple[float, float, float] | None = None
        self._keys: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._told: OrderedDict[str, Prediction] = OrderedDict()
        self._committed: float | None = None
        self._lag: int | None = None
        self._seen: deque[tuple[float, int]] = deque()

    def record(self, outputs: Sequence[Output]) -> None:
        """The model's outputs, in order."""
        for output in outputs:
            if isinstance(output, Predicted):
                self._predicted(output)
            elif isinstance(output, Scored):
                self._scored(output)
            elif isinstance(output, Adapted):
                self._adaptations += 1
                self._before.add(output.row, output.loss_before)
                self._after.add(output.row, output.loss_after)
            elif isinstance(output, MetaUpdated):
                self._meta_updates = max(self._meta_updates, output.update)
                self._meta.setdefault(output.learner, Curve()).add(output.row, output.loss)
            elif isinstance(output, DriftDetected):
                self._drift(output)
            elif isinstance(output, Rejected):
                self._rejected += 1
            elif isinstance(output, LabelExpired):
                self._expired += 1
                self._known.pop(output.id, None)

    def baseline(self, name: str, outputs: Sequence[Output]) -> None:
        """The outputs of another model that sees the same stream, such as a frozen one."""
        for output in outputs:
            if isinstance(output, Scored):
                self._losses.setdefault(name, _Rolling(self._window)).add(output.row, output.loss)

    @property
    def curious(self) -> bool:
        """Whether a look inside the model is wanted: so many rows have come since the last."""
        return self._rows >= self._next_sample

    def sample(self, statistics: Statistics) -> None:
        """A look inside the model, whenever this is ``curious``; more often does no harm."""
        self._next_sample = self._rows + SAMPLE
        self._pending = statistics.pending
        self._rates = statistics.inner_lr
        for family in statistics.weights:
            self._weights.setdefault(family, Curve())
        for family, curve in self._weights.items():
            curve.add(self._rows, statistics.weights.get(family, 0.0))

    def committed(self, at: float) -> None:
        """A commit was written at that time, in seconds since the epoch."""
        self._committed = at

    def lag(self, events: int | None) -> None:
        """So many events wait at the source."""
        self._lag = events

    def look(self, at: float) -> Snapshot:
        """Everything as it is now; ``at`` in seconds since the epoch, never less than before."""
        good = self._task == "classification"
        losses = {name: one for name, one in self._losses.items() if one.mean == one.mean}
        weight_rows, weights = self._shares()
        return Snapshot(
            at=at,
            title=self._title,
            task=self._task,
            score="accuracy" if good else "mae",
            higher_is_better=good,
            window=self._window,
            rows=self._rows,
            labels=self._labels,
            events_per_second=self._speed(at),
            lag=self._lag,
            pending=self._pending,
            expired=self._expired,
            rejected=self._rejected,
            adaptations=self._adaptations,
            meta_updates=self._meta_updates,
            committed=self._committed,
            scores={n: 1.0 - one.mean if good else one.mean for n, one in losses.items()},
            curves={n: _turned(one.points(), good) for n, one in losses.items()},
            drifts=tuple(self._drifts),
            n_drifts=self._n_drifts,
            weight_rows=weight_rows,
            weights=weights,
            before=self._before.points(),
            after=self._after.points(),
            meta={learner: curve.points() for learner, curve in self._meta.items()},
            rates=self._rates,
            keys=self._worst_keys(),
            predictions=tuple(self._told.values()),
        )

    def _predicted(self, output: Predicted) -> None:
        self._rows = max(self._rows, output.row + 1)
        self._known[output.id] = self._last.of(output.key)
        told = self._told
        told[output.id] = Prediction(output.row, output.key, output.prediction)
        if len(told) > MOST_PREDICTIONS:
            told.popitem(last=False)

    def _scored(self, output: Scored) -> None:
        self._labels += 1
        truth, repeated = output.truth, self._known.pop(output.id, None)
        self._losses[MODEL].add(output.row, output.loss)
        if output.frozen_loss is not None:
            frozen = self._losses.setdefault(FROZEN, _Rolling(self._window, FROZEN_EVERY))
            frozen.add(output.row, output.frozen_loss)
        if repeated is not None:
            good = self._task == "classification"
            wrong = float(truth != repeated) if good else abs(float(truth) - float(repeated))
            self._losses[NO_CHANGE].add(output.row, wrong)
        self._last.take(output.key, truth)
        told = self._told.get(output.id)
        if told is not None:
            self._told[output.id] = told._replace(truth=truth, loss=output.loss)
        if output.key:
            mean, n = self._keys.pop(output.key, (0.0, 0))
            step = 1.0 / min(n + 1, KEY_LABELS)
            self._keys[output.key] = mean + step * (output.loss - mean), n + 1
            if len(self._keys) > MOST_KEYS:
                self._keys.popitem(last=False)  # the one that was heard longest ago

    def _drift(self, output: DriftDetected) -> None:
        self._n_drifts += 1
        text = output.explanation.text() if output.explanation is not None else ""
        self._drifts.append(DriftTold(output.row, output.onset, output.key, output.signal, text))

    def _worst_keys(self) -> tuple[tuple[str, float, int], ...]:
        known = ((key, mean, n) for key, (mean, n) in self._keys.items() if n >= FEWEST_OF_KEY)
        return tuple(sorted(known, key=lambda k: -k[1])[:KEYS_TOLD])

    def _shares(self) -> tuple[tuple[float, ...], dict[str, tuple[float, ...]]]:
        """The curves of all families over the same rows; a family that came later had nothing."""
        found = {family: curve.at() for family, curve in self._weights.items()}
        places = sorted(set().union(*found.values())) if found else []
        width = max((curve.width for curve in self._weights.values()), default=1)
        rows = tuple((place + 0.5) * width - 0.5 for place in places)
        return rows, {f: tuple(at.get(p, 0.0) for p in places) for f, at in found.items()}

    def _speed(self, at: float) -> float:
        self._seen.append((at, self._rows))
        while len(self._seen) > 2 and at - self._seen[1][0] >= SPEED_OVER:
            self._seen.popleft()
        then, rows = self._seen[0]
        passed = at - then
        return (self._rows - rows) / passed if passed > 0 else 0.0


def _turned(points: Points, good: bool) -> Points:
    """Losses as scores."""
    return Points(points.rows, tuple(1.0 - v for v in points.values)) if good else points


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        finite = value == value and abs(value) != float("inf")
        return float(f"{value:.{DIGITS}g}") if finite else None
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if len(value) > MANY and all(isinstance(one, float) for one in value):
        return _rounded(np.array(value))
    return [_plain(one) for one in value]


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    """``_plain`` of many numbers at once."""
    if not np.isfinite(values).all():
        return [_plain(value) for value in values.tolist()]
    size = np.maximum(np.abs(values), SMALLEST)
    unit = 10.0 ** (DIGITS - 1 - np.floor(np.log10(size)))
    found: list[float | None] = (np.rint(values * unit) / unit).tolist()
    return found
