"""Objects made of arrays whose pickles are equal when they are."""

from __future__ import annotations

from typing import Any

import numpy as np


class Stored:
    """Pickles the slots of its class, arrays as their bytes.

    Numpy's own pickles say which arrays share one object for their type, and an array that has
    been loaded no longer shares it with one that was made: equal states gave other bytes.
    """

    __slots__ = ()

    def __getstate__(self) -> dict[str, Any]:
        """Every slot by name."""
        names: tuple[str, ...] = type(self).__slots__
        return {name: _plain(getattr(self, name)) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """What ``__getstate__`` returned."""
        for name, value in state.items():
            if isinstance(value, tuple) and len(value) == 4 and value[0] == _ARRAY:
                _, kind, shape, data = value
                value = np.frombuffer(data, kind).reshape(shape).copy()
            setattr(self, name, value)


_ARRAY = "array"


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return (_ARRAY, value.dtype.str, value.shape, value.tobytes())
    return value
