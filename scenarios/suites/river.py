"""The classification data sets that come with River, and those in its data folder."""

from __future__ import annotations

from scenarios.bench import Suite
from scenarios.open_stream import unavailable
from scenarios.suites.open_streams import SLOW

ABOUT = """
Phishing, Bananas, ImageSegments and Shuttle come with River; Elec2 and Insects need to be
downloaded once into River's data folder and are left out where they are not.
"""


SUITE = Suite(
    name="river",
    summary="River's own classification data sets",
    minutes=7,
    streams=(
        "river:Phishing",
        "river:Bananas",
        "river:ImageSegments",
        "river:Shuttle",
        "river:Elec2",
        "river:Insects",
    ),
    models=(
        "streammeta",
        "no_change",
        "majority",
        "sgd@best",
        "river.nb",
        "river.logistic",
        "river.hat",
        "river.knn",
        "river.arf",
        "river.srp",
        "river.levbag",
    ),
    seeds=(0,),
    unavailable=unavailable,
    caps=SLOW,
    about=ABOUT,
)
