"""Generated streams drift exactly where their cards say, and nowhere else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice, pairwise
from math import pi, sin

import numpy as np
import pytest
from change_points import change_point
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.generated import Family, Generated, Row, flipped_accuracy, from_streams
from scenarios.scenario import Scenario, scenario
from scenarios.schedule import KINDS, Schedule, rows_of
from scenarios.transforms import with_drift, with_new_classes
from scenarios.transforms.step import EVERY_KIND
from streammeta.errors import UsageError
from streammeta.events import Value

FLIPPED = ("sea", "stagger", "sine", "mixed", "agrawal", "hyperplane", "random_tree",
           "rotating_plane")  # fmt: skip
REGRESSION = ("friedman", "linear_switch", "polynomial_switch")
FAMILIES = (*FLIPPED, *REGRESSION, "led", "random_rbf")
PARAMETRIC = ("sea", "hyperplane", "rotating_plane", "linear_switch", "polynomial_switch")

HIDDEN, ROWS = 1_234, 3_000
TOLERANCE = 0.03 * ROWS


def digest(name: str, seed: int, rows: int) -> str:
    """One hash of everything in every event."""
    told = hashlib.sha256()
    for event in scenario(name, seed=seed, rows=rows).events():
        told.update(repr((event.id, event.x, event.y, event.key, event.ts)).encode())
    return told.hexdigest()


def clean(stream: Scenario) -> Generated:
    """The same stream without turned labels."""
    assert isinstance(stream, Generated)
    return replace(stream, family=replace(stream.family, noise=0.0))


# -- the same seed, the same bytes


@pytest.mark.parametrize("name", FAMILIES)
def test_another_seed_gives_other_rows_and_another_concept_too(name: str) -> None:
    one, other = (list(scenario(name, seed=seed, rows=40)) for seed in (0, 1))
    assert [x for x, _ in one] != [x for x, _ in other]
    assert [y for _, y in one] != [y for _, y in other]
    stream = scenario(name)
    assert isinstance(stream, Generated)
    rows = [list(islice(stream.family.rows(concept, 0), 200)) for concept in (0, 1)]
    assert rows[0] != rows[1]


def test_a_process_with_other_hashes_makes_the_same_bytes() -> None:
    names = [
        *FAMILIES,
        "sea | drift('gradual') | missing(0.1, burst=5) | delay(7, jitter=9)",
        "stagger | drift('recurring', every=20, order='random') | new_features | label_noise(0.2)",
        "led | new_classes((50, 90)) | permutation | vanishing_features(n=3) | label_swap",
        "hyperplane | drift('incremental') | prior_drift | feature_drift(share=0.4) | seasonality",
    ]
    here = {name: digest(name, 5, 150) for name in names}
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[1]); from test_generated import digest; "
        "print(json.dumps({n: digest(n, 5, 150) for n in json.loads(sys.argv[2])}))"
    )
    folder = os.path.dirname(__file__)
    root = os.path.dirname(folder)
    told = subprocess.run(
        [sys.executable, "-c", script, folder, json.dumps(names)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": root},
    )
    assert json.loads(told.stdout) == here
    assert here != {name: digest(name, 6, 150) for name in names}


@pytest.mark.parametrize("kind", ["abrupt", "gradual", "incremental", "recurring", "blips"])
@pytest.mark.parametrize("name", FAMILIES)
def test_until_the_first_drift_the_stream_is_the_one_that_never_drifts(
    name: str, kind: str
) -> None:
    still = scenario(f"{name} | drift('none')", seed=2, rows=300)
    if kind == "incremental" and name not in PARAMETRIC:
        with pytest.raises(UsageError, match="use drift\\('gradual'\\)"):
            scenario(name, rows=300) | with_drift(kind, at=200)
        return
    moving = scenario(name, seed=2, rows=300) | with_drift(kind, at=200)
    first = (moving.card.drifts or moving.card.blips)[0][0]
    assert first == 200
    before, undrifted = list(moving), list(still)
    assert before[:200] == undrifted[:200]
    assert before[200:] != undrifted[200:]
    assert still.card.drifts == still.card.blips == ()


# -- drift points, found from the data


def sea_label(concept: int, x: dict[str, Value]) -> bool:
    return float(x["x0"] or 0) + float(x["x1"] or 0) > (8.0, 9.0, 7.0, 9.5)[concept]


def stagger_label(concept: int, x: dict[str, Value]) -> bool:
    size, colour, shape = x["size"], x["color"], x["shape"]
    return (size == colour == 0, colour == 2 or shape == 0, size != 0)[concept]


def sine_label(concept: int, x: dict[str, Value]) -> bool:
    a, b = float(x["x0"] or 0), float(x["x1"] or 0)
    below = a < sin(b) if concept < 2 else a < 0.5 + 0.3 * sin(3.0 * pi * b)
    return below == (concept in (0, 2))


def mixed_label(concept: int, x: dict[str, Value]) -> bool:
    low = float(x["x3"] or 0) < 0.5 + 0.3 * sin(3.0 * pi * float(x["x2"] or 0))
    return (bool(x["x0"]) + bool(x["x1"]) + low >= 2) == (concept == 1)


def plane_label(stream: Generated) -> Callable[[int, dict[str, Value]], bool]:
    """Own arithmetic with the family's parameters: hyperplane and rotating_plane."""
    between = stream.family.between
    assert between is not None
    vectors = [between.parameters(concept, stream.seed) for concept in range(5)]

    def label(concept: int, x: dict[str, Value]) -> bool:
        values = np.array(list(x.values()), float)
        vector = vectors[concept]
        if stream.family.name == "hyperplane":
            return bool(np.dot(vector, values - 0.5) >= 0.0)
        return bool(np.dot([np.cos(vector[0]), np.sin(vector[0])], values[:2]) > 0.0)

    return label


LABELS = {"sea": sea_label, "stagger": stagger_label, "sine": sine_label, "mixed": mixed_label}


@pytest.mark.parametrize("seed", [0, 8])
@pytest.mark.parametrize("name", [*LABELS, "hyperplane", "rotating_plane"])
def test_the_only_change_points_that_explain_every_label_are_those_of_the_card(
    name: str, seed: int
) -> None:
    stream = clean(scenario(name, seed=seed, rows=2_000))
    label = LABELS.get(name) or plane_label(stream)
    rows = list(stream)
    assert stream.card.drifts == tuple((row, row) for row in (400, 800, 1_200, 1_600))
    known = stream.plan.concepts
    for (start, _), old, new in zip(stream.card.drifts, known, known[1:], strict=False):
        window = range(start - 400, start + 400)
        fits = [[label(concept, rows[r][0]) == bool(rows[r][1]) for r in window]
                for concept in (old, new)]  # fmt: skip
        # a cut is possible when all rows before it fit the old, all from it on the new concept
        possible = [cut for cut in range(1, 800) if all(fits[0][:cut]) and all(fits[1][cut:])]
        assert 400 in possible
        assert len(possible) < 80, "and hardly any other row could be the one"


@pytest.mark.parametrize(("seed", "start"), [(0, 50), (5, 1), (11, 119)])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_row_of_the_card_and_no_other_is_the_first_of_the_new_concepts_own_stream(
    name: str, seed: int, start: int
) -> None:
    noisy = scenario(name, seed=seed, rows=120) | with_drift(at=start)
    stream = clean(noisy)
    rows = list(stream)
    assert [x for x, _ in noisy] == [x for x, _ in rows]
    assert noisy.card.drifts == ((start, start),)

    def changed_at(row: int) -> list[Row]:
        """The rows, if the second concept began here."""
        old, new = (stream.family.rows(concept, seed) for concept in (0, 1))
        return [*islice(old, row), *islice(new, len(rows) - row)]

    assert [row for row in range(len(rows) + 1) if changed_at(row) == rows] == [start]


@pytest.mark.parametrize("name", REGRESSION)
def test_regression_tasks_change_on_the_row_of_the_card(name: str) -> None:
    stream = scenario(f"{name} | drift(every=300)", seed=1, rows=900)
    rows = list(stream)
    found = []
    for start, _ in stream.card.drifts:
        errors = [
            _residuals(name, rows[start - 300 : start + 300], side) for side in ("left", "right")
        ]
        gain = np.cumsum(errors[0] - errors[1])
        found.append(start - 300 + int(np.argmin(gain)) + 1)
    assert found == pytest.approx([300, 600], abs=3)


def _residuals(name: str, rows: list, side: str) -> np.ndarray:  # type: ignore[type-arg]
    """Squared errors of least squares in the family's own basis, fitted to one end."""
    y = np.array([label for _, label in rows])
    x = np.array([list(features.values()) for features, _ in rows])
    if name == "polynomial_switch":
        x = x ** np.arange(1, 4)
    if name == "friedman":
        x = np.c_[x, x**2, np.einsum("ni,nj->nij", x, x)[:, *np.triu_indices(10, 1)]]
    basis = np.c_[np.ones(len(x)), x]
    end = slice(0, 250) if side == "left" else slice(350, 600)
    weights, *_ = np.linalg.lstsq(basis[end], y[end], rcond=None)
    return np.asarray((y - basis @ weights) ** 2)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_hidden_drift_of_every_family_is_found_within_three_in_a_hundred_rows(name: str) -> None:
    # sea's thresholds 8 and 9 tell 8 rows in 100 apart, fewer than its noise: 7 and 9.5 do
    concepts = (2, 3) if name == "sea" else ()
    stream = scenario(name, seed=0, rows=ROWS) | with_drift(at=HIDDEN, concepts=concepts)
    assert stream.card.drifts == ((HIDDEN, HIDDEN),)
    assert abs(change_point(stream) - HIDDEN) <= TOLERANCE


@pytest.mark.parametrize("kind", ["gradual", "incremental"])
@pytest.mark.parametrize("name", ["rotating_plane", "polynomial_switch"])
def test_a_slow_drift_is_found_inside_its_interval(name: str, kind: str) -> None:
    stream = scenario(name, seed=3, rows=ROWS) | with_drift(kind, at=1_000, width=600)
    assert stream.card.drifts == ((1_000, 1_600),)
    assert 1_000 <= change_point(stream) <= 1_600


def test_a_gradual_drift_mixes_two_concepts_as_a_sigmoid_and_ends_with_the_new_one() -> None:
    stream = clean(
        scenario("mixed", seed=1, rows=9_000) | with_drift("gradual", at=3_000, width=3_000)
    )
    new = np.array([mixed_label(1, x) == bool(y) for x, y in stream])  # concepts never agree
    assert not new[:3_000].any()
    assert new[6_000:].all()
    tenths = new[3_000:6_000].reshape(10, 300).mean(axis=1)
    expected = 1.0 / (1.0 + np.exp(-10.0 * (np.arange(3_000) / 3_000 - 0.5)))
    assert tenths == pytest.approx(expected.reshape(10, 300).mean(axis=1), abs=0.08)


def test_an_incremental_drift_moves_in_a_straight_line_and_arrives() -> None:
    stream = clean(
        scenario("rotating_plane", rows=6_000) | with_drift("incremental", at=2_000, width=2_000)
    )
    label = plane_label(stream)
    rows = list(stream)
    agree = np.array([[label(c, x) == y for x, y in rows] for c in (0, 1)])
    assert agree[0, :2_000].all()
    assert agree[1, 4_000:].all()
    middle = agree[:, 2_950:3_050].mean(axis=1)
    assert middle == pytest.approx([5 / 6, 5 / 6], abs=0.1), "30 of 180 degrees from both"


def test_a_blip_is_an_excursion_after_which_the_old_concept_is_back() -> None:
    stream = clean(scenario("mixed", rows=400) | with_drift("blips", at=(100, 250), width=30))
    away = [row for row, (x, y) in enumerate(stream) if mixed_label(0, x) != bool(y)]
    assert away == [*range(100, 130), *range(250, 280)]
    assert stream.card.blips == ((100, 129), (250, 279))
    assert stream.card.drifts == ()


def test_recurring_concepts_come_back_in_a_cycle_or_at_random() -> None:
    cycle = scenario("agrawal", rows=900) | with_drift("recurring", every=100)
    assert isinstance(cycle, Generated)
    assert cycle.plan.concepts == (0, 1, 2, 0, 1, 2, 0, 1, 2)
    orders = set()
    for seed in range(5):
        made = scenario("agrawal", seed=seed, rows=4_000) | with_drift(
            "recurring", every=100, order="random"
        )
        assert isinstance(made, Generated)
        order = made.plan.concepts
        assert set(order) == {0, 1, 2}
        assert all(one != two for one, two in pairwise(order))
        orders.add(order)
    assert len(orders) == 5


def test_a_concept_that_comes_back_goes_on_where_it_was_left() -> None:
    rows = list(scenario("sea | drift('recurring', every=50, concepts=(0, 1))", rows=150))
    alone = list(scenario("sea | drift('none')", rows=100))
    assert [x for x, _ in rows[:50] + rows[100:]] == [x for x, _ in alone]


# -- the ceiling


@pytest.mark.parametrize("name", FLIPPED)
def test_the_share_of_turned_labels_is_what_the_ceiling_says(name: str) -> None:
    noisy = scenario(name, seed=4, rows=4_000)
    pairs = list(zip(noisy, clean(noisy), strict=True))
    assert all(x == true_x for (x, _), (true_x, _) in pairs), "noise changes labels only"
    right = np.mean([y == true for (_, y), (_, true) in pairs])
    assert noisy.card.best == pytest.approx(0.9)
    assert right == pytest.approx(noisy.card.best, abs=0.015)


@pytest.mark.parametrize(
    ("name", "share"), [("sea", 0.9), ("sea", 1.0), ("rotating_plane", 0.3), ("sea", 0.5)]
)
def test_who_knows_everything_answers_the_other_class_where_most_labels_are_turned(
    name: str, share: float
) -> None:
    quiet = clean(scenario(name, rows=4_000))
    loud = replace(quiet, family=replace(quiet.family, noise=share))
    right = np.mean([one == two for (_, one), (_, two) in zip(quiet, loud, strict=True)])
    assert loud.card.best == pytest.approx(max(share, 1.0 - share))
    assert loud.card.best == pytest.approx(max(right, 1.0 - right), abs=0.02)
    held = loud | with_new_classes(0.5)
    assert held.card.best == pytest.approx(0.5 + 0.5 * max(share, 1.0 - share))


@given(
    p=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6).filter(lambda p: sum(p) > 0.1),
    share=st.floats(0.0, 1.0),
)
def test_flipped_accuracy_is_that_of_the_best_answer_to_turned_labels(
    p: list[float], share: float
) -> None:
    before = np.array(p) / sum(p)
    others = (1.0 - np.eye(len(p))) / (len(p) - 1)
    after = before @ ((1.0 - share) * np.eye(len(p)) + share * others)
    found = flipped_accuracy(float(before.max()), share, len(p))
    if found is None:
        assert len(p) > 2
        assert share > 1.0 - 1.0 / len(p), "up to there the likeliest class stays it"
    else:
        assert found == pytest.approx(after.max())
    assert flipped_accuracy(0.7, share, 1) == 0.7, "one class cannot become another"


def test_leds_ceiling_is_what_the_best_guess_from_the_segments_scores() -> None:
    from scenarios.families.endless import SEGMENTS

    stream = scenario("led | drift('none')", rows=8_000)
    digits = np.array([[int(s) for s in digit] for digit in SEGMENTS])
    rows = list(stream)
    shown = np.array([list(x.values())[:7] for x, _ in rows])
    wrong = (shown[:, None, :] != digits).sum(axis=2)
    truth = np.array([y for _, y in rows])
    assert np.mean(shown != digits[truth]) == pytest.approx(0.10, abs=0.005)
    assert stream.card.best == pytest.approx(0.74, abs=0.001)
    assert np.mean(wrong.argmin(axis=1) == truth) == pytest.approx(0.74, abs=0.02)


def test_the_mean_absolute_error_of_the_true_function_is_the_ceiling() -> None:
    friedman = scenario("friedman | drift('none')", rows=5_000)
    linear = scenario("linear_switch | drift('none')", rows=5_000)
    assert isinstance(linear, Generated)
    assert linear.family.between is not None
    weights = linear.family.between.parameters(0, 0)
    errors = {
        "friedman": [
            y - (10 * sin(pi * x["x0"] * x["x1"]) + 20 * (x["x2"] - 0.5) ** 2  # type: ignore[operator]
                 + 10 * x["x3"] + 5 * x["x4"])  # type: ignore[operator]
            for x, y in friedman
        ],
        "linear": [y - weights[0] - np.dot(weights[1:], list(x.values())) for x, y in linear],  # type: ignore[arg-type]
    }  # fmt: skip
    assert np.mean(np.abs(errors["friedman"])) == pytest.approx(friedman.card.best, rel=0.04)
    assert np.mean(np.abs(errors["linear"])) == pytest.approx(linear.card.best, rel=0.04)


# -- schedules


@given(
    kind=st.sampled_from([kind for kind in KINDS if kind != "none"]),
    every=st.integers(2, 300),
    rows=st.integers(1, 1_000),
    available=st.sampled_from([2, 3, 10, None]),
)
@settings(max_examples=60, deadline=None)
def test_every_row_has_a_ruling_and_every_interval_lies_inside_the_rows(
    kind: str, every: int, rows: int, available: int | None
) -> None:
    plan = Schedule(kind, every=every).plan(rows, available)
    rulings = list(plan.rulings())
    assert len(rulings) == rows
    assert all(0.0 < ruling.weight <= 1.0 for ruling in rulings)
    assert available is None or all(max(ruling[:2]) < available for ruling in rulings)
    for start, end in plan.drifts + plan.blips:
        assert 0 < start <= end < rows
        assert rulings[start] != rulings[start - 1], "the first row in which something may be new"
    for start, end in plan.drifts:
        assert rulings[end].weight == 1.0 or end == rows - 1
        assert all(ruling.weight < 1.0 for ruling in rulings[start:end])


@given(
    kind=st.sampled_from([kind for kind in KINDS if kind != "none"]),
    every=st.integers(3, 300),
    rows=st.integers(301, 1_000),
    seed=st.integers(0, 9),
)
@settings(max_examples=40, deadline=None)
def test_every_so_many_rows_is_the_same_as_at_these_rows(
    kind: str, every: int, rows: int, seed: int
) -> None:
    width = None if kind == "abrupt" else every // 3
    order = "random" if kind == "recurring" else "cyclic"
    at = tuple(range(every, rows, every))
    one = Schedule(kind, every=every, width=width, order=order).plan(rows, 4, seed)
    assert one == Schedule(kind, at=at, width=width, order=order).plan(rows, 4, seed)
    assert [start for start, _ in one.drifts or one.blips] == list(at)


def test_without_a_word_there_are_five_equal_stretches_of_whatever_is_asked_for() -> None:
    for name in set(FAMILIES) - set(REGRESSION):
        assert scenario(name, rows=2_000).card.drifts == tuple(
            (k, k) for k in range(400, 2_000, 400)
        )
    assert scenario("sea").card.rows == scenario("sea").card.default_rows == 20_000
    assert len(scenario("linear_switch").card.drifts) == 299
    assert rows_of((0.5, 10), 100) == (10, 50)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": "gradul"}, "did you mean gradual"),
        ({"every": 10, "at": 5}, "one of the two"),
        ({"every": 0}, "1 or more"),
        ({"at": 0}, "rows \\(1, 2, ...\\) or shares"),
        ({"at": 1.0}, "shares between"),
        ({"width": 10}, "use kind 'gradual'"),
        ({"kind": "gradual", "at": (100, 110), "width": 20}, "until the next, row 110"),
        ({"order": "random"}, "only for kind 'recurring'"),
        ({"concepts": (0, 7)}, "no concept 7; known: 0 to 3"),
        ({"concepts": (1, 1)}, "nothing would change at row"),
        ({"kind": "blips", "concepts": (1,)}, "a second concept"),
    ],
)
def test_a_schedule_that_cannot_be_says_why(given: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scenario("sea", rows=1_000) | with_drift(**given)  # type: ignore[arg-type]


# -- a user's own streams, River


@pytest.mark.parametrize("name", ["sine_switch", "sensor_fault"])
@pytest.mark.parametrize("kind", KINDS)
def test_who_asks_a_stream_without_concepts_to_drift_is_named_two_that_can(
    name: str, kind: str
) -> None:
    with pytest.raises(UsageError, match="take every kind of drift") as refused:
        scenario(f"{name} | drift({kind!r})", rows=400)
    task = scenario(name, rows=10).card.task
    for able in EVERY_KIND[task].split(" and "):
        assert able in str(refused.value)
        stream = scenario(f"{able} | drift({kind!r})", rows=400)
        assert stream.card.task == task
        assert bool(stream.card.drifts or stream.card.blips) == (kind != "none")


def test_ones_own_streams_become_concepts() -> None:
    from river.datasets import synth

    low = [({0: float(i), "a": "w"}, "low") for i in range(30)]
    concepts = (low, synth.SEA(seed=1), scenario("sine", rows=50))
    stream = from_streams(*concepts, task="classification", rows=200, schedule=Schedule(every=40))
    rows = list(stream)
    assert stream.card.drifts == ((40, 40), (80, 80), (120, 120), (160, 160))
    assert rows[0] == rows[30] == ({"x0": 0.0, "a": "w"}, "low"), "a list starts over"
    assert set(rows[40][0]) == {"x0", "x1", "x2"}
    assert rows[80:120] == list(islice(scenario("sine", rows=50), 40))
    assert rows == list(stream)
    gradual = stream | with_drift("gradual", at=0.5)
    assert gradual.card.name == "streams | drift('gradual', at=0.5)"
    assert from_streams(low, task="classification", rows=50).card.drifts == ()


@pytest.mark.parametrize(
    ("streams", "words"),
    [((), "one stream or more"), (((i for i in range(3)),), "read only once")],
)
def test_streams_that_cannot_be_concepts_say_why(streams: tuple[object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_streams(*streams, task="classification")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has no rows"):
        list(from_streams([], task="classification"))


def test_a_family_of_ones_own_takes_part() -> None:
    family = Family(
        name="ones", task="classification", description="", reference="",
        rows=lambda concept, seed: iter(lambda: ({"a": 1.0}, concept), None),
        concepts=2, labels=(0, 1),
    )  # fmt: skip
    assert [y for _, y in Generated(family, Schedule(at=3), rows=6)] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    "name", ["sea", "friedman | delay(20) | missing(0.0)", "led | drift('gradual')"]
)
def test_rivers_own_evaluation_reads_them(name: str) -> None:
    from river import evaluate, linear_model, metrics, preprocessing, tree

    stream = scenario(name, rows=400)
    if stream.card.task == "regression":
        model = preprocessing.StandardScaler() | linear_model.LinearRegression()
        metric = evaluate.progressive_val_score(stream, model, metrics.MAE())
        assert 0.0 < metric.get() < 20.0
    else:
        tree_ = tree.HoeffdingTreeClassifier()
        metric = evaluate.progressive_val_score(stream, tree_, metrics.Accuracy())
        assert metric.get() > (0.5 if name == "sea" else 0.15)
