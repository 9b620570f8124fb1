"""Questions wait for their labels: in a bounded table, for a bounded time, across restarts."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from streammeta.pending import Asked, Pending
from streammeta.pooling import SAID


def question(name: str, ts: float | None = None, outputs: int = 2, row: int = 0) -> Asked:
    rng = np.random.default_rng(row)
    return Asked(
        name, 0, row, ts, rng.normal(size=3), rng.random((4, outputs)),
        np.arange(4) + row, "mon", rng.random((SAID, outputs)), 0.5, 2.0,
    )  # fmt: skip


def names(gone: list[tuple[Asked, str]]) -> list[tuple[str, str]]:
    return [(asked.id, why) for asked, why in gone]


def test_a_question_is_taken_once() -> None:
    pending = Pending(10, None)
    pending.add(question("a"))
    assert "a" in pending
    assert len(pending) == 1
    taken = pending.take("a")
    assert taken is not None
    assert taken.id == "a"
    assert pending.take("a") is None
    assert "a" not in pending


def test_over_the_limit_the_oldest_goes() -> None:
    pending = Pending(2, None)
    for name in "abcd":
        pending.add(question(name))
    assert names(pending.expire(None)) == [("a", "table_full"), ("b", "table_full")]
    assert list(pending.table) == ["c", "d"]
    assert pending.expire(1e9) == []  # without a time to live nothing is ever late


def test_time_to_live_is_event_time() -> None:
    pending = Pending(10, ttl=5.0)
    for i, name in enumerate("abc"):
        pending.add(question(name, ts=float(i)))
    assert pending.expire(None) == []
    assert pending.expire(5.0) == []  # exactly its time is still in time
    assert names(pending.expire(6.5)) == [("a", "time_to_live"), ("b", "time_to_live")]
    assert list(pending.table) == ["c"]
    pending.take("c")
    assert pending.expire(1e9) == []


@pytest.mark.parametrize("ts", [None, math.nan, math.inf])
def test_a_question_without_a_time_holds_nobody_up(ts: float | None) -> None:
    pending = Pending(10, ttl=5.0)
    pending.add(question("timeless", ts))
    pending.add(question("a", ts=0.0))
    assert names(pending.expire(100.0)) == [("a", "time_to_live")]
    assert list(pending.table) == ["timeless"]


@pytest.mark.parametrize("outputs", [(2, 2, 2), (8, 16, 8), (16, 8, 8)])
def test_waiting_questions_survive_a_round_trip(outputs: tuple[int, int, int]) -> None:
    """Also when some were asked before the network grew outputs for more classes."""
    pending = Pending(10, ttl=5.0)
    for i, name in enumerate("abc"):
        pending.add(question(name, ts=float(i), outputs=outputs[i], row=i))
    tensors, info = pending.to_parts()
    back = Pending(10, ttl=5.0)
    back.load_parts(tensors, json.loads(json.dumps(info)))
    assert list(back.table) == ["a", "b", "c"]
    for asked, again in zip(pending.table.values(), back.table.values(), strict=True):
        for one, other in zip(asked, again, strict=True):
            assert type(one) is type(other)
            np.testing.assert_array_equal(one, other)  # type: ignore[arg-type]
    # whoever leaves, both write the same bytes from then on
    for name in ("b", "a"):
        pending.take(name)
        back.take(name)
        ours, theirs = pending.to_parts(), back.to_parts()
        assert ours[1] == theirs[1]
        for part in ours[0]:
            np.testing.assert_array_equal(ours[0][part], theirs[0][part])
    assert names(back.expire(100.0)) == [("c", "time_to_live")]


def test_an_empty_table_is_nothing() -> None:
    assert Pending(3, None).to_parts() == ({}, [])
    pending = Pending(3, None)
    pending.add(question("a"))
    pending.load_parts({}, [])
    assert len(pending) == 0


def test_a_question_holds_on_to_its_own_rows_only() -> None:
    """Those of a whole chunk would stay in memory until it has its label."""
    asked = question("a")
    chunk = np.zeros((64, *asked.members.shape))
    pending = Pending(10, None)
    pending.add(asked._replace(members=chunk[3], raw=np.zeros((64, 5))[3]))
    kept = pending.table["a"]
    assert all(part.base is None for part in (kept.raw, kept.members, kept.births, kept.said))
