"""Self-contained HTML reports: text, tables and charts in one file that needs no network.

Charts are Bokeh's (the extra ``report``), its JavaScript written into the page from the installed
package; the page forbids itself every connection. Pictures beside a report are PNG, by matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from streammeta.charts import COLOURS, REPAINT, STYLE, Line, require_bokeh
from streammeta.errors import SinkError, UsageError

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
body { font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  color: var(--ink); background: var(--page); max-width: 66rem; margin: 2.5rem auto 4rem;
  padding: 0 1rem }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere }
h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; padding-top: .8rem;
  border-top: 1px solid var(--line) }
p { color: var(--quiet); margin: .3rem 0; max-width: 50rem }
code { font: .85rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; color: var(--ink);
  background: var(--panel); padding: .5rem .7rem; border-radius: 6px; display: block;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
.wide { overflow-x: auto } .chart { margin: 1rem 0; min-height: 340px }
/* Bokeh clears its canvas from half a pixel on: a first paint leaves a trace at the left edge */
.chart { clip-path: inset(-50vh -50vw -50vh 1px) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0;
  font-size: .9rem }
th, td { text-align: right; padding: .32rem .8rem; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap }
th { font-weight: 600; color: var(--quiet) }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
.words { text-align: left; white-space: normal }
details { margin: .8rem 0 } summary { cursor: pointer; color: var(--accent) }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
@media print { body { max-width: none; margin: 0 } }
"""


@dataclass(slots=True)
class Report:
    """A page in the making; every method returns the page, so that calls can be chained."""

    title: str
    parts: list[str] = field(default_factory=list)
    charts: dict[str, Figure] = field(default_factory=dict)

    def text(self, words: str) -> Report:
        """A paragraph."""
        self.parts.append(f"<p>{escape(words)}</p>")
        return self

    def code(self, words: str) -> Report:
        """A command, to be copied."""
        self.parts.append(f"<code>{escape(words)}</code>")
        return self

    def heading(self, words: str) -> Report:
        """A section's title."""
        self.parts.append(f"<h2>{escape(words)}</h2>")
        return self

    def table(
        self, head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str] = ()
    ) -> Report:
        """A table: the first column on the left, numbers on the right; ``words`` names the columns
        whose cells are sentences."""
        self.parts.append(_table(head, rows, words))
        return self

    def folded(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Report:
        """A table that is shown when its title is pressed."""
        table = _table(head, rows, ())
        self.parts.append(f"<details><summary>{escape(title)}</summary>{table}</details>")
        return self

    def picture(self, chart: Figure) -> Report:
        """A chart."""
        name = f"chart{len(self.charts)}"
        self.charts[name] = chart
        self.parts.append(f"<!--{name}-->")
        return self

    def html(self) -> str:
        """The whole page."""
        body, scripts = "".join(self.parts), ""
        if self.charts:
            divs, scripts = _embedded(self.charts)
            for name, div in divs.items():
                body = body.replace(f"<!--{name}-->", f'<div class="chart">{div}</div>', 1)
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
            f'<link rel="icon" href="data:,"><title>{escape(self.title)}</title>'
            f"<style>{STYLE}{_STYLE}</style></head><body><main>"
            f"<h1>{escape(self.title)}</h1>{body}</main>{scripts}</body></html>\n"
        )

    def save(self, path: Path) -> None:
        """Write the page.

        Raises:
            SinkError: the file cannot be written.
        """
        _write(path, self.html().encode())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[str]) -> str:
    kinds = [' class="words"' if name in words else "" for name in head]
    top = "".join(f"<th{k}>{escape(c)}</th>" for k, c in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0">{table}</div>'


def _embedded(charts: Mapping[str, Figure]) -> tuple[dict[str, str], str]:
    """A div for each chart, and the scripts that fill them: Bokeh itself and the data."""
    from bokeh.embed import components
    from bokeh.resources import Resources

    script, divs = components(dict(charts), wrap_script=False)
    library = Resources(mode="inline", components=["bokeh"]).js_raw
    scripts = "".join(f"<script>{text}</script>" for text in (*library, script + REPAINT))
    return divs, scripts


def require_report(path: Path, *, png: bool = False) -> None:
    """Say before the work, not after it, that a report cannot be made.

    Raises:
        UsageError: Bokeh is missing; matplotlib is, and it is wanted for a picture as PNG.
        SinkError: the file cannot be written.
    """
    require_bokeh()
    if png and find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib: pip install 'streammeta[report]'")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault


def save_png(
    lines: Sequence[Line], path: Path, *, x_label: str, y_label: str, logarithmic: bool = False
) -> None:
    """Write lines as a PNG, for a place that shows no HTML.

    Raises:
        SinkError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, line in enumerate(lines):
        axes.plot(line.x, line.y, label=line.name, lw=1.4, color=COLOURS[i % len(COLOURS)])
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="best")
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    _write(path, image.getvalue())


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault
