"""Regression: related tasks that switch, fleets of keys, and recorded series."""

from __future__ import annotations

from scenarios.bench import Suite
from scenarios.open_stream import VARIABLE, available

ABOUT = """
Mean absolute error; the streams differ in scale, so compare within a row. On etth1 nobody has
beaten the last value one step ahead, as far as we know.
"""


def missing(stream: str) -> str:
    """Why the file of ``stream`` cannot be had, or nothing."""
    return "" if available(stream) else f"{VARIABLE} has no file for it"


SUITE = Suite(
    name="regression",
    summary="regression: task switches, fleets of keys, recorded series",
    minutes=40,
    streams=(
        "sine_switch",
        "linear_switch",
        "polynomial_switch",
        "friedman",
        "friedman | drift('gradual')",
        "sensors",
        "shops",
        "river:TrumpApproval",
        "river:ChickWeights",
        "river:SP500Stocks",
        "open:etth1",
    ),
    models=(
        "streammeta",
        "no_challengers",
        "reset",
        "sgd@best",
        "no_change",
        "majority",
        "river.linear",
        "river.hat",
        "river.knn",
        "river.arf",
    ),
    seeds=(0,),
    rows=10_000,
    quick_rows=1_500,
    unavailable=missing,
    about=ABOUT,
)
