"""A journal: records on disk in the order they came, for sources that cannot be asked again.

A folder of segments ``00000000000000000042.journal``, named for their first record. A record is
its length and the CRC-32 of its bytes (two little-endian 32-bit numbers), then the bytes. The sum
begins at ``SEED``, so that zeros, which a page that was never written reads as, are no record.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import structlog

from streammeta.errors import SourceError

MAGIC = b"streammeta journal 1\n"
SEGMENT_BYTES = 16 * 1024 * 1024
LONGEST = 64 * 1024 * 1024  # bytes of one record; a longer length is a damaged one
SEED = 0x6A6F7572
_HEADER = struct.Struct("<II")
_NAME = re.compile(r"(\d{20})\.journal")
_log = structlog.get_logger("streammeta.journal")

Fsync = Literal["always", "never"]


class Journal:
    """Records by number, from 0 on; one writer, who may append from any thread.

    Opening cuts a record that a crash left half written off the end. A record that does not fit
    its checksum anywhere else is damage, and an error: it had been acknowledged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = Journal(folder)
    ...     journal.append([b"a", b"b", b"c"])
    ...     journal.read(1, 5)
    ...     journal.close()
    0
    [b'b', b'c']

    Args:
        folder: made when missing; one process at a time.
        fsync: ``always``: what ``append`` has returned for survives a power cut; ``never``: it
            survives the process, and the system writes it out when it likes.
        segment_bytes: size from which on a new segment is begun.

    Raises:
        SourceError: the folder cannot be used, is in use, or a record is damaged.
    """

    def __init__(
        self, folder: str | Path, *, fsync: Fsync = "always", segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        self.folder = Path(folder)
        self._fsync = fsync == "always"
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._cursor = (-1, 0, 0)  # a record's number, its segment's first, its offset in there
        self._writer = -1
        self._claim = -1
        self._segments: list[int] = []
        self._end = self._size = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._claim = os.open(self.folder / "claim", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise SourceError(f"{self.folder}: cannot be opened: {error.strerror}") from error
        try:
            self._take_up()
        except BaseException:
            self.close()
            raise

    @property
    def first(self) -> int:
        """The oldest record that is kept."""
        return self._segments[0]

    @property
    def end(self) -> int:
        """The number that the next record will have."""
        return self._end

    def append(self, records: Sequence[bytes]) -> int:
        """Add records at the end; the number of the first of them. Safe once this has returned.

        Raises:
            SourceError: they could not be written; none of them is in the journal then.
        """
        image = b"".join(_HEADER.pack(len(r), zlib.crc32(r, SEED)) + r for r in records)
        with self._lock:
            if self._writer < 0:
                raise SourceError(f"{self.folder}: the journal is closed")
            first, size = self._end, self._size
            try:
                if size >= self._segment_bytes:
                    self._begin_segment(first)
                    size = self._size
                _write_all(self._writer, image)
                if self._fsync:
                    os.fsync(self._writer)
            except OSError as error:
                os.ftruncate(self._writer, size)
                os.lseek(self._writer, size, os.SEEK_SET)
                raise SourceError(f"{self.folder}: cannot be written: {error.strerror}") from error
            self._end, self._size = first + len(records), size + len(image)
        return first

    def read(self, number: int, n: int) -> list[bytes]:
        """At most ``n`` records from ``number`` on.

        Raises:
            SourceError: ``number`` is before ``first`` or after ``end``, or a record is damaged.
        """
        with self._lock:
            if not self.first <= number <= self._end:
                raise SourceError(
                    f"{self.folder}: record {number} is not in the journal, which has "
                    f"{self.first} to {self._end - 1}: was it removed, or is it another one?"
                )
            wanted = min(n, self._end - number)
            at, segment, offset = self._cursor
            if at != number or segment not in self._segments:  # it may have been forgotten
                segment = max(first for first in self._segments if first <= number)
                at, offset = segment, len(MAGIC)
            found: list[bytes] = []
            while len(found) < wanted:
                at, offset = self._read_segment(segment, at, offset, number, wanted, found)
                if len(found) < wanted:
                    segment = self._segments[self._segments.index(segment) + 1]
                    at, offset = segment, len(MAGIC)
            if found:
                self._cursor = (at, segment, offset)
            return found

    def forget(self, number: int) -> None:
        """Remove the segments that have only records before ``number``."""
        with self._lock:
            while len(self._segments) > 1 and self._segments[1] <= number:
                self._path(self._segments.pop(0)).unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files; closing twice is fine."""
        with self._lock:
            for handle in (self._writer, self._claim):
                if handle >= 0:
                    os.close(handle)
            self._writer = self._claim = -1

    def _take_up(self) -> None:
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SourceError(f"{self.folder}: another process uses this journal") from error
        names = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        self._segments = sorted(int(match[1]) for match in names if match)
        if not self._segments:
            self._end = self._size = 0
            self._begin_segment(0)
            return
        for segment, following in zip(self._segments, [*self._segments[1:], None], strict=True):
            records, size = self._scan(segment, last=following is None)
            if following is not None and segment + records != following:
                raise SourceError(
                    f"{self._path(segment)}: has {records} records, but the next segment begins "
                    f"with {following}: a segment is missing or damaged"
                )
        self._end, self._size = segment + records, size
        self._writer = os.open(self._path(segment), os.O_RDWR)
        os.lseek(self._writer, size, os.SEEK_SET)

    def _scan(self, segment: int, last: bool) -> tuple[int, int]:
        """Records and bytes of a segment; what a crash left at the end of the last is cut off."""
        path = self._path(segment)
        data = path.read_bytes()
        if data[: len(MAGIC)] != MAGIC:
            if last and MAGIC.startswith(data.rstrip(b"\0")):  # the crash came while it was begun
                path.write_bytes(MAGIC)
                return 0, len(MAGIC)
            raise SourceError(f"{path}: is no segment of a journal")
        records, offset = 0, len(MAGIC)
        while offset < len(data):
            end = _whole(data, offset)
            if end is None:
                break
            records, offset = records + 1, end
        if offset == len(data):
            return records, offset
        length, _ = _HEADER.unpack_from(data.ljust(offset + _HEADER.size, b"\0"), offset)
        behind = offset + _HEADER.size + length
        if not last or (behind < len(data) and _whole(data, behind) is not None and length):
            raise SourceError(
                f"{path}: record {segment + records} at byte {offset} does not fit its checksum"
            )
        _log.warning("torn tail cut", path=str(path), bytes=len(data) - offset)
        with open(path, "r+b") as file:
            file.truncate(offset)
            os.fsync(file.fileno())
        return records, offset

    def _read_segment(
        self, segment: int, at: int, offset: int, number: int, wanted: int, found: list[bytes]
    ) -> tuple[int, int]:
        """Add records of one segment to ``found``, passing over those before ``number``."""
        end = next((s for s in self._segments if s > segment), self._end)
        with open(self._path(segment), "rb") as file:
            file.seek(offset)
            while at < end and len(found) < wanted:
                length, checksum = _HEADER.unpack(file.read(_HEADER.size))
                record = file.read(length)
                if zlib.crc32(record, SEED) != checksum:
                    raise SourceError(f"{file.name}: record {at} does not fit its checksum")
                if at >= number:
                    found.append(record)
                at += 1
            return at, file.tell()

    def _begin_segment(self, number: int) -> None:
        path = self._path(number)
        writer = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        _write_all(writer, MAGIC)
        if self._fsync:
            os.fsync(writer)
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        if self._writer >= 0:
            os.close(self._writer)
        self._writer, self._size = writer, len(MAGIC)
        if number not in self._segments:
            self._segments.append(number)

    def _path(self, segment: int) -> Path:
        return self.folder / f"{segment:020d}.journal"


def _whole(data: bytes, offset: int) -> int | None:
    """Where the record at ``offset`` ends, if it is whole and fits its checksum."""
    if offset + _HEADER.size > len(data):
        return None
    length, checksum = _HEADER.unpack_from(data, offset)
    end = offset + _HEADER.size + length
    if length > LONGEST or end > len(data):
        return None
    return end if zlib.crc32(data[offset + _HEADER.size : end], SEED) == checksum else None


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
