"""Ctrl-C: once is a drain, twice is the end, and neither costs a commit."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest
from test_cli import command, settings, streammeta

from streammeta.store import LocalStore

CONFIG = """
[source]
path = "rows.csv"
target = "y"

[model]
experts = ["persistence"]
hidden = [2]

[[sinks]]
kind = "webhook"
url = "http://127.0.0.1:{port}/"
timeout = 600
name = "hook"

[metrics]
enabled = false

[checkpoint]
folder = "checkpoints"
every_events = 10
"""


@pytest.mark.slow  # the command is started twice
def test_a_second_ctrl_c_ends_a_run_at_once_with_130_and_its_last_commit_stands(tmp_path: Path):
    rows = "".join(f"{i % 3}.5,{i % 2}\n" for i in range(40))
    (tmp_path / "rows.csv").write_text("a,y\n" + rows)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # takes the request, and never answers
        (tmp_path / "run.toml").write_text(CONFIG.format(port=mute.getsockname()[1]))
        running = subprocess.Popen(
            command("run", "run.toml"),
            cwd=tmp_path,
            env=settings(),
            stderr=subprocess.DEVNULL,
        )
        try:
            mute.settimeout(200)
            mute.accept()[0].close()  # the check before the start
            link, _ = mute.accept()
            with link:
                assert link.recv(65536).startswith(b"POST ")
                while running.poll() is None:  # signals that come together count as one
                    running.send_signal(signal.SIGINT)
                    try:
                        running.wait(0.05)
                    except subprocess.TimeoutExpired:
                        continue
        finally:
            running.kill()
    assert running.returncode == 130
    kept = LocalStore(tmp_path / "checkpoints").latest(0)
    assert kept is not None
    assert (kept.epoch, kept.events) == (1, 10)
    quiet = ("--set", "sinks=[]", "--resume")
    assert "resumed after event 10" in streammeta("run", "run.toml", *quiet, cwd=tmp_path).stderr
