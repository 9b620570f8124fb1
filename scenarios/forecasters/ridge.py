"""Ridge regression on all features, fitted once."""

from __future__ import annotations

import numpy as np

from scenarios.forecasters.split import Forecaster, Pairs, Rows, SplitFactory

ALPHAS = tuple(10.0**power for power in range(-3, 6))


class Ridge(Forecaster):
    """argmin |y - X w - b|^2 + alpha |w|^2 (Hoerl & Kennard 1970), the intercept free.

    ``alpha`` is the one of ``ALPHAS`` with the least squared error on the validation pairs.
    ``weights`` is ``(features + 1,)``, the intercept last.
    """

    def fit(self, train: Pairs, validation: Pairs) -> None:
        self.weights, self.alpha = best_ridge(train, validation)

    def forecast(self, row: Rows) -> float:
        return float(row @ self.weights[:-1] + self.weights[-1])

    def update(self, row: Rows, y: float) -> None:
        """Nothing: it is frozen."""


def best_ridge(train: Pairs, validation: Pairs) -> tuple[Rows, float]:
    """Weights ``(features + 1,)`` and penalty of the ridge that forecasts validation best."""
    rows, targets = validation.arrays()
    paths = ridges(*train.arrays())
    errors = np.mean((rows @ paths[:, :-1].T + paths[:, -1] - targets[:, None]) ** 2, axis=0)
    best = int(np.argmin(errors))
    return paths[best], ALPHAS[best]


def ridges(rows: Rows, targets: Rows) -> Rows:
    """Weights ``(alphas, features + 1)`` for every penalty of ``ALPHAS``, from one decomposition.

    With centred ``X = U S V^T``: ``w = V (S / (S^2 + alpha)) U^T y`` for each alpha.
    """
    centre, mean = rows.mean(axis=0), float(targets.mean())
    u, s, vt = np.linalg.svd(rows - centre, full_matrices=False)
    shrunk = s / (s**2 + np.array(ALPHAS)[:, None]) * (u.T @ (targets - mean))
    weights = shrunk @ vt
    return np.column_stack([weights, mean - weights @ centre])


ridge = SplitFactory("ridge", Ridge)
