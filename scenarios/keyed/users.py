"""Personalisation: users of a few shared tastes like or pass items, and change their minds."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scenarios.keyed.fleet import (
    Change,
    Floats,
    KeyedScenario,
    Series,
    Turns,
    by_rate,
    changes,
    joining,
    path,
)

JOIN = (500, 3_000)  # rows of the stream from which on late users may come
QUIET = (80, 300)  # answers of a user between two changes of mind
DRIFTING = 40  # answers over which a gradual change takes place
TASTES = 4
NUMBERS = ("pace", "humour", "length", "age", "popularity")
KINDS = ("film", "series", "short")
SECONDS = 20.0  # between two answers, on average


class Users(KeyedScenario):
    """Does this user like this item? Items have five numbers and a kind.

    A user likes an item when preference . item > threshold; ``noise`` of the answers are turned
    over. Preferences lie close to one of four tastes, at right angles to each other, that all
    users share; a user moves to another taste overnight or over 40 answers. Users answer at rates
    of their own: the busiest tens of times as often as the quietest.

    Args:
        seed: what makes other tastes, users and items.
        rows: rows of the whole stream; 500 per user by default.
        keys: number of users.
        late: share of the users that come from a row between 500 and 3,000 on.
        noise: share of answers turned over, below .5.
    """

    name = "users"
    task: Literal["classification", "regression"] = "classification"
    prefix = "user"
    summary = "users with tastes in common like or pass items, and change their minds one by one"
    reference = "made here: a linear preference per user"
    rows_per_key = 500
    usual_noise = 0.05
    most_noise = 0.5

    def _set_up(self, keys: int, late: float, rows: int) -> tuple[Turns, NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 113])
        size = len(NUMBERS) + len(KINDS)
        self._tastes = np.linalg.qr(rng.standard_normal((size, size)))[0][:TASTES]
        joined = joining(rng, keys, late, JOIN)
        rates = np.exp(rng.normal(0.0, 0.8, keys))
        order = np.random.default_rng([self.seed, 114])
        return by_rate(order, rates, joined, rows, SECONDS), joined

    def _noise_is(self) -> str:
        return f"{self.noise:.0%} of the answers turned over"

    def _series_of(self, key: int, n: int) -> Series:
        rng = [np.random.default_rng([self.seed, 127, key, part]) for part in range(4)]
        way = changes(rng[0], n, QUIET, _following)
        threshold = rng[1].uniform(-0.3, 0.3)
        wanted = path(self._preferences(rng[1], way), way, n)
        numbers = np.round(rng[2].standard_normal((n, len(NUMBERS))), 6)
        draws = rng[3].random((n, 2))
        kinds = (draws[:, 0] * len(KINDS)).astype(np.int64)
        likes = np.sum(wanted * design(numbers, kinds), axis=1) > threshold
        told = likes != (draws[:, 1] < self.noise)
        features = dict(zip(NUMBERS, numbers.T.tolist(), strict=True))
        return Series(
            {**features, "kind": [KINDS[kind] for kind in kinds.tolist()]},
            ["liked" if yes else "passed" for yes in told.tolist()],
            ["liked" if yes else "passed" for yes in likes.tolist()],
            n * self.noise,
            way,
        )

    def _preferences(self, rng: np.random.Generator, way: tuple[Change, ...]) -> list[Floats]:
        """A user's preference before the first change and after each."""
        taste = int(rng.integers(TASTES))
        found = [self._near(rng, taste)]
        for _ in way:
            taste = (taste + int(rng.integers(1, TASTES))) % TASTES
            found.append(self._near(rng, taste))
        return found

    def _near(self, rng: np.random.Generator, taste: int) -> Floats:
        own: Floats = self._tastes[taste] + rng.normal(0.0, 0.1, self._tastes.shape[1])
        return own / float(np.linalg.norm(own))


def design(numbers: Floats, kinds: NDArray[np.int64]) -> Floats:
    """What a preference is multiplied with, ``(n, 8)``: five numbers, then one of three kinds."""
    return np.concatenate([numbers, np.eye(len(KINDS))[kinds]], axis=1)


def _following(rng: np.random.Generator, last: str) -> tuple[str, int]:
    if rng.random() < 0.5:
        return "another taste, little by little", DRIFTING
    return "another taste", 0


users = Users.of
