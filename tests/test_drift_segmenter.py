"""A stream becomes segments: by a table, one alarm per change, resumable at any row."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift import (
    TABLE,
    Action,
    Alarm,
    Heard,
    Segmenter,
    State,
    Status,
    default_detectors,
    transition_table,
)
from drift.detector import Input

STABLE, WARNING, DRIFT = Status.STABLE, Status.WARNING, Status.DRIFT


class Scripted:
    """Says what it was told to say, row by row; then stable."""

    input: Input = "real"
    has_warning = True

    def __init__(self, script: dict[int, Status], name: str = "scripted") -> None:
        self.script, self.name, self.row, self.resets = script, name, -1, 0

    def update(self, value: float) -> Status:
        self.row += 1
        return self.script.get(self.row, STABLE)

    def reset(self) -> None:
        self.resets += 1


def run(segmenter: Segmenter, values: list[float], first: int = 0) -> list[Alarm]:
    found = (segmenter.update(row, v) for row, v in enumerate(values, start=first))
    return [alarm for alarm in found if alarm is not None]


def stream(seed: int, task: str) -> list[float]:
    """Some segments of errors or residuals, each worse or better than the last."""
    rng = random.Random(seed)
    values: list[float] = []
    for _ in range(3):
        level = rng.choice([0.05, 0.3, 0.8]) if task == "classification" else rng.choice([1, 9, 80])
        for _ in range(rng.randint(40, 150)):
            wrong = float(rng.random() < level)
            values.append(wrong if task == "classification" else rng.gauss(0, level))
    return values


def test_the_table_has_a_row_for_every_state_and_input() -> None:
    assert set(TABLE) == {(state, heard) for state in State for heard in Heard}
    opening = {key for key, (_, action) in TABLE.items() if action is Action.OPEN_SEGMENT}
    assert opening == {(State.STABLE, Heard.DRIFT), (State.WARNING, Heard.DRIFT)}
    assert all(TABLE[key][0] is State.WARMUP for key in opening)
    assert len(transition_table().splitlines()) == 2 + len(State)


def test_a_segment_is_left_alone_until_it_is_warm() -> None:
    early = Scripted({3: DRIFT, 8: DRIFT, 9: DRIFT})
    assert [a.row for a in run(Segmenter([early], "error", min_rows=10), [0.0] * 40)] == [9]
    assert early.resets == 1


def test_the_onset_is_where_the_warning_began() -> None:
    warned = Scripted({20: WARNING, 21: WARNING, 22: WARNING, 23: DRIFT})
    assert run(Segmenter([warned], "error"), [0.0] * 40) == [
        Alarm(row=23, onset=20, segment=1, detector="scripted", signal="error")
    ]


def test_a_warning_that_passes_is_forgotten() -> None:
    wavering = Scripted({20: WARNING, 21: STABLE, 30: DRIFT})
    segmenter = Segmenter([wavering], "error")
    warned = []
    for row in range(40):
        alarm = segmenter.update(row, 0.0)
        if segmenter.in_warning:
            warned.append(row)
        assert alarm is None or alarm.onset == alarm.row == 30
    assert warned == [20]
    assert segmenter.segment == 1


def test_the_first_in_order_that_fires_names_the_alarm_and_all_start_over() -> None:
    first = Scripted({30: DRIFT}, "first")
    second = Scripted({25: WARNING, 30: DRIFT}, "second")
    quiet = Scripted({}, "quiet")
    segmenter = Segmenter([quiet, first, second], "error")
    assert [a.detector for a in run(segmenter, [0.0] * 40)] == ["first"]
    assert [d.resets for d in (quiet, first, second)] == [1, 1, 1]
    assert (segmenter.segment, segmenter.start) == (1, 30)


def test_the_onset_is_near_the_true_change_of_a_classifier() -> None:
    misses, false_alarms = [], 0
    for seed in range(20):
        rng = random.Random(seed)
        values = [float(rng.random() < (0.1 if row < 800 else 0.6)) for row in range(900)]
        alarms = run(Segmenter(default_detectors("classification"), "error"), values)
        false_alarms += sum(a.row < 800 for a in alarms)
        (alarm,) = [a for a in alarms if a.row >= 800]
        assert alarm.row < 860
        misses.append(abs(alarm.onset - 800))
    assert sorted(misses)[10] <= 5
    assert false_alarms <= 1


def test_a_regressor_that_fails_is_noticed_within_rows() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        values = [rng.gauss(0, 0.01 if row < 100 else 0.5) for row in range(130)]
        (alarm,) = run(Segmenter(default_detectors("regression"), "ratio"), values)
        assert 100 <= alarm.row <= 110
        assert 90 <= alarm.onset <= alarm.row
        assert alarm.signal == "ratio"


def test_without_detectors_a_stream_is_one_segment() -> None:
    segmenter = Segmenter((), "error")
    assert run(segmenter, [1.0, 0.0] * 50) == []
    assert segmenter.segment == 0


@pytest.mark.parametrize("task", ["classification", "regression"])
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 200))
@settings(max_examples=25, deadline=None)
def test_a_restored_segmenter_goes_on_as_if_nothing_had_happened(
    task: str, seed: int, cut: int
) -> None:
    signal = "error" if task == "classification" else "ratio"
    values = stream(seed, task)
    whole = Segmenter(default_detectors(task), signal)
    expected = run(whole, values)

    before = Segmenter(default_detectors(task), signal)
    alarms = run(before, values[:cut])
    after = Segmenter(default_detectors(task), signal)
    after.load(before.state())
    assert after.state() == before.state()
    alarms += run(after, values[cut:], first=cut)
    assert alarms == expected
    assert after.state() == whole.state()
    assert len(after.state()) < 13_000


@pytest.mark.parametrize("task", ["classification", "regression"])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_segments_are_counted_and_their_onsets_never_go_back(task: str, seed: int) -> None:
    values = stream(seed, task)
    segmenter = Segmenter(default_detectors(task), "error" if task[0] == "c" else "ratio")
    alarms = run(segmenter, values)
    assert [a.segment for a in alarms] == list(range(1, len(alarms) + 1))
    onsets = [a.onset for a in alarms]
    assert onsets == sorted(onsets)
    assert all(a.row - 500 < a.onset <= a.row for a in alarms)
    assert segmenter.start == (onsets[-1] if onsets else 0)


@pytest.mark.parametrize(
    "name", ["adwin", "page_hinkley", "kswin", "ddm", "eddm", "fhddm", "hddm_a", "hddm_w"]
)
def test_the_state_of_every_detector_survives(name: str) -> None:
    rng = random.Random(7)
    values = [float(rng.random() < (0.1 if row < 200 else 0.7)) for row in range(300)]
    whole, before, after = (Segmenter((name,), "error", seed=5) for _ in range(3))
    expected = run(whole, values)
    assert expected
    alarms = run(before, values[:190])
    after.load(before.state())
    assert alarms + run(after, values[190:], first=190) == expected
    assert after.state() == whole.state()


def test_a_state_of_other_detectors_is_refused() -> None:
    state = Segmenter(("adwin",), "error").state()
    with pytest.raises(ValueError, match=r"\('adwin',\) on 'error'; expected \('ddm',\)"):
        Segmenter(("ddm",), "error").load(state)


def test_what_cannot_work_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="'hdm_a'; did you mean 'hddm_a'"):
        Segmenter(("hdm_a",), "error")
    with pytest.raises(ValueError, match="'eror'; did you mean 'error'"):
        Segmenter((), "eror")
    with pytest.raises(ValueError, match="'ddm' reads 0/1 errors, the signal is 'ratio'"):
        Segmenter(("ddm",), "ratio")
    with pytest.raises(ValueError, match="min_rows is 0"):
        Segmenter((), "error", min_rows=0)
    with pytest.raises(ValueError, match="task is 'ranking'"):
        default_detectors("ranking")


def test_a_state_of_another_river_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Segmenter(("adwin",), "error").state()
    monkeypatch.setattr("drift.segmenter.version", lambda name: "0.0.1")
    with pytest.raises(ValueError, match=r"installed is 0\.0\.1"):
        Segmenter(("adwin",), "error").load(kept)
