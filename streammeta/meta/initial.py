"""Meta-parameters in a file of their own: written after a run, read by ``--init``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from streammeta.errors import ConfigError
from streammeta.meta.net import Net, refit
from streammeta.meta.parameters import MetaParameters


def write_initial(path: str | Path, meta: MetaParameters) -> None:
    """Save the meta-parameters and inner rates; the shape of the network goes along."""
    tensors = {n: meta.tensors()[n] for n in ("theta", "log_rates")}
    described = {
        "sizes": list(meta.learner.net.sizes),
        "task": meta.learner.task,
        "n_classes": meta.n_classes,
        "updates": meta.updates,
    }
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={"streammeta": json.dumps(described)})


def read_initial(path: str | Path, meta: MetaParameters) -> MetaParameters:
    """``meta`` with the parameters of the file; the outer optimiser starts afresh.

    Raises:
        ConfigError: no such file, not such a file, or made for another shape or task.
    """
    try:
        with safe_open(path, framework="numpy") as image:
            described = json.loads((image.metadata() or {})["streammeta"])
        sizes, task = tuple(described["sizes"]), described["task"]
        n_classes = int(described["n_classes"])
        tensors = load_file(path)
    except FileNotFoundError:
        raise ConfigError(f"model.init: {path} does not exist") from None
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise ConfigError(f"model.init: {path} holds no meta-parameters ({error})") from None
    net, made = meta.learner.net, Net(sizes)
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
    return meta.with_tensors({**current, **tensors}, min(n_classes, net.sizes[-1]), 0)
