"""Abrupt and gradual drifts with known rows: accuracy, drifts found, false alarms."""

from __future__ import annotations

from scenarios.bench import Suite

SUITE = Suite(
    name="classification",
    summary="abrupt and gradual drifts: accuracy, drifts found and missed",
    minutes=3,
    streams=("concept_mix",),
    models=(
        "streammeta",
        "no_drift",
        "no_challengers",
        "reset",
        "sgd@1e-2",
        "river.hat",
        "river.logistic",
        "no_change",
    ),
    seeds=(0, 1, 2),
    quick_rows=6_000,
)
