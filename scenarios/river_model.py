"""Any River classifier or regressor as a model of the bench."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from inspect import signature
from typing import Any

from streammeta.errors import UsageError
from streammeta.events import Label, Value
from streammeta.experts.baselines import Answer, Baseline

# short name -> (module, classifier, regressor); None where River has none for the task
NAMES: dict[str, tuple[str, str | None, str | None]] = {
    "hat": ("river.tree", "HoeffdingAdaptiveTreeClassifier", "HoeffdingAdaptiveTreeRegressor"),
    "logistic": ("river.linear_model", "LogisticRegression", None),
    "linear": ("river.linear_model", None, "LinearRegression"),
    "nb": ("river.naive_bayes", "GaussianNB", None),
    "knn": ("river.neighbors", "KNNClassifier", "KNNRegressor"),
    "arf": ("river.forest", "ARFClassifier", "ARFRegressor"),
    "srp": ("river.ensemble", "SRPClassifier", "SRPRegressor"),
}
SCALED = ("logistic", "linear", "knn")  # behind a StandardScaler and, for text, one-hot columns
NUMERIC = ("nb",)  # sees numbers only: a Gaussian of a one-hot column has no variance


class RiverModel(Baseline):
    """Wraps a River estimator; its rows lose missing values, which River cannot take."""

    def __init__(self, estimator: Any, task: str, chunk: int = 1) -> None:
        super().__init__(task, chunk)
        self.estimator = estimator

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        known = {name: value for name, value in x.items() if value is not None}
        try:
            if self.task == "regression":
                return float(self.estimator.predict_one(known)), None
            probabilities = self.estimator.predict_proba_one(known)
        except Exception as fault:
            raise self._refused(fault) from fault
        if not probabilities:
            return None, None
        return max(probabilities, key=probabilities.__getitem__), probabilities

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        known = {name: value for name, value in x.items() if value is not None}
        try:
            self.estimator.learn_one(known, y)
        except Exception as fault:
            raise self._refused(fault) from fault

    def _refused(self, fault: Exception) -> UsageError:
        """Not every estimator takes every kind of value: that is no fault of this program."""
        name = type(self.estimator).__name__
        told = f"{type(fault).__name__}: {fault}"
        return UsageError(f"River's {name} cannot use row {self._row} of this stream ({told})")


def river_estimator(name: str, task: str, seed: int) -> Any:
    """A fresh estimator: a short name of ``NAMES`` or ``module:Class``, seeded where it can be.

    Raises:
        UsageError: no such name, River has none for ``task``, or the class cannot be imported.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
    elif name in NAMES:
        module, classifier, regressor = NAMES[name]
        wanted = classifier if task == "classification" else regressor
        if wanted is None:
            raise UsageError(f"river.{name} has no form for {task}; use another of {_known(task)}")
        attribute = wanted
    else:
        raise UsageError(f"no River model is called {name!r}; known: {_known(task)}, module:Class")
    try:
        made = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as fault:
        raise UsageError(f"cannot import {module}:{attribute}: {fault}") from fault
    needed = "predict_proba_one" if task == "classification" else "predict_one"
    if not (hasattr(made, "learn_one") and hasattr(made, needed)):
        raise UsageError(f"{module}:{attribute} is no River model for {task}: it has no {needed}")
    try:
        estimator = made(**_arguments(made, seed))
    except (TypeError, ValueError) as fault:
        raise UsageError(f"{module}:{attribute} cannot be made: {fault}") from fault
    return _pipeline(estimator, name) if name in (*SCALED, *NUMERIC) else estimator


def _known(task: str) -> str:
    column = 1 if task == "classification" else 2
    return ", ".join(f"river.{name}" for name, row in NAMES.items() if row[column])


def _arguments(made: Callable[..., Any], seed: int) -> dict[str, Any]:
    """The seed, where the constructor takes one."""
    return {"seed": seed} if "seed" in signature(made).parameters else {}


def _pipeline(estimator: Any, name: str) -> Any:
    from river import compose, multiclass, preprocessing
    from river.linear_model import LogisticRegression

    if isinstance(estimator, LogisticRegression):
        estimator = multiclass.OneVsRestClassifier(estimator)
    numbers: Any = compose.SelectType(int, float, bool)
    if name in NUMERIC:
        return numbers | estimator
    numbers |= preprocessing.StandardScaler()
    words = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return (numbers + words) | estimator
