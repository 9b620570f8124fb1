"""One registry by name for everything that plugs in.

A row is ``name -> "module:attribute"``; nothing is imported until it is asked for. Other
distributions add rows through entry points in the group ``streammeta.<kind>``, for example

    [project.entry-points."streammeta.learners"]
    my_learner = "my_package.learner:make"

A user's own object can also be named in full as ``module:attribute``.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from streammeta.errors import UsageError


@dataclass(frozen=True, slots=True)
class Component:
    """One row of the registry: ``target`` is ``module:attribute``, ``summary`` one line."""

    kind: str
    name: str
    target: str
    summary: str

    def load(self) -> Any:
        """Import the module and return the attribute."""
        module, _, attribute = self.target.partition(":")
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        return found


_TABLE: dict[str, dict[str, tuple[str, str]]] = {
    "learners": {},
    "experts": {},
    "detectors": {},
    "sources": {},
    "sinks": {},
    "scenarios": {},
    "suites": {},
    "models": {},
}

KINDS = tuple(_TABLE)


def components(kind: str) -> dict[str, Component]:
    """All rows of ``kind``: the built-in ones, then those of other distributions.

    Raises:
        UsageError: ``kind`` is not one of ``KINDS``.
    """
    if kind not in _TABLE:
        raise UsageError(f"no kind of component is called {kind!r}; kinds: {', '.join(KINDS)}")
    rows = {n: Component(kind, n, target, text) for n, (target, text) in _TABLE[kind].items()}
    for point in entry_points(group=f"streammeta.{kind}"):
        origin = point.dist.name if point.dist else "?"
        rows.setdefault(
            point.name, Component(kind, point.name, point.value, f"from distribution {origin}")
        )
    return rows


def find(kind: str, name: str) -> Component:
    """The row called ``name``; ``module:attribute`` names a user's own object.

    Raises:
        UsageError: no such row; the message names the nearest ones.
    """
    rows = components(kind)
    if name in rows:
        return rows[name]
    if ":" in name:
        return Component(kind, name, name, "the user's own")
    near = get_close_matches(name, rows, n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else f"; known: {', '.join(rows)}"
    raise UsageError(f"no {kind[:-1]} is called {name!r}{hint}")


def load(kind: str, name: str) -> Any:
    """``find`` it and import it."""
    return find(kind, name).load()
