"""What the default bank costs for one event: everything it is shown, and what it makes of it."""

from __future__ import annotations

from statistics import median
from time import perf_counter

from scenarios.scenario import scenario
from streammeta import core, watching
from streammeta.config import ModelConfig
from streammeta.encode import CLIP
from streammeta.engine import Engine
from streammeta.experts.kernels import REGRESSION, judge_both
from streammeta.scores import Measured

STREAM = "bank"  # its name
BANKS = {"bank.classes": "mixed", "bank.values": "friedman"}  # and the scenarios they watch
LEARNED, ROWS = 1_000, 20_000  # rows before the clock runs, and while it does
PART = 500  # rows that are timed together


def measure(name: str, rows: int = ROWS, seed: int = 0) -> Measured:
    """Microseconds for each event of what the detectors of a default model add to it: the features
    and the prediction looked at, the losses of the mixture and of the reference taken and voted on.
    The median of parts: what else a machine does in between is no cost of the bank.
    """
    stream = scenario(BANKS[name], seed=seed, rows=LEARNED + rows)
    engine = Engine(ModelConfig.model_validate({"task": stream.card.task, "seed": seed}))
    events = list(stream.events())
    engine.observe(events[:LEARNED])
    state = engine.state
    asked = core.ask(state, events[LEARNED:], set(), [])
    shown = [
        (question, float(event.y if state.task == REGRESSION else state.class_index[event.y]))
        for question, event in zip(asked, events[LEARNED:], strict=True)
        if question is not None and event.y is not None
    ]
    look, watch, freeze = watching.look, watching.watch, watching.freeze
    known, age = state.references, int(state.segment_labels[0])
    costs = []
    for start in range(0, len(shown), PART):
        part = shown[start : start + PART]
        begun = perf_counter()
        for question, target in part:
            look(state, question)
            losses = judge_both(
                question.steady, question.centre, question.scale, state.n_classes, known.theta,
                known.sizes, question.raw, known.scaled, known.means, known.spreads, CLIP,
                known.about, target, state.task, known.loss, question.key,
            )  # fmt: skip
            watch(state, question, losses[0], losses[1:])
            freeze(state, question.key, age)
        costs.append(1e6 * (perf_counter() - begun) / len(part))
    return Measured({"us_per_event": median(costs)}, len(shown), higher_is_better=False)
