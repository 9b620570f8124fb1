"""The in-context learner: its cell beside torch's, what it reads, and that nothing is descended."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scenarios.bench import Book, Job, finish, run_job
from scenarios.bench.jobs import cards, check, unfit
from scenarios.fewshot import known_switches as protocol
from scenarios.fewshot.class_data import episodes
from scenarios.fewshot.known_switches import MAIN, segments, squared_errors, tasks_of
from scenarios.sine_switch import FROM, NOISE, TASK_ROWS, TO, SineSwitch
from scenarios.suites.in_context import AGAINST, OURS, SUITE
from streammeta.errors import UsageError
from streammeta.meta import gradient_based
from streammeta.meta.gru import Gru, rows_times
from streammeta.meta.in_context import InContext, codes
from streammeta.meta.learner import Batch, State
from streammeta.meta.net import Net, seed_class
from streammeta.meta.training import Judged, MetaTraining, Plan

NET = Net((2, 6, 5, 1))
CELL = Gru(3, 4)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def started(learner: InContext) -> State:
    """As if it had been trained: the reader's word counts."""
    state = learner.init(draw(learner.net.n_params, seed=1))
    return state._replace(extra=state.extra + 0.3 * draw(len(state.extra), seed=2))


# -- the cell ------------------------------------------------------------------------------------


def torch_states(flat: Tensor, x: Tensor) -> Tensor:
    """States ``(T + 1, U)`` of one series by torch's own cell."""
    weight = flat[: -3 * CELL.units].view(-1, 3 * CELL.units).T
    bias = flat[-3 * CELL.units :]
    named = {
        "weight_ih": weight[:, : CELL.inputs], "weight_hh": weight[:, CELL.inputs :],
        "bias_ih": bias, "bias_hh": torch.zeros_like(bias),
    }  # fmt: skip
    cell = torch.nn.GRUCell(CELL.inputs, CELL.units, dtype=flat.dtype)
    states = [flat.new_zeros(1, CELL.units)]
    for row in x:
        states.append(torch.func.functional_call(cell, named, (row[None], states[-1])))
    return torch.cat(states)


@pytest.mark.parametrize("shared", [True, False])
def test_the_cell_is_torchs_and_so_are_its_gradients(shared: bool) -> None:
    x, by = draw(2, 5, 3).requires_grad_(), draw(2, 6, 4, seed=3)
    flat = draw(1 if shared else 2, CELL.n_params, seed=1).expand(2, -1).detach().requires_grad_()
    found = CELL.read(flat, x, torch.ones(2, 5))
    grads = torch.autograd.grad((found * by).sum(), (flat, x))
    for i in range(2):
        own, rows = (part[i].detach().requires_grad_() for part in (flat, x))
        wanted = torch_states(own, rows)
        torch.testing.assert_close(found[i], wanted, rtol=0, atol=1e-12)
        expected = torch.autograd.grad((wanted * by[i]).sum(), (own, rows))
        for part, other in zip(grads, expected, strict=True):
            torch.testing.assert_close(part[i], other, rtol=0, atol=1e-12)


def test_a_row_that_is_passed_over_leaves_state_and_gradient_alone() -> None:
    x, flat = draw(1, 5, 3), draw(1, CELL.n_params, seed=1).requires_grad_()
    mask = torch.tensor([[1.0, 0.0, 1.0, 1.0, 0.0]])
    found = CELL.read(flat, x, mask)
    torch.testing.assert_close(found[:, 2], found[:, 1], rtol=0, atol=0)
    alone = CELL.read(flat, x[:, [0, 2, 3]], torch.ones(1, 3))
    torch.testing.assert_close(found[:, -1], alone[:, -1], rtol=0, atol=0)
    one, other = (torch.autograd.grad(s[:, -1].sum(), flat)[0] for s in (found, alone))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_weights_that_are_shared_have_a_gradient_for_each_series() -> None:
    rows = draw(3, 4, 2)
    weight = draw(1, 2, 5).expand(3, -1, -1).detach().requires_grad_()
    (found,) = torch.autograd.grad(rows_times(rows, weight).sum(), weight)
    torch.testing.assert_close(found, rows.sum(1).unsqueeze(-1).expand(-1, -1, 5))


# -- the learner ---------------------------------------------------------------------------------


def test_no_gradient_is_taken_of_a_support(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither autograd's nor those that are written out; a network that descends is caught."""

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a gradient was asked for")

    for place, name in ((torch.autograd, "grad"), (torch.Tensor, "backward")):
        monkeypatch.setattr(place, name, refuse)
    monkeypatch.setattr(Net, "differentiate", refuse)
    monkeypatch.setattr(gradient_based.compiled, "step_slopes", refuse)
    learner = InContext(NET, "regression")
    state, x, y = started(learner), draw(3, 7, 2), draw(3, 7)
    fast, _ = learner.adapt(state, x, y, torch.ones_like(y), 1)
    assert (fast != state.theta).any(1).all()
    assert not fast.requires_grad
    with pytest.raises(AssertionError, match="a gradient was asked for"):
        gradient_based.maml(NET, "regression").adapt(state, x, y, torch.ones_like(y), 1)


def test_only_biases_are_spoken_to() -> None:
    learner = InContext(NET, "regression")
    state = started(learner)
    fast, _ = learner.adapt(state, draw(1, 7, 2), draw(1, 7), torch.ones(1, 7).double(), 1)
    moved = fast[0] != state.theta
    for layer in NET.layers():
        assert not moved[layer.start : layer.bias].any()
        assert moved[layer.bias : layer.end].all()


def test_the_order_of_rows_is_heard_and_the_steps_are_not() -> None:
    learner, more = InContext(NET, "regression", steps=1), InContext(NET, "regression", steps=9)
    state, x, y = started(learner), draw(1, 7, 2), draw(1, 7)
    mask = torch.ones_like(y)
    fast, _ = learner.adapt(state, x, y, mask, 1)
    turned, _ = learner.adapt(state, x.flip(1), y.flip(1), mask, 1)
    assert not torch.allclose(fast, turned)
    torch.testing.assert_close(more.adapt(state, x, y, mask, 1)[0], fast, rtol=0, atol=0)
    none, _ = InContext(NET, "regression", steps=0).adapt(state, x, y, mask, 1)
    torch.testing.assert_close(none[0], state.theta, rtol=0, atol=0)


def test_no_more_than_its_reach_is_read() -> None:
    learner = InContext(NET, "regression", reach=3)
    state, x, y = started(learner), draw(2, 8, 2), draw(2, 8)
    all_of_it, _ = learner.adapt(state, x, y, torch.ones_like(y), 1)
    newest, _ = learner.adapt(state, x[:, -3:], y[:, -3:], torch.ones_like(y[:, -3:]), 1)
    torch.testing.assert_close(all_of_it, newest, rtol=0, atol=0)


def test_training_hears_of_no_label_before_it_was_predicted() -> None:
    """The loss at a position depends on labels up to there: a later one does not reach it."""
    learner = InContext(NET, "regression")
    state, x, y = started(learner), draw(1, 9, 2), draw(1, 9)
    theta, extra = state.theta[None], state.extra[None]
    mask = torch.ones_like(y)
    other = y.clone()
    other[:, 5:] += 3.0
    one, two = (learner.read(theta, extra, (x, labels, mask), 1) for labels in (y, other))
    for before, after in zip(one[:2], two[:2], strict=True):
        torch.testing.assert_close(before[:, :6], after[:, :6], rtol=0, atol=0)
        assert not torch.allclose(before[:, 6:], after[:, 6:])


def test_the_loss_is_the_mean_over_every_position_predicted_in_turn() -> None:
    learner = InContext(NET, "regression", huber=float("inf"))
    state, x, y = started(learner), draw(1, 6, 2), draw(1, 6)
    mask = torch.ones_like(y)
    batch = Batch(x[:, :2], y[:, :2], mask[:, :2], x[:, 2:], y[:, 2:], mask[:, 2:])
    wanted = []
    for row in range(6):
        rows = Batch(*(part[:, :row] for part in (x, y, mask)), x[:, row : row + 1],
                     y[:, row : row + 1], mask[:, row : row + 1])  # fmt: skip
        said = learner.answer(state, rows, 1)[0, 0, 0]
        wanted.append(float(0.5 * (said - y[0, row]) ** 2))
    assert float(learner.slopes(state, batch, 1).loss) == pytest.approx(np.mean(wanted), abs=1e-12)


# -- classes -------------------------------------------------------------------------------------

WAY, ROWS = 3, 6  # classes of an episode; rows of each, support and query together
CLASSES = Net((8, 24, WAY))


def classes(apart: float) -> list[Any]:
    """Thirty classes of normal rows whose means lie so far apart; at 0 there is nothing to see."""
    rng = np.random.default_rng(4)
    return [
        (apart * rng.normal(size=8) + rng.normal(size=(40, 8))).astype(np.float32)
        for _ in range(30)
    ]


def trained(apart: float, **options: Any) -> tuple[InContext, MetaTraining, list[Judged]]:
    """Meta-trained on two thirds of the classes."""
    learner = InContext(CLASSES, "classification", outer_lr=3e-3, **options)
    draw = episodes(classes(apart)[:20], WAY, 1, ROWS - 1)
    state = learner.init(torch.from_numpy(CLASSES.init(np.random.default_rng(5))))
    held_out = draw(np.random.default_rng(6), 40)
    training = MetaTraining(
        learner, state, draw, held_out, Plan(300, tasks=8, every=100), n_classes=WAY
    )
    return learner, training, list(training.run())


def share_right(learner: InContext, state: State, apart: float) -> float:
    """Of queries about classes held out, after one row of each."""
    tests = episodes(classes(apart)[20:], WAY, 1, ROWS - 1)(np.random.default_rng(7), 300)
    said = learner.answer(state, tests, WAY)
    return float((said.argmax(-1) == tests.query_y).float().mean())


@pytest.mark.parametrize("attends", [True, False])
def test_labels_alone_do_not_bring_the_training_loss_down(attends: bool) -> None:
    """Where rows are noise, nothing is left but to count which labels are still to come: there are
    so many orders of a part's labels, and no reader can be surer than that."""
    orders = [math.lgamma(WAY * n + 1) - WAY * math.lgamma(n + 1) for n in (1, ROWS - 1)]
    learner, training, judged = trained(0.0, attends=attends)
    assert judged[-1].loss > 0.97 * sum(orders) / (WAY * ROWS)
    assert share_right(learner, training.best, 0.0) == pytest.approx(1 / WAY, abs=0.03)


def test_of_rows_that_differ_it_learns_to_tell_new_classes_apart() -> None:
    learner, training, judged = trained(1.5)
    assert judged[-1].loss < 0.8 * judged[0].loss
    before = learner.init(torch.from_numpy(CLASSES.init(np.random.default_rng(5))))
    assert share_right(learner, training.best, 1.5) > 0.85
    assert share_right(learner, training.best, 1.5) > share_right(learner, before, 1.5)


def test_a_class_has_its_own_numbers_whatever_was_learned_and_however_many_there_are() -> None:
    assert torch.equal(codes(3), codes(7)[:3])
    assert torch.pdist(codes(40)).min() > 1.0
    learner = InContext(Net((2, 6, 5, 2)), "classification")
    state = learner.init(draw(learner.net.n_params, seed=1))
    twins = state.theta.numpy().copy()
    seed_class(twins, Net((2, 6, 5, 2)), 1)  # as a stream does with a class that is new
    state = state._replace(theta=torch.from_numpy(twins))
    x, y = draw(1, 4, 2), torch.tensor([[0.0, 1.0, 1.0, 0.0]]).double()
    one, _ = learner.adapt(state, x, y, torch.ones_like(y), 2)
    other, _ = learner.adapt(state, x, 1.0 - y, torch.ones_like(y), 2)
    first = learner.net.layers()[0]  # type: ignore[attr-defined]
    assert not torch.allclose(one[:, first.bias : first.end], other[:, first.bias : first.end])


def test_what_is_recalled_in_training_is_what_adapting_puts_in_the_last_layer() -> None:
    learner = InContext(Net((2, 6, 5, 4)), "classification")
    state, x = started(learner), draw(1, 7, 2)
    y = torch.tensor([[0, 1, 1, 2, 0, 2, 1]]).double()
    mask = torch.ones_like(y)
    batch = Batch(x[:, :3], y[:, :3], mask[:, :3], x[:, 3:], y[:, 3:], mask[:, 3:])
    wanted = []
    for row in range(7):
        rows = Batch(*(part[:, :row] for part in (x, y, mask)), x[:, row : row + 1],
                     y[:, row : row + 1], mask[:, row : row + 1])  # fmt: skip
        said = learner.answer(state, rows, 3)[0, 0, :3]
        wanted.append(-float(said.log_softmax(0)[int(y[0, row])]))
    assert float(learner.slopes(state, batch, 3).loss) == pytest.approx(np.mean(wanted), abs=1e-12)
    silent = InContext(Net((2, 6, 5, 4)), "classification", attends=False)
    fast, _ = learner.adapt(state, x, y, mask, 3)
    mute, _ = silent.adapt(state._replace(extra=state.extra[:-1]), x, y, mask, 3)
    last = learner.net.layers()[-1]  # type: ignore[attr-defined]
    moved = (fast != mute).flatten()
    assert moved[last.start : last.bias].view(5, 4)[:, :3].any(0).all()
    assert not moved[: last.start].any()
    assert not moved[last.bias :].any()


@pytest.mark.parametrize(
    ("net", "options", "words"),
    [
        (Net((3, 2)), {}, "speaks to the hidden layers"),
        (NET, {"units": 0}, "units is 0; expected 1 or more"),
        (NET, {"reach": 0}, "reach is 0; expected 1 or more"),
        (NET, {"outer": gradient_based.Outer(each_step=0.5)}, "about inner steps"),
    ],
)
def test_what_it_cannot_do_is_refused(net: Net, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        InContext(net, "regression", **options)


# -- the bench: told the switches ----------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fraction of the tasks and of the steps."""
    monkeypatch.setattr(protocol, "HISTORY", 30)
    monkeypatch.setattr(protocol, "HELD_OUT", 10)
    monkeypatch.setattr(protocol, "UPDATES", {})
    monkeypatch.setattr(protocol, "USUAL_UPDATES", 2)


def job(model: str, seed: int = 0, rows: int = 3) -> Job:
    return Job(model, protocol.STREAM, seed, rows, protocol=SUITE.protocol)


def test_segments_are_the_streams_own_rows() -> None:
    x, y = segments(5, 3)
    pairs = list(SineSwitch(5, 3 * TASK_ROWS).pairs())
    row = 2 * TASK_ROWS + 17
    assert float(x[2, 17, 0]) == pytest.approx(pairs[row][0]["x"])
    assert float(y[2, 17]) == pytest.approx(pairs[row][1])


def test_a_task_lies_in_one_segment_and_its_query_comes_after_its_support() -> None:
    y = torch.arange(4.0 * TASK_ROWS).view(4, TASK_ROWS)  # the number of the row
    found = tasks_of(y[..., None], y)(np.random.default_rng(0), 50)
    rows = torch.cat([found.support_y, found.query_y], 1)
    assert (rows.diff(dim=1) == 1).all()
    assert (rows[:, 0] // TASK_ROWS == rows[:, -1] // TASK_ROWS).all()
    used = found.support_mask.sum(1)
    assert used.min() < 5 < 45 < used.max()
    assert (found.support_mask.diff(dim=1) >= 0).all(), "the newest rows, beside the query"


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("model", [OURS, AGAINST])
def test_rows_to_come_change_no_prediction(model: str) -> None:
    learner = protocol.learner_of(model)
    state = protocol.trained(learner, 0, 3).best
    x, y = segments(0, 2)
    one = squared_errors(learner, state, x, y)
    other = y.clone()
    other[:, 30:] += 5.0
    two = squared_errors(learner, state, x, other)
    np.testing.assert_array_equal(one[:, :30], two[:, :30])
    assert (one[:, 31:] != two[:, 31:]).all()


@pytest.mark.usefixtures("short")
def test_every_learner_of_the_suite_is_told_the_same_switches() -> None:
    done = [finish(run_job(job(model)), SUITE, "") for model in SUITE.models]
    for kept in done:
        assert len(kept.losses) == 3
        assert kept.record.score == pytest.approx(float(kept.losses.mean()), abs=1e-5)
        assert kept.record.value(MAIN) > NOISE**2
    book = Book([kept.record for kept in done], [])
    assert SUITE.summarise is not None
    (table,) = SUITE.summarise(book)
    assert [row[0] for row in table.rows] == list(SUITE.models)
    assert [row[1] for row in table.rows] == ["0", "5", "5", "0", "0", "5"]
    assert SUITE.gates is not None
    for ours, ok in ((1.4, True), (1.6, False), (float("nan"), False)):
        done[0].record.metric[MAIN], done[1].record.metric[MAIN] = ours, 1.0
        assert [gate.ok for gate in SUITE.gates(book)] == [ok]
    assert not SUITE.gates(Book([done[0].record], []))[0].ok, "the other did not run"


def test_what_is_no_learner_or_no_such_stream_is_refused_before_any_work() -> None:
    asked = [job("mamml@1")]
    ((_, why),) = unfit(asked, cards(asked)).items()
    assert "did you mean" in why
    with pytest.raises(UsageError, match="expected sine_switch"):
        check([Job(OURS, "cosine", 0, 3, protocol=SUITE.protocol)])
    assert FROM < TO < TASK_ROWS


@pytest.mark.slow
def test_reading_is_as_good_as_descending_after_a_switch() -> None:
    """On a seed that chose nothing, with a third of the suite's training for both."""
    errors = {model: run_job(job(model, seed=3, rows=33)).result.metric[MAIN]
              for model in (OURS, AGAINST)}  # fmt: skip
    assert errors[OURS] < 1.5 * errors[AGAINST]
