"""The product's own head over all cells: evidence of each class from cells and their neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stages.context import neighbourhood
from stages.evidence import EvidenceHeads
from stages.mil.pooling import Pooled


class EvidencePooling(nn.Module):
    """`EvidenceHeads` on the context of every cell: ``logit = g sum_i a_i s_i + d``.

    Args:
        members, classes, components: K, C and r.
        sides: of the squares, in cells, that a cell is seen with; members take turns with them.
    """

    standardised = True

    def __init__(self, *, members: int, classes: int, components: int, sides: Sequence[int]) -> None:
        super().__init__()
        self.sides = tuple(sides)
        self.heads = EvidenceHeads(
            members=members, classes=classes, components=components, fine=0, scales=len(self.sides)
        )

    @property
    def share(self) -> Tensor:
        """How much each member counts, (K,)."""
        return self.heads.share

    def forward(self, features: Tensor, tissue: Tensor, keep: Tensor | None = None) -> Pooled:
        """Features (n, r) -> logits (K, C) and log attention (K, n), the mean over the classes."""
        scores = self.heads.scores(neighbourhood(features, tissue, self.sides), keep)
        log_a = self.heads.log_attention(scores)
        logits = self.heads.known(scores, log_a.exp())
        return Pooled(logits, log_a.logsumexp(1) - math.log(log_a.shape[1]))

    def shares(self, features: Tensor, tissue: Tensor) -> Tensor:
        """Each cell's part of the logits without the bias, (K, n, C): its term ``g a_i s_i``."""
        scores = self.heads.scores(neighbourhood(features, tissue, self.sides))
        terms = self.heads.log_attention(scores).exp() * scores
        return self.heads.log_gain.exp()[:, None, None] * terms.mT

    def start(
        self,
        slide: Callable[[int], tuple[Tensor, Tensor] | None],
        sizes: Sequence[int],
        poles: Tensor,
        bags: Tensor,
        *,
        generator: torch.Generator,
    ) -> None:
        """As `EvidenceHeads.start`, from the features and the tissue of each slide."""

        def context(i: int) -> Tensor | None:
            seen = slide(i)
            return None if seen is None else neighbourhood(*seen, self.sides)

        self.heads.start(context, sizes, poles, bags, generator=generator)
