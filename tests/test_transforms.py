"""A transform does what it says and nothing else, in any order, on any scenario."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from change_points import change_point
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.generated import Generated
from scenarios.scenario import Card, Scenario, Transform, scenario, transform
from scenarios.transforms import (
    with_bursts,
    with_delay,
    with_drift,
    with_feature_drift,
    with_label_noise,
    with_label_swap,
    with_missing,
    with_new_classes,
    with_new_features,
    with_permutation,
    with_prior_drift,
    with_seasonality,
    with_vanishing_features,
)
from streammeta.errors import UsageError
from streammeta.events import Event, Label, Value
from streammeta.registry import components

HIDDEN, ROWS = 1_234, 3_000
DRIFTING = ("feature_drift", "prior_drift", "label_swap", "permutation", "new_classes",
            "new_features", "vanishing_features")  # fmt: skip
ANYWHERE: tuple[Transform, ...] = (
    with_feature_drift(), with_label_swap(), with_permutation(), with_label_noise(0.2),
    with_delay(7), with_delay(3, jitter=10), with_missing(0.2), with_missing(0.2, burst=5),
    with_new_features(n=2), with_vanishing_features(), with_bursts(10), with_seasonality(50),
)  # fmt: skip


class Shops(Scenario):
    """Two keys in turns, labels five questions late, one bad record: a stream of all troubles."""

    def __init__(self, rows: int = 60, seed: int = 0) -> None:
        self.seed = seed
        self.card = Card(
            "shops_of_the_test", "classification", rows, (), "two keys", "accuracy 1", "", rows,
            best=1.0, key_drifts={"a": (), "b": ((4, 4),)},
        )  # fmt: skip

    def pairs(self) -> Iterator[tuple[dict[str, Value], Label]]:
        raise AssertionError("a keyed stream is read by its events")

    def events(self) -> Iterator[Event]:
        late: list[Event] = []
        for row in range(self.card.rows):
            if len(late) == 5:
                yield late.pop(0)
            if row == 10:
                yield Event("bad", error=("malformed", "a line"))
            x: dict[str, Value] = {"n": float(row), "m": row % 7, "word": "ab"[row % 2]}
            key = "ab"[row % 2]
            yield Event(f"q{row}", x, None, key, 10.0 * row)
            late.append(Event(f"q{row}", None, ("p", "q", "r")[row % 3], key, 10.0 * row + 50.0))
        yield from late


def questions(stream: Scenario) -> list[Event]:
    return [event for event in stream.events() if event.x is not None]


def labels(stream: Scenario) -> dict[str, Label]:
    return {event.id: event.y for event in stream.events() if event.y is not None}


def features(stream: Scenario) -> list[dict[str, Value]]:
    return [dict(event.x or {}) for event in questions(stream)]


# -- all of them


@pytest.mark.parametrize("name", DRIFTING)
def test_a_hidden_drift_of_every_transform_is_found_within_three_in_a_hundred_rows(
    name: str,
) -> None:
    stream = scenario(f"sine | drift('none') | {name}({HIDDEN})", rows=ROWS)
    assert stream.card.drifts == ((HIDDEN, HIDDEN),)
    assert abs(change_point(stream) - HIDDEN) <= 0.03 * ROWS


@pytest.mark.parametrize("name", DRIFTING)
def test_until_its_row_a_drifting_transform_leaves_everything_as_it_was(name: str) -> None:
    base = scenario("led | drift('none')", seed=3, rows=300)
    changed = list(base | transform(f"{name}(at=(150, 220))"))
    if name == "new_classes":
        assert {y for _, y in changed[:150]} == set(range(8))
        assert 8 in {y for _, y in changed[150:220]}
        assert 9 not in {y for _, y in changed[:220]}
        assert 9 in {y for _, y in changed[220:]}
    else:
        assert changed[:150] == list(base)[:150]
        assert changed[150:] != list(base)[150:]


@pytest.mark.parametrize("step", ANYWHERE, ids=str)
def test_keyed_streams_with_late_labels_keep_their_shape(step: Transform) -> None:
    base = Shops()
    stream = base | step
    one, two = list(base.events()), list(stream.events())
    assert list(stream.events()) == two, "events() must start again"
    assert sorted((e.id, e.key) for e in two) == sorted((e.id, e.key) for e in one)
    assert [e.id for e in questions(stream)] == [e.id for e in questions(base)]
    assert labels(stream).keys() == labels(base).keys()
    assert len(list(stream)) == stream.card.rows == 60
    assert [e.error for e in two if e.error] == [("malformed", "a line")]
    assert list(base.events()) == one, "the base stays as it was"
    drifts = stream.card.drifts
    assert drifts in ((), ((30, 30),))
    expected = {"a": ((15, 15),), "b": ((4, 4), (15, 15))} if drifts else base.card.key_drifts
    assert stream.card.key_drifts == expected


@given(st.lists(st.sampled_from(ANYWHERE), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_what_composes_is_written_down_and_can_be_read_again(steps: list[Transform]) -> None:
    made = scenario("sea", seed=1, rows=80)
    for step in steps[:-1]:
        made = made | step
    before = made
    try:
        made = made | steps[-1]
    except UsageError as fault:
        assert "would vanish" in str(fault)  # noqa: PT017 - three features can vanish twice
        return
    again = scenario(made.card.name, seed=1, rows=80)
    assert again.card == made.card
    assert list(again.events()) == list(made.events())
    starts = [start for start, _ in made.card.drifts]
    assert starts == sorted(set(starts))
    assert set(before.card.drifts) <= set(made.card.drifts)


def test_python_and_text_agree() -> None:
    text = scenario("sea | drift('gradual') | delay(100)", rows=500)
    python = scenario("sea", rows=500) | with_drift("gradual") | with_delay(100)
    both = with_drift("gradual") | with_delay(100)
    at_once = scenario("sea", rows=500) | both
    assert isinstance(both, Transform)
    assert text.card == python.card == at_once.card
    assert list(text.events()) == list(python.events()) == list(at_once.events())
    assert text.card.name == "sea | drift('gradual') | delay(100)"
    assert str(with_drift("gradual", width=500)) == "drift('gradual', width=500)"
    assert with_label_swap([10]) == with_label_swap(10) == transform("label_swap((10,))")  # type: ignore[arg-type]
    assert set(components("transforms")) >= set(DRIFTING) | {"drift", "delay"}


def test_steps_that_touch_different_things_may_change_places() -> None:
    base = scenario("sea", seed=2, rows=300)
    steps = (with_missing(0.3), with_delay(20, jitter=30), with_label_noise(0.3), with_bursts(9))
    forward, backward = base, base
    for step, back in zip(steps, steps[::-1], strict=True):
        forward, backward = forward | step, backward | back
    assert list(forward) == list(backward)


def test_the_same_step_twice_draws_again() -> None:
    stream = scenario("sine | missing(0.2) | missing(0.2)", rows=2_000)
    gone = np.mean([value is None for x in features(stream) for value in x.values()])
    assert gone == pytest.approx(1 - 0.8**2, abs=0.02)


# -- one by one


def test_label_swap_renames_classes_in_a_circle_by_the_row_of_the_question() -> None:
    base, swapped = Shops(), Shops() | with_label_swap((20, 40))
    after = {"p": "q", "q": "r", "r": "p"}
    for row, (event, y) in enumerate(zip(questions(base), labels(base).values(), strict=True)):
        expected = y if row < 20 else after[str(y)] if row < 40 else after[after[str(y)]]
        assert labels(swapped)[event.id] == expected
    assert features(swapped) == features(base)
    assert swapped.card.best == base.card.best
    plain, turned = (scenario(f"friedman{more}", rows=100) for more in ("", " | label_swap"))
    for row, ((_, y), (_, told)) in enumerate(zip(plain, turned, strict=True)):
        assert told == (-y if row >= 50 else y)  # type: ignore[operator]


def test_label_noise_turns_that_share_and_lowers_the_ceiling_by_it() -> None:
    base, noisy = (
        scenario(f"led | drift('none'){more}", rows=5_000) for more in ("", " | label_noise(0.3)")
    )
    other = np.mean([one != two for (_, one), (_, two) in zip(base, noisy, strict=True)])
    assert other == pytest.approx(0.3, abs=0.02)
    assert noisy.card.best == pytest.approx(0.74 * 0.7 + 0.26 * 0.3 / 9, abs=1e-3)
    assert features(base) == features(noisy)
    twice = scenario("sea | label_noise(0.1)")
    assert twice.card.best == pytest.approx(0.82)
    louder = scenario("linear_switch | label_noise(0.12)")
    assert louder.card.best == pytest.approx(0.13 * np.sqrt(2 / np.pi))


def test_label_noise_in_regression_is_gaussian_and_measured() -> None:
    base, noisy = (
        scenario(f"linear_switch{more}", rows=4_000) for more in ("", " | label_noise(0.5)")
    )
    added = np.array([float(b) - float(a) for (_, a), (_, b) in zip(base, noisy, strict=True)])
    assert (added.mean(), added.std()) == pytest.approx((0.0, 0.5), abs=0.03)


def test_a_class_that_is_held_back_is_not_shown_by_noise_either() -> None:
    stream = scenario("random_tree | new_classes(100) | label_noise(0.4)", rows=300)
    assert {y for _, y in list(stream)[:100]} == {0}
    assert scenario("sea | new_classes(0.5)", rows=400).card.best == pytest.approx(0.95)


@pytest.mark.parametrize("delay", [0, 1, 40, 500])
def test_delayed_labels_come_that_many_questions_later(delay: int) -> None:
    asked = 0
    when: dict[str, int] = {}
    for event in scenario(f"sea | delay({delay})", rows=200).events():
        if event.x is not None:
            when[event.id] = asked
            asked += 1
        if event.y is not None:
            waited = asked - 1 - when[event.id]
            assert waited == delay or asked == 200


def test_jitter_brings_labels_between_its_bounds_and_out_of_order() -> None:
    stream, base = scenario("sea | delay(10, jitter=30)", rows=400), scenario("sea", rows=400)
    asked, waits, order = 0, [], []
    when: dict[str, int] = {}
    for event in stream.events():
        if event.x is not None:
            assert event.y is None
            when[event.id] = asked
            asked += 1
        elif asked < 400:
            waits.append(asked - 1 - when[event.id])
            order.append(when[event.id])
    assert min(waits) == 10
    assert 35 <= max(waits) <= 40
    assert order != sorted(order)
    assert list(stream) == list(base), "pairs are joined by id, in the order of the questions"
    assert stream.card.best == base.card.best


def test_delays_add_up() -> None:
    two, one = (
        list(scenario(f"sea | {d}", rows=90).events()) for d in ("delay(9) | delay(5)", "delay(14)")
    )
    assert two == one


@pytest.mark.parametrize("burst", [1, 10])
def test_missing_takes_its_share_of_cells_in_runs_of_its_length(burst: int) -> None:
    stream = scenario(f"hyperplane | missing(0.2, burst={burst})", rows=5_000)
    gone = np.array([[value is None for value in x.values()] for x in features(stream)])
    assert gone.mean() == pytest.approx(0.2, abs=0.02)
    edges = np.diff(np.r_[False, gone[:, 0], False].astype(int)).nonzero()[0]
    runs = edges[1::2] - edges[::2]
    assert runs.mean() == pytest.approx(1.25 if burst == 1 else 10.3, rel=0.12)
    whole = features(scenario("hyperplane", rows=5_000))
    rows = zip(features(stream), whole, strict=True)
    kept = [x[n] for x, was in rows for n in x if x[n] is not None and x[n] != was[n]]
    assert kept == []
    assert (stream.card.best, stream.card.ceiling) == (None, "unknown")


def test_permutation_moves_every_column_and_loses_no_value() -> None:
    base, moved = Shops(), Shops() | with_permutation((20, 40))
    for row, (x, was) in enumerate(zip(features(moved), features(base), strict=True)):
        swapped = {"n": was["m"], "m": was["n"], "word": was["word"]}
        assert x == (swapped if 20 <= row < 40 else was), "two columns: swapped, swapped back"
    x, was = (
        features(s)[-1]
        for s in (scenario("friedman | permutation", rows=50), scenario("friedman", rows=50))
    )
    assert sorted(x.values()) == sorted(was.values())  # type: ignore[type-var]
    assert all(x[name] != was[name] for name in x)


def test_feature_drift_moves_numbers_by_their_spread_and_keeps_words_and_labels() -> None:
    base, moved = (
        scenario(f"hyperplane{more}", rows=600)
        for more in ("", " | feature_drift(300, shift=3.0, share=0.5)")
    )
    then, now = (np.array([list(x.values()) for x in features(s)]) for s in (base, moved))
    change = (now - then)[300:]
    hit = np.abs(change).max(axis=0) > 0
    assert hit.sum() == 5
    assert change[:, hit] == pytest.approx(3.0 * np.sqrt(1 / 12), rel=0.1)
    assert [y for _, y in base] == [y for _, y in moved]
    wide = Shops() | with_feature_drift(30, shift=0.0, scale=2.0)
    for x, was in zip(features(wide)[30:], features(Shops())[30:], strict=True):
        assert x["n"] == pytest.approx(29.5 + 2.0 * (float(was["n"] or 0.0) - 29.5))
        assert x["word"] == was["word"]


def test_new_features_come_and_old_ones_go() -> None:
    more = features(scenario("sea | new_features((10, 20), n=2) | new_features(30)", rows=40))
    assert [len(more[row]) for row in (9, 10, 20, 30)] == [3, 5, 7, 8]
    assert set(more[-1]) == {"x0", "x1", "x2", "new0", "new1", "new2", "new3", "new1_0"}
    fewer = features(scenario("sea | vanishing_features((10, 20))", rows=40))
    assert [len(fewer[row]) for row in (9, 10, 20)] == [3, 2, 1]
    assert set(fewer[20]) < set(fewer[10])
    noise = [
        float(x["new0"] or 0) for x in features(scenario("sea | new_features(1)", rows=2_000))[1:]
    ]
    assert (np.mean(noise), np.std(noise)) == pytest.approx((0.0, 1.0), abs=0.08)


def test_prior_drift_changes_shares_of_labels_and_not_what_they_look_like() -> None:
    stream = scenario("sea | drift('none') | prior_drift((2000, 4000), share=0.8)", rows=6_000)
    assert isinstance(stream, Generated)
    rows = [(x, float(x["x0"] or 0) + float(x["x1"] or 0) > 8.0) for x in features(stream)]
    shares = [np.mean([y for _, y in rows[k : k + 2_000]]) for k in (0, 2_000, 4_000)]
    assert shares == pytest.approx([0.68, 0.2, 0.8], abs=0.03)
    third = [np.mean([x["x2"] for x, _ in rows[k : k + 2_000]]) for k in (0, 2_000, 4_000)]
    assert third == pytest.approx([5.0] * 3, abs=0.3)
    sums = [
        np.mean([x["x0"] + x["x1"] for x, y in rows[k : k + 2_000] if y])  # type: ignore[operator]
        for k in (0, 4_000)
    ]
    assert sums[0] == pytest.approx(sums[1], abs=0.3)
    assert stream.card.best == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["sea", "led", "stagger", "random_rbf"])
def test_the_share_of_prior_drift_is_one_of_true_labels_as_the_card_says(name: str) -> None:
    noisy = scenario(f"{name} | drift('none') | prior_drift(1, share=0.7)", rows=4_001)
    assert isinstance(noisy, Generated)
    assert noisy.card.description.endswith("one class has 70% of the true labels from row 1")
    true = replace(noisy, family=replace(noisy.family, noise=0.0))
    favoured, noise = noisy.family.labels[0], noisy.family.noise
    held, shown = (
        np.mean([y == favoured for _, y in list(stream)[1:]]) for stream in (true, noisy)
    )
    assert held == pytest.approx(0.7, abs=0.025)
    turned_to_it = noise / (len(noisy.family.labels) - 1)
    assert shown == pytest.approx(0.7 * (1.0 - noise) + 0.3 * turned_to_it, abs=0.025)


@pytest.mark.parametrize(("p", "best"), [(0.9, 0.82), (1.0, 0.9), (0.5, 0.5), (0.1, 0.82)])
def test_who_knows_of_the_label_noise_answers_the_other_class_when_it_is_right_more_often(
    p: float, best: float
) -> None:
    base = scenario("sea | drift('none')", rows=4_000)
    assert isinstance(base, Generated)
    true = replace(base, family=replace(base.family, noise=0.0))
    noisy = base | with_label_noise(p)
    assert noisy.card.best == pytest.approx(best)
    assert f"accuracy {best:.4g}" in noisy.card.ceiling
    right = np.mean([one == two for (_, one), (_, two) in zip(true, noisy, strict=True)])
    assert max(right, 1.0 - right) == pytest.approx(best, abs=0.02)


def test_noise_that_makes_the_least_likely_class_the_best_answer_has_no_known_ceiling() -> None:
    card = scenario("led | label_noise(0.95)", rows=100).card
    assert (card.best, card.ceiling) == (None, "unknown")
    assert scenario("random_rbf | label_noise(1.0)", rows=100).card.best is None


def test_bursts_change_event_time_only() -> None:
    stream, base = (
        scenario("sea | delay(3) | bursts(4, gap=10.0)", rows=12),
        scenario("sea | delay(3)", rows=12),
    )
    times = [float(e.ts or 0.0) for e in questions(stream)]
    gaps = np.diff(times)
    assert gaps == pytest.approx([10.001 if row % 4 == 3 else 0.001 for row in range(11)])
    assert [(e.id, e.x, e.y) for e in stream.events()] == [(e.id, e.x, e.y) for e in base.events()]
    whole = [float(e.ts or 0.0) for e in stream.events()]
    assert whole == sorted(whole)


def test_seasons_swing_labels_of_regressions_and_features_of_classifications() -> None:
    base, swung = (
        scenario(f"friedman{more}", rows=200) for more in ("", " | seasonality(40, amplitude=2.0)")
    )
    wave = np.array([float(b) - float(a) for (_, a), (_, b) in zip(base, swung, strict=True)])
    first = np.std([float(y) for _, y in base])
    assert wave == pytest.approx(2.0 * first * np.sin(2 * np.pi * np.arange(200) / 40))
    assert features(base) == features(swung)
    still, moving = Shops(), Shops() | with_seasonality(20)
    assert labels(still) == labels(moving)
    assert [x["word"] for x in features(still)] == [x["word"] for x in features(moving)]
    assert features(moving)[5]["n"] == pytest.approx(5.0 + np.std(range(60)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sea | missing(0.1) | drift('gradual')", "must follow 'sea' at once"),
        ("concept_mix | drift('gradual')", "any scenario takes permutation, label_swap"),
        ("concept_mix | prior_drift", "only generated scenarios"),
        ("friedman | prior_drift", "is a regression"),
        ("sea | prior_drift(label='yes')", "has no class 'yes'; it has False, True"),
        ("sea | new_classes((10, 20))", "one that is there from the start"),
        ("sine_switch | permutation", "needs 2 numeric features or more"),
        ("sea | vanishing_features(n=3)", "3 of 3 features of 'sea' would vanish"),
        ("sea | missing(1.5)", "p=1.5: expected a share"),
        ("sea | missing", "missing 1 required positional argument"),
        ("sea | delay(-1)", "expected 0 or more"),
        ("sea | label_noise(2)", "expected a share of the labels"),
        ("sea | label_swap(0)", "expected rows"),
        ("sea | label_swap(())", "expected a row, a share"),
        ("sea | feature_drift(shift=0.0)", "move nothing"),
        ("sea | seasonality(1)", "expected 2 rows"),
        ("sea | bursts(0)", "expected both above 0"),
        ("sea | mising(0.1)", "did you mean missing"),
        ("stagger | drift('incremental')", "stagger has nothing between two concepts"),
    ],
)
def test_what_cannot_be_changed_says_why(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scenario(text, rows=100)


def test_labels_that_never_come_are_a_wrong_call_and_no_endless_loop() -> None:
    stream = scenario("sea | new_classes(50) | prior_drift(20, label=True)", rows=100)
    with pytest.raises(UsageError, match="none has a label that is admitted"):
        list(stream)
    assert with_new_classes(50) != with_prior_drift(50)
