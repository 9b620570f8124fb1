"""Small streams and small models for stories about the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest

from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.events import Event, Label, Output, to_record

T = TypeVar("T")
CLASSES, NUMBERS = "classification", "regression"
DRIFT = 120

both_tasks = pytest.mark.parametrize("task", [CLASSES, NUMBERS])


def config(task: str, **changes: Any) -> ModelConfig:
    """The default model, made small: one thin layer, short tasks."""
    small: dict[str, Any] = {
        "hidden": (8,), "support": 8, "query": 8, "memory": 16, "tasks_per_update": 4,
        "inner_steps": 2, "rates": (3e-3, 1e-2),
    }  # fmt: skip
    return ModelConfig.model_validate({"task": task, **small, **changes})


def stream(task: str, n: int = 200, drift: int = DRIFT, seed: int = 0) -> list[Event]:
    """Questions with their answers; at row ``drift`` the world turns round."""
    rng = np.random.default_rng(seed)
    events = []
    for i in range(n):
        a, b = rng.normal(size=2)
        sign = 1.0 if i < drift else -1.0
        score = sign * (a - 0.5 * b)
        y: Label = float(10 * score + (0 if sign > 0 else 50))
        if task == CLASSES:
            y = "up" if score > 0 else "down"
        x = {"a": float(a), "b": float(b), "c": "red" if rng.random() < 0.5 else "blue"}
        events.append(Event(f"e{i}", x, y, ts=float(i)))
    return events


def late(events: Sequence[Event], delay: int) -> list[Event]:
    """The same stream with every label ``delay`` events after its question."""
    told: list[Event] = []
    for i, event in enumerate(events):
        told.append(dataclasses.replace(event, y=None))
        if i >= delay:
            past = events[i - delay]
            told.append(Event(past.id, y=past.y, key=past.key, ts=event.ts))
    return told


def run(engine: Engine, events: Sequence[Event], step: int = 1) -> list[Output]:
    """Observe ``step`` events at a time and replay after each."""
    outputs: list[Output] = []
    for i in range(0, len(events), step):
        outputs += engine.observe(events[i : i + step]) + engine.replay()
    return outputs


def of(kind: type[T], outputs: Iterable[Any]) -> list[T]:
    return [o for o in outputs if isinstance(o, kind)]


def records(outputs: Iterable[Output]) -> list[str]:
    return [repr(to_record(o)) for o in outputs]  # repr: NaN equals itself


def image(engine: Engine) -> bytes:
    return engine.snapshot().to_bytes()
