"""Two plain ways to make one slide of its cells: their mean, and their mean weighed by a gated attention.

Every head here is K members that learn side by side, each from its own weights; all take the features (n, r) of a
slide's n tissue cells in row-major order, which cells of the grid these are (rows, columns), and what each member's
directions are multiplied by (K, 1, r): dropout.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

HIDDEN = 64
"""Length of the embedding that a gated member makes of a cell."""
GATES = 32
"""Length of what its attention is made from."""


class Pooled(NamedTuple):
    """What members make of a slide: logits (K, C), and the log of their attention over the cells, (K, n)."""

    logits: Tensor
    log_attention: Tensor


class MeanPooling(nn.Module):
    """The mean of the features, and a linear map of it: ``logits = W mean_i x_i + b``.

    Args:
        members, classes, components: K, C and r.
    """

    share: Tensor
    standardised = False
    """Whether a slide's own mean and spread are taken out of its features first; of a mean nothing would be left."""

    def __init__(self, *, members: int, classes: int, components: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_uniform(members, classes, components))
        self.bias = nn.Parameter(torch.zeros(members, classes))
        self.register_buffer("share", torch.full((members,), 1 / members))

    def forward(self, features: Tensor, tissue: Tensor, keep: Tensor | None = None) -> Pooled:
        """Features (n, r) -> logits (K, C) and log attention (K, n)."""
        weight = self.weight if keep is None else self.weight * keep
        logits = weight @ features.mean(0) + self.bias
        even = features.new_zeros(len(weight), len(features)).log_softmax(1)
        return Pooled(logits, even)

    def shares(self, features: Tensor, tissue: Tensor) -> Tensor:
        """Each cell's part of the logits without the bias, (K, n, C): its term of the mean."""
        return features @ self.weight.mT / len(features)


class GatedPooling(nn.Module):
    """Gated attention: ``a = softmax_i w . (tanh(V h_i) * sigmoid(U h_i))`` with ``h = relu(W x + b)``, and a linear
    map of ``sum_i a_i h_i`` (Ilse, Tomczak & Welling, "Attention-based deep multiple instance learning", ICML 2018).

    Args:
        members, classes, components: K, C and r.
    """

    share: Tensor
    standardised = True

    def __init__(self, *, members: int, classes: int, components: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(_uniform(members, HIDDEN, components))
        self.embed_bias = nn.Parameter(torch.zeros(members, 1, HIDDEN))
        self.tanh = nn.Parameter(_uniform(members, GATES, HIDDEN))
        self.gate = nn.Parameter(_uniform(members, GATES, HIDDEN))
        self.score = nn.Parameter(_uniform(members, 1, GATES))
        self.weight = nn.Parameter(_uniform(members, classes, HIDDEN))
        self.bias = nn.Parameter(torch.zeros(members, classes))
        self.register_buffer("share", torch.full((members,), 1 / members))

    def forward(self, features: Tensor, tissue: Tensor, keep: Tensor | None = None) -> Pooled:
        """Features (n, r) -> logits (K, C) and log attention (K, n)."""
        hidden, log_a = self._attended(features, keep)
        pooled = log_a.exp().unsqueeze(1) @ hidden  # (K, 1, HIDDEN)
        return Pooled((pooled @ self.weight.mT).squeeze(1) + self.bias, log_a)

    def shares(self, features: Tensor, tissue: Tensor) -> Tensor:
        """Each cell's part of the logits without the bias, (K, n, C): its term of the mean by attention."""
        hidden, log_a = self._attended(features)
        return log_a.exp().unsqueeze(2) * (hidden @ self.weight.mT)

    def _attended(self, features: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embeddings (K, n, HIDDEN) and log attention (K, n)."""
        embed = self.embed if keep is None else self.embed * keep
        hidden = (features @ embed.mT + self.embed_bias).relu()
        gated = (hidden @ self.tanh.mT).tanh() * (hidden @ self.gate.mT).sigmoid()
        return hidden, (gated @ self.score.mT).squeeze(2).log_softmax(1)


def _uniform(*shape: int) -> Tensor:
    """As `torch.nn.Linear` begins: within ``1 / sqrt(inputs)``."""
    reach: float = shape[-1] ** -0.5
    return torch.empty(shape).uniform_(-reach, reach)
