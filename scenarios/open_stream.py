"""Open data as scenarios: files of ``STREAMMETA_DATA``, and data sets of River."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from scenarios.prequential import events_of
from scenarios.scenario import Card, Scenario
from streammeta.errors import SourceError, UsageError
from streammeta.events import Event, Label, Value
from streammeta.sources import FileSource, decide_task

VARIABLE = "STREAMMETA_DATA"

# Known drifts: (rows between two drifts, width); real streams have none that anybody knows.
PERIODIC = {
    "sine1": (20_000, 50),
    "mixed": (20_000, 50),
    "circles": (25_000, 500),
    "interchanging_rbf": (3_000, 0),
}
TARGETS = {"etth1": "OT"}  # every other file calls it target
TIMES = {"etth1": "date"}


class OpenStream(Scenario):
    """``NAME.csv.gz`` (or ``.csv``) in the folder that ``STREAMMETA_DATA`` names, column target.

    ``etth1`` is forecast one row ahead. The order of rows is the stream's own: the seed changes
    nothing.
    """

    def __init__(self, name: str, seed: int = 0, rows: int | None = None) -> None:
        self.seed = seed
        self.path = find_file(name)
        horizon = 1 if name in TARGETS else 0
        self._time, self._horizon = TIMES.get(name), horizon
        labels = self._source(rows).sniff().targets
        task, _ = decide_task(labels)
        total = sum(event.x is not None for event in events_of(self._source(rows)))
        every, width = PERIODIC.get(name, (total, 0))
        starts = range(every, total, every)
        self.card = Card(
            name=f"open:{name}",
            task=task,
            rows=total,
            drifts=tuple((start, min(start + width, total - 1)) for start in starts),
            description=f"{self.path.name}, in its own order",
            ceiling="unknown",
            reference="see the README beside the file",
            default_rows=total,
        )
        self._rows = rows
        self._name = name

    def _source(self, rows: int | None) -> FileSource:
        target = TARGETS.get(self.path.name.partition(".")[0], "target")
        return FileSource(
            self.path,
            target=target,
            time=self._time,
            horizon=self._horizon,
            rows=rows,
        )

    def events(self) -> Iterator[Event]:
        """The events of the file: at a horizon, questions and answers apart."""
        return events_of(self._source(self._rows))

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        asked: dict[str, dict[str, Value]] = {}
        for event in self.events():
            if event.x is not None:
                asked[event.id] = dict(event.x)
            if event.y is not None and event.id in asked:
                yield asked.pop(event.id), event.y


class RiverStream(Scenario):
    """A data set of River by its class name, such as ``Phishing`` or ``Elec2``."""

    def __init__(self, name: str, seed: int = 0, rows: int | None = None) -> None:
        from river.datasets import base

        self.seed = seed
        self._data = _river_data_set(name)
        total = min(rows or self._data.n_samples, self._data.n_samples)
        self.card = Card(
            name=f"river:{name}",
            task="regression" if self._data.task == base.REG else "classification",
            rows=total,
            drifts=(),
            description=str(self._data.desc).strip().partition("\n\n")[0],
            ceiling="unknown",
            reference="river.datasets",
            default_rows=self._data.n_samples,
        )

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        from datetime import datetime

        for x, y in islice(self._data, self.card.rows):
            row = {k: v.timestamp() if isinstance(v, datetime) else v for k, v in x.items()}
            yield row, y


def open_stream(name: str, seed: int = 0, rows: int | None = None) -> OpenStream:
    """``open:NAME``, a file ``NAME.csv.gz`` in the folder of ``STREAMMETA_DATA``."""
    return OpenStream(name, seed, rows)


def river_stream(name: str, seed: int = 0, rows: int | None = None) -> RiverStream:
    """``river:NAME``, a data set of River."""
    return RiverStream(name, seed, rows)


def elec2(seed: int = 0, rows: int | None = None) -> Scenario:
    """Elec2 from ``STREAMMETA_DATA`` (6 features) or else from River's data folder (8)."""
    return open_stream("elec2", seed, rows) if available("open:elec2") else _river_elec2(seed, rows)


def _river_elec2(seed: int, rows: int | None) -> RiverStream:
    try:
        return river_stream("Elec2", seed, rows)
    except SourceError as fault:
        raise SourceError(
            f"Elec2 is not on this machine: set {VARIABLE} to a folder with elec2.csv.gz in it, "
            'or run `python -c "from river import datasets; datasets.Elec2().download()"`'
        ) from fault


def available(name: str) -> bool:
    """Whether the scenario ``name`` can be built here; only ``open:`` needs files."""
    if not name.startswith("open:"):
        return True
    try:
        find_file(name.removeprefix("open:"))
    except (SourceError, UsageError):
        return False
    return True


def find_file(name: str) -> Path:
    """The file of the open stream ``name``.

    Raises:
        SourceError: ``STREAMMETA_DATA`` is not set, or the folder has no such file.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise SourceError(
            f"stream 'open:{name}' needs {VARIABLE}, a folder with {name}.csv.gz in it: "
            f"set {VARIABLE}=FOLDER{_instead(name)}"
        )
    for suffix in (".csv.gz", ".csv"):
        path = Path(folder) / f"{name}{suffix}"
        if path.is_file():
            return path
    found = sorted(p.name.partition(".")[0] for p in Path(folder).glob("*.csv*"))
    raise SourceError(
        f"{VARIABLE}={folder} has no {name}.csv.gz; it has: {', '.join(found) or 'no CSV file'}"
        f"{_instead(name)}"
    )


def _instead(name: str) -> str:
    if name != "elec2":
        return ""
    return (
        "; or use River's copy, river:Elec2, after "
        '`python -c "from river import datasets; datasets.Elec2().download()"`'
    )


def _river_data_set(name: str) -> Any:
    from river import datasets

    made = getattr(datasets, name, None)
    known = [n for n in dir(datasets) if n[:1].isupper()]
    if made is None:
        from difflib import get_close_matches

        near = get_close_matches(name, known, n=3) or known
        raise UsageError(f"River has no data set {name!r}; did you mean {', '.join(near)}?")
    data = made()
    if not getattr(data, "is_downloaded", True):
        raise SourceError(
            f"River's {name} is not on this machine ({data.path}); get it with "
            f'`python -c "from river import datasets; datasets.{name}().download()"`'
        )
    return data
