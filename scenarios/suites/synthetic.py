"""Every kind of drift on generated streams, where the true drifts are known to the row."""

from __future__ import annotations

from scenarios.bench import Suite

ROWS = 5_000  # of each stream
ABOUT = """
Generated streams with exactly known drifts: abrupt, gradual, incremental, recurring, blips and
none; of concepts, of features alone, of label priors; late labels, missing values, new features
and new classes; users who change their minds one by one (learners that know no keys are given the
key as a category). `reset` is `no_challengers` that also restarts every network and weight at each
alarm; `reset@drift` is told the true drifts and restarts there: what perfect detection and no
memory would give. `sgd@best` is the best of seven fixed rates in hindsight.
"""

SUITE = Suite(
    name="synthetic",
    summary="every kind of drift on generated streams with known drift points",
    minutes=28,
    streams=(
        "sea",
        "sea | drift('gradual')",
        "stagger | drift('recurring')",
        "sine | drift('recurring')",
        "mixed | drift('blips')",
        "agrawal | missing(0.1)",
        "led",
        "hyperplane | drift('none')",
        "rotating_plane | drift('incremental')",
        "random_rbf",
        "random_rbf | delay(200)",
        "random_rbf | drift('none') | new_classes()",
        "random_tree | drift('none') | permutation()",
        "random_tree | drift('none') | label_swap()",
        "hyperplane | drift('none') | feature_drift()",
        "hyperplane | drift('none') | prior_drift()",
        "hyperplane | drift('none') | new_features()",
        "random_rbf | drift('none') | vanishing_features()",
        "hyperplane | drift('none') | seasonality()",
        "users",
    ),
    models=(
        "streammeta",
        "no_challengers",
        "reset",
        "reset@drift",
        "frozen@drift",
        "sgd@best",
        "no_change",
        "majority",
        "river.nb",
        "river.logistic",
        "river.hat",
        "river.arf",
    ),
    seeds=(0, 1, 2),
    rows=ROWS,
    quick_rows=600,
    about=ABOUT,
)
