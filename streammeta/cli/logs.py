"""What a run says on stderr: lines for people, or JSON objects for a collector of logs."""

from __future__ import annotations

import io
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from streammeta.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

FORMS = ("console", "json")
_form = FORMS[0]


def configure(form: str) -> None:
    """Choose one of ``FORMS`` for everything that follows in this process.

    Raises:
        UsageError: it is none of them.
    """
    global _form
    if form not in FORMS:
        raise UsageError(f"--logs is {form!r}, expected {' or '.join(FORMS)}")
    _form = form
    import structlog

    processors: list[structlog.typing.Processor] = [structlog.processors.add_log_level]
    if form == "json":
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        plain = structlog.processors.format_exc_info  # the other renderer does that by itself
        processors += [plain, stamp, structlog.processors.JSONRenderer()]
    else:
        colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        processors += [stamp, structlog.dev.ConsoleRenderer(colors=colours)]
    # looked up at each line: whoever calls this process's commands may have replaced stderr since
    structlog.configure(
        processors=processors, logger_factory=lambda *_: structlog.PrintLogger(sys.stderr)
    )


def console() -> Console:
    """The console of stderr; in the form ``json`` every line becomes an object's ``event``."""
    from rich.console import Console

    from streammeta.cli.console import err

    if _form == "console":
        return err()
    lines: io.TextIOBase = _JsonLines()
    return Console(file=lines, highlight=False, emoji=False, soft_wrap=True, color_system=None)  # type: ignore[arg-type]


def fault(text: str, exception: str = "") -> None:
    """The last words of a command that has failed; ``exception`` is a traceback."""
    if _form == "console":
        print(f"{exception}streammeta: {text}", file=sys.stderr)  # noqa: T201 - faults go there
    else:
        _tell("error", text, **({"exception": exception} if exception else {}))


class _JsonLines(io.TextIOBase):
    """A text stream whose whole lines go to stderr as JSON."""

    def __init__(self) -> None:
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                _tell("info", line.strip())
        return len(text)


def _tell(level: str, event: str, **more: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    record = {"event": event, "level": level, "timestamp": now, **more}
    print(json.dumps(record, ensure_ascii=False), file=sys.stderr, flush=True)  # noqa: T201
