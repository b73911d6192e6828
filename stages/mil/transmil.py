"""Cells that look at each other before the slide is judged: TransMIL."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.mil.pooling import Pooled

DIM = 128
"""Length of a token."""
STEPS = 16
"""Points of the line along which cells' parts are integrated."""
PARTS = 4
"""Heads of the attention among tokens."""


class TransMIL(nn.Module):
    """A transformer of two layers over a slide's cells and a class token, between which cells hear of their neighbours
    (Shao et al., "TransMIL: Transformer based correlated multiple instance learning", NeurIPS 2021).

    Unlike the paper's: attention is plain, not Nystrom's approximation, and so exact, with memory for n tokens (torch's
    fused kernels) and time for their square; tokens are of 128 numbers, not 512; and neighbours, which the paper finds
    by folding the sequence of cells into a square, are those on the slide's own grid.

    Args:
        classes, components: C and r.
    """

    def __init__(self, *, classes: int, components: int) -> None:
        super().__init__()
        self.embed = nn.Linear(components, DIM)
        self.token = nn.Parameter(0.02 * torch.randn(1, DIM))
        self.first, self.second = _Layer(), _Layer()
        self.around = nn.ModuleList(
            nn.Conv2d(DIM, DIM, side, padding=side // 2, groups=DIM) for side in (7, 5, 3)
        )  # pyramid position encoding
        self.norm = nn.LayerNorm(DIM)
        self.head = nn.Linear(DIM, classes)

    def forward(self, features: Tensor, tissue: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, r) of the tissue (rows, columns) -> logits (C,), log of the class token's attention (n,)."""
        x = torch.cat([self.token, self.embed(features).relu()])
        x = self.first(x)
        grid = x.new_zeros(DIM, *tissue.shape)
        grid[:, tissue] = x[1:].T
        grid = grid + sum(one(grid[None])[0] for one in self.around)
        x = torch.cat([x[:1], grid[:, tissue].T])
        log_attention = self.second.log_attention(x)
        x = self.second(x)
        return self.head(self.norm(x[0])), log_attention


class _Layer(nn.Module):
    """Attention among tokens (n, DIM), added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.ask = nn.Linear(DIM, 3 * DIM, bias=False)
        self.out = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._asked(x)
        told = functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        added: Tensor = self.out(told.transpose(0, 1).flatten(1))
        return x + added

    def log_attention(self, x: Tensor) -> Tensor:
        """How the first token looks at the others, mean over the heads: log, (n - 1,), summing to one."""
        q, k, _ = self._asked(x)
        scores = (q[:, :1] @ k.mT)[:, 0, 1:] / q.shape[2] ** 0.5
        mean: Tensor = scores.log_softmax(1).logsumexp(0).log_softmax(0)
        return mean

    def _asked(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (PARTS, n, DIM / PARTS) each."""
        q, k, v = self.ask(self.norm(x)).unflatten(1, (3, PARTS, -1)).permute(1, 2, 0, 3)
        return q, k, v


class TransMILPooling(nn.Module):
    """K members, each a `TransMIL` of its own.

    Args:
        members, classes, components: K, C and r.
    """

    share: Tensor
    standardised = True

    def __init__(self, *, members: int, classes: int, components: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(TransMIL(classes=classes, components=components) for _ in range(members))
        self.register_buffer("share", torch.full((members,), 1 / members))

    def forward(self, features: Tensor, tissue: Tensor, keep: Tensor | None = None) -> Pooled:
        """Features (n, r) -> logits (K, C) and log attention (K, n)."""
        kept = [features] * len(self.each) if keep is None else list(features * keep)
        found = [member(one, tissue) for member, one in zip(self.each, kept, strict=True)]
        return Pooled(*(torch.stack(parts) for parts in zip(*found, strict=True)))

    def shares(self, features: Tensor, tissue: Tensor) -> Tensor:
        """Each cell's part of the logits, (K, n, C), beside those of a slide all of whose cells are alike.

        Cells look at each other, so that logits are no sum over them: they are attributed by integrated gradients,
        ``(x_i - mean) . int_0^1 dz / dx_i (mean + t (x - mean)) dt``, by `STEPS` points (Sundararajan, Taly & Yan,
        2017); what these leave of the whole is spread evenly over the cells.
        """
        even = features.mean(0).expand_as(features)
        away = features - even
        nodes, weights = np.polynomial.legendre.leggauss(STEPS)
        out = []
        for member in self.each:
            parts = features.new_zeros(len(features), len(member(even, tissue)[0]))
            for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
                with torch.enable_grad():
                    at = (even + float(node) * away).detach().requires_grad_()
                    logits = member(at, tissue)[0]
                    for c, logit in enumerate(logits):
                        (slope,) = torch.autograd.grad(logit, at, retain_graph=c + 1 < len(logits))
                        parts[:, c] += float(weight) * (slope * away).sum(1)
            with torch.no_grad():
                whole = member(features, tissue)[0] - member(even, tissue)[0]
            out.append(parts + (whole - parts.sum(0)) / len(features))
        return torch.stack(out).detach()
