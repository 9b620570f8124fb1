"""DLinear: one linear layer for the trend of the last values, one for what the trend leaves."""

from __future__ import annotations

import numpy as np

from scenarios.forecasters.split import Forecaster, Pairs, Rows, SplitFactory

KERNEL = 25  # values in the moving average, as in the paper
BATCH = 32
RATE = 1e-3
EPOCHS, PATIENCE = 200, 10  # at most; without a better validation error
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam (Kingma & Ba 2015)


class DLinear(Forecaster):
    """y = W_t trend(window) + W_r (window - trend(window)) + b (Zeng et al. 2023, AAAI, DLinear).

    The window is the target's last values and nothing else; the trend is their moving average
    over 25 values (or the largest odd number that fits), the ends of the window repeated beyond
    it. Mean squared error, Adam, seeded batches; training stops when the validation error has not
    fallen for 10 epochs and keeps the weights of the best. Both layers start at 1 / window, as
    in the paper's pictures of the weights. ``weights`` is ``(2 window + 1,)``, the bias last.
    """

    lags_only = True

    def fit(self, train: Pairs, validation: Pairs) -> None:
        (rows, targets), (others, truths) = train.arrays(), validation.arrays()
        self._spread = decompose(rows.shape[1])
        self.weights = fitted(
            (_with_bias(rows @ self._spread), targets),
            (_with_bias(others @ self._spread), truths),
            np.random.default_rng([self.seed, 73]),
        )

    def forecast(self, row: Rows) -> float:
        return float(row @ self._spread @ self.weights[:-1] + self.weights[-1])

    def update(self, row: Rows, y: float) -> None:
        """Nothing: it is frozen."""


def decompose(window: int) -> Rows:
    """The matrix ``(window, 2 window)`` that makes trend and remainder of a row of values.

    >>> (np.array([1.0, 2.0, 6.0]) @ decompose(3)).round(2).tolist()
    [1.33, 3.0, 4.67, -0.33, -1.0, 1.33]
    """
    half = (min(KERNEL, window - 1 + window % 2) - 1) // 2
    trend = np.zeros((window, window))
    for place in range(window):
        for step in range(-half, half + 1):
            trend[min(max(place + step, 0), window - 1), place] += 1.0 / (2 * half + 1)
    return np.hstack([trend, np.eye(window) - trend])


def fitted(
    train: tuple[Rows, Rows], validation: tuple[Rows, Rows], rng: np.random.Generator
) -> Rows:
    """Weights ``(features + 1,)`` by Adam on batches, the best by validation error."""
    (rows, targets), (others, truths) = train, validation
    weights = np.full(rows.shape[1], 2.0 / (rows.shape[1] - 1))
    weights[-1] = 0.0
    first, second, step = np.zeros_like(weights), np.zeros_like(weights), 0
    best, least, waited = weights.copy(), _mse(weights, others, truths), 0
    for _ in range(EPOCHS):
        order = rng.permutation(len(rows))
        for start in range(0, len(rows), BATCH):
            chosen = order[start : start + BATCH]
            x, error = rows[chosen], rows[chosen] @ weights - targets[chosen]
            gradient = 2.0 / len(chosen) * (error @ x)
            step += 1
            first += (1.0 - BETA1) * (gradient - first)
            second += (1.0 - BETA2) * (gradient**2 - second)
            scale = np.sqrt(second / (1.0 - BETA2**step)) + EPSILON
            weights -= RATE / (1.0 - BETA1**step) * first / scale
        error_now = _mse(weights, others, truths)
        waited = 0 if error_now < least else waited + 1
        if error_now < least:
            best, least = weights.copy(), error_now
        if waited == PATIENCE:
            break
    return best


def _mse(weights: Rows, rows: Rows, targets: Rows) -> float:
    return float(np.mean((rows @ weights - targets) ** 2))


def _with_bias(rows: Rows) -> Rows:
    return np.column_stack([rows, np.ones(len(rows))])


dlinear = SplitFactory("dlinear", DLinear)
