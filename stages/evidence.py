"""Heads that look for evidence of each class: the score of a cell is what it says, and where attention goes.

With the standardised context ``u_i`` of cell i, member k of an ensemble scores it for class c by ``s_i = w_kc . u_i``,
looks where the score is high, ``a_i = softmax_i(b_k s_i)``, and takes what it finds there, a smooth maximum:

    ``logit_kc = g_k sum_i a_i s_i + d_kc + sum_i a_i v_kc . f_i``,

the last sum being what fine patches ``f_i`` add, which is estimated from a few. One direction serves to find and to
judge: with a few dozen slide labels a separate attention (gated or not) fits noise more easily.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

START = 3.0
"""Score at the start of the cell that a member starts from, where the others have about 0 +- 1."""
CANDIDATES = 8
"""Cells of a slide, the ones that stand out most, among which a start is drawn."""


class EvidenceHeads(nn.Module):
    """K members of C classes each over r directions of context and q of fine features.

    Args:
        members, classes, components, fine: K, C, r and q.
        scales: contexts of different size; member k sees number ``k % scales``.
    """

    share: Tensor

    def __init__(self, *, members: int, classes: int, components: int, fine: int, scales: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(members, classes, components))
        self.fine = nn.Parameter(torch.zeros(members, classes, fine))
        self.log_gain = nn.Parameter(torch.zeros(members))
        self.log_sharpness = nn.Parameter(torch.zeros(members))
        self.bias = nn.Parameter(torch.zeros(members, classes))
        self.register_buffer("share", torch.full((members,), 1 / members))
        self.scales = scales

    @property
    def members(self) -> int:
        """K."""
        return len(self.share)

    def scores(self, context: Tensor, keep: Tensor | None = None) -> Tensor:
        """Context (scales, n, r) of a slide's n cells -> scores (K, C, n).

        Args:
            context: of `stages.context.neighbourhood`.
            keep: (K, 1, r), what the directions are multiplied by: dropout.
        """
        weight = self.weight if keep is None else self.weight * keep
        found = weight.new_empty(*weight.shape[:2], context.shape[1])
        parts = [weight[scale :: self.scales] @ context[scale].T for scale in range(self.scales)]
        for scale, part in enumerate(parts):
            found[scale :: self.scales] = part
        return found

    def log_attention(self, scores: Tensor) -> Tensor:
        """``log a``, (K, C, n)."""
        return (self.log_sharpness.exp()[:, None, None] * scores).log_softmax(2)

    def known(self, scores: Tensor, attention: Tensor) -> Tensor:
        """What the context alone says: logits (K, C)."""
        return self.log_gain.exp()[:, None] * (attention * scores).sum(2) + self.bias

    @torch.no_grad()
    def start(self, contexts: list[Tensor], labels: list[int], generator: torch.Generator) -> None:
        """Start each member's evidence of a class from a cell that stands out on a slide of that class.

        From nothing, a small lesion is a few per cent of every gradient; what stands out among a slide's own tissue,
        together with its neighbours, is a better first guess, and needs no label but the slide's.

        Args:
            contexts: (scales, n, r), of each slide.
            labels: class of each slide.
            generator: on the CPU.
        """
        for member in range(self.members):
            for kind in range(self.weight.shape[1]):
                of_class = [i for i, label in enumerate(labels) if label == kind]
                if not of_class:
                    continue
                chosen = of_class[int(torch.randint(len(of_class), (1,), generator=generator))]
                context = contexts[chosen][member % self.scales]
                outstanding = context.square().sum(1).topk(min(CANDIDATES, len(context))).indices
                cell = context[outstanding[int(torch.randint(len(outstanding), (1,), generator=generator))]]
                self.weight[member, kind] = START * cell / cell.square().sum().clamp(min=1e-6)
