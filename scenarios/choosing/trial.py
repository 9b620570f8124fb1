"""Who chooses best on generators that nobody was trained on: the protocol of ``bench choosing``.

Generators are held out kin by kin: what a fold is judged on shares no concepts with what its policy
was trained on. The best fixed learner is chosen on the same courses as the policy is trained on.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from scenarios.bench.jobs import Outcome
from scenarios.choosing.courses import Course, Floats, run_course, run_losses
from scenarios.choosing.judging import (
    best_fixed,
    blended,
    decisions_of,
    followed,
    kinds_of,
    regret,
    shared,
    weights_of,
)
from scenarios.prequential import Progress, Result, peak_rss_mb
from scenarios.scenario import Card
from streammeta.errors import UsageError
from streammeta.meta.choice import SCORES, Policy, reinforce
from streammeta.scores import Measured

if TYPE_CHECKING:
    from scenarios.bench.suite import Job

ROWS = 2_400
#: Generators that are held out together, by what their concepts are.
FOLDS: Mapping[str, tuple[str, ...]] = {
    "planes": ("sea", "hyperplane", "rotating_plane"),
    "sines": ("sine", "mixed"),
    "rules": ("stagger", "agrawal", "random_tree"),
    "clouds": ("random_rbf", "led"),
    "friedman": ("friedman",),
    "switches": ("linear_switch", "polynomial_switch"),
}
#: How each of them drifts.
DRIFTS = (
    "drift('abrupt', every=500)",
    "drift('gradual', every=750, width=250)",
    "drift('recurring', every=400)",
    "drift('none') | feature_drift(at=(0.3, 0.6)) | label_noise(0.1)",
)
WORDS_ONLY = ("stagger",)  # has no number that could move
SHUFFLE = 4  # a stream of random numbers
REPEATS = 10  # permutations, of which the mean is told
LEADING = SCORES.index("error@100")


def streams_of(generator: str) -> list[str]:
    """The streams of a generator, by how they drift."""
    drifts = DRIFTS[:-1] if generator in WORDS_ONLY else DRIFTS
    return [f"{generator} | {drift}" for drift in drifts]


@cache
def all_courses(rows: int, seed: int) -> tuple[Course, ...]:
    """The default model over every stream; minutes, but once in a process: jobs ask for the same
    seeds again in every fold."""
    return tuple(
        run_course(generator, stream, rows, seed)
        for generators in FOLDS.values()
        for generator in generators
        for stream in streams_of(generator)
    )


def split(fold: str, rows: int, seed: int) -> tuple[list[Course], list[Course]]:
    """Courses to train on, and those held out."""
    courses = all_courses(rows, seed)
    held = [course for course in courses if course.generator in FOLDS[fold]]
    return [course for course in courses if course.generator not in FOLDS[fold]], held


def train(courses: Sequence[Course], seed: int) -> Policy:
    """A policy trained on courses."""
    kinds = kinds_of(courses)
    return reinforce(decisions_of(courses, kinds), kinds, seed)


@cache
def policy_of(fold: str, rows: int, seed: int) -> Policy:
    """Trained on all but the fold."""
    return train(split(fold, rows, seed)[0], seed)


@cache
def constant_policy_of(fold: str, rows: int, seed: int) -> Policy:
    """The same, of somebody who is shown nothing: learned weights, the same ones everywhere."""
    return train([blind(course) for course in split(fold, rows, seed)[0]], seed)


def blind(course: Course) -> Course:
    """The course without anything that a policy is shown."""
    return replace(
        course, features=np.zeros_like(course.features), scores=np.zeros_like(course.scores)
    )


# -- who chooses -----------------------------------------------------------------------------

#: From a course and the policy of its fold, losses ``(T,)``.
Chooser = Callable[[Course, Policy], Floats]


def even(course: Course) -> Floats:
    """The same weight ``(N, M)`` for all who can be chosen."""
    shares: Floats = course.known / course.known.sum(1, keepdims=True)
    return shares


def shuffled(held: Sequence[Course], repeat: int, *, features: bool, scores: bool) -> list[Course]:
    """The courses, with what was shown at each decision given to another one, of any of them."""
    stops = np.cumsum([len(course.at) for course in held])
    order = np.random.default_rng([SHUFFLE, repeat]).permutation(stops[-1])
    parts = np.split(order, stops[:-1])
    all_features = np.concatenate([course.features for course in held])
    all_scores = np.concatenate([course.scores for course in held])
    return [
        replace(
            course,
            features=all_features[part] if features else course.features,
            scores=all_scores[part] if scores else course.scores,
        )
        for course, part in zip(held, parts, strict=True)
    ]


def leader(course: Course) -> Floats:
    """Whoever made fewest errors in the last hundred labels."""
    recent = np.where(course.known, course.scores[:, :, LEADING], -np.inf)
    return followed(course, recent.argmax(1))


SOFT, HARD, FIXED, UNIFORM = "l2l", "l2l-hard", "best-fixed", "uniform"
PERMUTED, NO_FEATURES, NO_SCORES = "l2l-permuted", "l2l-features-permuted", "l2l-scores-permuted"
CONSTANT = "l2l-constant"
LEADER, MIXTURE, DEFAULT = "recent-best", "mixture", "streammeta"
EVEN_PRIOR, PRIOR, CHOOSING = "mixture-even-prior", "mixture-l2l-prior", "streammeta-chooser"
CHOOSERS: Mapping[str, Chooser] = {
    SOFT: lambda course, policy: blended(course, weights_of(course, policy)),
    HARD: lambda course, policy: followed(course, weights_of(course, policy).argmax(1)),
    UNIFORM: lambda course, _: blended(course, even(course)),
    LEADER: lambda course, _: leader(course),
    MIXTURE: lambda course, _: course.quick,
    EVEN_PRIOR: lambda course, _: shared(course, even(course)),
    PRIOR: lambda course, policy: shared(course, weights_of(course, policy)),
    DEFAULT: lambda course, _: course.answer,
}
#: Whether meta-features, and whether scores, are those of another decision.
SHUFFLED = {PERMUTED: (True, True), NO_FEATURES: (True, False), NO_SCORES: (False, True)}
MODELS = (SOFT, HARD, FIXED, UNIFORM, CONSTANT, PERMUTED, NO_FEATURES, NO_SCORES, LEADER, MIXTURE,
          EVEN_PRIOR, PRIOR, DEFAULT, CHOOSING)  # fmt: skip


def losses_of(model: str, fold: str, rows: int, seed: int) -> tuple[list[Floats], str]:
    """Losses ``(T,)`` of every held-out course, and the learner's name where it is one."""
    known, held = split(fold, rows, seed)
    if model == FIXED:
        name = best_fixed(known)
        return [course.losses[:, course.names.index(name)] for course in held], name
    if model == CONSTANT:
        policy = constant_policy_of(fold, rows, seed)
        return [CHOOSERS[SOFT](blind(course), policy) for course in held], ""
    policy = policy_of(fold, rows, seed)
    if model in SHUFFLED:
        return _permuted(held, policy, *SHUFFLED[model]), f"mean of {REPEATS} permutations"
    if model != CHOOSING:
        return [CHOOSERS[model](course, policy) for course in held], ""
    with TemporaryDirectory() as folder:
        path = f"{folder}/policy.safetensors"
        policy.write(path)
        return [run_losses(course.stream, rows, seed, {"chooser": path}) for course in held], ""


def _permuted(held: Sequence[Course], policy: Policy, features: bool, scores: bool) -> list[Floats]:
    """Losses of the policy's weights, the mean over ``REPEATS`` permutations of what is shown."""
    total = [np.zeros(len(course.truth)) for course in held]
    for repeat in range(REPEATS):
        courses = shuffled(held, repeat, features=features, scores=scores)
        for sums, course in zip(total, courses, strict=True):
            sums += CHOOSERS[SOFT](course, policy) / REPEATS
    return total


class Choosing:
    """A job is one way to choose on the held-out streams of one fold; rows are of a stream."""

    def card(self, job: Job) -> Card:
        """What can be said of it."""
        generators = _fold(job)
        values = generators[0] in ("friedman", "linear_switch")
        return Card(
            job.stream, "regression" if values else "classification", job.rows or ROWS, (),
            f"held out: {', '.join(generators)}; regret to the best learner of each segment",
            "regret 0 of one learner for each segment", "Rice 1976, Advances in Computers 15",
            ROWS, best=None,
        )  # fmt: skip

    def check(self, job: Job) -> None:
        """Refuse what cannot be done, before any work.

        Raises:
            UsageError: no such fold, or no such way to choose.
        """
        _fold(job)
        if job.model not in MODELS:
            raise UsageError(f"model {job.model!r}: expected one of {', '.join(MODELS)}")

    def run(self, job: Job, progress: Progress | None = None) -> Outcome:
        """Run the default model over all streams (the first job alone), train, and judge."""
        begun, card = perf_counter(), self.card(job)
        _, held = split(job.stream, card.rows, job.seed)
        losses, note = losses_of(job.model, job.stream, card.rows, job.seed)
        each = {c.stream: regret(c, lost) for c, lost in zip(held, losses, strict=True)}
        judged = [lost[c.at[0] :] for c, lost in zip(held, losses, strict=True)]
        figures = {
            "regret": float(np.mean(list(each.values()))),
            "loss": float(np.mean([lost.mean() for lost in judged])),
            **{f"regret:{stream}": value for stream, value in each.items()},
        }
        rows = sum(len(lost) for lost in judged)
        scores = Measured(figures, rows, higher_is_better=False)
        seconds = perf_counter() - begun
        result = Result(job.model, job.seed, job.chunk, card.task, scores, seconds)
        result.events, result.peak_rss_mb, result.note = rows, peak_rss_mb(), note
        result.rows = array("q", range(rows))
        result.losses = array("d", np.concatenate(judged).tolist())
        if progress is not None:
            progress(rows, scores, 0)
        return Outcome(job, card, result)


def _fold(job: Job) -> tuple[str, ...]:
    if job.stream not in FOLDS:
        raise UsageError(f"stream {job.stream!r}: expected one of {', '.join(FOLDS)}")
    return FOLDS[job.stream]


CHOOSING_TRIAL = Choosing()
