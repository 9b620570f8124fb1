"""CSV files, plain or gzipped, with a header line."""

from __future__ import annotations

import codecs
import csv
import gzip
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from math import isfinite
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO, cast

from streammeta.errors import RejectedEvent, SourceError, UsageError
from streammeta.events import Event, Value
from streammeta.sources.cells import MISSING
from streammeta.sources.columns import TEXT, Kind, category, label, sniff_text
from streammeta.sources.plan import Plan

DELIMITERS = ",;\t|"
SNIFFED_LINES = 50  # lines that decide the delimiter and the decimal sign
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*")
_DECIMAL_POINT = re.compile(r"\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*")
_THOUSANDS = re.compile(r"\s*[+-]?\d{1,3}(,\d{3})+\s*")


def open_text(path: Path) -> TextIO:
    """The file as text: UTF-8 or, where its first bytes say so, UTF-16.

    Bytes that are not UTF-8 are kept readable as ``\\xff``.

    Raises:
        SourceError: the file cannot be opened.
    """
    how: dict[str, Any] = {"errors": "backslashreplace", "newline": ""}
    opened: Any = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            how["encoding"] = "utf-16" if _first_bytes(file) in _UTF16 else "utf-8-sig"
        return cast(TextIO, opened(path, "rt", **how))
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened: {error.strerror or error}") from error


def _first_bytes(file: Any) -> bytes:
    try:
        return cast(bytes, file.read(2))
    except (OSError, EOFError, zlib.error):
        return b""  # damaged: whoever reads the lines says where


def lines_of(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of the file; a truncated or damaged file is a ``SourceError`` where it breaks."""
    n = 0
    try:
        for line in file:
            n += 1
            yield line
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path}: unreadable after line {n}: {error}") from error


class CsvTable:
    """One CSV file. The delimiter is found among ``, ; tab |``, and so is a decimal comma."""

    typed = False

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_text(path) as file:
            lines = list(islice(lines_of(path, file), SNIFFED_LINES))
        self.delimiter = sniff_delimiter(lines)
        records = [_cells(line, self.delimiter) for line in lines]
        names = records[0] if records else []
        self.decimal_comma = self.delimiter != "," and has_decimal_comma(records[1:])
        self.columns = [name.strip() for name in names]
        if not any(self.columns):
            raise SourceError(
                f"{path}: the file is empty, expected a header line with column names"
            )
        twice = sorted({n for n in self.columns if self.columns.count(n) > 1})
        if twice:
            raise UsageError(f"{path}: column {twice[0]!r} is in the header more than once")

    def sample(self, n: int) -> list[dict[str, Any]]:
        """The first ``n`` rows that have the right number of fields."""
        width = len(self.columns)
        rows: list[dict[str, Any]] = []
        with open_text(self.path) as file:
            reader = csv.reader(
                islice(lines_of(self.path, file), 1, None), delimiter=self.delimiter
            )
            while len(rows) < n:
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except csv.Error:
                    continue
                if len(cells) == width:
                    cells = self._pointed(cells)
                    rows.append(dict(zip(self.columns, cells, strict=True)))
        return rows

    def kind(self, values: list[Any]) -> Kind:
        """The kind of a column by its sniffed cells."""
        return sniff_text(values)

    def _pointed(self, cells: list[str]) -> list[str]:
        """The cells with decimal points, where the file has decimal commas."""
        if not self.decimal_comma:
            return cells
        return [c.replace(",", ".") if _DECIMAL_COMMA.fullmatch(c) else c for c in cells]

    def events(self, plan: Plan, skip: int) -> Iterator[Event]:
        """One event per row, from row ``skip`` on.

        A record that runs over several lines and does not fit is taken for a quote that never
        closes: its first line is rejected and reading goes on with the second.
        """
        convert = _converter(plan, self.columns)
        with open_text(self.path) as file:
            lines = islice(lines_of(self.path, file), 1, None)
            tape: list[str] = []
            pushed: deque[str] = deque()
            reader = csv.reader(_taped(lines, pushed, tape), delimiter=self.delimiter)
            offset, line = 0, 1
            while True:
                tape.clear()
                problem = ""
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    cells, problem = [], str(error)
                span = len(tape)
                first, line = line + 1, line + span
                if not cells and not problem:
                    continue  # a blank line
                if offset < skip and span == 1:
                    offset += 1
                    continue
                if problem:
                    event = plan.rejected(offset, f"line {first}", "malformed", problem)
                else:
                    event = convert(self._pointed(cells), offset, first)
                if event.error is not None and span > 1:
                    detail = "a quote opens here and does not close on this line"
                    event = plan.rejected(offset, f"line {first}", "malformed", detail)
                    pushed.extendleft(reversed(tape[1:]))
                    line = first
                    reader = csv.reader(_taped(lines, pushed, tape), delimiter=self.delimiter)
                offset += 1
                if offset > skip:
                    yield event


def sniff_delimiter(lines: list[str]) -> str:
    """The delimiter with which most lines have as many fields as the header, and more than one.

    >>> sniff_delimiter(["day;temp, C;y", "1;2,5;0", "2;3,5;1"]), sniff_delimiter(["a,b", "1,2|3"])
    (';', ',')
    """

    def fit(delimiter: str) -> tuple[bool, float, int]:
        widths = [len(_cells(line, delimiter)) for line in lines if line.strip()]
        if not widths:
            return False, 0.0, 0
        return widths[0] > 1, widths.count(widths[0]) / len(widths), widths[0]

    return max(DELIMITERS, key=fit)


def has_decimal_comma(records: list[list[str]]) -> bool:
    """True when numbers are written ``2,5``; ``1,500`` alone may as well be thousands.

    >>> has_decimal_comma([["2,5", "x"]]), has_decimal_comma([["1,500"]])
    (True, False)
    """
    cells = [cell for record in records for cell in record]
    commas = [cell for cell in cells if _DECIMAL_COMMA.fullmatch(cell)]
    thousands = all(_THOUSANDS.fullmatch(cell) for cell in commas)
    return not thousands and not any(_DECIMAL_POINT.fullmatch(cell) for cell in cells)


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def _taped(lines: Iterator[str], pushed: deque[str], tape: list[str]) -> Iterator[str]:
    """The lines put back, then those of the file; every line handed out is noted on the tape."""
    while True:
        while pushed:
            line = pushed.popleft()
            tape.append(line)
            yield line
        for line in lines:
            tape.append(line)
            yield line
            if pushed:
                break
        else:
            if not pushed:
                return


def _pick(indices: list[int]) -> Callable[[list[str]], tuple[str, ...]]:
    if len(indices) > 1:
        return cast(Callable[[list[str]], tuple[str, ...]], itemgetter(*indices))
    if indices:
        only = indices[0]
        return lambda cells: (cells[only],)
    return lambda cells: ()


def _converter(plan: Plan, columns: list[str]) -> Callable[[list[str], int, int], Event]:
    """``convert(cells, offset, line)``; all that depends on the columns is done here, once."""
    at = {name: i for i, name in enumerate(columns)}
    numeric = [n for n in plan.kinds if plan.kinds[n] in ("number", "integer")]
    parsers = {n: plan.clocks[n].seconds if k == "time" else TEXT[k] for n, k in plan.kinds.items()}
    others = [(n, at[n], parsers[n]) for n in plan.kinds if n not in numeric]
    numbers = _pick([at[n] for n in numeric])
    width, prefix, label_kind = len(columns), f"{plan.name}:0:", plan.label_kind
    target, needs_label = plan.target, plan.needs_label
    target_at = at[target] if target is not None else -1
    key_at = at[plan.key] if plan.key else -1
    time_at = at[plan.time] if plan.time else -1
    seconds = plan.clocks[plan.time].seconds if plan.time else None
    id_at = at[plan.id] if plan.id else -1

    def fault(offset: int, line: int, column: str | None, error: RejectedEvent) -> Event:
        text = f"column {column!r} {error.detail}"
        return plan.rejected(offset, f"line {line}", error.reason, text)

    def convert(cells: list[str], offset: int, line: int) -> Event:
        if len(cells) != width:
            text = f"{len(cells)} fields, expected {width} like the header"
            return plan.rejected(offset, f"line {line}", "malformed", text)
        x: dict[str, Value]
        try:
            # The fast path: all cells parse, and a finite sum says that none is nan or inf.
            floats = list(map(float, numbers(cells)))
            whole = isfinite(sum(floats))
        except ValueError:
            whole = False
        column: str | None = None
        try:
            if whole:
                x = dict(zip(numeric, floats, strict=True))
            else:
                x = {}
                for column in numeric:
                    x[column] = TEXT["number"](cells[at[column]])
            for column, i, parse in others:
                x[column] = parse(cells[i])
            column, y, ts, key = target, None, None, ""
            if target_at >= 0:
                y = label(cells[target_at], label_kind)
                if y is None and needs_label:
                    text = f"target column {target!r} is empty"
                    return plan.rejected(offset, f"line {line}", "missing_target", text)
            if seconds is not None:
                column = plan.time
                ts = seconds(cells[time_at])
        except RejectedEvent as error:
            return fault(offset, line, column, error)
        if key_at >= 0:
            key = category(cells[key_at]) or ""
        if id_at >= 0 and (own := cells[id_at].strip()) not in MISSING:
            return Event(own, x, y, key, ts)
        return Event(f"{prefix}{offset}", x, y, key, ts)

    return convert
