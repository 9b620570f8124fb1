"""What is answered: a logarithmic pool of all members, whose exponents are learned as it goes.

A mixture believes one member or the other. A pool lets them speak together: where two that see
different things both lean to a class, it is surer than either, and what one always overstates is
taken back. To the members come two fixed-share mixtures of them (``streammeta.mixture``), one that
forgets within tens of events and one that remembers hundreds; with these alone the pool begins, and
a newcomer speaks through them until the pool has learned what to make of it.

Classes: p(c) ~ exp(sum_m v_m (log p_m(c) - mean over classes)), ``v`` by normalised gradient steps
on log loss. Values: f = g + sum_m v_m (p_m - g), where g is the mean of both mixtures, by steps on
Huber's loss. After a change the quick mixture may be ahead: the answer is a mixture of it, the slow
one and the pool, by what each has lost in the last tens of events; of values right after a surprise
also of the last value (``streammeta.surprise``), and of that or the mean where they have been
better for long (``streammeta.guard``).

Source: the logarithmic opinion pool (Genest & Zidek 1986, Statistical Science 1), with weights
learned online as in gated linear mixing of compressors (Mattern 2012, Data Compression
Conference).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from streammeta.boxed import Box
from streammeta.experts.kernels import HUBER, REGRESSION, softmax
from streammeta.guard import SAY, learn_guard, shares
from streammeta.mixture import DISCOUNT, believe, blend, class_score, judge, value_score
from streammeta.surprise import is_surprise, learn_trust, share_of_last

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
I64 = NDArray[np.int64]

#: Rows of all that is said to a question: by the quick mixture and the slow one, which join the
#: members, by the pool; the answer, which is a mixture of these three and, after a surprise, of
#: the last value; what the quick one says without its scouts; what would have been answered
#: without surprise and guard, NaN where there was no surprise; and what without the guard.
QUICK, SLOW, POOLED, ANSWER, STEADY, UNMOVED, UNGUARDED = range(7)
SAID, MIXTURES, VOICES = 7, 2, 3
#: Of a step, in units of an exponent, were there one member; of M it is divided by sqrt(M).
RATE = 0.01
MEMORY = 0.999  # of the mean square of each gradient
SQUARE_AT_BIRTH = 0.1  # what that begins with
LEAST = 1e-3  # a gradient's root mean square counts as, at least
#: No member says less than this of a class; of many classes less, for all share 1.
FLOOR, FLOOR_OF_MANY = 0.01, 0.1
#: Discount of the label counts behind persistence and prior.
COUNT_DISCOUNT = 0.99


class Beliefs(NamedTuple):
    """What is thought of the M members of each key: log weights ``quick`` and ``slow (K, M)`` in
    both mixtures, ``exponents`` and mean squares of their gradients, ``squares (K, M + 2)``, of the
    pool; of the three ``voices (K, 3)`` in the answer; ``variances`` and ``ages`` for the scores of
    members ``(K, M)`` and voices; which are ``live (K, M)``, and since which row, ``births``.
    Whether the newest value was a surprise, ``startled (K,)``, and the log weights ``trust (K, 2)``
    of what all say then and of the last value, with variances and ages ``(K, 2)``. What the guard
    knows: ``guard_losses (K, 3)`` and ``guard_gap (K, 1)``.

    And what the simple members, the last two, count: ``lags (K, L)``, labels newest first;
    ``transitions (K, O, O)`` from label to label, and labels, ``prior (K, O)``, both discounted.
    """

    quick: Floats
    slow: Floats
    exponents: Floats
    squares: Floats
    voices: Floats
    voice_variances: Floats
    voice_ages: I64
    variances: Floats
    ages: I64
    live: Flags
    births: I64
    startled: Flags
    trust: Floats
    trust_variances: Floats
    trust_ages: I64
    guard_losses: Floats
    guard_gap: Floats
    lags: Floats
    transitions: Floats
    prior: Floats


@njit(cache=True, nogil=True)
def boxed_beliefs(table: Beliefs) -> Box:
    """For compiled code."""
    return Box(table)  # type: ignore[no-untyped-call]


def fresh(members: int) -> tuple[Floats, Floats]:
    """Exponents and mean squares ``(members + MIXTURES,)`` of a pool that has not begun."""
    exponents = np.zeros(members + MIXTURES)
    exponents[members:] = 1.0 / MIXTURES
    return exponents, np.full(len(exponents), SQUARE_AT_BIRTH)


@kernel()
def _lean(said: Floats, n_classes: int, out: Floats) -> bool:
    """``out`` <- log probabilities less their mean; whether ``said (O,)`` is finite."""
    floor = min(FLOOR, FLOOR_OF_MANY / n_classes)
    mean = 0.0
    for c in range(n_classes):
        if not np.isfinite(said[c]):
            return False
        out[c] = np.log(max(said[c], floor))
        mean += out[c]
    mean /= n_classes
    for c in range(n_classes):
        out[c] -= mean
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def pool(
    exponents: Floats, live: Flags, members: Floats, shared: Floats, n_classes: int, task: int,
    out: Floats,
) -> None:  # fmt: skip
    """``out (n, O)`` <- the pool of live ``members (n, M, O)`` and of ``shared (n, 2, O)``."""
    lean = np.empty(n_classes)
    for r in range(len(members)):
        if task == REGRESSION:
            out[r, 0] = _value(exponents, live, members[r], shared[r])
        else:
            _pool_classes(exponents, live, members[r], shared[r], n_classes, lean, out[r])


@kernel()
def _pool_classes(
    exponents: Floats, live: Flags, members: Floats, shared: Floats, n_classes: int, lean: Floats,
    out: Floats,
) -> None:  # fmt: skip
    """``out (O,)`` <- the pool of what was said to one row; ``lean (n_classes,)``: to work in."""
    count = len(live)
    out[:] = 0.0
    for m in range(count + MIXTURES):
        if m < count and (not live[m] or exponents[m] == 0.0):
            continue
        said = members[m] if m < count else shared[m - count]
        if _lean(said, n_classes, lean):
            for c in range(n_classes):
                out[c] += exponents[m] * lean[c]
    softmax(out, n_classes)


@kernel()
def _value(exponents: Floats, live: Flags, members: Floats, shared: Floats) -> float:
    count = len(live)
    centre = 0.0
    for m in range(MIXTURES):
        centre += shared[m, 0] / MIXTURES
    value = centre
    for m in range(count + MIXTURES):
        if m < count and not live[m]:
            continue
        said = members[m, 0] if m < count else shared[m - count, 0]
        part = exponents[m] - (0.0 if m < count else 1.0 / MIXTURES)
        if np.isfinite(said):
            value += part * (said - centre)
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def answer(
    quick: Floats, slow: Floats, exponents: Floats, voices: Floats, live: Flags, scouts: int,
    after: int, members: Floats, n_classes: int, task: int, said: Floats,
) -> None:  # fmt: skip
    """``said (n, SAID, O)`` <- what mixtures and pool make of ``members (n, M, O)``, of which
    those from ``scouts`` to ``after`` are scouts; ``voices (3,)``: log weights in the answer."""
    out = np.zeros((len(members), members.shape[2]))
    for row, weights in ((QUICK, quick), (SLOW, slow)):
        blend(weights, live, members, n_classes, task, out)
        said[:, row] = out
    if after > scouts:
        steady = live.copy()
        steady[scouts:after] = False
        blend(quick, steady, members, n_classes, task, out)
        said[:, STEADY] = out
    else:
        said[:, STEADY] = said[:, QUICK]
    pool(exponents, live, members, said[:, :MIXTURES], n_classes, task, out)
    said[:, POOLED] = out
    blend(voices, np.ones(VOICES, np.bool_), said[:, :VOICES], n_classes, task, out)
    said[:, ANSWER] = out


@njit(cache=True, nogil=True, error_model="numpy")
def learn_voices(
    voices: Floats, variances: Floats, ages: I64, said: Floats, truth: float, n_classes: int,
    task: int,
) -> None:  # fmt: skip
    """Move the weights ``(3,)`` of mixtures and pool by what ``said (SAID, O)`` is worth."""
    scores, all_of = np.zeros(VOICES), np.ones(VOICES, np.bool_)
    for v in range(VOICES):
        if task == REGRESSION:
            scores[v], variances[v] = value_score(truth - said[v, 0], variances[v], ages[v])
        else:
            _, scores[v] = class_score(said[v], int(truth), n_classes)
        ages[v] += 1
    believe(voices, all_of, all_of, scores, DISCOUNT)


@njit(cache=True, nogil=True, error_model="numpy")
def learn_pool(
    exponents: Floats, squares: Floats, awake: Flags, members: Floats, shared: Floats,
    truth: float, n_classes: int, task: int,
) -> None:  # fmt: skip
    """A step for the exponents ``(M + 2,)`` of those who were ``awake (M,)``; ``members (M, O)``
    and ``shared (2, O)`` are what was said then."""
    count, rate = len(awake), RATE / np.sqrt(len(awake) + MIXTURES)
    slopes = np.full(count + MIXTURES, np.nan)
    if task == REGRESSION:
        gap = _value(exponents, awake, members, shared) - truth
        gap = min(max(gap, -float(HUBER)), float(HUBER))
        centre = 0.5 * (shared[0, 0] + shared[1, 0])
        for m in range(count + MIXTURES):
            if m >= count or awake[m]:
                said = members[m, 0] if m < count else shared[m - count, 0]
                slopes[m] = gap * (said - centre)
    else:
        _class_slopes(exponents, awake, members, shared, int(truth), n_classes, slopes)
    for m in range(count + MIXTURES):
        if np.isfinite(slopes[m]):
            squares[m] = MEMORY * squares[m] + (1.0 - MEMORY) * slopes[m] * slopes[m]
            exponents[m] -= rate * slopes[m] / (np.sqrt(squares[m]) + LEAST)


@njit(cache=True, nogil=True, error_model="numpy")
def _class_slopes(
    exponents: Floats, awake: Flags, members: Floats, shared: Floats, truth: int, n_classes: int,
    slopes: Floats,
) -> None:  # fmt: skip
    """``slopes (M + 2,)`` <- those of the pool's log loss by its exponents; of whom slept, or said
    nothing usable, they stay NaN."""
    leans, p = np.zeros((len(slopes), n_classes)), np.zeros(n_classes)
    _slopes(exponents, awake, members, shared, truth, leans, p, slopes)


@kernel()
def _slopes(
    exponents: Floats, awake: Flags, members: Floats, shared: Floats, truth: int, leans: Floats,
    p: Floats, slopes: Floats,
) -> None:  # fmt: skip
    """``_class_slopes``; ``leans (M + 2, C)`` and ``p (C,)``, 0, to work in."""
    count, n_classes = len(awake), len(p)
    for m in range(count + MIXTURES):
        if m >= count or awake[m]:
            said = members[m] if m < count else shared[m - count]
            if _lean(said, n_classes, leans[m]):
                slopes[m] = -leans[m, truth]
                for c in range(n_classes):
                    p[c] += exponents[m] * leans[m, c]
    softmax(p, n_classes)
    for m in range(count + MIXTURES):
        for c in range(n_classes):
            slopes[m] += p[c] * leans[m, c]


@njit(cache=True, nogil=True, error_model="numpy")
def answer_members(
    beliefs: Box, world: Box, key: int, leaning: Floats, scouts: int, after: int, members: Floats,
    said: Floats,
) -> None:  # fmt: skip
    """The last two of ``members (n, M, O)`` and ``said (n, SAID, O)`` <- persistence and prior, and
    what is made of all; ``leaning (M,)``: log weights of the quick mixture."""
    b, w = beliefs.of, world.of
    n_classes, first = w.n_classes[0], members.shape[1] - 2
    last = b.lags[key, 0]
    if w.task == REGRESSION:
        if last == last:
            members[:, first, 0] = (last - w.units[key, 0]) / w.units[key, 1]
    else:
        prior = b.prior[key, :n_classes] + 1.0 / n_classes
        prior /= prior.sum()
        members[:, first + 1, :n_classes] = prior
        if last == last:
            prior += b.transitions[key, int(last), :n_classes]
            prior /= prior.sum()
        members[:, first, :n_classes] = prior
    answer(leaning, b.slow[key], b.exponents[key], b.voices[key], b.live[key], scouts, after,
           members, n_classes, w.task, said)  # fmt: skip
    said[:, UNMOVED] = np.nan
    if b.startled[key] and b.live[key, first]:
        said[:, UNMOVED] = said[:, ANSWER]
        share = share_of_last(b.trust[key])
        said[:, ANSWER] = (1.0 - share) * said[:, ANSWER] + share * members[:, first]
    said[:, UNGUARDED] = said[:, ANSWER]
    if w.task == REGRESSION and b.live[key, first] and b.voice_ages[key, 0] >= SAY:
        weights = shares(b.guard_losses[key], b.guard_gap[key, 0])
        for r in range(len(said)):
            three = (said[r, UNGUARDED, 0], members[r, first, 0], members[r, first + 1, 0])
            found, of_all = 0.0, 0.0
            for i, value in enumerate(three):
                if np.isfinite(value):
                    found, of_all = found + weights[i] * value, of_all + weights[i]
            if of_all > 0.0:
                said[r, ANSWER, 0] = found / of_all


@njit(cache=True, nogil=True, error_model="numpy")
def judge_members(
    beliefs: Box, world: Box, key: int, members: Floats, births: I64, said: Floats, truth: float,
    losses: Floats,
) -> None:  # fmt: skip
    """A label has come to what ``members (M, O)``, born at ``births (M,)``, and mixtures and pool
    ``said (SAID, O)``: ``losses (M,)`` as ``mixture.judge`` writes them."""
    b, w = beliefs.of, world.of
    n_classes, live = w.n_classes[0], b.live[key]
    awake = births == b.births[key]
    if awake.any():  # else everything has begun anew since
        if w.task == REGRESSION:
            last = members[len(members) - 2, 0]
            _learn_of_surprise(b, key, last, said, truth)
            three = np.array([said[UNGUARDED, 0], last, members[len(members) - 1, 0]])
            learn_guard(b.guard_losses[key], b.guard_gap[key], three, truth)
        learn_pool(b.exponents[key], b.squares[key], live & awake, members, said[:MIXTURES], truth,
                   n_classes, w.task)  # fmt: skip
        learn_voices(b.voices[key], b.voice_variances[key], b.voice_ages[key], said, truth,
                     n_classes, w.task)  # fmt: skip
    judge(b.quick[key], b.slow[key], b.variances[key], b.ages[key], live, awake, members, truth,
          n_classes, w.task, losses)  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _learn_of_surprise(b: Beliefs, key: int, last: float, said: Floats, truth: float) -> None:
    """Who was right after a surprise, if the question came then and this is the first label since;
    and whether this is one to all but the last value: if not, they have learned of the change."""
    said_by_all = said[UNGUARDED, 0]
    if not np.isnan(said[UNMOVED, 0]):
        said_by_all = said[UNMOVED, 0]
        if b.startled[key]:
            learn_trust(b.trust[key], b.trust_variances[key], b.trust_ages[key], said_by_all,
                        last, truth)  # fmt: skip
    b.startled[key] = is_surprise(truth - said_by_all, b.voice_variances[key], b.voice_ages[key, 0])


@njit(cache=True, nogil=True, error_model="numpy")
def remember(beliefs: Box, key: int, target: float, counts: bool) -> None:
    """A label is the last one now; where it ``counts``, discounted counts of labels, and of what
    follows what, go on with it."""
    b = beliefs.of
    last, label = b.lags[key, 0], int(target)
    if counts:
        b.prior[key] *= COUNT_DISCOUNT
        b.prior[key, label] += 1.0
        if last == last:
            b.transitions[key, int(last)] *= COUNT_DISCOUNT
            b.transitions[key, int(last), label] += 1.0
    for i in range(b.lags.shape[1] - 1, 0, -1):
        b.lags[key, i] = b.lags[key, i - 1]
    b.lags[key, 0] = target
