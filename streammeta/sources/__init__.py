"""Where events come from: files, tables and iterables, readable again from any position."""

from __future__ import annotations

from streammeta.sources.base import Position, Source
from streammeta.sources.columns import decide_task
from streammeta.sources.files import FileSource
from streammeta.sources.frame import FrameSource
from streammeta.sources.iterable import IterableSource
from streammeta.sources.table_source import Sniff

__all__ = [
    "FileSource",
    "FrameSource",
    "IterableSource",
    "Position",
    "Sniff",
    "Source",
    "decide_task",
]
