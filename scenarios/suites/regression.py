"""Regression: related tasks that switch, fleets of keys, and recorded series."""

from __future__ import annotations

from scenarios.bench import Suite
from scenarios.open_stream import unavailable

SLOW_ROWS = 2_500  # what the slowest ensemble of River sees of a stream

ABOUT = f"""
Mean absolute error; the streams differ in scale, so compare within a column. On etth1 the last
value is hard to beat one step ahead. Very large numbers are River's models that diverge at their
default rates: its linear regression on shops, its trees' leaves elsewhere. Sensors and shops are
fleets: learners that know no keys are given the key as one more category. River's SRP sees the
first {SLOW_ROWS:,} rows.
"""

SUITE = Suite(
    name="regression",
    summary="regression: task switches, fleets of keys, recorded series",
    minutes=20,
    streams=(
        "sine_switch",
        "linear_switch",
        "polynomial_switch",
        "friedman",
        "friedman | drift('gradual')",
        "friedman | missing(0.1)",
        "sensors",
        "shops",
        "river:TrumpApproval",
        "river:WaterFlow",
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
        "river.srp",
    ),
    seeds=(0,),
    rows=10_000,
    quick_rows=1_500,
    unavailable=unavailable,
    caps=(("river.srp", SLOW_ROWS),),
    about=ABOUT,
)
