"""Matching networks: every row of the support votes for its label, the more alike the louder.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra 2016 (arXiv 1606.04080), equation 1: attention
is a softmax of cosines, of what the last layer reads, times a learned sharpness. Of values it
gives the weighted mean (Nadaraya 1964, Watson 1964). Full context embeddings are an option
(section 2.1.2 and appendix A).

Beside the support there is one vote from the meta-parameters: for each class as loud as their last
layer says, of values theirs, with a learned loudness. So a class that the support lacks has a
probability, and nothing is undefined without a support.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from streammeta.errors import UsageError
from streammeta.meta.differentiated import Differentiated
from streammeta.meta.learner import Batch, Model, State
from streammeta.meta.loss import Task, losses, masked_mean
from streammeta.meta.lstm import Cell
from streammeta.meta.net import Layer, Net

SEED = 1606_04080  # of the first weights of the readers
SHARPNESS = 10.0  # of cosines, as it starts
RIDGE = 0.03  # of the network that stands for the attention, by the features' mean square
Support = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Matching(Differentiated):
    """``answer`` and the outer update use the attention itself; ``adapt`` gives a plain network.

    A stream's experts are networks, so ``adapt`` solves for the last layer (ridge regression) that
    comes closest, on the support's rows, to what the attention says there: what that costs is
    what ``answer`` and ``adapt`` differ by. ``context`` is how many times a query reads the support
    with full context embeddings; 0 leaves them out. ``extra`` holds the logarithm of the
    sharpness, the loudness of the meta-parameters' value, and the weights of the readers.

    Raises:
        UsageError: the model is not a ``Net``, ``context`` is below 0, or an option is asked that
            is about inner steps.
    """

    context: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.net, Net):
            raise UsageError("matching compares what the last layer of a Net reads")
        if self.context < 0:
            raise UsageError(f"matching: context is {self.context}; expected at least 0")

    def extra(self, theta: Tensor) -> Tensor:
        """Sharpness, loudness, and the readers' weights where there are any."""
        parts = [torch.tensor([math.log(SHARPNESS), 0.0], dtype=torch.float64)]
        generator = torch.Generator().manual_seed(SEED)
        parts += [cell.init(generator, 0.3) for cell in self._cells()]
        return torch.cat(parts).to(theta)

    def judged(self, theta: Tensor, extra: Tensor, batch: Batch, n_classes: int) -> Tensor:
        """Query loss ``(B,)`` of the attention."""
        said = self.attend(theta, extra, batch[:3], batch.query_x)
        each = losses(said, batch.query_y, self.loss(n_classes))
        return masked_mean(each, batch.query_mask)

    def answer(self, state: State, batch: Batch, n_classes: int) -> Tensor:
        """Outputs ``(B, Q, O)`` of the attention for the query's rows."""
        tasks = len(batch.support_x)
        with torch.no_grad():
            theta, extra = (part.expand(tasks, -1) for part in (state.theta, state.extra))
            if not self.steps:
                return self.net.apply(theta, batch.query_x)
            return self.attend(theta, extra, batch[:3], batch.query_x)

    def adapted(self, theta: Tensor, extra: Tensor, support: Support, n_classes: int) -> Tensor:
        """``theta (B, P)`` with the last layer that comes closest to the attention."""
        assert isinstance(self.net, Net)
        (x, y, mask), last = support, self._last()
        said = self.attend(theta, extra, support, x)
        if self.task == "classification":
            said = said - said[..., :n_classes].mean(-1, keepdim=True)
        h = torch.cat([self.net.features(theta, x), torch.ones_like(y).unsqueeze(-1)], -1)
        h = h * mask.unsqueeze(-1)
        head = theta[:, last.start : last.end].reshape(-1, last.n_in + 1, last.n_out)
        gram = h.mT @ h
        ridge = RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp(min=1e-6)
        gram = gram + torch.diag_embed(ridge.unsqueeze(-1).expand(-1, last.n_in + 1))
        move, _ = torch.linalg.solve_ex(gram, h.mT @ (said * mask.unsqueeze(-1) - h @ head))
        used = n_classes if self.task == "classification" else 1
        head = head + move * (torch.arange(last.n_out, device=h.device) < used)
        return torch.cat([theta[:, : last.start], head.flatten(1)], -1)

    def attend(self, theta: Tensor, extra: Tensor, support: Support, x: Tensor) -> Tensor:
        """Outputs ``(B, n, O)`` for ``x (B, n, D)``: log votes of each class, or a value."""
        assert isinstance(self.net, Net)
        (rows, y, mask), last = support, self._last()
        raw, asked = self.net.features(theta, rows), self.net.features(theta, x)
        kept = raw * mask.unsqueeze(-1)
        head = theta[:, last.start : last.end].reshape(-1, last.n_in + 1, last.n_out)
        own = asked @ head[:, :-1] + head[:, -1:]
        if self.context:
            kept = self._read_support(kept, mask, extra)
            asked = self._read_query(asked, kept, mask, extra)
        kept, asked = (torch.nn.functional.normalize(h, dim=-1, eps=1e-6) for h in (kept, asked))
        loud = extra[:, :1].exp().unsqueeze(-1) * (asked @ kept.mT)  # (B, n, S)
        loud = loud.masked_fill(mask.unsqueeze(1) == 0, -math.inf)
        if self.task == "regression":
            votes = torch.cat([loud, extra[:, 1:2].unsqueeze(1).expand(-1, len(x[0]), -1)], -1)
            share = votes.softmax(-1)
            value = share[..., :-1] @ y.unsqueeze(-1) + share[..., -1:] * own[..., :1]
            return torch.nn.functional.pad(value, (0, last.n_out - 1))
        of = torch.nn.functional.one_hot(y.long(), last.n_out).unsqueeze(1)
        votes = loud.unsqueeze(-1).masked_fill(of == 0, -math.inf)  # (B, n, S, O)
        return torch.logsumexp(torch.cat([votes, own.unsqueeze(2)], 2), 2)

    def _read_support(self, rows: Tensor, mask: Tensor, extra: Tensor) -> Tensor:
        """What each row is among the others: read forwards and backwards (appendix A.2)."""
        forwards, backwards, _ = self._cells()
        read = rows + forwards.read(self._flat(extra, 0), rows, mask)
        turned = backwards.read(self._flat(extra, 1), rows.flip(1), mask.flip(1))
        read = read + turned.flip(1)
        return read * mask.unsqueeze(-1)

    def _read_query(self, asked: Tensor, kept: Tensor, mask: Tensor, extra: Tensor) -> Tensor:
        """What each query is in the light of the support (appendix A.1)."""
        cell, flat = self._cells()[2], self._flat(extra, 2)
        h, c = asked, torch.zeros_like(asked)
        for _ in range(self.context):
            like = (h @ kept.mT).masked_fill(mask.unsqueeze(1) == 0, -1e9)
            found = like.softmax(-1) @ kept
            new, c = cell.step(flat, torch.cat([asked, found], -1), h, c)
            h = new + asked
        return h

    def _cells(self) -> tuple[Cell, ...]:
        if not self.context:
            return ()
        width = self._last().n_in
        return Cell(width, width), Cell(width, width), Cell(2 * width, width)

    def _flat(self, extra: Tensor, at: int) -> Tensor:
        cells = self._cells()
        start = 2 + sum(cell.n_params for cell in cells[:at])
        return extra[:, start : start + cells[at].n_params]

    def _last(self) -> Layer:
        assert isinstance(self.net, Net)
        return self.net.layers()[-1]


def matching_context(net: Model, task: Task, **options: Any) -> Matching:
    """Matching networks with full context embeddings: each query reads the support once."""
    return Matching(net, task, context=1, **options)
