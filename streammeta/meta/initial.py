"""Meta-parameters in a file of their own: written after a run, read by ``--init``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from streammeta.aside import write_aside
from streammeta.errors import ConfigError
from streammeta.meta.net import Net, refit
from streammeta.meta.parameters import MetaParameters

PARTS = ("theta", "log_rates", "extra")  # of each learner, as NAME.PART


def write_initial(
    path: str | Path,
    metas: Mapping[str, MetaParameters],
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Save what each learner has learned, by its name; the shape of the network goes along.

    ``origin``: how they came about, JSON-able, for whoever opens the file. The file is there in
    whole or as it was before; the same parameters give the same bytes.
    """
    tensors = {f"{name}.{n}": m.tensors()[n] for name, m in metas.items() for n in PARTS}
    learners = [
        {
            "name": name,
            "sizes": list(meta.net.sizes),
            "task": meta.learner.task,
            "n_classes": meta.n_classes,
            "updates": meta.updates,
        }
        for name, meta in metas.items()
    ]
    told: dict[str, Any] = {"learners": learners}
    if origin is not None:
        told["origin"] = dict(origin)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, save(tensors, metadata={"streammeta": json.dumps(told)}))


def described(path: str | Path) -> dict[str, Any]:
    """What a file of meta-parameters says of itself: its ``learners`` with their shapes and tasks,
    and ``origin`` if it was told.

    Raises:
        ConfigError: no such file, or not such a file.
    """
    return _open(path)[0]


def read_initial(path: str | Path, name: str, meta: MetaParameters) -> MetaParameters:
    """``meta`` with what the file holds of the learner ``name``, or else of its first learner; the
    outer optimiser starts afresh.

    Raises:
        ConfigError: no such file, not such a file, or made for another shape, task or kind of
            learner.
    """
    told, tensors = _open(path)
    by_name = {one["name"]: one for one in told["learners"]}
    of = by_name.get(name, told["learners"][0])
    kept = {n: tensors[f"{of['name']}.{n}"] for n in PARTS}
    made, net = Net(tuple(of["sizes"])), meta.net
    if made.sizes[:-1] != net.sizes[:-1] or of["task"] != meta.learner.task:
        raise ConfigError(
            f"model.init: {path} was made for {of['task']} with layers {of['sizes']}; "
            f"this stream needs {meta.learner.task} with {list(net.sizes)}"
        )
    # the stream it comes from may have had more classes than this one has room for as yet
    kept["theta"] = refit(kept["theta"], made, net)
    current, rates = meta.tensors(), kept["log_rates"]
    if rates.shape != current["log_rates"].shape or made != net:
        spread = np.broadcast_to(rates.mean(), current["log_rates"].shape)
        kept["log_rates"] = spread.astype(np.float32)
    if kept["extra"].shape != current["extra"].shape:
        raise ConfigError(
            f"model.init: {path} was made by {of['name']}, which has {kept['extra'].size} "
            f"parameters beside the network's; {name} has {current['extra'].size}"
        )
    return meta.with_tensors({**current, **kept}, min(int(of["n_classes"]), net.sizes[-1]), 0)


def holds(path: str | Path, name: str) -> bool:
    """Whether the file has meta-parameters of the learner ``name``.

    Raises:
        ConfigError: no such file, or not such a file.
    """
    return any(one["name"] == name for one in described(path)["learners"])


def _open(path: str | Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        with safe_open(path, framework="numpy") as image:
            told = dict(json.loads((image.metadata() or {})["streammeta"]))
        if "learners" not in told and "sizes" in told:
            raise ValueError("written by an earlier version: train anew")
        tensors = load_file(path)
        for one in told["learners"]:
            for name in ("sizes", "task", "n_classes"):
                one[name]
            for part in PARTS:
                tensors[f"{one['name']}.{part}"]
        told["learners"][0]
    except FileNotFoundError:
        raise ConfigError(f"model.init: {path} does not exist") from None
    except (SafetensorError, LookupError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"model.init: {path} holds no meta-parameters ({error})") from None
    return told, tensors
