"""``Engine``: the core with its state and meta-parameters in one object."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streammeta import core, mixture, units
from streammeta.config import ModelConfig, OuterConfig
from streammeta.errors import ConfigError, StoreError, UsageError
from streammeta.events import Event, Label, MetaUpdated, Output, Value
from streammeta.experts.baselines import Answer
from streammeta.experts.choosing import make_family
from streammeta.experts.family import Space
from streammeta.meta.choice import Policy
from streammeta.meta.initial import holds, read_initial
from streammeta.meta.insight import Insight, insight
from streammeta.meta.loss import Task
from streammeta.meta.net import Net
from streammeta.meta.parameters import MetaParameters, pick_device
from streammeta.registry import find
from streammeta.replay import pose
from streammeta.snapshot import SCHEMA, Snapshot
from streammeta.state import SIMPLE, SIMPLE_MEMBERS, State

#: What the meta-parameters of the learner and of its partner are called in a snapshot.
PARTS = ("meta", "partner")
#: Settings that a resumed engine may have differently: they shape nothing that is stored.
MAY_CHANGE = ("device", "chunk", "max_pending", "label_ttl", "init", "freeze_at", "outer_lr")
#: Outer steps start when this many tasks have been closed.
FIRST_TASKS = 2
#: Labels of the whole stream after which they come more rarely, and how many times; but every drift
#: allows some more: where much changes, learning to adapt is worth its time.
SETTLED, PATIENCE, EACH_DRIFT = 4096, 16, 8
#: Newest tasks that say what has been learned about adapting.
LOOKED_AT = 64


class Statistics(NamedTuple):
    """A look inside, for metrics, progress and dashboards.

    ``weights``: mixture weight of each family of experts, of the key that was seen first.
    ``inner_lr``: least, mean and greatest inner rate. ``segment_rows``: labelled rows of that key's
    segment, and ``evidence``: by detector what it is about to find and what it takes, where it
    has such figures. ``contexts``: past segments that would be known again.
    """

    rows: int
    pending: int
    keys: int
    segments: int
    tasks: int
    meta_updates: int
    weights: dict[str, float]
    inner_lr: tuple[float, float, float]
    device: str
    segment_rows: int = 0
    contexts: int = 0
    evidence: dict[str, tuple[float, float]] = {}  # noqa: RUF012 - nobody writes to it


class Engine:
    """Predicts every event before its label, notices drift, adapts, and learns to adapt.

    ``predict`` and ``learn`` serve one event; ``observe`` takes any number of events, in chunks
    of ``config.chunk``; ``replay`` takes the outer steps that are due. Replay after every
    ``observe`` of at most a chunk gives the same states however the stream was cut.

    Raises:
        ConfigError: ``config.task`` is still ``auto``, or names something that does not exist.

    >>> engine = Engine(ModelConfig(task="classification"))
    >>> for t in range(300):
    ...     x = t * t % 23
    ...     outputs = engine.learn({"x": x}, "high" if x > 11 else "low")
    >>> engine.predict({"x": 21}), engine.predict({"x": 3})
    ('high', 'low')
    """

    def __init__(self, config: ModelConfig) -> None:
        if config.task == "auto":
            raise ConfigError("model.task is 'auto'; expected classification or regression here")
        self.config = config
        self.lap: core.Lap = core.untimed  # who wants to know how long stages take may set it
        self.task: Task = "regression" if config.task == "regression" else "classification"
        self.state = State.fresh(config)
        self.meta: MetaParameters | None = None
        self.partner: MetaParameters | None = None
        # what cannot work is said now, not at the first event
        self.state.segmenter()
        pick_device(config.device)
        for name in config.families:
            try:
                find("families", name)
                if ":" in name:  # it may not be made for the task
                    make_family(name, Space(1, 1, 1, self.state.task))
            except (UsageError, ImportError, AttributeError) as error:
                raise ConfigError(f"model.experts: {error}") from None
        for field, name in zip(("learner", "partner"), config.learners, strict=False):
            try:
                MetaParameters.fresh(self._config_of(name), Net((1, *config.hidden, 1)), self.task)
            except UsageError as error:
                raise ConfigError(f"model.{field}: {error}") from None
        if config.init is not None and not Path(config.init).is_file():
            raise ConfigError(f"model.init: {config.init} does not exist")
        if config.chooser is not None:
            self.state.policy = Policy.read(config.chooser)

    def predict(self, x: Mapping[str, Value], *, key: str = "") -> Label | None:
        """The prediction for ``x``; changes nothing. ``None`` before the first label."""
        return self.answers([x], key=key)[0][0]

    def answers(self, rows: Sequence[Mapping[str, Value]], *, key: str = "") -> list[Answer]:
        """For each of ``rows`` the prediction and, in classification, the probability of every
        class seen so far; changes nothing. (``None``, ``None``) before the first label.

        Raises:
            RejectedEvent: a value cannot be used.
        """
        return core.answers(self.state, rows, key)

    def adapt(self, key: str = "") -> list[Output]:
        """Adapt now, whatever the detectors say: two challengers from the meta-parameters, on the
        newest rows of the segment of ``key``, as at a drift. What they are worth the weights say.

        Nothing happens (an empty list) where nobody can be adapted: before the key's first label,
        after ``freeze_at``, or without challengers in the config.
        """
        return core.adapt(self.state, key, self.metas)

    def learn(self, x: Mapping[str, Value], y: Label, *, key: str = "") -> list[Output]:
        """Answer ``x``, then learn its label, then take the outer steps that are due."""
        event = Event(f"learn:{self.state.rows}", x, y, key)
        return self.observe([event]) + self.replay()

    def observe(self, events: Sequence[Event]) -> list[Output]:
        """Answer questions and learn labels in order; faulty events become ``Rejected``."""
        outputs: list[Output] = []
        size = self.config.chunk
        for start in range(0, len(events), size):
            core.settle(self.state)
            self.state, made = core.step(
                self.state, events[start : start + size], self.metas, self.lap
            )
            if self.state.allocated:
                self._keep_up()
            outputs += made
        return outputs

    def replay(self, most: int | None = None) -> list[Output]:
        """What there is time for between events: finish what ended segments have left to do, and
        take the outer steps that are due by the number of labels learned, at most ``most`` now."""
        state, c = self.state, self.config
        core.settle(state)
        if not (c.replay and c.meta_every) or self.meta is None or core.frozen(state):
            return []
        if len(state.bank.challengers) < 2 or c.challenger_init == "random":
            return []  # nobody would ever read the meta-parameters
        due = state.labels // c.meta_every
        if due <= state.outer_steps:
            return []
        settled = max(0, state.labels - SETTLED)
        if settled:
            early = (state.labels - settled) // c.meta_every
            later = settled // (c.meta_every * PATIENCE) + state.drifts * EACH_DRIFT
            due = min(due, early + later)
        if state.memory.seen < FIRST_TASKS:
            state.outer_steps = due  # nothing to learn from yet, and nothing owed for it later
        outputs: list[Output] = []
        for _ in range(due - state.outer_steps)[:most]:
            state.outer_steps += 1
            outputs += self._outer_step()
        return outputs

    @property
    def metas(self) -> tuple[MetaParameters, ...]:
        """The meta-parameters of the learner, and of its partner where there is one."""
        return tuple(meta for meta in (self.meta, self.partner) if meta is not None)

    @property
    def learned(self) -> dict[str, MetaParameters]:
        """The same by name; nothing before the first label."""
        return dict(zip(self.config.learners, self.metas, strict=False))

    def _keep_up(self) -> None:
        """Meta-parameters come to be, and find room for new classes."""
        state = self.state
        if self.meta is None:
            self._take([self._first_meta(name) for name in self.config.learners])
        elif state.n_classes > max(self.meta.n_classes, 1):
            self._take([meta.matching(state.net, state.n_classes) for meta in self.metas])

    def _outer_step(self) -> list[MetaUpdated]:
        state, c = self.state, self.config
        tasks = state.memory.draw(c.tasks_per_update, state.rng)
        support = state.rng.integers(1, c.support + 1, len(tasks.key))
        x, y = units.standard_tasks(state, tasks)
        parts = pose(x, y, support, np.full_like(support, c.query), c.support)
        n, metas, outputs = len(tasks.key), [], []
        for meta, name in zip(self.metas, c.learners, strict=True):
            meta, info = meta.matching(state.net, state.n_classes).update(parts, state.n_classes)
            metas.append(meta)
            outputs.append(
                MetaUpdated(
                    state.rows, meta.updates, n - info.skipped, info.loss, info.gradient_norm,
                    info.skipped, name,
                )
            )  # fmt: skip
        self._take(metas)
        return outputs

    def _take(self, metas: Sequence[MetaParameters]) -> None:
        self.meta, self.partner = metas[0], metas[1] if len(metas) > 1 else None

    def _config_of(self, learner: str) -> ModelConfig:
        """The config as the learner or its partner reads it."""
        if learner == self.config.learner:
            return self.config
        # options about inner steps are for the learner: its partner may take none
        outer = OuterConfig(modulation=self.config.outer.modulation)
        return self.config.model_copy(update={"learner": learner, "outer": outer})

    def _first_meta(self, name: str) -> MetaParameters:
        """Of the learner or its partner; from the file of ``config.init`` where it has them."""
        init = self.config.init
        meta = MetaParameters.fresh(self._config_of(name), self.state.net, self.task)
        if init is None or (name != self.config.learner and not holds(init, name)):
            return meta
        return read_initial(init, name, meta)

    def statistics(self) -> Statistics:
        """A look inside; cheap enough to take once a second."""
        state = self.state
        weights: dict[str, float] = {}
        if state.keys:
            shares = mixture.weights(state.log_weights[0], state.bank.live[0])
            for name, share in zip(state.member_names, shares.tolist(), strict=True):
                family = name.partition("@")[0].partition("-")[0]
                family = SIMPLE if name in SIMPLE_MEMBERS else family
                weights[family] = weights.get(family, 0.0) + share
        rates = self.meta.rates() if self.meta else (self.config.inner_lr,) * 3
        return Statistics(
            rows=state.rows,
            pending=len(state.pending),
            keys=len(state.keys),
            segments=sum(s.segment + 1 for s in state.segmenters),
            tasks=len(state.memory) if state.allocated else 0,
            meta_updates=self.meta.updates if self.meta else 0,
            weights=weights,
            inner_lr=rates,
            device=str(self.meta.device) if self.meta else self.config.device,
            segment_rows=int(state.segment_labels[0]) if state.keys else 0,
            contexts=state.references.kept if state.allocated else 0,
            evidence=state.segmenters[0].evidence() if state.segmenters else {},
        )

    def insights(self) -> tuple[Insight, ...]:
        """What the learner and its partner have learned about adapting, by the newest tasks;
        changes nothing, and is empty before there are any."""
        state, c = self.state, self.config
        if not state.allocated or not state.memory.seen:
            return ()
        newest = max(0, state.memory.seen - min(state.memory.part, LOOKED_AT))
        x, y = units.standard_tasks(state, state.memory.since(newest))
        x, y = x[:, : c.support], y[:, : c.support]
        columns = units.columns_of_inputs(state)
        return tuple(
            insight(name, meta.matching(state.net, state.n_classes), x, y, state.n_classes, columns)
            for name, meta in zip(c.learners, self.metas, strict=True)
        )

    def snapshot(self) -> Snapshot:
        """Everything needed to go on elsewhere, bit by bit on the CPU."""
        tensors, info, blobs = self.state.to_parts()
        info = {"schema": SCHEMA, "config": self.config.model_dump(mode="json"), **info}
        for name, meta in zip(PARTS, self.metas, strict=False):
            tensors = {**tensors, **{f"{name}/{n}": a for n, a in meta.tensors().items()}}
            info[name] = {
                "n_classes": meta.n_classes,
                "updates": meta.updates,
                "outputs": meta.net.sizes[-1],
            }
        if self.state.policy is not None:  # its file may be another one when this is restored
            kept = self.state.policy.tensors()
            tensors = {**tensors, **{f"policy/{n}": a for n, a in kept.items()}}
            info["policy"] = list(self.state.policy.kinds)
        return Snapshot({n: np.array(a) for n, a in tensors.items()}, copy.deepcopy(info), blobs)

    @classmethod
    def restore(cls, config: ModelConfig, snapshot: Snapshot) -> Engine:
        """The engine that ``snapshot`` described.

        Raises:
            StoreError: another version of streammeta has made the snapshot, with another layout.
            ConfigError: it was made with another model.
        """
        found = snapshot.info.get("schema")
        if found != SCHEMA:
            age = "an older" if isinstance(found, int) and found < SCHEMA else "another"
            raise StoreError(
                f"the model in this commit was written by {age} version of streammeta (its schema "
                f"is {found}, this version reads {SCHEMA}): go on with that version, or run with "
                f"--new-model to go on at the same place in the stream with a new model, or with "
                f"--fresh to begin again"
            )
        _check_config(config, snapshot.info["config"])
        engine = cls(config)
        info: dict[str, Any] = snapshot.info
        policy = None
        if info.get("policy") is not None:
            parts = {n.removeprefix("policy/"): a for n, a in snapshot.tensors.items()
                     if n.startswith("policy/")}  # fmt: skip
            policy = Policy(tuple(info["policy"]), **parts)
        engine.state = State.from_parts(config, snapshot.tensors, info, snapshot.blobs, policy)
        learners = (*config.learners, config.learner)  # without a partner none was kept
        engine.meta, engine.partner = (
            engine._kept_meta(snapshot, part, name)
            for part, name in zip(PARTS, learners, strict=False)
        )
        return engine

    def _kept_meta(self, snapshot: Snapshot, part: str, name: str) -> MetaParameters | None:
        kept = snapshot.info.get(part)
        if kept is None:
            return None
        start = f"{part}/"
        parts = {
            n.removeprefix(start): a for n, a in snapshot.tensors.items() if n.startswith(start)
        }
        # the meta-parameters may not have met the newest classes yet
        net = Net((*self.state.net.sizes[:-1], kept["outputs"]))
        fresh = MetaParameters.fresh(self._config_of(name), net, self.task)
        return fresh.with_tensors(parts, kept["n_classes"], kept["updates"])


def _check_config(config: ModelConfig, kept: dict[str, Any]) -> None:
    """Refuse to go on with another model than the one that was stopped."""
    now = config.model_dump(mode="json")
    changed = [
        f"{name} was {kept.get(name)!r} and is {now[name]!r}"
        for name in now
        if name not in MAY_CHANGE and kept.get(name) != now[name]
    ]
    if changed:
        raise ConfigError(
            f"model: cannot resume with another configuration ({'; '.join(changed)}); "
            "put it back, or run with --new-model to go on at the same place with a new model, or "
            "with --fresh to begin again"
        )
