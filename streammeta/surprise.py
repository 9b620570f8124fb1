"""After a surprise: is it still what all say, or the last value?

A series that jumps to another level and stays there is best told by its last value until the
members have learned of it; one with single strays is told by that worst of all. Which of both a key
does is learned from what came after its surprises, and from nothing else: in between it is neither
used nor forgotten (a specialist, Freund et al. 1997, Using and combining predictors that
specialize, STOC).

A surprise is a residual that lies far out. (In benches it is also a loss above what is usual.)
All numbers here are in standardised units of the target.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from streammeta.mixture import GROWN, SLOW_DISCOUNT, believe, value_score

Floats = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Squared residuals beyond so many variances are a surprise: three standard deviations.
SURPRISE = 9.0
#: The two that are weighed: what all say, and the last value.
SIDES = 2


@njit(cache=True, nogil=True, error_model="numpy")
def is_surprise(gap: float, variances: Floats, age: int) -> bool:
    """Whether the residual ``gap`` is beyond what the least of ``variances (V,)`` makes likely;
    never before those have been judged ``GROWN`` times, of which ``age`` counts. NaN is one."""
    return age >= GROWN and not gap * gap <= SURPRISE * variances.min()


@kernel()
def share_of_last(trust: Floats) -> float:
    """Of the last value in what is answered after a surprise, by the log weights ``(2,)`` of what
    all others say and of that; a half where nothing is known."""
    share: float = 1.0 / (1.0 + np.exp(trust[0] - trust[1]))
    return share


@njit(cache=True, nogil=True, error_model="numpy")
def learn_trust(
    trust: Floats, variances: Floats, ages: I64, said: float, last: float, truth: float
) -> None:
    """Move the log weights ``trust (2,)`` of what all others ``said`` and of the ``last`` value by
    what both were worth after a surprise; ``variances`` and ``ages (2,)`` are for their scores."""
    scores, both = np.zeros(SIDES), np.ones(SIDES, np.bool_)
    for side, value in enumerate((said, last)):
        scores[side], variances[side] = value_score(truth - value, variances[side], ages[side])
        ages[side] += 1
    believe(trust, both, both, scores, SLOW_DISCOUNT)
