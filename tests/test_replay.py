"""What may be learned again: rows of one segment only, tasks of all times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammeta.replay import SEGMENT_ROWS, SegmentRows, TaskMemory


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
        raw, y = rows.sample(0, 1, 64, np.random.default_rng(seed))
        assert raw.shape == (64, 2)
        assert set(y) <= set(expected)


def test_sampling_reaches_every_row_of_the_segment() -> None:
    rows = SegmentRows(1, 2)
    add(rows, range(600))
    rows.cut(0, 580)
    _, y = rows.sample(0, 1, 400, np.random.default_rng(0))
    assert set(y) == set(range(580, 600))


def task(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full((4, 2), float(n)), np.full(4, float(n))


def filled(tasks: int, capacity: int = 20, seed: int = 0) -> TaskMemory:
    memory, rng = TaskMemory(capacity, 4, 2), np.random.default_rng(seed)
    for n in range(tasks):
        memory.add(n % 3, *task(n), rng)
    return memory


def test_half_of_the_memory_is_the_present() -> None:
    memory = filled(95)
    assert len(memory) == 20
    assert sorted(memory.y[: memory.half, 0]) == list(range(85, 95))


def test_the_other_half_remembers_all_times_alike() -> None:
    tasks, runs = 60, 400
    kept = np.zeros(tasks)
    for seed in range(runs):
        memory = filled(tasks, seed=seed)
        past = memory.y[memory.half :, 0].astype(int)
        assert len(set(past)) == memory.half
        kept[past] += 1
    share = memory.half / tasks
    spread = np.sqrt(runs * share * (1 - share))
    assert np.abs(kept - runs * share).max() < 4.5 * spread
    thirds = kept.reshape(3, -1).sum(1) / kept.sum()
    np.testing.assert_allclose(thirds, 1 / 3, atol=0.03)


def test_draws_alternate_between_the_present_and_all_times() -> None:
    memory = filled(95)
    drawn = memory.draw(200, np.random.default_rng(0))
    assert drawn.raw.shape == (200, 4, 2)
    assert drawn.y.shape == (200, 4)
    assert (drawn.y[::2, 0] >= 85).all()
    assert (drawn.y[1::2, 0] < 85).any()
    assert (drawn.raw[:, 0, 0] == drawn.y[:, 0]).all()
    assert (drawn.key == drawn.y[:, 0].astype(int) % 3).all()


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
