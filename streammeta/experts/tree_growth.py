"""How a tree grows: a leaf looks at its rows in the ring and is cut where they differ.

A tree is two arrays of one row per node. ``links (N, LINKS)``: the column that a node cuts (-1: a
leaf), its left child (the right one stands behind it), the side of rows without a value, the
newest row of a leaf, rows since it was last looked at, and rows that it had then.
``facts (N, FACTS + O)``: the cut, the gate (``tree_kernels``), and what a node has seen: rows, and
then rows of each class, or the mean and the sum of squares about it. ``marks (MARKS,)``: from which
row on a tree has rows, nodes ever used, the first free pair, whether it is at work, and a counter
that all its chances come from.

A leaf keeps no histogram: its rows are a list through the ring of the newest rows, newest first.
``before (R,)`` says how many rows before that of a slot the next one of the same leaf came, 0 where
the list ends. So cuts are chosen by the rows themselves, and both halves know at birth what is
known of theirs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from drift.stacked import drawn
from streammeta.experts.kernels import REGRESSION

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
I16 = NDArray[np.int16]
Flags = NDArray[np.bool_]

COLUMN, LEFT, BLANK, HEAD, UNSEEN, HELD, LINKS = 0, 1, 2, 3, 4, 5, 6
CUT, GATE, MASS, FACTS = 0, 1, 2, 3
BORN, USED, FREE, ACTIVE, CHANCE, MARKS = 0, 1, 2, 3, 4, 5

#: No leaf lies deeper.
DEPTH = 40
#: A leaf is looked at after so many rows, and when it has grown by this share.
GRACE, MORE = 20, 0.2
#: What is written where it is to be looked at as soon as a row comes.
AT_ONCE = 1 << 20
#: Newest rows of a leaf that are looked at, and values of them between which cuts may lie.
LOOK, EDGES = 1000, 16
#: Share of the columns that are looked at, drawn anew each time, and how many at most on average.
SUBSPACE, MOST = 0.7, 24.0
#: Rows that either side of a cut has at least.
LEAST = 3
#: Nats by which a cut must explain the rows better than no cut, and rows from which on any gain
#: will do: no column of an exclusive or is worth anything alone.
NEED, FORCED = 4.0, 400
#: Probability that a new cut is one too many: the gate at birth.
STOP = 0.2


@kernel()
def side_of(value: float, cut: float, blank: int) -> int:
    """0 left, 1 right."""
    if value <= cut:
        return 0
    return 1 if value == value else blank


@kernel()
def older(before: I16, at: int) -> int:
    """The row of the same leaf that came before row ``at``; -1 for none."""
    gap = before[at % len(before)]
    return at - gap if gap > 0 else -1


@kernel()
def put_before(before: I16, at: int, other: int) -> None:
    """Row ``other`` follows row ``at`` in the list of a leaf; negative: none does."""
    gap = at - other
    before[at % len(before)] = gap if other >= 0 and gap < len(before) else 0


@kernel()
def start_leaf(links: I64, facts: F64, node: int) -> None:
    """A leaf that has seen nothing."""
    links[node] = -1
    links[node, HELD] = 0
    links[node, UNSEEN] = AT_ONCE
    facts[node] = 0.0
    facts[node, GATE] = STOP


@kernel()
def add_row(f: F64, y: float, task: int) -> None:
    """One row more for a node ``f (FACTS + O,)``."""
    f[MASS] += 1.0
    if task == REGRESSION:
        gap = y - f[FACTS]
        f[FACTS] += gap / f[MASS]
        f[FACTS + 1] += gap * (y - f[FACTS])
    else:
        f[FACTS + int(y)] += 1.0


@kernel()
def count(s: F64, y: float, task: int) -> None:
    """One row more in ``s``: rows of each class, or rows, sum and sum of squares."""
    if task == REGRESSION:
        s[0] += 1.0
        s[1] += y
        s[2] += y * y
    else:
        s[int(y)] += 1.0


@kernel()
def purity(s: F64, n: float, task: int) -> float:
    """What a side adds to the merit of a cut: Gini's, or variance."""
    if task == REGRESSION:
        return float(s[1] * s[1] / n)
    total = 0.0
    for c in range(len(s)):
        total += s[c] * s[c]
    return float(total / n)


@kernel()
def likelihood(s: F64, n: float, task: int, floor: float) -> float:
    """Log likelihood of ``n`` rows under their own shares, or mean and variance (no constants)."""
    if task == REGRESSION:
        return float(-0.5 * n * np.log(max(s[2] / n - (s[1] / n) ** 2, floor)))
    total = 0.0
    for c in range(len(s)):
        if s[c] > 0.0:
            total += s[c] * np.log(s[c] / n)
    return float(total)


@kernel()
def gather(
    links: I64, before: I16, node: int, oldest: int, targets: F64, slots: I64, labels: F64
) -> int:
    """``slots``, ``labels`` <- the newest rows of a leaf and their targets; how many."""
    n, at = 0, links[node, HEAD]
    while at >= oldest and n < len(slots):
        slots[n] = at % len(before)
        labels[n] = targets[slots[n]]
        n += 1
        at = older(before, at)
    return n


@njit(cache=True, nogil=True, error_model="numpy")
def find_edges(values: F64, n: int, chance: int, out: F64) -> int:
    """``out`` <- some of the ``n`` values, ascending, none twice; how many. All of them where they
    are few, else one from each of ``EDGES`` parts, by lot."""
    found = 0
    for i in range(min(n, EDGES)):
        at = i if n <= EDGES else i * n // EDGES + drawn(chance + i, n // EDGES)
        value = values[at]
        if value != value:
            continue
        j = found - 1
        while j >= 0 and out[j] > value:
            j -= 1
        if j >= 0 and out[j] == value:
            continue
        for k in range(found - 1, j, -1):
            out[k + 1] = out[k]
        out[j + 1] = value
        found += 1
    return found


@kernel()
def fill_bins(
    values: F64, labels: F64, n: int, edges: F64, k: int, task: int, bins: F64, heavy: F64
) -> None:
    """``bins (k + 2, O)``, ``heavy (k + 2,)`` <- what lies up to each edge, above all of them, and
    has no value."""
    bins[: k + 2] = 0.0
    heavy[: k + 2] = 0.0
    for i in range(n):
        value = values[i]
        low, high = 0, k
        if value != value:
            low = high = k + 1
        while low < high:
            middle = (low + high) >> 1
            if value <= edges[middle]:
                high = middle
            else:
                low = middle + 1
        heavy[low] += 1.0
        count(bins[low], labels[i], task)


@njit(cache=True, nogil=True, error_model="numpy")
def best_cut(
    bins: F64, heavy: F64, k: int, total: F64, n: int, task: int, best: float, left: F64
) -> tuple[float, int, int]:
    """Merit, edge and side of the missing of the best cut above ``best``; edge -1 for none.
    ``left (O + 1,)`` <- what lies on its left, and how many rows."""
    width = len(total)
    one, other = np.empty(width), np.empty(width)
    edge, side = -1, 0
    for blank in range(2 if heavy[k + 1] > 0.0 else 1):
        one[:], rows = 0.0, 0.0
        if blank == 0:
            one[:], rows = bins[k + 1], heavy[k + 1]
        for b in range(k):
            rows += heavy[b]
            for c in range(width):
                one[c] += bins[b, c]
                other[c] = total[c] - one[c]
            if rows < LEAST or n - rows < LEAST:
                continue
            merit = purity(one, rows, task) + purity(other, n - rows, task)
            if merit > best:
                best, edge, side = merit, b, blank
                left[:width], left[width] = one, rows
    return best, edge, side


@kernel()
def take_pair(links: I64, marks: I64) -> int:
    """Two nodes that nobody uses; -1: there are none."""
    pair = int(marks[FREE])
    if pair >= 0:
        marks[FREE] = links[pair, LEFT]
    elif marks[USED] + 2 <= len(links):
        pair = int(marks[USED])
        marks[USED] += 2
    return pair


@njit(cache=True, nogil=True, error_model="numpy")
def search(
    marks: I64, rows: F64, slots: I64, labels: F64, n: int, total: F64, varied: Flags, task: int,
    found: F64,
) -> tuple[int, float, int]:  # fmt: skip
    """Column, cut and side of the missing of the best cut of ``n`` rows in some of the columns;
    column -1: nothing is better than no cut. ``found (O + 1,)`` <- what lies on its left, and how
    many rows."""
    width = len(total)
    values, edges, left = np.empty(n), np.empty(EDGES + 1), np.empty(width + 1)
    bins, heavy = np.empty((EDGES + 2, width)), np.empty(EDGES + 2)
    best, column, cut, blank = purity(total, n, task) * (1.0 + 1e-12), -1, 0.0, 0
    share = min(SUBSPACE, MOST / max(varied.sum(), 1))
    for c in range(rows.shape[1]):
        if not varied[c]:
            continue
        marks[CHANCE] += 1 + EDGES
        if drawn(marks[CHANCE], 1 << 30) >= share * (1 << 30):
            continue
        for i in range(n):
            values[i] = rows[slots[i], c]
        k = find_edges(values, n, marks[CHANCE] + 1, edges)
        fill_bins(values, labels, n, edges, k, task, bins, heavy)
        best, edge, side = best_cut(bins, heavy, k, total, n, task, best, left)
        if edge >= 0:
            column, cut, blank = c, edges[edge], side
            found[:] = left
            if n <= EDGES and edge + 1 < k:
                cut = min(cut + 0.5 * (edges[edge + 1] - cut), edges[edge + 1])
            if heavy[k + 1] == 0.0:  # none is missing: later ones go where most go
                blank = 0 if 2.0 * left[width] >= n else 1
    return column, cut, blank


@njit(cache=True, nogil=True, error_model="numpy")
def grow(
    links: I64, facts: F64, marks: I64, before: I16, node: int, rows: F64, targets: F64, seen: int,
    varied: Flags, n_out: int, task: int,
) -> bool:  # fmt: skip
    """Cut a leaf in two if its rows say so; whether it was cut."""
    oldest = max(seen - len(rows), marks[BORN])
    slots, labels = np.empty(LOOK, np.int64), np.empty(LOOK)
    n = gather(links, before, node, oldest, targets, slots, labels)
    links[node, UNSEEN], links[node, HELD] = 0, n
    if n < 2 * LEAST:
        return False
    width = 3 if task == REGRESSION else n_out
    total, left = np.zeros(width), np.empty(width + 1)
    if task == REGRESSION:
        labels[:n] -= labels[:n].mean()
    for i in range(n):
        count(total, labels[i], task)
    floor = 1e-6 * total[2] / n if task == REGRESSION else 0.0
    whole = likelihood(total, n, task, floor)
    if floor <= 0.0 if task == REGRESSION else whole > -NEED:
        return False  # there is nothing to tell apart
    column, cut, blank = search(marks, rows, slots, labels, n, total, varied, task, left)
    if column < 0:
        return False
    gain = likelihood(left[:width], left[width], task, floor) - whole
    gain += likelihood(total - left[:width], n - left[width], task, floor)
    if gain < NEED and not (n >= FORCED and gain > 0.0):
        return False
    pair = take_pair(links, marks)
    if pair < 0:
        return False
    part(links, facts, before, node, pair, column, cut, blank, oldest, rows, targets, task)
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def part(
    links: I64, facts: F64, before: I16, node: int, pair: int, column: int, cut: float, blank: int,
    oldest: int, rows: F64, targets: F64, task: int,
) -> None:  # fmt: skip
    """Give the rows of a leaf to two new ones."""
    start_leaf(links, facts, pair)
    start_leaf(links, facts, pair + 1)
    tails = np.full(2, -1)
    at = links[node, HEAD]
    while at >= oldest:
        slot, following = at % len(rows), older(before, at)
        side = side_of(rows[slot, column], cut, blank)
        if tails[side] < 0:
            links[pair + side, HEAD] = at
        else:
            put_before(before, tails[side], at)
        put_before(before, at, -1)
        add_row(facts[pair + side], targets[slot], task)
        tails[side], at = at, following
    links[node, COLUMN], links[node, LEFT], links[node, BLANK] = column, pair, blank
    links[node, HEAD] = -1
    facts[node, CUT], facts[node, GATE] = cut, STOP


@kernel()
def fold(links: I64, marks: I64, before: I16, node: int, oldest: int) -> None:
    """Two leaves become the one that they were: their lists are merged, newest first."""
    pair = links[node, LEFT]
    a, b, tail = links[pair, HEAD], links[pair + 1, HEAD], -1
    links[node, HEAD] = -1
    while a >= oldest or b >= oldest:
        at = max(a, b)
        if a > b:
            a = older(before, a)
        else:
            b = older(before, b)
        if tail < 0:
            links[node, HEAD] = at
        else:
            put_before(before, tail, at)
        put_before(before, at, -1)
        tail = at
    links[node, COLUMN] = -1
    links[node, UNSEEN] = links[node, HELD] = 0
    links[pair, LEFT] = marks[FREE]
    marks[FREE] = pair
