"""The bag of trees: stories of what it learns and forgets, and laws of its lists and gates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scenarios.scenario import scenario
from streammeta.boxed import Box
from streammeta.experts import tree_growth as growth
from streammeta.experts import tree_kernels as kernels
from streammeta.experts.family import PAST, Space, World, boxed_world
from streammeta.experts.kernels import CLASSIFICATION, REGRESSION
from streammeta.experts.trees import NODES, Trees

Floats = NDArray[np.float64]
Row = tuple[Floats, float]


class Life:
    """One bag on one stream: every row is answered before it is learned."""

    def __init__(self, width: int, task: int = CLASSIFICATION, classes: int = 2, seed: int = 0):
        outputs = 1 if task == REGRESSION else 8
        self.trees, self.task, self.classes = (
            Trees(Space(width, width, outputs, seed=seed)),
            task,
            classes,
        )
        self.trees.grow_keys(1)
        self.rows, self.targets, self.seen = np.zeros((PAST, width)), np.zeros(PAST), 0
        self.outputs, self.units = outputs, (0.0, 1.0)
        self.numbers = np.zeros((1, PAST), np.int64)  # of rows, which trees do not read

    def world(self) -> Box:
        ones = np.ones((1, self.rows.shape[1]))
        found: Box = boxed_world(World(
            ones[0], 0 * ones, 0 * ones, ones, np.array([self.units]), np.array([self.classes]),
            self.rows[None], self.targets[None], self.numbers, np.array([self.seen]),
            np.array([min(self.seen, PAST)]), self.task,
        ))  # fmt: skip
        return found

    def ask(self, raw: Floats) -> Floats:
        out = np.zeros((len(raw), 1, self.outputs))
        self.trees.predict(0, raw, self.world(), out, 0)
        return out[:, 0, : self.classes]

    def learn(self, raw: Floats, target: float) -> None:
        self.rows[self.seen % PAST], self.targets[self.seen % PAST] = raw, target
        self.seen += 1
        self.trees.learn(0, self.world())

    def live(self, rows: list[Row], after: Callable[[], None] = lambda: None) -> Floats:
        """Errors, or absolute errors, of each row; ``after`` is called behind each."""
        off = np.zeros(len(rows))
        for i, (raw, target) in enumerate(rows):
            said = self.ask(raw[None])[0]
            if self.task == REGRESSION:
                off[i] = abs(self.units[0] + self.units[1] * said[0] - target)
            else:
                off[i] = said.argmax() != target
            self.learn(raw, target)
            after()
        return off

    def kill_challengers(self) -> None:
        trees = self.trees.table
        trees.marks[0, trees.roles[0, :, 1], growth.ACTIVE] = 0


def circle(rng: np.random.Generator, rows: int, *, inside: bool, noise: float = 0.0) -> list[Row]:
    """Two numbers; inside or outside of a circle?"""
    made = []
    for _ in range(rows):
        raw = rng.uniform(-1.0, 1.0, 2)
        truth = ((raw**2).sum() < 0.6) == inside
        made.append((raw, float(truth != (rng.random() < noise))))
    return made


# -- stories -----------------------------------------------------------------------------------


def test_an_exclusive_or_of_which_no_column_alone_tells_anything_is_learned() -> None:
    rng = np.random.default_rng(0)
    rows = [(raw, float((raw[0] > 0) != (raw[1] > 0))) for raw in rng.normal(size=(3_000, 3))]
    assert Life(3).live(rows)[-1_000:].mean() < 0.05


def test_challengers_recover_from_an_abrupt_swap_faster_than_trees_without() -> None:
    before = circle(np.random.default_rng(1), 4_000, inside=True, noise=0.1)
    after = circle(np.random.default_rng(2), 1_000, inside=False, noise=0.1)
    with_them, without = Life(2), Life(2)
    assert with_them.live(before)[-1_000:].mean() < 0.16
    without.live(before, without.kill_challengers)
    quick, slow = with_them.live(after), without.live(after, without.kill_challengers)
    assert quick[:40].mean() > 0.3, "nobody sees it coming"
    assert quick[200:].mean() < 0.2
    assert quick[200:].mean() < slow[200:].mean() - 0.1


def test_a_false_alarm_costs_little() -> None:
    """Every tree gets a challenger of the 30 newest rows though nothing has changed."""
    rows = circle(np.random.default_rng(3), 3_000, inside=True, noise=0.1)
    later = circle(np.random.default_rng(4), 1_500, inside=True, noise=0.1)
    calm, alarmed = Life(2), Life(2)
    calm.live(rows)
    alarmed.live(rows)
    trees = alarmed.trees.table
    for c in trees.roles[0, :, 1]:
        kernels.plant(
            trees.links[0, c], trees.facts[0, c], trees.marks[0, c], trees.merits[0, c],
            trees.filled[0, c], trees.before[0, c], alarmed.targets, alarmed.seen, 30,
            CLASSIFICATION,
        )  # fmt: skip
    raws = np.array([raw for raw, _ in later[:50]])
    np.testing.assert_array_equal(calm.ask(raws), alarmed.ask(raws))
    assert alarmed.live(later).mean() < calm.live(later).mean() + 0.01


def test_that_a_value_is_missing_may_be_all_there_is_to_know() -> None:
    rng = np.random.default_rng(5)
    rows: list[Row] = []
    for _ in range(1_000):
        raw, truth = rng.normal(size=2), float(rng.random() < 0.5)
        raw[0] = math.nan if truth else raw[0]
        rows.append((raw, truth))
    life = Life(2)
    assert life.live(rows)[-500:].mean() < 0.01
    assert np.isfinite(life.ask(np.full((1, 2), math.nan))).all()


def test_values_that_were_never_missing_go_where_most_go() -> None:
    rng = np.random.default_rng(6)
    life = Life(1)
    life.live([(raw, float(raw[0] > 1.0)) for raw in rng.normal(size=(1_000, 1))])
    said = life.ask(np.array([[math.nan], [-1.0], [2.0]]))
    assert said.argmax(1).tolist() == [0, 0, 1]


def test_a_new_class_is_found_where_it_lies() -> None:
    rng = np.random.default_rng(7)
    life = Life(2, classes=1)
    life.live([(raw, 0.0) for raw in rng.uniform(-1.0, 0.0, (200, 2))])
    np.testing.assert_allclose(life.ask(np.zeros((1, 2))), 1.0)
    for label in (1, 2):
        life.classes = label + 1
        life.trees.seed_class(label)
        own = rng.integers(0, label + 1, 400).astype(float)
        life.live([(raw + k, k) for raw, k in zip(rng.uniform(-1, 0, (400, 2)), own, strict=True)])
    said = life.ask(np.array([[-0.5, -0.5], [0.5, 0.5], [1.5, 1.5]]))
    assert said.argmax(1).tolist() == [0, 1, 2]
    np.testing.assert_allclose(said.sum(1), 1.0, atol=1e-9)


def test_a_step_function_is_found_with_its_steps_and_its_heights() -> None:
    rng = np.random.default_rng(8)
    life = Life(3, REGRESSION, 1)
    life.units = (50.0, 20.0)
    heights = np.array([20.0, 80.0, 50.0, 40.0])
    rows = [(raw, heights[int(4 * raw[1])] + rng.normal()) for raw in rng.random((3_000, 3))]
    assert life.live(rows)[-1_000:].mean() < 1.5, "of which .8 is noise"
    said = 50.0 + 20.0 * life.ask(np.array([[0.5, (i + 0.5) / 4, 0.5] for i in range(4)]))[:, 0]
    np.testing.assert_allclose(said, heights, atol=1.0)


def test_pure_noise_grows_few_trees_into_anything() -> None:
    """Labels without any reason: gates keep the answer near the share of the class."""
    rng = np.random.default_rng(9)
    life = Life(4)
    life.live([(raw, float(rng.random() < 0.3)) for raw in rng.normal(size=(3_000, 4))])
    said = life.ask(rng.normal(size=(500, 4)))[:, 1]
    assert said.mean() == pytest.approx(0.3, abs=0.03)
    assert said.std() < 0.08


# -- laws --------------------------------------------------------------------------------------


def state_of(trees: Trees) -> dict[str, NDArray[np.float64]]:
    return {name: array.copy() for name, array in trees.tensors().items()}


def test_the_same_seed_grows_the_same_trees_and_another_seed_others() -> None:
    rows = circle(np.random.default_rng(10), 600, inside=True)
    lives = [Life(2, seed=seed) for seed in (1, 1, 2)]
    for life in lives:
        life.live(rows)
    one, same, other = (state_of(life.trees) for life in lives)
    for name, array in one.items():
        np.testing.assert_array_equal(array, same[name])
    assert not np.array_equal(one["links"][..., growth.COLUMN], other["links"][..., growth.COLUMN])


def test_a_bag_that_was_stopped_goes_on_as_if_it_had_not_been() -> None:
    rows = circle(np.random.default_rng(11), 500, inside=True)
    rows += circle(np.random.default_rng(12), 300, inside=False)  # challengers are at work
    life, resumed = Life(2), Life(2)
    life.live(rows[:520])
    resumed.trees.load(state_of(life.trees))
    resumed.rows, resumed.targets = life.rows.copy(), life.targets.copy()
    resumed.seen = life.seen
    np.testing.assert_array_equal(life.live(rows[520:]), resumed.live(rows[520:]))
    for name, array in state_of(life.trees).items():
        np.testing.assert_array_equal(array, resumed.trees.tensors()[name])


def test_asking_changes_nothing() -> None:
    life = Life(2)
    life.live(circle(np.random.default_rng(13), 300, inside=True))
    before = state_of(life.trees)
    life.ask(np.random.default_rng(0).normal(size=(20, 2)))
    for name, array in life.trees.tensors().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_key_takes_a_megabyte_whatever_it_sees() -> None:
    rng = np.random.default_rng(14)
    life = Life(4)
    size = sum(array.nbytes for array in life.trees.tensors().values())
    assert size < 1.1e6
    truth = lambda raw: float(math.sin(9.0 * raw[0]) * math.sin(9.0 * raw[1]) > 0.0)  # noqa: E731
    life.live([(raw, truth(raw)) for raw in rng.uniform(-1.0, 1.0, (PAST + 2_000, 4))])
    assert sum(array.nbytes for array in life.trees.tensors().values()) == size
    used = life.trees.table.marks[0, :, growth.USED]
    assert NODES // 2 < used.max() <= NODES
    check_lists(life)


def leaves(links: NDArray[np.int64], marks: NDArray[np.int64]) -> Iterator[int]:
    """The leaves that can be reached; every node is reached or free, none twice."""
    stack, reached = [0], []
    while stack:
        node = stack.pop()
        reached.append(node)
        if links[node, growth.COLUMN] < 0:
            yield node
        else:
            left = int(links[node, growth.LEFT])
            stack += [left, left + 1]
    pair = int(marks[growth.FREE])
    while pair >= 0:
        reached += [pair, pair + 1]
        pair = int(links[pair, growth.LEFT])
    assert sorted(reached) == list(range(marks[growth.USED]))


def check_lists(life: Life) -> None:
    """Every row since a tree was born that the ring still holds is in the list of its leaf, once,
    newest first."""
    trees, path = life.trees.table, np.zeros(growth.DEPTH + 1, np.int64)
    for k in np.flatnonzero(trees.marks[0, :, growth.ACTIVE]):
        links, facts, marks = trees.links[0, k], trees.facts[0, k], trees.marks[0, k]
        oldest = max(life.seen - PAST, int(marks[growth.BORN]))
        found: list[int] = []
        for leaf in leaves(links, marks):
            at, own = int(links[leaf, growth.HEAD]), []
            while at >= oldest:
                own.append(at)
                depth = kernels.follow(links, facts, life.rows[at % PAST], path)
                assert path[depth] == leaf
                at = growth.older(trees.before[0, k], at)
            assert own == sorted(own, reverse=True)
            found += own
        assert sorted(found) == list(range(oldest, life.seen))


value = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, math.nan, 1e100, -1e100, 1e-300]), st.floats(-3, 3)
)


@given(st.sampled_from([CLASSIFICATION, REGRESSION]), st.integers(0, 2**30), st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_comes_lists_are_whole_and_answers_are_answers(
    task: int, seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    few = np.array(data.draw(st.lists(value, min_size=4, max_size=12)))
    life = Life(3, task, 3 if task == CLASSIFICATION else 1, seed=seed)
    wild = data.draw(st.booleans())
    for part in range(3):  # three worlds, so that trees are replaced
        chosen = rng.integers(0, 3)
        for _ in range(120):
            raw = rng.choice(few, 3) if wild or part == 1 else rng.normal(size=3)
            mark = raw[chosen] if np.isfinite(raw[chosen]) else 0.0
            if task == CLASSIFICATION:
                target = float((int(mark > 0) + part) % 3)
            else:
                target = float(np.clip(mark * 10.0**part, -1e100, 1e100))
            life.learn(raw, target)
            said = life.ask(raw[None])
            assert np.isfinite(said).all()
            if task == CLASSIFICATION:
                assert said.sum() == pytest.approx(1.0, abs=1e-9)
    check_lists(life)


@given(st.lists(value, min_size=1, max_size=60), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_edges_are_values_in_order(values: list[float], chance: int) -> None:
    out = np.zeros(growth.EDGES + 1)
    k = growth.find_edges(np.array(values), len(values), chance, out)
    known = {v for v in values if v == v}
    assert (np.diff(out[:k]) > 0.0).all()
    assert set(out[:k].tolist()) <= known
    if len(values) <= growth.EDGES:
        assert set(out[:k].tolist()) == known


def test_the_best_cut_is_the_one_that_trying_them_all_finds() -> None:
    rng = np.random.default_rng(15)
    for _ in range(20):
        labels = rng.integers(0, 3, 40).astype(float)
        values = np.round(rng.normal(size=40) + labels, 1)
        values[rng.random(40) < 0.1] = math.nan
        edges = np.zeros(growth.EDGES + 1)
        k = growth.find_edges(values, 40, 5, edges)
        bins, heavy = np.zeros((growth.EDGES + 2, 3)), np.zeros(growth.EDGES + 2)
        growth.fill_bins(values, labels, 40, edges, k, CLASSIFICATION, bins, heavy)
        total, left = np.bincount(labels.astype(int), minlength=3).astype(float), np.zeros(4)
        best, edge, side = growth.best_cut(bins, heavy, k, total, 40, CLASSIFICATION, 0.0, left)
        tried = {}
        for e in range(k):
            for blank in (0, 1):
                at_left = (values <= edges[e]) | (np.isnan(values) & (blank == 0))
                halves = [labels[at_left], labels[~at_left]]
                if min(len(half) for half in halves) >= growth.LEAST:
                    tried[e, blank] = sum(
                        float((np.bincount(half.astype(int)) ** 2).sum()) / len(half)
                        for half in halves
                    )
        assert best == pytest.approx(max(tried.values()))
        assert tried[edge, side] == pytest.approx(best)


def test_gates_are_posteriors_over_all_ways_to_stop() -> None:
    facts = np.zeros((3, growth.FACTS + 2))
    gates, likely = np.array([0.3, 0.6, 0.5]), np.array([0.5, 0.2, 0.9])
    facts[:, growth.GATE] = gates
    whole = kernels.move_gates(facts, np.arange(3), 2, likely)
    stops = np.array([0.3, 0.7 * 0.6, 0.7 * 0.4])
    assert whole == pytest.approx(stops @ likely)
    posterior = stops * likely / whole
    share, prior = kernels.SHARE, growth.STOP
    exact = [posterior[0], posterior[1] / (1.0 - posterior[0])]
    expected = [(1.0 - share) * gate + share * prior for gate in exact]
    np.testing.assert_allclose(facts[:2, growth.GATE], expected)
    assert facts[2, growth.GATE] == 0.5, "a leaf has to answer"


# -- has a loss risen? -------------------------------------------------------------------------


def buckets() -> tuple[Floats, NDArray[np.int64]]:
    shape = (kernels.LEVELS, kernels.BUCKETS, 2)
    return np.zeros(shape), np.zeros(kernels.LEVELS, np.int64)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=400), st.integers(0, 400))
@settings(max_examples=40, deadline=None)
def test_no_loss_is_lost_or_counted_twice(losses: list[float], kept: int) -> None:
    sums, filled = buckets()
    for loss in losses:
        kernels.note(sums, filled, loss)
    sizes = 1 << np.arange(kernels.LEVELS)
    assert (filled * sizes).sum() == len(losses)
    total = sum(sums[level, :n, 0].sum() for level, n in enumerate(filled))
    assert total == pytest.approx(sum(losses))
    kernels.keep_newest(sums, filled, kept)
    rest = int((filled * sizes).sum())
    assert rest <= kept
    total = sum(sums[level, :n, 0].sum() for level, n in enumerate(filled))
    assert total == pytest.approx(sum(losses[len(losses) - rest :]), abs=1e-9)


def test_a_rise_is_dated_and_a_fall_is_none() -> None:
    rng = np.random.default_rng(16)
    calm, high = rng.random(1_000) < 0.1, rng.random(100) < 0.6
    for losses, risen in ((np.r_[calm, high], True), (np.r_[high, calm], False), (calm, False)):
        sums, filled = buckets()
        for loss in losses:
            kernels.note(sums, filled, float(loss))
        since = kernels.rows_since_rise(sums, filled)
        assert (60 <= since <= 160) if risen else since == 0


# -- beside River ------------------------------------------------------------------------------


def table(name: str, seed: int, rows: int) -> tuple[list[Row], str]:
    """A generator's rows as numbers; texts become codes."""
    stream = scenario(name, rows=rows, seed=seed)
    codes: dict[object, float] = {}
    made = []
    for x, y in stream:
        raw = np.array([
            codes.setdefault(v, float(len(codes))) if isinstance(v, str) else float(v or 0.0)
            for v in x.values()
        ])  # fmt: skip
        made.append((raw, y))
    if stream.card.task == "regression":
        return [(raw, float(y)) for raw, y in made], "regression"
    labels = sorted({str(y) for _, y in made})
    return [(raw, float(labels.index(str(y)))) for raw, y in made], "classification"


@pytest.mark.slow
def test_beside_rivers_forest_the_bag_is_at_worst_a_little_behind_and_ahead_on_average() -> None:
    from river import forest

    gains = []
    for name, seed in (("sea", 21), ("random_tree", 22), ("mixed", 23), ("agrawal", 24)):
        rows, _ = table(f"{name} | drift('abrupt', every=1500)", seed, 3_000)
        classes = 1 + int(max(target for _, target in rows))
        ours = 1.0 - Life(len(rows[0][0]), classes=classes).live(rows).mean()
        model, right = forest.ARFClassifier(n_models=10, seed=1), 0
        for raw, target in rows:
            x = dict(enumerate(raw.tolist()))
            right += model.predict_one(x) == int(target)
            model.learn_one(x, int(target))
        gains.append(ours - right / len(rows))
    assert min(gains) > -0.02
    assert np.mean(gains) > 0.02


@pytest.mark.slow
def test_the_bag_errs_less_than_rivers_tree_on_values() -> None:
    from river import tree

    rows, _ = table("friedman | drift('abrupt', every=1500)", 25, 3_000)
    model, off = tree.HoeffdingAdaptiveTreeRegressor(seed=1), 0.0
    life = Life(len(rows[0][0]), REGRESSION, 1)
    targets = np.array([target for _, target in rows])
    life.units = (float(targets[:100].mean()), float(targets[:100].std()))
    for raw, target in rows:
        x = dict(enumerate(raw.tolist()))
        off += abs(model.predict_one(x) - target)
        model.learn_one(x, target)
    assert life.live(rows).mean() < off / len(rows)
