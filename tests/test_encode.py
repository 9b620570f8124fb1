"""From feature dicts to rows: the map only grows, the width never changes, nothing breaks it."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streammeta.encode import CATEGORY_COLUMNS, CLIP, LARGEST, MAX_WIDTH, ColumnMap
from streammeta.errors import RejectedEvent
from streammeta.experts.kernels import standardise


def image(columns: ColumnMap) -> str:
    return json.dumps(columns.to_info())


def test_numbers_go_as_they_are_and_booleans_are_numbers() -> None:
    columns = ColumnMap()
    row = columns.row({"a": 2.5, "b": 7, "c": True, "d": np.float32(0.5), "e": np.int64(-3)})
    found = {name: row[column] for name, column in columns.numeric.items()}
    assert found == {"a": 2.5, "b": 7.0, "c": 1.0, "d": 0.5, "e": -3.0}
    assert (columns.scaled[: columns.used] == 1).all()


def test_the_order_of_a_records_keys_means_nothing() -> None:
    one, other = ColumnMap(), ColumnMap()
    a = one.row({"b": 1.0, "a": "x", "c": 3.0})
    b = other.row({"c": 3.0, "b": 1.0, "a": "x"})
    np.testing.assert_array_equal(a, b)
    assert image(one) == image(other)


def test_a_category_lights_one_column_of_its_feature() -> None:
    columns = ColumnMap()
    rows = {day: columns.row({"day": day, "t": 1.0}) for day in ("mon", "tue", "mon")}
    start, _, known = columns.blocks["day"]
    assert known == {"mon": 0, "tue": 1}
    for day, row in rows.items():
        block = row[start : start + CATEGORY_COLUMNS]
        assert block.sum() == 1.0
        assert block[known[day]] == 1.0
    assert (columns.scaled[start : start + CATEGORY_COLUMNS] == 0).all()


def test_more_categories_than_columns_share_by_hash() -> None:
    columns = ColumnMap()
    for i in range(100):
        row = columns.row({"city": f"city-{i}"})
        assert np.nansum(row) == 1.0
        np.testing.assert_array_equal(row, columns.row({"city": f"city-{i}"}))
    assert len(columns.blocks["city"][2]) == CATEGORY_COLUMNS


def test_a_number_in_a_column_of_categories_is_a_category() -> None:
    columns = ColumnMap()
    columns.row({"code": "A7"})
    assert np.nansum(columns.row({"code": 12})) == 1.0
    assert "12" in columns.blocks["code"][2]


def test_missing_is_nan_with_a_flag() -> None:
    columns = ColumnMap()
    columns.row({"a": 1.0, "b": 2.0})
    row = columns.row({"a": None, "b": 2.0})
    assert math.isnan(row[columns.numeric["a"]])
    assert row[columns.flags["a"]] == 1.0
    assert row[columns.numeric["b"]] == 2.0
    again = columns.row({"a": math.nan, "b": 2.0})
    np.testing.assert_array_equal(again, row)
    assert columns.row({"a": 1.0, "b": 2.0})[columns.flags["a"]] == 0.0


def test_features_vanish_and_come_back() -> None:
    columns = ColumnMap()
    whole = columns.row({"a": 1.0, "b": 2.0})
    gone = columns.row({"b": 2.0})
    assert math.isnan(gone[columns.numeric["a"]])
    np.testing.assert_array_equal(columns.row({"a": 1.0, "b": 2.0}), whole)
    swapped = columns.row({"a": 1.0, "new": 5.0})  # as many features as before
    assert math.isnan(swapped[columns.numeric["b"]])
    assert swapped[columns.numeric["new"]] == 5.0


def test_a_feature_that_was_null_at_first_may_still_become_anything() -> None:
    columns = ColumnMap()
    columns.row({"day": None, "wind": None, "t": 1.0})
    row = columns.row({"day": "mon", "wind": 3.0, "t": 1.0})
    assert row[columns.numeric["wind"]] == 3.0
    assert columns.blocks["day"][2] == {"mon": 0}


def test_rows_from_before_a_feature_read_as_its_mean() -> None:
    columns = ColumnMap()
    old = columns.row({"a": 1.0})
    columns.row({"a": 1.0, "height": 180.0})
    out = np.empty((1, columns.width), np.float32)
    mean = np.where(np.arange(columns.width) == columns.numeric["height"], 175.0, 0.0)
    standardise(old[None], columns.scaled, mean, np.ones(columns.width), CLIP, out)
    assert out[0, columns.numeric["height"]] == 0.0


def test_features_that_appear_take_what_was_reserved_and_then_share() -> None:
    columns = ColumnMap()
    columns.row({"a": 1.0})
    width = columns.width
    for i in range(50):
        row = columns.row({"a": 1.0, f"new-{i}": 2.0})
        assert row.shape == (width,)
    assert columns.used == width
    assert columns.schema_changes == {"feature_added": 50}
    assert columns.row({"a": 1.0, "word": "x"}).shape == (width,)


def test_a_feature_that_shares_a_column_does_not_blind_the_others_when_it_is_away() -> None:
    columns = ColumnMap()
    columns.row({"a": 1.0})
    for i in range(40):
        columns.row({"a": 1.0, f"new-{i}": 2.0})
    assert columns.row({"a": 7.0})[columns.numeric["a"]] == 7.0


def test_shared_columns_are_bounded_for_the_networks() -> None:
    columns = ColumnMap()
    columns.row({"word": "x"})
    for i in range(40):
        row = columns.row({"word": "x", f"n{i}": 1e30})
    moments = np.zeros(columns.width)
    out = np.empty((1, columns.width), np.float32)
    standardise(row[None], columns.scaled, moments, moments + 1.0, CLIP, out)
    assert np.abs(out).max() <= CLIP


def test_the_widest_event_still_has_a_bounded_row() -> None:
    columns = ColumnMap()
    row = columns.row({f"f{i}": float(i) for i in range(5000)})
    assert row.shape == (MAX_WIDTH,)
    assert columns.row({}).shape == (MAX_WIDTH,)


def test_an_event_without_features_has_a_row_too() -> None:
    columns = ColumnMap()
    assert columns.row({}).shape == (columns.width,)
    assert columns.width > 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.inf, "not_finite"),
        (-math.inf, "not_finite"),
        (10**400, "not_finite"),
        pytest.param(-(10**9000), "not_finite", id="longer than Python prints"),
        (1e200, "not_finite"),
        ([1.0], "wrong_type"),
        ({"a": 1}, "wrong_type"),
        (b"x", "wrong_type"),
        (1j, "wrong_type"),
    ],
)
def test_unusable_values_are_refused_and_leave_no_trace(value: Any, reason: str) -> None:
    for known in ({}, {"ok": 1.0, "bad": 2.0}):
        columns = ColumnMap()
        if known:
            columns.row(known)
        before = image(columns)
        with pytest.raises(RejectedEvent, match="bad") as refused:
            columns.row({"also new": "x", "bad": value, "ok": 1.0})
        assert refused.value.reason == reason
        assert image(columns) == before


def test_a_word_where_a_number_has_been_is_refused() -> None:
    columns = ColumnMap()
    columns.row({"temp": 20.0})
    with pytest.raises(RejectedEvent, match="'temp' is 'warm', expected a number as before"):
        columns.row({"temp": "warm"})


def test_names_must_be_strings() -> None:
    with pytest.raises(RejectedEvent, match="feature name 3"):
        ColumnMap().row({3: 1.0})  # type: ignore[dict-item]


names = st.one_of(st.sampled_from(["a", "b", "c", "ä", "\ud800"]), st.text(max_size=3))
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**320),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["\ud800", "", "NaN"]),
    st.lists(st.integers(), max_size=2),
)
records = st.lists(st.dictionaries(names, values, max_size=8), max_size=12)


@settings(max_examples=150, deadline=None)
@given(records)
def test_whatever_json_brings_is_a_row_or_a_refusal(stream: list[dict[str, Any]]) -> None:
    columns, width = ColumnMap(), None
    for x in stream:
        before = copy.deepcopy(columns.numeric), copy.deepcopy(columns.blocks)
        untouched, strange = image(columns), dict(columns.strange)
        try:
            row = columns.row(x)
        except RejectedEvent:
            columns.strange = strange  # words in the place of numbers are counted, and no more
            assert image(columns) == untouched
            continue
        width = width or columns.width
        assert row.shape == (width,)  # fixed at the first event
        assert not np.isinf(row).any()
        assert np.abs(np.nan_to_num(row)).max() <= LARGEST
        assert before[0].items() <= columns.numeric.items()  # append-only
        for name, (start, room, known) in before[1].items():
            assert columns.blocks[name][:2] == (start, room)
            assert known.items() <= columns.blocks[name][2].items()
        assert columns.used <= width
        np.testing.assert_array_equal(columns.row(x, grow=False), columns.row(x))


@settings(max_examples=60, deadline=None)
@given(records, st.dictionaries(names, values, max_size=5))
def test_looking_changes_nothing_and_the_map_travels(
    stream: list[dict[str, Any]], x: dict[str, Any]
) -> None:
    columns = ColumnMap()
    for event in stream:
        try:
            columns.row(event)
        except RejectedEvent:
            continue
    before = image(columns)
    twin = ColumnMap.from_info(json.loads(before))
    assert image(twin) == before

    def tried(these: ColumnMap, grow: bool) -> Any:
        try:
            return these.row(x, grow=grow)
        except RejectedEvent as refused:
            return refused.reason

    looked = tried(columns, False)
    assert image(columns) == before
    np.testing.assert_array_equal(looked, tried(twin, True))
    np.testing.assert_array_equal(looked, tried(columns, True))


def test_the_description_is_a_copy() -> None:
    columns = ColumnMap()
    columns.row({"a": 1.0, "b": "x"})
    info = columns.to_info()
    before = json.dumps(info)
    columns.row({"a": None, "b": "y", "c": 2.0})
    assert json.dumps(info) == before
