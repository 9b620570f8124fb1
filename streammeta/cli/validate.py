"""``streammeta validate``: is this config right, and what does it come to?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from streammeta.cli.console import out, plain_table

if TYPE_CHECKING:
    from streammeta.config import ModelConfig

EPILOG = """[bold]Examples[/]

streammeta validate examples/quickstart.toml

streammeta validate run.toml --set model.chunk=32 --show-effective

[dim]Environment: STREAMMETA_SECTION__FIELD overrides the file, such as STREAMMETA_MODEL__SEED=7.[/]
"""


def validate(
    config: Path = typer.Argument(
        ..., metavar="CONFIG", help="A TOML, YAML or JSON file.", show_default=False
    ),
    sets: list[str] = typer.Option(
        [], "--set", help="section.field=value, over file and environment.", show_default=False
    ),
    show_effective: bool = typer.Option(
        False, "--show-effective", help="Every value and where it came from."
    ),
    as_json: bool = typer.Option(False, "--json", help="JSON lines on stdout."),
) -> None:
    """Check a config (exit code 78 when it is wrong); the stream is not opened.

    streammeta run CONFIG --dry-run opens it, too.
    """
    from streammeta.cli.assembly import build_sinks, check_sources
    from streammeta.cli.run import planned_comparison
    from streammeta.config_file import load_config

    effective = load_config(config, sets=sets)
    settings = effective.config
    build_sinks(config, settings.sinks)
    check_sources(config, settings)
    _try_model(config, settings.model)
    planned_comparison(config, settings)
    rows = list(effective.rows())
    if as_json:
        for name, value, origin in rows:
            typer.echo(json.dumps({"field": name, "value": json.loads(value), "origin": origin}))
        return
    if show_effective:
        table = plain_table()
        table.add_column("field", style="bold", no_wrap=True)
        table.add_column("value")
        table.add_column("from", style="dim")
        for row in rows:
            table.add_row(*row)
        out().print(table)
        return
    out().print(f"{config}: ok")


def _try_model(path: Path, model: ModelConfig) -> None:
    """Build the model for its task; where the stream decides the task, one of the two must do."""
    from streammeta.cli.assembly import try_model
    from streammeta.errors import ConfigError

    if model.task != "auto":
        try_model(path, model)
        return
    try:
        try_model(path, model.model_copy(update={"task": "classification"}))
    except ConfigError:
        try_model(path, model.model_copy(update={"task": "regression"}))
