"""What a scrape is answered, apart from who serves it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder


def render(registry: CollectorRegistry, accept: str = "") -> tuple[str, bytes]:
    """The media type and the body for a request with this ``Accept`` header: OpenMetrics for those
    that ask for it, the text format of Prometheus for all others.

    >>> render(CollectorRegistry(), "application/openmetrics-text; version=1.0.0")[1]
    b'# EOF\\n'
    """
    encode, kind = choose_encoder(accept)
    return kind, encode(registry)
