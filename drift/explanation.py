"""What an alarm is about: which features moved, how fast the loss rose, and who voted for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
QUANTILES = (0.1, 0.5, 0.9)
FEWEST = 2  # rows on each side before a feature can be said to have moved
FEWEST_OF_SHAPE = 8  # rows behind the onset before a slope can be told from a step
CHANCE = 0.01  # that any feature is said to have moved where none has
LEAST_EFFECT, MOST_EFFECT = 0.3, 100.0  # standard deviations
TOLD = 5  # features, those that moved farthest
WIDTHS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # rows that a change may take
BEFORE = 120  # rows before the onset that tell where the loss came from
BETTER = 10.0  # times likelier a slope has to be than a step


@dataclass(frozen=True, slots=True)
class Moved:
    """A feature whose mean has moved by ``effect`` standard deviations (pooled; Cohen's d), at most
    by 100: those of one that was always the same.

    ``before``, ``after``: its 10 %, 50 % and 90 % quantiles on either side of the onset; ``means``:
    its mean there, ``None`` where nobody kept it.
    """

    feature: str
    effect: float
    before: tuple[float, float, float]
    after: tuple[float, float, float]
    means: tuple[float, float] | None = None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Moved:
        """What JSON carries; ``means`` may be missing, as in records of earlier versions."""
        before, after = tuple(record["before"]), tuple(record["after"])
        means = None if record.get("means") is None else tuple(record["means"])
        return cls(record["feature"], record["effect"], before, after, means)

    def text(self) -> str:
        """Where it moved to: its median, or its mean where the median tells another story.

        >>> Moved("promo", 0.8, (0, 0, 0), (0, 0, 1), (0.02, 0.31)).text()
        'promo moved up (mean 0.02 -> 0.31)'
        """
        was, now, of = self.before[1], self.after[1], ""
        if (now - was) * self.effect <= 0.0 and self.means is not None:
            (was, now), of = self.means, "mean "
        digits = 3 if f"{was:.3g}" != f"{now:.3g}" else 6
        way = "up" if self.effect > 0 else "down"
        return f"{self.feature} moved {way} ({of}{was:.{digits}g} -> {now:.{digits}g})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an alarm was raised.

    ``votes``: evidence by signal, in nats (the logarithm of what would have been won for a stake
    of one a row). ``moved``: the features that moved, the farthest first; where labels moved and
    features did not, or nothing did, it is what features mean that changed. ``rows``: looked at
    before and after the onset. ``shape``: ``abrupt`` or ``gradual``, and ``width`` the rows that
    the change had taken up to the alarm (0 of an abrupt one). ``context``: ``new``, ``known``
    (``like`` is the segment that it is like), or "" where nobody can say. ``shape`` is "" as well
    where the detector keeps no losses to tell it from.
    """

    votes: dict[str, float]
    moved: tuple[Moved, ...] = ()
    rows: tuple[int, int] = (0, 0)
    shape: str = "abrupt"
    width: int = 0
    context: str = ""
    like: int | None = None

    def to_record(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "votes": dict(self.votes),
            "moved": [
                {
                    "feature": m.feature,
                    "effect": m.effect,
                    "before": m.before,
                    "after": m.after,
                    "means": m.means,
                }
                for m in self.moved
            ],
            "rows": self.rows,
            "shape": self.shape,
            "width": self.width,
            "context": self.context,
            "like": self.like,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Explanation:
        """What ``to_record`` described, as JSON carries it.

        >>> moved = Moved("temp", 1.5, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
        >>> one = Explanation({"error": 12.0}, (moved,), (200, 20), "gradual", 64, "known", 3)
        >>> Explanation.from_record(one.to_record()) == one
        True
        """
        moved = tuple(Moved.from_record(m) for m in record["moved"])
        rows = tuple(record["rows"])
        return cls(**{**record, "moved": moved, "rows": rows})

    def text(self) -> str:
        """One line.

        >>> moved = Moved("temp", 1.5, (1, 2, 3), (4, 5, 6))
        >>> Explanation({"error": 12.0}, (moved,), (200, 20), "gradual", 64, "new").text()
        'gradual over 64 rows, temp moved up (2 -> 5), new context'
        """
        shape = f"gradual over {self.width} rows" if self.shape == "gradual" else self.shape
        told = [m.text() for m in self.moved[:2]]
        if len(self.moved) > 2:
            told[-1] += f" and {len(self.moved) - 2} more"
        if not told and any(self.rows):
            enough = min(self.rows) >= FEWEST
            told = ["no feature moved" if enough else "too soon to say what moved"]
        context = f"{self.context} context" if self.context else ""
        if self.like is not None:
            context += f" (as in segment {self.like})"
        return ", ".join(part for part in (shape, *told, context) if part)


def features_that_moved(
    before: Mapping[str, Floats], after: Mapping[str, Floats]
) -> tuple[Moved, ...]:
    """The features whose means differ, by at least .3 standard deviations and by more than chance.

    Chance is that of the two-sample test with one variance, for one of all features (Bonferroni),
    on a normal scale: the rows after the onset are few. Values that are not finite do not count; a
    feature needs 2 that are on each side.

    >>> now = {"a": np.arange(50.0), "b": np.arange(50.0) % 7}
    >>> then = {"a": np.arange(50.0) + 40.0, "b": np.arange(50.0) % 7}
    >>> [(m.feature, round(m.effect, 1)) for m in features_that_moved(now, then)]
    [('a', 2.7)]
    """
    found = []
    bound = NormalDist().inv_cdf(1.0 - CHANCE / (2.0 * max(1, len(before))))
    for name in before:
        a, b = (side[name][np.isfinite(side[name])] for side in (before, after))
        if min(len(a), len(b)) < FEWEST:
            continue
        shift, freedom = float(b.mean() - a.mean()), len(a) + len(b) - 2
        spread = math.sqrt((len(a) * a.var() + len(b) * b.var()) / freedom)
        error = spread * math.sqrt(1 / len(a) + 1 / len(b))
        if spread <= 1e-9 * max(1.0, abs(float(a.mean()))):
            if abs(shift) > 1e-9 * max(1.0, abs(float(a.mean()))):
                found.append(_moved(name, math.copysign(MOST_EFFECT, shift), a, b))
        elif abs(shift) > max(bound * error, LEAST_EFFECT * spread):
            found.append(_moved(name, max(-MOST_EFFECT, min(shift / spread, MOST_EFFECT)), a, b))
    return tuple(sorted(found, key=lambda m: -abs(m.effect))[:TOLD])


def _moved(name: str, effect: float, a: Floats, b: Floats) -> Moved:
    before, after = (tuple(np.quantile(side, QUANTILES).tolist()) for side in (a, b))
    return Moved(name, effect, before, after, (float(a.mean()), float(b.mean())))


def width_of_change(rows: Sequence[int] | NDArray[np.int64], values: Floats, onset: int) -> int:
    """How many rows the loss took to rise: 0 at once, else the width of the slope that fits best.

    ``values (n,)`` of ``rows (n,)``; the change began near row ``onset``. A slope is believed when
    it fits the values (as normal ones) ``BETTER`` times as well as the best step. A width that
    reaches the last row is what has been seen of a change that may go on.

    Sources: least squares of a step and of a slope at every place, as in Bai, Estimation of a
    change point in multiple regression models, 1997.

    >>> rise = np.clip((np.arange(400) - 200) / 100, 0, 1)
    >>> noise = np.random.default_rng(0).normal(size=400)
    >>> width_of_change(range(400), rise + 0.1 * noise, 210)
    96
    >>> width_of_change(range(400), (rise > 0) + 0.1 * noise, 201)
    0
    """
    place = int(np.searchsorted(np.asarray(rows), onset))
    y = np.asarray(values, np.float64)[max(0, place - BEFORE) :]
    place = min(place, BEFORE)
    n = len(y)
    if n < 2 * FEWEST_OF_SHAPE or n - place < FEWEST_OF_SHAPE:
        return 0
    step = _misfits(y, np.arange(max(1, place - 100), min(n - 1, place + 51)), 1).min()
    last = min(n - FEWEST_OF_SHAPE, place + 51)
    slopes = [
        (_misfits(y, starts, width).min(), width)
        for width in WIDTHS
        if width <= n and len(starts := np.arange(max(1, place - width), last, 4))
    ]
    if not slopes or step <= 0.0:
        return 0
    best, width = min(slopes)
    gained = 0.5 * n * math.log(step / max(best, 1e-300))
    return width if gained > math.log(BETTER) else 0


def _misfits(y: Floats, starts: NDArray[np.int64], width: int) -> Floats:
    """Mean squared distances ``(s,)`` of ``y (n,)`` to its best lines that rise from each of
    ``starts (s,)`` on for ``width`` rows and are level elsewhere."""
    ramps = np.clip((np.arange(1, len(y) + 1) - starts[:, None]) / width, 0.0, 1.0)
    ramps -= ramps.mean(1, keepdims=True)
    rest = y - y.mean()
    along = np.maximum(np.einsum("sn,sn->s", ramps, ramps), 1e-12)
    explained = (ramps @ rest) ** 2 / along
    left: Floats = np.maximum(rest @ rest - explained, 0.0) / len(y)
    return left
