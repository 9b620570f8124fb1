"""The models of the bench by name: the default, the same with one part taken away, baselines.

A factory is called with keywords ``task`` (classification or regression), ``seed``, ``chunk``,
``argument`` (what follows ``@`` or ``river.`` in the name) and ``overrides`` (fields of
``ModelConfig``), and returns something with ``observe`` and ``replay``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Protocol

from scenarios.prequential import Model
from scenarios.river_model import RiverModel, fresh_estimator, own, river_estimator
from scenarios.scenario import Card
from streammeta.errors import UsageError
from streammeta.experts.baselines import LastValue, Majority, NoChange, Seasonal
from streammeta.registry import find

MANY_DRIFTS = ("oracle", "reset")  # models that are told all true drifts by ``@drift``
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

    ``module:attribute`` is a user's own: a ``Factory``, or a River estimator as a class, an
    instance or a function that makes one.

    Raises:
        UsageError: no such model, or a part of its name cannot be used.
    """
    row, argument = split(name)
    factory: Factory = _own(row) if ":" in row else find("models", row).load()
    return factory(
        task=task, seed=seed, chunk=chunk, argument=argument, overrides=dict(overrides or {})
    )


def require_engine(models: Sequence[Model], overrides: Mapping[str, Any]) -> None:
    """Settings are for the default model and its variants.

    Raises:
        UsageError: there are settings, and no such model.
    """
    from streammeta.engine import Engine

    if overrides and not any(isinstance(model, Engine) for model in models):
        told = ", ".join(overrides)
        raise UsageError(
            f"{told}: for streammeta and its variants, none of which is among the models"
        )


def split(name: str) -> tuple[str, str]:
    """The row of the table and its argument.

    >>> split("frozen@3000"), split("river.hat"), split("streammeta.reset"), split("streammeta")
    (('frozen', '3000'), ('river', 'hat'), ('reset', ''), ('streammeta', ''))
    >>> split("river:my_module:MyModel"), split("my_module:MyModel")
    (('my_module:MyModel', ''), ('my_module:MyModel', ''))
    """
    for row in ("river", "expert"):
        if name.startswith(f"{row}."):
            return row, name.removeprefix(f"{row}.")
    if ":" in name.partition("@")[0]:
        return name.removeprefix("river:") if name.count(":") > 1 else name, ""
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
lags_always = _variant({"lags_read": "always"})
no_doubt = _variant({"doubt": False})


def reset(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """The default without challengers, all networks and weights restarted at each alarm.

    With rows: restarted at these and nowhere else. A challenger would have nothing to start from
    but what was thrown away.
    """
    changes: dict[str, Any] = {"on_drift": "reset"}
    if argument:
        changes["known_drifts"] = _rows("reset", argument)
    return _variant(changes)(task=task, seed=seed, chunk=chunk, argument="", overrides=overrides)


def learner(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """The default model with the meta-learner ``argument`` alone, without a partner."""
    if not argument:
        raise UsageError("model 'learner': expected a meta-learner, such as learner@maml")
    find("learners", argument)
    make = _variant({"learner": argument, "partner": None})
    return make(task=task, seed=seed, chunk=chunk, argument="", overrides=overrides)


def expert(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """One kind of expert of the default model alone, without challengers: ``expert.memory``."""
    from streammeta.config import EXPERTS

    if argument not in EXPERTS:
        find("families", argument)
    make = _variant({"experts": (argument,), "challengers": 0})
    return make(task=task, seed=seed, chunk=chunk, argument="", overrides=overrides)


def without(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """The default model without one kind of its experts, ``without@memory``, or without one of the
    corrections of values, ``without@guard``."""
    from streammeta.config import CORRECTIONS, EXPERTS

    for field, parts in (("experts", EXPERTS), ("corrections", CORRECTIONS)):
        if argument in parts:
            make = _variant({field: tuple(name for name in parts if name != argument)})
            return make(task=task, seed=seed, chunk=chunk, argument="", overrides=overrides)
    raise UsageError(
        f"model 'without@{argument}': expected one of the default model's experts or corrections: "
        f"{', '.join(EXPERTS + CORRECTIONS)}"
    )


def with_one(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """The default model with one more family of experts: ``with@moca``."""
    from streammeta.config import EXPERTS

    if not argument:
        raise UsageError("model 'with': expected a family, such as with@moca")
    if argument in EXPERTS:
        raise UsageError(f"model 'with@{argument}': the default model has these already")
    find("families", argument)
    make = _variant({"experts": (*EXPERTS[:-1], argument, EXPERTS[-1])})
    return make(task=task, seed=seed, chunk=chunk, argument="", overrides=overrides)


def oracle(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """The default model that is told when the stream changes, and has no detectors."""
    make = _variant({"known_drifts": _rows("oracle", argument)})
    return make(task=task, seed=seed, chunk=chunk, argument="", overrides=overrides)


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


def seasonal(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """Repeats the label of ``argument`` rows before, within the row's key."""
    if not (argument.isdecimal() and int(argument) > 0):
        raise UsageError(
            f"model 'seasonal@{argument}': expected a period in rows, such as seasonal@24"
        )
    return Seasonal(task, int(argument), chunk)


def majority(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """The most frequent label so far, or the mean."""
    _refuse(argument)
    return Majority(task, chunk)


def sgd(*, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]) -> Model:
    """One online network at the fixed rate ``argument``."""
    from streammeta.experts.online_sgd import OnlineSGD

    if argument == "best":
        raise UsageError(
            "model 'sgd@best': which fixed rate is best is known in hindsight only, so this is a "
            "model of `streammeta bench` alone; name a rate here, such as sgd@1e-2"
        )
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
    """A River estimator: a short name or ``module:Class``.

    Those with a short name take text, so the key of a stream with keys is a feature for them.
    """
    estimator = river_estimator(argument, task, seed)
    return RiverModel(estimator, task, chunk, takes_text=":" not in argument)


def capymoa(
    *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
) -> Model:
    """A learner of CapyMOA, in an environment of its own: for the bench alone."""
    raise UsageError(
        "CapyMOA's learners run in an environment of their own (`make peers`), so each is a "
        "model of `streammeta bench` alone"
    )


def at_drift(name: str, card: Card) -> str:
    """``@drift`` in a model's name replaced by the rows of the card's true drifts.

    ``frozen@drift`` becomes the first one, ``oracle@drift`` and ``reset@drift`` all of them, as
    ``oracle@3000+6000``; other names stay as they are. Without a drift the row is the stream's
    end, which never comes. A gradual drift is known from its first row on. ``ridge@split``
    becomes the rows of the card at which fitting and choosing end.

    Raises:
        UsageError: the drifts of all keys together are none that any key has.

    >>> card = Card("c", "regression", 90, ((30, 30), (60, 70)), "", "", "", 90)
    >>> at_drift("frozen@drift", card), at_drift("oracle@drift", card), at_drift("sgd@1", card)
    ('frozen@30', 'oracle@30+60', 'sgd@1')
    """
    row, told, argument = name.rpartition("@")
    if told and argument == "split":
        return f"{row}@{card.train_until}:{card.score_from}"
    if not told or argument != "drift":
        return name
    starts = [start for start, _ in card.drifts] or [card.rows]
    if row.removeprefix("streammeta.") not in MANY_DRIFTS:
        return f"{row}@{starts[0]}"
    if card.key_drifts:
        raise UsageError(
            f"model {name!r}: the keys of {card.name!r} drift on their own, and a known drift is "
            "an alarm for every key"
        )
    return f"{row}@{'+'.join(map(str, sorted(set(starts))))}"


def _rows(model: str, argument: str) -> tuple[int, ...]:
    """``3000+6000`` as rows."""
    parts = argument.split("+")
    if not all(part.isdecimal() for part in parts):
        raise UsageError(
            f"model '{model}@{argument}': expected rows, such as {model}@3000+6000; "
            f"{model}@drift is for streams whose drifts are known (bench and replay)"
        )
    return tuple(int(part) for part in parts)


def _own(name: str) -> Factory:
    """A user's own ``Factory``, or one around their River estimator."""
    found = own(name)
    if not isinstance(found, type) and callable(found):
        try:
            names = set(signature(found).parameters)
        except (TypeError, ValueError):
            names = set()
        if {"task", "seed", "chunk", "argument", "overrides"} <= names:
            factory: Factory = found
            return factory

    def make(
        *, task: str, seed: int, chunk: int, argument: str, overrides: Mapping[str, Any]
    ) -> Model:
        return RiverModel(fresh_estimator(name, found, task, seed), task, chunk)

    return make


def _refuse(argument: str) -> None:
    if argument:
        raise UsageError(f"'@{argument}' follows the name of a model that takes no argument")
