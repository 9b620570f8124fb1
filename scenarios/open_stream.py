"""Open data as scenarios: files in the folder ``STREAMMETA_DATA``; Elec2 from there or River."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from scenarios.data_sets import KNOWN
from scenarios.file_stream import FileStream, Reading, known_reading, parse
from scenarios.river_stream import RiverStream, data_set, river_stream
from scenarios.scenario import Scenario
from streammeta.errors import SourceError, UsageError

VARIABLE = "STREAMMETA_DATA"
SUFFIXES = (".csv.gz", ".csv", ".parquet", ".jsonl", ".jsonl.gz")  # in the order they are tried


class OpenStream(FileStream):
    """``NAME`` in the folder that ``STREAMMETA_DATA`` names, column ``target``.

    Known data sets (``scenarios.data_sets``) have their own target, time and horizon: ``etth1`` is
    forecast one row ahead. ``NAME@COLUMN?horizon=24`` reads a file in another way, as ``file:``.
    """

    def __init__(self, name: str, seed: int = 0, rows: int | None = None) -> None:
        stem, asked = parse(_named(name))
        known = KNOWN.get(stem)
        usual = known_reading(known) if known else Reading(target="target")
        if asked == Reading():
            reading = usual
        else:
            reading = replace(asked, target=asked.target or usual.target)
        path, called = find_file(stem), f"open:{name}"
        try:
            super().__init__(path, reading, name=called, seed=seed, rows=rows, known=known)
        except UsageError as fault:
            hint = "" if asked.target else f" (another target: open:{stem}@COLUMN)"
            raise UsageError(f"{fault}{hint}") from fault


def open_stream(name: str = "", seed: int = 0, rows: int | None = None) -> OpenStream:
    """``open:NAME``, a file ``NAME.csv.gz`` in the folder of ``STREAMMETA_DATA``."""
    return OpenStream(name, seed, rows)


def elec2(seed: int = 0, rows: int | None = None) -> Scenario:
    """Elec2 from ``STREAMMETA_DATA`` (6 features) or else from River's data folder (8)."""
    return open_stream("elec2", seed, rows) if available("open:elec2") else _river_elec2(seed, rows)


def _river_elec2(seed: int, rows: int | None) -> RiverStream:
    _river_elec2_data()
    return river_stream("Elec2", seed, rows)


def _river_elec2_data() -> None:
    """Do nothing where River has the data.

    Raises:
        SourceError: it has to be downloaded first.
    """
    try:
        data_set("Elec2")
    except SourceError as fault:
        raise SourceError(
            f"Elec2 is not on this machine: set {VARIABLE} to a folder with elec2.csv.gz in it, "
            'or run `python -c "from river import datasets; datasets.Elec2().download()"`'
        ) from fault


def available(name: str) -> bool:
    """Whether the data of the scenario ``name`` is here; generated ones always are."""
    return not unavailable(name)


def unavailable(name: str) -> str:
    """Why the data of the scenario ``name`` is not here and how to get it, or nothing.

    Of open: and river: streams the words are those of the error that building one would raise.
    """
    family, _, argument = name.partition("|")[0].strip().partition(":")
    try:
        if family == "open":
            find_file(parse(_named(argument))[0])
        elif family == "river":
            data_set(argument)
        elif family == "file":
            path = Path(parse(argument)[0])
            return "" if path.is_file() else f"{path}: no such file"
        elif family == "elec2" and not available("open:elec2"):
            _river_elec2_data()
    except (SourceError, UsageError) as fault:
        return str(fault)
    return ""


def _named(argument: str) -> str:
    """``argument``, if it begins with the name of a stream."""
    if not argument or argument[0] in "@?":
        raise UsageError(
            f"open:{argument}: expected open:NAME, a file NAME.csv.gz in the folder that "
            f"{VARIABLE} names; known: {', '.join(KNOWN)}"
        )
    return argument


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
    for suffix in SUFFIXES:
        path = Path(folder) / f"{name}{suffix}"
        if path.is_file():
            return path
    found = sorted({p.name.removesuffix(s) for s in SUFFIXES for p in Path(folder).glob(f"*{s}")})
    raise SourceError(
        f"{VARIABLE}={folder} has no {name}.csv.gz; it has: {', '.join(found) or 'no data file'} "
        f"(files {', '.join(SUFFIXES)}){_instead(name)}"
    )


def _instead(name: str) -> str:
    if name not in KNOWN:
        return ""
    if name != "elec2":
        return f"; it is known from {KNOWN[name].source}"
    return (
        "; or use River's copy, river:Elec2, after "
        '`python -c "from river import datasets; datasets.Elec2().download()"`'
    )
