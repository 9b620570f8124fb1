"""Where events come from: files and iterables, readable again from any position."""

from __future__ import annotations

from streammeta.sources.base import Position, Source
from streammeta.sources.columns import decide_task
from streammeta.sources.files import FileSource, Sniff
from streammeta.sources.iterable import IterableSource

__all__ = ["FileSource", "IterableSource", "Position", "Sniff", "Source", "decide_task"]
