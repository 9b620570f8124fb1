"""One network, plain gradient steps at one fixed rate: the baseline of online learning."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from streammeta.encode import CLIP, MOMENT_FLOOR, ColumnMap
from streammeta.errors import RejectedEvent
from streammeta.events import Label, Value
from streammeta.experts import kernels
from streammeta.experts.baselines import Answer, Baseline, with_key
from streammeta.meta.net import Net, refit, seed_class


class OnlineSGD(Baseline):
    """A ReLU network of the default's size on standardised features, one step per label.

    ``theta <- theta - rate * gradient`` of the cross-entropy, or of Huber's loss on the
    standardised target (Robbins & Monro 1951). The same kernels as the default model's. Of a
    stream with keys, the key is one more category.
    """

    def __init__(
        self,
        task: str,
        rate: float,
        seed: int = 0,
        chunk: int = 1,
        hidden: tuple[int, ...] = (40, 40),
    ) -> None:
        super().__init__(task, chunk)
        self.rates = np.array([rate], np.float32)
        self.seed = seed
        self.hidden = hidden
        self.columns = ColumnMap()
        self.theta = np.zeros((0, 0), np.float32)  # shaped by the first event
        self.classes: list[Label] = []
        self.kind = kernels.REGRESSION if task == "regression" else kernels.CLASSIFICATION
        self.y_count, self.y_mean, self.y_variance = np.zeros((3, 1))

    def answer(self, x: Mapping[str, Value], key: str) -> Answer:
        """The network's answer with the moments before this event."""
        try:
            rows = self._inputs(with_key(x, key))
        except RejectedEvent:
            return None, None
        out = np.zeros((1, 1, self.net.sizes[-1]), np.float32)
        live = np.ones(1, np.bool_)
        n = max(1, len(self.classes))
        kernels.predict_bank(self.theta, live, self.sizes, rows, n, self.kind, out)
        if self.kind == kernels.REGRESSION:
            return float(self.y_mean[0]) + self._scale() * float(out[0, 0, 0]), None
        if not self.classes:
            return None, None
        p = out[0, 0, :n].astype(float).tolist()
        return self.classes[int(np.argmax(p))], dict(zip(self.classes, p, strict=True))

    def learn(self, x: Mapping[str, Value], y: Label, key: str) -> None:
        """One gradient step."""
        x = with_key(x, key)
        try:
            raw = self.columns.row(x)
        except RejectedEvent:
            return
        kernels.update_moments(
            raw, self.columns.scaled, self.count, self.mean, self.variance, MOMENT_FLOOR
        )
        target = self._target(y)
        rows = self._inputs(x)
        n = max(1, len(self.classes))
        kernels.sgd_rows(
            self.theta, self.rates, self.sizes, rows, np.array([target], np.float32), n, self.kind
        )

    def _target(self, y: Label) -> float:
        if self.kind == kernels.REGRESSION:
            value = np.array([float(y)])
            kernels.update_moments(
                value, np.ones(1), self.y_count, self.y_mean, self.y_variance, MOMENT_FLOOR
            )
            return (float(y) - float(self.y_mean[0])) / self._scale()
        if y not in self.classes:
            self.classes.append(y)
            if len(self.classes) > self.net.sizes[-1]:
                wide = Net((*self.net.sizes[:-1], 2 * self.net.sizes[-1]))
                self.theta = refit(self.theta, self.net, wide)
                self._use(wide)
            seed_class(self.theta, self.net, len(self.classes) - 1)
        return float(self.classes.index(y))

    def _scale(self) -> float:
        count, variance = float(self.y_count[0]), float(self.y_variance[0])
        return math.sqrt(variance) if count > 1 and variance > 0 else 1.0

    def _inputs(self, x: Mapping[str, Value]) -> NDArray[np.float32]:
        raw = self.columns.row(x)[None]
        if not self.theta.size:
            outputs = 1 if self.kind == kernels.REGRESSION else 8
            self._use(Net((self.columns.width, *self.hidden, outputs)))
            self.theta = self.net.init(np.random.default_rng(self.seed), 1)
            self.count, self.mean, self.variance = np.zeros((3, self.columns.width))
        rows = np.empty(raw.shape, np.float32)
        kernels.standardise(raw, self.columns.scaled, self.mean, self.variance, CLIP, rows)
        return rows

    def _use(self, net: Net) -> None:
        self.net = net
        self.sizes = np.array(net.sizes, np.int64)
