"""Where outputs go."""

from __future__ import annotations

from streammeta.sinks.base import Sink
from streammeta.sinks.jsonl import DeadLetterSink, JsonlSink, StdoutSink
from streammeta.sinks.memory import ListSink

__all__ = ["DeadLetterSink", "JsonlSink", "ListSink", "Sink", "StdoutSink"]
