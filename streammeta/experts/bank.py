"""A bank of small networks per key: online at several rates, with replay, and adapted ones."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from drift.compiled import njit
from streammeta.boxed import Box
from streammeta.encode import CLIP
from streammeta.experts import kernels
from streammeta.meta.net import Net, refit, seed_class

Floats = NDArray[np.float64]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: Rows of a rehearsal: the newest and others of its segment; and labels from one to the next.
REHEARSAL, REST = 8, 2
#: Step sizes of the experts that also rehearse rows of the current segment.
REPLAY_RATES = (3e-3,)
#: Step sizes with which challengers go on learning once they are on their own.
CHALLENGER_RATES = (3e-3, 3e-3)
#: A primed second moment is trusted as if it came from this many steps.
PRIMED_STEPS = 5_000


class Table(NamedTuple):
    """What compiled code reads of a bank, and of the newest rows of the segment of each key:
    ``raw (K, R, D)``, ``y (K, R)``, ``row (K, R)``, ``inside`` and ``open (K,)`` of
    ``streammeta.replay.SegmentRows``, and its ``count (K,)`` as ``seen``."""

    theta: NDArray[np.float32]
    second: NDArray[np.float32]
    steps: I64
    rates: NDArray[np.float32]
    live: Flags
    learns: Flags
    rehearses: Flags
    sizes: I64
    raw: Floats
    y: Floats
    row: I64
    seen: I64
    inside: I64
    open: I64


@njit(cache=True, nogil=True)
def boxed_bank(table: Table) -> Box:
    """For compiled code."""
    return Box(table)  # type: ignore[no-untyped-call]


class Bank:
    """Stacked networks: parameters ``(K, E, P)``, one row of ``E`` experts for each key.

    Experts come in the order online, replay, challengers, scouts. ``live (K, M)``: takes part;
    ``learns (K, E)``: takes online steps; ``rehearses (K, E)``: takes steps on rows of the current
    segment instead; ``births (K, M)``: the row it was born at. Of the M members E are its own, and
    the others come after them.
    """

    FIELDS = ("theta", "second", "steps", "live", "learns", "rehearses", "births")

    def __init__(
        self,
        net: Net,
        task: int,
        rates: tuple[float, ...],
        replay: bool,
        challengers: int,
        scouts: tuple[str, ...] = (),
        others: int = 0,
    ) -> None:
        self.net = net
        self.task = task
        self.others = others
        self.sizes = np.array(net.sizes, np.int64)
        replay_rates = REPLAY_RATES if replay else ()
        late = [CHALLENGER_RATES[i % len(CHALLENGER_RATES)] for i in range(challengers)]
        waiting = [0.0] * len(scouts)  # they never take a step of their own
        self.rates = np.array([*rates, *replay_rates, *late, *waiting], np.float32)
        self.online = slice(0, len(rates))
        self.rehearsing = slice(len(rates), len(rates) + len(replay_rates))
        self.scouts = range(len(self.rates) - len(scouts), len(self.rates))
        self.challengers = range(self.rehearsing.stop, self.scouts.start)
        self.names = [f"mlp@{r:g}" for r in rates]
        self.names += [f"replay@{r:g}" for r in replay_rates]
        self.names += [f"challenger-{i + 1}" for i in range(challengers)]
        self.names += scouts
        self._allocate(0)

    def _allocate(self, keys: int) -> None:
        shape = (keys, len(self.rates))
        self.theta = np.zeros((*shape, self.net.n_params), np.float32)
        self.second = np.zeros_like(self.theta)
        self.steps = np.zeros(shape, np.int64)
        members = (keys, len(self.rates) + self.others)
        self.live = np.zeros(members, np.bool_)
        self.learns = np.zeros(shape, np.bool_)
        self.rehearses = np.zeros(shape, np.bool_)
        self.births = np.zeros(members, np.int64)

    def grow_keys(self, keys: int) -> None:
        """Room for ``keys`` keys; what is there stays."""
        for field in self.FIELDS:
            old = getattr(self, field)
            new = np.zeros((keys, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            setattr(self, field, new)

    def start(self, key: int, theta: NDArray[np.float32], row: int) -> None:
        """(Re)start every expert of ``key`` but the adapted ones from ``theta (E, P)``."""
        n = self.rehearsing.stop
        self.theta[key, :n] = theta[:n]
        self.second[key] = 0.0
        self.steps[key] = 0
        self.live[key] = False
        self.live[key, :n] = True
        self.live[key, len(self.rates) :] = True
        self.learns[key] = False
        self.learns[key, self.online] = True
        self.rehearses[key] = False
        self.rehearses[key, self.rehearsing] = True
        self.births[key] = row

    def place(
        self,
        key: int,
        expert: int,
        theta: NDArray[np.float32],
        rows: NDArray[np.float32],
        targets: NDArray[np.float32],
        n_classes: int,
        role: str,
    ) -> None:
        """Put ``theta (P,)`` in a slot; ``role`` says how it goes on: ``waits`` (for its next
        adaptation), ``learns`` or ``rehearses``. ``rows`` then prime its step sizes."""
        self.theta[key, expert] = theta
        self.live[key, expert] = True
        self.learns[key, expert] = role == "learns"
        self.rehearses[key, expert] = role == "rehearses"
        if role != "waits":
            kernels.prime_second(
                self.theta[key, expert],
                self.second[key, expert],
                self.sizes,
                rows,
                targets,
                n_classes,
                self.task,
            )
            self.steps[key, expert] = PRIMED_STEPS

    def widen_outputs(self, net: Net) -> None:
        """Move every network to ``net``, which differs in having more outputs."""
        for field in ("theta", "second"):
            setattr(self, field, refit(getattr(self, field), self.net, net))
        self.net = net
        self.sizes = np.array(net.sizes, np.int64)

    def seed_class(self, index: int) -> None:
        """Class ``index`` starts from the mean of the classes before it, in every network."""
        seed_class(self.theta, self.net, index)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Name to array, for a snapshot."""
        return {field: getattr(self, field) for field in self.FIELDS}


@njit(cache=True, nogil=True, error_model="numpy")
def _standard(world: Box, key: int, raw: Floats) -> NDArray[np.float32]:
    w = world.of
    rows = np.empty(raw.shape, np.float32)
    kernels.standardise(raw, w.scaled, w.means[key], w.spreads[key], CLIP, rows)
    return rows


@njit(cache=True, nogil=True, error_model="numpy")
def ask_bank(bank: Box, world: Box, key: int, raw: Floats, out: Floats) -> None:
    """``out (n, M, O)`` <- in its first E rows, what live experts say to raw rows ``(n, D)``."""
    b, w = bank.of, world.of
    said = np.zeros((len(raw), b.theta.shape[1], out.shape[2]), np.float32)
    kernels.predict_bank(b.theta[key], b.live[key], b.sizes, _standard(world, key, raw),
                         w.n_classes[0], w.task, said)  # fmt: skip
    out[:, : said.shape[1]] = said


@njit(cache=True, nogil=True, error_model="numpy")
def learn_bank(bank: Box, world: Box, key: int, raw: Floats, target: float) -> None:
    """One step on a row ``(D,)`` of those experts that learn online."""
    b, w = bank.of, world.of
    y = np.full(1, (target - w.units[key, 0]) / w.units[key, 1], np.float32)
    rows = _standard(world, key, raw.reshape(1, len(raw)))
    kernels.learn_rows(b.theta[key], b.second[key], b.steps[key], b.rates, b.learns[key], b.sizes,
                       rows, y, w.n_classes[0], w.task)  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def rehearse(bank: Box, world: Box, key: int, chances: int) -> None:
    """One step of those experts that rehearse, at every ``REST``-th label, on the newest row of the
    segment and on others that are drawn from it (with replacement)."""
    b, w = bank.of, world.of
    inside, seen = b.inside[key], b.seen[key]
    if inside < REHEARSAL or seen % REST or not b.rehearses[key].any():
        return
    raw, y = np.empty((REHEARSAL, b.raw.shape[2])), np.empty(REHEARSAL, np.float32)
    slots = np.empty(REHEARSAL, np.int64)
    kernels.draw_slots(chances, seen, inside, b.raw.shape[1], slots)
    for i, slot in enumerate(slots):
        raw[i], y[i] = b.raw[key, slot], (b.y[key, slot] - w.units[key, 0]) / w.units[key, 1]
    kernels.learn_rows(b.theta[key], b.second[key], b.steps[key], b.rates, b.rehearses[key],
                       b.sizes, _standard(world, key, raw), y, w.n_classes[0], w.task)  # fmt: skip
