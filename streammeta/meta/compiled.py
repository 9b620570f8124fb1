"""Outer steps on the CPU, compiled: one task after another on plain arrays.

What is stated on tensors in ``streammeta.meta.gradient_based`` (exact gradients through inner
steps, by Hessian-vector products: Pearlmutter 1994), in ``streammeta.meta.r2d2`` (through the ridge
solution, by the adjoint of the linear system) and in ``streammeta.meta.learner`` (Adam) is done
here once more for float32 and a plain ``Net``, where torch's cost per operation is many times
that of the arithmetic; a test holds both to 1e-5.

A network is a flat vector, layer after layer the weights ``(in, out)`` row-major and then the bias.
What its layers read stands end to end in ``acts``, and what the loss changes by in ``deltas``: for
each layer ``(2 n, units)``. The upper half of ``acts`` is what the layer reads of ``n`` rows, the
lower half how that changes along a vector; the lower half of ``deltas`` is the loss's derivative,
the upper half how that changes. So a single product gives what both contribute to the weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from drift.compiled import kernel, njit
from streammeta.meta.learner import Batch, Model, State
from streammeta.meta.loss import Loss
from streammeta.meta.net import Net

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

#: Sums may be reordered. NaN and infinity count as what they are: they tell a bad task.
LOOSE = {"contract", "reassoc", "nsz"}


class Kind(NamedTuple):
    """A network's ``sizes`` and how rows are judged: by cross-entropy over the first ``classes``
    outputs, or by Huber's loss of the first output, which is linear from ``huber`` on."""

    sizes: I64
    classes: int
    huber: np.float32
    regression: bool


class Rows(NamedTuple):
    """What is stacked of the tasks: ``x (B, n, D)``, ``y (B, n)``, ``mask (B, n)``."""

    x: F32
    y: F32
    mask: F32


class Found(NamedTuple):
    """Of each task: query loss ``(B,)``, and its gradients by weights, logarithms of rates and
    extra parameters end to end ``(B, P + R + E)``."""

    loss: F32
    by: F32


class Problem(NamedTuple):
    """What an outer step is about, as arrays."""

    theta: F32
    log_rates: F32
    extra: F32
    kind: Kind
    support: Rows
    query: Rows

    def found(self) -> Found:
        """Room for what is found, zeros."""
        tasks = len(self.query.y)
        size = len(self.theta) + len(self.log_rates) + len(self.extra)
        return Found(np.zeros(tasks, np.float32), np.zeros((tasks, size), np.float32))


def arrays(tensors: Iterable[Tensor]) -> list[F32] | None:
    """The same numbers, where compiled code can have them: on the CPU, float32, no graph."""
    found = []
    for part in tensors:
        if part.dtype is not torch.float32 or part.device.type != "cpu" or part.requires_grad:
            return None
        plain = part.numpy()
        found.append(plain if plain.flags.c_contiguous else np.ascontiguousarray(plain))
    return found


def problem(net: Model, state: State, batch: Batch, loss: Loss) -> Problem | None:
    """The same for compiled code; ``None`` where only tensors will do, or where shapes do not go
    together, which torch has words for."""
    plain = arrays((*state[:5], *batch))
    if plain is None or type(net) is not Net or len(plain[0]) != net.n_params:
        return None
    rows = Rows(*plain[5:8]), Rows(*plain[8:])
    for x, y, mask in rows:
        if x.ndim != 3 or x.shape[2] != net.sizes[0] or not x.shape[:2] == y.shape == mask.shape:
            return None
    regression = loss.task == "regression"
    classes = 1 if regression else loss.n_classes
    if len(rows[0].y) != len(rows[1].y) or not 1 <= classes <= net.sizes[-1]:
        return None
    kind = Kind(np.array(net.sizes, np.int64), classes, np.float32(loss.huber), regression)
    return Problem(plain[0], plain[1], plain[2], kind, *rows)


# -- one network, the rows of one task ---------------------------------------------------------


@kernel(fastmath=LOOSE)
def _gather(of: Rows, task: int, kind: Kind, x: F32, y: F32, share: F32) -> int:
    """Rows of a ``task`` that are not padding, one after another, targets and the weights with
    which they count; how many these are, or -1 where a label is not one of the classes or a row
    counts in part."""
    mask, width, n = of.mask[task], of.x.shape[2], 0
    for r in range(len(mask)):
        if mask[r] == 0.0:
            continue
        label = of.y[task, r]
        known = kind.regression or (label >= 0.0 and label < kind.classes)
        if mask[r] != 1.0 or not known:
            return -1
        for j in range(width):
            x[n * width + j] = of.x[task, r, j]
        y[n] = label
        n += 1
    for i in range(n):
        share[i] = np.float32(1.0) / np.float32(n)
    return n


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _forward(theta: F32, sizes: I64, layers: int, n: int, acts: F32) -> int:
    """Fill ``acts`` from its first block on through so many ``layers``; where the last of these
    has put what it gives. All but the network's last go through a ReLU."""
    offset, start = 0, 0
    for layer in range(layers):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        end = offset + n_in * n_out
        h = acts[start : start + n * n_in].reshape(n, n_in)
        start += 2 * n * n_in
        out = acts[start : start + n * n_out].reshape(n, n_out)
        np.dot(h, theta[offset:end].reshape(n_in, n_out), out)
        bias, linear = theta[end : end + n_out], layer + 2 == len(sizes)
        for r in range(n):
            row = out[r]
            for j in range(n_out):
                row[j] += bias[j]
            if not linear:
                for j in range(n_out):
                    row[j] = np.float32(0.0) if row[j] <= np.float32(0.0) else row[j]
        offset = end + n_out
    return start


@kernel(fastmath=LOOSE)
def _judge(logits: F32, y: F32, share: F32, kind: Kind, delta: F32, curved: F32) -> float:
    """Loss of outputs ``(n, O)``, its derivative ``delta (n, O)`` and ``curved``: probabilities of
    the classes ``(n, C)``, or whether a row lies inside Huber's square ``(n, 1)``."""
    total, huber = 0.0, kind.huber
    for r in range(len(logits)):
        z, d, row = logits[r], delta[r], curved[r]
        d[:] = np.float32(0.0)
        if kind.regression:
            gap = z[0] - y[r]
            near = huber if gap > huber else (-huber if gap < -huber else gap)
            row[0] = 1.0 if abs(gap) <= huber else 0.0
            d[0] = near * share[r]
            total += share[r] * near * (gap - np.float32(0.5) * near)
            continue
        top, mass = z[0], np.float32(0.0)
        for j in range(1, kind.classes):
            top = z[j] if z[j] > top else top
        for j in range(kind.classes):
            row[j] = np.exp(z[j] - top)
            mass += row[j]
        for j in range(kind.classes):
            row[j] /= mass
            d[j] = row[j] * share[r]
        truth = int(y[r])
        d[truth] -= share[r]
        total += share[r] * (np.log(mass) + top - z[truth])
    return total


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _lower(delta: F32, weight: F32, h: F32, out: F32) -> None:
    """``out (n, I)`` <- what ``delta (n, O)`` is for the layer below, which gave ``h (n, I)``."""
    np.dot(delta, weight.T, out)
    for r in range(len(out)):
        row, active = out[r], h[r]
        for j in range(len(row)):
            row[j] = row[j] if active[j] > np.float32(0.0) else np.float32(0.0)


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _backward(
    theta: F32, sizes: I64, layers: int, n: int, acts: F32, deltas: F32, gradient: F32
) -> None:
    """``gradient`` of the weights of so many ``layers``, from the deltas of the last of these."""
    offset, start = 0, 0
    for layer in range(layers):
        offset += (sizes[layer] + 1) * sizes[layer + 1]
        start += 2 * n * sizes[layer]
    for layer in range(layers - 1, -1, -1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        end, below = offset - n_out, start - 2 * n * n_in
        offset = end - n_in * n_out
        h = acts[below : below + n * n_in].reshape(n, n_in)
        delta = deltas[start + n * n_out : start + 2 * n * n_out].reshape(n, n_out)
        np.dot(h.T, delta, gradient[offset:end].reshape(n_in, n_out))
        _add_up(delta, gradient[end : end + n_out])
        if layer > 0:
            under = deltas[below + n * n_in : start].reshape(n, n_in)
            _lower(delta, theta[offset:end].reshape(n_in, n_out), h, under)
        start = below


@kernel(fastmath=LOOSE)
def _add_up(delta: F32, out: F32) -> None:
    """``out (O,)`` <- the sum of the rows of ``delta (n, O)``."""
    out[:] = np.float32(0.0)
    for r in range(len(delta)):
        for j in range(len(out)):
            out[j] += delta[r, j]


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _differentiate(
    theta: F32, kind: Kind, n: int, y: F32, share: F32, acts: F32, deltas: F32, curved: F32,
    gradient: F32,
) -> float:  # fmt: skip
    """Loss of ``n`` rows, which stand in ``acts``, and its gradient ``(P,)`` at ``theta (P,)``."""
    if n == 0:
        gradient[:] = np.float32(0.0)
        return 0.0
    sizes, layers = kind.sizes, len(kind.sizes) - 1
    start, outputs = _forward(theta, sizes, layers, n, acts), sizes[-1]
    logits = acts[start : start + n * outputs].reshape(n, outputs)
    delta = deltas[start + n * outputs : start + 2 * n * outputs].reshape(n, outputs)
    shape = curved[: n * kind.classes].reshape(n, kind.classes)
    loss = _judge(logits, y, share, kind, delta, shape)
    _backward(theta, sizes, layers, n, acts, deltas, gradient)
    return loss


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _change_forward(theta: F32, vector: F32, sizes: I64, n: int, acts: F32, room: F32) -> None:
    """The lower half of ``acts``: how what the layers read, and what the last one gives, changes
    as ``theta`` moves along ``vector``."""
    offset, start, last = 0, 0, len(sizes) - 2
    for layer in range(last + 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        end, middle = offset + n_in * n_out, start + n * n_in
        h = acts[start:middle].reshape(n, n_in)
        moved = acts[middle : middle + n * n_in].reshape(n, n_in)
        start = middle + n * n_in
        out = acts[start : start + n * n_out].reshape(n, n_out)
        change = acts[start + n * n_out : start + 2 * n * n_out].reshape(n, n_out)
        np.dot(h, vector[offset:end].reshape(n_in, n_out), change)
        by_bias = vector[end : end + n_out]
        for r in range(n):
            for j in range(n_out):
                change[r, j] += by_bias[j]
        if layer > 0:
            more = room[: n * n_out].reshape(n, n_out)
            np.dot(moved, theta[offset:end].reshape(n_in, n_out), more)
            for r in range(n):
                for j in range(n_out):
                    change[r, j] += more[r, j]
        if layer < last:
            for r in range(n):
                for j in range(n_out):
                    active = out[r, j] > np.float32(0.0)
                    change[r, j] = change[r, j] if active else np.float32(0.0)
        offset = end + n_out


@kernel(fastmath=LOOSE)
def _change_of_delta(change: F32, curved: F32, share: F32, kind: Kind, out: F32) -> None:
    """``out (n, O)`` <- how the loss's derivative changes as outputs do by ``change (n, O)``."""
    for r in range(len(out)):
        row, by, shape = out[r], change[r], curved[r]
        row[:] = np.float32(0.0)
        mean = np.float32(0.0)
        if not kind.regression:
            for j in range(kind.classes):
                mean += shape[j] * by[j]
        for j in range(kind.classes):
            row[j] = shape[j] * (by[j] - mean) * share[r]


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _hessian_vector(
    theta: F32, vector: F32, kind: Kind, n: int, share: F32, acts: F32, deltas: F32, curved: F32,
    room: F32, out: F32,
) -> None:  # fmt: skip
    """``out (P,)`` <- the Hessian at ``theta``, where ``_differentiate`` has been with these, times
    ``vector (P,)``; a ReLU's second derivative is taken as 0."""
    if n == 0:
        out[:] = np.float32(0.0)
        return
    sizes, offset = kind.sizes, len(theta)
    _change_forward(theta, vector, sizes, n, acts, room)
    outputs, start = sizes[-1], 0
    for layer in range(len(sizes) - 1):
        start += 2 * n * sizes[layer]
    change = acts[start + n * outputs : start + 2 * n * outputs].reshape(n, outputs)
    shape = curved[: n * kind.classes].reshape(n, kind.classes)
    turned = deltas[start : start + n * outputs].reshape(n, outputs)
    _change_of_delta(change, shape, share, kind, turned)
    for layer in range(len(sizes) - 2, -1, -1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        end, below = offset - n_out, start - 2 * n * n_in
        offset = end - n_in * n_out
        both = 2 * n if layer > 0 else n  # inputs do not change
        h = acts[below : below + both * n_in].reshape(both, n_in)
        delta = deltas[start : start + both * n_out].reshape(both, n_out)
        np.dot(h.T, delta, out[offset:end].reshape(n_in, n_out))
        _add_up(delta[:n], out[end : end + n_out])
        if layer > 0:
            turned = deltas[below : below + n * n_in].reshape(n, n_in)
            more = room[: n * n_in].reshape(n, n_in)
            _lower(delta[:n], theta[offset:end].reshape(n_in, n_out), h, turned)
            _lower(delta[n:], vector[offset:end].reshape(n_in, n_out), h, more)
            for r in range(n):
                for j in range(n_in):
                    turned[r, j] += more[r, j]
        start = below


# -- through inner steps -----------------------------------------------------------------------


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def step_slopes(
    theta: F32, rates: F32, steps: int, second_order: bool, per_parameter: bool, kind: Kind,
    support: Rows, query: Rows, loss: F32, by: F32,
) -> bool:  # fmt: skip
    """Query loss of each task after so many inner ``steps`` from ``theta (P,)`` and its gradients,
    as ``GradientLearner.slopes`` has them without ``each_step`` and ``proximity``.

    ``rates (P,)``; ``steps`` at least 1. ``loss (B,)`` and ``by (B, P + R)`` are filled, the latter
    from zeros: weights, and where ``per_parameter`` says so logarithms of rates. ``False`` where
    a label is not one of the classes or a row counts in part: then they are not to be used.
    """
    most, size, units = max(support.y.shape[1], query.y.shape[1]), len(theta), 0
    for units_of_one in kind.sizes:
        units += units_of_one
    y, share = np.empty((2, most), np.float32), np.empty((2, most), np.float32)
    acts = np.empty((steps + 1, 2 * most * units), np.float32)
    deltas, room = np.empty_like(acts), np.empty(most * units, np.float32)
    curved = np.empty((steps + 1, most * kind.classes), np.float32)
    fast, gradient = np.empty((steps + 1, size), np.float32), np.empty((steps, size), np.float32)
    push, bend = np.empty(size, np.float32), np.empty(size, np.float32)
    counts = np.zeros(2, np.int64)
    for i in range(size):
        fast[0, i] = theta[i]
    for task in range(len(loss)):
        g = by[task, :size]
        for k in range(steps + 1):  # the last time round it is the query
            asked = 1 if k == steps else 0
            if k == 0 or asked:
                of = query if asked else support
                counts[asked] = _gather(of, task, kind, acts[k], y[asked], share[asked])
                if counts[asked] < 0:
                    return False
            else:
                for i in range(counts[0] * kind.sizes[0]):
                    acts[k, i] = acts[0, i]
            at = g if asked else gradient[k]
            loss[task] = _differentiate(fast[k], kind, counts[asked], y[asked], share[asked],
                                        acts[k], deltas[k], curved[k], at)  # fmt: skip
            if not asked:
                for i in range(size):
                    fast[k + 1, i] = fast[k, i] - rates[i] * at[i]
        for k in range(steps - 1, -1, -1):
            for i in range(size):
                push[i] = rates[i] * g[i]
            if per_parameter:
                for i in range(size):
                    by[task, size + i] -= gradient[k, i] * push[i]
            if second_order:
                _hessian_vector(fast[k], push, kind, counts[0], share[0], acts[k], deltas[k],
                                curved[k], room, bend)  # fmt: skip
                for i in range(size):
                    g[i] -= bend[i]
    return True


# -- through the ridge solution ----------------------------------------------------------------


@kernel(fastmath=LOOSE)
def _factor(gram: F64) -> None:
    """``gram (n, n)`` <- its Cholesky factor in the lower triangle; not finite where there is
    none."""
    for i in range(len(gram)):
        for j in range(i + 1):
            total = gram[i, j]
            for k in range(j):
                total -= gram[i, k] * gram[j, k]
            gram[i, j] = np.sqrt(total) if i == j else total / gram[j, j]


@kernel(fastmath=LOOSE)
def _solve(factor: F64, right: F64) -> None:
    """``right (n, m)`` <- the solution of the system that was factored."""
    n = len(factor)
    for i in range(n):
        for k in range(i):
            for c in range(right.shape[1]):
                right[i, c] -= factor[i, k] * right[k, c]
        for c in range(right.shape[1]):
            right[i, c] /= factor[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            for c in range(right.shape[1]):
                right[i, c] -= factor[k, i] * right[k, c]
        for c in range(right.shape[1]):
            right[i, c] /= factor[i, i]


class Ridge(NamedTuple):
    """What the last layer is solved for with: features and a column of ones ``h (n, H + 1)``, how
    strong the ``ridge (H + 1,)`` is, and the factor of the smaller of the two linear systems."""

    h: F64
    ridge: F64
    factor: F64


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _ridge(features: F32, n: int, ridge: F64) -> Ridge:
    """Get ready to solve on the first ``n`` of ``features (., H)``: ``H'H + R``, or with fewer
    rows than columns ``1 + H R^-1 H'`` (the matrix inversion lemma)."""
    width, dual = len(ridge), n < len(ridge)
    h = np.ones((n, width))
    for r in range(n):
        for i in range(width - 1):
            h[r, i] = features[r, i]
    if n == 0:
        return Ridge(h, ridge, np.empty((0, 0)))
    one = np.empty((n, width) if dual else (width, n))
    other = h
    if dual:
        for r in range(n):
            for i in range(width):
                one[r, i] = h[r, i] / ridge[i]
    else:
        for r in range(n):
            for i in range(width):
                one[i, r] = h[r, i]
        other = one
    gram = np.dot(one, other.T)
    for i in range(len(gram)):
        gram[i, i] += 1.0 if dual else ridge[i]
    _factor(gram)
    return Ridge(h, ridge, gram)


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _ridge_solution(of: Ridge, left: F64, solved: F64) -> None:
    """``solved (H + 1, C)`` <- ``(H'H + R)^-1 (H' left + solved)``, and ``left (n, C)`` <- what it
    leaves of that, ``left - H solved``.

    With what is wanted of the outputs and 0 this is ridge regression; with 0 and the gradient by
    the solution it is the adjoint of that.
    """
    n, width, columns = len(of.h), len(of.ridge), solved.shape[1]
    dual = n < width
    if dual:
        for i in range(width):
            for c in range(columns):
                solved[i, c] /= of.ridge[i]
    if n == 0:
        return
    if not dual:
        _add(np.dot(of.h.T, left), solved, 1.0)
        _solve(of.factor, solved)
    _add(np.dot(of.h, solved), left, -1.0)
    if dual:
        _solve(of.factor, left)
        more = np.dot(of.h.T, left)
        for i in range(width):
            for c in range(columns):
                solved[i, c] += more[i, c] / of.ridge[i]


@kernel(fastmath=LOOSE)
def _add(what: F64, to: F64, times: float) -> None:
    """``to (n, m)`` <- the sum with so many ``times`` ``what (n, m)``."""
    for r in range(len(to)):
        for c in range(to.shape[1]):
            to[r, c] += times * what[r, c]


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _coded(y: F32, n: int, kind: Kind) -> F64:
    """What the outputs should be, ``(n, C)``: the value, or ``1 - 1/C`` and ``-1/C``."""
    coded = np.full((n, kind.classes), -1.0 / kind.classes)
    for r in range(n):
        if kind.regression:
            coded[r, 0] = y[r]
        else:
            coded[r, int(y[r])] += 1.0
    return coded


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _judge_head(
    head: F32, features: F32, y: F32, share: F32, kind: Kind, below: F32, by_head: F32
) -> float:
    """Loss of a last layer ``(H + 1, O)`` on ``features (m, H)``, and its gradients by these,
    ``below``, and by the layer, ``by_head``."""
    m, hidden = features.shape
    logits = np.empty((m, head.shape[1]), np.float32)
    np.dot(features, head[:hidden], logits)
    for r in range(m):
        for j in range(head.shape[1]):
            logits[r, j] += head[hidden, j]
    delta = np.empty_like(logits)
    loss = _judge(logits, y, share, kind, delta, np.empty((m, kind.classes), np.float32))
    np.dot(features.T, delta, by_head[:hidden])
    _add_up(delta, by_head[hidden])
    np.dot(delta, head[:hidden].T, below)
    return loss


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def _one_ridge_slope(
    head: F32, ridge: F64, sharpness: float, kind: Kind, n: int, y: F32, share: F32,
    features: F32, below: F32, by_head: F32, by_extra: F32,
) -> float:  # fmt: skip
    """One task: ``features (n + m, H)`` of support and query -> query loss, and its gradients by
    these, ``below``, by the last layer ``(H + 1, O)``, ridge and sharpness ``(H + 2,)``."""
    width, classes = len(ridge), kind.classes
    system, coded = _ridge(features, n, ridge), _coded(y, n, kind)
    fast, solved = np.empty_like(head), np.empty((width, classes))
    move, left = np.zeros((width, classes)), np.empty((n, classes))
    for i in range(width):
        for c in range(classes):
            solved[i, c] = head[i, c]
    if n > 0:
        left = np.dot(system.h, solved)
    for r in range(n):
        for c in range(classes):
            left[r, c] = sharpness * coded[r, c] - left[r, c]
    _ridge_solution(system, left, move)
    _add(move, solved, 1.0)
    for i in range(width):
        for c in range(head.shape[1]):
            fast[i, c] = solved[i, c] if c < classes else head[i, c]
    loss = _judge_head(fast, features[n:], y[n:], share[n:], kind, below[n:], by_head)
    rest = np.zeros((n, classes))
    back = np.empty((width, classes))
    for i in range(width):
        for c in range(classes):
            back[i, c] = by_head[i, c]
    _ridge_solution(system, rest, back)
    for i in range(width):
        along = 0.0
        for c in range(classes):
            by_head[i, c] = ridge[i] * back[i, c]
            along += back[i, c] * move[i, c]
        by_extra[i] = -ridge[i] * along
    turn = 0.0
    for r in range(n):
        for c in range(classes):
            turn -= coded[r, c] * rest[r, c]
        for i in range(width - 1):
            total = 0.0
            for c in range(classes):
                total += left[r, c] * back[i, c] + rest[r, c] * solved[i, c]
            below[r, i] = total
    by_extra[width] = 0.0 if kind.regression else sharpness * turn
    return loss


@njit(cache=True, fastmath=LOOSE, nogil=True, error_model="numpy")
def ridge_slopes(
    theta: F32, extra: F32, kind: Kind, support: Rows, query: Rows, loss: F32, by: F32
) -> bool:
    """Query loss of each task with its last layer solved for, and its gradients, as
    ``R2D2.slopes`` has them without ``modulation``; linear systems in double precision.

    ``extra (H + 2,)``: logarithms of ridge and sharpness; ``loss (B,)`` and ``by (B, P + 1 + H +
    2)`` are filled, the latter from zeros. ``False`` where a label is not one of the classes
    or a row counts in part: then they are not to be used.
    """
    sizes, size, most = kind.sizes, len(theta), support.y.shape[1] + query.y.shape[1]
    hidden, outputs, layers, units = sizes[-2], sizes[-1], len(sizes) - 2, 0
    for units_of_one in sizes:
        units += units_of_one
    first = size - (hidden + 1) * outputs
    head = theta[first:].reshape(hidden + 1, outputs)
    ridge = np.empty(hidden + 1)
    for i in range(hidden + 1):
        ridge[i] = np.exp(np.float64(extra[i]))
    sharpness = 1.0 if kind.regression else np.exp(np.float64(extra[hidden + 1]))
    acts = np.empty(2 * most * units, np.float32)
    deltas, y, share = np.empty_like(acts), np.empty(most, np.float32), np.empty(most, np.float32)
    for task in range(len(loss)):
        n = _gather(support, task, kind, acts, y, share)
        m = _gather(query, task, kind, acts[max(n, 0) * sizes[0] :], y[max(n, 0) :],
                    share[max(n, 0) :])  # fmt: skip
        if n < 0 or m < 0:
            return False
        if m == 0:
            continue
        rows = n + m
        start = _forward(theta, sizes, layers, rows, acts)
        features = acts[start : start + rows * hidden].reshape(rows, hidden)
        below = deltas[start + rows * hidden : start + 2 * rows * hidden].reshape(rows, hidden)
        by_head = by[task, first:size].reshape(hidden + 1, outputs)
        loss[task] = _one_ridge_slope(head, ridge, sharpness, kind, n, y, share, features, below,
                                      by_head, by[task, size + 1 :])  # fmt: skip
        for r in range(rows):
            for j in range(hidden):
                active = features[r, j] > np.float32(0.0)
                below[r, j] = below[r, j] if active else np.float32(0.0)
        _backward(theta, sizes, layers, rows, acts, deltas, by[task])
    return True


# -- the outer step ----------------------------------------------------------------------------


class Pace(NamedTuple):
    """How an outer step moves: Adam with ``lr``, ``betas`` and ``eps`` on gradients of length
    ``limit`` at most. Logarithms of rates move ``rates`` times as far (0: not at all), within
    ``span`` of ``centre``; extra parameters ``extra`` times, within ``bound`` of 0. ``gated``:
    weights move by their own rates instead."""

    lr: float
    beta: float
    beta_second: float
    eps: float
    limit: float
    rates: float
    centre: float
    span: float
    extra: float
    bound: float
    gated: bool


class Moved(NamedTuple):
    """What a step fills: weights, logarithms of rates, extra parameters, and Adam's moments."""

    theta: F32
    log_rates: F32
    extra: F32
    first: F32
    second: F32


@kernel(fastmath=LOOSE)
def _sum(row: F32) -> float:
    """In double precision, where no sum of finite numbers overflows."""
    total = 0.0
    for i in range(len(row)):
        total += row[i]
    return total


@kernel(fastmath=LOOSE)
def _length(row: F32) -> float:
    """Euclidean, in double precision."""
    total = 0.0
    for i in range(len(row)):
        total += np.float64(row[i]) * row[i]
    length: float = np.sqrt(total)
    return length


@kernel()
def _mean_slope(loss: F32, by: F32, mean: F32) -> tuple[float, int]:
    """``mean (N,)`` <- that of ``by (B, N)`` over the tasks that are finite throughout; their mean
    loss, and how many are not."""
    total, good = 0.0, 0
    mean[:] = np.float32(0.0)
    for task in range(len(loss)):
        row = by[task]
        # where sums may be reordered, compiled code takes everything for finite: not here
        if not np.isfinite(loss[task] + _sum(row)):
            continue
        good += 1
        total += loss[task]
        for i in range(len(mean)):
            mean[i] += row[i]
    if good:
        share = np.float32(1.0 / good)
        for i in range(len(mean)):
            mean[i] *= share
    return (total / good if good else np.nan), len(loss) - good


@kernel(fastmath=LOOSE)
def _adam(
    gradient: F32, scale: float, first: F32, second: F32, taken: float, pace: Pace, new: Moved
) -> None:
    """``gradient`` <- the step to subtract, by its ``scale``-fold; the moments after it."""
    times = np.float32(scale)
    beta, beta_second = np.float32(pace.beta), np.float32(pace.beta_second)
    kept, kept_second = np.float32(1.0 - pace.beta), np.float32(1.0 - pace.beta_second)
    lr = np.float32(pace.lr / (1.0 - pace.beta**taken))
    root = np.float32(1.0 / np.sqrt(1.0 - pace.beta_second**taken))
    eps = np.float32(pace.eps)
    for i in range(len(gradient)):
        g = times * gradient[i]
        m = beta * first[i] + kept * g
        v = beta_second * second[i] + kept_second * g * g
        new.first[i], new.second[i] = m, v
        gradient[i] = lr * m / (root * np.sqrt(v) + eps)


@njit(cache=True, nogil=True, error_model="numpy")
def outer_step(
    loss: F32, by: F32, old: Moved, taken: float, pace: Pace, new: Moved
) -> tuple[float, float, int]:
    """``new`` <- where the step after ``taken - 1`` others leads from ``old``, on the mean of the
    tasks that are finite; mean loss, length of the gradient, and how many tasks were left out.
    Where that is all of them ``new`` is not filled."""
    size, n_rates = len(old.theta), len(old.log_rates)
    gradient = np.empty(by.shape[1], np.float32)
    mean, skipped = _mean_slope(loss, by, gradient)
    if skipped == len(loss):
        return np.nan, np.nan, skipped
    norm = _length(gradient)
    scale = pace.limit / max(norm, pace.limit)
    plain = np.empty(size if pace.gated else 0, np.float32)
    for i in range(len(plain)):
        plain[i] = gradient[i]
    _adam(gradient, scale, old.first, old.second, taken, pace, new)
    least, most = np.float32(pace.centre - pace.span), np.float32(pace.centre + pace.span)
    for i in range(n_rates):
        value = old.log_rates[i] - np.float32(pace.rates) * gradient[size + i]
        new.log_rates[i] = min(max(value, least), most) if pace.rates != 0.0 else old.log_rates[i]
    if pace.gated:
        for i in range(size):
            rate = np.exp(new.log_rates[i if n_rates == size else 0])
            new.theta[i] = old.theta[i] - rate * np.float32(scale) * plain[i]
    else:
        for i in range(size):
            new.theta[i] = old.theta[i] - gradient[i]
    bound = np.float32(pace.bound)
    for i in range(len(old.extra)):
        value = old.extra[i] - np.float32(pace.extra) * gradient[size + n_rates + i]
        new.extra[i] = min(max(value, -bound), bound)
    return mean, norm, skipped
