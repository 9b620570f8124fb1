"""A real headless Chromium that can reach nothing but this machine, and what it found there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait
from servers import program

RESULTS = Path(__file__).parent.parent / "test-results"  # screenshots, ignored by git
PATIENCE = 60.0  # seconds until a page must show what is waited for

#: Pixels with a colour of their own (neither grey nor see-through), chart by chart.
INK = """
const counts = [];
const look = (root) => {
  for (const node of root.querySelectorAll("*")) {
    if (node.tagName === "CANVAS" && node.width > 200) {
      const {data} = node.getContext("2d").getImageData(0, 0, node.width, node.height);
      let inked = 0;
      for (let i = 0; i < data.length; i += 4)
        if (data[i + 3] > 100 && Math.max(data[i], data[i + 1], data[i + 2])
            - Math.min(data[i], data[i + 1], data[i + 2]) > 60) inked += 1;
      counts.push(inked);
    }
    if (node.shadowRoot) look(node.shadowRoot);
  }
};
look(document);
return counts;
"""
#: Title of each chart by the type and the number of its renderers.
CHARTS = """
return Object.fromEntries(Bokeh.documents.flatMap((doc) => doc.roots())
  .map((plot) => [plot.title.text, plot.renderers.map((one) => one.glyph.type)]));
"""
#: Of each chart, from top to bottom: its title, how wide that is and how much room it has, where
#: the drawing area begins, and where it has row 200; all in pixels.
PLACES = """
return Bokeh.documents.flatMap((doc) => doc.roots()).map((plot) => {
  const view = Bokeh.index.get_by_id(plot.id), {frame} = view;
  const title = view.views.find_one(plot.title);
  const left = view.el.getBoundingClientRect().left;
  return [plot.title.text, title._get_size().width,
    view.canvas_view.bbox.width - frame.bbox.left, left + frame.bbox.left,
    left + frame.bbox.left + frame.x_scale.compute(200)];
});
"""


@contextmanager
def browser(width: int = 1200, height: int = 900, *, dark: bool = False) -> Iterator[Chrome]:
    """Chromium of Debian's packages, without a sandbox of its own: the tests may run as root."""
    options = ChromeOptions()
    options.binary_location = program("chromium", "chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(program("chromedriver", "chromium-driver")))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver
    finally:
        driver.quit()


def until(driver: Chrome, script: str, *given: Any) -> Any:
    """What ``script`` returns, once that is true."""

    def value(now: Chrome) -> Any:
        return now.execute_script(script, *given)

    return WebDriverWait(driver, PATIENCE, poll_frequency=0.1).until(value, message=script)


def complaints(driver: Chrome) -> list[str]:
    """Everything that the console was told and is no mere information."""
    told = driver.get_log("browser")
    return [entry["message"] for entry in told if entry["level"] not in ("INFO", "DEBUG")]


def asked_for(driver: Chrome) -> set[str]:
    """The addresses that the page asked for; what is written inside of it is none."""
    found = set()
    for entry in driver.get_log("performance"):
        event = json.loads(entry["message"])["message"]
        if event["method"] == "Network.requestWillBeSent":
            found.add(event["params"]["request"]["url"])
    return {url for url in found if not url.startswith(("data:", "blob:"))}


def screenshot(driver: Chrome, name: str, most: int = 6000) -> Path:
    """The whole page as a picture, kept with the results of the tests."""
    width, height = driver.execute_script(
        "return [innerWidth, document.documentElement.scrollHeight]"
    )
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, most), "scale": 1}
    told = driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.png"
    path.write_bytes(base64.b64decode(told["data"]))
    return path
