"""Offline meta-training on history: tasks of a stream or of a folder, to a file for ``--init``."""

from streammeta.pretraining.history import History, from_events, from_tables
from streammeta.pretraining.partial import Partial
from streammeta.pretraining.training import (
    Pretrained,
    Pretraining,
    held_out,
    write_pretrained,
)

__all__ = [
    "History",
    "Partial",
    "Pretrained",
    "Pretraining",
    "from_events",
    "from_tables",
    "held_out",
    "write_pretrained",
]
