"""Few-shot classification: what is held out stays unseen, and all models answer the same tasks."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch
from learner_tasks import tasks_of

from scenarios.bench import Book, Job, compare, finish, run_job
from scenarios.bench.jobs import cards, unfit
from scenarios.fewshot import class_data, few_shot
from scenarios.fewshot.class_data import DATA, digits, episodes, new_digits, yeast
from scenarios.fewshot.eye import SEEN, seen, trained_eye, warped
from scenarios.fewshot.few_shot import (
    BASELINES,
    FEW_SHOT,
    RECIPES,
    calibration_error,
    near_identity,
    network,
)
from scenarios.suites.few_shot import BARRED, BEFORE, RIGHT, SUITE
from streammeta.errors import SourceError, UsageError
from streammeta.registry import components

EPISODES = 6


def job(model: str, stream: str = "digits@5x1", seed: int = 7, rows: int = EPISODES) -> Job:
    return Job(model, stream, seed, rows, protocol="few_shot")


def pictures(part: np.ndarray[Any, Any]) -> set[bytes]:
    """Each picture in the orientation that sorts first: the same for all eight of them."""
    found = set()
    for row in np.round(part, 3):
        square = row.reshape(8, 8)
        turned = [np.rot90(side, q) for side in (square, square[:, ::-1]) for q in range(4)]
        found.add(min(np.ascontiguousarray(one).tobytes() for one in turned))
    return found


# -- data ----------------------------------------------------------------------------------------


def test_no_picture_of_the_test_is_seen_in_training_in_any_orientation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(class_data, "scaled", class_data.Split)  # pixels as they are
    for split in (digits(3), new_digits(3)):
        train = set().union(*(pictures(part) for part in split.train))
        test = set().union(*(pictures(part) for part in split.test))
        assert len(train & test) <= 2, "two people may have written the same eight by eight pixels"
        assert min(len(train), len(test)) > 700


def test_digits_have_sixty_classes_to_train_on_and_ten_held_out() -> None:
    split = digits(0)
    assert (len(split.train), len(split.test)) == (60, 10)
    assert np.concatenate(split.train).mean() == pytest.approx(0.0, abs=1e-4)
    assert np.concatenate(split.train).std() == pytest.approx(1.0, abs=0.05)
    assert not np.array_equal(digits(0).test[0], digits(1).test[0])
    np.testing.assert_array_equal(digits(0).test[0], split.test[0])


def test_five_digits_are_held_out_altogether() -> None:
    split = new_digits(0)
    assert (len(split.train), len(split.test)) == (40, 5)


@pytest.mark.parametrize(("name", "train", "test"), [("segments", 4, 3), ("yeast", 11, 8)])
def test_classes_of_river_are_split(name: str, train: int, test: int) -> None:
    split = DATA[name].split(0)
    assert (len(split.train), len(split.test)) == (train, test)
    assert np.isfinite(np.concatenate([*split.train, *split.test])).all()


def test_genes_with_the_same_groups_are_a_class_of_their_own() -> None:
    split = yeast(0)
    assert min(map(len, [*split.train, *split.test])) >= 30


def test_an_episode_has_so_many_rows_of_each_class_and_none_twice() -> None:
    classes = [np.full((20, 2), k, np.float32) for k in range(7)]
    for k, part in enumerate(classes):
        part[:, 1] = np.arange(20) + 100 * k
    batch = episodes(classes, 3, 2, 5)(np.random.default_rng(0), 50)
    assert batch.support_x.shape == (50, 6, 2)
    assert batch.query_x.shape == (50, 15, 2)
    for task in range(50):
        of = {}
        for x, y in zip(batch.support_x[task], batch.support_y[task], strict=True):
            of.setdefault(float(y), float(x[0]))
            assert of[float(y)] == float(x[0])
        assert len(set(of.values())) == 3
        for x, y in zip(batch.query_x[task], batch.query_y[task], strict=True):
            assert of[float(y)] == float(x[0])
        drawn = torch.cat([batch.support_x[task, :, 1], batch.query_x[task, :, 1]])
        assert len(drawn.unique()) == len(drawn)


def test_the_place_of_a_row_says_nothing_of_its_class() -> None:
    classes = [np.full((20, 2), k, np.float32) for k in range(7)]
    batch = episodes(classes, 5, 1, 3)(np.random.default_rng(0), 1_000)
    for y, rows in ((batch.support_y, 1), (batch.query_y, 3)):
        assert (torch.sort(y, 1)[0] == torch.arange(5.0).repeat_interleave(rows)).all()
        at_each_place = torch.nn.functional.one_hot(y.long(), 5).double().mean(0)
        assert (at_each_place - 0.2).abs().max() < 0.06
    repeated = (batch.query_y[:, 1:] == batch.query_y[:, :-1]).double().mean()
    assert float(repeated) == pytest.approx(2 / 14, abs=0.01), "of 14 others 2 are of its class"


def test_a_blended_class_lies_at_one_place_between_two() -> None:
    classes = [np.eye(6, dtype=np.float32)[k].repeat(12).reshape(6, 12).T for k in range(6)]
    batch = episodes(classes, 3, 1, 4, blended=0.5)(np.random.default_rng(0), 400)
    assert torch.allclose(batch.query_x.sum(-1), torch.ones(400, 12))
    lone = 0
    for task in range(400):
        for x, y in zip(batch.support_x[task], batch.support_y[task], strict=True):
            mine = batch.query_x[task][batch.query_y[task] == y]
            assert torch.allclose(mine, x.expand_as(mine))
            assert int((x > 0).sum()) <= 2
            assert float(x.max()) >= 0.5
            lone += int((x > 0).sum() == 1)
    assert lone / 1_200 == pytest.approx(0.5 + 0.5 / 6, abs=0.05), "or twice the same"


def test_without_scikit_learn_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    class_data._digits.cache_clear()
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(SourceError, match=r"pip install 'streammeta\[dev\]'"):
        digits(0)


# -- the eye -------------------------------------------------------------------------------------


def test_an_eye_sees_the_same_in_a_picture_that_is_moved_a_little() -> None:
    rng = np.random.default_rng(0)
    split = digits(0)
    eye = trained_eye(split.train, rng, 60)
    rows = np.concatenate([part[:8] for part in split.test])
    assert eye.see(rows).shape == (len(rows), SEEN)
    np.testing.assert_allclose(np.linalg.norm(eye.see(rows), axis=1), 1.0, rtol=1e-5)
    moved, other = warped(rows, rng), np.roll(rows, 8, axis=0)

    def apart(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
        return float(np.linalg.norm(a - b, axis=1).mean())

    in_pixels = apart(rows, moved) / apart(rows, other)
    as_seen = apart(eye.see(rows), eye.see(moved)) / apart(eye.see(rows), eye.see(other))
    assert as_seen < 0.8 * in_pixels


def test_a_warped_picture_is_nearly_the_same_one() -> None:
    rows = np.concatenate([part[:5] for part in digits(0).train])
    moved = warped(rows, np.random.default_rng(0))
    assert moved.shape == rows.shape
    assert moved.dtype == np.float32
    distances = np.linalg.norm(rows[:, None] - moved[None], axis=-1)
    own = np.diag(distances)
    assert (own > 0).all()
    assert (distances.argmin(0) == np.arange(len(rows))).mean() > 0.7


def test_what_is_seen_of_the_test_depends_on_no_row_of_the_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = seen.__wrapped__("digits", 0, 0.02)
    split = DATA["digits"].split(0)
    few = class_data.Split(split.train, split.test[:3])
    told = DATA["digits"]._replace(split=lambda seed: few)
    monkeypatch.setitem(DATA, "digits", told)  # type: ignore[arg-type] # a dict underneath
    part = seen.__wrapped__("digits", 0, 0.02)
    assert len(part.test) == 3
    for one, other in zip((*part.train, *part.test), (*whole.train, *whole.test[:3]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_eye_reads_the_same_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an eye that sees a picture's pixels twice over, so that it is known which row it saw."""
    pictures_twice = class_data.Split(
        *(tuple(np.hstack([rows, rows]) for rows in part) for part in digits(7))
    )
    monkeypatch.setattr(few_shot, "seen", lambda data, seed, effort: pictures_twice)
    asked = FEW_SHOT.asked(job("maml"))
    for mine, theirs in zip(asked.tests, asked.seen().tests, strict=True):
        expected = torch.cat([mine, mine], -1) if mine.ndim == 3 else mine
        assert torch.equal(theirs, expected)
    columns = FEW_SHOT.asked(job("maml", "segments@3x5"))
    assert columns.seen() is columns


@pytest.mark.parametrize(
    ("model", "through"),
    [("nearest", False), ("scratch", False), ("nearest_read", True), ("pretrained", True),
     ("fine_tuned", True), ("prototypical@0", True), ("learned_optimiser@0", True)],
)  # fmt: skip
def test_all_but_two_read_pictures_through_the_eye(
    model: str, through: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an eye that sees nothing but the class: who reads through it makes no mistake."""

    def told(rows: class_data.Rows, c: int) -> class_data.Rows:
        return np.tile(np.eye(12, dtype=np.float32)[c % 12], (len(rows), 1)) * 8.0

    telling = class_data.Split(
        *(tuple(told(rows, c) for c, rows in enumerate(part)) for part in digits(7))
    )
    few_shot.body.cache_clear()
    monkeypatch.setattr(few_shot, "seen", lambda data, seed, effort: telling)
    wrong = sum(run_job(job(model, seed=7)).result.losses)
    few_shot.body.cache_clear()
    assert (wrong == 0.0) is through


# -- the protocol --------------------------------------------------------------------------------


def test_first_weights_keep_the_distances_of_the_rows() -> None:
    net = network(10, 3)
    theta = near_identity(net, np.random.default_rng(0)).double()
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 10)))
    h = net.features(theta, x)
    apart, before = torch.pdist(h), torch.pdist(x)
    assert float(torch.corrcoef(torch.stack([apart, before]))[0, 1]) > 0.9


def test_copies_of_every_feature_widen_the_hidden_layer() -> None:
    net = network(10, 3, copies=4)
    assert net.sizes == (10, 4 * 20 + 32, 3)
    theta = near_identity(net, np.random.default_rng(0))
    first = net.layers()[0]
    weight = theta[first.start : first.bias].view(10, -1)
    copied = weight[:, :80].view(10, 4, 2, 10).mean(1)
    assert torch.allclose(copied[:, 0], torch.eye(10), atol=0.05)
    assert torch.allclose(copied[:, 1], -torch.eye(10), atol=0.05)
    assert float(weight[:, 80:].abs().max()) < 0.1, "the last ones hold noise alone"


def test_every_learner_that_classifies_is_in_the_suite() -> None:
    suite_has = {RECIPES[model].learner for model in SUITE.models if model in RECIPES}
    classify = {name for name in components("learners") if "classification" in tasks_of(name)}
    assert suite_has == classify - {"fine_tuning"}
    assert set(SUITE.models) == {*BASELINES, *RECIPES, *BEFORE}
    asked = {(j.stream, j.model) for j in SUITE.jobs(seeds=1)}
    assert all((stream, model) in asked for stream in BARRED for model in BEFORE)
    assert ("yeast@5x5", BEFORE[0]) not in asked


def test_the_same_seed_gives_the_same_answers_and_all_models_have_the_same_tasks() -> None:
    one, two, other = (run_job(job("prototypical", seed=seed)) for seed in (7, 7, 8))
    assert one.result.losses == two.result.losses != other.result.losses
    tests = [FEW_SHOT.asked(job(model)).tests for model in ("nearest", "maml")]
    for a, b in zip(*tests, strict=True):
        assert torch.equal(a, b)


def test_every_model_does_the_protocol_and_the_table_pairs_it() -> None:
    models = (
        "nearest",
        "nearest_read",
        "scratch",
        "pretrained",
        "fine_tuned",
        "prototypical",
        "meta_lstm",
    )
    done = [finish(run_job(job(model, rows=4)), SUITE, "") for model in models]
    book = Book([kept.record for kept in done], compare(done))
    (table,) = SUITE.summarise(book) if SUITE.summarise else []
    assert [row[0] for row in table.rows] == list(models)
    assert table.rows[0][table.head.index("minus nearest")] == "-"
    for name, most in (("NLL", 20.0), ("ECE", 1.0)):
        column = [row[table.head.index(name)] for row in table.rows]
        assert column[:2] == ["-", "-"], "the nearest neighbour tells no probabilities"
        assert all(0 < float(told) < most for told in column[2:])
    for kept in done:
        right = kept.record.extra[RIGHT]
        assert sum(right) / (4 * 75) == pytest.approx(kept.record.score, abs=1e-5)
        assert kept.record.score > 0.4, "by chance 0.2"


def test_a_learner_has_to_be_above_both_with_all_of_its_interval() -> None:
    done = [finish(run_job(job(m, rows=4)), SUITE, "") for m in ("nearest", "scratch", "r2d2")]
    for kept, right in zip(done, ([50, 52, 54, 56], [40] * 4, [54, 56, 58, 60]), strict=True):
        kept.record.extra[RIGHT] = right
    assert SUITE.gates is not None
    (gate,) = SUITE.gates(Book([kept.record for kept in done], []))
    assert gate.text.startswith(f"{BARRED[0]}, r2d2: lower bound")
    assert not gate.ok, "57 of 75 is above 53, the lower bound is not"
    done[2].record.extra[RIGHT] = [64, 66, 68, 70]
    (gate,) = SUITE.gates(Book([kept.record for kept in done], []))
    assert gate.ok


def test_meta_training_has_to_add_something_on_the_same_episodes() -> None:
    done = [finish(run_job(job(m, rows=4)), SUITE, "") for m in ("r2d2", "r2d2@0")]
    assert [kept.record.rows for kept in done] == [4, 4]
    assert SUITE.gates is not None
    for right, ok in (([54, 57, 60, 64], True), ([50, 60, 58, 64], False)):
        done[0].record.extra[RIGHT], done[1].record.extra[RIGHT] = right, [52, 56, 58, 61]
        (gate,) = SUITE.gates(Book([kept.record for kept in done], []))
        assert "r2d2: meta-training adds" in gate.text
        assert gate.ok is ok
    assert not SUITE.gates(Book([done[0].record], [])), "what did not run is not claimed"


def test_without_meta_training_no_step_is_taken() -> None:
    trained, before = (run_job(job(model)).result for model in ("prototypical", "prototypical@0"))
    assert trained.events > 0 == before.events
    assert trained.metric["nll"] != before.metric["nll"]


def test_calibration_is_how_far_confidence_lies_from_accuracy() -> None:
    sure = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.6, 0.6]).double()
    told = torch.stack([sure, 1.0 - sure], -1).log()
    right = torch.tensor([True, True, True, False, False, True])
    wanted = 4 / 6 * abs(0.9 - 3 / 4) + 2 / 6 * abs(0.6 - 1 / 2)
    assert calibration_error(told, right) == pytest.approx(wanted)
    assert calibration_error(told[:2], right[:2]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("model", "words"),
    [("protypical", "did you mean prototypical"), ("no_such_model", "no learner is called")],
)
def test_a_model_that_cannot_do_it_is_refused_before_any_work(model: str, words: str) -> None:
    asked = [job(model)]
    ((_, why),) = unfit(asked, cards(asked)).items()
    assert words in why


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ("digits", "expected DATA@WAYxSHOT with one of digits, new_digits, segments, yeast"),
        ("letters@5x1", "expected DATA@WAYxSHOT"),
        ("digits@1x1", "at least 2 classes"),
    ],
)
def test_a_stream_that_is_no_task_is_refused(stream: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cards([job("nearest", stream)])


def test_more_classes_than_are_held_out_are_refused() -> None:
    asked = [job("nearest", "segments@5x1")]
    ((_, why),) = unfit(asked, cards(asked)).items()
    assert "3 classes of at least 330 rows, expected 5 of 16" in why
