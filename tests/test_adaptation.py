"""The point of it all, in small: meta-parameters learned online make later recoveries shorter."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from scenarios.concept_mix import ConceptMix
from scenarios.models import build
from scenarios.sine_switch import TASK_ROWS, SineSwitch
from streammeta.events import Adapted, DriftDetected, MetaUpdated, Scored

ROWS, SEEDS = 16_000, (11, 12)


def squared_errors(model: str) -> tuple[NDArray[np.float64], set[type]]:
    """Mean squared error over events 6 to 50 of every task, the mean of the seeds, and the kinds of
    outputs seen."""
    losses, kinds = [], set()
    for seed in SEEDS:
        engine = build(model, task="regression", seed=seed)
        for event in SineSwitch(seed=seed, rows=ROWS).events():
            for output in engine.observe([event]) + engine.replay():
                kinds.add(type(output))
                if isinstance(output, Scored):
                    losses.append(output.loss**2)
    by_task = np.array(losses).reshape(len(SEEDS), -1, TASK_ROWS)
    return by_task[:, :, 5:50].mean((0, 2)), kinds


@pytest.mark.slow
def test_recovery_gets_shorter_and_meta_parameters_are_why() -> None:
    learned, kinds = squared_errors("streammeta")
    assert {DriftDetected, Adapted, MetaUpdated} <= kinds
    random, _ = squared_errors("random_challengers")
    early, late = slice(1, 9), slice(40, None)
    assert learned[late].mean() < 0.5 * learned[early].mean(), "it does not get better at adapting"
    # all the other experts, who need no meta-parameters, recover too
    assert learned[late].mean() < 0.9 * random[late].mean(), "meta-parameters buy nothing"


@pytest.mark.slow
def test_every_drift_is_answered_with_an_adaptation() -> None:
    """Also where the alarm came long after the onset, as gradual drifts have it."""
    engine = build("streammeta", task="classification", seed=3)
    alarms, answered = [], set()
    for event in ConceptMix(seed=3, rows=12_000).events():
        for output in engine.observe([event]) + engine.replay():
            if isinstance(output, DriftDetected):
                alarms.append(output)
            elif isinstance(output, Adapted) and output.trigger == "drift":
                answered.add(output.segment)
                assert output.row == alarms[-1].row
    assert len(alarms) >= 2
    assert max(alarm.row - alarm.onset for alarm in alarms) > 64
    assert answered == {alarm.segment for alarm in alarms}
