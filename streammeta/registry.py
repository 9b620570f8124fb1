"""One registry by name for everything that plugs in.

A row is ``name -> "module:attribute"``; nothing is imported until it is asked for. Other
distributions add rows through entry points in the group ``streammeta.<kind>``, for example

    [project.entry-points."streammeta.learners"]
    my_learner = "my_package.learner:make"

A user's own object can also be named in full as ``module:attribute``.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from streammeta.errors import UsageError


@dataclass(frozen=True, slots=True)
class Component:
    """One row of the registry: ``target`` is ``module:attribute``, ``summary`` one line."""

    kind: str
    name: str
    target: str
    summary: str

    def load(self) -> Any:
        """Import the module and return the attribute."""
        module, _, attribute = self.target.partition(":")
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found


_TABLE: dict[str, dict[str, tuple[str, str]]] = {
    "learners": {
        "maml": ("streammeta.meta.gradient_based:maml", "second order, one fixed inner rate"),
        "meta_sgd": ("streammeta.meta.gradient_based:meta_sgd", "a learned rate per parameter"),
    },
    "experts": {
        "bank": ("streammeta.experts.bank:Bank", "online networks, replay, challengers"),
        "no_change": ("streammeta.experts.baselines:NoChange", "repeats the last label"),
        "last_value": ("streammeta.experts.baselines:LastValue", "repeats the last value"),
        "majority": ("streammeta.experts.baselines:Majority", "most frequent label, or mean"),
        "online_sgd": ("streammeta.experts.online_sgd:OnlineSGD", "one network, one fixed rate"),
    },
    "detectors": {
        "adwin": ("drift.river_detectors:Adwin", "adaptive window, mean of errors or losses"),
        "page_hinkley": ("drift.river_detectors:PageHinkley", "cumulated excess over the mean"),
        "kswin": ("drift.river_detectors:Kswin", "Kolmogorov-Smirnov on a window (slow)"),
        "ddm": ("drift.river_detectors:Ddm", "error rate against its lowest"),
        "eddm": ("drift.river_detectors:Eddm", "distance between errors against its largest"),
        "fhddm": ("drift.river_detectors:Fhddm", "accuracy of a window against its best"),
        "hddm_a": ("drift.river_detectors:HddmA", "Hoeffding's bound on means"),
        "hddm_w": ("drift.river_detectors:HddmW", "McDiarmid's bound on weighted means"),
    },
    "sources": {
        "file": ("streammeta.sources.files:FileSource", "CSV, JSONL (also .gz) or Parquet"),
        "iterable": ("streammeta.sources.iterable:IterableSource", "any Python iterable of rows"),
    },
    "sinks": {
        "jsonl": ("streammeta.sinks.jsonl:JsonlSink", "JSON lines in a file, each exactly once"),
        "dead_letter": ("streammeta.sinks.jsonl:DeadLetterSink", "rejected events, with reasons"),
        "stdout": ("streammeta.sinks.jsonl:StdoutSink", "JSON lines on stdout, at once"),
        "list": ("streammeta.sinks.memory:ListSink", "outputs in memory"),
    },
    "scenarios": {
        "sine_switch": (
            "scenarios.sine_switch:SineSwitch",
            "regression: a sine of new amplitude and phase every 200 rows",
        ),
        "concept_mix": (
            "scenarios.concept_mix:ConceptMix",
            "classification: two abrupt and two gradual drifts, 10 % label noise",
        ),
        "sensor_fault": (
            "scenarios.sensor_fault:SensorFault",
            "classification: real camera data, two mis-wirings induced",
        ),
        "elec2": (
            "scenarios.open_stream:elec2",
            "classification: electricity prices, from STREAMMETA_DATA or River's data folder",
        ),
        "open": (
            "scenarios.open_stream:open_stream",
            "open:NAME, a file NAME.csv.gz in STREAMMETA_DATA, such as open:elec2",
        ),
        "river": (
            "scenarios.open_stream:river_stream",
            "river:NAME, a data set of River, such as river:Phishing",
        ),
    },
    "transforms": {},
    "suites": {
        "quickstart": (
            "scenarios.suites.quickstart:SUITE",
            "a camera gets mis-wired twice: the default model against simpler ones",
        ),
        "ablation": (
            "scenarios.suites.ablation:SUITE",
            "the default model minus the same model with one part taken away",
        ),
        "sine-switch": (
            "scenarios.suites.sine_switch:SUITE",
            "what online meta-learned parameters are worth after a switch",
        ),
        "classification": (
            "scenarios.suites.classification:SUITE",
            "abrupt and gradual drifts: accuracy, drifts found and missed",
        ),
    },
    "models": {
        "streammeta": (
            "scenarios.models:streammeta",
            "the default model",
        ),
        "no_drift": (
            "scenarios.models:no_drift",
            "the default that ignores drift alarms",
        ),
        "no_challengers": (
            "scenarios.models:no_challengers",
            "the default without challengers",
        ),
        "random_challengers": (
            "scenarios.models:random_challengers",
            "challengers start from random, not from meta-parameters",
        ),
        "no_replay": (
            "scenarios.models:no_replay",
            "the default without replay: no outer steps, no rehearsal",
        ),
        "reset": (
            "scenarios.models:reset",
            "the default, reset at each alarm",
        ),
        "frozen": (
            "scenarios.models:frozen",
            "frozen@ROW stops learning at that row; frozen@drift at a scenario's first drift",
        ),
        "no_change": (
            "scenarios.models:no_change",
            "repeats the last label or value that has arrived",
        ),
        "last_value": (
            "scenarios.models:no_change",
            "another name of no_change",
        ),
        "majority": (
            "scenarios.models:majority",
            "the most frequent label so far, or the mean",
        ),
        "sgd": (
            "scenarios.models:sgd",
            "sgd@RATE: one online network at a fixed rate",
        ),
        "river": (
            "scenarios.models:river",
            "river.NAME (hat, logistic, linear, nb, knn, arf, srp) or river.x:Class",
        ),
    },
}

KINDS = tuple(_TABLE)


def components(kind: str) -> dict[str, Component]:
    """All rows of ``kind``: the built-in ones, then those of other distributions.

    Raises:
        UsageError: ``kind`` is not one of ``KINDS``.
    """
    if kind not in _TABLE:
        raise UsageError(f"no kind of component is called {kind!r}; kinds: {', '.join(KINDS)}")
    rows = {n: Component(kind, n, target, text) for n, (target, text) in _TABLE[kind].items()}
    for point in entry_points(group=f"streammeta.{kind}"):
        origin = point.dist.name if point.dist else "?"
        rows.setdefault(
            point.name, Component(kind, point.name, point.value, f"from distribution {origin}")
        )
    return rows


def find(kind: str, name: str) -> Component:
    """The row called ``name``; ``module:attribute`` names a user's own object.

    Raises:
        UsageError: no such row; the message names the nearest ones.
    """
    rows = components(kind)
    if name in rows:
        return rows[name]
    if ":" in name:
        return Component(kind, name, name, "the user's own")
    near = get_close_matches(name, rows, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; known: {', '.join(rows)}"
    raise UsageError(f"no {kind[:-1]} is called {name!r}{hint}")


def load(kind: str, name: str) -> Any:
    """``find`` it and import it."""
    return find(kind, name).load()
