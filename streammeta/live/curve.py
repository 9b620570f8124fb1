"""A curve over the rows of a stream that never takes more than a fixed number of points."""

from __future__ import annotations

from typing import NamedTuple


class Points(NamedTuple):
    """``rows``: the middle of each point's rows; ``values``: the means over them."""

    rows: tuple[float, ...]
    values: tuple[float, ...]


class Curve:
    """Means over bins of equally many rows; when ``most`` bins are full, every two become one.

    So a million rows take as much room as a thousand, and every value has been counted. Values may
    come in any order of rows, as late labels do. The bins of two curves with the same ``most`` and
    ``width`` that have seen the same rows are the same.

    >>> curve = Curve(most=4, width=1)
    >>> for row in range(8):
    ...     curve.add(row, float(row))
    >>> curve.points()
    Points(rows=(0.5, 2.5, 4.5, 6.5), values=(0.5, 2.5, 4.5, 6.5))
    """

    __slots__ = ("_counts", "_most", "_sums", "width")

    def __init__(self, most: int = 200, width: int = 16) -> None:
        if most < 2 or most % 2 or width < 1:
            raise ValueError(f"most is {most} and width {width}: even, and at least 2 and 1")
        self.width = width  # rows of a bin
        self._most = most
        self._sums: list[float] = []
        self._counts: list[int] = []

    def add(self, row: int, value: float) -> None:
        """Count ``value`` at ``row``, from 0 on."""
        place = row // self.width
        while place >= self._most:
            self._halve()
            place = row // self.width
        missing = place + 1 - len(self._counts)
        if missing > 0:
            self._sums += [0.0] * missing
            self._counts += [0] * missing
        self._sums[place] += value
        self._counts[place] += 1

    def at(self) -> dict[int, float]:
        """The mean of every bin that has values, by the bin's number."""
        filled = enumerate(zip(self._sums, self._counts, strict=True))
        return {i: total / count for i, (total, count) in filled if count}

    def points(self, window: int = 0) -> Points:
        """Every bin that has values; each the mean over the bins of the last ``window`` rows."""
        reach = max(1, window // self.width)
        rows, values = [], []
        total, count = 0.0, 0
        for i, (added, n) in enumerate(zip(self._sums, self._counts, strict=True)):
            total, count = total + added, count + n
            if i >= reach:
                total, count = total - self._sums[i - reach], count - self._counts[i - reach]
            if n:
                rows.append((i + 0.5) * self.width - 0.5)
                values.append(total / count)
        return Points(tuple(rows), tuple(values))

    def _halve(self) -> None:
        self.width *= 2
        self._sums = [sum(self._sums[i : i + 2]) for i in range(0, len(self._sums), 2)]
        self._counts = [sum(self._counts[i : i + 2]) for i in range(0, len(self._counts), 2)]
