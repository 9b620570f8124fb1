"""Self-contained HTML reports: text, tables and pictures in one file that needs no network.

Pictures are SVG drawn by matplotlib, the extra ``report``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from streammeta.errors import SinkError, UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0b6bcb", "#8a94a6", "#c0392b", "#2e8b57", "#b8860b", "#7d3c98", "#16a085", "#5d4037")
_STYLE = """
:root { color-scheme: light dark; --ink: #1b2330; --quiet: #667085; --line: #d5dae2; --page: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --quiet: #97a1b1; --line: #39424f;
  --page: #14181f } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 62rem; margin: 2.5rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 0 .25rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p { color: var(--quiet); margin: .25rem 0 } .wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 }
th, td { text-align: right; padding: .3rem .8rem; border-bottom: 1px solid var(--line) }
th { font-weight: 600 } th:first-child, td:first-child { text-align: left; padding-left: 0 }
svg { max-width: 100%; height: auto; background: #fff; border-radius: 6px }
"""


@dataclass(slots=True)
class Report:
    """A page in the making; every method returns the page, so that calls can be chained."""

    title: str
    parts: list[str] = field(default_factory=list)

    def text(self, words: str) -> Report:
        """A paragraph."""
        self.parts.append(f"<p>{escape(words)}</p>")
        return self

    def heading(self, words: str) -> Report:
        """A section's title."""
        self.parts.append(f"<h2>{escape(words)}</h2>")
        return self

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Report:
        """A table; the first column is on the left, numbers on the right."""
        top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
        )
        table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
        self.parts.append(f'<div class="wide">{table}</div>')
        return self

    def picture(self, figure: Figure) -> Report:
        """A matplotlib figure as SVG."""
        self.parts.append(f"<div>{to_svg(figure)}</div>")
        return self

    def html(self) -> str:
        """The whole page."""
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head>"
            f"<body><h1>{escape(self.title)}</h1>{''.join(self.parts)}</body></html>\n"
        )

    def save(self, path: Path) -> None:
        """Write the page.

        Raises:
            SinkError: the file cannot be written.
        """
        _write(path, self.html().encode())


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: ``x`` and ``y`` of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def require_matplotlib() -> None:
    """Say what to install, before any work is done.

    Raises:
        UsageError: matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("reports need matplotlib: pip install 'streammeta[report]'")


def require_report(path: Path) -> None:
    """Say before the work, not after it, that a report cannot be made.

    Raises:
        UsageError: matplotlib is missing.
        SinkError: the file cannot be written.
    """
    require_matplotlib()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault


def chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    alarms: Sequence[int] = (),
    drifts: Sequence[tuple[int, int]] = (),
    logarithmic: bool = False,
) -> Figure:
    """Lines over rows; ``alarms`` are ticks at the bottom, true ``drifts`` shaded or dotted."""
    require_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    axes = figure.subplots()
    for i, (start, end) in enumerate(drifts):
        label = "true drift" if i == 0 else None
        axes.axvspan(start, max(end, start + 1), color="#c0392b", alpha=0.15, lw=1, label=label)
    for i, line in enumerate(lines):
        axes.plot(line.x, line.y, label=line.name, lw=1.4, color=COLOURS[i % len(COLOURS)])
    if alarms:
        axes.plot(
            alarms, [0.015] * len(alarms), "^", color="#c0392b", ms=6, label="alarm",
            transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(frameon=False, fontsize=9, ncols=3, loc="best")
    return figure


def to_svg(figure: Figure) -> str:
    """The figure as an inline SVG element."""
    page = StringIO()
    figure.savefig(page, format="svg", metadata={"Date": None, "Creator": None})
    text = page.getvalue()
    return text[text.index("<svg") :]


def save_png(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG.

    Raises:
        SinkError: the file cannot be written.
    """
    image = BytesIO()
    figure.savefig(image, format="png", dpi=110)
    _write(path, image.getvalue())


def rolling_mean(values: Sequence[float], window: int, points: int = 1500) -> Line:
    """The mean of the last ``window`` values, thinned to about ``points`` of them.

    >>> rolling_mean([1.0, 0.0, 1.0, 1.0], 2).y
    [1.0, 0.5, 0.5, 1.0]
    """
    stride = max(1, len(values) // points)
    xs: list[float] = []
    ys: list[float] = []
    total = 0.0
    for i, value in enumerate(values):
        total += value
        if i >= window:
            total -= values[i - window]
        if i % stride == 0 or i == len(values) - 1:
            xs.append(float(i))
            ys.append(total / min(i + 1, window))
    return Line("", xs, ys)


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as fault:
        raise SinkError(f"cannot write {path}: {fault.strerror or fault}") from fault
