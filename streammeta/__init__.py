"""streammeta: learning that gets better at adapting while the stream runs."""

from __future__ import annotations

__version__ = "0.1.0"
