"""Any River estimator as a member of the mixture, by ``module:Class`` in ``model.experts``."""

from __future__ import annotations

import copy
import math
import pickle
from importlib.metadata import version
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.base import Classifier, Estimator, Regressor

from streammeta.boxed import Box
from streammeta.errors import ConfigError
from streammeta.experts.family import I64, KEYS, Flags, Floats, Space, World
from streammeta.experts.kernels import NOT_READ, REGRESSION

#: What a classifier that names a class without probabilities is taken to be sure of.
SURE = 0.9


class RiverExpert:
    """One estimator for each key. Columns are called ``c0``, ``c1``, ...; those that are missing
    are left out; classes are called by their number.

    River has no arrays to store: a snapshot holds its pickle, with River's version.
    """

    def __init__(self, kind: type[Estimator], space: Space) -> None:
        wanted = Regressor if space.task == REGRESSION else Classifier
        if not issubclass(kind, wanted):
            raise ConfigError(
                f"model.experts: {kind.__module__}:{kind.__name__} is no {wanted.__name__.lower()}"
            )
        seeded = {"seed": space.seed} if "seed" in signature(kind).parameters else {}
        try:
            self.first = kind(**seeded)
        except TypeError as error:
            raise ConfigError(f"model.experts: {kind.__name__} cannot be made: {error}") from None
        self.names = (f"river.{kind.__name__}",)
        self.task, self.estimators = space.task, list[Any]()

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays, a new key starts afresh."""
        while len(self.estimators) < min(keys, KEYS):
            self.estimators.append(copy.deepcopy(self.first))

    def start(self, key: int) -> None:
        """Forget everything of a key."""
        if key < KEYS:
            self.estimators[key] = copy.deepcopy(self.first)

    def predict(self, key: int, raw: Floats, world: Box, out: Floats, at: int) -> None:
        """``out (n, M, O)`` <- in row ``at``, what the estimator says to ``raw (n, D)``."""
        seen, estimator = world.table, self.estimators[key]
        for r, row in enumerate(raw):
            if self.task == REGRESSION:
                centre, scale = seen.units[key]
                out[r, at, 0] = (
                    _number(estimator.predict_one(_named(row, seen.scaled))) - centre
                ) / scale
            else:
                out[r, at] = _shares(
                    estimator, _named(row, seen.scaled), int(seen.n_classes[0]), out.shape[2]
                )

    def learn(self, key: int, world: Box) -> None:
        """The newest row of a key."""
        seen: World = world.table
        newest = (int(seen.seen[key]) - 1) % seen.rows.shape[1]
        target = float(seen.targets[key, newest])
        label = target if self.task == REGRESSION else int(target)
        self.estimators[key].learn_one(_named(seen.rows[key, newest], seen.scaled), label)

    def awake(self, key: int) -> Flags:
        """Always."""
        return np.ones(1, np.bool_)

    def close(self, key: int, world: Box, ended: int) -> None:
        """River's adaptive estimators find drifts themselves."""

    def settle(self, key: int, world: Box) -> I64:
        """Nothing was left to do."""
        return np.empty(0, np.int64)

    def seed_class(self, index: int) -> None:
        """River's classifiers find their classes themselves."""

    def widen_outputs(self, outputs: int) -> None:
        """So they do here."""

    def tensors(self) -> dict[str, NDArray[Any]]:
        """One pickle of all estimators, as bytes."""
        return {f"river-{version('river')}": np.frombuffer(pickle.dumps(self.estimators), np.uint8)}

    def load(self, tensors: dict[str, NDArray[Any]]) -> None:
        """What ``tensors`` returned.

        Raises:
            ConfigError: another version of River made it.
        """
        name = f"river-{version('river')}"
        if name not in tensors:
            raise ConfigError(
                f"the snapshot was made with {' '.join(tensors)}, this is {name}: install that "
                "version, or start --fresh"
            )
        self.estimators = pickle.loads(tensors[name].tobytes())


def _named(row: Floats, scaled: Floats) -> dict[str, float]:
    """The columns of a row ``(D,)`` that are there, and are read."""
    return {
        f"c{c}": value
        for c, value in enumerate(row.tolist())
        if not math.isnan(value) and scaled[c] != NOT_READ
    }


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _shares(estimator: Any, x: dict[str, float], n_classes: int, outputs: int) -> Floats:
    """``(outputs,)``: probabilities; what it says nothing of shares what is left evenly."""
    said = np.zeros(outputs)
    try:
        told = estimator.predict_proba_one(x)
    except NotImplementedError:  # it names classes only
        best = estimator.predict_one(x)
        told = {} if best is None else {best: SURE}
    for label, share in told.items():
        if 0 <= label < n_classes and math.isfinite(share):
            said[label] = max(share, 0.0)
    rest = max(0.0, 1.0 - said.sum())
    said[:n_classes] += rest / n_classes
    said /= said.sum()
    return said
