"""Outputs as JSON lines, in a file or on stdout."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from streammeta.errors import SinkError
from streammeta.events import KINDS, Output, to_record
from streammeta.sinks.base import Position

_encode = json.JSONEncoder(
    allow_nan=False, separators=(",", ":"), default=lambda value: value.item()
).encode


def to_line(output: Output) -> str:
    """One line of strict JSON; a number that is not finite becomes ``null``.

    >>> from streammeta.events import LabelExpired
    >>> to_line(LabelExpired("f:0:3", "", 3, "ttl"))
    '{"kind":"label_expired","id":"f:0:3","key":"","row":3,"reason":"ttl"}\\n'
    """
    record = to_record(output)
    try:
        return _encode(record) + "\n"
    except ValueError:
        return _encode(_finite(record)) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def kept(kinds: Iterable[str] | None) -> tuple[type[Any], ...]:
    """The classes of the output kinds to keep; all of them for ``None``.

    Raises:
        SinkError: there is no such kind.
    """
    if kinds is None:
        return tuple(KINDS.values())
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise SinkError(f"no output is called {unknown[0]!r}; outputs: {', '.join(KINDS)}")
    return tuple(KINDS[kind] for kind in kinds)


class JsonlSink:
    """One JSON line per output in a file; its position is the length in bytes.

    ``open`` with a position cuts the file there, so that outputs which a crash left half written,
    or which will be delivered again, are in the file exactly once.

    Args:
        path: the file; its folder is made when missing.
        kinds: names of the outputs to keep (``predicted``, ``scored``, ...); all by default.
    """

    durable = True

    def __init__(self, path: str | Path, kinds: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self._kinds = kept(kinds)
        self._file: BinaryIO | None = None
        self._size = 0

    def check(self) -> None:
        """Open the file as it is, without changing a byte of it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be opened: {error.strerror}") from error

    def open(self, resume_at: Position | None) -> None:
        """Begin an empty file, or go on at the byte that ``resume_at`` names."""
        size = 0 if resume_at is None else int(resume_at["bytes"])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Not in append mode: a frozen owner that wakes up after it was replaced writes the same
            # bytes to the same place instead of doubling them.
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            found = file.seek(0, os.SEEK_END)
            if found < size:
                file.close()
                raise SinkError(
                    f"{self.path}: has {found} bytes, the commit knows {size}: was it changed or "
                    f"removed since? Start fresh, or put the file back"
                )
            file.truncate(size)
            file.seek(size)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be opened: {error.strerror}") from error
        self._file, self._size = file, size

    def write(self, outputs: Sequence[Output]) -> int:
        """Append the outputs of the kinds that are kept; returns how many."""
        lines = [to_line(output) for output in outputs if isinstance(output, self._kinds)]
        if lines:
            data = "".join(lines).encode()
            try:
                self._open().write(data)
            except OSError as error:
                raise SinkError(f"{self.path}: cannot be written: {error.strerror}") from error
            self._size += len(data)
        return len(lines)

    def position(self) -> Position:
        """The length of the file once all writes have arrived."""
        return {"bytes": self._size}

    def flush(self) -> None:
        """Write out and fsync."""
        file = self._open()
        try:
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Flush and close; closing twice is fine."""
        if self._file is None:
            return
        try:
            self.flush()
        finally:
            file, self._file = self._file, None
            with suppress(OSError):  # told by the flush; what is buffered must not come later
                file.close()

    def _open(self) -> BinaryIO:
        if self._file is None:
            raise SinkError(f"{self.path}: is not open")
        return self._file


class DeadLetterSink(JsonlSink):
    """The events that could not be used, with their position and the reason, as JSON lines.

    Args:
        path: the file; its folder is made when missing.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, ["rejected"])


class StdoutSink:
    """Outputs on a text stream as they are made (predictions by default).

    Not durable: answers leave at once, and after a crash the ones since the last commit are
    printed again with the same ids.

    Args:
        kinds: names of the outputs to print; predictions by default.
        stream: another text stream than stdout.
    """

    durable = False
    name = "stdout"

    def __init__(
        self, kinds: Sequence[str] | None = ("predicted",), stream: TextIO | None = None
    ) -> None:
        self._kinds = kept(kinds)
        self._stream = stream

    def open(self, resume_at: Position | None) -> None:
        """Nothing to go back to."""
        self._stream = self._stream or sys.stdout

    def write(self, outputs: Sequence[Output]) -> int:
        """Print the outputs of the kinds that are kept."""
        lines = [to_line(output) for output in outputs if isinstance(output, self._kinds)]
        stream = self._stream or sys.stdout
        try:
            stream.writelines(lines)
            stream.flush()
        except (OSError, ValueError) as error:
            raise SinkError(f"stdout: cannot be written: {error}") from error
        return len(lines)

    def position(self) -> Position:
        """Always the same: what has been printed stays printed."""
        return {}

    def flush(self) -> None:
        """Push buffered text out."""
        if self._stream is not None:
            self._stream.flush()

    def close(self) -> None:
        """Flush; the stream belongs to its owner."""
        self.flush()
