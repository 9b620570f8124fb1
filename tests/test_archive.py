"""The archive of past segments: what is kept, what goes, and what it is worth when it returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_families import CENTRE, SCALE, Stream, both_tasks, made

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event, Scored
from streammeta.experts.archive import LEAST, PLACES, Archive, most_alike
from streammeta.experts.kernels import CLASSIFICATION, REGRESSION
from streammeta.pooling import MIXTURES
from streammeta.snapshot import Snapshot

TURNS = (400, 800)  # rows at which a world turns round, and back


def archive(task: int) -> Archive:
    family = made("archive", task)
    assert isinstance(family, Archive)
    return family


def events(rows: int, turns: tuple[int, ...] = TURNS, classes: bool = True) -> list[Event]:
    """A label that hangs on two numbers; at each turn it is the other one."""
    rng, told = np.random.default_rng(0), []
    for row in range(rows):
        a, b = rng.normal(size=2)
        value = float((2.0 * a - b) * (-1.0) ** sum(row >= turn for turn in turns))
        told.append(Event(f"e{row}", {"a": a, "b": b}, str(value > 0.0) if classes else value))
    return told


def engine(turns: tuple[int, ...] = TURNS, **changes: Any) -> Engine:
    """A small model that is told where the world turns."""
    small = {"experts": ("archive", "persistence"), "challengers": 0, "known_drifts": turns}
    return Engine(ModelConfig.model_validate({"task": "classification"} | small | changes))


def scored(model: Engine, shown: list[Event]) -> list[Scored]:
    outputs = [o for event in shown for o in (*model.observe([event]), *model.replay())]
    return [o for o in outputs if isinstance(o, Scored)]


# -- what it knows -----------------------------------------------------------------------------


@both_tasks
def test_a_concept_that_returns_is_answered_at_once(task: int) -> None:
    stream, family = Stream(task), archive(task)
    stream.teach(family, 1_000)
    stream.turned = True
    stream.teach(family, 1_000)
    stream.turned = False
    losses = stream.loss(family)[family.awake(0)]
    assert len(losses) == 2
    assert losses[0] < 0.25 * losses[1], "the first has seen it, the second its reverse"


def test_the_answer_hears_the_archive_within_tens_of_rows() -> None:
    experts = ("networks", "persistence")
    shown = events(TURNS[1] + 60)
    later = {
        names: np.mean([s.loss for s in scored(engine(experts=names), shown)[TURNS[1] + 10 :]])
        for names in (experts, ("networks", "archive", "persistence"))
    }
    without, kept = later.values()
    assert kept < 0.5 * without
    assert kept < 0.15


@both_tasks
def test_moments_that_move_change_nothing_that_is_kept(task: int) -> None:
    stream, family = Stream(task), archive(task)
    stream.teach(family, 500)
    raws = np.array([stream.row()[0] for _ in range(50)])
    before = stream.ask(family, raws)
    stream.means += 5.0
    stream.spreads *= 9.0
    if task == REGRESSION:
        stream.units[:] = CENTRE - 30.0, 2.0 * SCALE
        before = (CENTRE + SCALE * before - stream.units[0, 0]) / stream.units[0, 1]
    awake = family.awake(0)
    np.testing.assert_allclose(stream.ask(family, raws)[:, awake], before[:, awake], 1e-9)


def test_a_column_that_never_varied_says_nothing_later() -> None:
    stream, family = Stream(CLASSIFICATION), archive(CLASSIFICATION)
    fixed = [2, 4]
    for _ in range(400):
        raw, truth = stream.row()
        raw[fixed] = 1.0, 0.0
        slot = stream.seen
        stream.every_row[:, slot], stream.every_target[:, slot] = raw, truth
        stream.seen += 1
    assert stream.end(family) == [0]
    raw, _ = stream.row()
    raws = np.tile(raw, (4, 1))
    raws[1:, 2], raws[2:, 4] = (1.0, 50.0, np.nan), 1.0
    said = stream.ask(family, raws)[:, 0]
    np.testing.assert_array_equal(said, np.tile(said[0], (4, 1)))


def test_a_class_of_later_is_not_expected_by_the_past() -> None:
    stream, family = Stream(CLASSIFICATION), archive(CLASSIFICATION)
    family.widen_outputs(4)
    stream.teach(family, 300)
    family.seed_class(2)
    stream.n_classes = 3
    said = stream.ask(family, np.array([stream.row()[0] for _ in range(20)]), outputs=4)[:, 0]
    assert not said[:, 2:].any()
    np.testing.assert_allclose(said.sum(1), 1.0, atol=1e-6)


# -- what it keeps -----------------------------------------------------------------------------


def test_segments_that_are_too_short_are_not_kept() -> None:
    stream, family = Stream(CLASSIFICATION), archive(CLASSIFICATION)
    stream.teach(family, 1_000)
    assert stream.end(family, rows=LEAST - 1) == []
    assert family.awake(0).sum() == 1
    assert stream.end(family, rows=LEAST) == [1]
    assert family.awake(0).tolist() == [True, True] + (PLACES - 2) * [False]


def test_the_rows_of_the_new_segment_do_not_count() -> None:
    """The segment is told late: the newest rows are of the world turned round."""
    stream, family = Stream(CLASSIFICATION), archive(CLASSIFICATION)
    stream.add(family, 500)
    stream.turned = True
    stream.add(family, 500)
    assert stream.end(family, rows=500, late=500) == [0]
    turned = stream.loss(family)[0]
    stream.turned = False
    assert stream.loss(family)[0] < 0.2 < 0.8 < turned


def test_what_is_rare_stays_and_what_is_common_takes_turns() -> None:
    stream, family = Stream(CLASSIFICATION), archive(CLASSIFICATION)
    stream.turned = True
    stream.teach(family, 600)
    stream.turned = False
    for segment in range(PLACES + 3):
        stream.add(family, 300)
        born = stream.end(family, rows=300)
        assert family.awake(0)[born].tolist() == [True], "the newcomer always stays"
        assert family.awake(0).sum() == min(segment + 2, PLACES - 1)
    stream.turned = True
    losses = stream.loss(family)
    assert family.awake(0)[0]
    assert losses[0] < 0.2 < losses[1:][family.awake(0)[1:]].min()


@given(st.integers(0, 4), st.integers(0, 4), st.permutations(range(1, 6)))
def test_of_the_two_that_say_the_same_the_older_goes(one: int, other: int, ages: list[int]) -> None:
    if one == other:
        return
    said = np.random.default_rng(0).normal(size=(20, 5, 2))
    said[:, one] = said[:, other] + 1e-3
    kept = np.array(ages)
    assert most_alike(said, kept) == min(one, other, key=lambda member: kept[member])


# -- in the model ------------------------------------------------------------------------------


def test_an_empty_place_is_no_member_and_a_newcomer_begins_anew() -> None:
    model, shown = engine(), events(TURNS[0] + 1)
    assert all("archive-1" not in (s.experts or {}) for s in scored(model, shown[:-1]))
    state = model.state
    assert not state.bank.live[0, state.in_families].any()
    state.exponents[0, :PLACES], state.squares[0, :PLACES] = 7.0, 7.0
    scored(model, shown[-1:])
    first = state.in_families.start
    assert np.flatnonzero(state.bank.live[0, state.in_families]).tolist() == [0]
    assert state.exponents[0, first] == 0.0
    assert state.exponents[0, first + 1] == 7.0, "the others are left alone"
    assert state.bank.births[0, first] == TURNS[0] + 1
    assert len(state.exponents[0]) == len(state.member_names) + MIXTURES


def test_a_newcomer_is_not_judged_by_questions_from_before_it() -> None:
    model, shown = engine(), events(TURNS[0] + 2)
    scored(model, shown[: TURNS[0] - 1])
    early = shown[TURNS[0] - 1]
    model.observe([Event(early.id, early.x)])
    scored(model, shown[TURNS[0] :][:1])
    answers = [o for o in model.observe([Event(early.id, y=early.y)]) if isinstance(o, Scored)]
    assert answers[0].experts is not None
    assert "archive-1" not in answers[0].experts
    (after,) = scored(model, shown[TURNS[0] + 1 :])
    assert after.experts is not None
    assert "archive-1" in after.experts


@pytest.mark.parametrize("chunk", [1, 16])
@pytest.mark.parametrize("classes", [True, False])
def test_it_goes_on_where_it_was_stopped(chunk: int, classes: bool) -> None:
    task = "classification" if classes else "regression"
    model, shown = engine(task=task, chunk=chunk), events(1_000, classes=classes)
    for start in range(0, 900, chunk):
        model.observe(shown[start : start + chunk])
    kept = Snapshot.from_bytes(model.snapshot().to_bytes())
    other = Engine.restore(model.config, kept)
    assert other.state.bank.live[0, other.state.in_families].sum() == 2
    assert other.observe(shown[912:]) == model.observe(shown[912:])


def test_a_model_that_forgets_everything_forgets_its_archive() -> None:
    model = engine(on_drift="reset")
    scored(model, events(TURNS[0] + 1))
    assert not model.state.bank.live[0, model.state.in_families].any()


def test_what_a_segment_leaves_to_do_waits_for_time_between_events_and_is_never_lost() -> None:
    """The alarm's own event is not held up; a snapshot in between has it, and so has whoever never
    takes time: it is done before the next event."""
    shown = events(TURNS[0] + 40)
    cut = TURNS[0] + 1
    whole, hasty = engine(), engine()
    scored(whole, shown[:cut])
    for event in shown[:cut]:
        hasty.observe([event])
    assert whole.state.unsettled == set()
    assert hasty.state.unsettled == {0}
    assert not hasty.state.bank.live[0, hasty.state.in_families].any()
    resumed = Engine.restore(hasty.config, hasty.snapshot())
    answers = [
        [s.loss for event in shown[cut:] for s in model.observe([event]) if isinstance(s, Scored)]
        for model in (whole, hasty, resumed)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert resumed.state.bank.live[0, resumed.state.in_families].sum() == 1
