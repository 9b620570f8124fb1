"""Which learners answer what, by name."""

from __future__ import annotations

from streammeta.meta import learner
from streammeta.meta.loss import Task
from streammeta.registry import components, load

#: Learned update rules take many times the time of plain steps; suites of their own show them.
RULES = {"meta_lstm", "learned_optimiser"}


def tasks_of(name: str) -> tuple[Task, ...]:
    """What the learner called ``name`` can be made for."""
    return learner.tasks_of(load("learners", name))


#: Every learner with everything that it does.
PAIRS = [(name, task) for name in components("learners") for task in tasks_of(name)]
#: Those that can predict values, and those that cannot.
REGRESSORS = [name for name in components("learners") if "regression" in tasks_of(name)]
CLASSES_ONLY = set(components("learners")) - set(REGRESSORS)
