"""Imports only go down: the floors of the house, read from the source with ``ast``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("streammeta", "drift", "scenarios")

#: The longest matching prefix names a module's room; rooms are listed floor by floor.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("drift", "streammeta.errors"),
    ("streammeta.events", "streammeta.config", "streammeta.registry", "streammeta.snapshot",
     "streammeta.scores", "streammeta.boxed", "streammeta.aside"),
    ("streammeta.meta", "streammeta.experts", "streammeta.mixture", "streammeta.pooling",
     "streammeta.surprise", "streammeta.guard", "streammeta.lags", "streammeta.replay",
     "streammeta.pending", "streammeta.encode", "streammeta.reference", "streammeta.conformal"),
    ("streammeta.sources", "streammeta.sinks", "streammeta.store", "streammeta.metrics",
     "streammeta.engine", "streammeta.core", "streammeta.challengers", "streammeta.units",
     "streammeta.state", "streammeta.together", "streammeta.watching",
     "streammeta.twin", "streammeta.choosing"),
    ("streammeta.runtime", "streammeta.testing", "streammeta.pretraining",
     "streammeta.estimators", "streammeta.charts", "streammeta.compiling"),
    ("scenarios", "streammeta.report", "streammeta.dashboards", "streammeta.serve",
     "streammeta.live"),
    ("streammeta.cli", "streammeta.config_file"),
)  # fmt: skip
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}

#: Rooms of one floor that may look at a neighbour: who -> whom.
ARROWS = {
    ("streammeta.experts", "streammeta.meta"),  # the bank stores the meta-learner's networks
    ("streammeta.experts", "streammeta.encode"),  # a baseline sees what the default model sees
    ("streammeta.mixture", "streammeta.experts"),
    ("streammeta.pooling", "streammeta.mixture"),
    ("streammeta.pooling", "streammeta.experts"),
    ("streammeta.pooling", "streammeta.surprise"),
    ("streammeta.pooling", "streammeta.guard"),
    ("streammeta.surprise", "streammeta.mixture"),
    ("streammeta.lags", "streammeta.mixture"),
    ("streammeta.lags", "streammeta.experts"),
    ("streammeta.pending", "streammeta.pooling"),
    ("streammeta.engine", "streammeta.core"),
    ("streammeta.engine", "streammeta.state"),
    ("streammeta.state", "streammeta.surprise"),
    ("streammeta.engine", "streammeta.units"),
    ("streammeta.reference", "streammeta.encode"),
    ("streammeta.reference", "streammeta.experts"),
    ("streammeta.reference", "streammeta.meta"),
    ("streammeta.core", "streammeta.state"),
    ("streammeta.core", "streammeta.watching"),
    ("streammeta.watching", "streammeta.state"),
    ("streammeta.watching", "streammeta.units"),
    ("streammeta.core", "streammeta.units"),
    ("streammeta.core", "streammeta.challengers"),
    ("streammeta.challengers", "streammeta.units"),
    ("streammeta.challengers", "streammeta.state"),
    ("streammeta.units", "streammeta.state"),
    ("streammeta.units", "streammeta.together"),
    ("streammeta.core", "streammeta.together"),
    ("streammeta.core", "streammeta.choosing"),
    ("streammeta.choosing", "streammeta.state"),
    ("streammeta.choosing", "streammeta.units"),
    ("streammeta.state", "streammeta.together"),
    ("streammeta.twin", "streammeta.state"),
    ("streammeta.twin", "streammeta.together"),
    ("streammeta.twin", "streammeta.core"),  # a twin answers as the model does
    ("streammeta.scores", "streammeta.events"),
    ("streammeta.estimators", "streammeta.compiling"),
    ("streammeta.sinks", "streammeta.sources"),  # both ends of a broker reach it the same way
    ("streammeta.config_file", "streammeta.cli"),
    ("streammeta.cli", "streammeta.config_file"),
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append((".".join(p for p in parts if p != "__init__"), path))
    return found


def room(module: str) -> str | None:
    """The room of a module; ``None`` for the bare top of ``streammeta``."""
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in FLOOR:
            return ".".join(parts[:n])
    return None


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in PACKAGES}


def upward(module: str, path: Path) -> list[str]:
    here = room(module)
    if here is None:
        return []
    wrong = []
    for name in sorted(imported(path)):
        there = room(name)
        if there is None or there == here or (here, there) in ARROWS:
            continue
        if FLOOR[there] >= FLOOR[here]:
            wrong.append(f"{module} (floor {FLOOR[here]}) imports {name} (floor {FLOOR[there]})")
    return wrong


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda v: v if type(v) is str else "")
def test_imports_only_go_down(module: str, path: Path) -> None:
    assert upward(module, path) == []


def test_every_module_has_a_room() -> None:
    homeless = [name for name, _ in modules() if name != "streammeta" and room(name) is None]
    assert homeless == []


def test_an_import_that_goes_up_is_caught(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from streammeta.cli import main\n    return main\n")
    assert upward("streammeta.events", bad)


def test_drift_stands_alone() -> None:
    for name, path in modules():
        if name.split(".")[0] == "drift":
            assert "import torch" not in path.read_text()
            assert not any(i.startswith(("streammeta", "scenarios")) for i in imported(path))


def test_the_picture_in_the_readme_is_the_directory_listing() -> None:
    readme = (ROOT / "README.md").read_text()
    listed = readme.split("<!-- house -->")[1]
    for package in PACKAGES:
        for path in (ROOT / package).iterdir():
            if path.name.startswith("_") or path.suffix not in ("", ".py"):
                continue
            name = f"{path.name}/" if path.is_dir() else path.stem
            assert name in listed, f"{package}/{path.name} is not in the README's picture"
