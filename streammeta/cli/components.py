"""``streammeta components``: everything that plugs in, by name."""

from __future__ import annotations

import json
from inspect import cleandoc

import typer

from streammeta.cli.console import out, plain_table
from streammeta.errors import UsageError
from streammeta.registry import KINDS, Component
from streammeta.registry import components as rows_of

EPILOG = """[bold]Examples[/]

streammeta components

streammeta components show sensor_fault
"""

app = typer.Typer(
    help="List everything that plugs in: learners, experts, detectors, sources, models, ...",
    epilog=EPILOG,
    invoke_without_command=True,
    rich_markup_mode="rich",
)


@app.callback()
def components(
    context: typer.Context,
    as_json: bool = typer.Option(False, "--json", help="JSON lines on stdout."),
) -> None:
    """List everything that plugs in: learners, experts, detectors, sources, models, ..."""
    if context.invoked_subcommand is None:
        _print([row for kind in KINDS for row in rows_of(kind).values()], as_json)


@app.command(epilog=EPILOG)
def show(
    name: str = typer.Argument(..., metavar="NAME", help="A kind (models), or a component's name."),
    as_json: bool = typer.Option(False, "--json", help="JSON lines on stdout."),
) -> None:
    """Show all components of a kind, or one component with its documentation."""
    if name in KINDS:
        _print(list(rows_of(name).values()), as_json)
        return
    found = [rows_of(kind)[name] for kind in KINDS if name in rows_of(kind)]
    if not found:
        raise UsageError(_unknown(name))
    if as_json:
        _print(found, as_json)
        return
    for row in found:
        documented = getattr(row.load(), "__doc__", None) or row.summary
        out().print(f"[bold]{row.name}[/]  ({row.kind}, {row.target})")
        out().print(cleandoc(documented), markup=False)


def _print(rows: list[Component], as_json: bool) -> None:
    if as_json:
        for row in rows:
            typer.echo(
                json.dumps(
                    {
                        "kind": row.kind,
                        "name": row.name,
                        "target": row.target,
                        "summary": row.summary,
                    }
                )
            )
        return
    table = plain_table()
    table.add_column("kind", style="dim", no_wrap=True)
    table.add_column("name", style="bold", no_wrap=True)
    table.add_column("what it is")
    last = ""
    for row in rows:
        if last and row.kind != last:
            table.add_section()
        table.add_row(row.kind if row.kind != last else "", row.name, row.summary)
        last = row.kind
    out().print(table)


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    known = [*KINDS, *(n for kind in KINDS for n in rows_of(kind))]
    near = get_close_matches(name, known, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; kinds: {', '.join(KINDS)}"
    return f"no component is called {name!r}{hint}"
