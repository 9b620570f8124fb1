"""CSV, JSON lines and Parquet files as sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path

from streammeta.errors import SourceError, UsageError
from streammeta.sources.csv_table import CsvTable
from streammeta.sources.jsonl_table import JsonlTable
from streammeta.sources.parquet_table import ParquetTable
from streammeta.sources.table_source import Table, TableSource

_FORMATS: dict[str, Callable[[Path], Table]] = {
    ".csv": CsvTable,
    ".tsv": CsvTable,
    ".txt": CsvTable,
    ".data": CsvTable,
    ".jsonl": JsonlTable,
    ".ndjson": JsonlTable,
    ".parquet": ParquetTable,
    ".pq": ParquetTable,
}


class FileSource(TableSource):
    """A file of rows: ``.csv``, ``.tsv``, ``.jsonl``, ``.ndjson`` (also ``.gz``), ``.parquet``.

    Args:
        path: the file.
        target: the column to predict; in a file of event envelopes ``None`` means their ``y``.
            ``None`` elsewhere: questions without labels.
        time: column with epoch times (s, ms, us, ns) or dates; becomes ``Event.ts``.
        key: column that names the stream a row belongs to; becomes ``Event.key``.
        id: column with the rows' own ids; otherwise ``name:0:row`` counting rows from 0.
        ignore: columns that are left out.
        horizon: 0, or predict the target this many rows ahead (see ``labels.at_horizon``).
        label_delay: questions that pass before a label arrives (see ``labels.delayed``).
        rows: read at most this many rows.
        name: the first part of the ids; the file's name by default.

    Raises:
        SourceError: the file is missing, empty or damaged.
        UsageError: a column is not in the file, or the suffix is unknown.
    """

    what = "file"

    def __init__(
        self,
        path: str | Path,
        *,
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the name of the flag and of the field
        ignore: Sequence[str] = (),
        horizon: int = 0,
        label_delay: int = 0,
        rows: int | None = None,
        name: str | None = None,
    ) -> None:
        self.path = Path(path)
        super().__init__(
            str(path),
            name or self.path.name,
            target=target,
            time=time,
            key=key,
            id=id,
            ignore=ignore,
            horizon=horizon,
            label_delay=label_delay,
            rows=rows,
        )
        self._of = self.path.name  # a commit in another file is not gone on with

    def _open(self) -> Table:
        return _open_table(self.path)


def is_table(path: Path) -> bool:
    """Whether the name is that of a file of rows; nothing is opened."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    return plain.suffix.lower() in _FORMATS


def _open_table(path: Path) -> Table:
    suffix = path.suffix if path.suffix != ".gz" else path.with_suffix("").suffix
    if not path.exists():
        raise SourceError(f"{path}: no such file{_similar(path)}")
    if path.is_dir():
        raise SourceError(f"{path}: is a folder, expected a file")
    table = _FORMATS.get(suffix.lower())
    if table is None or (table is ParquetTable and path.suffix == ".gz"):
        known = ", ".join(s for s in _FORMATS if s not in (".parquet", ".pq"))
        raise UsageError(
            f"{path}: unknown kind of file {path.suffix!r}; "
            f"known: {known} (each also with .gz), .parquet, .pq"
        )
    return table(path)


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (there is no folder {path.parent} either)"
    near = get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3, cutoff=0.5)
    return f"; the folder has {', '.join(near)}" if near else f" in {path.parent.resolve()}"
