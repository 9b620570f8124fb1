"""A stream in which everything happens that a dashboard shows, for a real processor."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

ROWS = 2_600
LATE = 20  # rows until a label comes
SWITCHES = (700, 1_200, 1_700, 2_200)  # the world turns over, and back
NEW = 2_000  # from this row on there is a fourth feature, and a class that nobody had seen
BEGIN = 1_700_000_000.0

CONFIG = """
pace = "250/s"

[source]
kind = "http"
journal = "journal"
port = {events}
queue = 20000
fsync = "never"

[model]
task = "classification"
seed = 3
label_ttl = 60

[[sinks]]
path = "out.jsonl"
outputs = ["predicted"]

[[sinks]]
kind = "dead_letter"
path = "dead.jsonl"

[metrics]
port = {metrics}

[checkpoint]
folder = "commits"
every_events = 500
"""


def lines(rows: int = ROWS, seed: int = 0) -> Iterator[str]:
    """Questions, their labels 20 rows later, and what goes wrong: a label that never comes, one
    too late, one of a question that nobody asked, a line that is not JSON, a text for a number."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).round(3)
    due: dict[int, list[str]] = {}
    for row in range(rows):
        ts = BEGIN + row
        turned = sum(row >= switch for switch in SWITCHES) % 2
        label = "low" if (x[row, 0] + x[row, 1] > 0) == bool(turned) else "high"
        features = dict(zip("abc", x[row].tolist(), strict=True))
        if row >= NEW:
            features["d"] = 1.5
            label = "other" if x[row, 2] > 1.2 else label
        name = f"q{row}"
        yield json.dumps({"id": name, "ts": ts, "x": features})
        if row % 50:  # the others are given up, and their labels come long after
            due.setdefault(row + LATE, []).append(_label(name, ts + LATE, label))
        else:
            due.setdefault(row + 5 * LATE, []).append(_label(name, ts + 5 * LATE, label))
        yield from due.pop(row, ())
        if row % 100 == 30:
            yield "{not json"
            yield json.dumps({"id": f"bad{row}", "ts": ts, "x": {"a": "text"}})
            yield _label(f"nobody-{row}", ts, "low")


def _label(name: str, ts: float, label: str) -> str:
    return json.dumps({"id": name, "ts": ts, "y": label})
