"""Heads that look for evidence of each class: the score of a cell is what it says, and where attention goes.

With the standardised context ``u_i`` of cell i, member k of an ensemble scores it for class c by ``s_i = w_kc . u_i``,
looks where the score is high, ``a_i = softmax_i(b_k s_i)``, and takes what it finds there, a smooth maximum:

    ``logit_kc = g_k sum_i a_i s_i + d_kc + sum_i a_i v_kc . f_i``,

the last sum being what fine patches ``f_i`` add, which is estimated from a few. One direction serves to find and to
judge: with a few dozen slide labels a separate attention (gated or not) fits noise more easily.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

START = 3.0
"""Score at the start of the cell that a member starts from, where the others have about 0 +- 1."""
CANDIDATES = 8
"""Cells of a slide, the ones that stand out most, among which one is drawn to be tried."""
TRIED = 24
"""Cells that are tried for each member and class."""


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
    def start(
        self,
        context: Callable[[int], Tensor | None],
        sizes: Sequence[int],
        poles: Tensor,
        bags: Tensor,
        *,
        generator: torch.Generator,
    ) -> None:
        """Start each member's evidence of a class from a cell that tells slides of that class from the others.

        From nothing, a small lesion is a few per cent of every gradient. Some cells that stand out, with their
        neighbours, among their own slide's tissue, on slides of the class, are tried as directions; the one whose
        highest score of a slide best tells the member's slides of that class from its others is taken (by AUROC).

        Args:
            context: (scales, n, r), on the CPU, of a slide by its place; None: it cannot be read any more. Asked for
                twice at most, one slide after the other: all of a cohort's would take gigabytes.
            sizes: n of each slide.
            poles: (slides, C), 1 of a slide that is an example of the class, 0 of one that is of none, NaN where nobody
                knows.
            bags: (slides, K), how often a member sees a slide.
            generator: on the CPU.
        """
        classes = self.weight.shape[1]
        tried = self.members * classes * TRIED
        directions = torch.zeros(tried, self.weight.shape[2])
        scale = torch.arange(self.members).repeat_interleave(classes * TRIED) % self.scales
        chosen: dict[int, list[tuple[int, int, int]]] = {}
        for number in range(tried):
            member, kind = number // (classes * TRIED), number // TRIED % classes
            own = ((poles[:, kind] == 1) & (bags[:, member] > 0)).nonzero().flatten()
            if not len(own):
                continue
            slide = int(own[torch.randint(len(own), (1,), generator=generator)])
            rank = int(torch.randint(min(CANDIDATES, sizes[slide]), (1,), generator=generator))
            chosen.setdefault(slide, []).append((number, member % self.scales, rank))
        for slide, drawn in chosen.items():
            seen_as = context(slide)
            if seen_as is None:
                continue
            standing_out = seen_as.square().sum(2).topk(min(CANDIDATES, sizes[slide])).indices  # (scales, candidates)
            for number, one, rank in drawn:
                cell = seen_as[one, standing_out[one, rank]]
                directions[number] = START * cell / cell.square().sum().clamp(min=1e-6)
        highest = directions.new_zeros(len(sizes), tried)
        for i in range(len(sizes)):
            seen_as = context(i)
            if seen_as is None:
                continue
            seen_as = seen_as.to(self.weight)
            for one in range(self.scales):
                mine = scale == one
                highest[i, mine] = (seen_as[one] @ directions[mine].T.to(seen_as)).amax(0).to(highest)
        for member in range(self.members):
            for kind in range(classes):
                seen = (bags[:, member] > 0) & ~poles[:, kind].isnan()
                first = (member * classes + kind) * TRIED
                found = [_auroc(highest[seen, first + j], poles[seen, kind] == 1) for j in range(TRIED)]
                self.weight[member, kind].copy_(directions[first + max(range(TRIED), key=found.__getitem__)])


def directions_kept(members: int, components: int, dropout: float, generator: torch.Generator) -> Tensor:
    """What each member's directions are multiplied by in a step, (members, 1, components): 0 with probability
    ``dropout``, else ``1 / (1 - dropout)``; on the generator's device."""
    kept = torch.rand((members, 1, components), generator=generator, device=generator.device) >= dropout
    return kept / (1 - dropout)


def _auroc(scores: Tensor, positive: Tensor) -> float:
    """Share of the pairs of a positive and another in which the positive's score is higher; ties count half."""
    apart = scores[positive][:, None] - scores[~positive]
    return float(((apart > 0).double() + 0.5 * (apart == 0)).mean()) if apart.numel() else 0.5
