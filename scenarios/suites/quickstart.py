"""The comparison of ``examples/quickstart.toml`` as a suite, and what it must show."""

from __future__ import annotations

from scenarios.bench import Book, Gate, Suite

STREAM = "sensor_fault"
OURS = "streammeta"
OTHERS = ("frozen@drift", "reset", "no_challengers", "no_change")

ABOUT = """
The default model and its variants run with `learner = maml`, as the example sets it; all else are
defaults.
"""


def gates(book: Book) -> list[Gate]:
    """The mean accuracy of the default model above that of every other row."""
    ours = book.mean(OURS, STREAM)
    made = []
    for model in OTHERS:
        other = book.mean(model, STREAM)
        made.append(Gate(f"accuracy {ours:.4f}, above {model}'s {other:.4f}", ours > other))
    return made


SUITE = Suite(
    name="quickstart",
    summary="a camera gets mis-wired twice: the default model against simpler ones",
    minutes=1,
    streams=(STREAM,),
    models=(OURS, *OTHERS),
    seeds=(0, 1, 2),
    quick_rows=4_000,  # the first fault comes before row 3,200
    overrides=(("learner", "maml"),),
    gates=gates,
    about=ABOUT,
)
