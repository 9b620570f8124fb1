"""What each part of the default model is worth: default minus the same without it, with sign."""

from __future__ import annotations

from collections.abc import Sequence

from scenarios.bench import (
    Gate,
    Outcome,
    Suite,
    Summary,
    leaderboard,
    main_score,
    mean_score,
    spread,
    unique,
)
from scenarios.open_stream import VARIABLE, available

DEFAULT = "streammeta"
ELEC2 = "open:elec2"
FLOOR = 0.90  # accuracy that the default model must reach on ELEC2


def gains(outcomes: Sequence[Outcome]) -> list[Summary]:
    """The leaderboard of each stream, then the gain over each variant, seed by seed."""
    rows = []
    for stream in unique(o.job.stream for o in outcomes):
        here = [o for o in outcomes if o.job.stream == stream]
        ours = {o.job.seed: main_score(o) for o in here if o.job.model == DEFAULT}
        if not ours:
            continue
        sign = 1.0 if here[0].result.scores.higher_is_better else -1.0
        for model in unique(o.job.model for o in here if o.job.model != DEFAULT):
            gain = [
                sign * (ours[o.job.seed] - main_score(o))
                for o in here
                if o.job.model == model and o.job.seed in ours
            ]
            text = spread(gain)
            signed = text if text.startswith("-") else f"+{text}"
            rows.append([stream, model, here[0].result.scores.main, signed])
    title = f"{DEFAULT} minus the variant (positive: the default is better)"
    return [
        *leaderboard(outcomes),
        Summary(title, ["stream", "variant", "score", "gain"], rows),
    ]


def gates(outcomes: Sequence[Outcome]) -> list[Gate]:
    """The accuracy on elec2, where its file is there."""
    if _missing(ELEC2):
        return []
    value = mean_score(outcomes, DEFAULT, ELEC2)
    return [Gate(f"{ELEC2}: accuracy {value:.4f}, at least {FLOOR:.2f}", value >= FLOOR)]


def _missing(stream: str) -> str:
    return "" if available(stream) else f"{VARIABLE} has no file for it"


SUITE = Suite(
    name="ablation",
    summary="the default model minus the same model with one part taken away",
    minutes=60,
    streams=(ELEC2, "open:sine1", "sine_switch"),
    models=(
        DEFAULT,
        "no_drift",
        "no_challengers",
        "no_replay",
        "random_challengers",
        "reset",
        "no_change",
    ),
    seeds=(0,),
    summarise=gains,
    unavailable=_missing,
    gates=gates,
)
