"""``streammeta validate``: is this config right, and what does it come to?"""

from __future__ import annotations

import json
from pathlib import Path

import typer

from streammeta.cli.console import out, plain_table

EPILOG = """[bold]Examples[/]

streammeta validate examples/quickstart.toml

STREAMMETA_MODEL__SEED=7 streammeta validate run.toml --set model.chunk=32 --show-effective
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
    """Check a config (exit code 78 when it is wrong) without starting anything."""
    from streammeta.config_file import load_config

    effective = load_config(config, sets=sets)
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
