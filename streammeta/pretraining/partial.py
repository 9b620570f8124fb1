"""A training that was interrupted, beside the file it was to write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from streammeta.aside import write_aside
from streammeta.errors import SinkError
from streammeta.meta.training import MetaTraining

NAME = "streammeta.pretraining"  # of its entry in the file's metadata


class Partial:
    """``OUT.NAME.partial``: the training of the learner ``name`` as of the last judgement, and what
    it is a training of."""

    def __init__(self, out: Path, name: str, identity: Mapping[str, str]) -> None:
        self.path = out.with_name(f"{out.name}.{name}.partial")
        self.identity = dict(identity)

    def write(self, training: MetaTraining) -> None:
        """Keep the training; afterwards the file is there in whole, or as it was before.

        Raises:
            SinkError: it cannot be written.
        """
        told = json.dumps({"identity": self.identity, "info": training.info()})
        try:
            write_aside(self.path, save(training.tensors(), metadata={NAME: told}))
        except OSError as fault:
            raise SinkError(f"cannot write {self.path}: {fault.strerror or fault}") from fault

    def read(self, training: MetaTraining) -> str:
        """Go on with what was kept, if it can be; otherwise why not, ``""`` where nothing was."""
        if not self.path.is_file():
            return ""
        try:
            with safe_open(self.path, framework="numpy") as image:
                told = json.loads((image.metadata() or {})[NAME])
            identity, info = told["identity"], told["info"]
            others = [name for name in self.identity if identity.get(name) != self.identity[name]]
            if others:
                return f"is of another {', '.join(others)}"
            training.resume(load_file(self.path), info)
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as fault:
            return f"cannot be read ({fault})"
        return ""

    def clear(self) -> None:
        """The training is done, or is to begin anew."""
        self.path.unlink(missing_ok=True)
