"""Families of experts: laws that all of them keep, and kernels beside what they stand for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from streammeta.boxed import Box
from streammeta.config import ModelConfig
from streammeta.encode import CLIP
from streammeta.engine import Engine
from streammeta.events import Event
from streammeta.experts import hat_kernels, heads, memory
from streammeta.experts.archive import Archive
from streammeta.experts.family import KEYS, PAST, Family, Space, World, boxed_world
from streammeta.experts.hats import Hats
from streammeta.experts.heads import Heads
from streammeta.experts.kernels import CLASSIFICATION, DECAY, EPS, REGRESSION
from streammeta.experts.memory import Memory
from streammeta.experts.moca_expert import MocaExpert
from streammeta.experts.trees import Trees
from streammeta.replay import SegmentRows

Floats = NDArray[np.float64]
WIDTH, HATTED, KEYS_HERE = 5, 4, 3
MEANS, SPREADS = np.array([3.0, 3.0, 3.0, 3.0, 0.0]), np.array([4.0, 4.0, 4.0, 4.0, 1.0])
CENTRE, SCALE = 100.0, 7.0  # of values
FAMILIES: dict[str, Any] = {
    name: lambda outputs, make=make: make(
        Space(WIDTH, HATTED, outputs, REGRESSION if outputs == 1 else CLASSIFICATION, seed=3)
    )
    for name, make in (
        ("hats", Hats), ("heads", Heads), ("memory", Memory), ("trees", Trees),
        ("archive", Archive), ("moca", MocaExpert),
    )
}  # fmt: skip
both_tasks = pytest.mark.parametrize("task", [CLASSIFICATION, REGRESSION])
every_family = pytest.mark.parametrize("name", FAMILIES)


class Stream:
    """Rows of one key whose label depends on two of its columns; the last column is a code. With
    the chance of ``strays`` a class is drawn instead."""

    def __init__(self, task: int, seed: int = 0, missing: float = 0.0, strays: float = 0.0) -> None:
        self.task, self.rng, self.missing = task, np.random.default_rng(seed), missing
        self.strays = strays
        self.scaled = np.array([1.0, 1.0, 1.0, 1.0, 0.0])
        self.every_row, self.every_target = (
            np.zeros((KEYS_HERE, PAST, WIDTH)),
            np.zeros((KEYS_HERE, PAST)),
        )
        self.rows, self.targets, self.seen = self.every_row[0], self.every_target[0], 0
        self.n_classes, self.classes = (2 if task == CLASSIFICATION else 1), np.zeros(1, np.int64)
        self.counted, self.turned = np.zeros((2, KEYS_HERE), np.int64), False
        units = (0.0, 1.0) if task == CLASSIFICATION else (CENTRE, SCALE)
        each = (KEYS_HERE, 1)
        self.means, self.spreads = np.tile(MEANS, each), np.tile(SPREADS, each)
        self.units = np.tile(units, each)
        self.box: Box = boxed_world(World(
            self.scaled, np.zeros((KEYS_HERE, WIDTH)), self.means, self.spreads,
            self.units, self.classes, self.every_row, self.every_target,
            np.zeros((KEYS_HERE, PAST), np.int64), *self.counted, task,
        ))  # fmt: skip

    def row(self) -> tuple[Floats, float]:
        raw = self.rng.normal(size=WIDTH)
        raw[4] = float(self.rng.random() < 0.5)
        bent = abs(raw[0]) - 0.8 + 0.3 * raw[1]
        bent = -bent if self.turned else bent
        truth = float(bent > 0.0) if self.task == CLASSIFICATION else CENTRE + SCALE * bent
        if self.strays and self.rng.random() < self.strays:
            truth = float(self.rng.random() < 0.5)
        raw = MEANS + np.sqrt(SPREADS) * raw
        raw[self.rng.random(WIDTH) < self.missing] = math.nan
        return raw, truth

    def world(self) -> Box:
        """Of several keys that all see the same."""
        self.counted[0], self.counted[1] = self.seen, min(self.seen, PAST)
        self.classes[0] = self.n_classes
        return self.box

    def end(self, family: Family, key: int = 0, rows: int = PAST, late: int = 0) -> list[int]:
        """The segment of the newest ``rows``, or of those before ``late`` ones of the next, ends;
        which members have begun anew."""
        box = self.world()
        self.counted[1] = late
        family.close(key, box, min(self.seen, rows))
        return family.settle(key, box).tolist()

    def teach(self, family: Family, rows: int, key: int = 0) -> None:
        """So many rows of a segment, which then ends."""
        self.add(family, rows, key)
        self.end(family, key)

    def add(self, family: Family, rows: int, key: int = 0) -> None:
        for _ in range(rows):
            raw, truth = self.row()
            slot = self.seen % PAST
            self.every_row[:, slot], self.every_target[:, slot] = raw, truth
            self.seen += 1
            family.learn(key, self.world())

    def ask(self, family: Family, raw: Floats, key: int = 0, outputs: int = 0) -> Floats:
        out = np.zeros((len(raw), len(family.names), outputs or self.n_classes))
        family.predict(key, raw, self.world(), out, 0)
        return out

    def loss(self, family: Family, rows: int = 400) -> Floats:
        """Of each member: errors, or mean absolute errors."""
        shown = [self.row() for _ in range(rows)]
        said = self.ask(family, np.array([raw for raw, _ in shown]))
        truths = np.array([truth for _, truth in shown])
        if self.task == REGRESSION:
            off: Floats = np.abs(said[:, :, 0] - (truths[:, None] - CENTRE) / SCALE)
        else:
            off = (said.argmax(2) != truths[:, None]).astype(np.float64)
        found: Floats = off.mean(0)
        return found


def made(name: str, task: int, keys: int = 1) -> Family:
    family: Family = FAMILIES[name](2 if task == CLASSIFICATION else 1)
    family.grow_keys(keys)
    return family


# -- laws --------------------------------------------------------------------------------------


@every_family
@both_tasks
def test_every_member_learns(name: str, task: int) -> None:
    stream, family = Stream(task), made(name, task)
    before = stream.loss(family)
    stream.teach(family, 1_000)
    stream.add(family, 500)  # some members begin anew with a segment
    # the rule bends: for a line there is a story of its own below
    bends = np.array([name != "head@line" for name in family.names])
    awake = family.awake(0) & bends
    assert awake.any()
    assert (stream.loss(family) < 0.6 * before)[awake].all()


@every_family
@both_tasks
def test_asking_changes_nothing(name: str, task: int) -> None:
    stream, family = Stream(task), made(name, task)
    stream.teach(family, 250)
    kept = {n: a.copy() for n, a in family.tensors().items()}
    first = stream.ask(family, np.array([stream.row()[0] for _ in range(20)]))
    assert np.isfinite(first).all()
    for n, array in family.tensors().items():
        np.testing.assert_array_equal(array, kept[n])


@every_family
def test_a_batch_is_answered_like_its_rows_and_probabilities_add_up(name: str) -> None:
    stream, family = Stream(CLASSIFICATION), made(name, CLASSIFICATION)
    stream.teach(family, 250)
    raws = np.array([stream.row()[0] for _ in range(30)])
    together = stream.ask(family, raws)
    for i, raw in enumerate(raws):
        np.testing.assert_array_equal(stream.ask(family, raw[None])[0], together[i])
    assert (together >= 0.0).all()
    np.testing.assert_allclose(together.sum(2)[:, family.awake(0)], 1.0, atol=1e-6)


@every_family
@both_tasks
def test_what_is_missing_is_borne(name: str, task: int) -> None:
    stream, family = Stream(task, missing=0.3), made(name, task)
    stream.teach(family, 400)
    raws = np.array([stream.row()[0] for _ in range(50)])
    raws[0] = math.nan
    assert np.isfinite(stream.ask(family, raws)).all()


@every_family
@both_tasks
def test_tensors_hold_all_there_is(name: str, task: int) -> None:
    stream, family = Stream(task), made(name, task)
    stream.teach(family, 250)
    other = made(name, task)
    other.load({n: a.copy() for n, a in family.tensors().items()})
    stream.teach(family, 1)
    other.learn(0, stream.world())  # the same row again, for the other
    stream.end(other)
    for n, array in family.tensors().items():
        np.testing.assert_array_equal(array, other.tensors()[n])


@every_family
def test_keys_know_nothing_of_each_other(name: str) -> None:
    alone, both = made(name, CLASSIFICATION), made(name, CLASSIFICATION, keys=2)
    one, again, other = Stream(0, seed=1), Stream(0, seed=1), Stream(0, seed=2)
    one.teach(alone, 250)
    again.teach(both, 125)
    other.teach(both, 260, key=1)
    both.grow_keys(4)
    again.teach(both, 125)
    for n, array in alone.tensors().items():
        np.testing.assert_array_equal(array[0], both.tensors()[n][0])
    both.start(0)
    for n, array in made(name, CLASSIFICATION).tensors().items():
        np.testing.assert_array_equal(array[0], both.tensors()[n][0])


@every_family
def test_room_for_more_classes_changes_no_answer(name: str) -> None:
    stream, family = Stream(CLASSIFICATION), made(name, CLASSIFICATION)
    stream.teach(family, 250)
    raws = np.array([stream.row()[0] for _ in range(10)])
    before = stream.ask(family, raws)
    family.widen_outputs(4)
    np.testing.assert_array_equal(stream.ask(family, raws, outputs=4)[:, :, :2], before)
    family.seed_class(2)
    stream.n_classes = 3
    stream.teach(family, 20)
    assert np.isfinite(stream.ask(family, raws, outputs=4)).all()


def test_further_keys_take_no_room() -> None:
    family = made("hats", CLASSIFICATION, keys=3 * KEYS)
    assert all(len(array) == KEYS for array in family.tensors().values())
    family.start(2 * KEYS)  # has none, and that is no error


def test_a_model_of_more_keys_than_have_families_goes_on_where_it_was_stopped() -> None:
    rng = np.random.default_rng(0)
    keys = KEYS + 4

    def event(row: int) -> Event:
        a, b = rng.normal(size=2)
        return Event(f"e{row}", {"a": a, "b": b}, str(a > b), key=f"key {row % keys}")

    engine = Engine(ModelConfig(task="classification", challengers=0))
    events = [event(row) for row in range(8 * keys)]
    engine.observe(events[: 6 * keys])
    state = engine.state
    families = [name for family in state.families for name in family.names]
    assert state.member_names[state.in_families] == families
    awake = np.concatenate([family.awake(KEYS - 1) for family in state.families])
    np.testing.assert_array_equal(state.bank.live[KEYS - 1, state.in_families], awake)
    assert not state.bank.live[KEYS, state.in_families].any()
    assert (state.pool_weights[state.in_families] > -12.0).any(), "keys without them say nothing"
    other = Engine.restore(engine.config, engine.snapshot())
    assert engine.observe(events[6 * keys :]) == other.observe(events[6 * keys :])


def test_a_reset_begins_every_family_anew() -> None:
    rng = np.random.default_rng(1)
    engine = Engine(ModelConfig(task="classification", on_drift="reset", known_drifts=(300,)))
    for row in range(420):
        a, b = rng.normal(size=2)
        up = (a > b) == (row < 300)
        engine.observe([Event(f"e{row}", {"a": a, "b": b}, str(up))])
    state = engine.state
    assert 100 < state.past.count[0] <= 120
    for family in state.families:
        if isinstance(family, Memory):
            kept = np.abs(family.table.kept[0]).sum(0) > 0.0
            assert kept.sum() == state.past.count[0]
        if isinstance(family, Hats):
            (steps,) = family.table.steps
            assert set(steps[family.batches == 1].tolist()) == {state.past.count[0]}
            assert (steps[family.batches > 1] < state.past.count[0]).all()  # now and then


def test_rows_that_keep_their_places_are_inside_up_to_the_first_older_one() -> None:
    rows = SegmentRows(1, 1, size=8)
    for row in (0, 1, 2, 5, 3, 6, 7):  # the label of row 3 came late
        rows.add(0, row, np.array([float(row)]), 0.0)
    kept = rows.raw[0].copy()
    rows.shorten(0, 4)
    assert rows.inside[0] == 2, "rows 6 and 7: before them stands 3"
    np.testing.assert_array_equal(rows.raw[0], kept)
    rows.shorten(0, 0)
    assert rows.inside[0] == 2


# -- hats --------------------------------------------------------------------------------------


def coded(family: Hats, raw: Floats) -> NDArray[np.float32]:
    """All inputs ``(N,)`` of a row, by numpy's own interpolation."""
    knots, n_knots = family.table.knots[0], family.table.n_knots[0]
    bins = knots.shape[1]
    found = np.zeros(family.inputs, np.float32)
    for c, value in enumerate(raw):
        place = c * (1 + bins) if c < HATTED else HATTED * bins + c
        found[place] = np.clip((value - MEANS[c]) / np.sqrt(SPREADS[c]), -CLIP, CLIP)
        if c < HATTED and n_knots[c] >= hat_kernels.FEWEST_KNOTS:
            own = knots[c, : n_knots[c]]
            for k in range(len(own)):
                found[place + 1 + k] = np.interp(value, own, np.eye(len(own))[k])
    return found


def test_networks_on_hats_are_dense_networks() -> None:
    """Answers and one step, beside the same in numpy with every zero multiplied out."""
    stream, family = Stream(CLASSIFICATION), made("hats", CLASSIFICATION)
    assert isinstance(family, Hats)
    stream.teach(family, 300)
    raw, _ = stream.row()
    x, hidden = coded(family, raw), family.net.sizes[1]
    cut = family.inputs * hidden
    for e in range(len(family.rates) - 1):  # the last one draws others
        theta = family.table.theta[0, e].astype(np.float64)
        w1, b1 = theta[:cut].reshape(-1, hidden), theta[cut : cut + hidden]
        w2, b2 = theta[cut + hidden : -2].reshape(hidden, 2), theta[-2:]
        h = np.maximum(x @ w1 + b1, 0.0)
        p = np.exp(h @ w2 + b2)
        p /= p.sum()
        strays = family.table.strays[0, e]
        p = strays / 2 + (1.0 - strays) * p
        np.testing.assert_allclose(stream.ask(family, raw[None])[0, e], p, atol=1e-5)
    before = {n: a[0].copy() for n, a in family.tensors().items()}
    stream.teach(family, 1)
    newest = (stream.seen - 1) % PAST
    x, truth = coded(family, stream.rows[newest]), int(stream.targets[newest])
    theta = before["theta"][0].astype(np.float64)
    w1, b1 = theta[:cut].reshape(-1, hidden), theta[cut : cut + hidden]
    w2, b2 = theta[cut + hidden : -2].reshape(hidden, 2), theta[-2:]
    h = np.maximum(x @ w1 + b1, 0.0)
    p = np.exp(h @ w2 + b2)
    p = p / p.sum() - np.eye(2)[truth]
    delta = (h > 0.0) * (w2 @ p)
    g = np.concatenate([np.outer(x, delta).ravel(), delta, np.outer(h, p).ravel(), p])
    second = before["second"][0].astype(np.float64)
    second = np.where(g != 0.0, DECAY * second + (1.0 - DECAY) * g * g, second)
    correction = 1.0 - float(DECAY) ** float(before["steps"][0] + 1)
    moved = theta - family.rates[0] * g / (np.sqrt(second / correction) + EPS)
    np.testing.assert_allclose(family.table.theta[0, 0], moved, atol=1e-5)


@given(
    st.lists(st.floats(-50, 50), min_size=3, max_size=10, unique=True),
    st.lists(st.floats(-60, 60), min_size=3, max_size=10, unique=True),
)
@settings(max_examples=50, deadline=None)
def test_moved_knots_keep_the_function(old: list[float], new: list[float]) -> None:
    """At its new knots a column means what it meant."""
    bins = 10
    before, after = np.zeros(bins), np.zeros(bins)
    before[: len(old)], after[: len(new)] = sorted(old), sorted(new)
    if min(np.diff(before[: len(old)])) < 1e-6 or min(np.diff(after[: len(new)])) < 1e-6:
        return
    weights = np.random.default_rng(0).normal(size=(bins, 2)).astype(np.float32)
    expected = np.array([
        [np.interp(k, before[: len(old)], weights[: len(old), j]) for j in range(2)]
        for k in after[: len(new)]
    ])  # fmt: skip
    hat_kernels.move_knots(weights, before, len(old), after, len(new))
    np.testing.assert_allclose(weights[: len(new)], expected, atol=1e-4)
    assert not weights[len(new) :].any()


def test_knots_are_the_values_where_they_are_few_and_quantiles_otherwise() -> None:
    out = np.zeros(10)
    few = np.array([2.0, 1.0, 2.0, 7.0, math.nan, 1.0])
    assert hat_kernels.find_knots(few, 10, out) == 3
    assert out[:3].tolist() == [1.0, 2.0, 7.0]
    many = np.random.default_rng(0).exponential(size=5_000)
    assert hat_kernels.find_knots(many, 10, out) == 10
    inner = np.array([(many <= knot).mean() for knot in out])
    np.testing.assert_allclose(inner, np.linspace(0.005, 0.995, 10), atol=0.001)
    assert hat_kernels.find_knots(np.full(5, math.nan), 10, out) == 0


# -- moca --------------------------------------------------------------------------------------


@both_tasks
def test_moca_believes_in_a_run_that_began_with_the_change(task: int) -> None:
    """Nobody tells it of the change, and 30 rows later it knows the row."""
    stream, family = Stream(task), made("moca", task)
    assert isinstance(family, MocaExpert)
    stream.add(family, 600)
    stream.turned = True
    at_once = stream.loss(family)
    stream.add(family, 30)
    runs = family.runs[0]
    likeliest = int(runs.start[0, int(runs.log_belief[0].argmax())])
    assert abs(likeliest - (runs.row - 30)) <= 3
    assert stream.loss(family) < 0.5 * at_once


# -- heads -------------------------------------------------------------------------------------


def test_a_head_that_forgets_nothing_is_ridge_regression() -> None:
    rng = np.random.default_rng(0)
    rows, targets = rng.normal(size=(200, WIDTH)), rng.normal(size=200)
    weights, cover = np.zeros((1, heads.ROOM, 1)), np.eye(heads.ROOM)[None] / heads.RIDGE
    slots = np.zeros(1 + WIDTH, np.int64)
    nothing = (np.zeros((0, heads.BINS)), np.zeros(0, np.int64))
    world = (np.ones(WIDTH), np.zeros(WIDTH), np.ones(WIDTH))
    for raw, target in zip(rows, targets, strict=True):
        heads.learn_heads(
            weights, cover, np.ones((1, 4)), slots, np.zeros(1), raw, target, *world, *nothing,
            1, REGRESSION, -1,
        )  # fmt: skip
    x = np.column_stack([np.ones(200), np.clip(rows, -CLIP, CLIP)])
    exact = np.linalg.solve(x.T @ x + heads.RIDGE * np.eye(WIDTH + 1), x.T @ targets)
    used = [0, *slots[1:]]
    np.testing.assert_allclose(weights[0, used, 0], exact, atol=1e-5)


def test_inputs_that_are_never_shown_are_not_forgotten_without_end() -> None:
    stream, family = Stream(CLASSIFICATION), made("heads", CLASSIFICATION)
    assert isinstance(family, Heads)
    stream.teach(family, 3_000)
    before = family.table.cover[0].copy()
    stream.rows[:, :] = stream.rows[0]  # the same row, again and again
    for _ in range(20_000):
        family.learn(0, stream.world())
    assert np.isfinite(family.table.weights).all()
    assert (np.linalg.eigvalsh(family.table.cover[0]) > 0.0).all()
    assert np.trace(family.table.cover[0, 1]) < 1.5 * np.trace(before[1])


def test_a_head_forgets_a_world_that_has_turned_round_however_long_it_lasted() -> None:
    stream, family = Stream(REGRESSION), made("heads", REGRESSION)
    stream.teach(family, 12_000)
    calm = stream.loss(family)
    stream.turned = True
    at_once = stream.loss(family)
    stream.teach(family, 2_000)
    quick = list(family.names).index("head@1000")
    assert at_once[quick] > 5.0 * calm[quick]
    assert stream.loss(family)[quick] < 0.4 * at_once[quick]


@both_tasks
def test_two_heads_know_their_segment_and_nothing_else(task: int) -> None:
    stream, family = Stream(task), made("heads", task)
    stream.add(family, 3_000)
    stream.turned = True
    stream.add(family, 150)
    found = stream.loss(family)
    own = [family.names.index(name) for name in ("head@segment", "head@line")]
    assert isinstance(family, Heads)
    strays = family.table.links[0, 0, heads.STRAY]
    assert stream.end(family, late=120) == own
    assert stream.loss(family)[2] < 0.6 * found.min()
    # the same as a family that has met nothing but these rows, on the same knots
    alone = made("heads", task)
    knots = {n: family.tensors()[n] for n in ("slots", "knots", "n_knots")}
    alone.load(alone.tensors() | knots)
    rows = (np.arange(stream.seen - 120, stream.seen)) % PAST
    assert isinstance(alone, Heads)
    alone.table.links[0, 2:, heads.STRAY] = strays  # how many labels stray is not forgotten
    for at in rows:
        heads.learn_heads(
            alone.table.weights[0, 2:], alone.table.cover[0, 2:], alone.table.links[0, 2:],
            alone.table.slots[0], np.zeros(2), stream.rows[at],
            (stream.targets[at] - stream.units[0, 0]) / stream.units[0, 1], stream.scaled,
            stream.means[0], stream.spreads[0], alone.table.knots[0], alone.table.n_knots[0],
            stream.n_classes, task, 1,
        )  # fmt: skip
    np.testing.assert_allclose(alone.table.weights[0, 2:], family.table.weights[0, 2:], atol=1e-12)


def teach_line(family: Family, rows: Floats, truth: Floats) -> Floats:
    """All heads learn standardised rows of two classes; the link ``(4,)`` of the one of lines."""
    assert isinstance(family, Heads)
    t = family.table
    for raw, target in zip(rows, truth, strict=True):
        heads.learn_heads(
            t.weights[0], t.cover[0], t.links[0], t.slots[0], family.forgets, raw, float(target),
            np.ones(WIDTH), np.zeros(WIDTH), np.ones(WIDTH), t.knots[0], t.n_knots[0], 2,
            CLASSIFICATION, heads.PLAIN,
        )  # fmt: skip
    found: Floats = t.links[0, heads.PLAIN]
    return found


def say_line(family: Family, rows: Floats) -> Floats:
    """The probabilities ``(n, 2)`` of the head of lines."""
    assert isinstance(family, Heads)
    t, out = family.table, np.zeros((len(rows), len(family.names), 2))
    heads.predict_heads(
        t.weights[0], t.links[0], t.slots[0], rows, np.ones(WIDTH), np.zeros(WIDTH),
        np.ones(WIDTH), t.knots[0], t.n_knots[0], 2, CLASSIFICATION, heads.PLAIN, out, 0,
    )  # fmt: skip
    return out[:, heads.PLAIN]


@both_tasks
def test_a_line_reads_no_hats(task: int) -> None:
    rng, family = np.random.default_rng(1), made("heads", task)
    assert isinstance(family, Heads)
    rows = rng.normal(size=(20, WIDTH))
    told = rows[:, :4] @ np.array([1.0, -2.0, 0.5, 1.5])
    truth = (told > 0.0).astype(float) if task == CLASSIFICATION else told
    stream = Stream(task)
    stream.add(family, 600)
    t = family.table
    assert t.n_knots[0].max() >= hat_kernels.FEWEST_KNOTS
    family.table.weights[0, 2:], family.table.cover[0, 2:] = 0.0, np.eye(heads.ROOM) / heads.RIDGE
    for raw, target in zip(rows, truth, strict=True):
        heads.learn_heads(
            t.weights[0, 2:], t.cover[0, 2:], t.links[0, 2:], t.slots[0], np.zeros(2), raw,
            float(target), np.ones(WIDTH), np.zeros(WIDTH), np.ones(WIDTH), t.knots[0],
            t.n_knots[0], stream.n_classes, task, 1,
        )  # fmt: skip
    x = np.column_stack([np.ones(20), np.clip(rows, -CLIP, CLIP)])
    exact = np.linalg.solve(x.T @ x + heads.RIDGE * np.eye(WIDTH + 1), x.T @ truth)
    hatted, of_column = t.knots.shape[1], 1 + t.knots.shape[2]
    places = [c * of_column if c < hatted else hatted * (of_column - 1) + c for c in range(WIDTH)]
    used = [0, *t.slots[0, 1:][places]]
    if task == REGRESSION:
        np.testing.assert_allclose(t.weights[0, 3, used, 0], exact, atol=1e-5)
    others = np.setdiff1d(np.arange(heads.ROOM), used)
    assert (t.weights[0, 3, others] == 0.0).all()
    assert np.abs(t.weights[0, 2, others]).max() > 0.01


@settings(deadline=None)
@given(st.lists(st.floats(-4.0, 4.0), min_size=2, max_size=5), st.floats(0.001, 0.3), st.data())
def test_a_network_that_doubts_goes_down_the_loss_of_a_label_that_may_stray(
    said: list[float], strays: float, data: Any
) -> None:
    truth, n = data.draw(st.integers(0, len(said) - 1)), len(said)

    def loss(logits: Floats) -> float:
        p = np.exp(logits - logits.max())
        p /= p.sum()
        return -math.log(strays / n + (1.0 - strays) * float(p[truth]))

    at = np.array(said)
    p = np.exp(at - at.max()) / np.exp(at - at.max()).sum()
    chance = hat_kernels.follows(np.float32(p[truth]), n, np.float32(strays))
    for k in range(n):
        aside = np.eye(n)[k] * 1e-5
        slope = (loss(at + aside) - loss(at - aside)) / 2e-5
        assert chance * (p[k] - (k == truth)) == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("strays", [0.0, 0.2])
def test_networks_learn_how_many_labels_stray_and_are_not_led_astray(strays: float) -> None:
    """Beside networks that are told to trust every label, on the same rows."""
    streams = [Stream(CLASSIFICATION, seed=2, strays=strays) for _ in range(2)]
    doubting, trusting = (made("hats", CLASSIFICATION) for _ in range(2))
    assert isinstance(doubting, Hats)
    assert isinstance(trusting, Hats)
    trusting.table.strays[:] = 0.0
    for stream, family in zip(streams, (doubting, trusting), strict=True):
        stream.add(family, 3_000)
        stream.strays = 0.0
    names = ("hat-doubting@0.003", "hat-replay@0.004")
    places = [doubting.names.index(name) for name in names]
    found = doubting.table.strays[0]
    assert abs(found[places] - strays).max() < 0.06, found
    assert np.delete(found, places).max() == 0.0
    assert trusting.table.strays.max() == 0.0
    wrong, misled = (s.loss(f, 2_000) for s, f in zip(streams, (doubting, trusting), strict=True))
    assert (wrong[places] < misled[places] * (0.9 if strays else 1.1)).all(), (wrong, misled)


def test_of_values_no_network_doubts() -> None:
    family = made("hats", REGRESSION)
    assert isinstance(family, Hats)
    assert not any("doubting" in name for name in family.names)
    Stream(REGRESSION).add(family, 100)
    assert family.table.strays.max() == 0.0


def test_whoever_says_so_has_no_network_that_doubts() -> None:
    space = Space(WIDTH, HATTED, 2, seed=3, doubt=False)
    for family in (Hats(space), Archive(space)):
        family.grow_keys(1)
        assert not any("doubting" in name for name in family.names)
        Stream(CLASSIFICATION, strays=0.2).teach(family, 1_000)
        assert family.table.strays.max() == 0.0


def test_a_past_segment_is_fitted_with_doubt() -> None:
    shares = []
    for strays in (0.0, 0.3):
        stream, family = Stream(CLASSIFICATION, strays=strays), made("archive", CLASSIFICATION)
        stream.teach(family, 4_000)
        assert isinstance(family, Archive)
        place = int(family.table.kept[0].argmax())
        shares.append(family.table.strays[0, place])
        stream.strays = 0.0
        assert stream.loss(family)[place] < 0.1
    assert shares[0] < 0.02 < 0.05 < shares[1], shares


@settings(deadline=None)
@given(st.lists(st.floats(-1.0, 2.0), min_size=2, max_size=5), st.floats(0.6, 19.0),
       st.floats(0.002, 0.4), st.data())  # fmt: skip
def test_slopes_of_a_link_are_those_of_the_likelihood(
    said: list[float], sharp: float, stray: float, data: Any
) -> None:
    truth, n = data.draw(st.integers(0, len(said) - 1)), len(said)

    def told(logs: Floats) -> Floats:
        out = np.empty(n)
        heads._probabilities(np.array(said), np.exp(logs), n, out)
        return out

    at = np.log([sharp, stray])
    p = told(at)
    assert p.sum() == pytest.approx(1.0)
    found = heads._slopes(np.exp(at), np.array(said), p, truth, n)
    for which in (heads.SHARP, heads.STRAY):
        aside = np.eye(2)[which] * 1e-5
        slope = np.log(told(at + aside)[truth] / told(at - aside)[truth]) / 2e-5
        assert found[which] == pytest.approx(slope, rel=1e-3, abs=1e-4)


@settings(deadline=None)
@given(st.lists(st.floats(-4.0, 4.0), min_size=2, max_size=5), st.floats(0.002, 0.2), st.data())
def test_a_head_goes_up_the_likelihood_of_the_label(
    said: list[float], stray: float, data: Any
) -> None:
    truth, n = data.draw(st.integers(0, len(said) - 1)), len(said)
    link, at, gaps = np.array([1.0, stray, 1.0, 1.0]), np.array(said), np.empty(n)

    def likelihood(logits: Floats) -> float:
        out = np.empty(n)
        heads._probabilities(logits, link, n, out)
        return math.log(out[truth])

    curved = heads._logistic(link, at, truth, n, gaps)
    for k in range(n):
        aside = np.eye(n)[k] * 1e-5
        slope = (likelihood(at + aside) - likelihood(at - aside)) / 2e-5
        assert gaps[k] == pytest.approx(slope, abs=1e-4)
    # no direction is more curved, as far as the label follows the rule
    p = np.exp(at - at.max()) / np.exp(at - at.max()).sum()
    follows = gaps[truth] / (1.0 - p[truth])
    hessian = follows * (np.diag(p) - np.outer(p, p))
    steepest = max(np.linalg.eigvalsh(hessian).max(), heads.FLATTEST)
    assert steepest - 1e-9 <= curved <= 2.0 * steepest
    if n == 2:
        assert curved == pytest.approx(steepest)


def test_heads_of_classes_come_near_to_logistic_regression() -> None:
    rng, family = np.random.default_rng(3), made("heads", CLASSIFICATION)
    rows = rng.normal(size=(3_000, WIDTH))
    shares = 1.0 / (1.0 + np.exp(-(rows[:, :4] @ np.array([1.0, -2.0, 0.5, 1.5]))))
    truth = (rng.random(len(rows)) < shares).astype(float)
    taught = slice(0, 2_000)
    links = teach_line(family, rows[taught], truth[taught])
    exact = LogisticRegression(C=1.0).fit(rows[taught], truth[taught])
    told = say_line(family, rows[2_000:])[:, 1]
    np.testing.assert_allclose(told, exact.predict_proba(rows[2_000:])[:, 1], atol=0.05)
    assert links[heads.STRAY] < 0.05  # a label that is not likely does not stray


def test_heads_learn_how_many_labels_follow_no_rule() -> None:
    rng, family = np.random.default_rng(3), made("heads", CLASSIFICATION)
    rows = rng.normal(size=(4_000, WIDTH))
    truth = rows[:, :4] @ np.array([1.0, -2.0, 0.5, 1.5]) > 0.0
    strays = rng.random(len(rows)) < 0.15
    truth[strays] = rng.random(strays.sum()) < 0.5
    links = teach_line(family, rows, truth.astype(float))
    assert 0.1 < links[heads.STRAY] < 0.2


def test_heads_go_on_saying_the_same_value_when_its_units_move() -> None:
    stream, family = Stream(REGRESSION), made("heads", REGRESSION)
    stream.add(family, 600)
    raw = np.array([stream.row()[0] for _ in range(20)])
    before = stream.ask(family, raw)[:, :, 0] * SCALE + CENTRE
    stream.units[:] = (CENTRE - 30.0, 3.0 * SCALE)
    after = stream.ask(family, raw)[:, :, 0] * 3.0 * SCALE + CENTRE - 30.0
    np.testing.assert_allclose(after, before, rtol=1e-9)
    good = np.abs(stream.ask(family, stream.rows[590:600])[:, 2, 0] * 3.0 * SCALE + CENTRE - 30.0
                  - stream.targets[590:600]).mean()  # fmt: skip
    stream.add(family, 1)  # what was learned before is restated, not learned anew
    learned = stream.ask(family, stream.rows[590:600])[:, 2, 0] * 3.0 * SCALE + CENTRE - 30.0
    assert np.abs(learned - stream.targets[590:600]).mean() < 1.2 * good


def test_the_head_of_a_segment_learns_no_older_row_again_when_knots_are_put_anew() -> None:
    stream, family = Stream(REGRESSION), made("heads", REGRESSION)
    stream.add(family, 255)
    stream.turned = True
    raw, truth = stream.row()
    stream.every_row[:, 255], stream.every_target[:, 255] = raw, truth
    stream.seen = 256  # at which knots are due
    world = stream.world()
    stream.counted[1] = 1  # the segment has this row alone
    family.learn(0, world)
    assert isinstance(family, Heads)
    weights = family.table.weights[0]
    assert np.linalg.matrix_rank(family.table.cover[0, 2] - np.eye(heads.ROOM) / heads.RIDGE) == 1
    assert np.abs(weights[0]).sum() > 3.0 * np.abs(weights[2]).sum()


def test_columns_that_are_too_many_for_hats_are_read_as_they_are() -> None:
    family = Heads(Space(150, 150, 2))
    assert (family.bins, family.inputs) == (0, 150)
    assert Heads(Space(20, 20, 2)).bins == 8


# -- memory ------------------------------------------------------------------------------------


def test_the_nearest_are_those_that_numpy_finds() -> None:
    rng = np.random.default_rng(0)
    kept, metric = rng.normal(size=(300, 3)).astype(np.float32), np.array([1.0, 0.1, 3.0])
    kept[:, 1], varies, scaled = 0.0, np.array([True, False, True]), np.ones(3)
    at, reaches = rng.normal(size=3).astype(np.float32), np.array([50, 200, 4_000])
    for seen in (20, 300, 450):  # fewer than are asked, a full ring, a ring that has gone round
        gaps, slots = np.zeros((3, memory.NEAREST)), np.zeros((3, memory.NEAREST), np.int64)
        ring = np.ascontiguousarray(kept.T)
        memory.find_nearest(at, metric, ring, varies, scaled, seen, reaches, gaps, slots)
        for m, reach in enumerate(reaches):
            newest = np.arange(max(0, seen - min(reach, 300)), seen) % 300
            apart = ((at - kept[newest]) ** 2 * metric).sum(1)
            expected = newest[np.argsort(apart)[: memory.NEAREST]]
            assert set(slots[m].tolist()) == set(expected.tolist())
            np.testing.assert_allclose(np.sort(gaps[m]), np.sort(apart)[: memory.NEAREST], 1e-5)


def test_the_metric_finds_the_columns_that_matter() -> None:
    stream, family = Stream(CLASSIFICATION), made("memory", CLASSIFICATION)
    assert isinstance(family, Memory)
    stream.teach(family, 3_000)
    metric = family.table.metric[0]
    assert metric[0] > 4.0 * metric[[2, 3]].max()
    assert metric.sum() == pytest.approx(family.total, rel=0.02)
