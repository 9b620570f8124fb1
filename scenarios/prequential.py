"""Prequential evaluation: every event is predicted before its label is learned (Dawid 1984).

The model never sees a label before it has answered, because a model's ``observe`` answers first;
the events are handed over in batches of the model's chunk, so that the latency of a batch is what
an event of it waits for its answer and for the learning that follows.
"""

from __future__ import annotations

import resource
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any, Protocol

from streammeta.events import DriftDetected, Event, Label, Output, Predicted, Rejected, Scored
from streammeta.scores import Scores, scores_for
from streammeta.sources import Source

Progress = Callable[[int, Scores, int], None]  # (rows scored, scores, drifts)

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
        p50, p99 = (ranked[min(len(ranked) - 1, int(q * len(ranked)))] for q in (0.5, 0.99))
        return cls(*(round(value * 1e6, 1) for value in (p50, p99, ranked[-1])))


@dataclass(slots=True)
class Result:
    """What one model did on one stream.

    ``losses[i]`` is the loss (0/1 or absolute error) of the question of row ``rows[i]``, in the
    order in which labels came; ``predictions`` is in the order of questions. ``peak_rss_mb`` is
    that of the whole process so far.
    """

    model: str
    seed: int
    chunk: int
    task: str
    scores: Scores
    seconds: float = 0.0
    events: int = 0
    peak_rss_mb: float = 0.0
    latency: Latency = field(default_factory=lambda: Latency(0.0, 0.0, 0.0))
    drifts: list[int] = field(default_factory=list)
    experts: dict[str, float] = field(default_factory=dict)
    rejected: int = 0
    reasons: list[str] = field(default_factory=list)
    rows: array[int] = field(default_factory=lambda: array("q"))
    losses: array[float] = field(default_factory=lambda: array("d"))
    predictions: list[Label | None] = field(default_factory=list)

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
            "drifts": self.drifts,
            "experts": {name: _finite(value) for name, value in self.experts.items()},
            "latency_us": {name: getattr(self.latency, name) for name in ("p50", "p99", "max")},
            "rejected": self.rejected,
            "seed": self.seed,
            "chunk": self.chunk,
        }


def prequential(
    model: Model,
    events: Iterable[Event],
    *,
    task: str | None = None,
    chunk: int | None = None,
    name: str = "",
    seed: int = 0,
    progress: Progress | None = None,
) -> Result:
    """Run ``model`` over ``events`` once and measure it.

    ``task`` and ``chunk`` default to the model's own (its ``config``, or its attributes).
    ``progress`` is called after each chunk; a caller that draws should look at the clock first.
    Time is counted around the model only, not around reading the events.
    """
    task = task or str(_trait(model, "task"))
    chunk = chunk or int(_trait(model, "chunk"))
    result = Result(name or type(model).__name__, seed, chunk, task, scores_for(task))
    own: dict[str, tuple[float, int]] = {}
    waits: array[float] = array("d")
    source = iter(events)
    while batch := list(islice(source, chunk)):
        start = perf_counter()
        outputs = model.observe(batch)
        outputs += model.replay()
        waits.append(perf_counter() - start)
        result.events += len(batch)
        _record(outputs, result, own)
        if progress is not None:
            progress(result.scores.n, result.scores, len(result.drifts))
    result.seconds = sum(waits)
    result.latency = Latency.of(waits)
    result.peak_rss_mb = peak_rss_mb()
    for expert, (total, n) in sorted(own.items()):
        mean = total / n
        result.experts[expert] = 1.0 - mean if result.scores.higher_is_better else mean
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
    """The most memory this process has ever held, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _record(outputs: list[Output], result: Result, own: dict[str, tuple[float, int]]) -> None:
    result.scores.observe(outputs)
    for output in outputs:
        if isinstance(output, Scored):
            result.rows.append(output.row)
            result.losses.append(output.loss)
            for expert, loss in (output.experts or {}).items():
                total, n = own.get(expert, (0.0, 0))
                own[expert] = (total + loss, n + 1)
        elif isinstance(output, Predicted):
            result.predictions.append(output.prediction)
        elif isinstance(output, DriftDetected):
            result.drifts.append(output.row)
        elif isinstance(output, Rejected):
            result.rejected += 1
            if len(result.reasons) < FIRST_REASONS:
                result.reasons.append(f"{output.id}: {output.reason}: {output.detail}")


def _trait(model: Model, name: str) -> Any:
    """``name`` of the model's config, or of the model itself."""
    return getattr(getattr(model, "config", model), name)


def _finite(value: float) -> float | None:
    """JSON has no nan: an undefined score is ``null``."""
    finite = value == value and abs(value) != float("inf")
    return round(value, 6) + 0.0 if finite else None  # + 0.0: never -0.0
