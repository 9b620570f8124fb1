"""``MetaClassifier``: the default model as one of River's classifiers."""

from __future__ import annotations

from typing import ClassVar

import pandas as pd
from river import base

from streammeta.estimators.base import MetaEstimator, Row, records
from streammeta.events import Label
from streammeta.meta.loss import Task


class MetaClassifier(MetaEstimator, base.MiniBatchClassifier):
    """Classifier for streams that change: online experts, drift detection, meta-learning.

    A mixture of experts answers. When the stream changes, challengers adapted from meta-parameters
    that are learned online join it. Two classes or many, of any kind (strings, numbers, booleans);
    numbers need no scaling, strings are categories, ``None`` and NaN are missing values, features
    and classes may appear and vanish. The same seed gives the same answers.

    Parameters
    ----------
    seed
        Of the model's own random numbers, 0 or more.
    learner
        The meta-learner by name: ``streammeta components show learners`` lists them.
    partner
        A second meta-learner with challengers of its own, or `None`.
    challengers
        Slots for adapted experts, an even number up to 16; 0 is the model without meta-learning.
    lags
        How many of the labels learned last are features, 0 to 8.
    detectors
        Names of drift detectors; `None` stands for the default ones.
    false_alarm_every
        Rows between two false alarms of the default detectors, 100 or more.
    on_drift
        `challenge`; `reset` restarts all experts at an alarm, `ignore` does nothing about it.
    chunk
        Rows of `learn_many` that are answered at once.
    init
        File of meta-parameters to begin with, as `streammeta pretrain` writes it.
    device
        `auto`, `cpu` or `cuda`: where adaptation runs.

    Examples
    --------

    >>> from river import evaluate
    >>> from river import metrics
    >>> from river.datasets import synth
    >>> from streammeta import MetaClassifier

    >>> dataset = synth.ConceptDriftStream(
    ...     stream=synth.STAGGER(classification_function=0, seed=1),
    ...     drift_stream=synth.STAGGER(classification_function=2, seed=1),
    ...     position=400, width=10, seed=1,
    ... ).take(800)

    >>> model = MetaClassifier()

    >>> metric = evaluate.progressive_val_score(dataset, model, metrics.Accuracy())
    >>> metric.get() > 0.95
    True

    The alarm came soon after the rules had changed, about row 400:

    >>> any(400 <= row < 450 for row in model.drifts)
    True

    >>> probabilities = model.predict_proba_one({"size": 0, "color": 1, "shape": 2})
    >>> sorted(probabilities)
    [0, 1]
    """

    _task: ClassVar[Task] = "classification"

    @property
    def _multiclass(self) -> bool:
        return True

    def predict_one(self, x: Row) -> Label | None:  # type: ignore[override]
        """The likeliest class; ``None`` before the first label. Changes nothing.

        Raises:
            RejectedEvent: a value cannot be used.
        """
        return self._answers([x])[0][0]

    def predict_proba_one(self, x: Row) -> dict[Label, float]:  # type: ignore[override]
        """The probability of every class seen so far; none before the first label.

        Raises:
            RejectedEvent: a value cannot be used.
        """
        return self._answers([x])[0][1] or {}

    def predict_many(self, X: pd.DataFrame) -> pd.Series:
        """``predict_one`` for each row, all at once, under the index of ``X``."""
        labels = [label for label, _ in self._answers(records(X))]
        return pd.Series(labels, index=X.index, dtype=None if labels else object)

    def predict_proba_many(self, X: pd.DataFrame) -> pd.DataFrame:
        """``predict_proba_one`` for each row, all at once: a column for each class seen so far."""
        classes = list(self.engine.state.classes)
        shares = [list((found or {}).values()) for _, found in self._answers(records(X))]
        return pd.DataFrame(shares, index=X.index, columns=classes, dtype=float)
