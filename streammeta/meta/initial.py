"""Meta-parameters in a file of their own: written after a run, read by ``--init``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from streammeta.errors import ConfigError
from streammeta.meta.net import Net, refit
from streammeta.meta.parameters import MetaParameters


def write_initial(
    path: str | Path, meta: MetaParameters, origin: Mapping[str, Any] | None = None
) -> None:
    """Save the meta-parameters and inner rates; the shape of the network goes along.

    ``origin``: how they came about, JSON-able, for whoever opens the file. The file is there in
    whole or as it was before; the same parameters give the same bytes.
    """
    tensors = {n: meta.tensors()[n] for n in ("theta", "log_rates", "extra")}
    told: dict[str, Any] = {
        "sizes": list(meta.net.sizes),
        "task": meta.learner.task,
        "n_classes": meta.n_classes,
        "updates": meta.updates,
    }
    if origin is not None:
        told["origin"] = dict(origin)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.part")
    try:
        save_file(tensors, aside, metadata={"streammeta": json.dumps(told)})
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def described(path: str | Path) -> dict[str, Any]:
    """What a file of meta-parameters says of itself: shape, task, and ``origin`` if it was told.

    Raises:
        ConfigError: no such file, or not such a file.
    """
    return _open(path)[0]


def read_initial(path: str | Path, meta: MetaParameters) -> MetaParameters:
    """``meta`` with the parameters of the file; the outer optimiser starts afresh.

    Raises:
        ConfigError: no such file, not such a file, or made for another shape, task or kind of
            learner.
    """
    told, tensors = _open(path)
    sizes, task, n_classes = tuple(told["sizes"]), told["task"], int(told["n_classes"])
    net, made = meta.net, Net(sizes)
    if sizes[:-1] != net.sizes[:-1] or task != meta.learner.task:
        raise ConfigError(
            f"model.init: {path} was made for {task} with layers {list(sizes)}; "
            f"this stream needs {meta.learner.task} with {list(net.sizes)}"
        )
    # the stream it comes from may have had more classes than this one has room for as yet
    tensors["theta"] = refit(tensors["theta"], made, net)
    current, rates = meta.tensors(), tensors["log_rates"]
    if rates.shape != current["log_rates"].shape or made != net:
        spread = np.broadcast_to(rates.mean(), current["log_rates"].shape)
        tensors["log_rates"] = spread.astype(np.float32)
    extra = tensors.setdefault("extra", current["extra"])  # files of before have none
    if extra.shape != current["extra"].shape:
        by = told.get("origin", {}).get("learner", "another learner")
        raise ConfigError(
            f"model.init: {path} was made by {by}, which has {extra.size} parameters beside the "
            f"network's; the learner here has {current['extra'].size}"
        )
    return meta.with_tensors({**current, **tensors}, min(n_classes, net.sizes[-1]), 0)


def _open(path: str | Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        with safe_open(path, framework="numpy") as image:
            told = dict(json.loads((image.metadata() or {})["streammeta"]))
        for name in ("sizes", "task", "n_classes"):
            told[name]
        tensors = load_file(path)
    except FileNotFoundError:
        raise ConfigError(f"model.init: {path} does not exist") from None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"model.init: {path} holds no meta-parameters ({error})") from None
    return told, tensors
