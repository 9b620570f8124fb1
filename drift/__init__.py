"""WHEN did the stream change: drift detectors, segments, and how to judge them.

Needs River and numba; neither torch nor streammeta.

A detector over a list of errors (1 = wrong):

>>> from drift import Status, make_detector
>>> errors = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1] * 30 + [1, 0, 1, 1, 0] * 30
>>> detector = make_detector("hddm_a")
>>> [row for row, error in enumerate(errors) if detector.update(error) is Status.DRIFT]
[313]

The same as segments, by several detectors at once, and how good that was:

>>> from drift import Segmenter, default_detectors, evaluate
>>> segmenter = Segmenter(default_detectors("classification"), "error")
>>> alarms = [alarm for row, error in enumerate(errors) if (alarm := segmenter.update(row, error))]
>>> [(alarm.row, alarm.onset, alarm.signal) for alarm in alarms]
[(313, 299, 'error')]
>>> evaluate([a.row for a in alarms], drifts=[300], rows=len(errors), max_delay=50).delays
(13,)
"""

from drift.bank import EXPECTED, Evidence, VotingBank
from drift.calibration import calibrated
from drift.combined import AnyOf, Vote, Warned
from drift.detector import Detector, Status
from drift.distribution import DistributionWatch
from drift.evaluation import Report, evaluate, every, never
from drift.explanation import Explanation, Moved, features_that_moved, width_of_change
from drift.registry import DETECTORS, make_detector
from drift.segmenter import (
    KNOWN,
    TABLE,
    Action,
    Alarm,
    Heard,
    Segmenter,
    State,
    default_detectors,
    transition_table,
)
from drift.signals import (
    SIGNALS,
    BrierSignal,
    ErrorSignal,
    RatioSignal,
    ResidualSignal,
    Signal,
    half_brier,
)
from drift.stacked import StackedDetectors
from drift.watch import Watch

__all__ = [
    "DETECTORS",
    "EXPECTED",
    "KNOWN",
    "SIGNALS",
    "TABLE",
    "Action",
    "Alarm",
    "AnyOf",
    "BrierSignal",
    "Detector",
    "DistributionWatch",
    "ErrorSignal",
    "Evidence",
    "Explanation",
    "Heard",
    "Moved",
    "RatioSignal",
    "Report",
    "ResidualSignal",
    "Segmenter",
    "Signal",
    "StackedDetectors",
    "State",
    "Status",
    "Vote",
    "VotingBank",
    "Warned",
    "Watch",
    "calibrated",
    "default_detectors",
    "evaluate",
    "every",
    "features_that_moved",
    "half_brier",
    "make_detector",
    "never",
    "transition_table",
    "width_of_change",
]
