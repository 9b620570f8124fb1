"""River's two logistic regressions as one classifier that need not be told the classes."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from river import base, linear_model, multiclass


class Logistic(base.Classifier):
    """Logistic regression for two classes, multinomial from the third class on.

    River's ``LogisticRegression`` knows two classes only and its ``SoftmaxRegression`` any number.
    Which of the two a stream needs is known when its third class appears: from there on a
    softmax regression learns in the place of the first.

    >>> model = Logistic()
    >>> for label in ("a", "b", "c"):
    ...     model.learn_one({"x": 1.0}, label)
    >>> sorted(model.predict_proba_one({"x": 1.0}))
    ['c']
    """

    def __init__(self) -> None:
        self._seen: set[Any] = set()
        self._model: Any = multiclass.OneVsRestClassifier(linear_model.LogisticRegression())

    @property
    def _multiclass(self) -> bool:
        return True

    def learn_one(self, x: dict[Hashable, Any], y: Any) -> None:
        """One gradient step."""
        self._seen.add(y)
        if len(self._seen) == 3 and not isinstance(self._model, linear_model.SoftmaxRegression):
            self._model = linear_model.SoftmaxRegression()
        self._model.learn_one(x, y)

    def predict_proba_one(self, x: dict[Hashable, Any], **kwargs: Any) -> dict[Any, float]:
        """The probability of each class learned so far."""
        shares: dict[Any, float] = self._model.predict_proba_one(x)
        return shares
