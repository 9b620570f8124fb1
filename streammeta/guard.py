"""A guard: where repeating the last value, or saying the mean, is better for long, it is answered.

Members are weighed by how likely they make the labels, and a squared residual counts more there
than it does in the mean absolute error that people look at: of a random walk no model is better
than the last value, and what is learned of it is noise. So of values AdaHedge has the last word,
over what the model says, the last value and the mean, on absolute errors that are discounted. Its
rate falls with the mixability gap, so with what hedging has cost. A new segment leaves little of
past errors: whoever is best in it is sooner believed.

Source: de Rooij, van Erven, Grünwald & Koolen 2014, Follow the leader if you can, hedge if you
must, JMLR 15, section 2; the discount and the bounds are ours.

All numbers here are in standardised units of the target.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit

Floats = NDArray[np.float64]

#: What is weighed: the model, the last value, the mean.
GUARDED = 3
#: The share with which each of the last two begins; from so many labels on they have a say, for
#: before that those who are far behind would still cost something.
SHARE, SAY = 0.1, 64
#: Of past errors with every label; the gap goes back to ``FIRST_GAP``, with which it begins.
DISCOUNT, FIRST_GAP = 0.999, 0.1
#: The greatest error that counts: one label may be no measurement at all.
GREATEST = 10.0
#: What is left of past errors when a segment begins.
LEFT = 0.1


@njit(cache=True, nogil=True, error_model="numpy")
def shares(losses: Floats, gap: float) -> Floats:
    """Of each in the answer ``(3,)``, by discounted absolute errors ``losses (3,)`` and ``gap``."""
    least, rate = losses.min(), np.log(GUARDED) / gap
    found = np.empty(GUARDED)
    for i in range(GUARDED):
        found[i] = (SHARE if i else 1.0 - 2.0 * SHARE) * np.exp(-rate * (losses[i] - least))
    found /= found.sum()
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def learn_guard(losses: Floats, gap: Floats, said: Floats, truth: float) -> None:
    """``losses (3,)`` and ``gap (1,)`` <- after a label ``truth`` to what all three ``said (3,)``;
    nothing is learned where one of them said no number."""
    errors = np.abs(said - truth)
    if not np.isfinite(errors).all():
        return
    errors = np.minimum(errors, GREATEST)
    weights, rate = shares(losses, gap[0]), np.log(GUARDED) / gap[0]
    least, mean, mixed = errors.min(), 0.0, 0.0
    for i in range(GUARDED):
        mean += weights[i] * errors[i]
        mixed += weights[i] * np.exp(-rate * (errors[i] - least))
        losses[i] = DISCOUNT * losses[i] + errors[i]
    lost = mean - least + np.log(max(mixed, 1e-300)) / rate
    gap[0] = DISCOUNT * gap[0] + (1.0 - DISCOUNT) * FIRST_GAP + max(lost, 0.0)
