"""Recorded data sets that are known by name: what their files hold and how to tell them.

A file is the known one when the SHA-256 of the file, or of the text inside a ``.gz``, is the one
written here. Facts are given only for such a file: another one may share no more than its name.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

from scenarios.scenario import Span
from streammeta.errors import SourceError

NOT_STATED = "not stated"
_LOSING = "https://github.com/vlosing/driftDatasets"
_BLOCK = 1 << 20  # bytes hashed at a time


@dataclass(frozen=True, slots=True)
class DataSet:
    """One known file.

    ``packed`` is the SHA-256 of the ``.csv.gz``, ``text`` that of the CSV inside. ``rows`` counts
    the rows below the header. A drift comes every ``every`` rows (0: none known) and takes
    ``width`` rows; ``facts`` says in words what is known of the drifts. ``best`` is the accuracy
    that the noise in the labels leaves. ``horizon``: rows ahead that the target is asked for.
    """

    packed: str
    text: str
    rows: int
    source: str
    facts: str
    licence: str = NOT_STATED
    target: str = "target"
    time: str | None = None
    horizon: int = 0
    every: int = 0
    width: int = 0
    best: float | None = None

    def drifts(self, rows: int) -> tuple[Span, ...]:
        """The known drifts among the first ``rows`` rows."""
        if not self.every:
            return ()
        starts = range(self.every, rows, self.every)
        return tuple((start, min(start + self.width, rows - 1)) for start in starts)

    def is_in(self, path: Path) -> bool:
        """Whether the file holds this data set, packed as here or not.

        Raises:
            SourceError: the file cannot be read.
        """
        return sha256(path) == self.packed or sha256(path, unpack=True) == self.text

    @property
    def ceiling(self) -> str:
        """What the noise leaves, in words."""
        if self.best is None:
            return "unknown"
        return f"accuracy {self.best:.2f} (label noise)"


KNOWN = {
    "elec2": DataSet(
        packed="cdbce085bee402e87f79409ab09fadda60a5dd5abe6153c4d92711d3a03410ed",
        text="28d2fba66548ae66c4b92bb599b1a1d89aac145a75e9166a6a22bc08f9aa0e47",
        rows=45_312,
        source="NSW electricity market 1996-98 (Harries 1999; normalised by Bifet)",
        facts="real; labels follow one another closely; drifts unknown",
    ),
    "weather": DataSet(
        packed="ca5710a73bd899940418a33a73b33d523b677bc83a0b6ada97df9506fec9d40d",
        text="3c38f05bdc5c4cb115f122414c66976e3662c875d96d7199d9e47fc46aff150e",
        rows=18_159,
        source="Offutt Air Force Base 1949-99, rain or not (Elwell & Polikar 2011)",
        facts="real; drifts unknown",
    ),
    "sea": DataSet(
        packed="bb5a55cb37c9d90ebed32548b61823574ba3659df3cefe18977bd8d5a90e6cdd",
        text="7bf0a3d15ed3cb45380767ede8ed2100c47b7ddcd0564e885127234888da2115",
        rows=100_000,
        source="SEA concepts (Street & Kim 2001)",
        facts="10 % noise; the rule attrib1 + attrib2 <= 9 fits every stretch of the file equally "
        "well: no drift that the data would show",
        best=0.9,
    ),
    "sine1": DataSet(
        packed="df99843925c80f4948a1f7e90ffee3906c325b6d365403c0894b379515c5f4e2",
        text="eba4a1251e8caf59fb7793f78c13265d9d022719adaefe3e6eeb5f42e123db97",
        rows=100_000,
        source="SINE1 (Gama et al. 2004)",
        facts="labels swap every 20,000 rows within 50; 10 % noise; two concepts take turns",
        every=20_000,
        width=50,
        best=0.9,
    ),
    "mixed": DataSet(
        packed="7405d457ca376cba5e47e084c1051d135887c3cdb94909a93df6cf9e1c72a5ad",
        text="70291a74c861a72bafa55edcc01292f2b64eb5708497b735be0eeaf9d2513bc0",
        rows=100_000,
        source="MIXED (Gama et al. 2004), two features are boolean",
        facts="labels swap every 20,000 rows within 50; 10 % noise; two concepts take turns",
        every=20_000,
        width=50,
        best=0.9,
    ),
    "circles": DataSet(
        packed="0fde355adab7ad49fd720fea1057f64f592491ab74768c0418f016b492c8ee21",
        text="a4a171373ae3a377e2a5ba5e968f9b30b774980bc3b149ef1cd8e8806f402905",
        rows=100_000,
        source="CIRCLES (Gama et al. 2004)",
        facts="another circle every 25,000 rows, within 500; 10 % noise",
        every=25_000,
        width=500,
        best=0.9,
    ),
    "interchanging_rbf": DataSet(
        packed="0f07103184e3f1443321a2ef5afdea6b56963d7167fc30629a078fa282747960",
        text="cb9cd2adb15038483444a738e24554ea2e7e8c89fa114c3e9721ca24c4439011",
        rows=60_000,
        source=f"{_LOSING} (Losing et al. 2016), the first 60,000 of 200,000 rows",
        facts="Gaussians swap places every 3,000 rows, ever more of them",
        every=3_000,
    ),
    "moving_squares": DataSet(
        packed="1b8771c91242055d24b3531dcb83cdadbee9e01f3251a52eb5127432596e8aa0",
        text="25bef5638d7b70152377a253eff14fc78148c9708edf6e1be6878703f85eb6a9",
        rows=60_000,
        source=f"{_LOSING} (Losing et al. 2016), the first 60,000 of 200,000 rows",
        facts="squares move all the time: rows older than 120 may mislead",
    ),
    "etth1": DataSet(
        packed="f61b6793c50d3c26c6fc172e08aec6fbdbefa2365a227f941eb01330d5ace154",
        text="f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
        rows=17_420,
        source="https://github.com/zhouhaoyi/ETDataset (Zhou et al. 2021), hourly",
        facts="real; drifts unknown",
        licence="CC BY-ND 4.0",
        target="OT",
        time="date",
        horizon=1,
    ),
}
"""Names of files in the folder ``STREAMMETA_DATA``."""

_UCI = "https://archive.ics.uci.edu/dataset"
RIVER_LICENCES = {
    "Phishing": ("CC BY 4.0", f"{_UCI}/379"),
    "ImageSegments": ("CC BY 4.0", f"{_UCI}/147"),
    "Shuttle": ("CC BY 4.0", f"{_UCI}/148"),
}
"""River's data sets: (licence, the page that states it), where it is known for certain."""


def licence_of(river: str) -> str:
    """The licence of River's data set ``river``, and where it is stated; or ``NOT_STATED``."""
    if river not in RIVER_LICENCES:
        return NOT_STATED
    licence, page = RIVER_LICENCES[river]
    return f"{licence} ({page})"


_SEEN: dict[tuple[tuple[str, int, int], bool], str] = {}


def sha256(path: Path, *, unpack: bool = False) -> str:
    """SHA-256 of the file in hexadecimal; with ``unpack`` of the text inside a ``.gz``.

    A file that has not changed is read once per process.

    Raises:
        SourceError: it cannot be read, or is a damaged ``.gz``.
    """
    state = fingerprint(path), unpack and path.suffix == ".gz"
    if state not in _SEEN:
        try:
            with gzip.open(path) if state[1] else path.open("rb") as file:
                _SEEN[state] = _digest(file)
        except (OSError, EOFError, zlib.error) as fault:
            raise SourceError(f"{path}: unreadable: {fault}") from fault
    return _SEEN[state]


def fingerprint(path: Path) -> tuple[str, int, int]:
    """(path, bytes, time of the last change in ns): what tells a file from a later version.

    Raises:
        SourceError: there is no such file.
    """
    try:
        state = path.stat()
    except OSError as fault:
        raise SourceError(f"{path}: no such file") from fault
    return str(path.resolve()), state.st_size, state.st_mtime_ns


def _digest(file: BufferedIOBase) -> str:
    found = hashlib.sha256()
    while block := file.read(_BLOCK):
        found.update(block)
    return found.hexdigest()
