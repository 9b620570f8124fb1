"""A bench that was interrupted goes on where it stopped.

Each finished run is a file of its own in a folder named for what is being run: suite, jobs,
versions, code (a user's own models included) and data. Another commit, an edited file or other
rows give another folder, so that a number of old code never gets into a new table. The folder is
deleted when the bench is complete, and a week after it was left.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from importlib.machinery import PathFinder
from io import BytesIO
from pathlib import Path
from time import time

import numpy as np

from scenarios.bench.book import Done, Record
from scenarios.bench.provenance import VARIABLES, provenance
from scenarios.bench.suite import Job, Suite
from scenarios.models import split
from scenarios.scenario import Card
from streammeta.aside import write_aside
from streammeta.errors import SinkError

FOLDER = Path("runs") / "bench"
_PACKAGES = ("streammeta", "drift", "scenarios")
_DIGITS = 12  # of the hash, in the folder's name
_KEPT = 7 * 24 * 3600.0  # seconds


class Journal:
    """The finished runs of one bench, by job."""

    def __init__(
        self,
        suite: Suite,
        jobs: Sequence[Job],
        folder: Path = FOLDER,
        cards: Mapping[str, Card] | None = None,
    ) -> None:
        asked = [asdict(job) for job in jobs]
        data = {stream: card.checksum for stream, card in (cards or {}).items()}
        places = {name: os.environ.get(name) for name in VARIABLES}
        plan = [suite.name, asked, provenance(), code(), own_code(suite, jobs), data, places]
        name = sha256(json.dumps(plan).encode()).hexdigest()[:_DIGITS]
        self._suite = suite.name
        self.folder = folder / f"{suite.name}-{name}"

    def open(self) -> None:
        """Make the folder, and delete those that this suite left more than a week ago.

        Raises:
            SinkError: nothing can be written there.
        """
        trial = self.folder / "trial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            trial.touch()
            trial.unlink()
        except OSError as fault:
            raise SinkError(
                f"cannot keep finished runs in {self.folder}: {fault.strerror or fault}; "
                "start the bench in a directory that can be written"
            ) from fault
        for path in self._left():
            shutil.rmtree(path, ignore_errors=True)

    def _left(self) -> Iterator[Path]:
        pattern = re.compile(f"{re.escape(self._suite)}-[0-9a-f]{{{_DIGITS}}}")
        for path in self.folder.parent.iterdir():
            other = path != self.folder and pattern.fullmatch(path.name)
            if other and path.is_dir() and time() - path.stat().st_mtime > _KEPT:
                yield path

    def read(self, jobs: Sequence[Job]) -> dict[Job, Done]:
        """The runs that are there; one that was cut off while written does not count."""
        found = {}
        for number, job in enumerate(jobs):
            path = self._path(number)
            if path.is_file():
                with np.load(path, allow_pickle=False) as kept:
                    record = Record(**json.loads(str(kept["record"])))
                    found[job] = Done(record, kept["rows"], kept["losses"])
        return found

    def write(self, number: int, done: Done) -> None:
        """Keep the run of job ``number``; afterwards it is there in whole or not at all.

        Raises:
            SinkError: it cannot be written.
        """
        path, image = self._path(number), BytesIO()
        record = json.dumps(asdict(done.record))
        np.savez(image, record=np.array(record), rows=done.rows, losses=done.losses)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_aside(path, image.getvalue())
        except OSError as fault:
            raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault

    def clear(self) -> None:
        """The bench is complete, or is to begin anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"


def code() -> str:
    """A hash of every source file of the project."""
    root = Path(__file__).resolve().parents[2]
    seen = sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            seen.update(str(path.relative_to(root)).encode())
            seen.update(path.read_bytes())
    return seen.hexdigest()


def own_code(suite: Suite, jobs: Sequence[Job]) -> dict[str, str]:
    """A hash of every module that is named as ``module:attribute``, by its name; none is imported.

    Of a package every source file counts; what the modules import does not.
    """
    named = set(_own_modules(jobs))
    if suite.extra is not None:
        named.add(suite.extra.__module__)
    found = {}
    for module in sorted(named):
        seen = sha256()
        for path in _sources(module):
            seen.update(path.read_bytes())
        found[module] = seen.hexdigest()
    return found


def _own_modules(jobs: Sequence[Job]) -> Iterator[str]:
    names = {split(job.model)[0] for job in jobs}
    names |= {value for job in jobs for _, value in job.overrides if isinstance(value, str)}
    return (name.partition(":")[0] for name in names if ":" in name)


def _sources(module: str) -> Iterable[Path]:
    """The files of ``module``, found as an import would, the current directory first."""
    first, *rest = module.split(".")
    spec = PathFinder.find_spec(first, [os.getcwd(), *sys.path])
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            break
        inner = PathFinder.find_spec(part, list(spec.submodule_search_locations))
        if inner is None:
            break
        spec = inner
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return sorted(p for f in spec.submodule_search_locations for p in Path(f).rglob("*.py"))
    return [Path(spec.origin)] if spec.origin and Path(spec.origin).is_file() else []
