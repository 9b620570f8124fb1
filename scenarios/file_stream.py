"""Any file of rows as a scenario: ``file:PATH@TARGET?time=COL&key=COL&horizon=H&ignore=a,b``.

After the last ``@`` stands the target column, after ``?`` come options joined with ``&``:

- ``time``, ``key``, ``id``: columns with the rows' times, keys and ids
- ``horizon``: predict the target this many rows ahead
- ``ignore``: columns to leave out, with commas between them
- ``task``: ``classification`` or ``regression``; decided by the labels where it is not given

A name with one of ``@ ? & , = |`` in it is written with its percent code, ``?`` as ``%3F``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import unquote

from scenarios.data_sets import NOT_STATED, DataSet, fingerprint, sha256
from scenarios.prequential import events_of
from scenarios.scenario import Card, Scenario
from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value
from streammeta.sources import FileSource, decide_task

OPTIONS = ("time", "key", "id", "horizon", "ignore", "task")
TASKS = ("classification", "regression")
FORM = "PATH@TARGET?time=COL&key=COL&id=COL&horizon=H&ignore=a,b&task=regression"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read: the parts of a name after its path, as in ``FileSource``."""

    target: str | None = None
    time: str | None = None
    key: str | None = None
    id: str | None = None
    horizon: int = 0
    ignore: tuple[str, ...] = ()
    task: str | None = None

    def source(self, path: Path, rows: int | None) -> FileSource:
        """The file from its first row, at most ``rows`` of them."""
        return FileSource(
            path,
            target=self.target,
            time=self.time,
            key=self.key,
            id=self.id,
            ignore=self.ignore,
            horizon=self.horizon,
            rows=rows,
        )


def parse(argument: str) -> tuple[str, Reading]:
    """The path of a name, and how the file is to be read.

    Raises:
        UsageError: no path, an unknown option, or a value that the option cannot have.

    >>> parse("prices.csv@close?time=day&horizon=24&ignore=a,b")[1].horizon
    24
    """
    place, _, query = argument.partition("?")
    path, at, target = place.rpartition("@")
    if not at:
        path, target = place, ""
    if not path:
        raise UsageError(f"{argument!r}: expected {FORM}")
    given: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, _, value = part.partition("=")
        if name not in OPTIONS:
            near = get_close_matches(name, OPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(OPTIONS)}"
            raise UsageError(f"{argument!r}: no option is called {name!r}; {hint}")
        if name in given or not value:
            raise UsageError(f"{argument!r}: option {name!r}: expected one value, as in {FORM}")
        given[name] = value
    horizon, task = given.get("horizon", "0"), given.get("task")
    if not horizon.isdecimal():
        raise UsageError(f"{argument!r}: horizon is {horizon!r}, expected a number of rows")
    if task is not None and task not in TASKS:
        raise UsageError(f"{argument!r}: task is {task!r}, expected {' or '.join(TASKS)}")
    columns = {name: unquote(given[name]) for name in ("time", "key", "id") if name in given}
    ignored = given.get("ignore", "")
    return unquote(path), Reading(
        target=unquote(target) or None,
        horizon=int(horizon),
        ignore=tuple(map(unquote, ignored.split(","))) if ignored else (),
        task=task,
        **columns,
    )


class FileStream(Scenario):
    """A file of rows in their own order: the seed changes nothing.

    Args:
        path: CSV, TSV or JSON lines (also ``.gz``), or Parquet.
        reading: which column is what.
        name: what the card calls it.
        known: what is known of the data set of this name; it is believed only where the checksum
            is the known one, and the description says so where it is not.

    Raises:
        SourceError: the file is missing, empty or damaged.
        UsageError: a column is not in the file, or there are no labels to learn.
    """

    def __init__(
        self,
        path: Path,
        reading: Reading,
        *,
        name: str,
        seed: int = 0,
        rows: int | None = None,
        known: DataSet | None = None,
    ) -> None:
        self.seed = seed
        self.path = path
        self._reading = reading
        self._rows = rows
        source = reading.source(path, rows)
        sniffed = source.sniff()
        if sniffed.plan.target is None:
            columns = ", ".join(sniffed.columns)
            raise UsageError(
                f"{name}: which column is the target? Add it after @, as in {name}@COLUMN; "
                f"columns: {columns}"
            )
        fact = known if known is not None and known.is_in(path) else None
        task = reading.task or decide_task(sniffed.targets)[0]
        self.card = self._describe(name, task, known, fact)

    def _describe(self, name: str, task: str, known: DataSet | None, fact: DataSet | None) -> Card:
        """``fact`` is what is ``known``, if this is the file; both ``None`` if nothing is known."""
        usual = fact if fact is not None and self._reading == known_reading(fact) else None
        if usual is not None:
            rows = min(self._rows or usual.rows, usual.rows)
        else:
            rows = questions(self.path, self._reading, self._rows)
        return Card(
            name=name,
            task=task,
            rows=rows,
            drifts=usual.drifts(rows) if usual else (),
            description=_told(self.path, name, known, fact),
            ceiling=usual.ceiling if usual else "unknown",
            reference=fact.source if fact else "not known",
            default_rows=usual.rows if usual else rows,
            best=usual.best if usual else None,
            source=fact.source if fact else str(self.path),
            licence=fact.licence if fact else NOT_STATED,
            checksum=sha256(self.path),
            fixed=True,
        )

    def events(self) -> Iterator[Event]:
        """The events of the file; at a horizon questions and answers are apart."""
        return events_of(self._reading.source(self.path, self._rows))

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        """Questions that get an answer: at a horizon H the last H of a key get none."""
        asked: dict[str, dict[str, Value]] = {}
        for event in self.events():
            if event.x is not None:
                asked[event.id] = dict(event.x)
            if event.y is not None and event.id in asked:
                yield asked.pop(event.id), event.y


def file_stream(argument: str = "", *, seed: int = 0, rows: int | None = None) -> FileStream:
    """``file:PATH@TARGET?...``, any file of rows by its path."""
    path, reading = parse(argument)
    return FileStream(Path(path), reading, name=f"file:{path}", seed=seed, rows=rows)


def known_reading(known: DataSet, horizon: int | None = None) -> Reading:
    """How a known file is read when the name says nothing else, or at another ``horizon``."""
    ahead = known.horizon if horizon is None else horizon
    return Reading(target=known.target, time=known.time, horizon=ahead)


_COUNTED: dict[tuple[tuple[str, int, int], Reading, int | None], int] = {}


def questions(path: Path, reading: Reading, rows: int | None) -> int:
    """How many questions the first ``rows`` rows ask; an unchanged file is read once per process.

    Raises:
        SourceError: the file cannot be read to its end.
    """
    state = fingerprint(path), reading, rows
    if state not in _COUNTED:
        events = events_of(reading.source(path, rows))
        _COUNTED[state] = sum(event.x is not None for event in events)
    return _COUNTED[state]


def _told(path: Path, name: str, known: DataSet | None, fact: DataSet | None) -> str:
    if known is None:
        return f"{path.name}, in its own order; drifts unknown"
    if fact is not None:
        return f"{path.name}, in its own order; {fact.facts}"
    return (
        f"{path.name}, in its own order; CHECKSUM DIFFERS: this is not the known {name} "
        f"(SHA-256 {sha256(path)[:12]}..., expected {known.packed[:12]}...), so nothing is said "
        "of its drifts"
    )
