"""A table in memory as a source: a pandas frame, or whatever speaks Arrow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources.columns import Kind, sniff_values
from streammeta.sources.plan import Plan
from streammeta.sources.table_source import Table, TableSource

if TYPE_CHECKING:
    from pandas import DataFrame

_BATCH = 4096  # rows turned into Python objects at a time


class FrameSource(TableSource):
    """The rows of a table, in their order; a position is a number of rows.

    ``frame`` is a ``pandas.DataFrame``, a ``pyarrow.Table`` or ``RecordBatch``, any other object
    with the Arrow stream interface (Polars, DuckDB, ...), or a function that gives one of these:
    it is called again for every pass, so that a ``pyarrow.RecordBatchReader`` over more than fits
    into memory can be read. A reader by itself can be read once, and is taken into memory.

    Levels of a pandas index are left out, unless ``time``, ``key``, ``id`` or ``target`` names
    one. The table must not change while it is read.

    >>> import pandas as pd
    >>> frame = pd.DataFrame({"temp": [3.5, 21.0], "day": ["mon", None], "sold": [2, 5]})
    >>> events, position = FrameSource(frame, target="sold").read({"emitted": 1}, 10)
    >>> events[0].id, events[0].x, events[0].y, position
    ('frame:0:1', {'temp': 21.0, 'day': None}, 5, {'emitted': 2})

    Args:
        frame: the table.
        target: the column to predict; ``None``: questions without labels.
        time: column with epoch times (s, ms, us, ns) or dates; becomes ``Event.ts``.
        key: column that names the stream a row belongs to; becomes ``Event.key``.
        id: column with the rows' own ids; otherwise ``name:0:row`` counting rows from 0.
        ignore: columns that are left out.
        horizon: 0, or predict the target this many rows ahead (see ``labels.at_horizon``).
        label_delay: questions that pass before a label arrives (see ``labels.delayed``).
        rows: read at most this many rows.
        name: the first part of the ids.

    Raises:
        SourceError: the table has no rows.
        UsageError: it is no table, a column is not in it, or two columns have one name.
    """

    def __init__(
        self,
        frame: Any,
        *,
        target: str | None = None,
        time: str | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - as in ``FileSource``
        ignore: Sequence[str] = (),
        horizon: int = 0,
        label_delay: int = 0,
        rows: int | None = None,
        name: str = "frame",
    ) -> None:
        super().__init__(
            name,
            name,
            target=target,
            time=time,
            key=key,
            id=id,
            ignore=ignore,
            horizon=horizon,
            label_delay=label_delay,
            rows=rows,
        )
        if _is_reader(frame):
            frame = frame.read_all()
        self._make: Callable[[], Any] = frame if callable(frame) else lambda: frame

    def _open(self) -> Table:
        named = {n for n in (self.target, self.time, self.key, self.id) if n is not None}
        return _FrameTable(self.name, self._make, named)


class _FrameTable:
    """Any frame as batches of columns of plain Python values."""

    def __init__(self, name: str, make: Callable[[], Any], named: set[str]) -> None:
        self._name, self._make, self._named = name, make, named
        first = next((batch for batch in self._batches(1) if any(batch.values())), None)
        if first is None:
            raise SourceError(f"{name}: the table is empty: no rows")
        self.columns = list(first)

    def sample(self, n: int) -> list[dict[str, Any]]:
        """The first ``n`` rows."""
        return [row for row, _ in zip(self._rows(0, min(n, _BATCH)), range(n), strict=False)]

    def kind(self, values: list[Any]) -> Kind:
        """The kind of a column by its sniffed values."""
        return sniff_values(values)

    def events(self, plan: Plan, skip: int) -> Iterator[Event]:
        """One event per row, from row ``skip`` on; messages count rows from 0, as frames do."""
        for offset, row in enumerate(self._rows(skip, _BATCH), skip):
            yield plan.record(offset, f"row {offset}", row)

    def _rows(self, skip: int, size: int) -> Iterator[dict[str, Any]]:
        for batch in self._batches(size, skip):
            names = list(batch)
            for cells in zip(*batch.values(), strict=True):
                yield dict(zip(names, cells, strict=True))

    def _batches(self, size: int, skip: int = 0) -> Iterator[dict[str, list[Any]]]:
        frame = self._make()
        if _is_pandas(frame):
            return _pandas_batches(self._name, frame, self._named, size, skip)
        return _arrow_batches(self._name, frame, size, skip)


def _is_pandas(frame: Any) -> bool:
    import pandas as pd

    return isinstance(frame, pd.DataFrame)


def _is_reader(frame: Any) -> bool:
    """Whether it can be read only once; nobody has made one without pyarrow."""
    return hasattr(frame, "read_next_batch") and hasattr(frame, "read_all")


def _pandas_batches(
    name: str, frame: DataFrame, named: set[str], size: int, skip: int
) -> Iterator[dict[str, list[Any]]]:
    levels = [level for level in frame.index.names if level is not None and level in named]
    if levels:
        others = [level for level in frame.index.names if level not in levels]
        frame = frame.reset_index(levels).reset_index(drop=True) if others else frame.reset_index()
    columns = _distinct(name, [str(column) for column in frame.columns])
    for begin in range(skip, len(frame), size):
        part = frame.iloc[begin : begin + size]
        cells = (part.iloc[:, i] for i in range(len(columns)))
        plain = (cell.astype(object).where(cell.notna(), None).tolist() for cell in cells)
        yield dict(zip(columns, plain, strict=True))


def _arrow_batches(name: str, frame: Any, size: int, skip: int) -> Iterator[dict[str, list[Any]]]:
    if not hasattr(frame, "__arrow_c_stream__") and not hasattr(frame, "__arrow_c_array__"):
        raise UsageError(
            f"{name}: is a {type(frame).__name__}, expected a pandas frame, an Arrow table, or a "
            f"function that gives one"
        )
    try:
        import pyarrow as pa
    except ImportError as error:
        raise UsageError(
            f"{name}: Arrow tables need pyarrow: pip install streammeta[parquet]"
        ) from error
    if not hasattr(frame, "__arrow_c_stream__"):
        frame = pa.Table.from_batches([pa.record_batch(frame)])
    with pa.RecordBatchReader.from_stream(frame) as reader:
        _distinct(name, list(reader.schema.names))
        for batch in reader:
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            batch, skip = batch.slice(skip), 0
            for begin in range(0, batch.num_rows, size):
                yield batch.slice(begin, size).to_pydict()


def _distinct(name: str, columns: list[str]) -> list[str]:
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise UsageError(f"{name}: two columns are called {twice[0]!r}")
    return columns
