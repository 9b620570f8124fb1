"""What ``pretrain`` reads: a file, a scenario, or a folder with a file for each task."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scenarios.prequential import events_of
from scenarios.scenario import scenario
from streammeta.config import ModelConfig
from streammeta.errors import UsageError
from streammeta.events import Event
from streammeta.pretraining import History, from_events, from_tables
from streammeta.sources import FileSource, decide_task
from streammeta.sources.files import is_table

Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The flags of the command that are about the source."""

    target: str | None = None
    task: str = "auto"
    horizon: int = 0
    time: str | None = None
    key: str | None = None
    id: str | None = None
    ignore: tuple[str, ...] = ()
    label_delay: int = 0
    rows: int | None = None

    def refuse(self, names: tuple[str, ...], why: str) -> None:
        """Flags that mean nothing here are faults.

        Raises:
            UsageError: one of ``names`` was given.
        """
        for name in names:
            value = getattr(self, name)
            if value not in (None, 0, ()):
                raise UsageError(f"--{name.replace('_', '-')} {_text(value)}: {why}")

    def file(self, path: Path) -> FileSource:
        """The rows of one file."""
        return FileSource(
            path, target=self.target, time=self.time, key=self.key, id=self.id,
            ignore=self.ignore, horizon=self.horizon, label_delay=self.label_delay,
            rows=self.rows,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class HistorySource:
    """A source that has been opened and checked: ``config`` has its task, ``why`` says why.

    ``name`` has no folders in it, so that it means the same on every machine.
    """

    name: str
    config: ModelConfig
    why: str
    history: Callable[[Told | None], History]

    @classmethod
    def open(cls, text: str, wanted: Wanted, config: ModelConfig) -> HistorySource:
        """The file, folder or scenario that ``text`` names.

        Raises:
            UsageError: there is none, or a flag does not fit it.
            SourceError: it cannot be read.
        """
        path = Path(text)
        if path.is_dir():
            return _folder(path, wanted, config)
        if path.exists() or ("|" not in text and ":" not in text and is_table(path)):
            return _file(path, wanted, config)
        return _scenario(text, wanted, config)


def _file(path: Path, wanted: Wanted, config: ModelConfig) -> HistorySource:
    source = wanted.file(path)
    labels = source.sniff().targets
    if not labels:
        raise UsageError(f"{path}: expected --target, the column to predict")
    task, why = _task(config, lambda: decide_task(labels))
    config = config.model_copy(update={"task": task})
    return HistorySource(
        path.name, config, why, lambda told: from_events(config, _closing(source), told)
    )


def _scenario(text: str, wanted: Wanted, config: ModelConfig) -> HistorySource:
    own = ("target", "horizon", "time", "key", "id", "ignore", "label_delay")
    wanted.refuse(own, f"is for files, scenario {text!r} has its own")
    try:
        stream = scenario(text, seed=config.seed, rows=wanted.rows)
    except UsageError as fault:
        raise UsageError(f"{text!r} is neither a file nor a folder, and {fault}") from None
    card = stream.card
    if config.task not in ("auto", card.task):
        raise UsageError(f"--task is {config.task}, but scenario {card.name} is {card.task}")
    config = config.model_copy(update={"task": card.task})
    return HistorySource(
        _without_folders(card.name), config, "the scenario's own",
        lambda told: from_events(config, stream.events(), told),
    )  # fmt: skip


def _folder(path: Path, wanted: Wanted, config: ModelConfig) -> HistorySource:
    whole = f"is for streams; in the folder {path} each file is a task"
    wanted.refuse(("horizon", "key", "label_delay", "rows"), whole)
    files = [wanted.file(p) for p in path.iterdir() if is_table(p) and p.name[0] != "."]
    if not files:
        raise UsageError(f"{path}: no CSV, JSONL or Parquet file in it, expected one for each task")
    files = _in_order(files, wanted.time is not None)
    labels = [label for source in files for label in source.sniff().targets]
    if not labels:
        raise UsageError(f"{path}: expected --target, the column to predict")
    task, why = _task(config, lambda: decide_task(labels))
    config = config.model_copy(update={"task": task})
    tables = [(str(source.path), _closing(source)) for source in files]
    return HistorySource(
        path.resolve().name, config, why, lambda told: from_tables(config, tables, told)
    )


def _task(config: ModelConfig, decide: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    return decide() if config.task == "auto" else (config.task, "as asked")


def _in_order(files: list[FileSource], by_time: bool) -> list[FileSource]:
    """By the time of the first row where there are times, else by name, numbers as numbers."""

    def place(source: FileSource) -> tuple[float, list[tuple[int, str]]]:
        parts = re.findall(r"\d+|\D+", source.path.name)
        name = [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
        return (_begins(source) if by_time else 0.0), name

    return sorted(files, key=place)


def _begins(source: FileSource) -> float:
    """Event time of the first row that has one."""
    times = (event.ts for event in _closing(source))
    return next((ts for ts in times if ts is not None), 0.0)


def _closing(source: FileSource) -> Iterator[Event]:
    """The rows of a file, which is closed after the last one that is asked for."""
    try:
        yield from events_of(source)
    finally:
        source.close()


def _without_folders(name: str) -> str:
    """``file:/home/me/a.csv@y`` without what is another folder on every machine.

    >>> _without_folders("file:/home/me/a.csv@y | delay(3)"), _without_folders("open:elec2")
    ('file:a.csv@y | delay(3)', 'open:elec2')
    """
    return re.sub(r"^file:[^@|]*/", "file:", name)


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
