"""The live page of a processor that runs: there from the first event on, and still after the last
restart."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import servers
from browsers import browser, complaints, screenshot, until

pytestmark = pytest.mark.slow

CONFIG = """
pace = "400/s"

[source]
scenario = "sine | drift('abrupt', every=300)"
rows = 100000

[serve]
port = {port}

[metrics]
enabled = false
"""
ROWS = """
const source = window.Bokeh && Bokeh.documents
  .map((doc) => doc.get_model_by_name("line:model")).find((one) => one);
return source && source.data.x.length ? source.data.x[source.data.x.length - 1] : null;
"""


def started(folder: Path, port: int) -> subprocess.Popen[str]:
    """A run that answers at ``port``."""
    (folder / "run.toml").write_text(CONFIG.format(port=port))
    home = str(Path(__file__).parent.parent)
    with (folder / "told").open("a") as told:
        running = subprocess.Popen(
            [sys.executable, "-m", "streammeta.cli", "run", "run.toml"],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": home},
            stderr=told,
            text=True,
        )
    end = time.monotonic() + 120
    while True:
        try:
            fetched(port, "/readyz")
            return running
        except OSError:
            assert running.poll() is None, (folder / "told").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)


def fetched(port: int, path: str) -> bytes:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        link.request("GET", path)
        return link.getresponse().read()
    finally:
        link.close()


def newest(port: int) -> dict[str, Any]:
    """The first snapshot that the page is sent."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        link.request("GET", "/page/stream")
        answer = link.getresponse()
        while True:
            line = answer.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                return found
    finally:
        link.close()


def ended(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0


def test_a_run_shows_itself_and_the_page_survives_its_restart(tmp_path: Path) -> None:
    port = servers.free_port()
    running = started(tmp_path, port)
    try:
        first = newest(port)
        with browser() as page:
            page.get(f"http://127.0.0.1:{port}/")
            row = float(until(page, f"return (() => {{{ROWS}}})()"))
            later = f"const row = (() => {{{ROWS}}})(); return row > {row} && row"
            assert float(until(page, later)) > row
            # Bokeh warns of a chart whose first points have no extent yet; it is drawn all the same
            young = "could not set initial ranges"
            assert [told for told in complaints(page) if young not in told] == []
            screenshot(page, "live_run")
            ended(running)
            running = started(tmp_path, port)
            link = "return document.getElementById('link').dataset.state === 'live'"
            assert until(page, link)
        again = newest(port)
    finally:
        ended(running)
    assert first["title"] == again["title"] != ""
    assert first["rows"] > 0
    assert {"model", "no change"} <= first["scores"].keys()
