"""The LSTM meta-learner: a network's weights are the cell of an LSTM.

Ravi & Larochelle 2017 ("Optimization as a model for few-shot learning", ICLR), equations 2 to 5:
``theta <- f theta - i gradient``, where gates ``f`` and ``i`` of every weight come from its
gradient, the loss, the weight itself and the gate's value before, through an LSTM that all weights
share. The first weights are learned too. Here the gate ``i`` starts at ``inner_lr`` and may go up
to ``FASTEST`` times that, where the paper's ends at 1. And it is trained on the losses after every
step: with gradients taken as given, the loss after the last one does not punish that the steps
before it overshoot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from streammeta.meta.learner import Gradient
from streammeta.meta.lstm import Cell
from streammeta.meta.unrolled import Memory, Unrolled, preprocessed

SEED = 2017_03  # of the rule's first weights
KEEP = 6.0  # bias of the gate f, as it starts: a step keeps 99.75 % of a weight
FASTEST = 10.0  # bound of the gate i, in units of inner_lr


@dataclass(frozen=True)
class MetaLstm(Unrolled):
    """``extra`` holds the LSTM, then weights ``(units + 2,)`` and bias of the gates i and f."""

    def cells(self) -> tuple[Cell, ...]:
        """One: it reads two numbers of the gradient and two of the loss."""
        return (Cell(4, self.units),)

    def extra(self, theta: Tensor) -> Tensor:
        """Gates that hardly look at anything: plain steps of ``inner_lr``."""
        rule = self.initial(SEED, 2 * (self.units + 3))
        gates = rule[-2 * (self.units + 3) :].view(2, -1)
        gates[0, -1], gates[1, -1] = -math.log(FASTEST - 1.0), KEEP
        return rule.to(theta)

    def blank(self, theta: Tensor) -> Memory:
        """Nothing read, both gates at 0."""
        state = theta.new_zeros(*theta.shape, self.units)
        return state, state, torch.zeros_like(theta), torch.zeros_like(theta)

    def move(self, rule: Tensor, fast: Tensor, at: Gradient, kept: Memory) -> tuple[Tensor, Memory]:
        """``f theta - i gradient``, where i is the gate in its units."""
        told = preprocessed(at.loss).unsqueeze(1).expand(-1, fast.shape[1], -1)
        h, state = self.read(rule, torch.cat([preprocessed(at.gradient), told], -1), kept)
        gates = rule[:, -2 * (self.units + 3) :].reshape(len(rule), 2, -1)
        found = []
        for gate, before in enumerate(kept[-2:]):
            seen = torch.cat([h, fast.unsqueeze(-1), before.unsqueeze(-1)], -1)
            weight, bias = gates[:, gate, :-1].unsqueeze(-1), gates[:, gate, -1:]
            found.append(torch.sigmoid((seen @ weight).squeeze(-1) + bias))
        into, keep = found
        step = FASTEST * self.inner_lr * into * at.gradient
        return keep * fast - step, (*state, into, keep)
