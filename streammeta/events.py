"""What goes into the loop and what comes out of it.

An ``Event`` is a question (``x`` without ``y``), an answer (``y`` without ``x``, the same ``id``
as its question) or both at once. Outputs are the only observable of the core: sinks, metrics,
progress and tests read the list that ``Engine.observe`` and ``Engine.replay`` return.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from drift import Explanation

Value = float | int | bool | str | None
Label = float | int | bool | str


@dataclass(slots=True)
class Event:
    """One record of a stream.

    ``x`` maps feature names to numbers, booleans, strings (categories) or ``None`` (missing).
    ``ts`` is event time in seconds since the epoch. ``error`` is set by a source that could not
    read the record: the engine turns such an event into ``Rejected`` and goes on.
    """

    id: str
    x: Mapping[str, Value] | None = None
    y: Label | None = None
    key: str = ""
    ts: float | None = None
    error: tuple[str, str] | None = None  # (reason, detail)


@dataclass(slots=True)
class Predicted:
    """The answer to a question, made before its label is known.

    ``row`` counts the questions of the whole stream from 0. ``probabilities`` (classification
    only) maps every class seen so far to its probability; ``prediction`` is ``None`` while no
    label has ever been seen.
    """

    id: str
    key: str
    row: int
    ts: float | None
    prediction: Label | None
    probabilities: dict[Label, float] | None = None


class Losses(Mapping[str, float]):
    """The loss of each expert by name; those that slept are not in it.

    ``names`` and ``values (M,)`` are those of all, NaN of one that slept: who sums them up over a
    stream need not look at every name every time.

    >>> losses = Losses(("one", "other"), np.array([0.5, np.nan]))
    >>> dict(losses), losses == {"one": 0.5}
    ({'one': 0.5}, True)
    """

    __slots__ = ("names", "values_of_all")

    def __init__(self, names: Sequence[str], values: NDArray[np.float64]) -> None:
        self.names, self.values_of_all = names, values

    def _awake(self) -> dict[str, float]:
        values = self.values_of_all.tolist()
        return {n: v for n, v in zip(self.names, values, strict=True) if v == v}

    def __getitem__(self, name: str) -> float:
        return self._awake()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._awake())

    def __len__(self) -> int:
        return len(self._awake())

    def items(self) -> Any:
        """Pairs of name and loss."""
        return self._awake().items()

    def __repr__(self) -> str:
        return repr(self._awake())


@dataclass(slots=True)
class Scored:
    """A prediction met its label. ``loss``: 0/1 error (classification) or absolute error.

    ``log_loss``: -ln p(truth) or the squared error. ``delay`` is counted in events,
    ``delay_seconds`` in event time where both have one. ``experts`` holds each awake expert's own
    loss at that moment, by name. ``frozen_loss``: that of a network that has not learned since the
    last drift, as ``loss``; told for some rows only.
    """

    id: str
    key: str
    row: int
    truth: Label
    prediction: Label | None
    loss: float
    log_loss: float
    delay: int
    experts: Mapping[str, float] | None = None
    delay_seconds: float | None = None
    frozen_loss: float | None = None


@dataclass(slots=True)
class DriftDetected:
    """A detector raised an alarm at question ``row``; the change seems to start at ``onset``.

    ``explanation``: what moved, how fast, who voted for it, and whether it leads back to a past
    context; ``None`` of a change that was known from elsewhere.
    """

    key: str
    row: int
    onset: int
    segment: int
    detector: str
    signal: str
    explanation: Explanation | None = None


@dataclass(slots=True)
class TaskClosed:
    """A support window and a later query window inside one segment became a task."""

    key: str
    row: int
    segment: int
    rows: int


@dataclass(slots=True)
class Adapted:
    """A challenger was adapted from the meta-parameters and joined the mixture.

    ``trigger``: ``start`` (a key's first label), ``drift`` (an alarm), ``growth`` (the segment's
    support window grew), ``request`` (somebody asked for it) or ``scout`` (one joins; that it
    adapts again and again is not told).
    ``loss_before`` and ``loss_after`` are mean losses on the ``support`` rows.
    """

    key: str
    row: int
    segment: int
    expert: str
    trigger: str
    support: int
    loss_before: float
    loss_after: float


@dataclass(slots=True)
class MetaUpdated:
    """The meta-parameters took one outer step. ``skipped`` counts tasks with a non-finite loss."""

    row: int
    update: int
    tasks: int
    loss: float
    gradient_norm: float
    skipped: int = 0
    learner: str = ""


@dataclass(slots=True)
class Rejected:
    """An event could not be used; it goes to the dead-letter sink."""

    id: str
    stage: str
    reason: str
    detail: str


@dataclass(slots=True)
class LabelExpired:
    """No label came within the time-to-live, or the pending table was full."""

    id: str
    key: str
    row: int
    reason: str


@dataclass(slots=True)
class SchemaChanged:
    """Features, or the target, are no longer what they were; noticed at question ``row``.

    ``change`` is one of few words: ``feature_added``, ``feature_vanished`` (no value for 256
    events), ``feature_returned``, ``type_changed``, ``category_added``, ``class_added``,
    ``value_clipped`` (far outside of what is usual, as when a unit changes; told once in 1,000
    events). ``feature`` is its name, "" for the target.
    """

    key: str
    row: int
    change: str
    feature: str
    detail: str


Output = (
    Predicted
    | Scored
    | DriftDetected
    | TaskClosed
    | Adapted
    | MetaUpdated
    | Rejected
    | LabelExpired
    | SchemaChanged
)

KINDS: dict[str, type[Any]] = {
    "predicted": Predicted,
    "scored": Scored,
    "drift_detected": DriftDetected,
    "task_closed": TaskClosed,
    "adapted": Adapted,
    "meta_updated": MetaUpdated,
    "rejected": Rejected,
    "label_expired": LabelExpired,
    "schema_changed": SchemaChanged,
}
_KIND_OF = {cls: kind for kind, cls in KINDS.items()}
_FIELDS = {cls: tuple(f.name for f in fields(cls)) for cls in KINDS.values()}


def to_record(output: Output) -> dict[str, Any]:
    """One flat JSON-ready dict with its ``kind`` first.

    >>> to_record(Rejected("f:0:3", "decode", "malformed", "line 4: 3 fields, expected 5"))["kind"]
    'rejected'
    """
    cls = type(output)
    record: dict[str, Any] = {"kind": _KIND_OF[cls]}
    for name in _FIELDS[cls]:
        record[name] = getattr(output, name)
    if isinstance(output, Predicted) and output.probabilities is not None:
        record["probabilities"] = {str(c): p for c, p in output.probabilities.items()}
    elif isinstance(output, Scored) and output.experts is not None:
        record["experts"] = dict(output.experts.items())
    elif isinstance(output, DriftDetected) and output.explanation is not None:
        record["explanation"] = output.explanation.to_record()
    return record
