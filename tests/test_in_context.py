"""The in-context learner: its cell beside torch's, what it reads, and that nothing is descended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scenarios.bench import Book, Job, finish, run_job
from scenarios.bench.jobs import cards, check, unfit
from scenarios.fewshot import known_switches as protocol
from scenarios.fewshot.known_switches import MAIN, segments, squared_errors, tasks_of
from scenarios.sine_switch import FROM, NOISE, TASK_ROWS, TO, SineSwitch
from scenarios.suites.in_context import AGAINST, OURS, SUITE
from streammeta.errors import UsageError
from streammeta.meta import gradient_based
from streammeta.meta.gru import Gru, rows_times
from streammeta.meta.in_context import InContext
from streammeta.meta.learner import Batch, State
from streammeta.meta.net import Net

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
    for before, after in zip(one, two, strict=True):
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
