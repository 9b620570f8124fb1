"""Outputs as rows of an SQLite database."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from streammeta.errors import SinkError
from streammeta.events import KINDS, Output
from streammeta.sinks.base import Position
from streammeta.sinks.jsonl import kept, to_line

SCHEMA = 2
BUSY = 5.0  # seconds to wait for another writer of the same file

_NUMBERS = ("row", "onset", "segment", "rows", "support", "update", "tasks", "skipped", "delay")
_REALS = (
    "ts", "loss", "log_loss", "loss_before", "loss_after", "gradient_norm", "delay_seconds",
    "frozen_loss",
)  # fmt: skip
_ANY = ("prediction", "truth")  # a label keeps its type: number, text, or 0 and 1
_ONCE = ("predicted", "scored", "label_expired")  # one record per question: the id is the key


class SqliteSink:
    """One table per kind of output, one row per record: ``predicted``, ``scored``, ...

    Columns are the fields of the output and ``record``, its number over all kinds; dictionaries
    are JSON text. In ``predicted``, ``scored`` and ``label_expired`` the id is the primary key and
    a record that comes again takes the place of the one before. Everything between two commits is
    one transaction, synced when it ends, so that a crash leaves whole commits only; opening at an
    earlier position takes back the rows after it. Others may read the file meanwhile (WAL).

    >>> import tempfile
    >>> from streammeta.events import Predicted
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     sink = SqliteSink(f"{folder}/out.db")
    ...     sink.open(None)
    ...     taken = sink.write([Predicted("f:0:0", "", 0, None, "yes", {"yes": 0.75})])
    ...     sink.close()
    ...     db = sqlite3.connect(f"{folder}/out.db")
    ...     db.execute("SELECT id, prediction, probabilities FROM predicted").fetchall()
    ...     db.close()
    [('f:0:0', 'yes', '{"yes":0.75}')]

    Args:
        path: the file; its folder is made when missing.
        kinds: names of the outputs to keep; all by default.
    """

    durable = True

    def __init__(self, path: str | Path, kinds: Sequence[str] | None = None) -> None:
        self.path = Path(path)
        self.name = self.path.name
        self._kinds = kept(kinds)
        self._db: sqlite3.Connection | None = None
        self._records = 0

    def check(self) -> None:
        """Open the file as it is and read whose it is; a file that is missing is left missing."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be opened: {error.strerror}") from error
        there = self.path.exists()
        db = self._connect()
        try:
            self._known(db)
        finally:
            db.close()
            if not there:
                self.path.unlink(missing_ok=True)

    def open(self, resume_at: Position | None) -> None:
        """Begin with empty tables, or take back the rows after ``resume_at``.

        Raises:
            SinkError: no database, somebody else's, in use by another writer, or it ends before
                ``resume_at``.
        """
        self.close()
        records = 0 if resume_at is None else int(resume_at["records"])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be opened: {error.strerror}") from error
        db = self._connect()
        try:
            found = self._known(db)
            if found < records:
                raise SinkError(
                    f"{self.path}: has {found} records, the commit knows {records}: was it "
                    f"changed or removed since? Start fresh, or put the file back"
                )
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("BEGIN IMMEDIATE")
            for kind in KINDS:
                db.execute(_table(kind))
                db.execute(f"DELETE FROM {kind} WHERE record >= ?", (records,))
            db.execute("CREATE TABLE IF NOT EXISTS streammeta (schema INTEGER, records INTEGER)")
            db.execute("DELETE FROM streammeta")
            db.execute("INSERT INTO streammeta VALUES (?, ?)", (SCHEMA, records))
            db.execute("COMMIT")
        except sqlite3.Error as error:
            db.close()
            raise SinkError(f"{self.path}: cannot be opened: {error}") from error
        except SinkError:
            db.close()
            raise
        self._db, self._records = db, records

    def write(self, outputs: Sequence[Output]) -> int:
        """Insert the outputs of the kinds that are kept; returns how many."""
        db = self._open()
        rows: dict[str, list[tuple[Any, ...]]] = {}
        records = self._records
        for output in outputs:
            if isinstance(output, self._kinds):
                record = json.loads(to_line(output))  # numbers that are not finite become null
                kind = record.pop("kind")
                values = tuple(_cell(record.get(name)) for name in _columns(kind))
                rows.setdefault(kind, []).append((records, *values))
                records += 1
        try:
            if rows and not db.in_transaction:
                db.execute("BEGIN IMMEDIATE")
            for kind, of_kind in rows.items():
                marks = ", ".join("?" * len(of_kind[0]))
                db.executemany(f"INSERT OR REPLACE INTO {kind} VALUES ({marks})", of_kind)
        except sqlite3.Error as error:
            raise SinkError(f"{self.path}: cannot be written: {error}") from error
        taken = records - self._records
        self._records = records
        return taken

    def position(self) -> Position:
        """The number of records once all writes have arrived."""
        return {"records": self._records}

    def flush(self) -> None:
        """End the transaction: its rows are on the disk and can be read by others."""
        db = self._open()
        try:
            if db.in_transaction:
                db.execute("UPDATE streammeta SET records = ?", (self._records,))
                db.execute("COMMIT")
        except sqlite3.Error as error:
            raise SinkError(f"{self.path}: cannot be written: {error}") from error

    def close(self) -> None:
        """Flush and close; closing twice is fine."""
        if self._db is not None:
            try:
                self.flush()
            finally:
                self._db.close()
                self._db = None

    def _connect(self) -> sqlite3.Connection:
        try:
            return sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
        except sqlite3.Error as error:
            raise SinkError(f"{self.path}: cannot be opened: {error}") from error

    def _known(self, db: sqlite3.Connection) -> int:
        """The number of records in a database that is empty or ours."""
        try:
            names = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
            if "streammeta" in names:
                schema, records = db.execute("SELECT schema, records FROM streammeta").fetchone()
                if schema != SCHEMA:
                    raise SinkError(
                        f"{self.path}: tables of schema {schema}, this version writes {SCHEMA}"
                    )
                return int(records)
        except sqlite3.Error as error:
            raise SinkError(f"{self.path}: cannot be opened: {error}") from error
        taken = sorted(names & KINDS.keys())
        if taken:
            raise SinkError(
                f"{self.path}: has a table {taken[0]!r} that this sink did not make; choose a file "
                f"of its own"
            )
        return 0

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise SinkError(f"{self.path}: is not open")
        return self._db


def _columns(kind: str) -> list[str]:
    return list(KINDS[kind].__dataclass_fields__)


def _table(kind: str) -> str:
    once = kind in _ONCE
    columns = ["record INTEGER NOT NULL" + ("" if once else " PRIMARY KEY")]
    for name in _columns(kind):
        of = "INTEGER" if name in _NUMBERS else "REAL" if name in _REALS else "TEXT"
        end = " PRIMARY KEY" if once and name == "id" else ""
        columns.append(f'"{name}" {"" if name in _ANY else of}{end}')
    return f"CREATE TABLE IF NOT EXISTS {kind} ({', '.join(columns)})"


def _cell(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)  # SQLite has no such numbers
    return value
