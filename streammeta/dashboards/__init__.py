"""A dashboard for Grafana, alerts for Prometheus, and the files that bring them up."""

from __future__ import annotations

from streammeta.dashboards.alerts import ALERTS, Alert
from streammeta.dashboards.deployment import PROCESSOR, PROMETHEUS, export
from streammeta.dashboards.grafana import UID, dashboard
from streammeta.dashboards.panels import ROWS

__all__ = ["ALERTS", "PROCESSOR", "PROMETHEUS", "ROWS", "UID", "Alert", "dashboard", "export"]
