"""Compiled functions, kept with what they were compiled from.

Numba keeps the code of a function beside its module and compiles it anew when that file changes.
But what it has drawn in from other modules, functions and constants, may have changed as well, and
of that it knows nothing (numba's documentation, Notes on caching): after an update old code would
go on. So here the stamp of what is kept is that of the module and of all of ours that it imports.

Every module of ours that compiles takes ``njit`` from here, or ``kernel``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from numba import njit as njit
from numba.core import caching

#: Where this package and its neighbours lie, and which these are.
ROOT = Path(__file__).resolve().parent.parent
OURS = ("drift", "streammeta", "scenarios")
_IMPORT = re.compile(r"^from ([\w.]+) import (\([^)]*\)|[^\n]*)|^import ([\w.]+)", re.MULTILINE)

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(*, fastmath: bool | set[str] = False) -> Callable[[Function], Function]:
    """As ``njit``, for what makes no array, calls nothing but kernels and returns numbers or
    nothing: it reads and writes numbers of the arrays that it is given, and of parts of them.

    Whoever calls holds those, so nobody has to count references to the parts, which in a short loop
    takes longer than the work. Numba refuses to compile one that makes an array; it compiles one
    that returns an array in a tuple, which would be freed once too often.
    """
    options: Any = {"error_model": "numpy", "fastmath": fastmath, "_nrt": False}
    made: Callable[[Function], Function] = njit(cache=True, nogil=True, **options)
    return made


def _module(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in found if file.is_file()), None)


@cache
def _read(file: Path) -> tuple[bytes, frozenset[Path]]:
    """Digest of ``file``, and our modules that it imports at its top level."""
    text = file.read_text("utf-8")
    named: set[str] = set()
    for home, names, whole in _IMPORT.findall(text):
        if (home or whole).partition(".")[0] in OURS:
            named |= {home or whole, *(f"{home}.{name}" for name in re.findall(r"\w+", names))}
    found = (module for name in named if (module := _module(name)) is not None)
    return hashlib.sha256(text.encode()).digest(), frozenset(found)


@cache
def stamp(file: Path) -> bytes:
    """Digest of ``file`` and of all modules of ours that it imports, and they in turn."""
    seen, unread = {file}, [file]
    while unread:
        new = _read(unread.pop())[1] - seen
        seen |= new
        unread += new
    return hashlib.sha256(b"".join(_read(one)[0] for one in sorted(seen))).digest()


class _OfAllSources:
    """A place for compiled code whose stamp is ``stamp``."""

    _py_file: str

    def get_source_stamp(self) -> bytes:
        return stamp(Path(self._py_file).resolve())

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> Any:
        ours = any(ROOT / name in Path(py_file).resolve().parents for name in OURS)
        return super().from_function(py_func, py_file) if ours else None  # type: ignore[misc]


def _of_all_sources(place: type[object]) -> type[object]:
    return type(place.__name__, (_OfAllSources, place), {})


#: As numba's own, in this order: where the user wishes, beside the module, in the user's folder.
caching.CacheImpl._locator_classes[:0] = [
    _of_all_sources(caching.UserProvidedCacheLocator),
    _of_all_sources(caching.InTreeCacheLocator),
    _of_all_sources(caching.UserWideCacheLocator),
]
