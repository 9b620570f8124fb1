"""The open streams of the field: who predicts best, with no setting touched."""

from __future__ import annotations

from scenarios.bench import Suite
from scenarios.open_stream import VARIABLE, available

NAMES = (
    "elec2",
    "weather",
    "sea",
    "sine1",
    "mixed",
    "circles",
    "interchanging_rbf",
    "moving_squares",
)
SLOW_ROWS = 20_000  # what the slow ensembles of River see of a stream
SLOW = (("river.arf", SLOW_ROWS), ("river.srp", SLOW_ROWS), ("river.levbag", SLOW_ROWS))

ABOUT = f"""
Eight streams that the literature on drift reports on. The noise of sea, sine1, mixed and circles
caps accuracy at 90 %; elec2 has six features here (date and day left out), and repeating its last
label already scores 85.3 %. River's ensembles see the first {SLOW_ROWS:,} rows; those of CapyMOA
(`make peers`) all of them.
"""


def missing(stream: str) -> str:
    """Why the file of ``stream`` cannot be had, or nothing."""
    return "" if available(stream) else f"{VARIABLE} has no file for it"


SUITE = Suite(
    name="open-streams",
    summary="open streams of the field: accuracy of every model, ranks, wins",
    minutes=150,
    streams=tuple(f"open:{name}" for name in NAMES),
    models=(
        "streammeta",
        "reset",
        "frozen@5000",
        "no_change",
        "majority",
        "sgd@best",
        "river.hat",
        "river.logistic",
        "river.one_vs_rest",
        "river.nb",
        "river.arf",
        "river.srp",
        "capymoa.arf",
        "capymoa.srp",
        "capymoa.samknn",
        "capymoa.levbag",
    ),
    seeds=(0,),
    unavailable=missing,
    caps=SLOW,
    about=ABOUT,
)
