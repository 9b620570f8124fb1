"""The live page: what a run looks like while it runs.

``Collector`` (``collector``) reads the outputs of an engine and keeps what a page shows, in bounded
memory; ``look`` gives it as a ``Snapshot``. ``Feed`` (``feed``) hands the newest one from
the model's thread to a server's, and ``page_routes`` (``page``) are the routes of the page.
"""

from streammeta.live.collector import Collector, DriftTold, Prediction, Snapshot
from streammeta.live.feed import Feed

__all__ = ["Collector", "DriftTold", "Feed", "Prediction", "Snapshot"]
