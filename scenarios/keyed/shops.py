"""Daily demand of many shops: shared seasons and effects, levels and regimes of their own."""

from __future__ import annotations

from math import erf, exp, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scenarios.keyed.fleet import (
    Change,
    Floats,
    KeyedScenario,
    Series,
    Turns,
    changes,
    in_rounds,
    joining,
    path,
)

JOIN = (20, 150)  # days on which late shops open
QUIET = (90, 240)  # days between two changes of a shop
COMPETITION = 28  # days over which a competitor wins or loses customers
HOLIDAYS = 0.03
DAY = 86_400.0
WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SEASON = (-0.20, -0.15, -0.05, 0.05, 0.25, 0.45, -0.35)  # of the logarithm, shared
HOLIDAY = -0.6
RARE = (0.10, 1.0, 0.7)  # promotions: share of days, price elasticity, effect of a promotion
OFTEN = (0.45, 2.5, 0.25)


class Shops(KeyedScenario):
    """Demand of a shop on a day, from what is known the day before: weekday, price, promo, holiday.

    log y = level + strength season[weekday] - elasticity log price + effect promo - .6 holiday
    + N(0, noise), all shops each day. Season, holidays and the two promotion policies are shared;
    level ~ N(4, 1) and strength ~ U[.6, 1.4] are a shop's own: the largest sell a hundred times
    what the smallest do. Over 28 days a competitor takes 30 to 50 % of the demand, or gives it
    back; a promotion policy changes overnight, rare promotions that matter against frequent ones
    that make customers look at prices.

    The ideal answer is the median; its mean absolute error is that of the noise, exactly.

    Args:
        seed: what makes other shops.
        rows: rows of the whole stream; 600 days of every shop by default.
        keys: number of shops.
        late: share of the shops that open on a day between 20 and 150.
        noise: standard deviation of the logarithm of demand.
    """

    name = "shops"
    task: Literal["classification", "regression"] = "regression"
    prefix = "shop"
    summary = "daily demand of shops of very different size, with competitors and policies"
    reference = "made here: a log-linear model of demand"
    rows_per_key = 600
    usual_noise = 0.1

    def _set_up(self, keys: int, late: float, rows: int) -> tuple[Turns, NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 107])
        joined = joining(rng, keys, late, JOIN)
        turns = in_rounds(rng, joined, rows, DAY)
        days = int(turns.ts[-1] / DAY) + 1
        self._holidays = np.random.default_rng([self.seed, 108]).random(days) < HOLIDAYS
        return turns, joined

    def _noise_is(self) -> str:
        return f"log-normal noise {self.noise:g}, larger for larger shops"

    def _series_of(self, key: int, n: int) -> Series:
        rng = [np.random.default_rng([self.seed, 109, key, part]) for part in range(4)]
        way = changes(rng[0], n, QUIET, _following)
        level, strength = rng[1].normal(4.0, 1.0), rng[1].uniform(0.6, 1.4)
        share, elasticity, effect, lost = path(_regimes(rng[1], way), way, n).T
        day = np.arange(n) + self._joined[key]
        draws = rng[2].random((n, 2))
        promo = draws[:, 0] < share
        price = np.round((0.8 + 0.4 * draws[:, 1]) * np.where(promo, 0.85, 1.0), 3)
        holiday = self._holidays[day]
        logs = level + strength * np.array(SEASON)[day % 7] - elasticity * np.log(price)
        median = np.exp(logs + effect * promo + HOLIDAY * holiday - lost)
        demand = median * np.exp(self.noise * rng[3].standard_normal(n))
        return Series(
            {
                "weekday": [WEEK[at] for at in (day % 7).tolist()],
                "price": price.tolist(),
                "promo": promo.tolist(),
                "holiday": holiday.tolist(),
            },
            demand.tolist(),
            median.tolist(),
            float(median.sum()) * noise_error(self.noise),
            way,
        )


def noise_error(noise: float) -> float:
    """E |exp(noise Z) - 1| for a standard normal Z: what log-normal noise costs its median.

    >>> round(noise_error(0.1), 4)
    0.0801
    """
    return exp(noise**2 / 2.0) * erf(noise / sqrt(2.0))


def _following(rng: np.random.Generator, last: str) -> tuple[str, int]:
    if rng.random() < 0.5:
        return "a competitor opens or closes", COMPETITION
    return "the promotion policy changes", 0


def _regimes(rng: np.random.Generator, way: tuple[Change, ...]) -> list[Floats]:
    """(share of promotions, elasticity, effect, log demand lost) before and after each change."""
    often, lost = bool(rng.random() < 0.5), 0.0
    found = [np.array([*(OFTEN if often else RARE), lost])]
    for change in way:
        if change.end > change.start:
            lost = 0.0 if lost else -float(np.log(rng.uniform(0.5, 0.7)))
        else:
            often = not often
        found.append(np.array([*(OFTEN if often else RARE), lost]))
    return found


shops = Shops.of
