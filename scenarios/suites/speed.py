"""Speed and memory: what an event costs, at several chunks."""

from __future__ import annotations

from scenarios.bench import Suite
from scenarios.bench.tables import speed

ABOUT = """
Predict and learn, one thread, and a fresh process for every run: a short stream warms the model up
first, so imports and compiled code count neither as latency nor as new memory. A chunk of 16
answers 16 questions with the state at its start and learns their labels afterwards.
"""

SUITE = Suite(
    name="speed",
    summary="events per second, latency and peak memory at several chunks",
    minutes=7,
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
    alone=True,
)
