"""What may be learned again: rows of one segment only, tasks of all times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammeta.experts.kernels import draw_slots
from streammeta.replay import SEGMENT_ROWS, SegmentRows, Sketch, TaskMemory


def add(rows: SegmentRows, numbers: list[int] | range, key: int = 0) -> None:
    """Labelled rows whose features and target are their own number."""
    for n in numbers:
        rows.add(key, n, np.full(2, float(n)), float(n))


def newest(rows: SegmentRows, n: int = SEGMENT_ROWS, key: int = 0) -> list[int]:
    raw, y = rows.newest(key, n)
    assert (raw[:, 0] == y).all()
    return [int(v) for v in y]


def test_rows_come_back_in_the_order_in_which_their_labels_came() -> None:
    rows = SegmentRows(2, 2)
    add(rows, range(5))
    add(rows, range(100, 103), key=1)
    assert newest(rows) == [0, 1, 2, 3, 4]
    assert newest(rows, 2) == [3, 4]
    assert newest(rows, key=1) == [100, 101, 102]
    assert rows.inside.tolist() == rows.open.tolist() == [5, 3]


def test_the_ring_forgets_the_oldest() -> None:
    rows = SegmentRows(1, 2)
    add(rows, range(SEGMENT_ROWS + 10))
    assert newest(rows) == list(range(10, SEGMENT_ROWS + 10))
    assert rows.inside[0] == SEGMENT_ROWS


def test_a_cut_leaves_only_rows_of_the_new_segment() -> None:
    rows = SegmentRows(2, 2)
    add(rows, range(50))
    add(rows, range(50), key=1)
    rows.cut(0, 45)
    assert newest(rows) == [45, 46, 47, 48, 49]
    assert rows.inside[0] == rows.open[0] == 5
    assert len(newest(rows, key=1)) == 50  # the other key has its own segments
    add(rows, [50])
    assert newest(rows) == [45, 46, 47, 48, 49, 50]
    rows.cut(0, 60)
    assert newest(rows) == []


def test_late_labels_do_not_smuggle_old_rows_over_the_cut() -> None:
    rows = SegmentRows(1, 2)
    add(rows, [10, 30, 11, 31, 12])
    rows.cut(0, 30)
    assert newest(rows) == [30, 31]
    add(rows, [32])
    assert newest(rows) == [30, 31, 32]


def drawn(rows: SegmentRows, n: int, chances: int) -> list[float]:
    slots = np.empty(n, np.int64)
    draw_slots(chances, int(rows.count[0]), int(rows.inside[0]), rows.size, slots)
    return list(rows.y[0, slots])


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(40)), st.integers(0, 45), st.integers(0, 600), st.integers(0, 99))
def test_whatever_the_order_only_the_segment_is_drawn(
    order: list[int], onset: int, earlier: int, seed: int
) -> None:
    rows = SegmentRows(1, 2)
    add(rows, range(-earlier, 0))
    add(rows, order)
    rows.cut(0, onset)
    expected = [n for n in order if n >= onset]
    assert newest(rows) == expected
    if expected:
        y = drawn(rows, 64, seed)
        assert y[0] == expected[-1], "the newest is always among them"
        assert set(y) <= set(expected)


def test_sampling_reaches_every_row_of_the_segment() -> None:
    rows = SegmentRows(1, 2)
    add(rows, range(600))
    rows.cut(0, 580)
    assert set(drawn(rows, 400, 0)) == set(range(580, 600))


def task(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((4, 2), float(n)), np.full(4, float(n))


def sketch(n: float) -> np.ndarray:
    """A point on a line, as far along it as ``n``."""
    return np.full(Sketch.SIZE, n, np.float32)


def filled(tasks: int, capacity: int = 30, seed: int = 0) -> TaskMemory:
    memory, rng = TaskMemory(capacity, 4, 2), np.random.default_rng(seed)
    for n in range(tasks):
        memory.add(n % 3, *task(n), sketch(n), rng)
    return memory


def parts(memory: TaskMemory) -> list[list[int]]:
    """The tasks in the ring, in the reservoir and among the diverse."""
    return [sorted(part.astype(int)) for part in memory.y[:, 0].reshape(3, memory.part)]


def test_a_third_of_the_memory_is_the_present() -> None:
    memory = filled(95)
    assert len(memory) == 30
    assert parts(memory)[0] == list(range(85, 95))


def test_another_third_remembers_all_times_alike() -> None:
    tasks, runs = 60, 400
    kept = np.zeros(tasks)
    for seed in range(runs):
        past = parts(filled(tasks, seed=seed))[1]
        assert len(set(past)) == 10
        kept[past] += 1
    share = 10 / tasks
    spread = np.sqrt(runs * share * (1 - share))
    assert np.abs(kept - runs * share).max() < 4.5 * spread
    thirds = kept.reshape(3, -1).sum(1) / kept.sum()
    np.testing.assert_allclose(thirds, 1 / 3, atol=0.03)


def test_the_last_third_keeps_what_is_rare_and_lies_apart() -> None:
    memory, rng = TaskMemory(30, 4, 2), np.random.default_rng(0)
    rare = {40: 50.0, 300: -80.0}  # among a thousand tasks that are nearly alike
    for n in range(1_000):
        memory.add(0, *task(n), sketch(rare.get(n, rng.uniform(0.0, 1.0))), rng)
    assert set(rare) <= set(parts(memory)[2])
    assert not set(rare) & set(parts(memory)[0])
    along = np.sort(memory.sketches[:, 0])
    common = along[(along >= 0) & (along <= 1)]
    assert np.diff(common).min() > 0.05, "eight of [0, 1] lie nearly even there"


def test_a_memory_read_back_goes_on_as_if_nothing_had_happened() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(300, Sketch.SIZE)).astype(np.float32)
    one = TaskMemory(30, 4, 2)
    for n in range(200):
        one.add(0, *task(n), points[n], np.random.default_rng(n))
    other = TaskMemory(30, 4, 2)
    for name in TaskMemory.FIELDS:
        setattr(other, name, getattr(one, name).copy())
    other.seen = one.to_info()["seen"]
    for n in range(200, 300):
        for memory in (one, other):
            memory.add(0, *task(n), points[n], np.random.default_rng(n))
    for name in TaskMemory.FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("labels", [1, 8])
def test_sketches_tell_concepts_apart_though_their_inputs_are_alike(labels: int) -> None:
    rng = np.random.default_rng(0)
    measure = Sketch(4, labels)

    def of(concept: int) -> np.ndarray:
        x = rng.normal(size=(32, 4)).astype(np.float32)
        score = x[:, 0] if concept else -x[:, 1]
        return measure(x, score if labels == 1 else (score > 0).astype(np.float32))

    seen = {concept: [of(concept) for _ in range(20)] for concept in (0, 1)}
    within = [np.linalg.norm(a - b) for s in seen.values() for a in s for b in s if a is not b]
    between = [np.linalg.norm(a - b) for a in seen[0] for b in seen[1]]
    assert np.mean(between) > 1.2 * np.mean(within)


def test_draws_go_round_the_three_parts() -> None:
    memory = filled(95)
    drawn = memory.draw(300, np.random.default_rng(0))
    assert drawn.raw.shape == (300, 4, 2)
    assert drawn.y.shape == (300, 4)
    for part, kept in enumerate(parts(memory)):
        assert set(drawn.y[part::3, 0]) == set(kept)
    assert (drawn.raw[:, 0, 0] == drawn.y[:, 0]).all()
    assert (drawn.key == drawn.y[:, 0].astype(int) % 3).all()


def test_a_cut_loses_no_row_where_labels_came_out_of_order() -> None:
    rows = SegmentRows(1, 2)
    for n in (100, 105, 101, 102, 104):
        rows.add(0, n, np.full(2, float(n)), float(n))
    rows.cut(0, 103)
    assert list(rows.newest(0, 8)[1]) == [105, 104]
    assert list(rows.latest(0, 8)[1]) == [100, 101, 102, 105, 104]
    assert rows.row[0, :5].tolist() == rows.y[0, :5].tolist() == rows.raw[0, :5, 0].tolist()


def test_the_latest_rows_pass_over_a_drift() -> None:
    rows = SegmentRows(1, 2)
    for n in range(20):
        rows.add(0, n, np.full(2, float(n)), float(n))
    rows.cut(0, 15)
    assert list(rows.newest(0, 8)[1]) == [15, 16, 17, 18, 19]
    assert list(rows.latest(0, 8)[1]) == list(range(12, 20))
    assert len(rows.latest(0, 100)[1]) == 20


@pytest.mark.parametrize("tasks", [1, 2, 9, 10, 11])
def test_a_young_memory_gives_only_what_it_has(tasks: int) -> None:
    memory = filled(tasks)
    drawn = memory.draw(100, np.random.default_rng(0))
    assert set(drawn.y[:, 0]) == set(range(tasks))


def test_an_empty_memory_says_so() -> None:
    memory = filled(0)
    assert len(memory) == 0
    with pytest.raises(ValueError, match="empty"):
        memory.draw(1, np.random.default_rng(0))
