"""Data sets of River as scenarios: ``river:Phishing``, ``river:Insects@gradual_balanced``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from inspect import signature
from itertools import islice
from typing import Any
from warnings import catch_warnings, simplefilter

from scenarios.data_sets import licence_of, sha256
from scenarios.scenario import Card, Scenario
from streammeta.errors import SourceError, UsageError
from streammeta.events import Event, Label, Value


class RiverStream(Scenario):
    """A data set of River by its class name, after ``@`` its variant where it has some.

    Texts stay texts. The first column of dates becomes the event time, and every date a feature
    in seconds since 1970; without one a row is a second.

    Raises:
        UsageError: River has no such data set or variant, or it has several targets at once.
        SourceError: it has to be downloaded first.
    """

    def __init__(self, name: str, seed: int = 0, rows: int | None = None) -> None:
        from river.datasets import base

        self.seed = seed
        self._data = data_set(name)
        total = min(rows or self._data.n_samples, self._data.n_samples)
        pages = _references(self._data)
        path = self._data.path
        self.card = Card(
            name=f"river:{name}",
            task="regression" if self._data.task == base.REG else "classification",
            rows=total,
            drifts=(),
            description=" ".join(str(self._data.desc).strip().partition("\n\n")[0].split()),
            ceiling="unknown",
            reference=pages[0] if pages else f"river.datasets.{type(self._data).__name__}",
            default_rows=self._data.n_samples,
            source=getattr(self._data, "url", f"bundled with River: {path.name}"),
            licence=licence_of(type(self._data).__name__),
            checksum=sha256(path) if path.is_file() else "",
            fixed=True,
        )

    def events(self) -> Iterator[Event]:
        """Questions with their label; event time from the data where it has dates."""
        for row, (x, y) in enumerate(self._rows()):
            dates = (value for value in x.values() if isinstance(value, datetime))
            first = next(dates, None)
            ts = float(row) if first is None else _seconds(first)
            yield Event(f"{self.card.name}:0:{row}", _values(x), y, ts=ts)

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        for x, y in self._rows():
            yield _values(x), y

    def _rows(self) -> Iterator[tuple[dict[str, Any], Label]]:
        rows = iter(self._data)
        try:
            yield from islice(rows, self.card.rows)
        finally:
            # River closes its file after the last row only: who stops earlier drops it open.
            with catch_warnings():
                simplefilter("ignore", ResourceWarning)
                rows.close()
                del rows


def river_stream(name: str = "", seed: int = 0, rows: int | None = None) -> RiverStream:
    """``river:NAME``, a data set of River."""
    return RiverStream(name, seed, rows)


def data_set(name: str) -> Any:
    """The data set of River called ``NAME`` or ``NAME@VARIANT``, if it is on this machine.

    Raises:
        UsageError: there is none, or it has several targets at once.
        SourceError: it has to be downloaded first; the message has the command.
    """
    data = _made(name)
    if str(data.task).startswith("Multi-output"):
        raise UsageError(
            f"river:{name} has {data.n_outputs} targets at once ({data.task.lower()}), expected "
            "one: write the one you want to a CSV file and use file:PATH@TARGET"
        )
    if not getattr(data, "is_downloaded", True):
        variant = name.partition("@")[2]
        call = f"datasets.{type(data).__name__}({repr(variant) if variant else ''})"
        raise SourceError(
            f"River's {name} is not on this machine ({data.path}); get it with "
            f'`python -c "from river import datasets; {call}.download()"`, or point RIVER_DATA '
            "to the folder where River keeps its data"
        )
    return data


def _made(name: str) -> Any:
    from river import datasets

    kind, at, variant = name.partition("@")
    made: Any = getattr(datasets, kind, None)
    if not isinstance(made, type):
        known = [n for n in dir(datasets) if n[:1].isupper()]
        near = get_close_matches(kind, known, n=3) or known
        raise UsageError(f"River has no data set {kind!r}; did you mean {', '.join(near)}?")
    make: Callable[..., Any] = made
    if not at:
        return make()
    if "variant" not in signature(make).parameters:
        raise UsageError(f"River's {kind} has no variants, but the name says {name!r}")
    variants = list(getattr(made, "variants", ()))
    if variant not in variants:
        near = get_close_matches(variant, variants, n=3) or variants
        raise UsageError(
            f"River's {kind} has no variant {variant!r}; did you mean {', '.join(near)}?"
        )
    return make(variant=variant)


def _values(x: dict[str, Any]) -> dict[str, Value]:
    return {k: _seconds(v) if isinstance(v, datetime) else v for k, v in x.items()}


def _seconds(moment: datetime) -> float:
    """Since 1970; UTC where no zone is given, so that every machine reads the same."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _references(data: Any) -> list[str]:
    """The pages that River's documentation of the data set names."""
    return re.findall(r"\[\^\d+\]: \[.*?\]\((\S+?)\)", type(data).__doc__ or "")
