"""Reports: one file, opened from disk by a browser that has no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from array import array
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from browsers import CHARTS, INK, PLACES, asked_for, browser, complaints, screenshot, until
from hypothesis import given
from hypothesis import strategies as st
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from typer.testing import CliRunner

from drift import Explanation
from scenarios.bench.recovery import LEAST, aligned
from scenarios.prequential import Result
from streammeta.charts import Line, Mark, line_chart, rolling_mean
from streammeta.cli import app
from streammeta.cli.pictures import evaluation_report, largest_first, thinned
from streammeta.errors import SinkError
from streammeta.events import DriftDetected
from streammeta.live import Collector
from streammeta.report import Report, require_report
from streammeta.scores import scores_for

MILLION = 1_000_000
FRAME_CENTRE = """
const view = window.Bokeh && [...Bokeh.index][0];
if (!view || !view.frame || !(view.frame.bbox.width > 100)) return null;
const box = view.el.getBoundingClientRect(), frame = view.frame.bbox;
return [box.x + frame.left + frame.width / 2, box.y + frame.top + frame.height / 2];
"""
TOOLTIP = """
let found = "";
const look = (root) => {
  for (const node of root.querySelectorAll("*")) {
    if (node.shadowRoot) look(node.shadowRoot);
    if (/tooltip/i.test(node.className) && node.shadowRoot)
      found += node.shadowRoot.textContent;
    else if (/tooltip/i.test(node.className)) found += node.textContent;
  }
};
look(document);
return found.includes("temp") && found;
"""


def result(rows: int, model: str = "streammeta", drifts: tuple[int, ...] = ()) -> Result:
    """A model that is wrong in every row of the 100 after a drift, and in each tenth elsewhere."""
    scores = scores_for("classification")
    scores.n = rows
    losses = np.zeros(rows)
    losses[::10] = 1.0
    for at in drifts:
        losses[at : at + 100] = 1.0
    made = Result(model, 0, 1, "classification", scores, events=rows, seconds=1.0, watches=True)
    made.rows, made.losses = array("q", range(rows)), array("d", losses.tolist())
    told = Explanation({"error": 9.0}, (), (100, 20), "abrupt", 0, "new")
    made.alarms = [DriftDetected("", at + 9, at, 1, "bank", "error", told) for at in drifts]
    made.drifts = [alarm.row for alarm in made.alarms]
    return made


def own_part(page: str) -> str:
    """A page without Bokeh's own code."""
    return "".join(part for part in re.split(r"</?script>", page) if "bokeh.org" not in part)


def test_a_million_rows_give_a_small_page() -> None:
    drifts = (200_000, 500_000)
    one = result(MILLION, drifts=drifts)
    collector = Collector("", "classification")
    losses = [(np.array(one.losses), [(at, at) for at in drifts])]
    page = evaluation_report(
        "a million", "", [one], settings={}, drifts=[(at, at) for at in drifts], series=[losses],
        found=collector.look(at=0.0),
    ).html()  # fmt: skip
    assert len(own_part(page)) < 100_000
    assert len(page) < 1_600_000


def test_a_page_may_not_ask_for_anything() -> None:
    page = Report("t").picture(line_chart("c", [Line("a", [0, 1], [1, 2])], x_label="x",
                                          y_label="y")).html()  # fmt: skip
    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r"(src|href)=[\"']?(?!data:)\w", own_part(page))


def test_words_of_the_data_stay_words() -> None:
    evil = "</script><script>alert(1)</script>"
    chart = line_chart(evil, [Line(evil, [0.0], [1.0])], x_label=evil, y_label="y",
                       alarms=[Mark(0, evil)])  # fmt: skip
    page = Report(evil).table([evil], [[evil]], [evil]).code(evil).picture(chart).html()
    assert "alert(1)</script>" not in page


def test_a_page_without_charts_carries_no_library() -> None:
    assert len(Report("t").text("words").html()) < 10_000


def test_a_report_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot write"):
        require_report(tmp_path / "file" / "r.html")


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=300),
    st.integers(1, 50),
    st.integers(2, 40),
)
def test_a_rolling_mean_stays_between_the_least_and_the_greatest(
    values: list[float], window: int, points: int
) -> None:
    line = rolling_mean(values, window, points)
    assert line.x[-1] == len(values) - 1
    assert all(min(values) - 1e-9 <= y <= max(values) + 1e-9 for y in line.y)
    assert len(line.y) <= 2 * points + 1


def test_recovery_is_aligned_at_drifts_and_ends_at_the_next() -> None:
    losses = np.zeros(1_000)
    losses[300:350] = 1.0
    losses[600:650] = 1.0
    found = aligned([(losses, [(300, 300), (600, 600)])], before=100, after=400)
    assert found is not None
    assert found.drifts == 2
    assert found.rows.max() < 350  # the median segment has 350 rows
    after = (found.rows > 0) & (found.rows < 45)
    assert (found.mean[after] == 1.0).all()
    assert (found.mean[(found.rows < 0) | (found.rows > 70)] == 0.0).all()


@given(st.lists(st.integers(1, 1_999), max_size=8, unique=True), st.integers(0, 2**31))
def test_the_interval_holds_the_mean_wherever_drifts_are(starts: list[int], seed: int) -> None:
    losses = np.random.default_rng(seed).random(2_000)
    spans = [(start, start) for start in sorted(starts)]
    found = aligned([(losses, spans)])
    edges = [0, *sorted(starts), 2_000]
    gaps = np.diff(edges)
    judged = sum(min(a, b) >= LEAST for a, b in pairwise(gaps))
    if found is None:
        assert judged == 0
        return
    assert found.drifts == judged
    assert (found.low <= found.mean).all()
    assert (found.mean <= found.high).all()
    assert ((found.mean >= 0.0) & (found.mean <= 1.0)).all()


def test_shares_still_add_up_when_they_are_thinned_and_put_together() -> None:
    rows = list(range(1_000))
    families = {f"f{i}": [(i + 1) / 78.0] * 1_000 for i in range(12)}
    few, shares = thinned(rows, largest_first(families), most=100)
    assert len(few) == 100
    assert next(iter(shares)) == "f11"
    assert list(shares)[-1] == "others"
    assert len(shares) == 8
    assert sum(values[50] for values in shares.values()) == pytest.approx(1.0)


def test_without_a_report_nothing_of_it_is_even_imported(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(60)))
    code = (
        "import sys\nfrom streammeta.cli import app\n"
        f"app(['evaluate', {str(table)!r}, '--target', 'y', '--models', 'no_change'],"
        " standalone_mode=False)\n"
        "found = [m for m in sys.modules if m.startswith(('bokeh', 'streammeta.live',"
        " 'streammeta.charts', 'matplotlib')) and m != 'streammeta.charts']\n"
        "assert not found, found\n"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": root}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a short replay with known drifts."""
    path = tmp_path_factory.mktemp("report") / "sine.html"
    command = ["replay", "sine_switch", "--rows", "1000", "--models", "streammeta,no_change"]
    done = CliRunner().invoke(app, [*command, "--report", str(path)])
    assert done.exit_code == 0, done.output
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [("desktop", 1200, False), ("dark", 1200, True), ("phone", 390, False)],
)
def test_a_report_opens_from_disk(replayed: Path, name: str, width: int, dark: bool) -> None:
    with browser(width, dark=dark) as page:
        page.get(replayed.as_uri())
        charts = until(page, "return window.Bokeh && Bokeh.documents.length && (() => {"
                             f"{CHARTS}}})()")  # fmt: skip
        assert charts["After a drift: mean over 4 true drifts"][:2] == ["VArea", "Line"]
        assert charts["Mean absolute error, last 50 labels"] == [
            "Line", "Line", "VSpan", "VSpan", "Line",
        ]  # fmt: skip
        assert "Adapting: loss on support rows" in charts
        assert "VArea" in charts["Weights of the families of experts"]
        count = len(charts)
        inked = until(page, f"const found = (() => {{{INK}}})().filter((n) => n > 200);"
                            f"return found.length >= {count} && found")  # fmt: skip
        assert len(inked) == count  # one canvas of each has a picture
        heads = [head.text for head in page.find_elements("css selector", "h2")]
        assert heads[:3] == ["Score", "Recovery", "Who is trusted"]
        assert "How this was made" in heads
        assert "True drifts" in heads
        told = page.find_element("tag name", "main").text
        assert "streammeta found" in told
        assert "Best possible" in told
        assert "rows later" in told
        assert "abrupt" in told
        assert page.execute_script("return document.documentElement.scrollWidth") == width
        ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 24, 31)" if dark else "rgb(255, 255, 255)")
        assert complaints(page) == []
        assert asked_for(page) == {replayed.as_uri()}
        screenshot(page, f"report-{name}")
        for title, wide, room, *_ in page.execute_script(PLACES):
            assert wide <= room, f"{title!r} takes {wide:.0f} of {room:.0f} pixels"


@pytest.mark.slow
def test_pointing_at_an_alarm_tells_what_moved(tmp_path: Path) -> None:
    chart = line_chart("c", [Line("a", [0, 100], [0.0, 1.0])], x_label="row", y_label="score",
                       alarms=[Mark(50, "temp moved up")])  # fmt: skip
    path = tmp_path / "p.html"
    Report("t").picture(chart).save(path)
    with browser() as page:
        page.get(path.as_uri())
        x, y = until(page, FRAME_CENTRE)  # that is where row 50 is
        actions = ActionBuilder(page)
        actions.pointer_action.move_to_location(round(x) - 5, round(y))
        actions.pointer_action.move_to_location(round(x), round(y))
        actions.perform()
        assert "temp moved up" in until(page, TOOLTIP)
        assert complaints(page) == []
