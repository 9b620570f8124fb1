"""Families by name."""

from __future__ import annotations

from river.base import Estimator

from streammeta.errors import UsageError
from streammeta.experts.family import Family, Space
from streammeta.experts.river_expert import RiverExpert
from streammeta.registry import load


def make_family(name: str, space: Space) -> Family:
    """The family called ``name``: a row of the registry, a user's own by ``module:Class``, or a
    River estimator, also by its class.

    Raises:
        UsageError: no such family, or it lacks something that ``Family`` has.
        ConfigError: the estimator is not one for the task, or cannot be made without arguments.
    """
    found = load("families", name)
    if isinstance(found, type) and issubclass(found, Estimator):
        return RiverExpert(found, space)
    made: Family = found(space)
    lacks = [part for part in vars(Family) if part[0] != "_" and not hasattr(made, part)]
    if lacks:
        raise UsageError(f"family {name!r}: {type(made).__name__} lacks {', '.join(lacks)}")
    return made
