"""The whole loop, told as stories: nothing from the future, nothing lost, nothing that stops it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from engine_stories import (
    CLASSES,
    NUMBERS,
    both_tasks,
    config,
    image,
    late,
    of,
    records,
    run,
    stream,
)

from streammeta.challengers import GROWTH
from streammeta.config import ModelConfig
from streammeta.core import HELD_BACK, SET_BACK
from streammeta.engine import Engine
from streammeta.errors import ConfigError, StoreError
from streammeta.events import (
    Adapted,
    DriftDetected,
    Event,
    Label,
    LabelExpired,
    MetaUpdated,
    Output,
    Predicted,
    Rejected,
    Scored,
    TaskClosed,
)
from streammeta.snapshot import Snapshot

# -- the main story ----------------------------------------------------------------------------


@both_tasks
def test_it_predicts_notices_adapts_and_recovers(task: str) -> None:
    engine = Engine(config(task))
    outputs = run(engine, stream(task, 320, drift=200))
    predicted, scored = of(Predicted, outputs), of(Scored, outputs)
    assert [p.row for p in predicted] == list(range(320))
    assert [s.id for s in scored] == [p.id for p in predicted]
    for question, score in zip(predicted, scored, strict=True):
        assert outputs.index(question) < outputs.index(score)
        assert score.prediction == question.prediction
        assert score.delay == 0
    (drift,) = of(DriftDetected, outputs)
    assert 200 <= drift.row < 260
    assert drift.segment == 1
    after = [a for a in of(Adapted, outputs) if a.segment == 1]
    assert [a.trigger for a in after[:2]] == ["drift", "drift"]  # the learner's and the partner's
    assert after[0].expert != after[1].expert
    assert {a.trigger for a in after[2:]} == {"growth"}
    assert all(a.support <= a.row - drift.onset + 1 for a in after)
    assert np.mean([a.loss_after < a.loss_before for a in after]) > 0.9
    assert of(MetaUpdated, outputs)
    losses = [s.loss for s in scored]
    if task == CLASSES:
        assert np.mean(losses[150:200]) < 0.25
        assert np.mean(losses[-50:]) < 0.25
    else:
        assert np.mean(losses[-50:]) < 0.25 * np.mean(losses[200:206])


@both_tasks
def test_probabilities_are_a_distribution_over_the_classes_seen(task: str) -> None:
    engine, seen = Engine(config(task)), set[Label]()
    for event in stream(task, 40):
        for output in engine.observe([event]):
            if isinstance(output, Predicted) and task == CLASSES:
                assert output.probabilities is not None
                assert set(output.probabilities) == seen
                if seen:
                    assert sum(output.probabilities.values()) == pytest.approx(1.0, abs=1e-9)
                    best = max(output.probabilities, key=lambda c: output.probabilities[c])
                    assert output.prediction == best
                else:
                    assert output.prediction is None
            elif isinstance(output, Predicted):
                assert output.probabilities is None
                assert isinstance(output.prediction, float)
        assert event.y is not None
        seen.add(event.y)


# -- nothing from the future -------------------------------------------------------------------


@both_tasks
@pytest.mark.parametrize(("chunk", "delay"), [(1, 0), (16, 0), (1, 7), (16, 7)])
def test_shuffling_the_future_changes_no_past_prediction(task: str, chunk: int, delay: int) -> None:
    events = stream(task, 320, drift=160)
    if delay:
        events = late(events, delay)
    cut = 288 if delay == 0 else 576  # behind the drift, at the end of a chunk
    rng = np.random.default_rng(5)
    futures = [events[cut:], [events[cut + int(i)] for i in rng.permutation(len(events) - cut)]]
    futures.append([dataclasses.replace(e, y="up" if task == CLASSES else 1e6) for e in futures[0]])
    pasts = []
    for future in futures:
        outputs = run(Engine(config(task, chunk=chunk)), [*events[:cut], *future], chunk)
        asked = [p for p in of(Predicted, outputs) if p.id in {e.id for e in events[:cut]}]
        pasts.append(records(asked[: sum(e.x is not None for e in events[:cut])]))
        assert any(d.row < 288 for d in of(DriftDetected, outputs))
    assert pasts[0] == pasts[1] == pasts[2]


@both_tasks
def test_a_question_is_answered_before_its_own_label_is_looked_at(task: str) -> None:
    events = stream(task, 60)
    engine, twin = Engine(config(task)), Engine(config(task))
    run(engine, events[:59])
    run(twin, events[:59])
    lie = dataclasses.replace(events[59], y="something else" if task == CLASSES else -1e5)
    honest = of(Predicted, engine.observe(events[59:]))
    assert records(honest) == records(of(Predicted, twin.observe([lie])))


@both_tasks
def test_prediction_is_pure(task: str) -> None:
    engine = Engine(config(task))
    assert engine.predict({"a": 1.0}) is None
    run(engine, stream(task, 50))
    before = image(engine)
    first = engine.predict({"a": 1.0, "b": 0.5, "c": "red"})
    engine.predict({"a": None, "never seen": 3.0, "c": "green"})
    engine.predict({}, key="a stranger")
    assert engine.predict({"a": 1.0, "b": 0.5, "c": "red"}) == first
    assert image(engine) == before


@both_tasks
def test_predict_says_what_observe_would_say(task: str) -> None:
    engine = Engine(config(task))
    events = stream(task, 80)
    for event in events:
        assert event.x is not None
        foreseen = engine.predict(event.x)
        said = of(Predicted, run(engine, [event]))[0].prediction
        if event is not events[0]:
            assert foreseen == said


# -- chunks ------------------------------------------------------------------------------------


@both_tasks
def test_how_the_stream_is_cut_into_calls_does_not_matter(task: str) -> None:
    events = late(stream(task, 96), 3)
    whole, cut = Engine(config(task, chunk=4)), Engine(config(task, chunk=4))
    together, apart = [], []
    for i in range(0, len(events), 24):  # replay in the same places
        together += whole.observe(events[i : i + 24])
        for j in range(i, min(i + 24, len(events)), 4):
            apart += cut.observe(events[j : j + 4])
        assert records(whole.replay()) == records(cut.replay())
    assert records(together) == records(apart)
    assert image(whole) == image(cut)


@both_tasks
def test_all_questions_of_a_chunk_see_the_same_model(task: str) -> None:
    engine = Engine(config(task, chunk=8))
    run(engine, stream(task, 40), 8)
    x = {"a": 0.3, "b": -0.2, "c": "red"}
    labels: list[Label] = ["up", "down"] if task == CLASSES else [100.0, -100.0]
    chunk = [Event(f"same{i}", x, labels[i % 2]) for i in range(8)]
    said = [p.prediction for p in of(Predicted, engine.observe(chunk))]
    assert len(set(said)) == 1
    again = [dataclasses.replace(e, id=f"again{i}") for i, e in enumerate(chunk)]
    assert len(of(Scored, run(engine, again, 8))) == 8


# -- stop and go on ----------------------------------------------------------------------------


def two_keys(task: str, n: int, seed: int = 3) -> list[Event]:
    """Two keyed streams interleaved, labels late and out of order, classes still appearing."""
    rng = np.random.default_rng(seed)
    a, b = stream(task, n, seed=1), stream(task, n, drift=n // 2, seed=2)
    events: list[Event] = []
    waiting: list[Event] = []
    for i in range(n):
        for key, event in (("north", a[i]), ("south", b[i])):
            y = event.y
            if task == CLASSES and i > 60 and rng.random() < 0.3:
                y = f"class-{rng.integers(0, 2 + i // 12)}"
            name = f"{key}:{i}"
            events.append(Event(name, event.x, key=key, ts=float(i)))
            waiting.append(Event(name, y=y, key=key, ts=float(i)))
        while len(waiting) > 9:
            events.append(waiting.pop(int(rng.integers(0, len(waiting)))))
    return events


@both_tasks
def test_to_ask_about_one_key_changes_nothing_though_others_have_moved_on(task: str) -> None:
    """Young keys lean on what all have in common, which is another thing after each label."""
    engine, asked = Engine(config(task)), Engine(config(task))
    for event in two_keys(task, 60):
        assert asked.observe([event]) == engine.observe([event])
        for key in ("north", "south"):
            asked.predict({"a": 1.0, "b": -1.0}, key=key)
    assert image(asked) == image(engine)


@both_tasks
@pytest.mark.parametrize(("chunk", "seed"), [(1, 0), (1, 1), (8, 2)])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_by_bit(
    task: str, chunk: int, seed: int
) -> None:
    settings = config(
        task, chunk=chunk, label_ttl=12.0, max_pending=40, device="cpu", meta_every=32
    )
    events = two_keys(task, 130)
    cut = int(np.random.default_rng(seed).integers(180, 480) // chunk * chunk)
    engine = Engine(settings)
    run(engine, events[:cut], chunk)
    stored = image(engine)
    assert engine.statistics().pending > 0
    expected = run(engine, events[cut:], chunk)
    resumed = Engine.restore(settings, Snapshot.from_bytes(stored))
    assert image(resumed) == stored
    assert records(run(resumed, events[cut:], chunk)) == records(expected)
    assert image(resumed) == image(engine)
    assert resumed.statistics() == engine.statistics()
    assert of(MetaUpdated, expected)
    if task == CLASSES:
        assert len(engine.state.classes) > 8  # the networks grew on the way


def test_it_may_stop_while_questions_from_before_and_after_growth_are_waiting() -> None:
    engine = Engine(config(CLASSES))
    run(engine, [Event(f"{i}", {"a": float(i)}, f"c{i}") for i in range(8)])
    run(engine, [Event("early", {"a": 1.0})])
    run(engine, [Event("ninth", {"a": 9.0}, "c8")])
    run(engine, [Event("after", {"a": 2.0})])
    resumed = Engine.restore(engine.config, Snapshot.from_bytes(image(engine)))
    for name in ("early", "after"):
        label = [Event(name, y="c8")]
        assert records(run(engine, label)) == records(run(resumed, label))
    assert image(engine) == image(resumed)


@both_tasks
def test_a_snapshot_is_not_moved_by_what_comes_later(task: str) -> None:
    engine = Engine(config(task))
    events = two_keys(task, 60)
    run(engine, events[:60])
    taken = engine.snapshot()
    before = taken.to_bytes()
    run(engine, [*events[60:], Event("new", {"later": 1.0, "word": "x"}, 1.0, key="west")])
    assert taken.to_bytes() == before


def test_an_engine_that_has_seen_nothing_resumes_too() -> None:
    engine = Engine(config(CLASSES))
    resumed = Engine.restore(engine.config, Snapshot.from_bytes(image(engine)))
    events = stream(CLASSES, 30)
    assert records(run(engine, events)) == records(run(resumed, events))


def test_a_snapshot_of_another_model_is_refused() -> None:
    engine = Engine(config(CLASSES))
    run(engine, stream(CLASSES, 5))
    with pytest.raises(ConfigError, match="hidden was"):
        Engine.restore(config(CLASSES, hidden=(9,)), engine.snapshot())
    other = engine.snapshot()
    other.info["schema"] = 999
    with pytest.raises(StoreError, match="999"):
        Engine.restore(engine.config, other)


# -- labels ------------------------------------------------------------------------------------


def test_late_labels_are_scored_as_of_their_question() -> None:
    engine = Engine(config(CLASSES))
    events = late(stream(CLASSES, 60), 5)
    outputs = run(engine, events)
    said = {p.id: p.prediction for p in of(Predicted, outputs)}
    scored = of(Scored, outputs)
    assert len(scored) == 55
    assert {s.delay for s in scored} == {5}
    for s in scored:
        assert s.prediction == said[s.id]
        assert s.loss == float(said[s.id] != s.truth)
    assert engine.statistics().pending == 5


def test_a_clock_that_is_set_back_gives_up_nothing_early_and_nothing_never() -> None:
    """The last question by the old clock waits its time to live by the new one, and those behind
    it are given up as ever; also where the run is taken up again in between."""
    engine = Engine(config(CLASSES, label_ttl=10.0))
    run(engine, [Event("old", {"v": 1.0}, ts=1e6)])
    restarted = [Event(f"q{i}", {"v": float(i)}, ts=float(i)) for i in range(SET_BACK)]
    assert of(LabelExpired, run(engine, restarted)) == []
    engine = Engine.restore(engine.config, engine.snapshot())
    now = float(SET_BACK)
    outputs = run(engine, [Event("old", y="up", ts=now)])
    outputs += run(engine, [Event("later", {"v": 0.0}, ts=now + 5.0)])
    assert [scored.id for scored in of(Scored, outputs)] == ["old"]
    gone = [expired.id for expired in of(LabelExpired, outputs)]
    assert gone == [f"q{i}" for i in range(SET_BACK - 5)]


def test_a_few_late_events_are_no_other_clock() -> None:
    engine = Engine(config(CLASSES, label_ttl=10.0))
    for i in range(2 * SET_BACK):  # a key that lags behind another
        run(engine, [Event(f"a{i}", {"v": 1.0}, ts=1e6 + i, key="a")])
        run(engine, [Event(f"b{i}", {"v": 1.0}, ts=float(i), key="b")])
        assert engine.state.last_ts == 1e6 + i


def test_a_producer_that_sends_a_stretch_again_sets_no_clock_back() -> None:
    """Some questions have their labels with them, others later: when all that came within more than
    the time to live comes once more, what waits still waits."""
    engine = Engine(config(CLASSES, label_ttl=10.0))
    sent = []
    for i in range(4 * SET_BACK):
        sent += [Event(f"q{i}", {"v": float(i)}, ts=float(i)), Event(f"q{i}", y="up", ts=i + 0.5)]
    run(engine, sent)
    run(engine, [Event("waits", {"v": 1.0}, ts=4.0 * SET_BACK)])
    again = run(engine, sent)
    assert {type(output) for output in again} == {Rejected}
    assert engine.state.last_ts == 4.0 * SET_BACK
    (scored,) = of(Scored, run(engine, [Event("waits", y="up", ts=4.0 * SET_BACK + 1.0)]))
    assert scored.id == "waits"


def test_questions_expire_in_event_time_or_when_the_table_is_full() -> None:
    engine = Engine(config(CLASSES, label_ttl=10.0))
    run(engine, [Event("old", {"v": 1.0}, ts=0.0), Event("timeless", {"v": 1.0})])
    (expired,) = of(LabelExpired, run(engine, [Event("new", {"v": 1.0}, ts=10.5)]))
    assert (expired.id, expired.row, expired.reason) == ("old", 0, "time_to_live")
    (rejected,) = run(engine, [Event("old", y="up", ts=11.0)])
    assert isinstance(rejected, Rejected)
    engine = Engine(config(CLASSES, max_pending=2))
    outputs = run(engine, [Event(str(i), {"v": 1.0}, key="k") for i in range(4)])
    expired_all = of(LabelExpired, outputs)
    assert [(e.id, e.key, e.reason) for e in expired_all] == [
        ("0", "k", "table_full"),
        ("1", "k", "table_full"),
    ]


def test_more_classes_than_outputs_grow_the_networks() -> None:
    engine = Engine(config(CLASSES))
    rng = np.random.default_rng(0)
    outputs: list[Output] = []
    for i in range(400):
        c = i % min(12, 1 + i // 20)
        x = {"a": c + 0.1 * float(rng.normal()), "b": float(c % 3)}
        outputs += run(engine, [Event(str(i), x, f"class {c}")])
    assert engine.state.net.sizes[-1] == 16
    assert engine.statistics().meta_updates > 0
    last = of(Predicted, outputs)[-1]
    assert last.probabilities is not None
    assert len(last.probabilities) == 12
    assert np.mean([s.loss for s in of(Scored, outputs)[-40:]]) < 0.5


def test_features_may_appear_and_vanish() -> None:
    engine = Engine(config(NUMBERS))
    rng = np.random.default_rng(0)
    for i in range(60):
        names = rng.choice(list("abcdefghij"), rng.integers(0, 6), replace=False)
        outputs = run(engine, [Event(str(i), {str(n): 1.0 for n in names}, float(i))])
        assert of(Rejected, outputs) == []
        (predicted,) = of(Predicted, outputs)
        assert isinstance(predicted.prediction, float)
        assert math.isfinite(predicted.prediction)


# -- drift, tasks, challengers -----------------------------------------------------------------


@both_tasks
def test_frozen_means_frozen(task: str) -> None:
    engine = Engine(config(task, freeze_at=60))
    events = stream(task, 120)
    run(engine, events[:60])
    before = engine.snapshot().tensors
    outputs = run(engine, events[60:])
    after = engine.snapshot().tensors
    moved = {n for n in before if not np.array_equal(before[n], after[n], equal_nan=True)}
    # the last labels stay inputs, as in life, and ids that come again are known again
    assert moved <= {"state/lags", "ended"}
    assert {type(o) for o in outputs} == {Predicted, Scored}
    assert len(of(Scored, outputs)) == 60


@both_tasks
def test_what_each_answer_to_drift_emits(task: str) -> None:
    events = stream(task)
    kinds: dict[str, list[Output]] = {}
    for on_drift in ("challenge", "reset", "ignore"):
        kinds[on_drift] = run(Engine(config(task, on_drift=on_drift)), events)
    assert of(DriftDetected, kinds["challenge"])
    assert of(Adapted, kinds["challenge"])
    assert of(DriftDetected, kinds["reset"])
    assert of(Adapted, kinds["reset"]) == []
    assert of(DriftDetected, kinds["ignore"]) == []
    assert {t.segment for t in of(TaskClosed, kinds["ignore"])} == {0}
    for outputs in kinds.values():
        assert len(of(Scored, outputs)) == len(events)


@both_tasks
def test_reset_starts_the_networks_again(task: str) -> None:
    engine = Engine(config(task, on_drift="reset"))
    for event in stream(task):
        steps = engine.state.bank.steps.sum() if engine.state.allocated else 0
        if of(DriftDetected, run(engine, [event])):
            assert engine.state.bank.steps.sum() < 0.1 * steps
            return
    pytest.fail("no drift was found")


@both_tasks
def test_a_drift_makes_challengers_live_and_overwrites_nobody(task: str) -> None:
    engine = Engine(config(task))
    for event in stream(task):
        regulars = slice(0, engine.state.bank.challengers.start) if engine.state.allocated else None
        births = None if regulars is None else engine.state.bank.births[0, regulars].copy()
        outputs = run(engine, [event])
        if of(DriftDetected, outputs):
            break
    else:
        pytest.fail("no drift was found")
    adapted = of(Adapted, outputs)
    assert [a.trigger for a in adapted] == ["drift", "drift"]
    bank = engine.state.bank
    slots = [bank.names.index(a.expert) for a in adapted]
    assert len(set(slots)) == 2
    assert set(slots) <= set(bank.challengers)
    assert bank.live[0, slots].all()
    assert np.array_equal(bank.births[0, regulars], births)
    assert (bank.steps[0, regulars] > 50).all(), "some rehearse at every other label only"
    assert sum(engine.statistics().weights.values()) == pytest.approx(1.0)
    assert engine.statistics().weights["challenger"] > 0


@both_tasks
def test_no_challengers_no_adaptation(task: str) -> None:
    outputs = run(Engine(config(task, challengers=0)), stream(task))
    assert of(Adapted, outputs) == []
    assert of(DriftDetected, outputs)


@both_tasks
def test_no_replay_no_outer_steps(task: str) -> None:
    engine = Engine(config(task, replay=False))
    outputs = run(engine, stream(task))
    assert of(MetaUpdated, outputs) == []
    assert not any(name.startswith("replay") for name in engine.state.bank.names)


@both_tasks
@pytest.mark.parametrize("delay", [0, 9])
def test_a_task_never_straddles_a_drift(task: str, delay: int) -> None:
    """Rows of a task are from one segment, as far as was known when it closed."""
    engine = Engine(config(task))
    length = engine.config.support + engine.config.query
    events = stream(task, 260, drift=130)
    starts = [0]
    checked = 0
    for event in late(events, delay) if delay else events:
        for output in run(engine, [event]):
            if isinstance(output, DriftDetected):
                starts.append(output.onset)
            if isinstance(output, TaskClosed):
                rows = engine.state.segment_rows
                newest = rows._slots(0, length + HELD_BACK)[:length]
                assert rows.row[0, newest].min() >= starts[-1]
                assert output.rows == length
                assert output.segment == len(starts) - 1
                memory = engine.state.memory
                kept = memory.raw[(memory.seen - 1) % memory.part]
                np.testing.assert_array_equal(kept, rows.raw[0, newest])
                checked += output.segment > 0
    assert len(starts) > 1
    assert checked >= 2


def test_a_label_older_than_the_segment_raises_no_alarm() -> None:
    engine = Engine(config(CLASSES))
    events = stream(CLASSES, 400, drift=200)
    held = [dataclasses.replace(e, id=f"held{i}", y=None) for i, e in enumerate(events[100:190])]
    run(engine, events[:100])
    run(engine, held)  # their labels come only when the world has long changed
    outputs = run(engine, events[100:])
    first = of(DriftDetected, outputs)[0]
    assert engine.state.segment_start[0] == first.onset > engine.state.pending.table["held0"].row
    start, segment = engine.state.segment_start.copy(), engine.state.segment.copy()
    inside = engine.state.segment_rows.inside.copy()
    wrong = {"up": "down", "down": "up"}
    answers = [Event(h.id, y=wrong[str(e.y)]) for h, e in zip(held, events[100:190], strict=True)]
    outputs = run(engine, answers)
    assert len(of(Scored, outputs)) == 90
    assert of(DriftDetected, outputs) == []
    assert np.array_equal(engine.state.segment_start, start)
    assert np.array_equal(engine.state.segment, segment)
    assert np.array_equal(engine.state.segment_rows.inside, inside)  # nor do they enter it


# -- keys and settings -------------------------------------------------------------------------


@both_tasks
def test_keys_are_streams_of_their_own(task: str) -> None:
    """Without meta-parameters a key learns as if alone, but for what it borrowed when young."""
    settings = config(task, replay=False, challengers=0)
    n = 200
    north = [dataclasses.replace(e, id="n" + e.id, key="north") for e in stream(task, n, seed=1)]
    south = [dataclasses.replace(e, id="s" + e.id, key="south") for e in stream(task, n, seed=2)]
    # both have met the same classes in the same order when they part
    alone = of(Predicted, run(Engine(settings), north))
    mixed = [e for pair in zip(north, south, strict=True) for e in pair]
    together = [p for p in of(Predicted, run(Engine(settings), mixed)) if p.key == "north"]
    old = slice(n // 2, None)
    first, second = ([p.prediction for p in side][old] for side in (alone, together))
    if task == CLASSES:
        assert np.mean([a == b for a, b in zip(first, second, strict=True)]) > 0.9
    else:
        apart = np.abs(np.subtract(np.array(first, float), np.array(second, float)))
        assert apart.mean() < 0.1 * np.std([float(e.y or 0.0) for e in north])


def test_the_seed_decides() -> None:
    events = stream(NUMBERS, 60)
    one, same, other = (Engine(config(NUMBERS, seed=s)) for s in (1, 1, 2))
    assert records(run(one, events)) == records(run(same, events))
    assert image(one) == image(same)
    assert records(run(other, events)) != records(run(Engine(config(NUMBERS, seed=1)), events))


def test_the_task_must_be_known() -> None:
    with pytest.raises(ConfigError, match="auto"):
        Engine(ModelConfig())


def test_young_keys_lean_on_what_all_keys_have_in_common() -> None:
    """Forty keys of six rows each: nobody learns alone, together they learn that y repeats."""
    engine = Engine(config(NUMBERS))
    errors = []
    for t in range(6):
        for k in range(40):
            level = 100.0 + 50.0 * (k % 7)
            event = Event(f"{k}:{t}", {"a": float(k * t % 5)}, level + t, f"key-{k}")
            scored = of(Scored, run(engine, [event]))[0]
            if t >= 2:
                errors.append(scored.loss)
    assert np.mean(errors) < 10.0  # the keys' levels are 100 apart on average
    again = Engine.restore(engine.config, engine.snapshot())
    assert image(again) == image(engine)


@both_tasks
def test_late_labels_of_an_older_segment_adapt_nobody_again(task: str) -> None:
    """They come when the young segment holds a size at which its challengers are adapted."""
    engine = Engine(config(task))
    events = stream(task, 300, drift=150)
    held = [dataclasses.replace(e, id=f"held-{e.id}") for e in events[100:110]]
    run(engine, events[:110])
    run(engine, [dataclasses.replace(e, y=None) for e in held])
    for event in events[110:]:
        run(engine, [event])
        if engine.state.segment[0] > 0 and engine.state.segment_labels[0] in GROWTH:
            break
    assert engine.state.segment[0] > 0
    outputs = run(engine, [Event(e.id, y=e.y) for e in held])
    assert len(of(Scored, outputs)) == 10
    assert of(Adapted, outputs) == []
