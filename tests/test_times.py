"""Times: every common way to write one is read, the same way for a whole column."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streammeta.errors import RejectedEvent, UsageError
from streammeta.sources import FileSource
from streammeta.sources.times import ISO, clock_of, time_layouts

DAYS = [datetime(2020, 7, 20, tzinfo=UTC) + timedelta(days=i) for i in range(30)]
LAYOUTS = [
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%SZ",
    "%Y/%m/%d",
    "%m/%d/%Y",
    "%m/%d/%y",
    "%m/%d/%Y %I:%M %p",
    "%d.%m.%Y",
    "%d/%m/%Y %H:%M",
    "%d-%b-%Y",
    "%b %d %Y",
    "%a %b %d %H:%M:%S %Y",
    "%Y%m%d",
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_column_of_dates_is_read_in_the_layout_that_fits_all_of_it(tmp_path, layout):
    path = tmp_path / "t.csv"
    path.write_text("t,y\n" + "".join(f"{day.strftime(layout)},1.5\n" for day in DAYS))
    source = FileSource(path, target="y", time="t")
    events, _ = source.read(source.start(), 100)
    assert [e.ts for e in events] == [day.timestamp() for day in DAYS]


def test_a_date_that_is_a_feature_becomes_seconds_and_a_word_stays_a_word(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("m,w,v,y\n1949-01,mon,1-2,0\n1949-02,may,3-4,1\n")
    sniff = FileSource(path, target="y").sniff()
    assert list(sniff.columns.values())[:3] == ["time", "category", "category"]
    events, _ = FileSource(path, target="y").read({"emitted": 0}, 2)
    assert [e.x["m"] for e in events] == [-662688000.0, -660009600.0]


@pytest.mark.parametrize("ticks", [1, 1_000, 1_000_000, 1_000_000_000])
@pytest.mark.parametrize("kind", [int, str])
def test_epoch_numbers_are_read_in_the_unit_that_their_size_tells(ticks, kind):
    column = [kind(int(day.timestamp()) * ticks) for day in DAYS]
    clock = clock_of(column)
    assert [clock.seconds(v) for v in column] == [day.timestamp() for day in DAYS]
    assert ISO.seconds(column[0]) == DAYS[0].timestamp()


def test_the_unit_is_that_of_the_column_not_of_its_first_value():
    clock = clock_of([0, 5_000, 1_600_000_000_000])
    assert clock.seconds(5_000) == 5.0


def test_single_bad_cells_and_a_second_layout_do_not_spoil_a_column():
    clock = clock_of(["soon", "07/31/2020", None, "2020-08-01", "31.8.2020", "", "08/01/2020"])
    assert clock.layouts == ("%m/%d/%Y", "%d.%m.%Y")
    assert clock.seconds("08/01/2020") == clock.seconds("2020-08-01") == 1596240000.0
    assert clock.seconds("") is None
    with pytest.raises(RejectedEvent, match="is 'soon', expected seconds since 1970 or a date"):
        clock.seconds("soon")


@pytest.mark.parametrize(("cells", "words"), [("x", "is 'x', expected"), ("", "is empty")])
def test_a_column_without_any_time_is_refused_as_the_time(tmp_path, cells, words):
    path = tmp_path / "t.csv"
    path.write_text("t,y\n" + f"{cells},1\n" * 5)
    with pytest.raises(UsageError, match=f"time column 't' {words}"):
        FileSource(path, target="y", time="t").sniff()


@given(st.lists(st.text(max_size=12), max_size=5))
def test_no_text_breaks_the_search_for_a_layout(texts):
    time_layouts(texts)
    clock_of(texts)
