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
>>> alarms
[Alarm(row=313, onset=299, segment=1, detector='hddm_a', signal='error')]
>>> evaluate([a.row for a in alarms], drifts=[300], rows=len(errors), max_delay=50).delays
(13,)
"""

from drift.calibration import calibrated
from drift.combined import AnyOf, Vote, Warned
from drift.detector import Detector, Status
from drift.evaluation import Report, evaluate, every, never
from drift.registry import DETECTORS, make_detector
from drift.segmenter import (
    TABLE,
    Action,
    Alarm,
    Heard,
    Segmenter,
    State,
    default_detectors,
    transition_table,
)
from drift.signals import SIGNALS, ErrorSignal, RatioSignal, Signal
from drift.stacked import StackedDetectors

__all__ = [
    "DETECTORS",
    "SIGNALS",
    "TABLE",
    "Action",
    "Alarm",
    "AnyOf",
    "Detector",
    "ErrorSignal",
    "Heard",
    "RatioSignal",
    "Report",
    "Segmenter",
    "Signal",
    "StackedDetectors",
    "State",
    "Status",
    "Vote",
    "Warned",
    "calibrated",
    "default_detectors",
    "evaluate",
    "every",
    "make_detector",
    "never",
    "transition_table",
]
