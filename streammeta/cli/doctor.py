"""``streammeta doctor``: is everything there that a run needs?"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streammeta.cli.console import out, plain_table
from streammeta.cli.reaching import Finding, free_port, reached
from streammeta.errors import StreamMetaError

if TYPE_CHECKING:
    from streammeta.config_file import RunConfig

EPILOG = """[bold]Examples[/]

streammeta doctor

streammeta doctor orders.toml --json
"""

PACKAGES = ("torch", "numpy", "numba", "river", "pandas", "scipy", "pydantic", "safetensors")
#: The package that each extra brings, by the name under which it is imported.
EXTRAS = {
    "parquet": "pyarrow",
    "yaml": "yaml",
    "report": "bokeh",
    "serve": "uvicorn",
    "redis": "redis",
    "nats": "nats",
    "mqtt": "paho.mqtt",
    "kafka": "confluent_kafka",
    "websocket": "websockets",
}
TOP_LEVEL = ("streammeta", "drift", "scenarios")
FREE = (64 * 2**20, 2**30)  # bytes of disk below which it is a fault, and a warning
SKEW = 2.0  # seconds between the clock of the machine and that of the file system
LONG_AGO = 1_735_689_600  # 1 January 2025: no clock is right that is before it


def doctor(
    config: Path | None = typer.Argument(
        None, metavar="[CONFIG]", help="Look at what this config needs, too.", show_default=False
    ),
    sets: list[str] = typer.Option(
        [], "--set", help="section.field=value, over file and environment.", show_default=False
    ),
    as_json: bool = typer.Option(False, "--json", help="JSON lines on stdout."),
) -> None:
    """Check the installation, the disk and the clock, and reach what a config names.

    Exit code 1 when something would keep a run from working. Nothing is learned, consumed or left
    behind.
    """
    findings = []
    for finding in _examine(config, sets):
        findings.append(finding)
        if as_json:
            typer.echo(json.dumps(finding._asdict()))
    if not as_json:
        styles = {"ok": "green", "warning": "yellow", "fault": "bold red", "absent": "dim"}
        table = plain_table()
        for name in ("what", "", "how it is"):
            table.add_column(name, no_wrap=name != "how it is")
        for name, outcome, told in findings:
            table.add_row(name, f"[{styles[outcome]}]{outcome}[/]", _plain(told))
        out().print(table)
    if any(finding.outcome == "fault" for finding in findings):
        raise typer.Exit(1)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _examine(path: Path | None, sets: list[str]) -> Iterator[Finding]:
    yield _python()
    yield from _distribution()
    yield from _packages()
    yield _torch()
    yield _numba()
    yield from _extras()
    settings = None
    if path is not None:
        settings, finding = _config(path, sets)
        yield finding
    folder = Path(settings.checkpoint.folder) if settings and settings.checkpoint else Path()
    yield from _disk(folder)
    if path is not None and settings is not None:
        yield from _named(path, settings)


def _python() -> Finding:
    told = f"{sys.version.split()[0]} at {sys.executable}"
    fine = sys.version_info >= (3, 11)
    return Finding(
        "python", "ok" if fine else "fault", told if fine else f"{told}, needs 3.11-3.13"
    )


def _distribution() -> Iterator[Finding]:
    """All top-level packages have to come from one place: two of the names are common words."""
    import streammeta

    home = Path(str(streammeta.__file__)).parent.parent
    for name in TOP_LEVEL:
        found = util.find_spec(name)
        where = Path(found.origin).parent.parent if found and found.origin else None
        if where == home:
            told = f"{streammeta.__version__} in {home}" if name == "streammeta" else f"in {home}"
            yield Finding(name, "ok", told)
        else:
            at = f"comes from {where}" if where else "is not there"
            told = f"{at}, expected {home}: another package of this name hides it; remove that"
            yield Finding(name, "fault", told)


def _packages() -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "fault", f"is missing: pip install {name}")


def _torch() -> Finding:
    try:
        import torch

        torch.zeros(2).sum().item()
        if not torch.cuda.is_available():
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
            told = f"no CUDA device, adapts on the CPU ({built}, {torch.get_num_threads()} threads)"
            return Finding("device", "ok", told)
        torch.zeros(2, device="cuda").sum().item()
        told = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
        return Finding("device", "ok", told)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the doctor is to tell
        return Finding("device", "fault", f"torch cannot be used: {type(error).__name__}: {error}")


def _numba() -> Finding:
    try:
        from numba import njit

        if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
            return Finding("compiler", "fault", "NUMBA_DISABLE_JIT is set: a hundred times slower")
        begin = time.perf_counter()
        if njit(lambda a: a + 1)(1) != 2:
            return Finding("compiler", "fault", "numba calculates wrongly")
        told = f"compiles ({time.perf_counter() - begin:.1f} s)"
    except Exception as error:  # noqa: BLE001 - as above
        return Finding("compiler", "fault", f"numba: {type(error).__name__}: {error}")
    where = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).parent.parent / "experts")
    if os.access(where, os.W_OK):
        return Finding("compiler", "ok", told)
    told += f", but {where} cannot be written: every start compiles anew; set NUMBA_CACHE_DIR"
    return Finding("compiler", "warning", told)


def _extras() -> Iterator[Finding]:
    for extra, module in EXTRAS.items():
        try:
            there = util.find_spec(module) is not None
        except (ImportError, ValueError):
            there = False
        if there:
            yield Finding(f"extra {extra}", "ok", _version_of(module))
        else:
            told = f"not installed: pip install 'streammeta[{extra}]'"
            yield Finding(f"extra {extra}", "absent", told)


def _version_of(module: str) -> str:
    names = metadata.packages_distributions().get(module.partition(".")[0], [])
    return ", ".join(f"{name} {metadata.version(name)}" for name in dict.fromkeys(names))


def _config(path: Path, sets: list[str]) -> tuple[RunConfig | None, Finding]:
    from streammeta.config_file import load_config

    try:
        return load_config(path, sets=sets).config, Finding("config", "ok", str(path))
    except StreamMetaError as fault:
        return None, Finding("config", "fault", str(fault))


def _disk(folder: Path) -> Iterator[Finding]:
    """Whether commits can be written there: room, fsync, hard links; and whose clock it has."""
    there = folder
    while not there.is_dir():
        there = there.parent
    free = shutil.disk_usage(there).free
    told = f"{free / 2**30:,.1f} GiB free at {folder.absolute()}"
    least, few = FREE
    yield Finding("disk", "ok" if free > few else "warning" if free > least else "fault", told)
    try:
        with tempfile.TemporaryDirectory(prefix=".streammeta-doctor-", dir=there) as draft:
            seconds, skew = _commit(Path(draft))
    except OSError as error:
        why = f"{there}: commits cannot be written: {error.strerror or error}"
        yield Finding("commits", "fault", why)
        return
    yield Finding("commits", "ok", f"write, fsync and link work ({seconds * 1000:.1f} ms)")
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    if time.time() < LONG_AGO:
        yield Finding(
            "clock", "fault", f"says {now}: set it, event times would look like the future"
        )
    elif abs(skew) > SKEW:
        why = f"says {now}, the file system's is {skew:+.0f} s away: synchronise them"
        yield Finding("clock", "warning", why)
    else:
        yield Finding("clock", "ok", now)


def _commit(folder: Path) -> tuple[float, float]:
    """The steps of a commit on a page of bytes: how long they take, how far the file's clock is."""
    begin = time.perf_counter()
    with open(folder / "aside", "wb") as file:
        file.write(b"\0" * 4096)
        file.flush()
        os.fsync(file.fileno())
    os.link(folder / "aside", folder / "name")
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    seconds = time.perf_counter() - begin
    return seconds, (folder / "name").stat().st_mtime - time.time()


def _named(path: Path, settings: RunConfig) -> Iterator[Finding]:
    """What a config names: commits, metrics, sinks and the sources."""
    if settings.checkpoint is not None:
        yield _commits(Path(settings.checkpoint.folder))
    if settings.metrics.enabled and settings.metrics.port:
        yield free_port("metrics", settings.metrics.host, settings.metrics.port)
    yield from reached(path, settings)


def _commits(folder: Path) -> Finding:
    from streammeta.store import LocalStore

    store = LocalStore(folder)
    if not folder.is_dir() or not store.shards():
        return Finding("checkpoints", "ok", f"{folder}: none yet")
    infos = [
        store.inspect(shard, epoch) for shard in store.shards() for epoch in store.epochs(shard)
    ]
    bad = [f"{info.path}: {info.fault}" for info in infos if info.fault]
    if bad:
        return Finding(
            "checkpoints", "warning" if len(bad) < len(infos) else "fault", "; ".join(bad)
        )
    newest = max((info.events for info in infos), default=0)
    return Finding("checkpoints", "ok", f"{folder}: {len(infos)} whole, up to event {newest:,}")
