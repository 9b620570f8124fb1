"""What the default bank costs for one event: everything it is shown, and what it makes of it."""

from __future__ import annotations

from time import perf_counter

from scenarios.scenario import scenario
from streammeta import core, watching
from streammeta.config import ModelConfig
from streammeta.engine import Engine
from streammeta.scores import Measured

STREAM = "bank"  # its name
BANKS = {"bank.classes": "mixed", "bank.values": "friedman"}  # and the scenarios they watch
LEARNED, ROWS = 1_000, 20_000  # rows before the clock runs, and while it does


def measure(name: str, rows: int = ROWS, seed: int = 0) -> Measured:
    """Microseconds for each event of what the detectors of a default model add to it: the features
    and the prediction looked at, the losses of the mixture and of the reference taken and voted on.
    """
    stream = scenario(BANKS[name], seed=seed, rows=LEARNED + rows)
    engine = Engine(ModelConfig.model_validate({"task": stream.card.task, "seed": seed}))
    events = list(stream.events())
    engine.observe(events[:LEARNED])
    state = engine.state
    asked = core.ask(state, events[LEARNED:], set(), [])
    shown = [
        (question, event.y, float(state.class_index.get(event.y, 0)))
        for question, event in zip(asked, events[LEARNED:], strict=True)
        if question is not None and event.y is not None
    ]
    look, watch, freeze = watching.look, watching.watch, watching.freeze
    begun = perf_counter()
    for question, label, target in shown:
        look(state, question)
        watch(state, question, label, target)
        freeze(state, question.key)
    seconds = perf_counter() - begun
    return Measured(
        {"us_per_event": 1e6 * seconds / len(shown)}, len(shown), higher_is_better=False
    )
