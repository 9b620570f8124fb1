"""Speed and memory: what an event costs, at several chunks."""

from __future__ import annotations

from scenarios.bench import Suite
from scenarios.bench.tables import speed

ABOUT = """
Predict and learn, one process and one thread, nothing else measured at the same time. A chunk of
16 answers 16 questions with the state at its start and learns their labels afterwards.
"""

SUITE = Suite(
    name="speed",
    summary="events per second, latency and peak memory at several chunks",
    minutes=6,
    streams=("hyperplane", "random_rbf", "friedman"),
    models=(
        "streammeta",
        "no_challengers",
        "no_replay",
        "sgd@0.01",
        "river.hat",
        "river.knn",
        "no_change",
    ),
    seeds=(0,),
    chunks=(1, 16, 256),
    rows=5_000,
    quick_rows=1_000,
    summarise=speed,
    about=ABOUT,
)
