"""streammeta: learning that gets better at adapting while the stream runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streammeta.estimators import MetaClassifier as MetaClassifier
    from streammeta.estimators import MetaRegressor as MetaRegressor

__version__ = "0.1.0"

#: Where the names live that are loaded when they are asked for: torch and River take seconds.
_HOMES = {
    "MetaClassifier": "streammeta.estimators",
    "MetaRegressor": "streammeta.estimators",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
