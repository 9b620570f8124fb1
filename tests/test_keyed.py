"""Keyed scenarios: each key drifts where its card says, and nowhere else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.keyed.fleet import KeyedScenario
from scenarios.keyed.sensors import Sensors, basis
from scenarios.keyed.shops import HOLIDAY, SEASON, WEEK, Shops, noise_error
from scenarios.keyed.users import KINDS, NUMBERS, Users, design
from scenarios.models import build
from scenarios.prequential import prequential
from scenarios.scenario import Span, scenario
from streammeta.errors import UsageError
from streammeta.events import Event

ALL = (Sensors, Shops, Users)
PRINT = """
from hashlib import sha256
from scenarios.scenario import scenario
for name in ("sensors:7", "shops:7", "users:7"):
    print(sha256(repr(list(scenario(name, seed=3, rows=500).events())).encode()).hexdigest())
"""


def rows_of(stream: KeyedScenario) -> dict[str, list[Event]]:
    """The events of each key, in their order."""
    found: dict[str, list[Event]] = {}
    for event in stream.events():
        found.setdefault(event.key, []).append(event)
    return found


def test_the_same_seed_gives_the_same_bytes_in_every_process() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", PRINT],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": salt},
        ).stdout
        for salt in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert len(set(runs[0].split())) == 3


@pytest.mark.parametrize("kind", ALL)
def test_another_seed_gives_other_events_and_events_may_be_asked_for_again(
    kind: type[KeyedScenario],
) -> None:
    stream = kind(seed=3, rows=200)
    first = list(stream.events())
    assert first == list(stream.events())
    other = kind(seed=4, rows=200)
    assert [e.y for e in first] != [e.y for e in other.events()]
    assert list(stream) == [(e.x, e.y) for e in first]


@pytest.mark.parametrize("kind", ALL)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 3_000),
    keys=st.integers(1, 12),
    late=st.sampled_from([0.0, 0.2, 0.9]),
)
@settings(max_examples=15, deadline=None)
def test_a_card_says_each_drift_twice_in_rows_of_the_key_and_of_the_stream(
    kind: type[KeyedScenario], seed: int, rows: int, keys: int, late: float
) -> None:
    stream = kind(seed=seed, rows=rows, keys=keys, late=late)
    places: dict[str, list[int]] = {}
    last = float("-inf")
    for row, event in enumerate(stream.events()):
        places.setdefault(event.key, []).append(row)
        assert event.id == f"{stream.name}:0:{row}"
        assert event.ts is not None
        assert event.ts >= last, "event time must not run backwards"
        last = event.ts
    card = stream.card
    assert card.rows == rows == sum(map(len, places.values()))
    assert set(card.key_drifts) == set(places)
    told = sorted(
        (places[key][start], places[key][end])
        for key, spans in card.key_drifts.items()
        for start, end in spans
    )
    assert list(card.drifts) == told
    starts = [start for start, _ in card.drifts]
    assert len(set(starts)) == len(starts)
    assert all(0 < start <= end < rows for start, end in card.drifts)
    assert set(starts) <= set(card.announcements)


@pytest.mark.parametrize("kind", ALL)
@given(seed=st.integers(0, 1_000), cut=st.integers(1, 900))
@settings(max_examples=6, deadline=None)
def test_more_rows_only_add_rows_at_the_end(kind: type[KeyedScenario], seed: int, cut: int) -> None:
    short = kind(seed=seed, rows=cut)
    long = kind(seed=seed, rows=900)
    assert list(short.events()) == list(islice(long.events(), cut))


@pytest.mark.parametrize("kind", ALL)
def test_what_a_key_does_depends_neither_on_the_others_nor_on_the_interleaving(
    kind: type[KeyedScenario],
) -> None:
    few = rows_of(kind(seed=1, rows=800, keys=4, late=0.0))
    many = rows_of(kind(seed=1, rows=2_400, keys=12, late=0.0))
    for key, events in few.items():
        shared = min(len(events), len(many[key]))
        assert shared > 20
        assert [(e.x, e.y) for e in events[:shared]] == [(e.x, e.y) for e in many[key][:shared]]


@pytest.mark.parametrize("kind", [Sensors, Shops])
def test_every_key_that_has_come_takes_one_turn_a_round(kind: type[KeyedScenario]) -> None:
    stream = kind(seed=2, rows=4_000, keys=10, late=0.3)
    rounds: dict[float, list[str]] = {}
    for event in stream.events():
        rounds.setdefault(event.ts or 0.0, []).append(event.key)
    *whole, _ = rounds.values()
    for before, after in pairwise(whole):
        assert len(set(after)) == len(after)
        assert set(before) <= set(after), "a key that has come stays"
    assert len(whole[0]) == 7
    assert len(whole[-1]) == 10
    assert whole[-1] != whole[-2], "the order within a round changes"


@pytest.mark.parametrize(("kind", "window"), [(Sensors, 150), (Shops, 150), (Users, 3_000)])
def test_late_keys_come_late_and_are_announced_at_their_first_row(
    kind: type[KeyedScenario], window: int
) -> None:
    stream = kind(seed=5, rows=8_000, keys=10, late=0.4)
    announced = {
        text.partition(":")[0]: row
        for row, text in stream.card.announcements.items()
        if text.endswith("first row")
    }
    assert len(announced) == 4
    assert "10 keys (4 late)" in stream.card.description
    events = list(stream.events())
    for key, row in announced.items():
        assert events[row].key == key
        assert all(event.key != key for event in events[:row])
    if kind is Users:
        assert all(row >= 500 for row in announced.values())
    else:
        step = next(e.ts for e in events if e.ts)
        assert step is not None
        assert all(20 <= (events[row].ts or 0.0) / step <= window for row in announced.values())
    none = kind(seed=5, rows=300, keys=10, late=0.0)
    assert not any("first row" in text for text in none.card.announcements.values())


def test_users_come_at_rates_of_their_own() -> None:
    counts = Counter(event.key for event in Users(seed=0, rows=6_000, late=0.0).events())
    assert max(counts.values()) > 8 * min(counts.values())


def refit(design: np.ndarray, y: np.ndarray, window: int, tolerance: float) -> list[Span]:
    """Drifts of a key from its rows alone: where a linear fit breaks, and where the next holds.

    The model of the first ``window`` rows holds until a residual is above ``tolerance``; from
    there on the first window that one model fits again is where the drift has ended.
    """

    def worst(begin: int) -> tuple[np.ndarray, float]:
        rows = slice(begin, begin + window)
        numbers = np.linalg.lstsq(design[rows], y[rows], rcond=None)[0]
        return numbers, float(np.abs(y[rows] - design[rows] @ numbers).max())

    found: list[Span] = []
    begin = 0
    while begin + window <= len(y):
        numbers, _ = worst(begin)
        broken = np.flatnonzero(np.abs(y[begin:] - design[begin:] @ numbers) > tolerance)
        if not len(broken):
            break
        start = end = begin + int(broken[0])
        while end + window <= len(y) and worst(end)[1] > tolerance:
            end += 1
        found.append((start, end))
        begin = end
    return found


def sensor_table(events: list[Event]) -> tuple[np.ndarray, np.ndarray]:
    x = [dict(e.x or {}) for e in events]
    columns = [np.array([row[name] for row in x], float) for name in ("reading", "temperature")]
    return basis(*columns), np.array([e.y for e in events], float)


def shop_table(events: list[Event]) -> tuple[np.ndarray, np.ndarray]:
    rows = [dict(e.x or {}) for e in events]
    season = [SEASON[WEEK.index(str(row["weekday"]))] for row in rows]
    price = np.log(np.array([row["price"] for row in rows], float))
    promo = np.array([row["promo"] for row in rows], float)
    holiday = np.array([row["holiday"] for row in rows], float)
    demand = np.log(np.array([e.y for e in events], float))
    return np.stack([np.ones(len(rows)), season, price, promo], axis=1), demand - HOLIDAY * holiday


@pytest.mark.parametrize(
    ("kind", "table", "window"), [(Sensors, sensor_table, 30), (Shops, shop_table, 60)]
)
def test_without_noise_a_keys_own_rows_show_exactly_the_drifts_of_its_card(
    kind: type[KeyedScenario], table: object, window: int
) -> None:
    stream = kind(seed=0, rows=9_000, keys=15, noise=1e-9)
    abrupt = gradual = 0
    for key, events in rows_of(stream).items():
        told = [d for d in stream.card.key_drifts[key] if d[1] + window <= len(events)]
        found = refit(*table(events), window, 1e-6)  # type: ignore[operator]
        assert found[: len(told)] == told, key
        abrupt += sum(start == end for start, end in told)
        gradual += sum(start < end for start, end in told)
    assert min(abrupt, gradual) >= 8


@pytest.mark.parametrize(
    ("kind", "table", "margin"), [(Sensors, sensor_table, 2), (Shops, shop_table, 6)]
)
def test_through_the_noise_an_abrupt_drift_is_where_two_models_fit_best(
    kind: type[KeyedScenario], table: object, margin: int
) -> None:
    stream = kind(seed=1, rows=9_000, keys=15)
    off = []
    for key, events in rows_of(stream).items():
        design, y = table(events)  # type: ignore[operator]
        for begin, change, end in stretches(stream.card.key_drifts[key], len(events)):
            costs = split_costs(design[begin:end], y[begin:end])
            off.append(abs(begin + int(np.argmin(costs)) - change[0]))
    assert len(off) >= 8
    assert np.mean(np.array(off) <= margin) >= 0.9, off


def test_a_users_change_of_mind_is_where_two_preferences_fit_best() -> None:
    stream = Users(seed=0, rows=9_000)
    off = []
    for key, events in rows_of(stream).items():
        numbers = np.array([[(e.x or {})[n] for n in NUMBERS] for e in events], float)
        kinds = np.array([KINDS.index(str((e.x or {})["kind"])) for e in events])
        items = np.hstack([design(numbers, kinds), np.ones((len(events), 1))])
        liked = np.where(np.array([e.y for e in events]) == "liked", 1.0, -1.0)
        for begin, change, end in stretches(stream.card.key_drifts[key], len(events)):
            costs = split_costs(items[begin:end], liked[begin:end])
            off.append(abs(begin + int(np.argmin(costs)) - change[0]))
    assert len(off) >= 8
    assert np.median(off) <= 5, off


def stretches(drifts: tuple[Span, ...], rows: int) -> list[tuple[int, Span, int]]:
    """Each abrupt drift with 40 rows on either side, from the drift before to the one after."""
    ends = [0, *(end for _, end in drifts)]
    starts = [*(start for start, _ in drifts), rows]
    return [
        (ends[i], drift, starts[i + 1])
        for i, drift in enumerate(drifts)
        if drift[0] == drift[1] and drift[0] - ends[i] > 40 and starts[i + 1] - drift[0] > 40
    ]


def split_costs(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared error of two least-squares models, one before and one from each row on."""

    def cost(rows: slice) -> float:
        numbers = np.linalg.lstsq(design[rows], y[rows], rcond=None)[0]
        return float(np.sum((y[rows] - design[rows] @ numbers) ** 2))

    least = 2 * design.shape[1]
    costs = np.full(len(y), np.inf)
    for at in range(least, len(y) - least):
        costs[at] = cost(slice(at)) + cost(slice(at, None))
    return costs


@pytest.mark.parametrize("kind", ALL)
def test_the_best_of_the_card_is_what_the_ideal_answers_score(kind: type[KeyedScenario]) -> None:
    stream = kind(seed=7, rows=12_000)
    truth = [event.y for event in stream.events()]
    ideal = list(stream.ideal())
    best = stream.card.best
    assert best is not None
    if stream.card.task == "classification":
        right = np.mean([a == b for a, b in zip(ideal, truth, strict=True)])
        assert right == pytest.approx(best, abs=0.006)
    else:
        error = np.abs(np.array(ideal, float) - np.array(truth, float)).mean()
        assert error == pytest.approx(best, rel=0.03)
    assert f"{best:.4f}" in stream.card.ceiling


def test_the_cost_of_log_normal_noise_is_its_integral() -> None:
    draws = np.random.default_rng(0).standard_normal(200_000)
    assert noise_error(0.3) == pytest.approx(np.abs(np.exp(0.3 * draws) - 1).mean(), rel=0.01)


def test_shops_differ_in_level_as_in_life() -> None:
    levels = [np.median([float(e.y or 0) for e in events]) for events in rows_of(Shops()).values()]
    assert max(levels) > 10 * min(levels)


@pytest.mark.parametrize("name", ["sensors", "shops", "users"])
def test_the_number_of_keys_is_part_of_the_name(name: str) -> None:
    stream = scenario(f"{name}:7", rows=4_000)
    assert len({event.key for event in stream.events()}) == len(stream.card.key_drifts) == 7
    assert scenario(name, rows=10).card.default_rows > scenario(f"{name}:7").card.rows
    for wrong in ("0", "-3", "many"):
        with pytest.raises(UsageError, match="whole number above 0"):
            scenario(f"{name}:{wrong}")


@pytest.mark.parametrize(
    "options", [{"keys": 0}, {"late": 1.0}, {"late": -0.1}, {"noise": -1.0}], ids=str
)
@pytest.mark.parametrize("kind", ALL)
def test_a_fleet_that_cannot_be_says_so(
    kind: type[KeyedScenario], options: dict[str, float]
) -> None:
    with pytest.raises(UsageError, match="expected keys >= 1"):
        kind(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="below"):
        Users(noise=0.5)


@pytest.mark.parametrize("kind", [Sensors, Users])
def test_shuffling_the_future_leaves_every_past_prediction_as_it_was(
    kind: type[KeyedScenario],
) -> None:
    cut, rows = 240, 300
    stream = kind(seed=2, rows=rows, keys=5, late=0.4)
    events = list(stream.events())
    future = events[cut:]
    labels = [event.y for event in future]
    random.Random(0).shuffle(labels)
    random.Random(1).shuffle(future)
    moved = [Event(e.id, e.x, y, e.key, e.ts) for e, y in zip(future, labels, strict=True)]
    task = stream.card.task
    one = prequential(build("streammeta", task=task), events)
    two = prequential(build("streammeta", task=task), events[:cut] + moved)
    assert len(one.predictions) == rows
    assert one.predictions[:cut] == two.predictions[:cut]
    assert one.predictions[cut:] != two.predictions[cut:], "the future did not differ: no test"


@pytest.mark.parametrize(("name", "chunk"), [("sensors:6 | delay(200)", 1), ("sensors:6", 16)])
def test_an_alarm_of_a_key_is_counted_in_that_keys_rows(name: str, chunk: int) -> None:
    stream = scenario(name, seed=0, rows=2_400)
    model = build("streammeta", task=stream.card.task, chunk=chunk)
    result = prequential(model, stream.events())
    assert result.key_alarms, "no alarm: no test"
    for key, alarms in result.key_alarms.items():
        rows = sum(result.key_names[number] == key for number in result.keys)
        assert alarms == sorted(alarms)
        assert all(0 <= alarm < rows for alarm in alarms)
