"""The routes of the live page: HTML, assets from installed packages, snapshots as they come.

``page_routes(feed)`` can be mounted in any Starlette application. The page speaks to nobody
but the server that it came from, and its content security policy holds it to that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from streammeta.charts import (
    REPAINT,
    STYLE,
    Line,
    Mark,
    change_chart,
    line_chart,
    require_bokeh,
    share_chart,
)
from streammeta.live.collector import Snapshot
from streammeta.live.curve import Points
from streammeta.live.feed import INTERVAL, Feed

if TYPE_CHECKING:
    from bokeh.plotting import figure as Figure  # noqa: N812

BEAT = 15.0  # seconds of silence after which a comment keeps the connection open
RETRY = 1000  # milliseconds after which a browser connects again
MOST_FAMILIES = 8  # drawn by themselves
MARGIN = 0.02  # of the rows, beside them
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: "
    "blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
OWN = files("streammeta.live") / "assets"
SCRIPT = "text/javascript; charset=utf-8"


def page_routes(feed: Feed) -> list[Route]:
    """``/`` (the page), ``/assets/...``, ``/page/charts`` and ``/page/stream``.

    ``/page/stream`` sends every new snapshot as a server-sent event, at most five a second, until
    ``feed`` is closed; ``Snapshot`` says what is in one. A query such as ``?token=...`` is
    repeated by the page in all that it asks for.

    Raises:
        UsageError: Bokeh is not installed.
    """
    require_bokeh()

    def page(request: Request) -> Response:
        return Response((OWN / "page.html").read_bytes(), 200, HEADERS, "text/html")

    def asset(request: Request) -> Response:
        return _asset(request.path_params["name"])

    def charts(request: Request) -> Response:
        return JSONResponse(chart_items(feed.latest), headers={"Cache-Control": "no-store"})

    async def stream(request: Request) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        told = _messages(feed, request)
        return StreamingResponse(told, 200, headers, "text/event-stream")

    return [
        Route("/", page),
        Route("/assets/{name}", asset),
        Route("/page/charts", charts),
        Route("/page/stream", stream),
    ]


def _asset(name: str) -> Response:
    from bokeh.util.paths import bokehjs_path

    if name == "bokeh.min.js":
        return FileResponse(
            Path(bokehjs_path()) / "js" / name, headers={"Cache-Control": "no-cache"}
        )
    if name == "page.css":
        return Response(STYLE + (OWN / name).read_text("utf-8"), media_type="text/css")
    if name == "page.js":
        return Response((OWN / name).read_text("utf-8") + REPAINT, media_type=SCRIPT)
    return Response("no such asset\n", 404, media_type="text/plain")


async def _messages(feed: Feed, request: Request) -> AsyncIterator[str]:
    yield f"retry: {RETRY}\n\n"
    sent: Snapshot | None = None
    silent = 0.0
    with feed.watching():
        while not (feed.closed or await request.is_disconnected()):
            latest, text = feed.encoded()
            silent += INTERVAL
            if latest is not None and latest is not sent:
                sent, silent = latest, 0.0
                yield f"data: {text}\n\n"
            elif silent >= BEAT:
                silent = 0.0
                yield ": still here\n\n"
            await anyio.sleep(INTERVAL)


def chart_items(now: Snapshot | None) -> dict[str, Any]:
    """The charts of what there is to draw, as Bokeh's JSON; the page goes on from there.

    ``curves``, ``groups`` and ``learners`` say what the charts have room for: lines by name,
    families of experts (the last group may be several), lines of the outer steps. A chart of which
    there is nothing yet is left out.
    """
    from bokeh.embed import json_item

    if now is None:
        return {"items": [], "curves": [], "groups": [], "learners": []}
    groups = family_groups(now.weights)
    items = [
        json_item(chart, f"chart-{name}")  # type: ignore[arg-type]
        for name, chart in _charts(now, groups).items()
    ]
    curves = [name for name in now.curves if drawn(now.curves[name])]
    learners = [name for name in now.meta if drawn(now.meta[name])]
    return {"items": items, "curves": curves, "groups": groups, "learners": learners}


def drawn(points: Points) -> bool:
    """One point alone makes no line, and no range."""
    return len(points.rows) > 1


def _charts(now: Snapshot, groups: Sequence[Sequence[str]]) -> dict[str, Figure]:
    """By the name of their place in the page; all show the same rows."""
    row, made = "row of the stream", {}
    unit = "nats" if now.task == "classification" else "squared error, standardised"
    alarms = [Mark(drift.row, drift.text) for drift in now.drifts]
    lines = [Line(name, *points) for name, points in now.curves.items() if drawn(points)]
    if lines:
        title = "Accuracy" if now.higher_is_better else "Mean absolute error"
        made["score"] = line_chart(
            f"{title}, last {now.window:,} labels",
            lines,
            x_label=row,
            y_label="share right" if now.higher_is_better else "units of the target",
            alarms=alarms,
        )
        _span(made["score"], now.rows, lines[0].y[-1])
    if len(now.weight_rows) > 1:
        made["weights"] = share_chart(
            "Weights of the families of experts",
            now.weight_rows,
            {_called(group): _sums([now.weights[f] for f in group]) for group in groups},
            x_label=row,
            y_label="share of the mixture",
            alarms=alarms,
        )
        _span(made["weights"], now.rows, 0.5)
    if now.before.rows:
        made["adapting"] = change_chart(
            "Adapting: loss on support rows",
            now.before.rows,
            now.before.values,
            now.after.values,
            x_label=row,
            y_label=unit,
        )
        _span(made["adapting"], now.rows, now.after.values[-1])
    learners = [Line(name, *points) for name, points in now.meta.items() if drawn(points)]
    if learners:
        made["learning"] = line_chart(
            "Learning to adapt: loss on query rows",
            learners,
            x_label=row,
            y_label=unit,
            alarms=None,
        )
        _span(made["learning"], now.rows, learners[0].y[-1])
    return made


def _span(chart: Figure, rows: int, y: float) -> None:
    """All rows so far as a line that nobody sees: whatever a chart has points of, a row stands at
    the same place in each. ``y`` is a value that the chart shows anyway."""
    from bokeh.models import ColumnDataSource

    source = ColumnDataSource({"x": [0, rows], "y": [y, y]}, name="span")
    chart.line("x", "y", source=source, line_alpha=0.0)
    chart.x_range.range_padding = MARGIN  # type: ignore[attr-defined]


def _sums(columns: Sequence[Sequence[float]]) -> list[float]:
    return [sum(values) for values in zip(*columns, strict=True)]


def family_groups(
    weights: Mapping[str, Sequence[float]], most: int = MOST_FAMILIES
) -> list[list[str]]:
    """Families of experts, the greatest share first; those that get no colour are together.

    >>> family_groups({"a": [0.1], "b": [0.7], "c": [0.15], "d": [0.05]}, most=3)
    [['b'], ['c'], ['a', 'd']]
    """
    ranked = sorted(weights, key=lambda family: -sum(weights[family]))
    if len(ranked) <= most:
        return [[family] for family in ranked]
    return [*([family] for family in ranked[: most - 1]), ranked[most - 1 :]]


def _called(group: Sequence[str]) -> str:
    return group[0] if len(group) == 1 else "others"
