"""The page on connectors of one's own does what it says: its files, its tests, its commands."""

from __future__ import annotations

import json
import re
import shlex
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from test_cli import settings

PAGE = (Path(__file__).parent.parent / "docs" / "connectors.md").read_text()
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
CONNECTORS, STORIES, FILL = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(CONFIG,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
FILES = {
    "plant.py": CONNECTORS, "test_plant.py": STORIES, "fill.py": FILL, "plant.toml": CONFIG,
}  # fmt: skip


@pytest.mark.slow  # the command is started three times
def test_every_command_of_the_page_does_what_the_page_says(tmp_path):
    for name, text in FILES.items():
        assert f"`{name}`" in PAGE
        (tmp_path / name).write_text(text)
    script = shlex.quote(str(Path(sys.executable).with_name("streammeta")))
    # as installed: the command's own folder is first on the path, not the reader's
    root = str(Path(__file__).parent.parent)
    environment = settings(PYTHONPATH=root, OMP_NUM_THREADS="1", PYTHONWARNINGS="error")
    told = []
    for line in COMMANDS:
        command = re.sub(r"^streammeta", script, line)
        command = re.sub(r"^python", shlex.quote(sys.executable), command)
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        told.append(done.stdout + done.stderr)
    assert "4 passed" in told[0]
    assert "everything checked" in told[-2]
    assert "plant:Ledger: plant.db" in told[-2]
    with closing(sqlite3.connect(tmp_path / "plant.db")) as db:
        lines = [json.loads(line) for (line,) in db.execute("SELECT line FROM ledger")]
    asked = [one["id"] for one in lines if one["kind"] == "predicted"]
    assert asked == [f"readings:0:{n}" for n in range(1, 601)]
    rows = [one["row"] for one in lines if one["kind"] == "drift_detected"]
    assert any(300 <= row < 400 for row in rows), rows
