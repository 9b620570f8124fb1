"""Prequential evaluation: every event is predicted before its label is learned (Dawid 1984).

The model never sees a label before it has answered, because a model's ``observe`` answers first;
the events are handed over in batches of the model's chunk, so that the latency of a batch is what
an event of it waits for its answer and for the learning that follows.
"""

from __future__ import annotations

import resource
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from streammeta.engine import Engine
from streammeta.events import (
    DriftDetected,
    Event,
    Label,
    Losses,
    Output,
    Predicted,
    Rejected,
    Scored,
    to_record,
)
from streammeta.meta.insight import Insight
from streammeta.scores import Scores, scores_for
from streammeta.sources import Source

Progress = Callable[[int, Scores, int], None]  # (rows scored, scores, drifts)
Watch = Callable[[Any, Sequence[Output]], None]  # (model, what it said to a chunk)

FIRST_REASONS = 3  # rejections quoted to people


class Model(Protocol):
    """Anything that can be benched; ``Engine`` is one."""

    def observe(self, events: Sequence[Event]) -> list[Output]:
        """Answer the questions, learn the labels."""

    def replay(self) -> list[Output]:
        """Do what is due beside answering, such as outer steps of the meta-learner."""


@dataclass(slots=True)
class Latency:
    """Microseconds around ``observe`` and ``replay``, one number per chunk."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        """The quantiles (nearest rank) of ``seconds``; zeros when there are none."""
        if not seconds:
            return cls(0.0, 0.0, 0.0)
        ranked = sorted(seconds)
        p50, p99 = (ranked[max(0, ceil(q * len(ranked)) - 1)] for q in (0.5, 0.99))
        return cls(*(round(value * 1e6, 1) for value in (p50, p99, ranked[-1])))


@dataclass(slots=True)
class Result:
    """What one model did on one stream.

    ``losses[i]`` is the loss (0/1 or absolute error) of the question of row ``rows[i]``, in the
    order in which labels came; ``predictions`` is in the order of questions. ``keys[row]`` and
    ``key_rows[row]`` say which key a question belongs to (a number, in order of appearance) and
    how many questions that key had before. ``drifts`` are rows with an alarm, ``alarms`` all that
    was said of them, ``key_alarms`` the rows counted in rows of the alarm's key. ``peak_rss_mb``
    is the most memory the process held meanwhile, where the system can tell, or else ever;
    ``growth_mb`` is that above what it held at the start. ``events`` counts questions.
    ``watches``: the model finds drifts by itself.
    ``insights``: what its meta-learners have learned about adapting, where it has any.
    """

    model: str
    seed: int
    chunk: int
    task: str
    scores: Scores
    seconds: float = 0.0
    events: int = 0
    peak_rss_mb: float = 0.0
    growth_mb: float = 0.0
    watches: bool = False
    latency: Latency = field(default_factory=lambda: Latency(0.0, 0.0, 0.0))
    drifts: list[int] = field(default_factory=list)
    alarms: list[DriftDetected] = field(default_factory=list)
    experts: dict[str, float] = field(default_factory=dict)
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)
    rows: array[int] = field(default_factory=lambda: array("q"))
    losses: array[float] = field(default_factory=lambda: array("d"))
    predictions: list[Label | None] = field(default_factory=list)
    key_names: list[str] = field(default_factory=list)
    keys: array[int] = field(default_factory=lambda: array("l"))
    key_rows: array[int] = field(default_factory=lambda: array("l"))
    key_alarms: dict[str, list[int]] = field(default_factory=dict)
    note: str = ""
    insights: tuple[Insight, ...] = ()

    @property
    def metric(self) -> dict[str, float]:
        """Every score by name, the main one first."""
        return self.scores.values()

    def to_json(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints for this model."""
        return {
            "model": self.model,
            "rows": self.scores.n,
            "metric": {name: _finite(value) for name, value in self.metric.items()},
            "events_per_second": round(self.events / self.seconds, 1) if self.seconds else 0.0,
            "seconds": round(self.seconds, 3),
            "peak_rss_mb": round(self.peak_rss_mb, 1),
            "growth_mb": round(self.growth_mb, 1),
            "drifts": self.drifts,
            "alarms": [to_record(alarm) for alarm in self.alarms],
            "experts": {name: _finite(value) for name, value in self.experts.items()},
            "insights": [_plain(insight) for insight in self.insights],
            "latency_us": {name: getattr(self.latency, name) for name in ("p50", "p99", "max")},
            "rejected": self.rejected,
            "seed": self.seed,
            "chunk": self.chunk,
            **({"note": self.note} if self.note else {}),
        }


def prequential(
    model: Model,
    events: Iterable[Event],
    *,
    task: str | None = None,
    chunk: int | None = None,
    name: str = "",
    seed: int = 0,
    score_from: int = 0,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Result:
    """Run ``model`` over ``events`` once and measure it.

    ``task`` and ``chunk`` default to the model's own (its ``config``, or its attributes).
    Questions before row ``score_from`` are predicted and learned, but not scored.
    ``progress`` is called after each chunk; a caller that draws should look at the clock first.
    ``watch`` is called then too, and may look into the model; it must change nothing.
    Time is counted around the model only, not around reading the events.
    """
    task = task or str(_trait(model, "task"))
    chunk = chunk or int(_trait(model, "chunk"))
    scores = scores_for(task, start=score_from)
    result = Result(name or type(model).__name__, seed, chunk, task, scores)
    result.watches = _watches(model)
    record = _Recorder(result, score_from)
    waits: array[float] = array("d")
    source = iter(events)
    forget_peak()
    held = peak_rss_mb()
    while batch := list(islice(source, chunk)):
        start = perf_counter()
        outputs = model.observe(batch)
        outputs += model.replay()
        waits.append(perf_counter() - start)
        result.events += sum(event.x is not None for event in batch)
        record(outputs)
        if watch is not None:
            watch(model, outputs)
        if progress is not None:
            progress(result.scores.n, result.scores, len(result.drifts))
    result.seconds = sum(waits)
    result.latency = Latency.of(waits)
    result.peak_rss_mb = peak_rss_mb()
    result.growth_mb = max(0.0, result.peak_rss_mb - held)
    record.close()
    if isinstance(model, Engine):
        result.insights = model.insights()
    return result


def events_of(source: Source, batch: int = 1024) -> Iterator[Event]:
    """All events of a source that ends, from its first.

    Raises:
        SourceError: it cannot be opened or read.
    """
    position = source.start()
    while not source.finished(position):
        events, position = source.read(position, batch)
        yield from events


def peak_rss_mb() -> float:
    """The most memory this process has held since ``forget_peak``, in MB (10^6 bytes).

    Where the system keeps no such mark: the most it has ever held.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6
    except (OSError, IndexError, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def forget_peak() -> None:
    """Start measuring peak memory anew, where the system can (Linux, proc(5), clear_refs 5)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class _Recorder:
    """Writes outputs into a result."""

    def __init__(self, result: Result, score_from: int) -> None:
        self._result = result
        self._from = score_from
        self._own: dict[str, tuple[float, int]] = {}  # expert -> sum of its losses, how many
        self._names: Sequence[str] = ()  # of the experts that are summed up all at once
        self._sums = np.zeros((2, 0))
        self._numbers: dict[str, int] = {}  # key -> its number
        self._asked: list[int] = []  # questions of each key so far

    def __call__(self, outputs: list[Output]) -> None:
        result = self._result
        result.scores.observe(outputs)
        for output in outputs:
            if isinstance(output, Scored):
                self._score(output)
            elif isinstance(output, Predicted):
                result.predictions.append(output.prediction)
                self._ask(output.key)
            elif isinstance(output, DriftDetected):
                result.drifts.append(output.row)
                result.alarms.append(output)
                own = result.key_alarms.setdefault(output.key, [])
                # the alarm's row is the newest question of any key: the key's own newest is wanted
                own.append(self._asked[self._numbers[output.key]] - 1)
            elif isinstance(output, Rejected):
                result.rejected += 1
                if len(result.reasons) < FIRST_REASONS:
                    result.reasons.append(f"{output.id}: {output.reason}: {output.detail}")

    def close(self) -> None:
        """The experts' own scores, once all is in."""
        self._into_own()
        for expert, (total, n) in sorted(self._own.items()):
            mean = total / n
            better = self._result.scores.higher_is_better
            self._result.experts[expert] = 1.0 - mean if better else mean

    def _ask(self, key: str) -> None:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._asked)
            self._asked.append(0)
            self._result.key_names.append(key)
        self._result.keys.append(number)
        self._result.key_rows.append(self._asked[number])
        self._asked[number] += 1

    def _score(self, scored: Scored) -> None:
        if scored.row < self._from:
            return
        self._result.rows.append(scored.row)
        self._result.losses.append(scored.loss)
        self._sum_up(scored.experts)

    def _sum_up(self, experts: Mapping[str, float] | None) -> None:
        if isinstance(experts, Losses):  # those of a whole stream are many: by all at once
            if self._names is not experts.names:
                self._into_own()
                self._names = experts.names
                self._sums = np.zeros((2, len(experts.names)))
            add_losses(experts.values_of_all, self._sums)
            return
        for expert, loss in (experts or {}).items():
            total, n = self._own.get(expert, (0.0, 0))
            self._own[expert] = (total + loss, n + 1)

    def _into_own(self) -> None:
        """What was summed up for all at once goes to each by name."""
        for expert, loss, count in zip(self._names, *self._sums.tolist(), strict=True):
            if count:
                total, n = self._own.get(expert, (0.0, 0))
                self._own[expert] = (total + loss, n + int(count))


@njit(cache=True, nogil=True, error_model="numpy")
def add_losses(values: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    """``sums (2, M)`` <- sum and number of the ``values (M,)`` that are there."""
    for m in range(len(values)):
        if not np.isnan(values[m]):
            sums[0, m] += values[m]
            sums[1, m] += 1.0


def _watches(model: Model) -> bool:
    """Whether it finds drifts by itself: neither told of them nor frozen before they come."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "on_drift", "ignore") == "ignore":
        return False
    return config.known_drifts is None and config.freeze_at is None


def _trait(model: Model, name: str) -> Any:
    """``name`` of the model's config, or of the model itself."""
    return getattr(getattr(model, "config", model), name)


def _plain(insight: Insight) -> dict[str, Any]:
    """JSON-able."""
    layers = [
        {name: _finite(value) if isinstance(value, float) else value for name, value in values}
        for values in (layer._asdict().items() for layer in insight.layers)
    ]
    inputs = {one.name: _finite(one.share) for one in insight.inputs}
    told = {"layers": layers, "likeness": _finite(insight.likeness), "inputs": inputs}
    return insight._asdict() | told


def _finite(value: float) -> float | None:
    """JSON has no nan: an undefined score is ``null``."""
    finite = value == value and abs(value) != float("inf")
    return round(value, 6) + 0.0 if finite else None  # + 0.0: never -0.0
