"""The model that reads a few patches in place of another: the estimate is of the other's own prediction."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.model.spec import ModelSpec
from pipeline.model.surveyed import SurveyedModel
from pipeline.model.values import AttentionMap, Ratio, View
from stages.context import Whitening, standardised
from stages.encoder.backbone import Backbone
from stages.encoder.feature_store import FeatureKey, FeatureStore
from stages.mil.student import Foretold, Student, log_proposal
from stages.mil.teacher import AttentionTeacher

SURVEY_BYTES = 2**29
"""What was foretold of slides, kept in memory."""


class DistilledModel(SurveyedModel):
    """A teacher's prediction (`AttentionTeacher`: attention MIL over all cells) from a few of them.

    A student foretells from the coarse scale where the teacher looks (``log b``), what it finds there (``u``), and how
    far that moves the prediction (``size``), by which cells are drawn. With draw weights ``w`` and the teacher's
    scores ``t`` and logits ``g`` of the patches that were read,

        ``logit = sum_i b_i u_i + sum_m w_m e^t_m g_m / sum_m w_m e^t_m - sum_m w_m b_m u_m / sum_m w_m b_m``:

    what the student says of all cells, exactly, and by how much the teacher is beyond it on the draw. The normaliser of
    the teacher's softmax takes all cells; both ratios estimate theirs (J. Hajek, 1971), with a bias of the order of
    ``1 / N``, are exact where all cells are read, and err alike where the student is right. Of several attentions of
    the teacher each has a ratio of its own.

    What is left to chance is told by how the logit moves with each weight, ``e^t_m (g_m - G) / sum w e^t`` for a ratio
    G, to the first order.

    Args:
        spec: its scales and sizes.
        backbone: the teacher's encoder, for both scales.
        store: where features are kept; None: they are not.

    Attributes:
        asked: which of the student's members speaks alone, of a slide that it was not fitted to; None: all.
    """

    def __init__(self, spec: ModelSpec, *, backbone: Backbone, store: FeatureStore | None = None, **known: Any) -> None:
        super().__init__(spec, backbone=backbone, store=store, **known)
        assert spec.teacher is not None
        self.whitening = Whitening(backbone.dim, spec.components)
        self.teacher = AttentionTeacher(spec.teacher)
        self.student = Student(members=spec.members, inputs=2 * len(self.whitening.basis), classes=self.readout.outputs)
        self.asked: int | None = None
        self._foretold: OrderedDict[FeatureKey, Foretold] = OrderedDict()

    def forget(self) -> None:
        """Foretell anew, after what it is done with has changed."""
        self._foretold.clear()

    @torch.no_grad()
    def context(self, view: View) -> Tensor:
        """What the coarse scale tells of all tissue cells, (n, 2 r): each cell's features beside those of its slide,
        and the slide's mean."""
        found = self.whitening(self.encode_coarse(view))
        return torch.cat([standardised(found), found.mean(0).expand_as(found)], 1)

    @torch.no_grad()
    def foretell(self, view: View) -> Foretold:
        """What the student says of a slide's tissue cells; kept in memory for slides of which features are kept."""
        key = None if view.coarse_key is None else view.coarse_key(self.coarse_backbone.card.identity, self.feature_dim)
        if key is not None and key in self._foretold:
            self._foretold.move_to_end(key)
            return self._foretold[key]
        found: Foretold = self.student(self.context(view), self.asked)
        if key is not None:
            self._foretold[key] = found
            while sum(part.nbytes for one in self._foretold.values() for part in one) > SURVEY_BYTES:
                self._foretold.popitem(last=False)
        return found

    @torch.no_grad()
    def attend(
        self, view: View, *, generator: torch.Generator | None = None, noise: float = 0.0, dropout: float = 0.0
    ) -> AttentionMap:
        """Where the teacher would look, by the student; what it shows is the attention, what it draws by the size."""
        foretold, there = self.foretell(view), self.drawing_device
        log_b, u = foretold.log_attention.to(there).double(), foretold.said.to(there).double()
        tissue = torch.from_numpy(np.flatnonzero(view.tissue)).to(there)
        place = torch.full((view.tissue.size,), -1, device=there)
        place[tissue] = torch.arange(len(tissue), device=there)

        known = self.teacher.bias.to(there).double() + (log_b.exp()[:, None] * u).sum(0)

        def by_cell() -> Tensor:
            out = torch.zeros(view.tissue.size, 1, u.shape[1], dtype=torch.float64, device=there)
            out[tissue, 0] = log_b.exp()[:, None] * u
            return out

        def ratio(cells: Tensor, features: Tensor, weights: Tensor) -> Ratio:
            scores, said = self._taught(cells, features)
            of_teacher = _of_ratio(scores.to(there).double(), said.to(there).double(), weights)
            where = place[cells]
            of_student = _of_ratio(log_b[where].unsqueeze(2), u[where].unsqueeze(2), weights)
            return Ratio(*((one - other).unsqueeze(2) for one, other in zip(of_teacher, of_student, strict=True)))

        return AttentionMap(
            self._on_grid(view, log_proposal(foretold, self.spec.uniform).to(there).double()),
            known[None],
            _alone,
            shown=self._on_grid(view, log_b),
            shares=by_cell,
            ratio=ratio,
        )

    def _taught(self, cells: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's scores (B, N, R) and logits (B, N, R, C) of patches; each different one is asked once."""
        different, which = cells.unique(return_inverse=True)
        first = torch.empty_like(different)
        first[which.flatten()] = torch.arange(which.numel(), device=cells.device)
        scores, said = self.teacher(features.flatten(0, -2)[first].to(self.device).float())
        return scores[which], said[which]


def _of_ratio(scores: Tensor, said: Tensor, weights: Tensor) -> Ratio:
    """Of ``sum_r sum_m w_m e^t_rm g_rm / sum_m w_m e^t_rm`` per unit of ``w_m``, (B, N, C): each part of the sum, and
    the derivative; from scores (B, N, R), what is said (B, N, R, C), and weights (B, N)."""
    drawn = scores.masked_fill(weights.unsqueeze(2) == 0, -torch.inf)
    exponentials = (scores - drawn.amax(1, keepdim=True)).clamp(max=0).exp()  # a row's padding is one of its own
    shares = exponentials / (weights.unsqueeze(2) * exponentials).sum(1, keepdim=True)  # (B, N, R)
    each = shares.unsqueeze(3) * said
    total = (weights[..., None, None] * each).sum(1, keepdim=True)
    return Ratio(each.sum(2), (each - shares.unsqueeze(3) * total).sum(2))


def _alone(cells: Tensor, features: Tensor) -> Tensor:
    raise ValueError("what a patch adds to a teacher's prediction depends on the others: AttentionMap.added")
