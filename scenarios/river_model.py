"""Any River classifier or regressor as a model of the bench: by short name, or a user's own."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import Any

from streammeta.errors import UsageError
from streammeta.events import Label, Value
from streammeta.experts.baselines import Answer, Baseline, with_key
from streammeta.registry import look_here


@dataclass(frozen=True, slots=True)
class Entry:
    """A short name: River's module, its class for either task, ``None`` where there is none.

    ``inputs``: ``all`` as they come, but texts one-hot for regressors, whose leaves are linear
    models; ``scaled`` = numbers behind a StandardScaler and texts one-hot; ``numbers`` = texts
    left out. ``base`` is the ensemble's tree, ``one_vs_rest`` says
    that the classifier knows two classes only and one is made for each class.
    """

    module: str
    classifier: str | None
    regressor: str | None
    inputs: str = "all"
    base: str | None = None
    one_vs_rest: bool = False

    def form(self, task: str) -> str | None:
        """Its class for ``task``."""
        return self.classifier if task == "classification" else self.regressor


_HOEFFDING = "river.tree:HoeffdingTreeClassifier"

# What each of them is stands in the registry, where `components show models` reads it. Settings
# are River's own, but for the inputs: linear models and neighbours need one scale.
NAMES: dict[str, Entry] = {
    "hat": Entry("river.tree", "HoeffdingAdaptiveTreeClassifier", "HoeffdingAdaptiveTreeRegressor"),
    "hoeffding": Entry("river.tree", "HoeffdingTreeClassifier", "HoeffdingTreeRegressor"),
    "efdt": Entry("river.tree", "ExtremelyFastDecisionTreeClassifier", None),
    "logistic": Entry("scenarios.logistic", "Logistic", None, "scaled"),
    "one_vs_rest": Entry(
        "river.linear_model", "LogisticRegression", None, "scaled", one_vs_rest=True
    ),
    "softmax": Entry("river.linear_model", "SoftmaxRegression", None, "scaled"),
    "perceptron": Entry("river.linear_model", "Perceptron", None, "scaled", one_vs_rest=True),
    "linear": Entry("river.linear_model", None, "LinearRegression", "scaled"),
    "pa": Entry("river.linear_model", None, "PARegressor", "scaled"),
    "bayes": Entry("river.linear_model", None, "BayesianLinearRegression", "scaled"),
    "nb": Entry("river.naive_bayes", "GaussianNB", None, "numbers"),
    "knn": Entry("river.neighbors", "KNNClassifier", "KNNRegressor", "scaled"),
    "arf": Entry("river.forest", "ARFClassifier", "ARFRegressor"),
    "amf": Entry("river.forest", "AMFClassifier", "AMFRegressor", "numbers"),
    "srp": Entry("river.ensemble", "SRPClassifier", "SRPRegressor"),
    "levbag": Entry("river.ensemble", "LeveragingBaggingClassifier", None, base=_HOEFFDING),
    "adwin_bagging": Entry("river.ensemble", "ADWINBaggingClassifier", None, base=_HOEFFDING),
}


class RiverModel(Baseline):
    """Wraps a River estimator; its rows lose missing values, which River cannot take.

    ``takes_text``: of a stream with keys, the key is a feature of the rows.
    """

    def __init__(
        self, estimator: Any, task: str, chunk: int = 1, *, takes_text: bool = False
    ) -> None:
        super().__init__(task, chunk)
        self.estimator = estimator
        self._takes_text = takes_text

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        known = self._known(x, key)
        try:
            if self.task == "regression":
                value = self.estimator.predict_one(known)
                return None if value is None else float(value), None
            probabilities = self._shares(known)
            if probabilities is None:
                return self.estimator.predict_one(known), None
        except Exception as fault:
            raise self._refused(fault) from fault
        if not probabilities:
            return None, None
        return max(probabilities, key=probabilities.__getitem__), probabilities

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        known = self._known(x, key)
        try:
            self.estimator.learn_one(known, y)
        except Exception as fault:
            raise self._refused(fault) from fault

    def _known(self, x: Mapping[str, Value], key: str) -> dict[str, Value]:
        told = with_key(x, key) if self._takes_text else x
        return {name: value for name, value in told.items() if value is not None}

    def _shares(self, known: Mapping[str, Value]) -> dict[Label, float] | None:
        """``None`` of a classifier that names classes only."""
        if not hasattr(self.estimator, "predict_proba_one"):
            return None
        try:
            shares: dict[Label, float] = self.estimator.predict_proba_one(known)
        except NotImplementedError:  # what River's base class does where there are none
            return None
        return shares

    def _refused(self, fault: Exception) -> UsageError:
        """Not every estimator takes every kind of value: that is no fault of this program."""
        name = type(self.estimator).__name__
        told = f"{type(fault).__name__}: {fault}"
        return UsageError(f"River's {name} cannot use row {self._row} of this stream ({told})")


def river_estimator(name: str, task: str, seed: int) -> Any:
    """A fresh estimator of River's, seeded where it can be: a short name of ``NAMES``, or
    ``tree:HoeffdingTreeClassifier``, with or without ``river.`` before it.

    Raises:
        UsageError: no such name, River has none for ``task``, or the class cannot be imported.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        return own_estimator(f"{_module_of_river(module)}:{attribute}", task, seed)
    if name not in NAMES:
        near = get_close_matches(name, NAMES, n=3)
        hint = f"; did you mean {', '.join(f'river.{n}' for n in near)}?" if near else ""
        raise UsageError(
            f"no River model is called {name!r}{hint}; known: {_known(task)}, module:Class"
        )
    entry = NAMES[name]
    wanted = entry.form(task)
    if wanted is None:
        raise UsageError(f"river.{name} has no form for {task}; use another of {_known(task)}")
    made = getattr(import_module(entry.module), wanted)
    base = []
    if entry.base is not None:
        module, _, attribute = entry.base.partition(":")
        base = [getattr(import_module(module), attribute)()]
    estimator = made(*base, **_seeded(made, seed))
    if entry.one_vs_rest:
        from river.multiclass import OneVsRestClassifier

        estimator = OneVsRestClassifier(estimator)
    inputs = "one_hot" if entry.inputs == "all" and task == "regression" else entry.inputs
    return _pipeline(estimator, inputs)


def own_estimator(name: str, task: str, seed: int) -> Any:
    """A fresh estimator of a user's own, ``module:attribute``: see ``own``.

    Raises:
        UsageError: it cannot be imported or made, or is no River model for ``task``.
    """
    return fresh_estimator(name, own(name), task, seed)


def own(name: str) -> Any:
    """What ``module:attribute`` names; modules of the current directory come first.

    Raises:
        UsageError: there is no such module or attribute, or the module raises.
    """
    module, _, attribute = name.partition(":")
    look_here()
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as fault:
        if isinstance(fault, ModuleNotFoundError) and fault.name == module.partition(".")[0]:
            told = f"there is no module {module!r} in {os.getcwd()} or among the installed ones"
        else:
            told = f"{type(fault).__name__}: {fault}"
        raise UsageError(f"cannot import {name}: {told}") from fault
    return found


def fresh_estimator(name: str, found: Any, task: str, seed: int) -> Any:
    """An estimator from a class, a factory without arguments, or an instance, which is copied.

    A class or factory that takes ``seed`` is given it.

    Raises:
        UsageError: it cannot be made, or is no River model for ``task``.
    """
    if isinstance(found, type) or not hasattr(found, "learn_one"):
        _require_methods(name, found, task, made=not isinstance(found, type))
        try:
            estimator = found(**_seeded(found, seed))
        except Exception as fault:
            told = f"{type(fault).__name__}: {fault}"
            raise UsageError(
                f"{name} cannot be made: {told}; expected a class or function that needs no "
                "arguments, or an instance"
            ) from fault
    else:
        estimator = found.clone() if hasattr(found, "clone") else copy.deepcopy(found)
    _require_methods(name, estimator, task)
    return estimator


def _require_methods(name: str, found: Any, task: str, made: bool = False) -> None:
    """Refuse what cannot be a model for ``task``; a factory (``made``) only has to be callable."""
    if made:
        if not callable(found):
            raise UsageError(
                f"{name} is no River model for {task}: it is a {type(found).__name__}, expected "
                "a class, an instance or a function that makes one"
            )
        return
    answers = ("predict_proba_one", "predict_one") if task == "classification" else ("predict_one",)
    if not (hasattr(found, "learn_one") and any(hasattr(found, answer) for answer in answers)):
        needed = f"learn_one and {' or '.join(answers)}"
        raise UsageError(f"{name} is no River model for {task}: it has no {needed}")
    if isinstance(found, type):
        return
    from river import base, compose

    while isinstance(found, compose.Pipeline):
        found = list(found.steps.values())[-1]
    other = base.Regressor if task == "classification" else base.Classifier
    if isinstance(found, other):
        kind = "regressor" if task == "classification" else "classifier"
        raise UsageError(f"{name} is no River model for {task}: it is a {kind}")


def _module_of_river(module: str) -> str:
    """``tree`` and ``river.tree`` are River's; anything else is left as it is."""
    inside = module if module.startswith("river.") else f"river.{module}"
    try:
        return inside if find_spec(inside) else module
    except ModuleNotFoundError:
        return module


def _known(task: str) -> str:
    return ", ".join(f"river.{name}" for name, entry in NAMES.items() if entry.form(task))


def _seeded(made: Callable[..., Any], seed: int) -> dict[str, Any]:
    """The seed, where the constructor takes one."""
    try:
        return {"seed": seed} if "seed" in signature(made).parameters else {}
    except (TypeError, ValueError):  # a callable that tells nothing about itself
        return {}


def _pipeline(estimator: Any, inputs: str) -> Any:
    from river import compose, preprocessing

    if inputs == "all":
        return estimator
    numbers: Any = compose.SelectType(int, float, bool)
    if inputs == "numbers":
        return numbers | estimator
    if inputs == "scaled":
        numbers |= preprocessing.StandardScaler()
    words = compose.SelectType(str) | preprocessing.OneHotEncoder()
    return (numbers + words) | estimator
