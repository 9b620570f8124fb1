"""A file that somebody else appends to, followed through rotation and truncation."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import structlog

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.base import Position, SourceStatus
from streammeta.sources.csv_table import sniff_delimiter
from streammeta.sources.wire import Records

HEAD = 256  # bytes at the start of a file by which it is known again
BLOCK = 65_536  # bytes read at once
LONGEST = 16 * 1024 * 1024  # bytes of one line
_ROTATED = re.compile(r"[.-]\d[\d.T_-]*")  # .1, -20260131, .2026-01-31T10
CSV = (".csv", ".tsv", ".txt", ".data")
JSONL = (".jsonl", ".ndjson")
_log = structlog.get_logger("streammeta.sources")


class _File:
    """One file held open, as long as it is being read, whatever its name is meanwhile."""

    def __init__(self, path: Path, offset: int, line: int) -> None:
        self.handle = os.open(path, os.O_RDONLY)
        self.inode = os.fstat(self.handle).st_ino
        self.offset, self.line = offset, line
        self.columns: list[str] | None = None  # of a CSV file
        self.delimiter = ","
        self.head = self.fingerprint(min(HEAD, offset))
        self.drained = False  # everything that it held at the last look was read

    def fingerprint(self, size: int) -> tuple[int, str]:
        """Its first bytes, hashed; nothing of nothing."""
        return size, sha256(os.pread(self.handle, size, 0)).hexdigest()[:16] if size else ""

    def rewritten(self) -> bool:
        """Whether it is shorter than what was read, or begins otherwise."""
        if os.fstat(self.handle).st_size < self.offset:
            return True
        return self.fingerprint(self.head[0]) != self.head

    def lines(self, n: int, final: bool) -> Iterator[bytes]:
        """At most ``n`` lines that have ended; where the file is final the last may lack its end.

        Moves on with every line.
        """
        self.drained = False
        while n:
            block = os.pread(self.handle, BLOCK, self.offset)
            while len(block) < LONGEST and b"\n" not in block:
                more = os.pread(self.handle, BLOCK, self.offset + len(block))
                if not more:
                    break
                block += more
            whole = block[: block.rfind(b"\n") + 1] or (block if final else b"")
            if not whole and len(block) >= LONGEST:
                whole = block  # far too long for a line: whoever reads it says so
            if not whole:
                self.drained = not block
                return
            for line in whole.removesuffix(b"\n").split(b"\n")[:n]:
                self.offset = min(self.offset + len(line) + 1, self.offset + len(whole))
                self.line += 1
                n -= 1
                if self.head[0] < HEAD:
                    self.head = self.fingerprint(min(HEAD, self.offset))
                yield line

    def close(self) -> None:
        os.close(self.handle)


class FollowedFile:
    """Lines that are appended to a CSV or JSONL file, like ``tail -F``.

    A line is read once its end is there. Where the file was renamed and another has its name, the
    old one is read to its end first; where it was copied and cut, its copy in the same folder is;
    where it was only cut, reading goes on at its new beginning if nothing was left unread.

    A position names the file by inode and first bytes, so that a run that stood still finds it
    among its siblings (``NAME.1``, ``NAME-20260131``; packed ones cannot be read) and then reads
    those that came after, in the order of their times. What was deleted or cut before it was read
    is a gap.

    Values have the types of JSON; cells of a CSV file are numbers where they read as numbers, and
    a record is one line. There is no looking ahead: nothing is known of later rows.

    Args:
        path: the file, by its name; it may come later.
        target: column to predict; ``None`` in JSONL: envelopes (see ``sources.wire``).
        time: column with the event time.
        key: column that names the stream a row belongs to.
        id: column with the rows' own ids; otherwise ``name:0:row`` over all files.
        ignore: columns that are left out.
        begin: where a run without a commit begins, at the first line of the file as it is
            (``earliest``) or after its last one (``latest``).
        on_gap: ``fail``, or go on at the ``earliest`` line of the file as it is now, or after its
            ``latest``.
        name: the first part of the ids; the file's name by default.

    Raises:
        UsageError: the suffix is unknown, or a CSV file has no target.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the field
        ignore: Sequence[str] = (),
        begin: Literal["earliest", "latest"] = "earliest",
        on_gap: Literal["fail", "earliest", "latest"] = "fail",
        name: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.name = name or self.path.name
        suffix = self.path.suffix.lower()
        if suffix not in (*CSV, *JSONL):
            raise UsageError(
                f"{self.path}: a file that is followed has one of {', '.join((*CSV, *JSONL))}"
            )
        self._csv = suffix in CSV
        self._records = Records(self.name, target=target, time=time, key=key, id=id, ignore=ignore)
        self._begin, self._on_gap = begin, on_gap
        self._file: _File | None = None
        self._at: Position = {}
        self._first: Position | None = None
        self._rows = 0
        self._gaps = 0
        self._fault = ""

    def start(self) -> Position:
        """Before the first line of the file, or after its last one at the first read."""
        return {"inode": None, "head": [0, ""], "offset": 0, "line": 0, "row": 0}

    def read(self, position: Position, n: int) -> tuple[list[Event], Position]:
        """At most ``n`` lines after ``position``.

        Raises:
            SourceError: the file cannot be read, the position is not one of ours, or lines are lost
                and ``on_gap`` is ``fail``.
        """
        events: list[Event] = []
        try:
            file = self._open_at(position)
            while file is not None and len(events) < n:
                if file.rewritten():
                    file = self._after_rewriting(file)
                    continue
                following = self._following(file)
                before = file.offset
                events += self._events(file, n - len(events), final=following is not None)
                if file.offset > before:
                    continue  # headers and blank lines are no events: there may be more
                if following is None:
                    break
                file = self._switch(following, 0)
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read: {error.strerror}") from error
        if self._file is not None:
            self._at = self._here()
        return events, dict(self._at)

    def finished(self, position: Position) -> bool:
        """Never: somebody may append a line."""
        return False

    def status(self) -> SourceStatus:
        """How the last read went."""
        return SourceStatus(self._fault, None, self._gaps)

    def close(self) -> None:
        """Close the file; the next read finds it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _here(self) -> Position:
        assert self._file is not None
        file = self._file
        return {
            "inode": file.inode,
            "head": list(file.head),
            "offset": file.offset,
            "line": file.line,
            "row": self._rows,
        }

    def _open_at(self, position: Position) -> _File | None:
        """The file in which ``position`` lies, open at its place; ``None``: there is none yet."""
        if self._file is not None and position == self._at:
            return self._file
        if not isinstance(position.get("offset"), int) or "inode" not in position:
            raise SourceError(
                f"{self.name}: position is {position!r}, expected inode, head, offset, line, row"
            )
        if position["inode"] is None and self._first is not None:
            position = self._first  # "latest" is the moment of the first read
        self.close()
        self._at, self._rows = dict(position), int(position["row"])
        if position["inode"] is not None:
            return self._find(position)
        if not self.path.exists():
            self._fault = f"{self.path}: there is no such file yet"
            return None
        self._fault = ""
        file = self._switch(self.path, 0)
        if self._begin == "latest":
            self._to_the_end(file)
        self._first = self._here()
        return file

    def _find(self, position: Position) -> _File:
        """Where a position lies: in the file of its inode, or in a copy with the same beginning."""
        size, digest = position["head"]
        alike = []
        for path in self._siblings():
            file = _File(path, position["offset"], position["line"])
            whole = os.fstat(file.handle).st_size >= position["offset"]
            same = whole and file.fingerprint(size) == (size, digest)
            file.close()
            if same and file.inode == position["inode"]:
                return self._switch(path, position["offset"], position["line"])
            if same and size:
                alike.append(path)
        if len(alike) == 1:
            return self._switch(alike[0], position["offset"], position["line"])
        return self._over_the_gap(f"the file of the last commit is gone, at {position['offset']:,}")

    def _switch(self, path: Path, offset: int, line: int = 0) -> _File:
        """Read on in another file."""
        file = _File(path, offset, line)
        self.close()
        self._file = file
        if self._csv and offset:
            lines = os.pread(file.handle, BLOCK, 0).split(b"\n")
            self._take_header(file, next(line for line in lines if line.strip()))
        return file

    def _siblings(self) -> list[Path]:
        """Files whose names begin with ours, by the time of their last line; ours is the last."""
        found = [
            path
            for path in self.path.parent.iterdir()
            if path.name.startswith(self.path.name)
            and _ROTATED.fullmatch(path.name[len(self.path.name) :])
            and path.is_file()
        ]
        found.sort(key=lambda path: (path.stat().st_mtime_ns, path.name))
        return found + ([self.path] if self.path.exists() else [])

    def _following(self, file: _File) -> Path | None:
        """The file that comes after one that was renamed; ``None`` while nothing has its name."""
        if not self.path.exists():
            return None
        siblings = self._siblings()
        inodes = [path.stat().st_ino for path in siblings]
        if inodes[-1] == file.inode:
            return None
        if file.inode not in inodes:
            return siblings[-1]  # deleted: we hold it open still
        return siblings[inodes.index(file.inode) + 1]

    def _after_rewriting(self, file: _File) -> _File:
        """The file was cut: its copy has what we did not read, if there is one."""
        size, digest = file.head
        for path in self._siblings():
            copy = _File(path, file.offset, file.line)
            longer = os.fstat(copy.handle).st_size >= file.offset
            same = size and longer and copy.fingerprint(size) == (size, digest)
            copy.close()
            if same:
                return self._switch(path, file.offset, file.line)
        told = f"the file was cut or written anew, we have read {file.offset:,}"
        if file.drained:  # there was nothing more in it a moment ago
            _log.warning("followed file was cut", path=str(self.path))
            return self._switch(self.path, 0)
        return self._over_the_gap(told)

    def _over_the_gap(self, told: str) -> _File:
        told = f"{self.path}: {told} bytes: lines may be lost"
        if self._on_gap == "fail":
            raise SourceError(f'{told}; go on without them: on_gap = "earliest" or "latest"')
        self._gaps += 1
        _log.warning("gap", source=self.name, told=told, on_gap=self._on_gap)
        file = self._switch(self.path, 0)
        if self._on_gap == "latest":
            self._to_the_end(file)
        return file

    def _to_the_end(self, file: _File) -> None:
        for line in file.lines(2**62, final=False):
            if file.columns is None and self._csv:
                self._take_header(file, line)

    def _events(self, file: _File, n: int, final: bool) -> Iterator[Event]:
        """Events of the next lines; blank lines and headers are none."""
        for line in file.lines(n, final):
            if not line.strip():
                continue
            if self._csv and file.columns is None:
                self._take_header(file, line)
                continue
            yield self._event(file, line)
            self._rows += 1

    def _take_header(self, file: _File, line: bytes) -> None:
        text = line.decode("utf-8-sig", "backslashreplace")
        file.delimiter = sniff_delimiter([text])
        file.columns = [name.strip() for name in next(csv.reader([text], delimiter=file.delimiter))]

    def _event(self, file: _File, line: bytes) -> Event:
        place, row = f"line {file.line}", self._rows
        if len(line) >= LONGEST:
            return self._records.plan.rejected(row, place, "malformed", "is too long for a line")
        if not self._csv:
            return self._records.event(row, place, line.strip())
        assert file.columns is not None
        text = line.decode("utf-8", "backslashreplace")
        try:
            cells: list[Any] = next(csv.reader([text], delimiter=file.delimiter, strict=True), [])
        except csv.Error as error:
            return self._records.plan.rejected(row, place, "malformed", str(error))
        if len(cells) != len(file.columns):
            detail = f"{len(cells)} fields, expected {len(file.columns)} like the header"
            return self._records.plan.rejected(row, place, "malformed", detail)
        return self._records.row(row, place, dict(zip(file.columns, cells, strict=True)))
