"""Counts that cost next to nothing to keep, and become Prometheus metrics when somebody asks.

A counter of the client library takes a lock and half a microsecond for each event; an event gives a
dozen values. So the loop only counts in plain attributes and appends durations to lists, and what
that amounts to is worked out in the thread of whoever scrapes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from streammeta.metrics.families import FAMILIES, PREFIX, Family

OTHER = "other"
FOLDED = 4096  # values that wait in a list before they are counted into buckets

Labels = tuple[str, ...]


class Cell:
    """One number of a series."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Spread:
    """A histogram. ``add`` is the append of a list: bind it once where it is hot."""

    __slots__ = ("_counts", "_edges", "_lock", "_sum", "_waiting", "add")

    def __init__(self, buckets: Sequence[float]) -> None:
        self._edges = np.asarray(buckets, np.float64)
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0
        self._waiting: list[float] = []
        self._lock = threading.Lock()
        self.add: Callable[[float], None] = self._waiting.append

    def fold(self) -> None:
        """Count what waits, if it is much; to be called now and then by whoever adds."""
        if len(self._waiting) < FOLDED:
            return
        with self._lock:
            part = self._waiting[:]
            self._counts += self._counted(part)
            self._sum += float(sum(part))
            del self._waiting[: len(part)]

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets as ``(le, count)``, and the sum; from any thread."""
        with self._lock:
            part = self._waiting[:]
            counts, total = self._counts + self._counted(part), self._sum + float(sum(part))
        ends = [*map(floatToGoString, self._edges.tolist()), "+Inf"]
        return list(zip(ends, counts.cumsum().astype(float).tolist(), strict=True)), total

    def _counted(self, values: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        places = self._edges.searchsorted(values)  # a value at an edge is below it
        return np.bincount(places, minlength=len(self._counts)).astype(np.int64)


class Tally(Collector):
    """All values of one app; a collector for a registry.

    ``before``: called before every look at the values, in the thread of whoever looks.

    >>> tally = Tally(lambda: None)
    >>> tally.add("checkpoints", 1, "ok")
    >>> [sample.value for metric in tally.collect() for sample in metric.samples]
    [1.0]
    """

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = before
        self._values: dict[str, dict[Labels, Cell]] = {f.name: {} for f in FAMILIES}
        self._spreads: dict[str, dict[Labels, Spread]] = {f.name: {} for f in FAMILIES}
        self._family = {f.name: f for f in FAMILIES}

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Count; the first time is the time from which the series is there."""
        self.cell(name, *labels).value += amount

    def set(self, name: str, value: float, *labels: str) -> None:
        """The value is this now."""
        self.cell(name, *labels).value = value

    def cell(self, name: str, *labels: str) -> Cell:
        """Where a series keeps its number; for those that change often."""
        values = self._values[name]
        if labels not in values:
            labels = _bounded(labels, values, self._family[name].most)
            values.setdefault(labels, Cell())
        return values[labels]

    def spread(self, name: str, *labels: str) -> Spread:
        """A histogram, made when it is asked for the first time."""
        spreads = self._spreads[name]
        if labels not in spreads:
            labels = _bounded(labels, spreads, self._family[name].most)
        return spreads.setdefault(labels, Spread(self._family[name].buckets))

    def fold(self) -> None:
        """Keep the lists of all histograms short."""
        for spreads in self._spreads.values():
            for spread in spreads.values():
                spread.fold()

    def describe(self) -> Iterable[Metric]:
        """The names, so that a registry need not collect to know them."""
        return [_metric(family) for family in FAMILIES]

    def collect(self) -> Iterable[Metric]:
        """Metrics that have values, as they are now."""
        self._before()
        for family in FAMILIES:
            metric, values = _metric(family), list(self._values[family.name].items())
            for labels, cell in values:
                metric.add_metric(labels, cell.value)  # type: ignore[attr-defined]
            spreads = list(self._spreads[family.name].items())
            for labels, spread in spreads:
                metric.add_metric(labels, *spread.read())  # type: ignore[attr-defined]
            if values or spreads:
                yield metric


def _metric(family: Family) -> Metric:
    make = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }[family.kind]
    made: Metric = make(PREFIX + family.name, family.text, labels=family.labels)
    return made


def _bounded(labels: Labels, known: Iterable[Labels], most: int) -> Labels:
    """The same labels, where one has had all the values that it may have ``other`` in its place."""
    seen = list(zip(*known, strict=True)) or [()] * len(labels)
    full = (set(one) - {OTHER} for one in seen)
    return tuple(
        OTHER if len(values) >= most and value not in values else value
        for value, values in zip(labels, full, strict=True)
    )
