"""The live page in a real browser, while a scenario with known drifts is replayed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browsers import INK, PLACES, asked_for, browser, complaints, screenshot, until
from live_pages import Site
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from scenarios.models import build
from scenarios.scenario import scenario
from streammeta.engine import Engine
from streammeta.events import DriftDetected
from streammeta.live import Collector

pytestmark = pytest.mark.slow

SWITCH = 200  # rows of a task of the scenario
LAST_ROW = """
const source = window.Bokeh && Bokeh.documents
  .map((doc) => doc.get_model_by_name("line:model")).find((one) => one);
return source && source.data.x.length ? source.data.x[source.data.x.length - 1] : null;
"""
ALARM_ROWS = """
const source = Bokeh.documents.map((doc) => doc.get_model_by_name("alarms")).find((one) => one);
return source ? Array.from(source.data.x) : [];
"""
LINK = "return document.getElementById('link').dataset.state"


class Replay:
    """A scenario that is replayed as far as a test wants it, on a page."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._stream = scenario("sine_switch", seed=0, rows=1_000)
        self._events = self._stream.events()
        self._model = build("streammeta", task="regression")
        self._frozen = build("frozen@200", task="regression")
        self._collector = Collector("sine_switch, replayed", "regression", window=50)
        self.rows = 0

    def until(self, row: int) -> None:
        """Go on to ``row`` and show what there is then."""
        assert isinstance(self._model, Engine)
        while self.rows < row:
            event = [next(self._events)]
            self._collector.record(self._model.observe(event) + self._model.replay())
            self._collector.baseline("frozen", self._frozen.observe(event))
            if self._collector.curious:
                self._collector.sample(self._model.statistics())
            self.rows += 1
        self.show()

    def show(self) -> None:
        self._collector.committed(float(self.rows))
        self.site.feed.take(self._collector.look(at=float(self.rows + 3)))


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    """One replay for the whole file; every test shows more of it."""
    made = Replay(Site())
    yield made
    made.site.stop()


def last_row(page: Chrome, at_least: float) -> float:
    return float(until(page, f"const row = (() => {{{LAST_ROW}}})(); "
                             f"return row >= {at_least} && row"))  # fmt: skip


def test_the_chart_moves_a_drift_appears_and_a_restart_is_survived(replay: Replay) -> None:
    with browser() as page:
        replay.until(SWITCH - 20)
        page.get(replay.site.url)
        assert last_row(page, SWITCH - 40) < SWITCH
        assert page.execute_script(ALARM_ROWS) == []
        assert page.title.startswith("sine_switch, replayed")

        replay.until(3 * SWITCH)
        last_row(page, 3 * SWITCH - 20)  # the same chart, further on
        alarms = until(page, f"const rows = (() => {{{ALARM_ROWS}}})(); return rows.length && rows")
        found = [row for row in alarms if row >= SWITCH and row % SWITCH < 100]
        assert found, f"no alarm soon after a switch, every {SWITCH} rows: {alarms}"
        told = page.find_element(By.ID, "drifts").text
        assert "what changed" in told
        assert f"{int(alarms[-1]):,}" in told
        assert "Drift at row" in page.find_element(By.ID, "news").text
        tiles = page.find_element(By.ID, "tiles").text
        for words in ("mae, no change", "mae, frozen", "labels pending", "3 s ago"):
            assert words in tiles
        inked = until(page, f"const found = (() => {{{INK}}})().filter((n) => n > 200);"
                            "return found.length >= 4 && found")  # fmt: skip
        assert len(inked) == 4  # score, weights, adapting, learning
        assert complaints(page) == []
        assert all(url.startswith((replay.site.url, "blob:")) for url in asked_for(page))
        screenshot(page, "live-desktop")

        port = replay.site.port
        replay.site.stop()
        until(page, f"{LINK} === 'lost'")
        replay.site = Site(port)
        replay.until(4 * SWITCH)
        until(page, f"{LINK} === 'live'")
        last_row(page, 4 * SWITCH - 20)
        # a server that is away is all there was to complain about
        assert all("ERR_CONNECTION_REFUSED" in text or "page/stream" in text
                   for text in complaints(page))  # fmt: skip


@pytest.mark.parametrize(("name", "width", "dark"), [("dark", 1200, True), ("phone", 390, False)])
def test_it_can_be_read_in_the_dark_and_on_a_phone(
    replay: Replay, name: str, width: int, dark: bool
) -> None:
    replay.until(4 * SWITCH)
    with browser(width, dark=dark) as page:
        page.get(replay.site.url)
        last_row(page, 4 * SWITCH - 20)
        until(page, f"return (() => {{{INK}}})().filter((n) => n > 200).length >= 4")
        assert page.execute_script("return document.documentElement.scrollWidth") == width
        ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 24, 31)" if dark else "rgb(255, 255, 255)")
        assert complaints(page) == []
        screenshot(page, f"live-{name}")
        places = page.execute_script(PLACES)
        for title, wide, room, *_ in places:
            assert wide <= room, f"{title!r} takes {wide:.0f} of {room:.0f} pixels"
        below = places if name == "phone" else places[:2]  # the others stand side by side
        assert len({round(left) for *_, left, _ in below}) == 1, below
        assert max(at for *_, at in below) - min(at for *_, at in below) < 1.0, below


def test_charts_that_know_more_than_a_snapshot_keep_still(replay: Replay) -> None:
    """They are asked for after it, and a learner may have got its first curve in between."""
    replay.until(4 * SWITCH)
    with browser() as page:
        page.get(replay.site.url)
        last_row(page, 4 * SWITCH - 20)
        assert page.execute_script("return plan.learners.length && plan.curves.length")
        until(page, "return !building")
        page.execute_script("take({...newest, meta: {}, curves: {}, weights: {}});")
        assert page.execute_script("return plan !== null && !building"), "no chart was made anew"
        assert complaints(page) == []


def test_the_news_say_whose_drift_it_is() -> None:
    site = Site()
    collector = Collector("shops", "classification")
    try:
        site.feed.take(collector.look(at=0.0))
        with browser() as page:
            page.get(site.url)
            until(page, "return document.title.startsWith('shops')")
            collector.record([DriftDetected("shop-007", 1_500, 1_490, 1, "bank", "error")])
            site.feed.take(collector.look(at=1.0))
            news = until(page, "return document.getElementById('news').textContent")
            assert news.startswith("Drift of shop-007 at row 1,500")
    finally:
        site.stop()


def test_the_rows_that_are_shown_are_chosen_by_keyboard(replay: Replay) -> None:
    replay.until(4 * SWITCH)
    with browser() as page:
        page.get(replay.site.url)
        last_row(page, 4 * SWITCH - 20)
        body = page.find_element(By.TAG_NAME, "body")
        body.send_keys(Keys.TAB, Keys.TAB, Keys.TAB)
        chosen = page.switch_to.active_element
        assert chosen.text == "newest 1,000"
        chosen.send_keys(Keys.SPACE)
        assert chosen.get_attribute("aria-pressed") == "true"
        follow = ("const doc = Bokeh.documents.find((one) => one.get_model_by_name('line:model'));"
                  "return doc.roots()[0].x_range.follow_interval")  # fmt: skip
        assert page.execute_script(follow) == 1_000
