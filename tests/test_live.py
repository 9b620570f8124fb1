"""What the live page shows is what the engine said: collector, curves, feed, routes."""

from __future__ import annotations

import json
import threading
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_pages import Site

from drift import Explanation, Moved
from streammeta.events import (
    Adapted,
    DriftDetected,
    LabelExpired,
    MetaUpdated,
    Output,
    Predicted,
    Rejected,
    Scored,
)
from streammeta.live import Collector, Feed
from streammeta.live.collector import EVERY, FEWEST_OF_KEY, FROZEN, MOST_DRIFTS, NEWEST, SAMPLE
from streammeta.live.curve import Curve
from streammeta.live.feed import IDLE, INTERVAL
from streammeta.live.page import chart_items, family_groups
from streammeta.scores import FROZEN_EVERY, WINDOW


class Inside:
    """The part of an engine's statistics that is shown."""

    pending = 3
    inner_lr = (0.01, 0.1, 0.5)

    def __init__(self, **weights: float) -> None:
        self.weights = weights


def row(t: int, truth: str, said: str, key: str = "") -> list[Output]:
    loss = float(truth != said)
    return [
        Predicted(f"q{t}", key, t, None, said),
        Scored(f"q{t}", key, t, truth, said, loss, 0.5, 0),
    ]


@given(
    st.lists(st.tuples(st.integers(0, 5_000), st.floats(-100, 100)), max_size=300),
    st.sampled_from([2, 8, 64]),
    st.integers(1, 20),
)
def test_a_curve_forgets_nothing_however_little_room_it_has(
    values: list[tuple[int, float]], most: int, width: int
) -> None:
    curve = Curve(most, width)
    for at, value in values:
        curve.add(at, value)
    points = curve.points()
    assert len(points.rows) <= most
    assert list(points.rows) == sorted(points.rows)
    bins: dict[int, list[float]] = {}
    for at, value in values:
        bins.setdefault(at // curve.width, []).append(value)
    assert list(points.values) == pytest.approx([sum(v) / len(v) for _, v in sorted(bins.items())])


def test_the_score_is_that_of_the_last_labels_and_no_change_is_as_stale_as_the_model() -> None:
    collector = Collector("s", "classification", window=4)
    for t, (truth, said) in enumerate(zip("aabbab", "aabaab", strict=True)):
        collector.record(row(t, truth, said))
    now = collector.look(at=0.0)
    assert (now.rows, now.labels) == (6, 6)
    assert now.scores == {"model": 0.75, "no change": 0.25}  # of b b a b: known were a b b a
    late = Collector("s", "classification")
    late.record([Predicted("x", "", 0, None, "a"), Predicted("y", "", 1, None, "a")])
    late.record(
        [Scored("x", "", 0, "a", "a", 0.0, 0.1, 1), Scored("y", "", 1, "a", "a", 0.0, 0.1, 1)]
    )
    assert set(late.look(at=0.0).scores) == {"model"}  # nothing was known when they were asked


def test_numbers_are_told_as_errors_in_their_own_units() -> None:
    collector = Collector("s", "regression")
    collector.record([Predicted("x", "", 0, None, 1.0), Scored("x", "", 0, 3.0, 1.0, 2.0, 4.0, 0)])
    now = collector.look(at=0.0)
    assert (now.score, now.higher_is_better, now.scores["model"]) == ("mae", False, 2.0)


def test_a_baseline_that_is_fed_has_a_curve_of_its_own() -> None:
    collector = Collector("s", "classification")
    for t in range(200):
        collector.record(row(t, "a", "a"))
        collector.baseline("frozen", row(t, "a", "b" if t >= 100 else "a"))
    now = collector.look(at=0.0)
    assert now.scores["frozen"] == 0.5
    assert now.curves["frozen"].values[-1] == 0.5
    assert now.curves["model"].values[-1] == 1.0
    assert now.rows == 200  # those of the model


def test_the_frozen_network_is_judged_over_as_many_rows_as_the_model() -> None:
    collector = Collector("s", "classification", window=100)
    for t in range(300):
        bad = float(t >= 150)  # from here on both are wrong
        frozen = None if t % FROZEN_EVERY else bad
        told = Scored(f"q{t}", "", t, "a", "b" if bad else "a", bad, 0.5, 0, frozen_loss=frozen)
        collector.record([Predicted(f"q{t}", "", t, None, "a"), told])
        if t == 199:
            half = collector.look(at=0.0).scores
            assert (half["model"], half[FROZEN]) == (0.5, 0.52)  # it was asked for 25 rows
    assert collector.look(at=0.0).scores[FROZEN] == 0.0
    points = collector.look(at=0.0).curves[FROZEN]
    assert min(v for at, v in zip(*points, strict=True) if at > 260) == 0.0


def test_a_long_stream_is_fine_at_its_end_and_coarse_before() -> None:
    collector = Collector("s", "classification")
    rows = 40_000
    for t in range(rows):
        collector.record(row(t, "a", "a" if t < rows // 2 else "b"))
    points = collector.look(at=0.0).curves["model"]
    assert len(points.rows) <= 2 * NEWEST
    assert list(points.rows) == sorted(points.rows)
    assert points.rows[-1] == rows - 1
    fine = [b - a for a, b in zip(points.rows[-NEWEST:], points.rows[1 - NEWEST :], strict=False)]
    assert set(fine) == {EVERY}
    before = [v for at, v in zip(*points, strict=True) if at < rows // 2 - 200]
    after = [v for at, v in zip(*points, strict=True) if at > rows // 2 + WINDOW + 200]
    assert set(before) == {1.0}
    assert set(after) == {0.0}


def test_alarms_are_told_with_what_moved_and_the_oldest_go() -> None:
    collector = Collector("s", "classification")
    moved = Moved("temp", 1.5, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    why = Explanation({"error": 9.0}, (moved,), (100, 20), "abrupt", 0, "new")
    for n in range(MOST_DRIFTS + 5):
        collector.record([DriftDetected("k", 10 * n, 10 * n - 3, n, "bank", "error", why)])
    now = collector.look(at=0.0)
    assert now.n_drifts == MOST_DRIFTS + 5
    assert len(now.drifts) == MOST_DRIFTS
    assert now.drifts[-1].text == "abrupt, temp moved up (2 -> 5), new context"
    assert now.drifts[0].row == 50


def test_the_weights_of_families_are_over_the_same_rows_whenever_they_came() -> None:
    collector = Collector("s", "classification")
    t = 0
    for weights in ({"mlp": 1.0}, {"mlp": 0.4, "archive": 0.6}):
        for _ in range(5):
            assert collector.curious
            collector.sample(Inside(**weights))
            assert not collector.curious
            for _ in range(SAMPLE):
                collector.record(row(t, "a", "a"))
                t += 1
    now = collector.look(at=0.0)
    assert now.weights["mlp"] == (1.0,) * 5 + (0.4,) * 5
    assert now.weights["archive"] == (0.0,) * 5 + (0.6,) * 5
    assert len(now.weight_rows) == 10
    assert (now.pending, now.rates) == (3, (0.01, 0.1, 0.5))


def test_adaptations_outer_steps_rejections_and_lost_labels_are_counted() -> None:
    collector = Collector("s", "classification")
    collector.record([
        Adapted("", 5, 0, "challenger-1", "drift", 4, 2.0, 0.5),
        MetaUpdated(6, 1, 8, 0.7, 0.1, 0, "meta_sgd"),
        MetaUpdated(6, 1, 8, 0.9, 0.1, 0, "r2d2"),
        Rejected("z", "decode", "malformed", "line 4"),
        Predicted("gone", "", 0, None, "a"),
        LabelExpired("gone", "", 0, "ttl"),
    ])  # fmt: skip
    now = collector.look(at=0.0)
    assert (now.before.values, now.after.values) == ((2.0,), (0.5,))
    assert (now.adaptations, now.meta_updates, now.rejected, now.expired) == (1, 1, 1, 1)
    assert {learner: points.values for learner, points in now.meta.items()} == {
        "meta_sgd": (0.7,),
        "r2d2": (0.9,),
    }


def test_keys_with_the_greatest_recent_loss_come_first() -> None:
    collector = Collector("s", "classification")
    for t in range(40):
        collector.record(row(2 * t, "a", "a" if t % 2 else "b", key="half"))
        collector.record(row(2 * t + 1, "a", "a", key="fine"))
    collector.record(row(99, "a", "b", key="young"))
    keys = collector.look(at=0.0).keys
    assert [key for key, _, _ in keys] == ["half", "fine"]  # one label says nothing
    assert keys[0][1:] == (pytest.approx(0.5), 40)
    assert FEWEST_OF_KEY > 1


def test_the_newest_answers_get_their_truth_when_it_comes() -> None:
    collector = Collector("s", "classification")
    collector.record([Predicted("x", "shop", 7, None, "a")])
    assert collector.look(at=0.0).predictions[-1] == (7, "shop", "a", None, None)
    collector.record([Scored("x", "shop", 7, "b", "a", 1.0, 2.0, 5)])
    assert collector.look(at=0.0).predictions[-1] == (7, "shop", "a", "b", 1.0)


def test_events_per_second_are_those_of_the_last_seconds() -> None:
    collector = Collector("s", "classification")
    t = 0
    for second in range(10):
        collector.look(at=float(second))
        for _ in range(100 if second < 5 else 20):
            collector.record(row(t, "a", "a"))
            t += 1
    assert collector.look(at=10.0).events_per_second == pytest.approx(20.0)


def test_a_snapshot_is_json_whatever_the_numbers_are() -> None:
    collector = Collector("s", "regression")
    told = Scored("x", "", 0, 3.0, 1.0, float("inf"), 4.0, 0)
    collector.record([Predicted("x", "", 0, None, 1.0), told])
    collector.committed(1_795_000_000.25)
    found = json.loads(json.dumps(collector.look(at=5.0).to_json(), allow_nan=False))
    assert found["scores"]["model"] is None
    assert found["committed"] == 1_795_000_000.25
    assert found["predictions"][0]["truth"] == 3.0


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=20, max_size=40))
def test_numbers_travel_in_five_digits(values: list[float]) -> None:
    collector = Collector("s", "classification")
    curve = collector.look(at=0.0).before._replace(rows=tuple(values), values=tuple(values))
    told = collector.look(at=0.0)._replace(before=curve).to_json()["before"]["values"]
    assert told == pytest.approx(values, rel=1e-4, abs=1e-12)
    assert all(len(repr(value)) < 26 for value in told)


def test_a_feed_is_due_five_times_a_second_while_somebody_looks() -> None:
    feed = Feed()
    times = [t / 100 for t in range(1_000)]
    assert sum(feed.due(now) for now in times) == 10.0 / IDLE
    with feed.watching():
        later = [10.0 + t / 100 for t in range(1_000)]
        assert sum(feed.due(now) for now in later) <= 10.0 / INTERVAL
    assert feed.due(100.0)
    assert not feed.due(100.0 + INTERVAL)


def test_json_is_made_once_for_all_who_look() -> None:
    feed = Feed()
    assert feed.encoded() == (None, "null")
    feed.take(Collector("s", "classification").look(at=0.0))
    assert feed.encoded()[1] is feed.encoded()[1]
    first = feed.encoded()[1]
    feed.take(Collector("other", "classification").look(at=0.0))
    assert feed.encoded()[1] != first


@given(st.dictionaries(st.sampled_from("abcdefghijkl"), st.floats(0, 1), max_size=12))
def test_every_family_is_in_one_group(shares: dict[str, float]) -> None:
    groups = family_groups({family: [share] for family, share in shares.items()})
    assert sorted(family for group in groups for family in group) == sorted(shares)
    assert len(groups) <= 8


def test_charts_are_made_of_what_there_is() -> None:
    collector = Collector("s", "classification")
    assert chart_items(None)["items"] == []
    assert chart_items(collector.look(at=0.0))["items"] == []
    for t in range(40):
        collector.record(row(t, "a", "a"))
    made = chart_items(collector.look(at=0.0))
    assert [item["target_id"] for item in made["items"]] == ["chart-score"]
    assert made["curves"] == ["model", "no change"]


@pytest.fixture
def site() -> Site:
    made = Site()
    yield made
    made.stop()


def test_the_page_and_its_assets_come_from_here_and_may_speak_to_nobody_else(site: Site) -> None:
    with urlopen(site.url) as answer:
        page = answer.read().decode()
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "connect-src 'self'" in policy
    assert "http" not in page
    for name, kind in (
        ("bokeh.min.js", "javascript"),
        ("page.js", "javascript"),
        ("page.css", "css"),
    ):
        with urlopen(f"{site.url}assets/{name}") as answer:
            assert kind in answer.headers["Content-Type"]
            assert len(answer.read()) > 1_000
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{site.url}assets/../collector.py")


def test_snapshots_are_sent_as_they_come_and_end_with_the_feed(site: Site) -> None:
    collector = Collector("s", "classification")
    collector.record(row(0, "a", "a"))
    site.feed.take(collector.look(at=0.0))
    with urlopen(f"{site.url}page/stream", timeout=30) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert stream.readline().startswith(b"retry:")
        lines = iter(stream.readline, b"")
        first = next(line for line in lines if line.startswith(b"data:"))
        assert json.loads(first.removeprefix(b"data:"))["rows"] == 1
        collector.record(row(1, "a", "a"))
        site.feed.take(collector.look(at=1.0))
        second = next(line for line in lines if line.startswith(b"data:"))
        assert json.loads(second.removeprefix(b"data:"))["rows"] == 2
        threading.Timer(0.0, site.feed.close).start()
        assert all(line.strip() == b"" for line in lines)
