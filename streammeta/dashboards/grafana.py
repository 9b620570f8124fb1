"""The table of panels as a Grafana dashboard.

The dashboard has a fixed uid, so that it is replaced and not doubled when it is provisioned again,
and asks for its data source with a variable, so that it needs no import dialogue (``__inputs``).
"""

from __future__ import annotations

from typing import Any

from streammeta.dashboards.panels import DRIFTS, ROWS, Panel

UID = "streammeta"
SCHEMA = 39  # of dashboards, Grafana 11; later versions migrate it
WIDE = 24  # units of a row
HEIGHT = {"stat": 4, "timeseries": 8}
LETTERS = "ABCDEFGHIJ"  # what queries of a panel are called

Json = dict[str, Any]
SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> Json:
    """The dashboard as Grafana stores it."""
    return {
        "uid": UID,
        "title": "streammeta",
        "description": "A stream processor that predicts, notices drift and adapts.",
        "tags": ["streammeta"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,  # the cursor is shared: what happened elsewhere at that moment
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_drifts()]},
        "templating": {"list": _variables()},
        "links": [],
        "panels": _panels(),
    }


def _drifts() -> Json:
    return {
        "name": "Drifts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": DRIFTS.expression,
        "step": "",
        "titleFormat": "drift",
        "textFormat": DRIFTS.legend,
        "tagKeys": "signal",
        "useValueForTime": True,  # the line stands where the drift was, not at each scrape since
    }


def _variables() -> list[Json]:
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "refresh": 1,
        },
        {
            "name": "instance",
            "label": "Processor",
            "type": "query",
            "datasource": SOURCE,
            "query": {
                "query": "label_values(streammeta_build_info, instance)",
                "refId": "instance",
            },
            "refresh": 2,  # whenever the time range changes
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _panels() -> list[Json]:
    """Rows and their panels, from left to right and from the top down."""
    made: list[Json] = []
    top = 0
    for row in ROWS:
        made.append(
            {
                "id": len(made) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": WIDE, "h": 1},
                "panels": [],
            }
        )
        top += 1
        left = 0
        for panel in row.panels:
            if left + panel.width > WIDE:
                left, top = 0, top + HEIGHT[panel.kind]
            place = {"x": left, "y": top, "w": panel.width, "h": HEIGHT[panel.kind]}
            made.append({"id": len(made) + 1, "gridPos": place, **_panel(panel)})
            left += panel.width
        top += HEIGHT[row.panels[-1].kind]
    return made


def _panel(panel: Panel) -> Json:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _stat_options(panel) if panel.kind == "stat" else _line_options(panel),
        "targets": [
            {
                "refId": letter,
                "datasource": SOURCE,
                "expr": series.expression,
                "legendFormat": series.legend,
                "range": panel.kind == "timeseries",
                "instant": panel.kind == "stat",
            }
            for letter, series in zip(LETTERS, panel.series, strict=False)
        ],
    }


def _field(panel: Panel) -> Json:
    field: Json = {"unit": panel.unit}
    if panel.kind == "timeseries":
        scale: Json = {"type": "log", "log": 10} if panel.log else {"type": "linear"}
        field["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 60 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "scaleDistribution": scale,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
        if panel.unit in ("eps", "ops", "percentunit") and not panel.log:
            field["min"] = 0
    return field


def _line_options(panel: Panel) -> Json:
    side = "right" if panel.width == WIDE else "bottom"
    return {
        "legend": {"displayMode": "list", "placement": side, "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def _stat_options(panel: Panel) -> Json:
    return {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "none",
        "graphMode": "none",
        "textMode": "name" if panel.unit == "none" else "auto",
    }
