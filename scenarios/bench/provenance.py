"""Where a number comes from: commit, versions, machine, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VARIABLES = ("STREAMMETA_DATA", "STREAMMETA_PEERS", "RIVER_DATA")  # what a bench finds by them
PACKAGES = ("streammeta", "torch", "river", "numpy", "numba")


@cache
def provenance() -> dict[str, Any]:
    """Commit of the code (``None`` outside a checkout), versions, and the kind of machine."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"commit": _commit(), "versions": versions, "machine": machine()}


@cache
def machine() -> dict[str, Any]:
    """Processor, cores, memory in GiB and system: what timings hang on. No host's name."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def command_line(program: str = "streammeta") -> str:
    """The command of ``program`` that is running, as it can be typed again.

    Of the variables that say where data and peers are, the name stands before it, as
    ``STREAMMETA_DATA=...``: the folder is another one on every machine.
    """
    from shlex import join

    told = [f"{name}=..." for name in VARIABLES if os.environ.get(name)]
    return " ".join([*told, program, join(sys.argv[1:])])


def in_words(told: Mapping[str, Any]) -> str:
    """A ``provenance`` as one sentence for people."""
    kind = told["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in told["versions"].items())
    return (
        f"Commit {told['commit'] or 'unknown'}; {versions}; {kind['cores']} cores of "
        f"{kind['cpu']}, {kind['memory_gib'] or '?'} GiB, {kind['system']}."
    )


def _commit() -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        git = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
        told = subprocess.run(git, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    return round(total / 2**30, 1)
