"""No suite lets a model see the future, and every suite gives the same bytes twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from scenarios.bench import Suite
from scenarios.bench.jobs import BEST_SGD, PEERS, at_drift
from scenarios.models import build
from scenarios.prequential import Model, prequential
from scenarios.scenario import Scenario, scenario
from streammeta.errors import SourceError
from streammeta.events import Event, Label, Value
from streammeta.experts.baselines import Answer, Baseline
from streammeta.registry import components

ROWS = 420  # of a stream; enough for every forecaster to have been fitted
FEW = 180  # rows for models that take 5 ms for each
SLOW = ("river.srp", "river.levbag")


def first(suite: Suite, model: str) -> str:
    """The first stream on which a suite runs one of its models."""
    return next(stream for stream in suite.streams if not suite.leaves_out(stream, model))


SUITES = {
    name: suite
    for name, row in components("suites").items()
    if not (suite := row.load()).protocol  # those have no stream: tests/test_fewshot.py
}
STREAMS = sorted({stream for suite in SUITES.values() for stream in suite.streams})
MODELS = sorted(
    {
        (model, suite.streams[-1] if name == "forecast" else first(suite, model))
        for name, suite in SUITES.items()
        for model in suite.models
        if model != BEST_SGD and not model.startswith((PEERS, *SLOW))
    }
)  # the best rate is chosen afterwards, among models that are tested; peers in tests/test_peers.py
IN_CHUNKS = ("streammeta", "reset", "no_change", "seasonal@24", "sgd@0.01", "river.hat")


def stream_of(name: str, rows: int = ROWS) -> Scenario:
    """The stream, or for recorded data that is not here one of the same task."""
    try:
        return scenario(name, seed=2, rows=rows)
    except SourceError as absent:
        if name.startswith(("open:", "river:", "forecast:")):
            pytest.skip(str(absent))
        raise


def other_future(events: Sequence[Event], cut: int) -> list[Event]:
    """The events with all labels, and all features, from event ``cut`` on given to others."""
    draw = random.Random(7)
    future = events[cut:]
    labels = [event.y for event in future if event.y is not None]
    features = [event.x for event in future if event.x is not None]
    draw.shuffle(labels)
    draw.shuffle(features)
    label, feature = iter(labels), iter(features)
    return [
        *events[:cut],
        *(
            Event(
                e.id,
                None if e.x is None else next(feature),
                None if e.y is None else next(label),
                e.key,
                e.ts,
            )
            for e in future
        ),
    ]


Make = Callable[[Sequence[Event]], Model]


def named(model: str, stream: Scenario, chunk: int = 1) -> Make:
    task = stream.card.task
    return lambda events: build(at_drift(model, stream.card), task=task, seed=2, chunk=chunk)


def holds(make: Make, stream: Scenario, chunk: int = 1) -> None:
    """Predictions of the first 70 % of questions stay when all that follows is another.

    All of a chunk is seen at once, so what follows begins with a chunk.
    """
    events = list(stream.events())
    places = [i for i, event in enumerate(events) if event.x is not None]
    cut = places[int(len(places) * 0.7)] // chunk * chunk
    asked = sum(place < cut for place in places)
    moved = other_future(events, cut)
    assert moved != events, "the future did not differ: no test"
    one, two = (
        prequential(make(all_of_it), all_of_it, task=stream.card.task, chunk=chunk).predictions
        for all_of_it in (events, moved)
    )
    assert len(one) == len(two) == len(places)
    assert one[:asked] == two[:asked]


@pytest.mark.parametrize("name", STREAMS)
def test_a_past_prediction_does_not_hang_on_the_future_of_any_stream(name: str) -> None:
    stream = stream_of(name)
    holds(named("sgd@0.01", stream), stream)


@pytest.mark.parametrize(("model", "name"), MODELS)
def test_a_past_prediction_does_not_hang_on_the_future_of_any_model(model: str, name: str) -> None:
    if name.startswith(("open:", "river:")):  # a stand-in that is always there
        name = "random_rbf"
    stream = stream_of(name)
    holds(named(model, stream), stream)


@pytest.mark.parametrize("name", ["users:6", "random_rbf | missing(0.1) | delay(7)"])
@pytest.mark.parametrize("model", ["streammeta", "reset", "no_change", "seasonal@24", "river.hat"])
def test_with_keys_gaps_or_late_labels_a_past_prediction_does_not_hang_on_the_future_either(
    model: str, name: str
) -> None:
    stream = stream_of(name)
    holds(named(model, stream), stream)


@pytest.mark.parametrize("model", SLOW)
def test_a_past_prediction_of_a_slow_ensemble_does_not_hang_on_the_future(model: str) -> None:
    stream = stream_of("random_rbf", FEW)
    holds(named(model, stream), stream)


@pytest.mark.parametrize("name", ["random_rbf", "sea | delay(7)"])
@pytest.mark.parametrize("model", IN_CHUNKS)
def test_in_chunks_a_past_prediction_does_not_hang_on_the_future_either(
    model: str, name: str
) -> None:
    stream = stream_of(name)
    holds(named(model, stream, 16), stream, 16)


@pytest.mark.parametrize("model", IN_CHUNKS)
def test_a_chunk_is_answered_before_any_of_its_labels_is_learned(model: str) -> None:
    stream = stream_of("random_rbf", 160)
    events = list(stream.events())
    labels = [event.y for event in events[64:80]]
    turned = [
        Event(e.id, e.x, y, e.key, e.ts) for e, y in zip(events[64:80], labels[::-1], strict=True)
    ]
    make = named(model, stream, 16)
    one, two = (
        prequential(make(all_of_it), all_of_it, task="classification", chunk=16).predictions
        for all_of_it in (events, [*events[:64], *turned, *events[80:]])
    )
    assert labels != labels[::-1]
    assert one[:80] == two[:80]


class Peeking(Baseline):
    """Answers with the label that a later question will have."""

    def __init__(self, events: Sequence[Event]) -> None:
        super().__init__("classification")
        self._labels = [event.y for event in events]
        self._at = 0

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        self._at += 1
        return self._labels[min(self._at, len(self._labels) - 1)], None

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        pass


def test_a_model_that_peeks_would_be_caught() -> None:
    for chunk in (1, 16):
        with pytest.raises(AssertionError):
            holds(Peeking, stream_of("random_rbf"), chunk)


BYTES = """
import hashlib, sys
from scenarios.bench import Job, run_job
from scenarios.scenario import scenario
for name in sys.argv[1:]:
    seen = hashlib.sha256()
    for event in scenario(name, seed=3, rows=420).events():
        seen.update(repr((event.id, event.key, event.ts, event.x, event.y)).encode())
    result = run_job(Job("sgd@0.01", name, 3, 420)).result
    seen.update(result.losses.tobytes())
    print(name, seen.hexdigest())
"""


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    generated = [n for n in STREAMS if not n.startswith(("open:", "river:", "forecast:etth1"))]
    told = []
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", BYTES, *generated],
            env={**os.environ, "PYTHONHASHSEED": salt},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(done.stdout.splitlines())
    assert told[0] == told[1]
    assert len(told[0]) == len(generated)
