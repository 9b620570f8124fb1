"""Charts of streams as Bokeh figures: lines over rows with drifts, bands, stacked shares.

The live page and the reports draw with these. Bokeh (the extra ``report``) is imported only when a
chart is made. Its colours follow the page: Bokeh's canvas reads the CSS variables in ``STYLE``, so
that one figure is right on a light page and on a dark one. Eight colours that colour-blind people
can tell apart, after Okabe & Ito 2008 (https://jfly.uni-koeln.de/color), made a little lighter or
darker so that all of them show on both; drifts have a colour that no line has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from streammeta.errors import UsageError

if TYPE_CHECKING:
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure as Figure  # noqa: N812

COLOURS = ("#1f83cc", "#e08a00", "#00976e", "#b7669c", "#4db3e6", "#9a7b4f", "#b5a800", "#7a86a0")
ALARM, DRIFT = "#d1495b", "#8a94a6"
DASHES = ("solid", "dashed", "dotted", "dashdot")  # from the ninth line on, colours come again
HEIGHT = 340  # pixels
LEFT = 80  # pixels for an axis and its label: charts below each other have one left edge
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
TOOLS = "xpan,xbox_zoom,xwheel_zoom,reset,save"

#: Colours of a page in both schemes, and which of them Bokeh's canvas takes for what.
STYLE = """
:root { color-scheme: light dark; --ink: #1b2330; --quiet: #5c6675; --line: #d5dae2;
  --page: #ffffff; --panel: #f6f7f9; --accent: #1668a8; --alarm: #b83245 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --quiet: #a3acba; --line: #3a4350;
  --page: #14181f; --panel: #1b2029; --accent: #6cb7f0; --alarm: #f08a98 } }
:root { --bk-text-color: var(--ink); --bk-axis-label-text-color: var(--quiet);
  --bk-major-label-text-color: var(--quiet); --bk-label-text-color: var(--ink);
  --bk-axis-line-color: var(--line); --bk-major-tick-line-color: var(--line);
  --bk-grid-line-color: var(--line); --bk-inactive-fill-color: var(--page);
  --bk-inactive-fill-alpha: .6; --bk-background-fill-color: var(--page);
  --bk-border-fill-color: var(--page) }
@media (max-width: 40rem) { :root { --bk-text-font-size: 12px } }
"""

#: A legend is HTML inside the chart: it wraps on a narrow page.
_LEGEND = """
.bk-grid { display: flex; flex-wrap: wrap; gap: 4px 16px !important;
  max-width: min(52rem, calc(100vw - 7rem)) }
.bk-label { color: var(--ink) !important }
"""

#: A change of the scheme while the page is open: Bokeh reads the variables when it paints.
REPAINT = """
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const doc of Bokeh.documents) for (const model of doc.all_models)
    if (model.type === "Figure") model.properties.outline_line_width.change.emit();
});
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: ``x`` and ``y`` of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Band:
    """A line with its interval; all four of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


class Mark(NamedTuple):
    """An alarm at ``row``; ``text`` is shown when somebody points at it."""

    row: int
    text: str


def require_bokeh() -> None:
    """Say what to install, before any work is done.

    Raises:
        UsageError: Bokeh is missing.
    """
    if find_spec("bokeh") is None:
        raise UsageError("charts need Bokeh: pip install 'streammeta[report]'")


def line_chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    alarms: Sequence[Mark] | None = (),
    drifts: Sequence[tuple[int, int]] = (),
    logarithmic: bool = False,
) -> Figure:
    """Lines over rows; the first is the one that the others are compared with.

    ``alarms`` are upright lines, dashed; true ``drifts`` grey ones, or grey strips where they take
    several rows. The sources are called ``line:NAME`` and ``alarms``; with ``None`` there are no
    alarms and never will be.
    """
    plot = _figure(title, x_label, y_label, logarithmic=logarithmic)
    legend: list[tuple[str, list[Any]]] = []
    for i in reversed(range(len(lines))):  # the first is drawn last, on top
        line = lines[i]
        source = _source({"x": line.x, "y": line.y}, f"line:{line.name}")
        drawn = plot.line(
            "x", "y", source=source, color=COLOURS[i % len(COLOURS)], alpha=1.0 if i == 0 else 0.9,
            line_width=2.6 if i == 0 else 1.6, line_dash=DASHES[i // len(COLOURS) % len(DASHES)],
        )  # fmt: skip
        legend.insert(0, (line.name, [drawn]))
    if drifts:
        legend.append(("true drift", _true_drifts(plot, drifts)))
    if alarms is not None:
        legend.append(("alarm", _alarms(plot, alarms, "alarms")))
    return _finished(plot, legend, points_at=[item for _, (item, *_) in legend[: len(lines)]])


def band_chart(
    title: str, bands: Sequence[Band], *, x_label: str, y_label: str, zero: str = ""
) -> Figure:
    """Lines with intervals; an upright line at x = 0 if ``zero`` says what happens there."""
    plot = _figure(title, x_label, y_label)
    legend: list[tuple[str, list[Any]]] = []
    for i in reversed(range(len(bands))):
        band, colour = bands[i], COLOURS[i % len(COLOURS)]
        names = {"x": band.x, "y": band.y, "low": band.low, "high": band.high}
        source = _source(names, f"band:{band.name}")
        area = plot.varea("x", "low", "high", source=source, color=colour, alpha=0.16)
        drawn = plot.line(
            "x", "y", source=source, color=colour, line_width=2.6 if i == 0 else 1.6,
            line_dash=DASHES[i // len(COLOURS) % len(DASHES)],
        )  # fmt: skip
        legend.insert(0, (band.name, [drawn, area]))
    if zero:
        at = plot.vspan(x=[0], color=ALARM, line_width=1.5, line_dash="dashed")
        legend.append((zero, [at]))
    return _finished(plot, legend, points_at=[items[0] for _, items in legend[: len(bands)]])


def change_chart(
    title: str,
    rows: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    *,
    x_label: str,
    y_label: str,
    names: tuple[str, str] = ("before", "after"),
) -> Figure:
    """What something was before and after, at some rows; one source, ``changes``."""
    plot = _figure(title, x_label, y_label)
    source = _source({"x": rows, "before": before, "after": after}, "changes")
    plot.segment("x", "before", "x", "after", source=source, color=DRIFT, alpha=0.5, line_width=1.5)
    was = plot.scatter("x", "before", source=source, size=7, line_color=COLOURS[1],
                       fill_alpha=0.0, line_width=1.8)  # fmt: skip
    now = plot.scatter("x", "after", source=source, size=7, color=COLOURS[0])
    return _finished(plot, [(names[0], [was]), (names[1], [now])])


def share_chart(
    title: str,
    rows: Sequence[float],
    shares: Mapping[str, Sequence[float]],
    *,
    x_label: str,
    y_label: str,
    alarms: Sequence[Mark] | None = (),
    drifts: Sequence[tuple[int, int]] = (),
) -> Figure:
    """Shares of a whole, stacked, the first at the bottom; one source, ``shares``."""
    plot = _figure(title, x_label, y_label)
    plot.y_range.start, plot.y_range.end = 0.0, 1.0  # type: ignore[attr-defined]
    plot.x_range.range_padding = 0.0  # type: ignore[attr-defined]
    plot.yaxis.formatter = _formatter("0 %")
    names = list(shares)
    columns = {f"s{i}": shares[name] for i, name in enumerate(names)}
    source = _source({"x": rows, **columns}, "shares")
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(names))]
    areas = plot.varea_stack(list(columns), x="x", source=source, color=colours, alpha=0.85)
    for i, area in enumerate(areas):
        if i >= len(COLOURS):  # colours come again: hatched
            area.glyph.hatch_pattern, area.glyph.hatch_alpha = "/", 0.5
    legend: list[tuple[str, list[Any]]] = [(n, [a]) for n, a in zip(names, areas, strict=True)]
    if drifts:
        _true_drifts(plot, drifts)
    if alarms is not None:
        _alarms(plot, alarms, "alarms:shares")
    return _finished(plot, legend)


def _figure(title: str, x_label: str, y_label: str, *, logarithmic: bool = False) -> Figure:
    from bokeh.plotting import figure

    plot = figure(
        title=title,
        height=HEIGHT,
        min_border_left=LEFT,
        sizing_mode="stretch_width",
        x_axis_label=x_label,
        y_axis_label=y_label,
        y_axis_type="log" if logarithmic else "linear",
        tools=TOOLS,
        active_drag=None,
        active_scroll=None,
        outline_line_alpha=0.0,
        lod_threshold=None,
        html_attributes={"role": "img", "aria-label": title},
    )
    plot.toolbar.logo = None
    plot.toolbar.autohide = True
    plot.title.text_font, plot.title.text_font_size = FONT, "15px"  # type: ignore[union-attr]
    plot.title.text_font_style = "bold"  # type: ignore[union-attr]
    for axis in plot.axis:
        axis.axis_label_text_font = axis.major_label_text_font = FONT
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "12px"
        axis.minor_tick_line_alpha = 0.0
    plot.xgrid.visible = False
    plot.ygrid.grid_line_alpha = 0.7
    plot.xaxis.formatter = _formatter("0,0")
    return plot


def _finished(
    plot: Figure, legend: Sequence[tuple[str, Sequence[Any]]], points_at: Sequence[Any] = ()
) -> Figure:
    """The legend above the chart; a click mutes a line. Pointing at one gives its value."""
    from bokeh.models import HoverTool, InlineStyleSheet
    from bokeh.models.annotations import Legend, LegendItem

    items = [LegendItem(label={"value": name}, renderers=list(what)) for name, what in legend]
    box = Legend(
        items=items,
        orientation="horizontal",
        location="top_left",
        click_policy="hide",
        stylesheets=[InlineStyleSheet(css=_LEGEND)],
        border_line_color=None,
        background_fill_alpha=0.0,
        label_text_font=FONT,
        label_text_font_size="12px",
        glyph_width=18,
        glyph_height=14,
        label_height=16,
        margin=4,
    )
    plot.add_layout(box, "above")
    for drawn, (name, _) in zip(points_at, legend, strict=False):
        tip = HoverTool(
            renderers=[drawn], tooltips=[(name, "@y{0.0000} at @x{0,0}")], mode="vline",
            visible=False, line_policy="nearest",
        )  # fmt: skip
        if drawn is points_at[0]:
            plot.add_tools(tip)
    return plot


def _true_drifts(plot: Figure, drifts: Sequence[tuple[int, int]]) -> list[Any]:
    abrupt = [start for start, end in drifts if end <= start]
    gradual = [(start, end) for start, end in drifts if end > start]
    drawn: list[Any] = []
    if gradual:
        begins, ends = (list(side) for side in zip(*gradual, strict=True))
        drawn.append(plot.vstrip(x0=begins, x1=ends, color=DRIFT, alpha=0.28, level="underlay"))
    if abrupt:
        drawn.append(plot.vspan(x=abrupt, color=DRIFT, line_width=6, line_alpha=0.45,
                                level="underlay"))  # fmt: skip
    return drawn


def _alarms(plot: Figure, alarms: Sequence[Mark], name: str) -> list[Any]:
    """Upright dashed lines that say what they are about when pointed at; before them a line of
    their kind that is nowhere, for the legend, which shows nothing of what has no rows yet."""
    from bokeh.models import HoverTool

    data = {"x": [mark.row for mark in alarms], "text": [mark.text for mark in alarms]}
    drawn = plot.vspan(x="x", source=_source(data, name), color=ALARM, line_width=1.4,
                       line_dash="dashed")  # fmt: skip
    plot.add_tools(
        HoverTool(renderers=[drawn], tooltips=[("alarm at row", "@x{0,0}"), ("", "@text")],
                  visible=False)
    )  # fmt: skip
    nowhere = [float("nan")]
    sample = plot.line(nowhere, nowhere, color=ALARM, line_width=1.4, line_dash="dashed")
    return [sample, drawn]


def _source(data: Mapping[str, Any], name: str) -> ColumnDataSource:
    from bokeh.models import ColumnDataSource

    return ColumnDataSource({key: _compact(values) for key, values in data.items()}, name=name)


def _compact(values: Sequence[Any]) -> Any:
    """Numbers in four bytes each, as they travel; a chart shows no more digits."""
    import numpy as np

    if not len(values) or isinstance(values[0], str):
        return list(values)
    wide = np.asarray(values, np.float64)
    whole = bool(np.isfinite(wide).all() and (wide == np.rint(wide)).all())
    small = whole and float(np.abs(wide).max()) < 2**31
    return wide.astype(np.int32 if small else np.float32 if not whole else np.float64)


def _formatter(pattern: str) -> Any:
    from bokeh.models import NumeralTickFormatter

    return NumeralTickFormatter(format=pattern)


def rolling_mean(values: Sequence[float], window: int, points: int = 800) -> Line:
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
