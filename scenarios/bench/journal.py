"""A bench that was interrupted goes on where it stopped.

Each finished run is a file of its own in a folder named for what is being run: suite, jobs,
versions and code. Another commit, an edited file or other rows give another folder, so that a
number of old code never gets into a new table. The folder is deleted when the bench is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import numpy as np

from scenarios.bench.book import Done, Record
from scenarios.bench.provenance import provenance
from scenarios.bench.suite import Job, Suite

FOLDER = Path("runs") / "bench"
_PACKAGES = ("streammeta", "drift", "scenarios")


class Journal:
    """The finished runs of one bench, by job."""

    def __init__(self, suite: Suite, jobs: Sequence[Job], folder: Path = FOLDER) -> None:
        plan = json.dumps([suite.name, [asdict(job) for job in jobs], provenance(), code()])
        self.folder = folder / f"{suite.name}-{sha256(plan.encode()).hexdigest()[:12]}"

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
        """Keep the run of job ``number``; afterwards it is there in whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = self._path(number).with_suffix(".part")
        record = json.dumps(asdict(done.record))
        with aside.open("wb") as file:
            np.savez(file, record=np.array(record), rows=done.rows, losses=done.losses)
        aside.replace(self._path(number))

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
