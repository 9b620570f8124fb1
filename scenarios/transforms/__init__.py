"""Transforms: each makes another scenario of one, and they compose with ``|`` in any order.

Those of concepts work inside a generator and come first; all others look at events only, so they
change keyed streams and streams with late labels as well. Rows in which the joint distribution of
features and labels changes are drifts of the card, whether or not a model has to relearn.
"""

from scenarios.transforms.concepts import with_drift, with_new_classes, with_prior_drift
from scenarios.transforms.features import (
    with_feature_drift,
    with_missing,
    with_new_features,
    with_permutation,
    with_vanishing_features,
)
from scenarios.transforms.labels import with_delay, with_label_noise, with_label_swap
from scenarios.transforms.time import with_bursts, with_seasonality

__all__ = [
    "with_bursts",
    "with_delay",
    "with_drift",
    "with_feature_drift",
    "with_label_noise",
    "with_label_swap",
    "with_missing",
    "with_new_classes",
    "with_new_features",
    "with_permutation",
    "with_prior_drift",
    "with_seasonality",
    "with_vanishing_features",
]
