"""In-context learning: a recurrent network reads rows with their labels and predicts the next.

Nothing is descended when a task comes: a gated recurrent unit reads the support row by row, and
what it remembers is all that a task changes. Hochreiter, Younger, Conwell 2001 ("Learning to learn
using gradient descent", ICANN): the recurrent network's dynamics are the learning algorithm, its
weights are learned by gradient descent over tasks. A label is read one step after its row was
predicted (Santoro et al. 2016, arXiv 1605.06065, section 2; RL^2, Duan et al. 2016, arXiv
1611.02779), and every position of a sequence is trained to predict its label.

A recurrent unit and no transformer: a stream's rows come one by one and without end, its state has
one size and takes one step for each, while attention would read all rows again.

What the unit remembers is a further input of every hidden layer beside what the layer reads. For a
given memory that is a plain ``Net`` with other biases, as the context of CAVIA is one (Zintgraf et
al. 2019), so a stream's experts take it as they take any other fast weights.

Which of many rows had which label is more than a vector of states holds, so where labels are
classes there is a second memory beside it: linear attention, a matrix to which each row adds its
label times what the last layer read of it (Schmidhuber 1992, "Learning to control fast-weight
memories"; Ba et al. 2016, arXiv 1610.06258; Katharopoulos et al. 2020, arXiv 2006.16236). It too
has one size and takes one step for each row, and for a given memory it is another last layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.differentiated import Differentiated
from streammeta.meta.gradient_based import joined
from streammeta.meta.gru import Gru, rows_times
from streammeta.meta.learner import Batch
from streammeta.meta.loss import losses, masked_mean
from streammeta.meta.net import Layer, Net, unpack

SEED = 1611_02779  # of the first weights of the reader
PACE = 3.0  # so many times further than a weight of the network the reader moves
SPEAKS = 0.1  # of the usual spread of first weights: at first the memory says little
PSEUDO_ROWS = 1.0  # that the first guess counts for beside the rows read, as it starts
CODE = 16  # numbers by which the reader knows a class
LOUDNESS = 1.0  # of what is recalled of the rows read, as it starts

Rows = tuple[Tensor, Tensor, Tensor]


class Recalled(NamedTuple):
    """Linear attention: ``keys (B, T, H)`` and classes ``of (B, T, O)`` of ``T`` rows; before each
    of them and after the last, how many were of each class, ``counts (B, T + 1, O)``, and how
    ``loud (B, T + 1, O)`` a row of it speaks."""

    keys: Tensor
    of: Tensor
    counts: Tensor
    loud: Tensor

    def told(self, asked: Tensor) -> Tensor:
        """What each row, of which the last layer reads ``asked (B, T, H)``, is told ``(B, T, O)``
        by those before it: how much more it is like those of a class than like all."""
        alike = torch.tril(asked @ self.keys.mT, -1)
        all_rows = alike.sum(-1, keepdim=True) * _shares(self.counts[:, :-1])
        return self.loud[:, :-1] * (alike @ self.of - all_rows)

    def weights(self) -> Tensor:
        """What all rows tell any other, as weights ``(B, H, O)``."""
        all_rows = self.keys.mT.sum(-1, keepdim=True) * _shares(self.counts[:, -1:])
        return self.loud[:, -1:] * (self.keys.mT @ self.of - all_rows)


class Read(NamedTuple):
    """What is known before each of ``T`` rows and after the last: ``shift (B, T + 1, sum H)`` of
    the biases of all hidden layers end to end, ``lift (B, T + 1, O)`` of the outputs, and what is
    recalled, if anything."""

    shift: Tensor
    lift: Tensor
    recalled: Recalled | None


@dataclass(frozen=True)
class InContext(Differentiated):
    """A reader with ``units`` states; the network that it speaks to is meta-learned with it.

    Of a row the reader sees ``x``, what the last layer of the meta-learned network reads of it, and
    the label: a value as it is, a class by random numbers that are its own and stay the same, so
    that nothing of the reader hangs on how many classes there are or on what was learned of them.
    Beside it the outputs follow the mean error of the first guess, as if that were worth so many
    rows: untrained, it adapts an intercept. Where labels are classes and unless ``attends`` is
    false, each output also gains how much more alike a row is to those of its class than to all.

    ``extra`` holds the logarithm of those pseudo-rows, the reader (``Gru``), ``(units, sum H)``
    weights from its states to the biases, and of the one that attends the logarithm of how loud
    that is. ``reach``: so many of the newest rows are read at most.
    Where ``steps`` is 0 nothing is learned of a support. The loss of an outer step is that of all
    rows, support and query, each predicted from those before it.

    Raises:
        UsageError: the model is not a ``Net`` with a hidden layer, ``units`` or ``reach`` is below
            1, or an option is asked that is about inner steps.
    """

    units: int = 64
    reach: int = 64
    attends: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.net, Net) or len(self.net.sizes) < 3:
            raise UsageError("in_context speaks to the hidden layers of a Net; here are none")
        for name in ("units", "reach"):
            if getattr(self, name) < 1:
                raise UsageError(f"in_context: {name} is {getattr(self, name)}; expected 1 or more")

    def extra(self, theta: Tensor) -> Tensor:
        """A reader as torch starts them, whose word counts little as yet."""
        generator = torch.Generator().manual_seed(SEED)
        reader, width = self._reader(), sum(self._widths())
        said = torch.rand(self.units * width, generator=generator, dtype=torch.float64)
        said = SPEAKS * (2.0 * said - 1.0) / math.sqrt(self.units)
        pseudo = torch.tensor([math.log(PSEUDO_ROWS)], dtype=torch.float64)
        loud = torch.tensor([math.log(LOUDNESS)] * self._recalls, dtype=torch.float64)
        return torch.cat([pseudo, reader.init(generator), said, loud]).to(theta)

    @property
    def extra_pace(self) -> float:
        """The reader has all the learning to learn; outer rates are meant for descent."""
        return PACE

    def judged(self, theta: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """Loss ``(B,)`` over all rows of support and query, each predicted before it is read."""
        x, y, mask = joined(batch)
        there = (mask > 0).any(0)  # no time is spent on what is padding in every task
        x, y, mask = x[:, there], y[:, there], mask[:, there]
        told = self.read(theta, extra, (x, y, mask), n_classes)
        said = self._speak(theta, x, told)
        return masked_mean(losses(said, y, self.loss(n_classes)), mask)

    def adapted(self, theta: Tensor, extra: Tensor, support: Rows, n_classes: int) -> Tensor:
        """``theta (B, P)`` with what was read in its biases."""
        x, y, mask = (part[:, -self.reach :] for part in support)
        told = self.read(theta, extra, (x, y, mask), n_classes)
        fast, shifts = theta.clone(), torch.split(told.shift[:, -1], self._widths(), -1)
        for layer, shift in zip(self._layers(), (*shifts, told.lift[:, -1]), strict=True):
            fast[:, layer.bias : layer.end] += shift
        if told.recalled is not None:
            last = self._last()
            fast[:, last.start : last.bias] += told.recalled.weights().flatten(1)
        return fast

    def read(self, theta: Tensor, extra: Tensor, rows: Rows, n_classes: int) -> Read:
        """What rows ``x (B, T, D)``, ``y`` and ``mask (B, T)`` teach, row by row."""
        x, y, mask = rows
        assert isinstance(self.net, Net)
        x, y = torch.where(mask.unsqueeze(-1) > 0, x, 0.0), torch.where(mask > 0, y, 0.0)
        reader, width = self._reader(), sum(self._widths())
        sizes = [1, reader.n_params, self.units * width, int(self._recalls)]
        pseudo, own, words, loud = torch.split(extra, sizes, -1)
        seen = self.net.features(theta, x)
        weight, bias = unpack(theta, self._last())
        guess = seen @ weight + bias.unsqueeze(-2)
        recalled = None
        if self.task == "regression":
            label = y.unsqueeze(-1)
            error = label - guess
        else:
            one = torch.nn.functional.one_hot(y.long(), self._last().n_out).to(x.dtype)
            label = one @ codes(self._last().n_out).to(x)
            error = torch.zeros_like(guess)
            error[..., :n_classes] = one[..., :n_classes] - guess[..., :n_classes].softmax(-1)
            if self._recalls:
                recalled = _recalled(seen, one, mask, pseudo.exp(), loud.exp())
        states = reader.read(own, torch.cat([x, seen, label], -1), mask)
        shift = rows_times(states, words.view(len(words), self.units, width))
        return Read(shift, _mean_before(error, mask, pseudo.exp()), recalled)

    def _speak(self, theta: Tensor, x: Tensor, told: Read) -> Tensor:
        """Outputs ``(B, T, O)`` for ``x (B, T, D)``, each by what was told before it."""
        h, shifts = x, torch.split(told.shift[:, :-1], self._widths(), -1)
        layers = self._layers()
        for layer, shift in zip(layers[:-1], shifts, strict=True):
            weight, bias = unpack(theta, layer)
            h = torch.relu(h @ weight + (bias.unsqueeze(-2) + shift))
        weight, bias = unpack(theta, layers[-1])
        said = h @ weight + (bias.unsqueeze(-2) + told.lift[:, :-1])
        return said if told.recalled is None else said + told.recalled.told(h)

    @property
    def _recalls(self) -> bool:
        return self.attends and self.task == "classification"

    def _layers(self) -> tuple[Layer, ...]:
        assert isinstance(self.net, Net)
        return self.net.layers()

    def _widths(self) -> list[int]:
        return [layer.n_out for layer in self._layers()[:-1]]

    def _reader(self) -> Gru:
        assert isinstance(self.net, Net)
        width = self._last().n_in
        label = 1 if self.task == "regression" else CODE
        return Gru(self.net.sizes[0] + width + label, self.units)


@cache
def codes(classes: int) -> Tensor:
    """The numbers by which the reader knows each class, ``(classes, CODE)``: those of a class do
    not hang on how many there are."""
    generator = torch.Generator().manual_seed(SEED + 1)
    return torch.randn(classes, CODE, generator=generator, dtype=torch.float64)


def _recalled(seen: Tensor, one: Tensor, mask: Tensor, pseudo: Tensor, loud: Tensor) -> Recalled:
    """The memory of rows of which the last layer reads ``seen (B, T, H)``, with labels ``one (B, T,
    O)``; in each class ``pseudo (B, 1)`` rows that say nothing are counted with its own."""
    on = mask.unsqueeze(-1)
    keys = torch.nn.functional.normalize(seen, dim=-1, eps=1e-6) * on
    counts = _sum_before(one * on)
    return Recalled(keys, one, counts, loud.unsqueeze(-1) / (counts + pseudo.unsqueeze(-1)))


def _shares(counts: Tensor) -> Tensor:
    """How frequent each class is, ``(..., O)``; 0 where there is no row."""
    return counts / counts.sum(-1, keepdim=True).clamp(min=1.0)


def _mean_before(values: Tensor, mask: Tensor, pseudo: Tensor) -> Tensor:
    """Mean of ``values (B, T, O)`` of the rows before each and of all, ``(B, T + 1, O)``, where
    ``pseudo (B, 1)`` rows more had none."""
    on = mask.unsqueeze(-1)
    return _sum_before(values * on) / (_sum_before(on) + pseudo.unsqueeze(-1))


def _sum_before(values: Tensor) -> Tensor:
    """Sums ``(B, T + 1, O)`` of ``values (B, T, O)`` before each row and of all."""
    return torch.nn.functional.pad(values.cumsum(1), (0, 0, 1, 0))
