"""Ridge regression whose weights go on learning, one gradient step per label that comes."""

from __future__ import annotations

import numpy as np

from scenarios.forecasters.ridge import best_ridge
from scenarios.forecasters.split import Forecaster, Pairs, Rows, SplitFactory

RATES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)  # a slower one is as good as frozen


class OnlineGradient(Forecaster):
    """``w <- w + rate (y - w x) x / |x|^2`` from the ridge's weights, x with a 1 for the intercept.

    Online gradient descent on the squared error (Zinkevich 2003) with a step that is divided by
    the size of the input (normalised LMS, Nagumo & Noda 1967): below a rate of 2 it cannot
    diverge when the stream leaves the range it was scaled by. The rate is the one of ``RATES``
    with the least squared error on the validation pairs, each forecast with the weights of the
    moment it was asked; the winner goes on from there. ``weights`` is ``(features + 1,)``.
    """

    def fit(self, train: Pairs, validation: Pairs) -> None:
        start, self.alpha = best_ridge(train, validation)
        rates = np.array(RATES)[:, None]
        now = np.tile(start, (len(RATES), 1))
        history = [now]  # the weights after each label of the validation part
        learned = len(train.rows)
        errors = np.zeros(len(RATES))
        for row, y, known in zip(
            validation.rows, validation.targets, validation.known, strict=True
        ):
            x = with_one(row)
            errors += (y - history[max(0, known - learned)] @ x) ** 2
            now = now + rates * ((y - now @ x) / (x @ x))[:, None] * x
            history.append(now)
        best = int(np.argmin(errors))
        self.rate, self.weights = RATES[best], now[best].copy()

    def forecast(self, row: Rows) -> float:
        return float(with_one(row) @ self.weights)

    def update(self, row: Rows, y: float) -> None:
        x = with_one(row)
        self.weights += self.rate * (y - x @ self.weights) / (x @ x) * x


def with_one(row: Rows) -> Rows:
    """``row`` with the constant input of the intercept at its end."""
    return np.append(row, 1.0)


ogd = SplitFactory("ogd", OnlineGradient)
