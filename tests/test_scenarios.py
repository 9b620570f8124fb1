"""Scenarios do what their cards say, and nothing in the loop can see the future."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.concept_mix import CHANGES, ConceptMix, _concept
from scenarios.models import build, split
from scenarios.open_stream import available, unavailable
from scenarios.prequential import events_of, prequential
from scenarios.scenario import Scenario, scenario
from scenarios.sensor_fault import SensorFault
from scenarios.sine_switch import NOISE, TASK_ROWS, SineSwitch
from scenarios.suites import forecast, river
from streammeta.errors import SourceError, UsageError
from streammeta.events import Event
from streammeta.sources import IterableSource
from streammeta.sources.labels import delayed

ALL = (SineSwitch, ConceptMix, SensorFault)


@pytest.mark.parametrize("kind", ALL)
def test_the_same_seed_gives_the_same_events_and_another_seed_others(
    kind: type[Scenario],
) -> None:
    one, two, other = kind(seed=3), kind(seed=3), kind(seed=4)
    first = list(islice(one.events(), 300))
    assert first == list(islice(two.events(), 300))
    assert first == list(islice(one.events(), 300)), "events() must start again"
    assert [e.x for e in first] != [e.x for e in islice(other.events(), 300)]


@pytest.mark.parametrize("kind", ALL)
@given(seed=st.integers(0, 2**31), rows=st.integers(1, 400))
@settings(max_examples=8, deadline=None)
def test_a_card_counts_its_rows_and_keeps_its_drifts_inside(
    kind: type[Scenario], seed: int, rows: int
) -> None:
    made = kind(seed=seed, rows=rows)  # type: ignore[call-arg]
    assert len(list(made)) == made.card.rows == rows
    assert all(0 < start <= end < rows for start, end in made.card.drifts)


def test_sine_switch_is_one_sine_between_two_switches() -> None:
    rows = list(islice(SineSwitch(seed=1), 2 * TASK_ROWS))
    for task in (rows[:TASK_ROWS], rows[TASK_ROWS:]):
        x = np.array([row["x"] for row, _ in task], float)
        y = np.array([label for _, label in task], float)
        waves = np.stack([np.sin(x), np.cos(x)], axis=1)  # A sin(x - phi) lies in their span
        _, residual, *_ = np.linalg.lstsq(waves, y, rcond=None)
        assert residual[0] / TASK_ROWS == pytest.approx(NOISE**2, rel=0.5)


def test_the_first_fault_swaps_the_wires_and_the_second_swaps_others() -> None:
    stream = SensorFault(seed=0)
    seen = [x for x, _ in stream]
    order = np.concatenate(stream._orders)
    true = [stream._rows[i][0] for i in order]
    first, second = stream.faults
    assert 3_000 <= first <= 3_200
    assert 6_200 <= second <= 6_400
    assert seen[:first] == true[:first]
    assert seen[first]["rawred-mean"] == true[first]["rawblue-mean"]
    assert seen[first]["saturation-mean"] == true[first]["saturation-mean"]
    assert seen[second]["exred-mean"] == true[second]["exgreen-mean"]
    assert seen[second]["rawblue-mean"] == true[second]["rawblue-mean"]
    assert set(stream.card.announcements) == {first, second}
    hues = np.array([[s["hue-mean"], t["hue-mean"]] for s, t in zip(seen, true, strict=True)])
    assert np.ptp(hues[first:].sum(axis=1)) == pytest.approx(0.0, abs=1e-9)


def test_concept_mix_leaves_one_label_in_ten_wrong_in_every_stretch() -> None:
    stream = ConceptMix(seed=5)
    rows = [(list(x.values()), y) for x, y in stream]
    for stretch in range(5):
        begin = 0 if stretch == 0 else sum(CHANGES[stretch - 1])
        end = CHANGES[stretch][0] if stretch < 4 else len(rows)
        wrong = np.mean([_concept(stretch, x) != (y == "up") for x, y in rows[begin:end]])  # type: ignore[arg-type]
        assert wrong == pytest.approx(0.10, abs=0.015)


def test_the_best_of_every_card_is_the_score_of_who_knows_everything() -> None:
    waves, mix, fault = SineSwitch(seed=1, rows=4_000), ConceptMix(seed=5), SensorFault(seed=0)
    points = np.array([[x["x"], y] for x, y in waves], float)
    errors = []
    for x, y in (task.T for task in points.reshape(-1, TASK_ROWS, 2)):
        span = np.stack([np.sin(x), np.cos(x)], axis=1)  # A sin(x - phi) lies in it
        errors.extend(np.abs(y - span @ np.linalg.lstsq(span, y, rcond=None)[0]))
    assert waves.card.best == pytest.approx(np.mean(errors), rel=0.05)
    assert waves.card.ceiling.startswith("mean squared error 0.0025 (noise), mean absolute error")
    first = islice(mix, CHANGES[0][0])
    right = [_concept(0, list(x.values())) == (y == "up") for x, y in first]  # type: ignore[arg-type]
    assert mix.card.best == pytest.approx(np.mean(right), abs=0.015)
    alike: dict[tuple[int, tuple[object, ...]], set[object]] = {}
    for row, (x, label) in enumerate(fault):
        stretch = sum(row >= first for first in fault.faults)
        alike.setdefault((stretch, tuple(x.values())), set()).add(label)
    assert all(len(labels) == 1 for labels in alike.values())
    assert fault.card.best == 1.0


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=25))
def test_every_answer_waits_its_own_number_of_questions(rows: list[tuple[int, bool]]) -> None:
    """Whether it comes with its question or right after it; all the same is one number."""
    events: list[Event] = []
    for row, (_, apart) in enumerate(rows):
        y = None if apart else row
        events.append(Event(str(row), {"a": 0.0}, y, ts=float(row)))
        if apart:
            events.append(Event(str(row), None, row, ts=float(row)))
    waits = [wait for wait, _ in rows]
    told = list(delayed(events, waits))
    asked = 0
    for event in told:
        if event.x is not None:
            assert event.y is None
            asked += 1
        else:
            row = int(event.id)
            assert event.y == row
            assert asked == min(row + 1 + waits[row], len(rows))
            assert event.ts == float(asked - 1)
    assert len(told) == 2 * len(rows)
    assert list(delayed(events, [3] * len(rows))) == list(delayed(events, 3))


def shuffled_future(stream: Scenario, cut: int) -> list[Event]:
    """The events with everything from ``cut`` on in another order, labels given to other rows."""
    events = list(stream.events())
    future = events[cut:]
    labels = [event.y for event in future]
    random.Random(0).shuffle(labels)
    random.Random(1).shuffle(future)
    moved = [Event(e.id, e.x, y, e.key, e.ts) for e, y in zip(future, labels, strict=True)]
    return events[:cut] + moved


@pytest.mark.parametrize("name", ["no_change", "river.nb", "sgd@1e-2", "streammeta"])
@pytest.mark.parametrize("chunk", [1, 16])
@pytest.mark.parametrize("kind", [SensorFault, SineSwitch])
def test_shuffling_the_future_leaves_every_past_prediction_as_it_was(
    name: str, chunk: int, kind: type[Scenario]
) -> None:
    cut, rows = 320, 400
    stream = kind(seed=2, rows=rows)  # type: ignore[call-arg]
    task = stream.card.task
    if name == "river.nb" and task == "regression":
        name = "river.linear"
    given = {"task": task, "chunk": chunk}
    one = prequential(build(name, **given), stream.events())  # type: ignore[arg-type]
    two = prequential(build(name, **given), shuffled_future(stream, cut))  # type: ignore[arg-type]
    assert len(one.predictions) == len(two.predictions) == rows
    assert one.predictions[:cut] == two.predictions[:cut]
    assert one.predictions[cut:] != two.predictions[cut:], "the future did not differ: no test"
    assert list(one.losses[:cut]) == list(two.losses[:cut])


def test_a_result_is_the_json_object_of_the_conventions() -> None:
    result = prequential(
        build("no_change", task="classification"), ConceptMix(rows=50).events(), name="no_change"
    )
    told = result.to_json()
    assert list(told)[:6] == [
        "model",
        "rows",
        "metric",
        "events_per_second",
        "seconds",
        "peak_rss_mb",
    ]
    assert told["rows"] == 50
    assert told["metric"]["kappa_temporal"] == 0.0
    assert told["latency_us"]["p50"] <= told["latency_us"]["p99"] <= told["latency_us"]["max"]
    assert (told["drifts"], told["seed"], told["chunk"]) == ([], 0, 1)


def test_a_source_is_read_to_its_end_whatever_the_batch() -> None:
    source = IterableSource(lambda: ConceptMix(rows=37), "mix")
    assert len(list(events_of(source, batch=5))) == 37


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("streamata", "did you mean streammeta"),
        ("frozen@soon", "expected a row"),
        ("sgd@fast", "expected a rate above 0"),
        ("sgd@-1", "expected a rate above 0"),
        ("river.forest", "known: river.hat"),
        ("river.linear", "no form for classification"),
        ("river.no_such:Thing", "cannot import"),
        ("river.os:system", "os:system cannot be made: TypeError"),
        ("no_drift@3", "takes no argument"),
    ],
)
def test_a_model_that_cannot_be_had_says_why(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        build(name, task="classification")


WORDY = [Event(str(i), {"a": float(i % 5), "w": "xy"[i % 2]}, "pq"[i % 2]) for i in range(60)]


@pytest.mark.parametrize("name", ["hat", "logistic", "nb", "knn"])
def test_the_short_names_of_river_can_be_given_words_beside_numbers(name: str) -> None:
    result = prequential(build(f"river.{name}", task="classification"), WORDY)
    assert result.scores.n == 60
    assert result.metric["accuracy"] > (0.9 if name in ("logistic", "knn") else 0.0)


def test_a_river_estimator_that_cannot_use_a_row_is_a_wrong_call_that_names_the_row() -> None:
    model = build("river.river.naive_bayes:GaussianNB", task="classification")
    with pytest.raises(UsageError, match="GaussianNB cannot use row 1 of this stream"):
        model.observe(WORDY)


def test_model_names_are_split_once_and_the_prefix_is_optional() -> None:
    assert split("streammeta.frozen@12") == ("frozen", "12")
    assert split("river.tree:HoeffdingTreeClassifier") == (
        "river",
        "tree:HoeffdingTreeClassifier",
    )
    made = build("river.river.tree:HoeffdingTreeClassifier", task="classification")
    assert type(made.estimator).__name__ == "HoeffdingTreeClassifier"  # type: ignore[attr-defined]


def test_open_streams_come_from_the_folder_that_the_variable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMMETA_DATA", raising=False)
    assert not available("open:sine1")
    with pytest.raises(SourceError, match="set STREAMMETA_DATA=FOLDER"):
        scenario("open:sine1")
    (tmp_path / "mine.csv").write_text("a,target\n1,x\n2,y\n3,x\n")
    monkeypatch.setenv("STREAMMETA_DATA", str(tmp_path))
    with pytest.raises(SourceError, match=r"no sine1.csv.gz; it has: mine"):
        scenario("open:sine1")
    stream = scenario("open:mine", rows=2)
    assert (stream.card.task, stream.card.rows, stream.card.drifts) == ("classification", 2, ())
    assert list(stream) == [({"a": 1.0}, "x"), ({"a": 2.0}, "y")]


def test_whoever_asks_why_data_is_absent_is_told_what_the_error_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMMETA_DATA", raising=False)
    monkeypatch.setenv("RIVER_DATA", str(tmp_path))
    for name in ("open:sine1", "open:elec2 | delay(3)", "river:Elec2", "elec2", "open:"):
        with pytest.raises((SourceError, UsageError)) as absent:
            scenario(name)
        assert unavailable(name) == str(absent.value)
        assert not available(name)
    assert "datasets.Elec2().download()" in unavailable("river:Elec2")
    assert unavailable(f"file:{tmp_path}/none.csv@y") == f"{tmp_path}/none.csv: no such file"
    assert unavailable("sea | delay(3)") == unavailable("river:Phishing") == ""


@pytest.mark.parametrize("name", ["open", "open:", "open:@price", "open:?horizon=3"])
def test_an_open_stream_without_a_name_is_told_those_that_are_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"expected open:NAME.*known: elec2, weather, .*etth1"):
        scenario(name)


def test_suites_say_of_absent_data_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STREAMMETA_DATA", raising=False)
    monkeypatch.setenv("RIVER_DATA", str(tmp_path))
    told = forecast.SUITE.unavailable("forecast:etth1@24")
    assert "set STREAMMETA_DATA=FOLDER" in told
    assert forecast.SUITE.unavailable("forecast:regimes@24") == ""
    assert "Insects().download()" in river.SUITE.unavailable("river:Insects")


def test_rivers_data_sets_are_scenarios_too() -> None:
    stream = scenario("river:Phishing", rows=10)
    assert (stream.card.task, len(list(stream))) == ("classification", 10)
    with pytest.raises(UsageError, match="did you mean Phishing"):
        scenario("river:Fishing")
