"""What runs a model on a stream: the host of a shard and the embedded runner."""

from __future__ import annotations

from streammeta.runtime.host import HostStatistics, Model, Observer, ShardHost
from streammeta.runtime.local import Pace, RunEnd, drain_on_signals, run_local
from streammeta.sources.clock import Clock, SystemClock

__all__ = [
    "Clock",
    "HostStatistics",
    "Model",
    "Observer",
    "Pace",
    "RunEnd",
    "ShardHost",
    "SystemClock",
    "drain_on_signals",
    "run_local",
]
