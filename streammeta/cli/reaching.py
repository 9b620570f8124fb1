"""Whether what a config names can be reached; nothing is consumed or left behind."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlsplit

from streammeta.errors import StreamMetaError

if TYPE_CHECKING:
    from streammeta.config_file import RunConfig, SourceConfig
    from streammeta.sources import Source

PATIENCE = 5.0  # seconds to wait for a source's first word
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

Outcome = Literal["ok", "warning", "fault", "absent"]


class Finding(NamedTuple):
    """What was looked at, how it is, and what to do about it."""

    name: str
    outcome: Outcome
    told: str


def reached(path: Path, settings: RunConfig) -> Iterator[Finding]:
    """One look at every sink and source of a config."""
    yield from _sinks(path, settings)
    yield from _sources(settings)


def _sinks(path: Path, settings: RunConfig) -> Iterator[Finding]:
    from streammeta.cli.assembly import build_sinks
    from streammeta.sinks.base import Checks

    try:
        sinks = build_sinks(path, settings.sinks)
    except StreamMetaError as fault:
        yield Finding("sinks", "fault", str(fault))
        return
    for sink, section in zip(sinks, settings.sinks, strict=True):
        name = f"sink {sink.name}"
        if section.path is not None:
            yield _writable(name, Path(section.path))
        elif isinstance(sink, Checks):
            yield _tried(name, sink.check, "reached")
        sink.close()


def _sources(settings: RunConfig) -> Iterator[Finding]:
    from streammeta.cli.assembly import open_stream

    if settings.source is None:
        yield Finding("source api", "ok", "events come over HTTP when it runs")
    for part, section in (("source", settings.source), ("labels", settings.labels)):
        if section is None:
            continue
        try:
            source = open_stream(section)
        except StreamMetaError as fault:
            yield Finding(part, "fault", str(fault))
            continue
        try:
            yield _source(f"{part} {source.name}", source, section)
        finally:
            source.close()


def free_port(name: str, host: str, port: int) -> Finding:
    """Whether a server can be started there."""
    try:
        with socket.create_server((host, port)):
            return Finding(name, "ok", f"{host}:{port} is free")
    except OSError as error:
        return Finding(name, "fault", f"{host}:{port}: {error.strerror or error}")


def _writable(name: str, path: Path) -> Finding:
    there = path
    while not there.exists():
        there = there.parent
    fine = os.access(there, os.W_OK) and (there == path or there.is_dir())
    told = f"{path} can be written" if fine else f"{path}: {there} cannot be written"
    return Finding(name, "ok" if fine else "fault", told)


def _tried(name: str, attempt: Callable[[], object], told: str) -> Finding:
    try:
        attempt()
    except StreamMetaError as fault:
        return Finding(name, "fault", str(fault))
    return Finding(name, "ok", told)


def _source(name: str, source: Source, section: SourceConfig) -> Finding:
    """Read a little of a source that can be read again; of others see whether somebody is there."""
    from streammeta.sources.base import Forgets, Live

    if isinstance(source, Forgets):
        return _elsewhere(name, section)
    until = time.monotonic() + PATIENCE
    try:
        while True:
            events, _ = source.read(source.start(), 1)
            fault = source.status().fault if isinstance(source, Live) else ""
            if events or fault or time.monotonic() > until or not isinstance(source, Live):
                break
            time.sleep(0.05)
    except StreamMetaError as error:
        return Finding(name, "fault", str(error))
    if fault:
        return Finding(name, "fault", fault)
    return Finding(name, "ok", "has events" if events else "reached, nothing there yet")


def _elsewhere(name: str, section: SourceConfig) -> Finding:
    """A source that is told things once must not be read for a trial."""
    given: dict[str, Any] = {**section.model_dump(), **(section.model_extra or {})}
    if section.kind == "stdin":
        return Finding(name, "ok", "reads stdin when it runs")
    if section.kind == "http":
        return free_port(name, given.get("host") or "127.0.0.1", int(given.get("port") or 8787))
    if not given.get("url") and not given.get("host"):
        return Finding(name, "ok", "is not read before it runs")
    parts = urlsplit(
        str(given.get("url") or f"mqtt://{given.get('host')}:{given.get('port') or 1883}")
    )
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    try:
        socket.create_connection((host, port), timeout=PATIENCE).close()
    except OSError as error:
        return Finding(name, "fault", f"{host}:{port}: cannot be reached: {error}")
    return Finding(name, "ok", f"{host}:{port} answers")
