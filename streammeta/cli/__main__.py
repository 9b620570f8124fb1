"""``python -m streammeta.cli`` is the command ``streammeta``."""

from __future__ import annotations

from streammeta.cli import main

main()
