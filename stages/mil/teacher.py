"""Attention MIL as others trained it: whose weights, in one form, whatever their names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.context import Whitening
from stages.mil.pooling import GatedPooling
from stages.mil.sizes import TeacherSizes


class AttentionTeacher(nn.Module):
    """M members of attention MIL with B attentions each.

        ``h = relu(E x + e)``, ``t_b = w_b . (tanh(V h + v) * sigmoid(U h + u))``,
        ``logit_c = mean over members of (sum_b W_bc . sum_i softmax_i(t_bi) h_i) + bias_c``

    (Ilse, Tomczak & Welling, ICML 2018; CLAM: Lu et al., "Data-efficient and weakly supervised computational pathology
    on whole-slide images", Nature Biomedical Engineering 2021: `CLAM_SB` has one attention, `CLAM_MB` one a class.)
    The constant of an attention cancels.
    """

    def __init__(self, sizes: TeacherSizes) -> None:
        super().__init__()
        m, h, a = sizes.members, sizes.hidden or sizes.dim, sizes.gates
        self.sizes = sizes
        if sizes.hidden:
            self.embed = nn.Parameter(torch.zeros(m, h, sizes.dim))
            self.embed_bias = nn.Parameter(torch.zeros(m, 1, h))
        self.tanh = nn.Parameter(torch.zeros(m, a, h))
        self.tanh_bias = nn.Parameter(torch.zeros(m, 1, a))
        if sizes.gated:
            self.gate = nn.Parameter(torch.zeros(m, a, h))
            self.gate_bias = nn.Parameter(torch.zeros(m, 1, a))
        self.score = nn.Parameter(torch.zeros(m, sizes.branches, a))
        self.weight = nn.Parameter(torch.zeros(m, sizes.branches * sizes.classes, h))
        self.bias = nn.Parameter(torch.zeros(sizes.classes))
        self.requires_grad_(False)

    @property
    def branches(self) -> int:
        """R = M B: how many softmaxes there are."""
        return self.sizes.members * self.sizes.branches

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, D) -> ``t`` (n, R), before the softmax over the tiles, and what a tile adds to the logits where
        its attention is 1, (n, R, C)."""
        hidden = features.expand(self.sizes.members, *features.shape)
        if self.sizes.hidden:
            hidden = (hidden @ self.embed.mT + self.embed_bias).relu()  # (M, n, H)
        found = (hidden @ self.tanh.mT + self.tanh_bias).tanh()
        if self.sizes.gated:
            found = found * (hidden @ self.gate.mT + self.gate_bias).sigmoid()
        scores = found @ self.score.mT  # (M, n, B)
        said = (hidden @ self.weight.mT / self.sizes.members).unflatten(2, (self.sizes.branches, self.sizes.classes))
        return scores.transpose(0, 1).flatten(1), said.transpose(0, 1).flatten(1, 2)

    def logits(self, features: Tensor) -> Tensor:
        """Features (n, D) of all tiles of a slide -> its logits (C,)."""
        scores, said = self(features)
        found: Tensor = (scores.softmax(0).unsqueeze(2) * said).sum((0, 1)) + self.bias
        return found


@torch.no_grad()
def teacher_of(heads: GatedPooling, whitening: Whitening) -> AttentionTeacher:
    """Gated members on features in the directions of ``whitening`` as a teacher on the features themselves."""
    members, hidden, _ = heads.embed.shape
    sizes = TeacherSizes(
        members, whitening.mean.numel(), hidden, heads.tanh.shape[1], 1, heads.weight.shape[1], gated=True
    )
    teacher = AttentionTeacher(sizes)
    share = heads.share[:, None] * members  # members of a teacher count alike
    teacher.embed.copy_(heads.embed @ whitening.basis)
    teacher.embed_bias.copy_(heads.embed_bias - (teacher.embed @ whitening.mean)[:, None])
    teacher.tanh.copy_(heads.tanh)
    teacher.gate.copy_(heads.gate)
    teacher.score.copy_(heads.score)
    teacher.weight.copy_(heads.weight * share[:, None])
    teacher.bias.copy_((heads.share[:, None] * heads.bias).sum(0))
    return teacher
