"""``streammeta checkpoint``: what the commits in a folder hold, and whether they are whole."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streammeta.cli.console import err, out, plain_table
from streammeta.errors import UsageError

if TYPE_CHECKING:
    from streammeta.store import CommitInfo, LocalStore

EPILOG = """[bold]Examples[/]

streammeta checkpoint ls runs/orders/checkpoints

streammeta checkpoint verify runs/orders/checkpoints --json
"""

app = typer.Typer(
    help="Look into the commits of a run: list them, show one, verify them all.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
)

FOLDER = typer.Argument(..., metavar="DIR", help="checkpoint.folder of a config.")
JSON = typer.Option(False, "--json", help="JSON lines on stdout.")


@app.command("ls", epilog=EPILOG)
def list_commits(folder: Path = FOLDER, as_json: bool = JSON) -> None:
    """List the commits: when, how large, after how many events, whole or not."""
    _table(_infos(_store(folder)), as_json)


@app.command("show", epilog=EPILOG)
def show(
    folder: Path = FOLDER,
    epoch: int | None = typer.Option(
        None, min=1, help="Which commit; the newest whole one by default.", show_default=False
    ),
    shard: int = typer.Option(0, min=0, help="Of which shard."),
    as_json: bool = JSON,
) -> None:
    """Show one commit: positions of the source and the sinks, what the model had seen, its size."""
    found = [info for info in _infos(_store(folder)) if info.shard == shard]
    if epoch is not None:
        found = [info for info in found if info.epoch == epoch]
    whole = [info for info in found if not info.fault]
    if not found:
        raise UsageError(f"{folder}: no such commit; `streammeta checkpoint ls` lists them")
    told = _record((whole or found)[-1])
    if as_json:
        typer.echo(json.dumps(told))
        return
    table = plain_table()
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("")
    for name, value in told.items():
        table.add_row(name.replace("_", " "), value if type(value) is str else json.dumps(value))
    out().print(table, markup=False)


@app.command("verify", epilog=EPILOG)
def verify(folder: Path = FOLDER, as_json: bool = JSON) -> None:
    """Read every commit to its last byte; exit code 1 when one is damaged, or there is none."""
    from streammeta.snapshot import SCHEMA

    store = _store(folder)
    infos = []
    for info in _infos(store):
        if not info.fault and info.model_schema not in (0, SCHEMA):
            told = (
                f"whole, but its model has schema {info.model_schema}, this version reads {SCHEMA}"
            )
            info = replace(info, fault=told)
        infos.append(info)
    _table(infos, as_json)
    for path in sorted(folder.glob("shard-*/*.damaged")):
        err().print(f"put aside as damaged: {path}", markup=False)
    if not infos or any(info.fault for info in infos):
        raise typer.Exit(1)


def _store(folder: Path) -> LocalStore:
    from streammeta.store import LocalStore

    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder")
    return LocalStore(folder)


def _infos(store: LocalStore) -> list[CommitInfo]:
    return [
        store.inspect(shard, epoch) for shard in store.shards() for epoch in store.epochs(shard)
    ]


def _record(info: CommitInfo) -> dict[str, Any]:
    """A commit as JSON tells it."""
    told = asdict(info)
    told["path"] = str(info.path)
    told["time"] = datetime.fromtimestamp(info.time, UTC).isoformat(timespec="seconds")
    return told


def _table(infos: list[CommitInfo], as_json: bool) -> None:
    if as_json:
        for info in infos:
            typer.echo(json.dumps(_record(info)))
        return
    table = plain_table()
    for name in ("shard", "epoch", "written", "bytes", "events", "outer steps", "schema"):
        table.add_column(name, justify="left" if name == "written" else "right", no_wrap=True)
    table.add_column("state")
    for info in infos:
        written = datetime.fromtimestamp(info.time).isoformat(" ", timespec="seconds")
        table.add_row(
            str(info.shard),
            str(info.epoch),
            written,
            f"{info.size:,}",
            f"{info.events:,}",
            f"{info.meta_version:,}",
            f"{info.schema}/{info.model_schema}",
            info.fault or "whole",
        )
    out().print(table, markup=False)
    if not infos:
        out().print("no commits")
