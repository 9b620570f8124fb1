"""Everything the loop carries from one event to the next, stacked over keys."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drift import DETECTORS, Segmenter, default_detectors
from drift.stacked import start_of
from streammeta import pooling
from streammeta.config import EXPERTS, ModelConfig
from streammeta.encode import ColumnMap
from streammeta.errors import ConfigError, StoreError, UsageError
from streammeta.events import Label
from streammeta.experts.bank import Bank, Table, boxed_bank
from streammeta.experts.choosing import make_family
from streammeta.experts.family import KEYS, PAST, Family, Space, World, boxed_world
from streammeta.experts.kernels import CLASSIFICATION, REGRESSION, let_read
from streammeta.guard import FIRST_GAP, GUARDED
from streammeta.lags import AHEAD, AT_BIRTH, READ
from streammeta.meta.choice import Policy
from streammeta.meta.net import Net
from streammeta.meta.traces import Traces
from streammeta.mixture import VARIANCE_AT_BIRTH
from streammeta.pending import Ended, Pending
from streammeta.reference import References
from streammeta.registry import load
from streammeta.replay import SegmentRows, Sketch, TaskMemory
from streammeta.surprise import SIDES
from streammeta.together import BORROWED, LAG_COLUMNS, NATIVE, Frozen, Native, boxed_together

#: Outputs of a fresh network; doubled when more classes appear.
FIRST_OUTPUTS = 8
#: Members of the mixture that are not networks: the last label, and the running prior or mean.
SIMPLE_MEMBERS = ("persistence", "prior")
#: What these and the networks of the bank are called in a config.
SIMPLE, NETWORKS = EXPERTS[-1], EXPERTS[0]


@dataclass
class State:
    """The state of a stream; arrays have one row for each key.

    ``K`` keys, ``D`` raw columns (features, then lagged labels), ``M`` members of the mixture
    (the bank's experts, the families', then ``SIMPLE_MEMBERS``), ``O`` outputs.
    """

    config: ModelConfig
    rng: np.random.Generator
    columns: ColumnMap = field(default_factory=ColumnMap)
    keys: dict[str, int] = field(default_factory=dict)
    classes: list[Label] = field(default_factory=list)
    class_index: dict[Label, int] = field(default_factory=dict)
    key_names: list[str] = field(default_factory=list)
    segmenters: list[Segmenter] = field(default_factory=list)
    rows: int = 0
    labels: int = 0
    outer_steps: int = 0
    drifts: int = 0
    last_ts: float | None = None
    behind: int = 0  # newest events in a row that are too old to wait for a label
    #: keys with a segment that has ended, after which families have something left to do
    unsettled: set[int] = field(default_factory=set)
    policy: Policy | None = None  # that chooses at every drift
    traced: bool = False  # what a policy would be shown is kept without one, too

    def __post_init__(self) -> None:
        c = self.config
        self.task = REGRESSION if c.task == "regression" else CLASSIFICATION
        self.pending = Pending(c.max_pending, c.label_ttl)
        self.ended = Ended()
        self.allocated = False
        self.traces: Traces | None = None
        self._scaled_for = -1  # columns in use when ``scaled`` was made

    @classmethod
    def fresh(cls, config: ModelConfig) -> State:
        """The state before the first event."""
        return cls(config, np.random.default_rng(config.seed))

    @property
    def n_classes(self) -> int:
        """Classes seen so far; 1 for regression (one output)."""
        return 1 if self.task == REGRESSION else len(self.classes)

    @property
    def lag_width(self) -> int:
        """Raw columns taken by lagged labels."""
        return self.config.lags * (1 if self.task == REGRESSION else LAG_COLUMNS)

    def allocate(self, outputs: int | None = None) -> None:
        """Fix the shapes, once the columns are known, with room for one key."""
        c = self.config
        if outputs is None:
            outputs = 1 if self.task == REGRESSION else FIRST_OUTPUTS
        self.chances = start_of(c.seed)  # of what is rehearsed
        self.width = self.columns.width + self.lag_width
        self.scaled = np.zeros(self.width)
        self.class_count = np.array([self.n_classes])
        self.net = Net((self.width, *c.hidden, outputs))
        challengers = 0 if c.on_drift == "reset" else c.challengers
        learners = c.learners if challengers else ()
        scouts = tuple(f"scout-{name}@{rows}" for name in learners for rows in c.scouts)
        hatted = self.width if self.task == REGRESSION else self.columns.width
        lagged = self.lag_width
        space = Space(self.width, hatted, outputs, self.task, c.seed, c.replay, lagged, c.doubt)
        self.families: list[Family] = [make_family(name, space) for name in c.families]
        of_families = sum(len(family.names) for family in self.families)
        others = of_families + len(SIMPLE_MEMBERS)
        rates, replay = (c.rates, c.replay) if NETWORKS in c.experts else ((), False)
        self.bank = Bank(self.net, self.task, rates, replay, challengers, scouts, others)
        named = [name for family in self.families for name in family.names]
        first = len(self.bank.rates)
        self.native = Native.among(self.families, space)
        self.places = self.native.places(self.families, first)
        #: families that are not compiled, and where their members begin
        self.foreign: list[tuple[int, Family]] = []
        for family in self.families:
            if type(family) not in NATIVE:
                self.foreign.append((first, family))
            first += len(family.names)
        #: of the mixture's members, in order
        self.member_names = [*self.bank.names, *named, *SIMPLE_MEMBERS]
        self.in_families = slice(len(self.bank.rates), len(self.bank.rates) + of_families)
        self.initial = self.net.init(np.random.default_rng(c.seed), len(self.bank.rates))
        self.memory = TaskMemory(c.memory, c.support + c.query, self.width)
        self.sketch = Sketch(self.width, 1 if self.task == REGRESSION else LAG_COLUMNS)
        self.segment_rows = SegmentRows(0, self.width)
        self.past = SegmentRows(0, self.width, PAST)
        self.references = References(self.net, self.width, self.task)
        n, m = 0, len(self.bank.rates) + others
        self.log_weights, self.slow_weights = np.zeros((n, m)), np.zeros((n, m))
        self.exponents = np.zeros((n, m + pooling.MIXTURES))
        self.squares = np.zeros_like(self.exponents)
        self.voices = np.zeros((n, pooling.VOICES))
        self.voice_variances = np.full((n, pooling.VOICES), VARIANCE_AT_BIRTH)
        self.voice_ages = np.zeros((n, pooling.VOICES), np.int64)
        self.startled = np.zeros(n, np.bool_)
        self.trust = np.zeros((n, SIDES))
        self.trust_variances = np.full((n, SIDES), VARIANCE_AT_BIRTH)
        self.trust_ages = np.zeros((n, SIDES), np.int64)
        self.guard_losses, self.guard_gap = np.zeros((n, GUARDED)), np.full((n, 1), FIRST_GAP)
        self.variances = np.full((n, m), VARIANCE_AT_BIRTH)
        self.ages = np.zeros((n, m), np.int64)
        self.counts = np.zeros((n, self.width))
        self.means = np.zeros((n, self.width))
        self.spreads = np.zeros((n, self.width))
        self.y_moments = np.zeros((n, 3))  # count, mean, variance
        self.y_range = np.zeros((n, 2))
        self.scales = np.zeros(n)
        self.lags = np.full((n, max(1, c.lags)), np.nan)
        self.transitions = np.zeros((n, outputs, outputs))
        self.prior = np.zeros((n, outputs))
        self.units = np.zeros((n, 2))
        self.segment = np.zeros(n, np.int64)
        self.segment_start = np.zeros(n, np.int64)
        self.segment_labels = np.zeros(n, np.int64)
        self.hosts = np.full((n, 2), -1, np.int64)
        if self.traced or self.policy is not None:
            self.traces = Traces(n, m)
        self.pool_weights = np.zeros(m)
        self.pool_y = np.zeros(3)  # as y_moments, of all keys together
        self.worth = np.array(AT_BIRTH)
        if c.lags_read == "always":
            self.worth[AHEAD] = np.inf
        self.allocated = True
        self.learn_columns()
        self._box()

    #: What ``_box`` makes.
    BOXES = ("world", "networks", "beliefs", "together")
    #: Arrays with a leading key axis that are the state's own, and what fills a new row. ``units``
    #: are what ``streammeta.units.units`` said last, and not stored.
    STACKED = (
        "log_weights", "slow_weights", "exponents", "squares", "voices", "voice_variances",
        "voice_ages", "startled", "trust", "trust_variances", "trust_ages", "guard_losses",
        "guard_gap", "variances", "ages", "counts", "means", "spreads", "y_moments", "y_range",
        "scales", "lags", "transitions", "prior", "units", "segment", "segment_start",
        "segment_labels", "hosts",
    )  # fmt: skip
    #: Arrays without a key axis: what a young key borrows from all the others, and what all keys
    #: decide together.
    POOLED = ("pool_weights", "pool_y", "worth")
    FILL = {  # noqa: RUF012
        "lags": np.nan, "hosts": -1, "units": (0.0, 1.0), "y_range": (np.inf, -np.inf),
    }  # fmt: skip

    def learn_columns(self) -> None:
        """``scaled (D,)`` <- 1 where a raw column is standardised, where more are in use now."""
        columns = self.columns
        if self._scaled_for != columns.used:
            self.scaled[: columns.width] = columns.scaled
            let_read(self.scaled, columns.width, self.task, bool(self.worth[READ]))
            self._scaled_for = columns.used

    def _box(self) -> None:
        """What compiled code reads, in boxes that share all arrays; after any was replaced."""
        past, rows, bank = self.past, self.segment_rows, self.bank
        self.world = boxed_world(World(
            self.scaled, self.counts, self.means, self.spreads, self.units, self.class_count,
            past.raw, past.y, past.row, past.count, past.inside, self.task,
        ))  # fmt: skip
        self.networks = boxed_bank(Table(
            bank.theta, bank.second, bank.steps, bank.rates, bank.live, bank.learns,
            bank.rehearses, bank.sizes, rows.raw, rows.y, rows.row, rows.count, rows.inside,
            rows.open,
        ))  # fmt: skip
        self.beliefs = pooling.boxed_beliefs(pooling.Beliefs(
            self.log_weights, self.slow_weights, self.exponents, self.squares, self.voices,
            self.voice_variances, self.voice_ages, self.variances, self.ages, bank.live,
            bank.births, self.startled, self.trust, self.trust_variances, self.trust_ages,
            self.guard_losses, self.guard_gap, self.lags, self.transitions, self.prior,
        ))  # fmt: skip
        known = self.references
        frozen = Frozen(
            known.theta, known.means, known.spreads, known.scaled, known.about, known.loss
        )
        scouts = np.array([bank.scouts.start, bank.scouts.stop])
        self.together = boxed_together(
            (self.beliefs, self.world, self.networks), frozen, self.native, self.places,
            (self.y_moments, self.pool_y, self.y_range, self.scales, self.segment_labels, scouts,
             self.worth),
            self.config.lags, self.chances, self.config.replay,
        )  # fmt: skip

    def __getstate__(self) -> dict[str, Any]:
        return {n: v for n, v in vars(self).items() if n not in self.BOXES}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self.allocated:
            self._box()  # a copy has arrays of its own

    def key_index(self, name: str) -> int:
        """The row of a key; a new key starts from the same initial networks as all others."""
        index = self.keys.get(name)
        if index is None:
            index = self.keys[name] = len(self.keys)
            self.key_names.append(name)
            if index >= len(self.segment):
                self._grow_keys(max(1, 2 * index))
            self.start(index)
            self.segment_start[index] = self.rows
            self.segmenters.append(self.segmenter())
        return index

    def start(self, key: int) -> None:
        """(Re)start every expert of a key, and what is made of them."""
        self.bank.start(key, self.initial, self.rows)
        self.log_weights[key] = self.slow_weights[key] = self.voices[key] = 0.0
        self.variances[key] = self.voice_variances[key] = VARIANCE_AT_BIRTH
        self.ages[key] = self.voice_ages[key] = self.trust_ages[key] = 0
        self.startled[key], self.trust[key] = False, 0.0
        self.trust_variances[key] = VARIANCE_AT_BIRTH
        self.guard_losses[key], self.guard_gap[key] = 0.0, FIRST_GAP
        if "guard" not in self.config.corrections:
            self.guard_losses[key, 1:] = np.inf  # who is never better than the model
        self.exponents[key], self.squares[key] = pooling.fresh(self.log_weights.shape[1])
        if key < KEYS:
            self.past.count[key] = self.past.inside[key] = 0
            place = self.in_families.start
            for family in self.families:
                family.start(key)
                here = slice(place, place + len(family.names))
                self.bank.live[key, here] = family.awake(key)
                place = here.stop
        else:
            self.bank.live[key, self.in_families] = False
        if SIMPLE not in self.config.experts:
            self.bank.live[key, -len(SIMPLE_MEMBERS) :] = False

    def leaning(self, key: int) -> NDArray[np.float64]:
        """Log weights ``(M,)`` of the quick mixture of a key; a young one leans on the others."""
        own: NDArray[np.float64] = self.log_weights[key]
        if len(self.keys) < 2:
            return own
        n = float(self.ages[key, -1])  # labels that the mixture has been judged on
        leaning: NDArray[np.float64] = (n * own + BORROWED * self.pool_weights) / (n + BORROWED)
        return leaning

    def segmenter(self) -> Segmenter:
        """A fresh segmenter with the detectors of the configuration.

        Raises:
            ConfigError: no such detector, or one that cannot read this task's signal.
        """
        kind = "regression" if self.task == REGRESSION else "classification"
        names = self.config.detectors
        if not names and self.config.known_drifts is None:
            names = default_detectors(kind)
        signal = "ratio" if self.task == REGRESSION else "error"
        try:
            detectors = [
                n if n in (*DETECTORS, "bank") or "(" in n or ":" in n else load("detectors", n)()
                for n in names
            ]
            return Segmenter(
                detectors, signal, seed=self.config.seed, expected=self.config.false_alarm_every
            )
        except (ValueError, UsageError) as error:
            raise ConfigError(f"model.detectors: {error}") from None

    def _grow_keys(self, keys: int) -> None:
        self.bank.grow_keys(keys)
        for name in self.STACKED:
            old = getattr(self, name)
            new = np.full((keys, *old.shape[1:]), self.FILL.get(name, 0), old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)
        self.segment_rows = self.segment_rows.grown(keys)
        self.past = self.past.grown(min(keys, KEYS))
        for family in self.families:
            family.grow_keys(keys)
        self.references.grow_keys(keys)
        if self.traces is not None:
            self.traces.grow_keys(keys)
        self._box()

    def add_class(self, label: Label) -> int:
        """The index of a class; an unseen one takes the next output."""
        index = self.class_index.get(label)
        if index is None:
            index = self.class_index[label] = len(self.classes)
            self.classes.append(label)
            if index >= self.net.sizes[-1]:
                self._widen_outputs()
            self.bank.seed_class(index)
            for family in self.families:
                family.seed_class(index)
            self.class_count[0] = self.n_classes
        return index

    def _widen_outputs(self) -> None:
        outputs = 2 * self.net.sizes[-1]
        wide = Net((*self.net.sizes[:-1], outputs))
        self.bank.widen_outputs(wide)
        for family in self.families:
            family.widen_outputs(outputs)
        self.references.widen_outputs(wide)
        self.initial = wide.init(np.random.default_rng(self.config.seed), len(self.bank.rates))
        self.net = wide
        pad = outputs - self.prior.shape[1]
        self.prior = np.pad(self.prior, ((0, 0), (0, pad)))
        self.transitions = np.pad(self.transitions, ((0, 0), (0, pad), (0, pad)))
        self._box()

    # -- snapshots ---------------------------------------------------------------------------

    def to_parts(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any], dict[str, bytes]]:
        """Tensors, JSON and blobs from which ``from_parts`` makes an equal state."""
        info: dict[str, Any] = {
            "rng": self.rng.bit_generator.state,
            "keys": self.keys,
            "classes": self.classes,
            "rows": self.rows,
            "labels": self.labels,
            "outer_steps": self.outer_steps,
            "unsettled": sorted(self.unsettled),
            "last_ts": self.last_ts,
            "behind": self.behind,
            "columns": self.columns.to_info(),
            "allocated": self.allocated,
        }
        blobs = {f"segmenter/{i}": s.state() for i, s in enumerate(self.segmenters)}
        if not self.allocated:
            return {}, info, blobs
        stored = [name for name in self.STACKED + self.POOLED if name != "units"]
        tensors = {f"state/{n}": getattr(self, n) for n in stored}
        tensors |= {f"bank/{n}": a for n, a in self.bank.tensors().items()}
        tensors |= {f"rows/{n}": getattr(self.segment_rows, n) for n in SegmentRows.FIELDS}
        tensors |= {f"past/{n}": getattr(self.past, n) for n in SegmentRows.FIELDS}
        for family in self.families:
            tensors |= {f"{family.names[0]}/{n}": a for n, a in family.tensors().items()}
        if self.traces is not None:
            tensors |= {f"traces/{n}": a for n, a in self.traces.tensors().items()}
        tensors |= {f"memory/{n}": getattr(self.memory, n) for n in TaskMemory.FIELDS}
        kept, contexts = self.references.to_parts()
        tensors |= {f"reference/{n}": a for n, a in kept.items()}
        waiting, questions = self.pending.to_parts()
        tensors |= {f"pending/{n}": a for n, a in waiting.items()}
        tensors["ended"] = self.ended.to_array()
        info |= {
            "memory": self.memory.to_info(),
            "pending": questions,
            "contexts": contexts,
            "outputs": self.net.sizes[-1],
        }
        return tensors, info, blobs

    @classmethod
    def from_parts(
        cls,
        config: ModelConfig,
        tensors: dict[str, NDArray[Any]],
        info: dict[str, Any],
        blobs: dict[str, bytes],
        policy: Policy | None = None,
    ) -> State:
        """The state that ``to_parts`` described."""
        state = cls.fresh(config)
        state.policy = policy
        state.rng.bit_generator.state = copy.deepcopy(info["rng"])
        state.columns = ColumnMap.from_info(info["columns"])
        state.rows, state.labels, state.last_ts = info["rows"], info["labels"], info["last_ts"]
        state.outer_steps, state.unsettled = info["outer_steps"], set(info["unsettled"])
        state.behind = info["behind"]
        state.classes = list(info["classes"])
        state.class_index = {label: i for i, label in enumerate(state.classes)}
        state.keys = dict(info["keys"])
        state.key_names = list(state.keys)
        for i in range(len(state.keys)):
            segmenter = state.segmenter()
            try:
                segmenter.load(blobs[f"segmenter/{i}"])
            except ValueError as error:
                raise StoreError(str(error)) from None
            state.segmenters.append(segmenter)
        if not info["allocated"]:
            return state
        state.allocate(info["outputs"])
        state.drifts = int(tensors["state/segment"].sum())
        state._grow_keys(len(tensors["state/segment"]))
        homes: dict[str, Any] = {
            "state": state, "bank": state.bank, "rows": state.segment_rows,
            "past": state.past, "memory": state.memory, "traces": state.traces,
        }  # fmt: skip
        for name, array in tensors.items():
            home, _, attribute = name.partition("/")
            if home in homes:
                setattr(homes[home], attribute, array.copy())
        let_read(state.scaled, state.columns.width, state.task, bool(state.worth[READ]))
        state.memory.seen = info["memory"]["seen"]
        state.ended.load_array(tensors["ended"])
        for family in state.families:
            family.load(_parts(tensors, f"{family.names[0]}/"))
        for home, fill, rows in (
            ("pending/", state.pending.load_parts, info["pending"]),
            ("reference/", state.references.load_parts, info["contexts"]),
        ):
            fill(_parts(tensors, home), rows)
        state._box()
        return state


def _parts(tensors: dict[str, NDArray[Any]], home: str) -> dict[str, NDArray[Any]]:
    """Those whose names begin with ``home``, by the rest of their names."""
    return {n.removeprefix(home): a for n, a in tensors.items() if n.startswith(home)}
