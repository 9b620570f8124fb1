"""What a bag of trees says and learns: one row through all of them.

Every node of a tree, not only its leaves, has seen rows and could answer. On the way of a row to
its leaf each node has a gate: the probability that it is better to answer here than to go on. Gates
are posteriors, as in context-tree weighting (Willems, Shtarkov & Tjalkens 1995) and aggregated
Mondrian forests (Mourtada, Gaiffas & Scornet 2021, JRSS B): a cut that was one too many costs
little, so cuts need no Hoeffding bound, and a part of a tree that the world has left behind folds
up again.

A tree whose loss has risen (ADWIN, Bifet & Gavalda 2007) gets a challenger planted on the rows
since the rise, as adaptive random forests do (Gomes et al. 2017); it takes the place of the tree
when it is ahead by ``SWAP`` nats, so a false alarm costs little.
"""

from __future__ import annotations

import numpy as np

from drift.compiled import kernel, njit
from streammeta.experts.kernels import REGRESSION
from streammeta.experts.tree_growth import (
    ACTIVE,
    AT_ONCE,
    BLANK,
    BORN,
    COLUMN,
    CUT,
    DEPTH,
    F64,
    FACTS,
    FREE,
    GATE,
    GRACE,
    HEAD,
    HELD,
    I16,
    I64,
    LEFT,
    MASS,
    MORE,
    STOP,
    UNSEEN,
    USED,
    Flags,
    add_row,
    fold,
    grow,
    put_before,
    side_of,
    start_leaf,
)

#: ``merits (MERITS,)`` of a tree: mean loss, nats by which it is ahead of the tree that it
#: challenges, and mean squared error of values in units of the target.
LOSS, AHEAD, SIZE, MERITS = 0, 1, 2, 3
#: Buckets of ADWIN: so many of each size 1, 2, 4, ...
LEVELS, BUCKETS = 14, 5

#: Rows that a node trusts those above it as if it had seen so many.
TRUST = 1.0
#: Share of a gate that goes back to ``STOP`` with every row; where a gate is surer, it folds.
SHARE, FOLDS = 1e-4, 0.9
#: Rows over which losses are averaged, and how sharply the best are heard most.
MEMORY, HEAT = 200.0, 5.0
#: Confidence of ADWIN, rows between two looks, and losses on either side of a cut.
DELTA, EVERY, FEWEST = 0.02, 8, 5.0
#: Nats by which a challenger has to be ahead, how far it may fall behind for a start, and rows
#: after which one that is behind has had its chance.
SWAP, BEHIND, PATIENCE = 3.0, 8.0, 1000
#: A loss counts for no more than this, in nats, and a difference of two.
WORST, LARGEST_STEP = 9.2, 3.0


@kernel()
def follow(links: I64, facts: F64, raw: F64, path: I64) -> int:
    """``path`` <- the nodes from the root to the leaf of a row; how deep that is."""
    node, depth = 0, 0
    path[0] = 0
    while links[node, COLUMN] >= 0:
        value = raw[links[node, COLUMN]]
        node = links[node, LEFT] + side_of(value, facts[node, CUT], links[node, BLANK])
        depth += 1
        path[depth] = node
    return depth


@kernel()
def value_of(facts: F64, path: I64, depth: int, centre: float) -> float:
    """The value that a tree says, in units of the targets."""
    mean, value, left = centre, 0.0, 1.0
    for d in range(depth + 1):
        f = facts[path[d]]
        mean = (f[MASS] * f[FACTS] + TRUST * mean) / (f[MASS] + TRUST)
        share = left if d == depth else left * f[GATE]
        value += share * mean
        left -= share
    return value


@kernel()
def classes_of(facts: F64, path: I64, depth: int, weight: float, own: F64, out: F64) -> None:
    """``out (O,)`` += ``weight`` times the probabilities that a tree says."""
    n_out, left = len(own), weight
    for c in range(n_out):
        own[c] = 1.0 / n_out
    for d in range(depth + 1):
        f = facts[path[d]]
        share = left if d == depth else left * f[GATE]
        scale = 1.0 / (f[MASS] + TRUST)
        for c in range(n_out):
            own[c] = (f[FACTS + c] + TRUST * own[c]) * scale
            out[c] += share * own[c]
        left -= share


@njit(cache=True, nogil=True, error_model="numpy")
def predict_row(
    links: I64, facts: F64, merits: F64, roles: I64, raw: F64, n_out: int, task: int,
    centre: float, scale: float, out: F64,
) -> None:  # fmt: skip
    """``out (O,)`` <- what the bag says to a raw row ``(D,)``: those who lost least of late are
    heard most."""
    path, own = np.empty(DEPTH + 1, np.int64), np.empty(n_out)
    least, total = np.inf, 0.0
    for t in range(len(roles)):
        least = min(least, merits[roles[t, 0], LOSS])
    out[:] = 0.0
    for t in range(len(roles)):
        k = roles[t, 0]
        weight = np.exp(-HEAT * (merits[k, LOSS] - least))
        total += weight
        depth = follow(links[k], facts[k], raw, path)
        if task == REGRESSION:
            out[0] += weight * (value_of(facts[k], path, depth, centre) - centre) / scale
        else:
            classes_of(facts[k], path, depth, weight, own, out)
    for c in range(n_out):
        out[c] /= total


# -- has a loss risen? ---------------------------------------------------------------------------


@kernel()
def note(sums: F64, filled: I64, loss: float) -> None:
    """One loss more for ADWIN's histogram ``sums (LEVELS, BUCKETS, 2)`` of sums and squares, oldest
    first in each level; ``filled (LEVELS,)`` buckets are in use."""
    total, squares = loss, loss * loss
    for level in range(LEVELS):
        bucket = sums[level]
        if filled[level] < BUCKETS:
            bucket[filled[level], 0], bucket[filled[level], 1] = total, squares
            filled[level] += 1
            return
        merged, also = bucket[0, 0] + bucket[1, 0], bucket[0, 1] + bucket[1, 1]
        for i in range(2, BUCKETS):
            bucket[i - 2, 0], bucket[i - 2, 1] = bucket[i, 0], bucket[i, 1]
        bucket[BUCKETS - 2, 0], bucket[BUCKETS - 2, 1] = total, squares
        filled[level] = BUCKETS - 1
        total, squares = merged, also


@kernel()
def rows_since_rise(sums: F64, filled: I64) -> int:
    """How many of the newest losses lie surely above those before; 0: nothing has risen."""
    n, s, q = 0.0, 0.0, 0.0
    for level in range(LEVELS):
        for i in range(filled[level]):
            n += float(1 << level)
            s += sums[level, i, 0]
            q += sums[level, i, 1]
    if n < 4.0 * FEWEST:
        return 0
    variance = max(q / n - (s / n) ** 2, 0.0)
    bound = np.log(2.0 * np.log(n) / DELTA)
    newest, of_newest, surest, found = 0.0, 0.0, 1.0, 0
    for level in range(LEVELS):
        for i in range(filled[level] - 1, -1, -1):
            newest += float(1 << level)
            of_newest += sums[level, i, 0]
            oldest = n - newest
            if newest < FEWEST or oldest < FEWEST:
                continue
            gap = of_newest / newest - (s - of_newest) / oldest
            if gap > 0.0:
                m = newest * oldest / n
                allowed = np.sqrt(2.0 / m * variance * bound) + 2.0 / 3.0 / m * bound
                if gap > surest * allowed:
                    surest, found = gap / allowed, int(newest)
    return found


@kernel()
def keep_newest(sums: F64, filled: I64, rows: int) -> None:
    """Forget all but about ``rows`` losses."""
    kept = 0
    for level in range(LEVELS):
        stay = min(filled[level], (rows - kept) >> level)
        for i in range(stay):
            later = filled[level] - stay + i
            sums[level, i, 0], sums[level, i, 1] = sums[level, later, 0], sums[level, later, 1]
        if stay < filled[level]:
            filled[level + 1 :] = 0
        filled[level] = stay
        kept += stay << level


# -- learning ------------------------------------------------------------------------------------


@kernel()
def start_tree(links: I64, facts: F64, marks: I64, merits: F64, filled: I64, born: int) -> None:
    """A tree of one leaf that has seen nothing; all nodes are free."""
    start_leaf(links, facts, 0)
    marks[BORN], marks[USED], marks[FREE], marks[ACTIVE] = born, 1, -1, 1
    merits[:] = 0.0
    filled[:] = 0


@kernel()
def plant(
    links: I64, facts: F64, marks: I64, merits: F64, filled: I64, before: I16, targets: F64,
    seen: int, since: int, task: int,
) -> None:  # fmt: skip
    """A new tree, still one leaf, that knows the ``since`` newest rows of the ring."""
    born = max(seen - min(since, len(before)), 0)
    start_tree(links, facts, marks, merits, filled, born)
    for row in range(born, seen):
        put_before(before, row, row - 1 if row > born else -1)
        add_row(facts[0], targets[row % len(before)], task)
    links[0, HEAD] = seen - 1


@kernel()
def heard(
    facts: F64, path: I64, depth: int, y: float, n_out: int, task: int, centre: float,
    scale: float, out: F64,
) -> None:  # fmt: skip
    """``out (depth + 1,)`` <- the likelihood of ``y`` by each node of the path: of values that of
    Student's t with four degrees, so that no wild one decides."""
    p, mean, variance = 1.0 / n_out, centre, scale * scale
    for d in range(depth + 1):
        f = facts[path[d]]
        known = 1.0 / (f[MASS] + TRUST)
        if task == REGRESSION:
            mean = (f[MASS] * f[FACTS] + TRUST * mean) * known
            variance = (f[FACTS + 1] + TRUST * variance) * known + 1e-8 * scale * scale
            out[d] = (1.0 + 0.25 * (y - mean) ** 2 / variance) ** -2.5 * scale / np.sqrt(variance)
        else:
            p = (f[FACTS + int(y)] + TRUST * p) * known
            out[d] = p


@kernel()
def move_gates(facts: F64, path: I64, depth: int, likely: F64) -> float:
    """Bayes' rule for the gates of a path; the likelihood of the whole tree."""
    mixed = likely[depth]
    for d in range(depth - 1, -1, -1):
        f = facts[path[d]]
        own = f[GATE] * likely[d]
        mixed = own + (1.0 - f[GATE]) * mixed
        if mixed > 0.0:
            f[GATE] = (1.0 - SHARE) * own / mixed + SHARE * STOP
    return float(mixed)


@kernel()
def put_row(
    links: I64, facts: F64, before: I16, path: I64, depth: int, row: int, y: float, task: int
) -> None:
    """Row ``row`` goes to the nodes of its path, and on the list of the leaf."""
    for d in range(depth + 1):
        add_row(facts[path[d]], y, task)
    leaf = path[depth]
    put_before(before, row, links[leaf, HEAD])
    links[leaf, HEAD] = row
    links[leaf, UNSEEN] = min(links[leaf, UNSEEN] + 1, AT_ONCE)


@njit(cache=True, nogil=True, error_model="numpy")
def take(
    links: I64, facts: F64, marks: I64, before: I16, varied: Flags, rows: F64, targets: F64,
    seen: int, n_out: int, task: int, path: I64, depth: int,
) -> None:  # fmt: skip
    """The newest row goes to the nodes of its path; then the tree folds or grows at its end."""
    row = seen - 1
    raw, y = rows[row % len(rows)], targets[row % len(rows)]
    put_row(links, facts, before, path, depth, row, y, task)
    leaf = path[depth]
    if depth > 0:
        up = path[depth - 1]
        pair = links[up, LEFT]
        leaves = links[pair, COLUMN] < 0 and links[pair + 1, COLUMN] < 0
        if leaves and facts[up, GATE] > FOLDS:
            fold(links, marks, before, up, max(seen - len(rows), marks[BORN]))
            return
    while depth < DEPTH and links[leaf, UNSEEN] >= max(GRACE, MORE * links[leaf, HELD]):
        if not grow(links, facts, marks, before, leaf, rows, targets, seen, varied, n_out, task):
            return
        value = raw[links[leaf, COLUMN]]
        leaf = links[leaf, LEFT] + side_of(value, facts[leaf, CUT], links[leaf, BLANK])
        depth += 1


@njit(cache=True, nogil=True, error_model="numpy")
def learn_tree(
    links: I64, facts: F64, marks: I64, before: I16, varied: Flags, rows: F64, targets: F64,
    seen: int, n_out: int, task: int, centre: float, scale: float, path: I64, likely: F64,
) -> float:  # fmt: skip
    """The newest row goes into a tree; what the tree lost on it before, in nats or as a squared
    error in units of ``scale``."""
    row = seen - 1
    raw, y = rows[row % len(rows)], targets[row % len(rows)]
    depth = follow(links, facts, raw, path)
    heard(facts, path, depth, y, n_out, task, centre, scale, likely)
    if task == REGRESSION:
        loss = ((y - value_of(facts, path, depth, centre)) / scale) ** 2
        move_gates(facts, path, depth, likely)
    else:
        loss = min(-np.log(move_gates(facts, path, depth, likely)), WORST)
    take(links, facts, marks, before, varied, rows, targets, seen, n_out, task, path, depth)
    return float(loss)


@kernel()
def judge(merits: F64, sums: F64, filled: I64, loss: float, task: int) -> float:
    """A loss moves the merits of its tree; the loss in nats."""
    if task == REGRESSION:
        usual = merits[SIZE] if merits[SIZE] > 0.0 else loss
        merits[SIZE] += (loss - merits[SIZE]) / MEMORY
        note(sums, filled, min(1.0, 0.25 * loss / (usual + 1e-12)))
        loss = min(loss, WORST)
    else:
        note(sums, filled, 1.0 - np.exp(-loss))
    merits[LOSS] += (loss - merits[LOSS]) / MEMORY
    return loss


@kernel()
def see_columns(varied: Flags, rows: F64, seen: int) -> None:
    """``varied (D,)`` <- also where the newest row is not like another one of the ring."""
    newest, other = rows[(seen - 1) % len(rows)], rows[0]
    for c in range(len(varied)):
        if not varied[c] and newest[c] != other[c]:
            varied[c] = newest[c] == newest[c] or other[c] == other[c]


@njit(cache=True, nogil=True, error_model="numpy")
def learn_trees(
    links: I64, facts: F64, marks: I64, merits: F64, sums: F64, filled: I64, before: I16,
    roles: I64, varied: Flags, rows: F64, targets: F64, seen: int, n_out: int, task: int,
    centre: float, scale: float,
) -> None:  # fmt: skip
    """The newest row goes into every tree of a bag and every challenger; ``roles (T, 2)`` says
    which is which, ``varied (D,)`` which columns may be cut."""
    path, likely = np.empty(DEPTH + 1, np.int64), np.empty(DEPTH + 1)
    for t in range(len(roles)):
        k, c = roles[t, 0], roles[t, 1]
        loss = learn_tree(links[k], facts[k], marks[k], before[k], varied, rows, targets, seen,
                          n_out, task, centre, scale, path, likely)  # fmt: skip
        loss = judge(merits[k], sums[k], filled[k], loss, task)
        if marks[c, ACTIVE]:
            other = learn_tree(links[c], facts[c], marks[c], before[c], varied, rows, targets, seen,
                               n_out, task, centre, scale, path, likely)  # fmt: skip
            other = judge(merits[c], sums[c], filled[c], other, task)
            unit = 0.5 / (merits[k, LOSS] + 1e-9) if task == REGRESSION else 1.0
            gain = min(max(unit * (loss - other), -LARGEST_STEP), LARGEST_STEP)
            merits[c, AHEAD] = max(merits[c, AHEAD] + gain, -BEHIND)
            if merits[c, AHEAD] > SWAP:
                roles[t, 0], roles[t, 1] = c, k
                marks[k, ACTIVE] = 0
            elif seen - marks[c, BORN] > PATIENCE and merits[c, AHEAD] < 0.0:
                marks[c, ACTIVE] = 0
        k, c = roles[t, 0], roles[t, 1]
        if (seen + t) % EVERY == 0:
            since = rows_since_rise(sums[k], filled[k])
            if since > 0:
                keep_newest(sums[k], filled[k], since)
                if not marks[c, ACTIVE] or merits[c, AHEAD] <= 0.0:
                    plant(links[c], facts[c], marks[c], merits[c], filled[c], before[c], targets,
                          seen, since, task)  # fmt: skip
