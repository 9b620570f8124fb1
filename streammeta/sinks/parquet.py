"""Outputs as Parquet files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from streammeta.errors import SinkError, UsageError
from streammeta.events import KINDS, Output, to_record
from streammeta.sinks.base import Position
from streammeta.sinks.jsonl import kept

_PART = re.compile(r"part-(\d{12})-(\d{12})\.parquet")
_WHOLE = ("row", "onset", "segment", "rows", "support", "update", "tasks", "skipped", "delay")
_REAL = (
    "ts", "loss", "log_loss", "loss_before", "loss_after", "gradient_norm", "delay_seconds",
    "frozen_loss",
)  # fmt: skip
_LABELS = ("prediction", "truth")
_MAPS = ("probabilities", "experts")


class ParquetSink:
    """A folder per kind of output (``predicted/``, ``scored/``, ...), a file per commit in it.

    A part is named for the records it covers, ``part-FIRST-END.parquet``, written aside, synced and
    renamed: readers see whole parts only. Opening at an earlier position removes the parts after
    it and cuts the one that it lies in, so that after a crash every record is there once.

    Columns are the fields of the output and ``record``, its number over all kinds. A label is a
    number in ``prediction`` and ``truth`` and a text in ``prediction_text`` and ``truth_text``,
    so that all parts have one schema; probabilities and losses of experts are maps, an explanation
    is JSON text. Needs pyarrow: ``pip install streammeta[parquet]``.

    Args:
        path: the folder; made when missing.
        kinds: names of the outputs to keep; all by default.
        rows_per_part: records after which a part is written though no commit has come; until then
            records wait in memory.
    """

    durable = True

    def __init__(
        self,
        path: str | Path,
        kinds: Sequence[str] | None = None,
        *,
        rows_per_part: Annotated[int, Field(ge=1)] = 100_000,
    ) -> None:
        self.path = Path(path)
        self.name = self.path.name
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise UsageError(
                f"{self.path}: writing Parquet needs pyarrow: pip install streammeta[parquet]"
            ) from error
        self._arrow: Any = pyarrow
        self._parquet: Any = parquet
        self._kinds = kept(kinds)
        self._rows_per_part = rows_per_part
        self._waiting: dict[str, list[dict[str, Any]]] = {}
        self._first = 0  # record at which the part in memory begins
        self._records = 0
        self._is_open = False

    def check(self) -> None:
        """Make the folder and see that a file can be made in it."""
        aside = self.path / ".check.aside"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            aside.touch()
            aside.unlink()
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be written: {error.strerror}") from error

    def open(self, resume_at: Position | None) -> None:
        """Begin with no parts, or remove and cut what came after ``resume_at``.

        Raises:
            SinkError: the folder cannot be used, or its parts end before ``resume_at``.
        """
        records = 0 if resume_at is None else int(resume_at["records"])
        self.check()
        try:
            for kind in KINDS:
                for aside in (self.path / kind).glob("*.aside"):  # of writers that were killed
                    aside.unlink()
            parts = list(self._parts())
            found = max((end for _, _, end in parts), default=0)
            if found < records:
                raise SinkError(
                    f"{self.path}: has {found} records, the commit knows {records}: were parts "
                    f"removed since? Start fresh, or put them back"
                )
            for part, first, end in parts:
                if first >= records:
                    part.unlink()
                elif end > records:
                    self._cut(part, first, records)
        except OSError as error:
            raise SinkError(f"{self.path}: cannot be opened: {error.strerror}") from error
        self._first = self._records = records
        self._waiting = {}
        self._is_open = True

    def write(self, outputs: Sequence[Output]) -> int:
        """Take the outputs of the kinds that are kept; returns how many."""
        self._demand_open()
        before = self._records
        for output in outputs:
            if isinstance(output, self._kinds):
                record = to_record(output)
                rows = self._waiting.setdefault(record.pop("kind"), [])
                rows.append({"record": self._records, **_row(record)})
                self._records += 1
                if self._records - self._first >= self._rows_per_part:
                    self.flush()
        return self._records - before

    def position(self) -> Position:
        """The number of records once all parts are written."""
        return {"records": self._records}

    def flush(self) -> None:
        """Write what waits as one part per kind, and sync it."""
        self._demand_open()
        for kind, rows in self._waiting.items():
            table = self._arrow.Table.from_pylist(rows, schema=self._schema(kind))
            name = f"part-{self._first:012d}-{self._records:012d}.parquet"
            self._put(table, self.path / kind / name)
        self._waiting, self._first = {}, self._records

    def close(self) -> None:
        """Flush; closing twice is fine."""
        if self._is_open:
            self.flush()
            self._is_open = False

    def _parts(self) -> Iterator[tuple[Path, int, int]]:
        for kind in KINDS:
            for part in sorted((self.path / kind).glob("part-*.parquet")):
                if match := _PART.fullmatch(part.name):
                    yield part, int(match[1]), int(match[2])

    def _cut(self, part: Path, first: int, records: int) -> None:
        try:
            table = self._parquet.read_table(part, partitioning=None)
        except (self._arrow.ArrowException, OSError) as error:
            raise SinkError(f"{part}: unreadable: {error}") from error
        rows = table.filter(self._arrow.compute.field("record") < records)
        self._put(rows, part.with_name(f"part-{first:012d}-{records:012d}.parquet"))
        part.unlink()

    def _put(self, table: Any, part: Path) -> None:
        """Aside, synced, renamed; then the folder is synced, which holds the name."""
        aside = part.with_suffix(".aside")
        try:
            part.parent.mkdir(exist_ok=True)
            with open(aside, "wb") as file:
                self._parquet.write_table(table, file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(part)
            folder = os.open(part.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except (self._arrow.ArrowException, OSError) as error:
            raise SinkError(f"{part}: cannot be written: {error}") from error

    def _schema(self, kind: str) -> Any:
        arrow = self._arrow
        fields = [("record", arrow.int64())]
        for name in KINDS[kind].__dataclass_fields__:
            if name in _LABELS:
                fields += [(name, arrow.float64()), (f"{name}_text", arrow.string())]
            elif name in _MAPS:
                fields.append((name, arrow.map_(arrow.string(), arrow.float64())))
            else:
                whole = arrow.int64() if name in _WHOLE else arrow.string()
                fields.append((name, arrow.float64() if name in _REAL else whole))
        return arrow.schema(fields)

    def _demand_open(self) -> None:
        if not self._is_open:
            raise SinkError(f"{self.path}: is not open")


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, value in record.items():
        if name in _LABELS:
            text = isinstance(value, str)
            row[name] = None if value is None or text else float(value)
            row[f"{name}_text"] = value if text else None
        elif name in _MAPS and value is not None:
            row[name] = [(key, float(number)) for key, number in value.items()]
        elif name == "explanation" and value is not None:
            row[name] = json.dumps(value)
        else:
            row[name] = value
    return row
