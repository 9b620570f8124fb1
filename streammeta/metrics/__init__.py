"""Prometheus metrics of a run: what is measured, how it is kept cheaply, who serves it."""

from __future__ import annotations

from streammeta.metrics.exposition import render
from streammeta.metrics.families import FAMILIES, PREFIX, Family
from streammeta.metrics.prequential import ROLLING
from streammeta.metrics.recorder import Metrics, Statistics
from streammeta.metrics.server import MetricsServer

__all__ = [
    "FAMILIES",
    "PREFIX",
    "ROLLING",
    "Family",
    "Metrics",
    "MetricsServer",
    "Statistics",
    "render",
]
