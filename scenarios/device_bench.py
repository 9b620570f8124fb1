"""What adapting many tasks at once costs on each device: ``make bench-gpu``.

Adapts 1, 100 and 10,000 few-shot tasks, takes their meta-gradients in first and second order, and
takes one outer step, on the CPU and on the CUDA device where there is one; holds what the device
gave against what the CPU gave; prints a table and writes ``results/gpu-meta-<device>.json``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from scenarios.bench.provenance import provenance
from scenarios.fewshot.sine import SIZES, sines
from streammeta.meta.gradient_based import GradientLearner
from streammeta.meta.learner import Batch, State
from streammeta.meta.net import Net
from streammeta.registry import load

COUNTS = (1, 100, 10_000)
OUTER_TASKS = 25
STEPS, ROWS = 5, 10
TOLERANCE = 1e-4  # between devices, of the largest number on the CPU
LEAST_SECONDS, LEAST_RUNS = 0.5, 3  # of measuring, after one run that does not count

CONSOLE = Console(width=110)


@dataclass(frozen=True, slots=True)
class Timing:
    """``seconds`` are the median of one call; ``apart`` is how far from the CPU's answer, relative
    to its largest number; ``None`` on the CPU itself."""

    what: str
    tasks: int
    device: str
    seconds: float
    apart: float | None


Call = Callable[[GradientLearner, State, Batch], Tensor]


def adapted(learner: GradientLearner, state: State, batch: Batch) -> Tensor:
    """Fast weights ``(B, P)``."""
    return learner.adapt(state, *batch[:3], 1)[0]


def meta_gradient(learner: GradientLearner, state: State, batch: Batch) -> Tensor:
    """The mean gradient by theta ``(P,)``."""
    with torch.no_grad():
        return learner.slopes(state, batch, 1).by_theta.mean(0)


def updated(learner: GradientLearner, state: State, batch: Batch) -> Tensor:
    """Theta after one outer step ``(P,)``."""
    return learner.meta_update(state, batch, 1)[0].theta


#: What it is called, the learner, its inner steps, what is done, for how many tasks.
WORK: tuple[tuple[str, str, int, Call, tuple[int, ...]], ...] = (
    ("adapt", "maml", STEPS, adapted, COUNTS),
    ("meta-gradient, first order", "fomaml", STEPS, meta_gradient, COUNTS),
    ("meta-gradient, second order", "maml", STEPS, meta_gradient, COUNTS),
    ("outer step of Meta-SGD", "meta_sgd", STEPS, updated, (OUTER_TASKS,)),
    ("outer step of MAML, 1 inner step", "maml", 1, updated, (OUTER_TASKS,)),
)


def measure(devices: tuple[str, ...], counts: tuple[int, ...] = COUNTS) -> list[Timing]:
    """Every piece of work on every device; the CPU comes first, to be compared with."""
    found = []
    for what, name, steps, call, sizes in WORK:
        learner = load("learners", name)(
            Net(SIZES), "regression", inner_lr=0.02, steps=steps, outer_lr=1e-3
        )
        theta = torch.from_numpy(Net(SIZES).init(np.random.default_rng(0)))
        state = learner.init(theta)
        for tasks in sizes if sizes == (OUTER_TASKS,) else counts:
            batch = sines(ROWS, ROWS)(np.random.default_rng(tasks), tasks)
            wanted = call(learner, state, batch)
            for device in devices:
                there = State(*(part.to(device) for part in state))
                carried = Batch(*(part.to(device) for part in batch))
                answer = call(learner, there, carried)
                apart = None
                if device != "cpu":
                    apart = float((answer.cpu() - wanted).abs().max() / wanted.abs().max())
                seconds = _seconds(partial(call, learner, there, carried), device)
                found.append(Timing(what, tasks, device, seconds, apart))
    return found


def _seconds(call: Callable[[], Tensor], device: str) -> float:
    """The median over as many calls as it takes to be sure."""
    took: list[float] = []
    while len(took) < LEAST_RUNS or sum(took) < LEAST_SECONDS:
        begun = perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        took.append(perf_counter() - begun)
    return median(took)


def main(folder: Path = Path("results")) -> int:
    """Measure, print and write; 1 where a device gives other numbers than the CPU."""
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if cuda else "cpu"
    timings = measure(("cpu", "cuda") if cuda else ("cpu",))
    print_table(timings, name)
    told = [asdict(timing) for timing in timings]
    file = folder / f"gpu-meta-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = {"device": name, "timings": told, "provenance": provenance()}
    file.write_text(json.dumps(lines, indent=1) + "\n", encoding="utf-8")
    CONSOLE.print(f"written: {file}")
    if not cuda:
        CONSOLE.print(
            "no CUDA device here: these are the CPU's numbers alone, compared with nothing"
        )
    wrong = [timing for timing in timings if timing.apart is not None and timing.apart > TOLERANCE]
    for timing in wrong:
        CONSOLE.print(f"{timing.what}, {timing.tasks} tasks: {timing.apart:.1e} apart from the CPU")
    return 1 if wrong else 0


def print_table(timings: list[Timing], name: str) -> None:
    """Milliseconds of one call, and microseconds of one task."""
    table = Table(
        title=f"{SIZES} network, {ROWS} rows, {STEPS} inner steps if not told; one thread, {name}"
    )
    for head in ("what", "tasks", "device", "ms", "us per task", "apart from the CPU"):
        table.add_column(head, justify="left" if head in ("what", "device") else "right")
    for at in timings:
        apart = "-" if at.apart is None else f"{at.apart:.1e}"
        table.add_row(
            at.what, f"{at.tasks:,}", at.device, f"{1e3 * at.seconds:.2f}",
            f"{1e6 * at.seconds / at.tasks:.1f}", apart,
        )  # fmt: skip
    CONSOLE.print(table)


if __name__ == "__main__":
    sys.exit(main())
