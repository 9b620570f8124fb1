"""Compiled hot path of the expert bank: one event through many small networks.

Every network is a flat parameter vector; layer ``l`` is a weight matrix ``(in, out)``, row-major,
and then a bias ``(out,)``. Hidden units are ReLU. The same arithmetic stands in
``streammeta.meta.net`` and ``streammeta.meta.rule`` on tensors; a test holds both to 1e-5.

All arrays are float32 and C-contiguous unless said otherwise; kernels write in place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drift.compiled import kernel, njit
from drift.stacked import drawn

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: Decay of the second moment of the gradient (RMSprop with bias correction, Kingma & Ba 2015
#: without the first moment).
DECAY = np.float32(0.999)
EPS = np.float32(1e-6)
#: Standardised residual beyond which the regression loss is linear (Huber 1964).
HUBER = np.float32(2.0)

#: After this many values no single one moves the running moments as if it lay further than this
#: many standard deviations away: one wild reading must not flatten a column.
TRUSTED, WILD = 50, 10.0

#: From so many rows on a product of matrices is faster than row after row.
MATRICES = 4

CLASSIFICATION, REGRESSION = 0, 1

#: What stands in ``scaled`` for a column that nobody reads now (``streammeta.lags``): as if every
#: value of it were missing.
NOT_READ = -1.0


@kernel(fastmath=True)
def forward(theta: F32, sizes: I64, acts: F32) -> None:
    """Fill ``acts`` (inputs, hidden units and outputs, end to end) from its first ``sizes[0]``.

    A weight that is not finite spoils what is said, whether its input is 0 or not.
    """
    offset = 0
    start = 0
    last = sizes.shape[0] - 2
    for layer in range(last + 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        end = offset + n_in * n_out
        weight = theta[offset:end].reshape(n_in, n_out)
        bias = theta[end : end + n_out]
        h = acts[start : start + n_in]
        out = acts[start + n_in : start + n_in + n_out]
        for j in range(n_out):
            out[j] = bias[j]
        i = 0
        while i + 3 < n_in:  # four at a time: units are read and written a quarter as often
            a, b, c, d = h[i], h[i + 1], h[i + 2], h[i + 3]
            by_a, by_b, by_c, by_d = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
            for j in range(n_out):
                out[j] += a * by_a[j] + b * by_b[j] + c * by_c[j] + d * by_d[j]
            i += 4
        for k in range(i, n_in):
            a, by_a = h[k], weight[k]
            for j in range(n_out):
                out[j] += a * by_a[j]
        if layer < last:
            for j in range(n_out):
                out[j] = max(out[j], np.float32(0.0))
        offset = end + n_out
        start += n_in


@kernel(fastmath=True)
def backward(theta: F32, sizes: I64, acts: F32, deltas: F32, grad: F32) -> None:
    """Add the gradient to ``grad``; the last ``sizes[-1]`` of ``deltas`` hold dloss/dlogits."""
    layers = sizes.shape[0] - 1
    offset = theta.shape[0]
    end = acts.shape[0]
    for back in range(layers):
        layer = layers - 1 - back
        n_in, n_out = sizes[layer], sizes[layer + 1]
        start = end - n_out - n_in
        bias = offset - n_out
        offset = bias - n_in * n_out
        delta = deltas[end - n_out : end]
        below = deltas[start : start + n_in]
        h = acts[start : start + n_in]
        weight = theta[offset:bias].reshape(n_in, n_out)
        by_weight = grad[offset:bias].reshape(n_in, n_out)
        by_bias = grad[bias : bias + n_out]
        for j in range(n_out):
            by_bias[j] += delta[j]
        for i in range(n_in):
            a = h[i]
            if a != 0.0:
                for j in range(n_out):
                    by_weight[i, j] += a * delta[j]
        if layer > 0:
            for i in range(n_in):
                total = np.float32(0.0)
                if h[i] > 0.0:
                    for j in range(n_out):
                        total += weight[i, j] * delta[j]
                below[i] = total
        end -= n_out


@kernel(fastmath=True)
def softmax(out: F32 | F64, n_out: int) -> None:
    """``out (O,)`` <- probabilities of its first ``n_out`` logits."""
    top, mass = out[0], np.float32(0.0)
    for k in range(1, n_out):
        top = max(top, out[k])
    for k in range(n_out):
        out[k] = np.exp(out[k] - top)
        mass += out[k]
    for k in range(n_out):
        out[k] /= mass


@kernel(fastmath=True)
def output_delta(logits: F32, delta: F32, target: float, n_classes: int, task: int) -> None:
    """Write dloss/dlogits of one row into ``delta``; cross-entropy or Huber."""
    if task == REGRESSION:
        delta[:] = 0.0
        delta[0] = min(max(logits[0] - target, -HUBER), HUBER)
        return
    top = logits[0]
    for j in range(1, n_classes):
        top = max(top, logits[j])
    total = np.float32(0.0)
    for j in range(n_classes):
        delta[j] = np.exp(logits[j] - top)
        total += delta[j]
    for j in range(n_classes):
        delta[j] /= total
    for j in range(n_classes, delta.shape[0]):
        delta[j] = 0.0
    delta[int(target)] -= np.float32(1.0)


@kernel(fastmath=True)
def normalised_step(
    theta: F32, second: F32, grad: F32, rate: np.float32, correction: np.float32
) -> None:
    """``second`` <- decayed mean of grad^2; ``theta`` -= rate * grad / sqrt(second / correction).

    A coordinate with a zero gradient keeps its moment (the sparse form), so an absent column
    costs its weights nothing when it comes back.
    """
    scale = np.float32(1.0) / correction
    one = np.float32(1.0)
    for k in range(theta.shape[0]):
        g = grad[k]
        s = second[k]
        s_new = DECAY * s + (one - DECAY) * g * g
        s = s_new if g != 0.0 else s
        second[k] = s
        theta[k] -= rate * g / (np.sqrt(s * scale) + EPS)


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def predict_bank(
    theta: F32, live: Flags, sizes: I64, rows: F32, n_classes: int, task: int, out: F32
) -> None:
    """Outputs of every live expert: ``theta (E, P)``, ``rows (n, D)`` -> ``out (n, E, O)``.

    Classification gives probabilities over the first ``n_classes``; regression standardised
    means in column 0. Rows of experts that are not live are left as they are.
    """
    width = 0
    for size in sizes:
        width += size
    if rows.shape[1] != sizes[0]:
        raise ValueError("rows are as wide as networks have inputs")
    _predict_rows(theta, live, sizes, rows, n_classes, task, np.empty(width, np.float32), out)


@kernel(fastmath=True)
def _predict_rows(
    theta: F32, live: Flags, sizes: I64, rows: F32, n_classes: int, task: int, acts: F32, out: F32
) -> None:
    """``predict_bank``, with ``acts (sum(sizes),)`` to work in."""
    width, n_out = acts.shape[0], sizes[-1]
    for r in range(rows.shape[0]):
        for c in range(sizes[0]):
            acts[c] = rows[r, c]
        for e in range(theta.shape[0]):
            if not live[e]:
                continue
            forward(theta[e], sizes, acts)
            logits = acts[width - n_out :]
            if task == REGRESSION:
                out[r, e, 0] = logits[0]
                continue
            output_delta(logits, out[r, e], 0, n_classes, task)
            out[r, e, 0] += np.float32(1.0)


@kernel(fastmath=True)
def add_gradient(
    theta: F32,
    sizes: I64,
    row: F32,
    target: float,
    n_classes: int,
    task: int,
    acts: F32,
    deltas: F32,
    grad: F32,
) -> None:
    """Add the gradient of one row's loss at ``theta (P,)`` to ``grad (P,)``."""
    first = acts.shape[0] - sizes[-1]
    for c in range(sizes[0]):
        acts[c] = row[c]
    forward(theta, sizes, acts)
    output_delta(acts[first:], deltas[first:], target, n_classes, task)
    backward(theta, sizes, acts, deltas, grad)


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def mean_gradient(
    theta: F32,
    sizes: I64,
    rows: F32,
    targets: F32,
    n_classes: int,
    task: int,
    acts: F32,
    deltas: F32,
    grad: F32,
) -> None:
    """``grad (P,)`` <- mean over ``rows (n, D)`` of the gradient of each at ``theta (P,)``;
    ``acts`` and ``deltas (n * sum(sizes),)`` are room to work in."""
    n = rows.shape[0]
    if rows.shape[1] != sizes[0]:
        raise ValueError("rows are as wide as networks have inputs")
    if n >= MATRICES:
        end = _forward_all(theta, sizes, rows, acts)
        outputs = sizes[-1]
        logits = acts[end : end + n * outputs].reshape(n, outputs)
        delta = deltas[end : end + n * outputs].reshape(n, outputs)
        share = np.float32(1.0) / np.float32(n)
        for r in range(n):
            output_delta(logits[r], delta[r], targets[r], n_classes, task)
            for j in range(outputs):
                delta[r, j] *= share
        _backward_all(theta, sizes, n, end, acts, deltas, grad)
        return
    _mean_of_few(theta, sizes, rows, targets, n_classes, task, acts, deltas, grad)


@kernel(fastmath=True)
def _mean_of_few(
    theta: F32, sizes: I64, rows: F32, targets: F32, n_classes: int, task: int, acts: F32,
    deltas: F32, grad: F32,
) -> None:  # fmt: skip
    """``mean_gradient``, row by row."""
    n, size = rows.shape[0], 0
    for units in sizes:
        size += units
    grad[:] = 0.0
    for r in range(n):
        add_gradient(theta, sizes, rows[r], targets[r], n_classes, task, acts[:size],
                     deltas[:size], grad)  # fmt: skip
    if n > 1:
        share = np.float32(1.0) / np.float32(n)
        for k in range(grad.shape[0]):
            grad[k] *= share


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _forward_all(theta: F32, sizes: I64, rows: F32, acts: F32) -> int:
    """Fill ``acts`` layer by layer, ``(n, units)`` each; where that of the outputs begins."""
    n, last = rows.shape[0], sizes.shape[0] - 2
    acts[: n * sizes[0]] = rows.ravel()
    offset, start = 0, 0
    for layer in range(last + 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        end, below = offset + n_in * n_out, start
        start += n * n_in
        out = acts[start : start + n * n_out].reshape(n, n_out)
        weight = theta[offset:end].reshape(n_in, n_out)
        np.dot(acts[below:start].reshape(n, n_in), weight, out)
        bias = theta[end : end + n_out]
        for r in range(n):
            row = out[r]
            for j in range(n_out):
                row[j] += bias[j]
            if layer < last:
                for j in range(n_out):
                    row[j] = max(row[j], np.float32(0.0))
        offset = end + n_out
    return start


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def _backward_all(
    theta: F32, sizes: I64, n: int, start: int, acts: F32, deltas: F32, grad: F32
) -> None:
    """``grad (P,)`` <- the gradient, of the ``deltas`` that stand at ``start`` for the outputs."""
    layers, offset = sizes.shape[0] - 1, theta.shape[0]
    for back in range(layers):
        layer = layers - 1 - back
        n_in, n_out = sizes[layer], sizes[layer + 1]
        bias, below = offset - n_out, start - n * n_in
        offset = bias - n_in * n_out
        h = acts[below:start].reshape(n, n_in)
        delta = deltas[start : start + n * n_out].reshape(n, n_out)
        np.dot(h.T, delta, grad[offset:bias].reshape(n_in, n_out))
        by_bias = grad[bias : bias + n_out]
        by_bias[:] = np.float32(0.0)
        for r in range(n):
            for j in range(n_out):
                by_bias[j] += delta[r, j]
        if layer > 0:
            lower = deltas[below:start].reshape(n, n_in)
            np.dot(delta, theta[offset:bias].reshape(n_in, n_out).T, lower)
            for r in range(n):
                for j in range(n_in):
                    lower[r, j] = lower[r, j] if h[r, j] > np.float32(0.0) else np.float32(0.0)
        start = below


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def learn_rows(
    theta: F32,
    second: F32,
    steps: I64,
    rates: F32,
    learns: Flags,
    sizes: I64,
    rows: F32,
    targets: F32,
    n_classes: int,
    task: int,
) -> None:
    """One normalised step on the mean gradient of ``rows (n, D)`` for every expert that learns.

    ``theta``, ``second``: ``(E, P)``; ``steps (E,)`` int64 counts steps for the bias correction.
    """
    acts = np.empty(rows.shape[0] * sizes.sum(), np.float32)
    deltas = np.empty(rows.shape[0] * sizes.sum(), np.float32)
    grad = np.empty(theta.shape[1], np.float32)
    for e in range(theta.shape[0]):
        if not learns[e]:
            continue
        mean_gradient(theta[e], sizes, rows, targets, n_classes, task, acts, deltas, grad)
        steps[e] += 1
        correction = np.float32(1.0) - DECAY ** np.float32(steps[e])
        normalised_step(theta[e], second[e], grad, rates[e], correction)


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def sgd_rows(
    theta: F32, rates: F32, sizes: I64, rows: F32, targets: F32, n_classes: int, task: int
) -> None:
    """One plain gradient step on the mean of ``rows``: ``theta (E, P)``, ``rates (E,)``."""
    acts = np.empty(rows.shape[0] * sizes.sum(), np.float32)
    deltas = np.empty(rows.shape[0] * sizes.sum(), np.float32)
    grad = np.empty(theta.shape[1], np.float32)
    for e in range(theta.shape[0]):
        mean_gradient(theta[e], sizes, rows, targets, n_classes, task, acts, deltas, grad)
        for k in range(grad.shape[0]):
            theta[e, k] -= rates[e] * grad[k]


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def adapt_rows(
    theta: F32,
    rates: F32,
    steps: int,
    sizes: I64,
    rows: F32,
    targets: F32,
    n_classes: int,
    task: int,
    out: F32,
) -> None:
    """``out (P,)`` <- ``theta (P,)`` after plain gradient steps on the mean of ``rows (n, D)``.

    ``rates``: ``(1,)`` or ``(P,)``.
    """
    acts = np.empty(rows.shape[0] * sizes.sum(), np.float32)
    deltas = np.empty(rows.shape[0] * sizes.sum(), np.float32)
    grad = np.empty(theta.shape[0], np.float32)
    out[:] = theta
    for _ in range(steps):
        mean_gradient(out, sizes, rows, targets, n_classes, task, acts, deltas, grad)
        if rates.shape[0] == 1:
            for k in range(grad.shape[0]):
                out[k] -= rates[0] * grad[k]
        else:
            for k in range(grad.shape[0]):
                out[k] -= rates[k] * grad[k]


@kernel()
def cholesky_solve(gram: F64, right: F64) -> None:
    """``right (n, m)`` <- the solution of ``gram @ solution = right``; both are overwritten.

    ``gram (n, n)`` is symmetric and positive definite; where it is not, the solution is not finite.
    """
    n = gram.shape[0]
    for i in range(n):
        for j in range(i + 1):
            total = gram[i, j]
            for k in range(j):
                total -= gram[i, k] * gram[j, k]
            gram[i, j] = np.sqrt(total) if i == j else total / gram[j, j]
    for c in range(right.shape[1]):
        for i in range(n):
            for k in range(i):
                right[i, c] -= gram[i, k] * right[k, c]
            right[i, c] /= gram[i, i]
        for i in range(n - 1, -1, -1):
            for k in range(i + 1, n):
                right[i, c] -= gram[k, i] * right[k, c]
            right[i, c] /= gram[i, i]


@njit(cache=True, nogil=True, error_model="numpy")
def ridge_head(
    theta: F32,
    ridge: F32,
    sharpness: float,
    sizes: I64,
    rows: F32,
    targets: F32,
    n_classes: int,
    task: int,
    out: F32,
) -> None:
    """``out (P,)`` <- ``theta (P,)`` with its last layer solved for on ``rows (n, D)``.

    ``streammeta.meta.r2d2`` in double precision; ``ridge (H + 1,)`` of each feature and the bias.
    Of the two forms of ridge regression the one with the smaller system is taken.
    """
    n, width, outputs = rows.shape[0], ridge.shape[0], sizes[-1]
    columns = 1 if task == REGRESSION else n_classes
    start = theta.shape[0] - width * outputs
    head = theta[start:].reshape(width, outputs)
    acts = np.empty(sizes.sum(), np.float32)
    first = acts.shape[0] - outputs - (width - 1)
    h = np.ones((n, width))
    residual = np.zeros((n, columns))
    for r in range(n):
        acts[: sizes[0]] = rows[r]
        forward(theta, sizes, acts)
        h[r, : width - 1] = acts[first : first + width - 1]
        for c in range(columns):
            logit = acts[acts.shape[0] - outputs + c]
            if task == REGRESSION:
                residual[r, c] = targets[r] - logit
            else:
                truth = 1.0 if c == int(targets[r]) else 0.0
                residual[r, c] = sharpness * (truth - 1.0 / n_classes) - logit
    scaled = h / ridge
    if n < width:
        gram = scaled @ h.T
        for r in range(n):
            gram[r, r] += 1.0
        cholesky_solve(gram, residual)
        move = scaled.T @ residual
    else:
        gram = h.T @ h
        for k in range(width):
            gram[k, k] += ridge[k]
        move = h.T @ residual
        cholesky_solve(gram, move)
    out[:] = theta
    moved = out[start:].reshape(width, outputs)
    for k in range(width):
        for c in range(columns):
            moved[k, c] = head[k, c] + move[k, c]


@njit(cache=True, nogil=True, error_model="numpy")
def mean_loss(theta: F32, sizes: I64, rows: F32, targets: F32, n_classes: int, task: int) -> float:
    """Mean loss of ``theta (P,)`` over ``rows (n, D)``: cross-entropy or Huber's."""
    acts = np.empty(sizes.sum(), np.float32)
    logits = acts[acts.shape[0] - sizes[-1] :]
    total = 0.0
    for r in range(rows.shape[0]):
        acts[: sizes[0]] = rows[r]
        forward(theta, sizes, acts)
        if task == REGRESSION:
            gap = logits[0] - targets[r]
            near = min(max(gap, -HUBER), HUBER)
            total += near * (gap - np.float32(0.5) * near)
            continue
        top = logits[0]
        for j in range(1, n_classes):
            top = max(top, logits[j])
        mass = 0.0
        for j in range(n_classes):
            mass += np.exp(logits[j] - top)
        total += np.log(mass) + top - logits[int(targets[r])]
    mean: float = total / rows.shape[0]
    return mean


@njit(cache=True, fastmath=True, nogil=True, error_model="numpy")
def prime_second(
    theta: F32, second: F32, sizes: I64, rows: F32, targets: F32, n_classes: int, task: int
) -> None:
    """``second (P,)`` <- mean over ``rows`` of the squared gradient of each at ``theta (P,)``."""
    acts = np.empty(sizes.sum(), np.float32)
    deltas = np.empty(sizes.sum(), np.float32)
    grad = np.empty(theta.shape[0], np.float32)
    share = np.float32(1.0) / np.float32(rows.shape[0])
    second[:] = 0.0
    for r in range(rows.shape[0]):
        grad[:] = 0.0
        add_gradient(theta, sizes, rows[r], targets[r], n_classes, task, acts, deltas, grad)
        for k in range(grad.shape[0]):
            second[k] += grad[k] * grad[k] * share


@kernel()
def standardise(raw: F64, scaled: F64, mean: F64, var: F64, clip: float, out: F32) -> None:
    """Network inputs ``out (n, D)`` float32 from raw rows ``(n, D)`` float64; NaN becomes 0.

    Columns with ``scaled`` 0 are not standardised; all are clipped, for a number may have been
    hashed into one of those. Those that are ``NOT_READ`` are 0.
    """
    for r in range(raw.shape[0]):
        for c in range(raw.shape[1]):
            value = raw[r, c]
            if np.isnan(value) or scaled[c] == NOT_READ:
                out[r, c] = 0.0
                continue
            if scaled[c] != 0.0:
                value = (value - mean[c]) / np.sqrt(var[c] + 1e-12)
            out[r, c] = min(max(value, -clip), clip)


@njit(cache=True, nogil=True, error_model="numpy")
def let_read(scaled: F64, first: int, task: int, read: bool) -> None:
    """``scaled (D,)`` <- whether members read the columns from ``first`` on, which hold labels."""
    scaled[first:] = (1.0 if task == REGRESSION else 0.0) if read else NOT_READ


@kernel()
def update_moments(row: F64, scaled: F64, count: F64, mean: F64, var: F64, floor: float) -> None:
    """Running mean and variance of each scaled column; an event weighs ``max(1/n, floor)``. Columns
    that are not read move as well: one day they may be."""
    for c in range(row.shape[0]):
        value = row[c]
        if scaled[c] == 0.0 or np.isnan(value):
            continue
        count[c] += 1.0
        weight = max(1.0 / count[c], floor)
        gap = value - mean[c]
        if var[c] > 0.0 and count[c] > TRUSTED:
            bound = WILD * np.sqrt(var[c])
            gap = min(max(gap, -bound), bound)
        mean[c] += weight * gap
        var[c] = (1.0 - weight) * (var[c] + weight * gap * gap)


@njit(cache=True, nogil=True, error_model="numpy")
def draw_slots(chances: int, seen: int, inside: int, size: int, slots: I64) -> None:
    """``slots (n,)`` <- places in a ring of ``size`` to which ``seen`` rows were added: that of the
    newest, and others drawn evenly from the ``inside`` newest (with replacement)."""
    for i in range(len(slots)):
        back = 0 if i == 0 else drawn(chances + seen * len(slots) + i, inside)
        slots[i] = (seen - 1 - back) % size


@njit(cache=True, nogil=True, error_model="numpy")
def join_lags(features: F64, lags: F64, used: int, width: int, codes: int, task: int) -> F64:
    """A raw row ``(width,)``: features and then the labels that have arrived, newest first; each a
    value, or a class in one of ``codes`` columns."""
    raw = np.zeros(width)
    start = len(features)
    raw[:start] = features
    for i in range(used):
        label = lags[i]
        if task == REGRESSION:
            raw[start + i] = label
        elif label == label:
            raw[start + i * codes + int(label) % codes] = 1.0
    return raw


@kernel()
def judge_shown(
    shown: F64, centre: float, scale: float, truth: float, n_classes: int, task: int
) -> tuple[float, float]:
    """Two losses of a prediction ``shown (O,)``: error and half the Brier score (as
    ``drift.half_brier``), or |residual| and residual, in units of the target."""
    if task == REGRESSION:
        gap = truth - (centre + scale * shown[0])
        return abs(gap), gap
    likeliest, total = 0, 1.0
    for j in range(min(max(1, n_classes), len(shown))):
        total += shown[j] * shown[j]
        if shown[j] > shown[likeliest]:
            likeliest = j
        if j == truth:
            total -= 2.0 * shown[j]
    wrong = 1.0 if shown[likeliest] <= 0.0 or likeliest != truth else 0.0
    return wrong, min(max(0.5 * total, 0.0), 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def frozen_losses(
    theta: F32, sizes: I64, raw: F64, scaled: F64, mean: F64, var: F64, clip: float, centre: float,
    scale: float, truths: F64, n_classes: int, task: int, out: F64,
) -> None:  # fmt: skip
    """``out (n,)`` <- the loss of one network on raw rows ``(n, D)``, standardised by moments of
    its own: half the Brier score, or |residual| in units of the target."""
    width = 0
    for size in sizes:
        width += size
    acts, n_out = np.empty(width, np.float32), sizes[-1]
    inputs = np.empty(raw.shape, np.float32)
    standardise(raw, scaled, mean, var, clip, inputs)
    p = np.empty(n_out, np.float32)
    for r in range(raw.shape[0]):
        acts[: sizes[0]] = inputs[r]
        forward(theta, sizes, acts)
        logits = acts[width - n_out :]
        if task == REGRESSION:
            out[r] = abs(truths[r] - (centre + scale * logits[0]))
            continue
        output_delta(logits, p, 0.0, n_classes, task)
        p[0] += np.float32(1.0)
        _, out[r] = judge_shown(p, 0.0, 1.0, truths[r], n_classes, task)


@njit(cache=True, nogil=True, error_model="numpy")
def judge_frozen(
    theta: F32, sizes: I64, raw: F64, scaled: F64, means: F64, spreads: F64, clip: float,
    about: F64, truth: float, task: int, losses: F64, key: int,
) -> float:  # fmt: skip
    """The loss of the network of ``key`` on a raw row ``(D,)``, as ``frozen_losses``, by its own
    ``scaled (K, D)``, counted in ``losses (K, 3)`` (rows, mean, sum of squared distances); ``about
    (K, 4)``: its age (0: there is none), classes, centre and scale."""
    known = about[key]
    if known[0] == 0.0:
        return np.nan
    out, truths, rows = np.empty(1), np.full(1, truth), raw.reshape(1, len(raw))
    frozen_losses(theta[key], sizes, rows, scaled[key], means[key], spreads[key], clip, known[2],
                  known[3], truths, int(known[1]), task, out)  # fmt: skip
    loss: float = out[0]
    if np.isfinite(loss):
        sums = losses[key]
        sums[0] += 1.0
        gap = loss - sums[1]
        sums[1] += gap / sums[0]
        sums[2] += gap * (loss - sums[1])
    return loss


@njit(cache=True, nogil=True, error_model="numpy")
def judge_both(
    shown: F64, centre: float, scale: float, n_classes: int, theta: F32, sizes: I64, raw: F64,
    scaled: F64, means: F64, spreads: F64, clip: float, about: F64, truth: float, task: int,
    losses: F64, key: int,
) -> tuple[float, float, float]:  # fmt: skip
    """Two losses of ``judge_shown`` and that of ``judge_frozen``, in one call: a call from Python
    costs as much as what it does."""
    first, second = judge_shown(shown, centre, scale, truth, n_classes, task)
    third = judge_frozen(theta, sizes, raw, scaled, means, spreads, clip, about, truth, task,
                         losses, key)  # fmt: skip
    return first, second, third
