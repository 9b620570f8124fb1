"""The state of a model as named tensors, JSON and opaque blobs; one deterministic file image."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from streammeta.errors import StoreError

#: Layout of a model's snapshot; raised when an older one can no longer be read as it is.
SCHEMA = 13
_BLOB = "blob:"


@dataclass(slots=True)
class Snapshot:
    """Everything a model needs to go on as if it had never stopped.

    ``tensors`` maps names to arrays of any shape (numbers and booleans), ``info`` is JSON-able
    (string keys, their order kept), ``blobs`` are bytes that only their owner understands.

    >>> s = Snapshot({"w": np.arange(3.0)}, {"rows": 7}, {"adwin": b"..."})
    >>> back = Snapshot.from_bytes(s.to_bytes())
    >>> back.info, back.blobs, back.tensors["w"].tolist()
    ({'rows': 7}, {'adwin': b'...'}, [0.0, 1.0, 2.0])
    """

    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """One safetensors image. Equal contents give equal bytes, on every run.

        ``info`` travels as the only metadata entry: with several, their order in the header would
        depend on a randomised hash.

        Raises:
            StoreError: a tensor's name starts with ``blob:`` or its type cannot be stored.
        """
        flat: dict[str, np.ndarray] = {}
        for name, array in self.tensors.items():
            if name.startswith(_BLOB):
                raise StoreError(f"tensor {name!r}: names that start with 'blob:' are taken")
            if array.dtype.kind not in "biuf":
                raise StoreError(f"tensor {name!r} has type {array.dtype}, expected numbers")
            flat[name] = np.asarray(array, order="C")
        for name, blob in self.blobs.items():
            flat[_BLOB + name] = np.frombuffer(blob, dtype=np.uint8)
        return bytes(save(flat, metadata={"info": json.dumps(self.info, separators=(",", ":"))}))

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """The inverse of ``to_bytes``; the arrays are writable copies.

        Raises:
            StoreError: ``data`` is not such an image.
        """
        try:
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size])
            info = json.loads(header["__metadata__"]["info"])
            flat = load(data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise StoreError(f"not a snapshot ({len(data)} bytes): {error}") from error
        blobs = {n[len(_BLOB) :]: a.tobytes() for n, a in flat.items() if n.startswith(_BLOB)}
        tensors = {n: np.array(a) for n, a in flat.items() if not n.startswith(_BLOB)}
        return cls(tensors, info, blobs)
