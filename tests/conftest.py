"""One thread for torch: networks this small only lose to a second one."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
