"""``MetaRegressor``: the default model as one of River's regressors, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, overload

import pandas as pd
from numpy.typing import NDArray
from river import base, conf

from streammeta.conformal import Intervals
from streammeta.estimators.base import _MODEL, MetaEstimator, Row, records
from streammeta.events import Event, Output, Scored
from streammeta.meta.loss import Task


class MetaRegressor(MetaEstimator, base.MiniBatchRegressor):
    """Regressor for streams that change: online experts, drift detection, meta-learning.

    A mixture of experts answers. When the stream changes, challengers adapted from meta-parameters
    that are learned online join it. Neither features nor the target need scaling, strings are
    categories, ``None`` and NaN are missing values, features may appear and vanish. The same seed
    gives the same answers.

    `predict_one(x, with_interval=True)` gives an interval, as River's `conf.RegressionJackknife`
    does: adaptive conformal ones, which hold the asked coverage while the stream changes.

    Parameters
    ----------
    confidence_level
        Share of labels that shall lie inside their intervals, above 0 and below 1.
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

    >>> from river import metrics
    >>> from river.datasets import synth
    >>> from streammeta import MetaRegressor

    >>> dataset = synth.FriedmanDrift(drift_type="gra", position=(300, 600), seed=1).take(900)

    >>> model = MetaRegressor(confidence_level=0.9)
    >>> metric = metrics.R2()
    >>> inside = 0

    >>> for x, y in dataset:
    ...     metric.update(y, model.predict_one(x))
    ...     inside += y in model.predict_one(x, with_interval=True)
    ...     model.learn_one(x, y)

    >>> metric.get() > 0.5
    True
    >>> round(inside / 900, 1)
    0.9

    References
    ----------
    [^1]: Gibbs & Candes 2021, Adaptive Conformal Inference Under Distribution Shift; the others
          that the intervals are built on are named in `streammeta.conformal`.
    """

    _task: ClassVar[Task] = "regression"
    _others: ClassVar[tuple[str, ...]] = ("confidence_level",)

    def __init__(
        self,
        confidence_level: float = 0.9,
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
        self.confidence_level = confidence_level
        self._intervals = Intervals(confidence_level)
        super().__init__(
            seed, learner, partner, challengers, lags, detectors, false_alarm_every, on_drift,
            chunk, init, device,
        )  # fmt: skip

    @overload
    def predict_one(self, x: Row, with_interval: Literal[False] = False) -> float: ...
    @overload
    def predict_one(self, x: Row, with_interval: Literal[True]) -> conf.Interval: ...
    def predict_one(self, x: Row, with_interval: bool = False) -> float | conf.Interval:
        """The value, or the interval about it; 0 before the first label. Changes nothing.

        The interval is infinite until a label has met a prediction that knew others. One that is
        asked for now is the one that ``learn_one`` would judge and learn from now.

        Raises:
            RejectedEvent: a value of ``x`` cannot be used.
        """
        value = self._values([x])[0]
        return conf.Interval(*self._intervals.ask(value)) if with_interval else value

    def predict_many(self, X: pd.DataFrame) -> pd.Series:
        """``predict_one`` for each row, all at once, under the index of ``X``."""
        return pd.Series(self._values(records(X)), index=X.index, dtype=float)

    def _values(self, rows: list[Any]) -> list[float]:
        return [float(value or 0.0) for value, _ in self._answers(rows)]

    def _observe(self, events: list[Event]) -> list[Output]:
        informed = self.engine.state.labels > 0  # a prediction from nothing tells of no spread
        outputs = super()._observe(events)
        scored = [output for output in outputs if isinstance(output, Scored)] if informed else []
        told = [(float(one.prediction or 0.0), float(one.truth)) for one in scored]
        given = [self._intervals.ask(value) for value, _ in told]  # by what was known before
        for (value, truth), interval in zip(told, given, strict=True):
            self._intervals.learn(value, interval, truth)
        return outputs

    def _tensors(self) -> dict[str, NDArray[Any]]:
        return self._intervals.tensors()

    def _load(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._intervals = Intervals(self.confidence_level)
        self._intervals.load(tensors)
