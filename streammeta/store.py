"""Commits: what a shard needs to go on after a crash, written so that one owner can win.

A commit file is three parts: a header line (JSON: format, schema, version of streammeta, SHA-256
and length of the rest), a line of JSON (everything but the model) and the snapshot of the model.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import structlog

from drift import Explanation
from streammeta import __version__
from streammeta.errors import Fenced, StoreError
from streammeta.events import KINDS, Output, to_record
from streammeta.snapshot import Snapshot

SCHEMA = 1
KEPT = 3  # commits of a shard that stay on disk
_FORMAT = "streammeta-commit"
_NAME = re.compile(r"(\d{12})\.commit")
_SHARD = re.compile(r"shard-(\d{4,})")
_log = structlog.get_logger("streammeta.store")


@dataclass(slots=True)
class CommitRecord:
    """The state of a shard at one moment.

    ``position`` is the source's, after the last event that ``snapshot`` has learned; ``sinks``
    are the positions of the durable sinks before ``outputs``, which are the outputs since the
    commit before and will be delivered after this one. ``events`` counts the events read so far.
    ``meta_version`` is the number of outer steps in the meta-parameters.
    """

    epoch: int
    snapshot: Snapshot
    position: dict[str, Any]
    sinks: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    events: int = 0
    meta_version: int = 0

    def to_bytes(self) -> bytes:
        """The image of a commit file."""
        rest = {
            "epoch": self.epoch,
            "position": self.position,
            "sinks": self.sinks,
            "events": self.events,
            "meta_version": self.meta_version,
            "outputs": [_row(output) for output in self.outputs],
        }
        text = json.dumps(rest, separators=(",", ":"), default=lambda value: value.item())
        body = text.encode() + b"\n" + self.snapshot.to_bytes()
        digest = sha256(body).hexdigest()
        header = {
            "format": _FORMAT,
            "schema": SCHEMA,
            "version": __version__,
            "sha256": digest,
            "length": len(body),
        }
        return json.dumps(header).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> CommitRecord:
        """The inverse of ``to_bytes``.

        Raises:
            StoreError: damaged, cut short, or of another schema.
        """
        line, _, body = data.partition(b"\n")
        try:
            header = json.loads(line)
            form, schema = header["format"], header["schema"]
            digest, length = header["sha256"], header["length"]
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError("the header is not that of a commit") from error
        if form != _FORMAT:
            raise StoreError(f"the header says {form!r}, expected {_FORMAT!r}")
        if schema != SCHEMA:
            raise _OtherSchemaError(
                f"schema {schema}, this version reads {SCHEMA}: update streammeta"
            )
        if len(body) != length:
            raise StoreError(f"{len(body)} bytes after the header, expected {length}")
        if sha256(body).hexdigest() != digest:
            raise StoreError("the SHA-256 does not match: the bytes have changed")
        text, _, image = body.partition(b"\n")
        rest = json.loads(text)
        outputs = [_output(row) for row in rest.pop("outputs")]
        return cls(snapshot=Snapshot.from_bytes(image), outputs=outputs, **rest)


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """What a commit file says of itself, and whether it is whole.

    ``time`` is that of the file, in seconds since 1970; ``model_schema`` that of the model's state;
    ``outputs`` counts those that the commit holds for its sinks; ``fault`` is empty, or says why
    the file cannot be used. What could not be read is 0 or empty.
    """

    shard: int
    epoch: int
    path: Path
    time: float
    size: int
    sha256: str = ""
    version: str = ""
    schema: int = 0
    model_schema: int = 0
    events: int = 0
    meta_version: int = 0
    position: dict[str, Any] = field(default_factory=dict)
    sinks: dict[str, dict[str, Any]] = field(default_factory=dict)
    outputs: int = 0
    tensors: int = 0
    fault: str = ""


class _OtherSchemaError(StoreError):
    """A commit of another version of streammeta: never taken for a damaged one."""


def _row(output: Output) -> dict[str, Any]:
    record = to_record(output)
    if record.get("probabilities") is not None:  # JSON keys are text: keep the labels' types
        record["probabilities"] = list(output.probabilities.items())  # type: ignore[union-attr]
    return record


def _output(record: dict[str, Any]) -> Output:
    kind = KINDS[record.pop("kind")]
    if record.get("probabilities") is not None:
        record["probabilities"] = dict(record["probabilities"])
    if record.get("explanation") is not None:
        record["explanation"] = Explanation.from_record(record["explanation"])
    output: Output = kind(**record)
    return output


class Store(Protocol):
    """Where commits are kept."""

    def latest(self, shard: int) -> CommitRecord | None:
        """The newest commit that is whole; ``None`` when there is none.

        Raises:
            StoreError: there are commits and not one of them can be read.
        """
        ...

    def commit(self, shard: int, epoch: int, record: CommitRecord) -> int:
        """Keep ``record`` under ``epoch`` if nobody has; returns its size in bytes.

        Raises:
            Fenced: this epoch or a later one exists: another owner holds the shard.
            StoreError: it cannot be written.
        """
        ...


class MemoryStore:
    """Commits in memory, as bytes: for tests and for runs that nobody resumes."""

    def __init__(self) -> None:
        self._commits: dict[int, dict[int, bytes]] = {}

    def latest(self, shard: int) -> CommitRecord | None:
        """The newest commit."""
        epochs = self._commits.get(shard)
        return CommitRecord.from_bytes(epochs[max(epochs)]) if epochs else None

    def commit(self, shard: int, epoch: int, record: CommitRecord) -> int:
        """Keep it; see ``Store.commit``."""
        epochs = self._commits.setdefault(shard, {})
        if epochs and max(epochs) >= epoch:
            raise Fenced(_fenced(shard, epoch, max(epochs)))
        data = record.to_bytes()
        epochs[epoch] = data
        for old in sorted(epochs)[:-KEPT]:
            del epochs[old]
        return len(data)


class LocalStore:
    """Commits as files ``shard-0000/000000000012.commit`` in a folder.

    A commit is written aside, fsynced and linked to its name: the link fails when the name is
    taken, so that of two owners exactly one wins an epoch. The newest three are kept.
    ``warnings`` lists what was found damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.warnings: list[str] = []
        self._claim: int | None = None

    def claim(self) -> None:
        """Say early and kindly that another process uses this folder.

        Only a courtesy: what protects the commits is fencing. Lasts until ``release``.

        Raises:
            StoreError: another process has claimed it.
        """
        self._make(self.folder)
        handle = os.open(self.folder / "claim", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise StoreError(
                f"{self.folder}: another process is using these checkpoints; stop it first, or "
                f"choose another folder"
            ) from error
        self._claim = handle

    def release(self) -> None:
        """Give the claim back."""
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def latest(self, shard: int) -> CommitRecord | None:
        """The newest whole commit; damaged newer ones are put aside as ``*.damaged``."""
        epochs = self.epochs(shard)
        for epoch in reversed(epochs):
            path = self._path(shard, epoch)
            try:
                record = CommitRecord.from_bytes(path.read_bytes())
            except _OtherSchemaError as error:
                raise StoreError(f"{path}: {error}") from error
            except StoreError as error:
                warning = f"{path}: damaged commit skipped: {error}"
                self.warnings.append(warning)
                _log.warning("damaged commit skipped", path=str(path), cause=str(error))
                continue
            for damaged in epochs[epochs.index(epoch) + 1 :]:
                # Its epoch must be free again, or the next commit would look fenced.
                name = self._path(shard, damaged)
                name.replace(name.with_suffix(".damaged"))
            return record
        if epochs:
            raise StoreError(
                f"{self.folder}: all {len(epochs)} commits of shard {shard} are damaged; "
                f"start fresh to begin from the first event"
            )
        return None

    def epochs(self, shard: int) -> list[int]:
        """The epochs on disk, ascending."""
        folder = self._shard(shard)
        if not folder.is_dir():
            return []
        found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def shards(self) -> list[int]:
        """The shards that have a folder here, ascending."""
        found = (_SHARD.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def inspect(self, shard: int, epoch: int) -> CommitInfo:
        """Read one commit to its last byte, change nothing, and say what it holds."""
        path = self._path(shard, epoch)
        stat = path.stat()
        info = CommitInfo(shard, epoch, path, stat.st_mtime, stat.st_size)
        try:
            data = path.read_bytes()
            header = json.loads(data.partition(b"\n")[0])
            info = replace(
                info,
                sha256=str(header["sha256"]),
                version=str(header.get("version", "")),
                schema=int(header["schema"]),
            )
            record = CommitRecord.from_bytes(data)
        except (OSError, ValueError, KeyError, TypeError) as error:
            return replace(info, fault=f"the header cannot be read: {error}")
        except StoreError as error:
            return replace(info, fault=str(error))
        return replace(
            info,
            model_schema=int(record.snapshot.info.get("schema", 0)),
            events=record.events,
            meta_version=record.meta_version,
            position=record.position,
            sinks=record.sinks,
            outputs=len(record.outputs),
            tensors=len(record.snapshot.tensors),
        )

    def commit(self, shard: int, epoch: int, record: CommitRecord) -> int:
        """Keep it under its epoch; see ``Store.commit``.

        1. write aside, fsync; 2. link to the epoch's name: taken = fenced; 3. a later epoch on
        disk = fenced too (old names are pruned, so that the link alone would let a frozen owner
        in); 4. fsync the folder; 5. prune.
        """
        folder = self._shard(shard)
        data = record.to_bytes()
        name = self._path(shard, epoch)
        aside = folder / f"{name.stem}.{uuid4().hex}.aside"
        try:
            self._make(folder)
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(aside, name)
            finally:
                aside.unlink(missing_ok=True)
            newest = max(self.epochs(shard))
            if newest > epoch:
                name.unlink()
                raise Fenced(_fenced(shard, epoch, newest))
            _fsync_folder(folder)
        except OSError as error:
            newest = max(self.epochs(shard), default=0)
            if newest >= epoch:
                raise Fenced(_fenced(shard, epoch, newest)) from error
            cause = errno.errorcode.get(error.errno or 0, "")
            raise StoreError(f"{name}: cannot be written: {error.strerror} {cause}") from error
        self._prune(shard, epoch)
        return len(data)

    def _prune(self, shard: int, epoch: int) -> None:
        for old in self.epochs(shard)[:-KEPT]:
            self._path(shard, old).unlink(missing_ok=True)
        for left in self._shard(shard).glob("*.aside"):  # by writers that were killed
            if int(left.name.partition(".")[0]) < epoch:
                left.unlink(missing_ok=True)

    def clear(self, shard: int) -> None:
        """Forget all commits of the shard (``--fresh``)."""
        for epoch in self.epochs(shard):
            self._path(shard, epoch).unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be made: {error.strerror}") from error

    def _shard(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:04d}"

    def _path(self, shard: int, epoch: int) -> Path:
        return self._shard(shard) / f"{epoch:012d}.commit"


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fenced(shard: int, epoch: int, newest: int) -> str:
    return (
        f"shard {shard}: epoch {epoch} cannot be committed, epoch {newest} exists: another owner "
        f"has taken over"
    )
