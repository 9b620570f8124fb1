"""What choices cost: losses of a course under a policy, and regret to the best of each segment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scenarios.choosing.courses import Course, Floats, worth
from streammeta import mixture
from streammeta.experts.kernels import CLASSIFICATION, REGRESSION
from streammeta.meta.choice import Decisions, Policy, kind_of

#: Members that are not the same ones in every segment.
PASSING = ("challenger", "archive")


def decisions_of(courses: Sequence[Course], kinds: Sequence[str]) -> Decisions:
    """All moments of the courses at which somebody can be chosen, and what came of each member."""
    parts = [_decisions(course, kinds) for course in courses]
    return Decisions._make(np.concatenate(part) for part in zip(*parts, strict=True))


def _decisions(course: Course, kinds: Sequence[str]) -> Decisions:
    index = {kind: number for number, kind in enumerate(kinds)}
    of = np.array([index.get(kind_of(name), -1) for name in course.names])
    ahead = np.zeros(course.known.shape)
    known = course.known.copy()
    for n, (start, stop) in enumerate(spans(course)):
        ahead[n] = course.losses[start:stop].mean(0)  # NaN of who fell asleep
    known &= np.isfinite(ahead)
    keep = known.any(1)
    kinds_at = np.tile(of, (len(known), 1))
    shown: tuple[NDArray[Any], ...] = course.features, course.scores, kinds_at, known, ahead
    return Decisions._make(part[keep] for part in shown)


def spans(course: Course) -> Iterable[tuple[int, int]]:
    """First row, and row after the last, that each decision is about; none is empty."""
    ends = [*course.at[1:].tolist(), len(course.truth)]
    return zip(course.at.tolist(), ends, strict=True)


def kinds_of(courses: Sequence[Course]) -> tuple[str, ...]:
    """Every kind of member once."""
    return tuple(dict.fromkeys(kind_of(name) for course in courses for name in course.names))


def best_fixed(courses: Sequence[Course]) -> str:
    """The member that is best on average over courses, of those that are always there."""
    lost: dict[str, list[float]] = {}
    for course in courses:
        for name, loss in zip(course.names, course.losses[course.at[0] :].T, strict=True):
            if kind_of(name) not in PASSING:
                lost.setdefault(name, []).append(float(loss.mean()))
    return min(lost, key=lambda name: float(np.mean(lost[name])))


def weights_of(
    course: Course, policy: Policy, features: Floats | None = None, scores: Floats | None = None
) -> Floats:
    """The policy's weights ``(N, M)`` at every decision; ``features`` and ``scores`` may be shown
    in the place of the true ones."""
    of = np.array([policy.kind(name) for name in course.names])
    features = course.features if features is None else features
    scores = course.scores if scores is None else scores
    return policy.all_weights(features, scores, np.tile(of, (len(features), 1)), course.known)


def blended(course: Course, weights: Floats) -> Floats:
    """Losses ``(T,)`` of the weighted mean of all members, with ``weights (N, M)``; NaN before the
    first decision."""
    made = np.full(len(course.truth), np.nan)
    for (start, stop), w in zip(spans(course), weights, strict=True):
        said = np.einsum("m,tmc->tc", w, course.members[start:stop])
        made[start:stop] = worth(said, course.truth[start:stop], course.values)
    return made


def followed(course: Course, chosen: NDArray[np.int64]) -> Floats:
    """Losses ``(T,)`` of the one member that was ``chosen (N,)`` at each decision."""
    made = np.full(len(course.truth), np.nan)
    for (start, stop), m in zip(spans(course), chosen.tolist(), strict=True):
        made[start:stop] = course.losses[start:stop, m]
    return made


def shared(course: Course, priors: Floats) -> Floats:
    """Losses ``(T,)`` of a quick fixed-share mixture that begins anew at each alarm with the
    ``priors (N, M)`` of that decision, and at the first one."""
    made = np.full(len(course.truth), np.nan)
    task, n = (REGRESSION, 1) if course.values else (CLASSIFICATION, course.members.shape[2])
    logs, members = np.zeros(len(course.names)), course.members.astype(np.float64)
    variances = np.full(len(logs), mixture.VARIANCE_AT_BIRTH)
    ages, out = np.zeros(len(logs), np.int64), np.zeros((1, members.shape[2]))
    losses, live = np.zeros(len(logs)), course.known[0]
    for number, (start, stop) in enumerate(spans(course)):
        before, live = live, course.known[number]
        if number == 0 or course.alarmed[number]:
            logs = np.log(np.maximum(priors[number], 1e-12))
        else:  # who wakes up meanwhile begins with an even share
            logs[live & ~before] = np.log(1.0 / live.sum()) + logs[live & before].max(initial=0.0)
        for row in range(start, stop):
            mixture.blend(logs, live, members[row : row + 1], n, task, out)
            made[row] = worth(out, course.truth[row : row + 1], course.values)[0]
            mixture.judge(logs, logs.copy(), variances, ages, live, live, members[row],
                          course.truth[row], n, task, losses)  # fmt: skip
    return made


def regret(course: Course, losses: Floats) -> float:
    """Mean over rows from the first decision on of ``losses (T,)`` less those of the learner that
    turned out to be the best one of its segment (of those awake all through it)."""
    first, total = int(course.at[0]), 0.0
    starts = [s for s in course.starts if s > first]
    for start, stop in zip([first, *starts], [*starts, len(losses)], strict=True):
        each = course.losses[start:stop].sum(0)
        total += float(losses[start:stop].sum() - np.nanmin(each))
    return total / (len(losses) - first)
