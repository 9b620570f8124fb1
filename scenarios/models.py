"""The models of the bench by name: the default, the same with one part taken away, baselines.

A factory is called with keywords ``task`` (classification or regression), ``seed``, ``chunk``,
``argument`` (what follows ``@`` or ``river.`` in the name) and ``overrides`` (fields of
``ModelConfig``), and returns something with ``observe`` and ``replay``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from scenarios.prequential import Model
from scenarios.river_model import RiverModel, river_estimator
from streammeta.errors import UsageError
from streammeta.experts.baselines import LastValue, Majority, NoChange
from streammeta.registry import find

SGD_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


class Factory(Protocol):
    """A row of the table ``models``."""

    def __call__(
        self, *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
    ) -> Model:
        """A fresh model."""


def build(
    name: str,
    *,
    task: str,
    seed: int = 0,
    chunk: int = 1,
    overrides: Mapping[str, Any] | None = None,
) -> Model:
    """The model called ``name``: ``streammeta``, ``reset``, ``frozen@3000``, ``river.hat``, ...

    Raises:
        UsageError: no such model, or a part of its name cannot be used.
    """
    row, argument = split(name)
    factory: Factory = find("models", row).load()
    return factory(
        task=task, seed=seed, chunk=chunk, argument=argument, overrides=dict(overrides or {})
    )


def split(name: str) -> tuple[str, str]:
    """The row of the table and its argument.

    >>> split("frozen@3000"), split("river.hat"), split("streammeta.reset"), split("streammeta")
    (('frozen', '3000'), ('river', 'hat'), ('reset', ''), ('streammeta', ''))
    """
    if name.startswith("river."):
        return "river", name.removeprefix("river.")
    if name.startswith("river:"):
        return "river", name
    row, _, argument = name.removeprefix("streammeta.").partition("@")
    return row, argument


def _variant(changes: Mapping[str, Any]) -> Factory:
    """The default model with ``changes`` to its config."""

    def make(
        *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
    ) -> Model:
        from streammeta.config import ModelConfig
        from streammeta.engine import Engine

        _refuse(argument)
        given = {**overrides, **changes, "task": task, "seed": seed, "chunk": chunk}
        return Engine(ModelConfig(**given))

    return make


streammeta = _variant({})
no_drift = _variant({"on_drift": "ignore"})
no_challengers = _variant({"challengers": 0})
random_challengers = _variant({"challenger_init": "random"})
no_replay = _variant({"replay": False})
reset = _variant({"on_drift": "reset"})


def frozen(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """The default model that stops all learning at row ``argument``."""
    if not argument.isdecimal():
        raise UsageError(f"model 'frozen@{argument}': expected a row, such as frozen@3000")
    make = _variant({"freeze_at": int(argument)})
    return make(task=task, seed=seed, chunk=chunk, argument="", overrides=overrides)


def no_change(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """Repeats the last label or the last value."""
    _refuse(argument)
    return LastValue(chunk) if task == "regression" else NoChange(chunk)


def majority(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """The most frequent label so far, or the mean."""
    _refuse(argument)
    return Majority(task, chunk)


def sgd(*, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]) -> Model:
    """One online network at the fixed rate ``argument``."""
    from streammeta.experts.online_sgd import OnlineSGD

    try:
        rate = float(argument)
    except ValueError:
        rate = float("nan")
    if not rate > 0:
        raise UsageError(f"model 'sgd@{argument}': expected a rate above 0, such as sgd@1e-3")
    made: Model = OnlineSGD(task, rate, seed, chunk)
    return made


def river(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """A River estimator: a short name or ``module:Class``."""
    return RiverModel(river_estimator(argument, task, seed), task, chunk)


def _refuse(argument: str) -> None:
    if argument:
        raise UsageError(f"'@{argument}' follows the name of a model that takes no argument")
