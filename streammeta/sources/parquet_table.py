"""Parquet files, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.columns import Kind, sniff_values
from streammeta.sources.plan import Plan

_BATCH = 4096  # rows turned into Python objects at a time


class ParquetTable:
    """One Parquet file. Needs pyarrow: ``pip install streammeta[parquet]``."""

    typed = True

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise UsageError(
                f"{path}: reading Parquet needs pyarrow: pip install streammeta[parquet]"
            ) from error
        self.path = path
        self._open: Any = ParquetFile
        self._errors: tuple[type[Exception], ...] = (ArrowException, OSError)
        try:
            with ParquetFile(path) as file:
                self.columns: list[str] = list(file.schema_arrow.names)
                self.rows: int = file.metadata.num_rows
        except self._errors as error:
            raise SourceError(f"{path}: not a Parquet file: {error}") from error
        if not self.columns or not self.rows:
            raise SourceError(f"{path}: the file is empty: no rows")

    def _rows(self, skip: int = 0) -> Iterator[dict[str, Any]]:
        try:
            with self._open(self.path) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    if skip >= batch.num_rows:
                        skip -= batch.num_rows
                        continue
                    yield from batch.slice(skip).to_pylist()
                    skip = 0
        except self._errors as error:
            raise SourceError(f"{self.path}: unreadable: {error}") from error

    def sample(self, n: int) -> list[dict[str, Any]]:
        """The first ``n`` rows."""
        return [row for row, _ in zip(self._rows(), range(n), strict=False)]

    def kind(self, values: list[Any]) -> Kind:
        """The kind of a column by its sniffed values."""
        return sniff_values(values)

    def events(self, plan: Plan, skip: int) -> Iterator[Event]:
        """One event per row, from row ``skip`` on; messages count rows from 1."""
        for offset, row in enumerate(self._rows(skip), skip):
            yield plan.record(offset, f"row {offset + 1}", row)
