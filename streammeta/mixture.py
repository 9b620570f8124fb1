"""Who is believed: fixed share over discounted log likelihoods.

Weights follow Herbster & Warmuth 1998 (fixed share) with discounted losses, so that evidence
fades; an expert that was asleep when the prediction was made is charged the mixture's own loss
(Freund et al. 1997, specialists). Regression experts are Gaussians with strays, each with a
discounted variance of its own, so one that was sure and wrong again loses within a few events.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from streammeta.experts.kernels import REGRESSION

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Evidence of ``n`` events ago counts DISCOUNT**n: about twenty events are remembered, and by the
#: slow mixture two hundred.
DISCOUNT, SLOW_DISCOUNT = 0.95, 0.995
#: Probability mass that is shared out evenly after every event.
SHARE = 1e-3
#: Part of every expert's probability that is spread over the classes before it is judged.
SMOOTHING = 0.01
#: Discount of an expert's own squared error, and the least variance (standardised units).
VARIANCE_DISCOUNT = 0.95
VARIANCE_FLOOR = 1e-5
#: Variance a newborn expert is trusted with before it has been judged (standardised units).
VARIANCE_AT_BIRTH = 0.3
#: No single event counts against an expert by more than this many nats.
WORST = -12.0
#: Part of all residuals that says nothing of a member.
STRAY = 0.03
#: No squared residual counts as more (standardised units), nor as more than so many variances of a
#: member that has been judged so often: one jump does not blur for tens of events who was right.
STRANGE, MOST_AT_ONCE, GROWN = 100.0, 30.0, 5


@kernel()
def blend(
    log_weights: Floats, live: Flags, predictions: Floats, n_classes: int, task: int, out: Floats
) -> None:
    """``out (n, O)`` <- weighted mean of ``predictions (n, M, O)`` over live members.

    A member whose prediction is not finite is left out of that row.
    """
    top = -np.inf
    for m in range(live.shape[0]):
        if live[m]:
            top = max(top, log_weights[m])
    width = 1 if task == REGRESSION else n_classes
    for r in range(predictions.shape[0]):
        total = 0.0
        out[r, :] = 0.0
        for m in range(live.shape[0]):
            if not live[m]:
                continue
            size = 0.0
            for j in range(width):
                size += abs(predictions[r, m, j])
            if np.isfinite(size):
                w = np.exp(log_weights[m] - top)
                total += w
                for j in range(width):
                    out[r, j] += w * predictions[r, m, j]
        if task != REGRESSION:  # members are of single precision: their sums are not quite 1
            total = 0.0
            for j in range(width):
                total += out[r, j]
        if total > 0.0:
            for j in range(width):
                out[r, j] /= total


@kernel()
def value_score(gap: float, variance: float, age: int) -> tuple[float, float]:
    """Log likelihood of a residual, and the member's variance after it.

    The residual is Gaussian, but ``STRAY`` of them are as wide as the target itself: where a series
    jumps, those that were right until then stay ahead of those that never were (the contaminated
    normal of Tukey 1960, A survey of sampling from contaminated distributions).
    """
    score, bounded = WORST, STRANGE
    if np.isfinite(gap):
        square, wide = gap * gap, 1.0 + variance
        near = (1.0 - STRAY) * np.exp(-0.5 * square / variance) / np.sqrt(variance)
        score = np.log(near + STRAY * np.exp(-0.5 * square / wide) / np.sqrt(wide))
        score, bounded = max(score, WORST), min(square, STRANGE)
    if age >= GROWN:
        bounded = min(bounded, MOST_AT_ONCE * variance)
    part = max(1.0 / (age + 2.0), 1.0 - VARIANCE_DISCOUNT)
    return score, max((1.0 - part) * variance + part * bounded, VARIANCE_FLOOR)


@kernel()
def class_score(prediction: Floats, truth: int, n_classes: int) -> tuple[float, float]:
    """0/1 error of the likeliest class, and the smoothed log likelihood of the true one."""
    best = 0
    for j in range(1, n_classes):
        if prediction[j] > prediction[best]:
            best = j
    p = prediction[truth]
    p = p if np.isfinite(p) and p > 0.0 else 0.0
    score = np.log((1.0 - SMOOTHING) * p + SMOOTHING / n_classes)
    return (0.0 if best == truth else 1.0), score


@kernel()
def share_out(log_weights: Floats, live: Flags) -> None:
    """Normalise the live weights and share a little of their mass evenly (fixed share)."""
    top = -np.inf
    count = 0
    for m in range(live.shape[0]):
        if live[m]:
            top = max(top, log_weights[m])
            count += 1
    total = 0.0
    for m in range(live.shape[0]):
        if live[m]:
            total += np.exp(log_weights[m] - top)
    for m in range(live.shape[0]):
        if live[m]:
            w = np.exp(log_weights[m] - top) / total
            log_weights[m] = np.log((1.0 - SHARE) * w + SHARE / count)


@kernel()
def believe(
    log_weights: Floats, live: Flags, awake: Flags, scores: Floats, discount: float
) -> None:
    """Move the weights ``(M,)`` by the ``scores (M,)`` of those awake; those who sleep are charged
    what the mixture of the others scored."""
    weight_sum, mixed, top = 0.0, 0.0, -np.inf
    for m in range(len(live)):
        if live[m]:
            top = max(top, log_weights[m])
    for m in range(len(live)):
        if live[m] and awake[m]:
            # as they will be after the discount, so that those who sleep neither gain nor lose
            w = np.exp(discount * (log_weights[m] - top))
            weight_sum += w
            mixed += w * np.exp(scores[m])
    asleep = np.log(mixed / weight_sum) if weight_sum > 0.0 and mixed > 0.0 else WORST
    for m in range(len(live)):
        if live[m]:
            gained = scores[m] if awake[m] else asleep
            log_weights[m] = discount * log_weights[m] + gained
    share_out(log_weights, live)


@njit(cache=True, nogil=True, error_model="numpy")
def judge(
    log_weights: Floats,
    slow_weights: Floats,
    variances: Floats,
    ages: NDArray[np.int64],
    live: Flags,
    awake: Flags,
    predictions: Floats,
    truth: float,
    n_classes: int,
    task: int,
    losses: Floats,
) -> None:
    """Score every awake member on one label, move the weights of the quick mixture and of the slow
    one, write ``losses (M,)``.

    ``predictions (M, O)`` are those made when the question was asked. ``losses`` holds 0/1
    errors or absolute errors in standardised units, NaN for members that were not awake. A
    prediction that is not finite scores ``WORST``.
    """
    scores = np.zeros(len(live))
    _score(variances, ages, live, awake, predictions, truth, n_classes, task, losses, scores)
    believe(log_weights, live, awake, scores, DISCOUNT)
    believe(slow_weights, live, awake, scores, SLOW_DISCOUNT)


@kernel()
def _score(
    variances: Floats, ages: NDArray[np.int64], live: Flags, awake: Flags, predictions: Floats,
    truth: float, n_classes: int, task: int, losses: Floats, scores: Floats,
) -> None:  # fmt: skip
    """``losses (M,)`` and ``scores (M,)`` of those awake; their variances and ages move on."""
    for m in range(len(live)):
        losses[m] = np.nan
        if not (live[m] and awake[m]):
            continue
        if task == REGRESSION:
            gap = truth - predictions[m, 0]
            losses[m] = abs(gap)
            scores[m], variances[m] = value_score(gap, variances[m], ages[m])
        else:
            losses[m], scores[m] = class_score(predictions[m], int(truth), n_classes)
        ages[m] += 1


def weights(log_weights: NDArray[np.float64], live: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Normalised weights ``(M,)``; 0 for members that are not live."""
    raw = np.where(live, np.exp(log_weights - log_weights[live].max(initial=-np.inf)), 0.0)
    return raw / max(float(raw.sum()), 1e-300)
