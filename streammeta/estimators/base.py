"""What the estimators have in common: an ``Engine`` behind River's protocol."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cache
from types import FunctionType, ModuleType
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from river import base

from streammeta.compiling import when_compiling
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.errors import ConfigError, RejectedEvent
from streammeta.events import DriftDetected, Event, Label, Output, Rejected, Value
from streammeta.experts.baselines import Answer
from streammeta.meta.loss import Task
from streammeta.snapshot import Snapshot

#: A row as River hands it over: anything hashable may name a feature.
Row = Mapping[Any, Any]
#: Where the estimator's own arrays and facts stand in the snapshot of its engine.
OWN = "estimator"
_MODEL = ModelConfig.model_validate({})  # the defaults
_NOT_STATE = (type, ModuleType, FunctionType)  # behind these lies the whole interpreter


@cache  # once in a process
def _warn_of_compiling() -> None:
    when_compiling(logging.getLogger("streammeta").warning)


class MetaEstimator(base.Estimator):
    """Settings, learning, drifts and pickling; ``MetaClassifier`` and ``MetaRegressor`` predict.

    Its parameters are fields of ``ModelConfig``, and mean what they mean there.

    Raises:
        ConfigError: a parameter is out of range or names something that does not exist.
    """

    _task: ClassVar[Task]
    #: Parameters that are not the engine's.
    _others: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        seed: int = _MODEL.seed,
        learner: str = _MODEL.learner,
        partner: str | None = _MODEL.partner,
        challengers: int = _MODEL.challengers,
        lags: int = _MODEL.lags,
        detectors: tuple[str, ...] | None = None,
        false_alarm_every: float = _MODEL.false_alarm_every,
        on_drift: str = _MODEL.on_drift,
        chunk: int = _MODEL.chunk,
        init: str | None = _MODEL.init,
        device: str = _MODEL.device,
    ) -> None:
        self.seed = seed
        self.learner = learner
        self.partner = partner
        self.challengers = challengers
        self.lags = lags
        self.detectors = detectors or None  # River cannot read an empty tuple
        self.false_alarm_every = false_alarm_every
        self.on_drift = on_drift
        self.chunk = chunk
        self.init = init
        self.device = device
        _warn_of_compiling()
        self._engine = Engine(self._config())
        self._drifts: list[int] = []
        self._alarmed = False

    @classmethod
    def _unit_test_params(cls) -> Iterator[dict[str, Any]]:
        yield {}
        yield {"seed": 1, "learner": "maml", "partner": None, "lags": 0, "on_drift": "reset"}

    def _config(self) -> ModelConfig:
        """The engine's config, from the parameters."""
        given = {n: v for n, v in self._get_params().items() if n not in self._others}
        given |= {"task": self._task, "detectors": self.detectors or ()}
        try:
            return ModelConfig.model_validate(given)
        except ValidationError as fault:
            faults = [f"{e['loc'][0]}={e['input']!r}: {e['msg']}" for e in fault.errors()]
            raise ConfigError(f"{type(self).__name__}: {'; '.join(faults)}") from None

    @property
    def engine(self) -> Engine:
        """The engine inside: ``statistics()`` and ``insights()`` say what it is about."""
        return self._engine

    @property
    def drifts(self) -> list[int]:
        """The rows at which an alarm was raised, of all rows learned, the first of which is 0."""
        return list(self._drifts)

    @property
    def drift_detected(self) -> bool:
        """Whether the last call to learn raised an alarm."""
        return self._alarmed

    # -- answering and learning --------------------------------------------------------------

    def learn_one(self, x: Row, y: Any) -> None:
        """Answer ``x``, compare the answer with ``y``, and learn.

        The answer is what the model would say now. Where a question was put earlier than its label
        came (``delay`` in River's ``progressive_val_score``), what was answered then is not known
        here: an ``Engine``, whose events have ids, keeps it.

        Raises:
            RejectedEvent: a value or the label cannot be used; nothing has been learned.
        """
        self._learn([x], [y])

    def learn_many(self, X: pd.DataFrame, y: pd.Series) -> None:
        """``learn_one`` for each row; with ``chunk`` above 1, so many are answered at once before
        the first of their labels is learned. What a frame does not have (NaN, NA) is missing.

        Raises:
            RejectedEvent: a row cannot be used; the others have been learned.
        """
        self._learn(records(X), list(y))

    def _answers(self, rows: Sequence[Row]) -> list[Answer]:
        return self._engine.answers([named(x) for x in rows])

    def _learn(self, rows: Sequence[Row], labels: Sequence[Any]) -> None:
        first = self._engine.state.rows
        events = [
            Event(f"{first + i}", named(x), plain(y))
            for i, (x, y) in enumerate(zip(rows, labels, strict=True))
        ]
        self._alarmed = False
        refused: list[Rejected] = []
        for start in range(0, len(events), self.chunk):
            outputs = self._observe(events[start : start + self.chunk])
            alarms = [output.row for output in outputs if isinstance(output, DriftDetected)]
            self._drifts += alarms
            self._alarmed = self._alarmed or bool(alarms)
            refused += [output for output in outputs if isinstance(output, Rejected)]
        if refused:
            count = f"{len(refused)} of {len(events)} rows: " if len(events) > 1 else ""
            raise RejectedEvent(refused[0].reason, count + refused[0].detail)

    def _observe(self, events: list[Event]) -> list[Output]:
        """Learn one chunk."""
        return self._engine.observe(events) + self._engine.replay()

    # -- pickling and memory -----------------------------------------------------------------

    def _tensors(self) -> dict[str, NDArray[Any]]:
        """What is learned outside the engine."""
        return {}

    def _load(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """What ``_tensors`` returned."""

    def __getstate__(self) -> dict[str, Any]:
        """The parameters and one image of all that was learned: equal models, equal bytes."""
        snapshot = self._engine.snapshot()
        snapshot.tensors |= {f"{OWN}/{name}": array for name, array in self._tensors().items()}
        snapshot.info[OWN] = {"drifts": self._drifts, "alarmed": self._alarmed}
        return {"params": self._get_params(), "learned": snapshot.to_bytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state["params"].items():
            setattr(self, name, value)
        snapshot = Snapshot.from_bytes(state["learned"])
        config = self._config()
        if "meta" in snapshot.info:  # the file it began from is no longer needed
            config = config.model_copy(update={"init": None})
        self._engine = Engine.restore(config, snapshot)
        own = snapshot.info[OWN]
        self._drifts, self._alarmed = own["drifts"], own["alarmed"]
        start = f"{OWN}/"
        arrays = snapshot.tensors.items()
        self._load({n.removeprefix(start): a for n, a in arrays if n.startswith(start)})

    @property
    def _raw_memory_usage(self) -> int:
        """Bytes of all objects it holds; arrays and tensors once each, with what they point to."""
        size, seen, todo = 0, set(), [self.__dict__]
        while todo:
            one: Any = todo.pop()
            while isinstance(one, np.ndarray) and isinstance(one.base, np.ndarray):
                one = one.base  # a view's numbers are its owner's
            if id(one) in seen or isinstance(one, _NOT_STATE):
                continue
            seen.add(id(one))
            size += sys.getsizeof(one)
            if isinstance(one, torch.Tensor):
                size += one.untyped_storage().nbytes()
            todo += gc.get_referents(one)
        return size


def named(x: Row) -> Mapping[str, Value]:
    """``x`` with strings for names: what is named otherwise is called by its type and its repr.

    >>> named({"a": 1.0, 2: 3.0})
    {'a': 1.0, 'int 2': 3.0}
    """
    if all(isinstance(name, str) for name in x):
        return x
    return {_name(name): value for name, value in x.items()}


def _name(name: Hashable) -> str:
    return name if isinstance(name, str) else f"{type(name).__name__} {name!r}"


def plain(y: Any) -> Label:
    """A label as Python's own number, boolean or string, whatever library it comes from.

    Raises:
        RejectedEvent: there is none.
    """
    if y is None or y is pd.NA:
        raise RejectedEvent("missing_target", "no label; to ask is to predict, not to learn")
    found: Label = y.item() if isinstance(y, np.generic) else y
    return found


def records(X: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """The rows of a frame, with ``None`` for what is missing."""
    return X.astype(object).where(X.notna(), None).to_dict("records")
