"""``streammeta dashboards export``: what Prometheus and Grafana need to show a run."""

from __future__ import annotations

from pathlib import Path

import typer

from streammeta.cli.console import err, out

EPILOG = """[bold]Examples[/]

streammeta dashboards export monitoring

streammeta dashboards export monitoring --target 127.0.0.1:9108 --prometheus http://127.0.0.1:9090
"""

app = typer.Typer(
    help="Dashboard, alerts and scrape config for Grafana and Prometheus.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.callback()
def dashboards() -> None:
    """Dashboard, alerts and scrape config for Grafana and Prometheus."""


@app.command(epilog=EPILOG)
def export(
    folder: Path = typer.Argument(..., metavar="DIR", help="Folder; made when missing."),
    target: list[str] = typer.Option(
        ["processor:9108"], help="HOST:PORT of a processor, as Prometheus reaches it; repeatable."
    ),
    prometheus: str = typer.Option(
        "http://prometheus:9090", help="URL of Prometheus, as Grafana reaches it."
    ),
) -> None:
    """Write dashboard JSON, provisioning, prometheus.yml, rules.yml and a compose file into DIR.

    The paths written go to stdout, one a line. An existing run.toml or .env stays as it is.
    """
    from streammeta.dashboards import export as write

    clone = Path(__file__).resolve().parents[2]  # of the package, unless it was installed elsewhere
    source = str(clone) if (clone / "pyproject.toml").is_file() else "."
    written = write(folder, tuple(target), prometheus, source)
    for path in written:
        out().print(str(path), markup=False, highlight=False, soft_wrap=True)
    if source == ".":
        told = "for the compose file, set STREAMMETA_SOURCE to a clone of streammeta"
        err().print(f"{folder / '.env'}: {told}", markup=False)
