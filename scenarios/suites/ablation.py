"""What each part of the default model is worth: default minus the same without it, with sign."""

from __future__ import annotations

from scenarios.bench import Book, Gate, Suite, Summary, leaderboard
from scenarios.bench.tables import signed
from scenarios.open_stream import unavailable
from streammeta.config import CORRECTIONS, EXPERTS

DEFAULT = "streammeta"
ELEC2 = "open:elec2"
FLOOR = 0.90  # accuracy that the default model must reach on ELEC2
ROWS = 20_000  # of each stream, or as many as it has
#: Streams whose labels are values; of the others classes.
VALUES = ("friedman", "sine_switch", "open:etth1", "river:WaterFlow")
#: Each as the only source of challengers and scouts; ``streammeta`` has the first and ``r2d2``.
LEARNERS = (
    "meta_sgd", "maml", "fomaml", "anil", "reptile", "fine_tuning", "cavia", "cavia_film", "r2d2",
    "alpaca", "pcoc", "prototypical", "matching", "matching_context", "in_context", "meta_lstm",
    "learned_optimiser",
)  # fmt: skip
FOR_VALUES = ("learner@alpaca", *(f"without@{name}" for name in CORRECTIONS))
FOR_CLASSES = ("learner@pcoc", "learner@prototypical")
#: Families that are not in the default model, for they have not earned it.
MORE = ("moca",)
ABOUT = """
Positive gains: the default is better than the variant. `learner@NAME` has that meta-learner as the
only source of challengers and scouts, learned online, where the default has `meta_sgd` and `r2d2`;
`with@NAME` has one more family of experts than the default; `without@surprise` and `without@guard`
are for streams of values; `lags_always` reads labels that have arrived whether they tell anything
or not; with `no_doubt` no network allows for classes that were given wrongly. What a policy that is
told of each drift adds (`model.chooser`) is in the suite `choosing`.
"""


def leaves_out(stream: str, model: str) -> bool:
    """What is for values alone does not run where labels are classes, nor the other way round."""
    return model in (FOR_CLASSES if stream in VALUES else FOR_VALUES)


def gains(book: Book) -> list[Summary]:
    """The leaderboard of each stream, then the gain over each variant."""
    rows = []
    for stream in book.streams:
        for model in book.models:
            pair = book.pair(model, stream)
            if pair is not None:
                bounds = f"[{signed(pair.low)}, {signed(pair.high)}]"
                main = book.of(stream=stream)[0].main
                rows.append([stream, model, main, signed(pair.difference), bounds, pair.verdict])
    title = f"{DEFAULT} minus the variant (positive: the default is better)"
    note = (
        "means over the same rows and seeds, with the 95 % interval by moving-block bootstrap over "
        "the rows of every seed"
    )
    head = ["stream", "variant", "score", "gain", "95 % interval", "the default"]
    return [*leaderboard(book), Summary(title, head, rows, note)]


def gates(book: Book) -> list[Gate]:
    """The accuracy on elec2, where its file is there."""
    if ELEC2 not in book.streams:
        return []
    value = book.mean(DEFAULT, ELEC2)
    return [Gate(f"{ELEC2}: accuracy {value:.4f}, at least {FLOOR:.2f}", value >= FLOOR)]


SUITE = Suite(
    name="ablation",
    summary="the default minus itself with one part taken away, exchanged or added",
    minutes=170,
    streams=(
        ELEC2,
        "open:weather",
        "open:circles",
        "open:sine1",
        "random_tree",
        "random_rbf",
        "agrawal",
        "friedman",
        "sine_switch",
        "open:etth1",
        "river:WaterFlow",
    ),
    models=(
        DEFAULT,
        *(f"without@{name}" for name in EXPERTS + CORRECTIONS),
        "no_drift",
        "no_challengers",
        "no_replay",
        "lags_always",
        "no_doubt",
        "random_challengers",
        *(f"learner@{name}" for name in LEARNERS),
        *(f"with@{name}" for name in MORE),
        "reset",
        "no_change",
    ),
    seeds=(0,),
    rows=ROWS,
    summarise=gains,
    unavailable=unavailable,
    gates=gates,
    about=ABOUT,
    leaves_out=leaves_out,
)
