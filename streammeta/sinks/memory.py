"""Outputs kept in a list."""

from __future__ import annotations

from collections.abc import Sequence

from streammeta.errors import SinkError
from streammeta.events import Output
from streammeta.sinks.base import Position
from streammeta.sinks.jsonl import kept


class ListSink:
    """A durable sink in memory: ``outputs`` is what a file would hold.

    Args:
        kinds: names of the outputs to keep; all by default.
        name: by which commits know the sink.
    """

    durable = True

    def __init__(self, kinds: Sequence[str] | None = None, name: str = "list") -> None:
        self.name = name
        self.outputs: list[Output] = []
        self.flushed = 0
        self._kinds = kept(kinds)

    def open(self, resume_at: Position | None) -> None:
        """Begin empty, or drop what came after ``resume_at``."""
        size = 0 if resume_at is None else int(resume_at["records"])
        if len(self.outputs) < size:
            raise SinkError(
                f"{self.name}: has {len(self.outputs)} records, the commit knows {size}"
            )
        del self.outputs[size:]

    def write(self, outputs: Sequence[Output]) -> int:
        """Append the outputs of the kinds that are kept."""
        taken = [output for output in outputs if isinstance(output, self._kinds)]
        self.outputs += taken
        return len(taken)

    def position(self) -> Position:
        """The number of outputs."""
        return {"records": len(self.outputs)}

    def flush(self) -> None:
        """Note that everything so far is safe."""
        self.flushed = len(self.outputs)

    def close(self) -> None:
        """Flush."""
        self.flush()
