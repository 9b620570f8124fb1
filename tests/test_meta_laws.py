"""Laws of every meta-learner: one table of learners, one table of laws."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from learner_tasks import PAIRS, REGRESSORS, tasks_of
from torch import Tensor

from streammeta.config import ModelConfig, OuterConfig
from streammeta.engine import Engine
from streammeta.errors import ConfigError
from streammeta.events import Adapted, Event, MetaUpdated, Output
from streammeta.meta.gradient_based import GradientLearner, Outer
from streammeta.meta.initial import read_initial, write_initial
from streammeta.meta.learner import Batch, MetaLearner, State
from streammeta.meta.loss import Loss, Task, losses, masked_mean
from streammeta.meta.net import Net
from streammeta.meta.parameters import MetaParameters
from streammeta.registry import components, load

LEARNERS = tuple(components("learners"))
CLASSES = 3
CLASSIFY: Task = "classification"
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

every_learner = pytest.mark.parametrize("name", LEARNERS)
every_regressor = pytest.mark.parametrize("name", REGRESSORS)
every_task = pytest.mark.parametrize(("name", "task"), PAIRS)


def make(name: str, task: Task, **changes: Any) -> MetaLearner:
    """A small learner with spare outputs, as after a class has been reserved."""
    net = Net((4, 7, 6, 1 if task == "regression" else CLASSES + 2))
    chosen: dict[str, Any] = {"inner_lr": 0.1, "steps": 3, "outer_lr": 1e-3} | changes
    made: MetaLearner = load("learners", name)(net, task, **chosen)
    return made


def start(learner: MetaLearner, dtype: torch.dtype = torch.float64) -> State:
    rng = np.random.default_rng(3)
    theta = torch.from_numpy(rng.normal(0.0, 0.5, learner.net.n_params))
    return learner.init(theta.to(dtype))


def tasks(learner: MetaLearner, n: int = 4, dtype: torch.dtype = torch.float64) -> Batch:
    """``n`` random tasks of 6 support and 5 query rows; some rows of the first are padding."""
    rng = np.random.default_rng(7)
    width = learner.net.sizes[0]

    def rows(length: int) -> list[Tensor]:
        x = rng.normal(size=(n, length, width))
        y = rng.normal(0.0, 3.0, (n, length))
        if learner.task == "classification":
            y = rng.integers(0, CLASSES, (n, length)).astype(float)
        mask = np.ones((n, length))
        mask[0, : length // 3] = 0.0
        return [torch.from_numpy(a).to(dtype) for a in (x, y, mask)]

    return Batch(*rows(6), *rows(5))


def update(learner: MetaLearner, state: State, batch: Batch) -> State:
    return learner.meta_update(state, batch, CLASSES)[0]


def equal(a: State, b: State) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# -- the laws ----------------------------------------------------------------------------------


def adapt_and_update_leave_the_state_untouched(learner: MetaLearner) -> None:
    state, batch = start(learner), tasks(learner)
    before = State(*(part.clone() for part in state))
    learner.adapt(state, *batch[:3], CLASSES)
    after = update(learner, state, batch)
    assert equal(state, before)
    assert not torch.equal(after.theta, state.theta)
    assert after.taken == 1


def adaptation_lowers_the_support_loss(learner: MetaLearner) -> None:
    fast, info = learner.adapt(start(learner), *tasks(learner)[:3], CLASSES)
    assert fast.shape == (4, learner.net.n_params)
    assert info.loss_before.shape == info.loss_after.shape == (4,)
    assert info.loss_after.mean() < info.loss_before.mean()


def padding_is_inert(learner: MetaLearner) -> None:
    state, batch = start(learner), tasks(learner)
    other = batch._replace(
        support_x=torch.where(batch.support_mask[..., None] > 0, batch.support_x, 1e12),
        query_x=torch.where(batch.query_mask[..., None] > 0, batch.query_x, -1e12),
    )
    fast, _ = learner.adapt(state, *batch[:3], CLASSES)
    same, _ = learner.adapt(state, *other[:3], CLASSES)
    torch.testing.assert_close(fast, same, rtol=0, atol=1e-12)
    after, twin = update(learner, state, batch), update(learner, state, other)
    torch.testing.assert_close(after.theta, twin.theta, rtol=0, atol=1e-12)
    short = [part[:1, 2:] for part in batch[:3]]  # the same without the padded rows
    alone, _ = learner.adapt(state, *short, CLASSES)
    torch.testing.assert_close(alone[0], fast[0], rtol=0, atol=1e-12)


def a_batch_equals_a_loop(learner: MetaLearner) -> None:
    state, batch = start(learner), tasks(learner)
    fast, info = learner.adapt(state, *batch[:3], CLASSES)
    for i in range(4):
        alone, told = learner.adapt(state, *(part[i : i + 1] for part in batch[:3]), CLASSES)
        torch.testing.assert_close(alone[0], fast[i], rtol=0, atol=1e-12)
        torch.testing.assert_close(told.loss_after[0], info.loss_after[i], rtol=0, atol=1e-12)


def type_and_device_are_kept(learner: MetaLearner) -> None:
    for dtype in (torch.float32, torch.float64):
        state, batch = start(learner, dtype), tasks(learner, dtype=dtype)
        fast, info = learner.adapt(state, *batch[:3], CLASSES)
        after = update(learner, state, batch)
        for part in (fast, *info, *after):
            assert part.dtype == dtype
            assert part.device == state.theta.device


def the_same_start_gives_the_same_bits(learner: MetaLearner) -> None:
    batch = tasks(learner)
    runs = []
    for _ in range(2):
        state = start(learner)
        for _ in range(3):
            state = update(learner, state, batch)
        runs.append(state)
    assert equal(*runs)


def a_nan_task_is_skipped_alone(learner: MetaLearner) -> None:
    state, batch = start(learner), tasks(learner)
    for field in ("support_x", "query_x"):
        poisoned = getattr(batch, field).clone()
        poisoned[2, 3, 1] = math.nan
        after, info = learner.meta_update(state, batch._replace(**{field: poisoned}), CLASSES)
        assert info.skipped == 1
        others = Batch(*(part[[0, 1, 3]] for part in batch))
        expected, whole = learner.meta_update(state, others, CLASSES)
        assert whole.skipped == 0
        assert info.loss == pytest.approx(whole.loss, abs=1e-12)
        for part, other in zip(after, expected, strict=True):
            torch.testing.assert_close(part, other, rtol=0, atol=1e-12)


def nothing_but_nan_changes_nothing(learner: MetaLearner) -> None:
    state, batch = start(learner), tasks(learner)
    hopeless = batch._replace(query_x=torch.full_like(batch.query_x, math.nan))
    after, info = learner.meta_update(state, hopeless, CLASSES)
    assert info.skipped == 4
    assert math.isnan(info.loss)
    assert equal(after, state)


LAWS: tuple[Callable[[MetaLearner], None], ...] = (
    adapt_and_update_leave_the_state_untouched,
    adaptation_lowers_the_support_loss,
    padding_is_inert,
    a_batch_equals_a_loop,
    type_and_device_are_kept,
    the_same_start_gives_the_same_bits,
    a_nan_task_is_skipped_alone,
    nothing_but_nan_changes_nothing,
)


@every_task
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law: Callable[[MetaLearner], None], task: Task, name: str) -> None:
    law(make(name, task))


# -- stories -----------------------------------------------------------------------------------


def sines(rng: np.random.Generator, n: int, rows: int = 10) -> Batch:
    """``y = A sin(x - phi)`` (Finn et al. 2017): ``rows`` of support and of query each."""
    a, phi = rng.uniform(0.1, 5.0, (n, 1)), rng.uniform(0.0, math.pi, (n, 1))

    def draw() -> list[Tensor]:
        x = rng.uniform(-5.0, 5.0, (n, rows))
        parts = (x[..., None] / 3.0, a * np.sin(x - phi) / 2.0, np.ones((n, rows)))
        return [torch.from_numpy(p.astype(np.float32)) for p in parts]

    return Batch(*draw(), *draw())


@every_regressor
def test_longer_adaptation_than_it_was_trained_for_does_not_diverge(name: str) -> None:
    net, rng = Net((1, 20, 20, 1)), np.random.default_rng(0)
    make_it = load("learners", name)
    learner = make_it(net, "regression", inner_lr=0.1, steps=3, outer_lr=3e-3)
    state = learner.init(torch.from_numpy(net.init(rng)))
    told = []
    # with nothing to descend by, how to learn has to be learned from nothing
    for _ in range(500 if name == "in_context" else 300):
        state, info = learner.meta_update(state, sines(rng, 8), 1)
        told.append(info.loss)
    assert np.mean(told[-30:]) < 0.8 * np.mean(told[:30])  # it did learn to adapt
    batch = sines(rng, 100)
    longer = make_it(net, "regression", inner_lr=0.1, steps=10, outer_lr=3e-3)
    short, _ = learner.adapt(state, *batch[:3], 1)
    long, info = longer.adapt(state, *batch[:3], 1)

    def loss(fast: Tensor) -> Tensor:
        each = losses(net.apply(fast, batch.query_x), batch.query_y, Loss("regression"))
        return masked_mean(each, batch.query_mask)

    assert torch.isfinite(long).all()
    assert (info.loss_after <= info.loss_before).float().mean() > 0.95
    assert loss(long).mean() < 1.2 * loss(short).mean()
    assert loss(long).max() < 2.0 * loss(short).max()


def meta_parameters(name: str, task: Task, seed: int = 0, device: str = "cpu") -> MetaParameters:
    config = ModelConfig(task=task, learner=name, seed=seed, device=device)
    net = Net((4, 7, 1 if task == "regression" else 8))
    return MetaParameters.fresh(config, net, task)


def parts(batch: Batch) -> list[Any]:
    return [part.float().numpy() for part in batch]


@every_task
def test_saved_meta_parameters_go_on_as_if_nothing_had_happened(name: str, task: Task) -> None:
    batch = tasks(make(name, task))
    meta = meta_parameters(name, task)
    for _ in range(3):
        meta, _ = meta.update(parts(batch), CLASSES)
    copy = meta_parameters(name, task, seed=9)
    assert not torch.equal(copy.state.theta, meta.state.theta)
    copy = copy.with_tensors(meta.tensors(), meta.n_classes, meta.updates)
    for _ in range(3):
        meta, one = meta.update(parts(batch), CLASSES)
        copy, other = copy.update(parts(batch), CLASSES)
        assert one == other
    assert equal(meta.state, copy.state)
    assert meta.updates == copy.updates == 6


@pytest.mark.parametrize("name", [n for n, task in PAIRS if task == CLASSIFY])
def test_room_for_more_classes_keeps_what_was_learned(name: str) -> None:
    learner = make(name, "classification")
    batch = tasks(learner)
    meta = meta_parameters(name, "classification").matching(Net((4, 7, 8)), CLASSES)
    for _ in range(3):
        meta, _ = meta.update(parts(batch), CLASSES)
    wide = meta.matching(Net((4, 7, 16)), CLASSES)
    x, y = batch.support_x[0].float().numpy(), batch.support_y[0].float().numpy()
    old, _ = meta.adapt(x, y, CLASSES)
    new, _ = wide.adapt(x, y, CLASSES)
    tx = torch.from_numpy(x)
    before = meta.learner.predict(torch.from_numpy(old), tx)[:, :CLASSES]
    after = wide.learner.predict(torch.from_numpy(new), tx)[:, :CLASSES]
    torch.testing.assert_close(before, after, rtol=0, atol=1e-5)
    assert wide.update(parts(batch), 10)[1].skipped == 0
    fourth = wide.matching(Net((4, 7, 16)), CLASSES + 1)
    outputs = fourth.learner.predict(fourth.state.theta, tx)
    torch.testing.assert_close(outputs[:, 3], outputs[:, :3].mean(1), rtol=0, atol=1e-5)


@every_learner
def test_meta_parameters_travel_in_a_file(name: str, tmp_path: Any) -> None:
    task = tasks_of(name)[-1]
    batch = parts(tasks(make(name, task)))
    meta, _ = meta_parameters(name, task).update(batch, CLASSES if task == CLASSIFY else 1)
    write_initial(tmp_path / "made" / "init.safetensors", {name: meta})
    fresh = meta_parameters(name, task, seed=5)
    read = read_initial(tmp_path / "made" / "init.safetensors", name, fresh)
    assert torch.equal(read.state.theta, meta.state.theta)
    assert torch.equal(read.state.log_rates, meta.state.log_rates)
    assert torch.equal(read.state.extra, meta.state.extra)
    assert read.state.taken == 0


@pytest.mark.parametrize("name", sorted({name for name, task in PAIRS if task == CLASSIFY}))
def test_before_any_outer_step_three_classes_are_already_told_apart(name: str) -> None:
    """As in a stream: classes come one by one, and the meta-parameters make room for each."""
    config = ModelConfig(task="classification", learner=name, inner_lr=0.5, inner_steps=20)
    meta = MetaParameters.fresh(config, Net((3, 40, 40, 2)), "classification")
    for classes, outputs in ((2, 2), (3, 4)):
        meta = meta.matching(Net((3, 40, 40, outputs)), classes)
    rng = np.random.default_rng(0)
    y = np.arange(30, dtype=np.float32) % 3
    x = np.eye(3, dtype=np.float32)[y.astype(int)] * 3 + rng.normal(0, 0.1, (30, 3))
    _, info = meta.adapt(x.astype(np.float32), y, 3)
    assert float(info.loss_after) < 0.9 * float(info.loss_before)


def test_a_file_of_another_kind_of_learner_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "cavia.safetensors"
    write_initial(file, {"cavia": meta_parameters("cavia", "regression")})
    with pytest.raises(ConfigError, match="was made by cavia, which has 35 parameters beside"):
        read_initial(file, "meta_sgd", meta_parameters("meta_sgd", "regression"))


def test_options_of_the_outer_update_come_from_the_config() -> None:
    outer = OuterConfig(each_step=0.5, modulation=2.0, proximity=0.1)
    config = ModelConfig(task="regression", learner="maml", outer=outer)
    learner = MetaParameters.fresh(config, Net((4, 7, 1)), "regression").learner
    assert isinstance(learner, GradientLearner)
    assert learner.outer == Outer(each_step=0.5, modulation=2.0, proximity=0.1)


@every_learner
def test_the_default_model_adapts_challengers_with_any_learner(name: str) -> None:
    task = tasks_of(name)[-1]
    engine = Engine(ModelConfig(task=task, learner=name, hidden=(8,), meta_every=4))
    rng = np.random.default_rng(0)
    outputs: list[Output] = []
    for i in range(300):
        a, b = rng.normal(size=2)
        y: Any = float(a - b) if i < 150 else float(3.0 + b - 2.0 * a)
        if task == CLASSIFY:
            y = "up" if y > 0 else "down"
        outputs += engine.observe([Event(str(i), {"a": float(a), "b": float(b)}, y)])
        outputs += engine.replay()
    adapted = [o for o in outputs if isinstance(o, Adapted)]
    updates = [o for o in outputs if isinstance(o, MetaUpdated)]
    assert adapted
    assert updates
    assert all(math.isfinite(o.loss_after) for o in adapted)
    assert all(math.isfinite(o.loss) and not o.skipped for o in updates)
    again = Engine.restore(engine.config, engine.snapshot())
    assert again.meta is not None
    assert engine.meta is not None
    assert equal(again.meta.state, engine.meta.state)


# -- CUDA --------------------------------------------------------------------------------------


@pytest.mark.cuda
@needs_cuda
@every_task
def test_cpu_and_cuda_agree(name: str, task: Task) -> None:
    learner = make(name, task)
    here, batch = start(learner, torch.float32), tasks(learner, dtype=torch.float32)
    there, carried = State(*(p.cuda() for p in here)), Batch(*(p.cuda() for p in batch))
    for _ in range(5):
        here, there = update(learner, here, batch), update(learner, there, carried)
    assert all(part.is_cuda for part in there)
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-4, atol=1e-4)
    fast, _ = learner.adapt(here, *batch[:3], CLASSES)
    same, info = learner.adapt(there, *carried[:3], CLASSES)
    assert same.is_cuda
    assert info.loss_after.is_cuda
    torch.testing.assert_close(fast, same.cpu(), rtol=1e-4, atol=1e-4)


@pytest.mark.cuda
@needs_cuda
@every_task
def test_the_loop_adapts_and_learns_to_adapt_on_the_device(name: str, task: Task) -> None:
    engine = Engine(ModelConfig(task=task, learner=name, device="cuda", hidden=(8,), meta_every=4))
    rng = np.random.default_rng(0)
    outputs: list[Output] = []
    for i in range(200):
        a, b = rng.normal(size=2)
        y: Any = float(a - b) if task == "regression" else ("up" if a > b else "down")
        outputs += engine.observe([Event(str(i), {"a": float(a), "b": float(b)}, y)])
        outputs += engine.replay()
    found = [o for o in outputs if isinstance(o, Adapted)]
    assert all(math.isfinite(o.loss_after) for o in found)
    assert {"start", "growth", "scout"} <= {o.trigger for o in found}
    assert any(isinstance(o, MetaUpdated) and math.isfinite(o.loss) for o in outputs)
    assert engine.meta is not None
    assert all(part.is_cuda for part in engine.meta.state)
    assert engine.statistics().device.startswith("cuda")
    assert all(isinstance(a, np.ndarray) for a in engine.snapshot().tensors.values())
