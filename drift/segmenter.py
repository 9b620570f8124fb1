"""From detectors to segments: one table of states, one alarm per change.

A segment is a stretch of rows between two alarms. The segmenter feeds every row to a signal and
its detectors, and asks ``TABLE`` what the worst of their answers means in its present state.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from difflib import get_close_matches
from enum import Enum, IntEnum
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.bank import EXPECTED
from drift.charts import Chart
from drift.detector import Detector, Status
from drift.explanation import width_of_change
from drift.registry import make_detector
from drift.signals import SIGNALS, Signal
from drift.watch import Watch

Floats = NDArray[np.float64]
MIN_ROWS = 16
KNOWN = "known"  # the detector and the signal of a change that nobody had to detect
_MAX_ONSET = 500
_MEAN_ROWS = 1000
_FORMAT = 6

# How far above the segment's mean a value must be to look like the next segment.
_SLACK = {"error": 0.15, "ratio": 1.0}


class State(IntEnum):
    """Where the current segment stands."""

    WARMUP = 0
    STABLE = 1
    WARNING = 2


class Heard(IntEnum):
    """What happened in a row: the worst status of the detectors, or the segment got warm."""

    STABLE = Status.STABLE
    WARNING = Status.WARNING
    DRIFT = Status.DRIFT
    WARM = 3


class Action(Enum):
    """What the segmenter does on a transition."""

    NONE = "none"
    MARK_ONSET = "mark_onset"
    CLEAR_ONSET = "clear_onset"
    OPEN_SEGMENT = "open_segment"


TABLE: dict[tuple[State, Heard], tuple[State, Action]] = {
    # While a segment is younger than min_rows there is nothing to compare with.
    (State.WARMUP, Heard.STABLE): (State.WARMUP, Action.NONE),
    (State.WARMUP, Heard.WARNING): (State.WARMUP, Action.NONE),
    (State.WARMUP, Heard.DRIFT): (State.WARMUP, Action.NONE),
    (State.WARMUP, Heard.WARM): (State.STABLE, Action.NONE),
    (State.STABLE, Heard.STABLE): (State.STABLE, Action.NONE),
    (State.STABLE, Heard.WARNING): (State.WARNING, Action.MARK_ONSET),
    (State.STABLE, Heard.DRIFT): (State.WARMUP, Action.OPEN_SEGMENT),
    (State.STABLE, Heard.WARM): (State.STABLE, Action.NONE),
    (State.WARNING, Heard.STABLE): (State.STABLE, Action.CLEAR_ONSET),
    (State.WARNING, Heard.WARNING): (State.WARNING, Action.NONE),
    (State.WARNING, Heard.DRIFT): (State.WARMUP, Action.OPEN_SEGMENT),
    (State.WARNING, Heard.WARM): (State.WARNING, Action.NONE),
}

# The same table as nested tuples: hashing pairs of enums would cost more than all the rest.
_NEXT = tuple(tuple(TABLE[state, heard] for heard in Heard) for state in State)
_WARMUP, _NONE = State.WARMUP, Action.NONE  # looking a member up costs more than an update's sums


def transition_table() -> str:
    """``TABLE`` as a Markdown table, for the documentation.

    >>> print(transition_table())
    | state | stable | warning | drift | warm |
    |---|---|---|---|---|
    | warmup | warmup | warmup | warmup | stable |
    | stable | stable | warning, mark_onset | warmup, open_segment | stable |
    | warning | stable, clear_onset | warning | warmup, open_segment | warning |
    """
    lines = ["| state | " + " | ".join(heard.name.lower() for heard in Heard) + " |"]
    lines.append("|---" * (1 + len(Heard)) + "|")
    for state in State:
        cells = [state.name.lower()]
        for heard in Heard:
            after, action = TABLE[state, heard]
            suffix = "" if action is Action.NONE else f", {action.value}"
            cells.append(after.name.lower() + suffix)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


class Alarm(NamedTuple):
    """The stream got worse: a new segment begins.

    ``row``: the row at which it was noticed. ``onset``: the row at which it seems to have begun
    (see ``Onset``; the row of the first warning if that is earlier), never after ``row``, at
    most 499 rows before it, nor before the previous alarm's onset. ``segment``: the number of
    the segment that begins; the first one of a stream is 0, so the first alarm opens 1.
    ``detector``, ``signal``: who noticed it, on what. ``votes``: the evidence of each signal in
    nats, and ``width``: the rows that a gradual change had taken by then; the bank's alone.
    """

    row: int
    onset: int
    segment: int
    detector: str
    signal: str
    votes: dict[str, float] = {}  # noqa: RUF012 - nobody writes to it
    width: int = 0


class Onset:
    """Where the change began, asked for at the moment of an alarm.

    The classic estimate: the row after the last one at which the sum of (value - mean - slack)
    was at its floor. It is the same for all detectors because their own hints are poorer.
    Simulated, 10 % to 50 % errors noticed after about 40 rows: median 0 rows from the truth,
    90 % within -6 and +5; ADWIN's window begins 170 rows before the change, the first warning of
    HDDM_W comes 28 rows after it. Slack leans to late: a few rows less of the new
    segment cost little, rows of the old one in it cost much. So a small change (10 % to 30 %
    errors, found after 140 rows) is placed some 30 rows late.
    """

    __slots__ = ("_count", "_mean", "_row", "_slack", "_sum")

    def __init__(self, slack: float) -> None:
        self._slack = slack
        self.reset()

    def reset(self) -> None:
        """Start a new segment."""
        self._count = 0
        self._mean = 0.0
        self._sum = 0.0
        self._row: int | None = None

    def update(self, row: int, level: float) -> None:
        """Take the signal's number of one row."""
        above = level - self._mean
        if self._count < _MEAN_ROWS:
            self._count += 1
        self._mean += above / self._count
        total = self._sum + above - self._slack
        if total <= 0.0:
            self._sum = 0.0
            self._row = None
        else:
            self._sum = total
            if self._row is None:
                self._row = row

    def at(self, row: int) -> int:
        """The estimate when an alarm is raised at ``row``: ``row`` itself at the latest."""
        return row if self._row is None else self._row


def default_detectors(task: str) -> tuple[str, ...]:
    """The names of the detectors for ``task``, "classification" or "regression": the bank, and
    for residuals Page-Hinkley as well, which is some rows quicker where they jump.

    In `bench detectors` one of its signals alone, ``evidence``, finds a rise of errors at once 22
    rows after it on average, ADWIN 58 and HDDM_A 40, none of them with a false alarm.

    Raises:
        ValueError: another task.

    >>> default_detectors("classification")
    ('bank',)
    """
    if task == "classification":
        return (Watch.name,)
    if task == "regression":
        return (Watch.name, "page_hinkley")
    raise ValueError(f"task is {task!r}; expected 'classification' or 'regression'")


class Segmenter:
    """Any of several detectors on one signal, made into segments.

    Args:
        detectors: names, or objects that satisfy ``Detector``; the first in order that fires
            gives the alarm its name. ``bank`` listens to more than one signal (``drift.watch``).
            May be empty: then there is one segment.
        signal: ``"error"`` (update is given 0 or 1 = wrong) or ``"ratio"`` (a residual).
        seed: for detectors that draw at random.
        min_rows: rows of a segment before an alarm can end it, >= 1.
        expected: rows between two false alarms of the bank, > 0.

    Raises:
        ValueError: an unknown name, a detector of 0/1 errors on residuals, ``min_rows`` < 1, or
            ``expected`` not above 0.

    >>> segmenter = Segmenter(["page_hinkley"], "ratio")
    >>> residuals = [1.0, -1.0] * 50 + [30.0] * 5
    >>> (alarm,) = (a for row, r in enumerate(residuals) if (a := segmenter.update(row, r)))
    >>> alarm.row, alarm.onset, alarm.segment, alarm.detector
    (101, 100, 1, 'page_hinkley')
    """

    __slots__ = (
        "_detectors",
        "_min_rows",
        "_onset",
        "_rows",
        "_signal",
        "_start",
        "_state",
        "_warned",
        "_watch",
        "segment",
    )

    def __init__(
        self,
        detectors: Sequence[str | Detector],
        signal: str = "error",
        seed: int = 0,
        min_rows: int = MIN_ROWS,
        expected: float = EXPECTED,
    ) -> None:
        if signal not in SIGNALS:
            near = get_close_matches(signal, SIGNALS, n=1, cutoff=0.0)
            raise ValueError(f"no signal is called {signal!r}; did you mean {near[0]!r}?")
        if min_rows < 1:
            raise ValueError(f"min_rows is {min_rows}; expected at least 1")
        self._signal: Signal = SIGNALS[signal]()
        self._detectors: list[Detector] = [
            make_detector(d, signal, seed) if isinstance(d, str) else d
            for d in detectors
            if d != Watch.name
        ]
        self._watch = Watch(signal, expected) if Watch.name in detectors else None
        for detector in self._detectors:
            if signal != "error" and detector.input == "error":
                raise ValueError(
                    f"detector {detector.name!r} reads 0/1 errors, the signal is {signal!r}; "
                    "use one that reads real losses, such as page_hinkley or cusum"
                )
        self._min_rows = min_rows
        self._state = State.WARMUP
        self._rows = 0
        self._start = 0
        self._onset = Onset(_SLACK[signal])
        self._warned: int | None = None
        self.segment = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The detectors' names, in order; the bank's last."""
        bank = () if self._watch is None else (self._watch.name,)
        return (*(detector.name for detector in self._detectors), *bank)

    @property
    def looks(self) -> bool:
        """Whether ``look`` is of any use: a bank listens."""
        return self._watch is not None

    @property
    def start(self) -> int:
        """The first row of the current segment (the onset of the alarm that opened it)."""
        return self._start

    @property
    def in_warning(self) -> bool:
        """Whether a detector warns at the moment."""
        return self._state is State.WARNING

    def update(
        self, row: int, value: float, more: Sequence[float] = (), *, late: bool = False
    ) -> Alarm | None:
        """Take the loss of row ``row``: 0 or 1 = wrong, or a residual, by ``signal``.

        ``more``: what else the bank listens to, in the order of ``drift.watch.VOTERS``; ``nan`` or
        left out where there is none. ``late``: whether labels are. Rows are expected in order;
        gaps are fine.
        """
        level = self._signal.update(value)
        if self._detectors:
            self._onset.update(row, level)
        worst: int = 0
        who: Detector | Watch | None = None
        for detector in self._detectors:
            status = detector.update(level)
            if status > worst:
                worst = status
                who = detector
        if self._watch is not None:
            status = self._watch.update(row, value, more, late=late)
            if status > worst:
                worst = status
                who = self._watch
        self._rows += 1
        if self._state is _WARMUP and self._rows >= self._min_rows:
            self._state = _NEXT[_WARMUP][Heard.WARM][0]
        self._state, action = _NEXT[self._state][worst]
        if action is _NONE:
            return None
        if action is Action.MARK_ONSET:
            self._warned = row
        elif action is Action.CLEAR_ONSET:
            self._warned = None
        elif who is self._watch and self._watch is not None:
            return self._by_bank(row, self._watch.signal, self._watch.onset())
        elif who is not None:
            onset = self._onset.at(row)
            if self._warned is not None:
                onset = min(onset, self._warned)
            return self._open_segment(row, onset, who.name, self._signal.name, *self._told(onset))
        return None

    def look_due(self) -> bool:
        """Whether the row that comes is one to ``look`` at; to be asked once for each."""
        return self._watch is not None and self._watch.look_due()

    def look(
        self, row: int, features: Floats, predictions: Floats, *, late: bool = False
    ) -> Alarm | None:
        """Take a row whose label is not known yet, for the bank: features ``(D,)``, and what was
        predicted ``(O,)``. Raises an alarm only while labels are ``late``."""
        if self._watch is None:
            return None
        found = self._watch.look(row, features, predictions, late=late)
        if found is not Status.DRIFT or self._state is _WARMUP:
            return None
        return self._by_bank(row, *self._watch.moved())

    def evidence(self) -> dict[str, tuple[float, float]]:
        """By detector its statistic at the moment and the threshold at which that is a drift, of
        those that have such figures; of the bank the evidence of its surest signal, in nats, and
        what gives a signal a vote."""
        found = {
            d.name: (float(d.statistic), float(d.threshold))
            for d in self._detectors
            if isinstance(d, Chart)
        }
        if self._watch is not None:
            found[self._watch.name] = self._watch.evidence()
        return found

    @property
    def suspects(self) -> bool:
        """Whether any signal of the bank is nearly sure of a change, though it may be outvoted."""
        return self._watch is not None and self._watch.suspects

    def renew_reference(self) -> None:
        """The reference that the bank hears of is another one from now on."""
        if self._watch is not None:
            self._watch.renew()

    def _by_bank(self, row: int, signal: str, onset: int) -> Alarm:
        return self._open_segment(row, onset, Watch.name, signal, *self._told(onset))

    def _told(self, onset: int) -> tuple[dict[str, float], int]:
        """What the bank knows of a change at ``onset``: the votes, and its width."""
        if self._watch is None:
            return {}, 0
        rows, values = self._watch.recent()
        return self._watch.votes(), width_of_change(rows, values, onset)

    def told(self, row: int, onset: int) -> Alarm:
        """Open a segment at a change that is known from elsewhere, whatever the detectors think.

        To be called before ``update`` of ``row``, the first row seen of the new segment. The
        alarm's detector and signal are ``known``.
        """
        return self._open_segment(row, onset, KNOWN, KNOWN)

    def _open_segment(
        self,
        row: int,
        onset: int,
        who: str,
        signal: str,
        votes: dict[str, float] | None = None,
        width: int = 0,
    ) -> Alarm:
        """Everything starts over; the rows since the onset belong to the new segment."""
        self._start = max(self._start, row - _MAX_ONSET + 1, onset)
        self._rows = 0
        self._state = _WARMUP
        self._warned = None
        self.segment += 1
        self._onset.reset()
        self._signal.reset()
        for detector in self._detectors:
            detector.reset()
        if self._watch is not None:
            self._watch.reset()
        return Alarm(row, self._start, self.segment, who, signal, votes or {}, width)

    def state(self) -> bytes:
        """All of it as bytes (a pickle: load only what you have stored yourself)."""
        inner = (
            self._signal,
            self._detectors,
            self._min_rows,
            int(self._state),
            self._rows,
            self._start,
            self._onset,
            self._warned,
            self.segment,
            self._watch,
        )
        # Equal states must give equal bytes, and pickle also records which equal objects are
        # one object. A round trip brings that to what it will be after a load.
        kept = pickle.dumps(pickle.loads(pickle.dumps(inner, protocol=5)), protocol=5)
        made = (_FORMAT, version("river"), self.names, self._signal.name, kept)
        return pickle.dumps(made, protocol=5)

    def load(self, data: bytes) -> None:
        """Continue from ``state()`` of a segmenter with the same detectors and signal.

        Raises:
            ValueError: it was of another format, other detectors or signal, or another River.
        """
        found, river, names, signal, kept = pickle.loads(data)
        if found != _FORMAT:
            raise ValueError(f"segmenter state has format {found}; expected {_FORMAT}")
        if names != self.names or signal != self._signal.name:
            raise ValueError(
                f"segmenter state is of {names} on {signal!r}; "
                f"expected {self.names} on {self._signal.name!r}"
            )
        if river != version("river"):
            raise ValueError(
                f"segmenter state holds detectors of River {river}, installed is "
                f"{version('river')}; install the one it was made with, or start afresh"
            )
        record = pickle.loads(kept)
        self._signal, self._detectors, self._min_rows = record[:3]
        self._state = State(record[3])
        self._rows, self._start, self._onset, self._warned, self.segment, self._watch = record[4:]
