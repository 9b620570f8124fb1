"""The bench: models x streams x seeds, each measured prequentially, several processes at once.

A suite (``suite``) is a set of jobs; doing them (``jobs``) gives outcomes; what is kept of them is
a book of records and paired comparisons (``book``, with ``statistics`` and ``recovery``), from
which all tables (``tables``) and RESULTS.md (``results``) are made. ``journal`` lets an
interrupted bench go on.
"""

from scenarios.bench.book import (
    MAX_DELAY,
    Book,
    Done,
    FoundDrift,
    Pair,
    Record,
    compare,
    drift_report,
    finish,
    found_drifts,
    interval_of,
    loss_series,
    read_book,
    series_of,
)
from scenarios.bench.jobs import (
    Outcome,
    check,
    in_order,
    main_score,
    new_counter,
    pool,
    run_job,
    run_jobs,
    stop_now,
)
from scenarios.bench.journal import Journal
from scenarios.bench.provenance import command_line, provenance
from scenarios.bench.suite import Gate, Job, Suite, Summary
from scenarios.bench.tables import leaderboard, spread, standard
from scenarios.models import at_drift

__all__ = [
    "MAX_DELAY",
    "Book",
    "Done",
    "FoundDrift",
    "Gate",
    "Job",
    "Journal",
    "Outcome",
    "Pair",
    "Record",
    "Suite",
    "Summary",
    "at_drift",
    "check",
    "command_line",
    "compare",
    "drift_report",
    "finish",
    "found_drifts",
    "in_order",
    "interval_of",
    "leaderboard",
    "loss_series",
    "main_score",
    "new_counter",
    "pool",
    "provenance",
    "read_book",
    "run_job",
    "run_jobs",
    "series_of",
    "spread",
    "standard",
    "stop_now",
]
