"""The model on a frozen encoder: all tissue at a coarse scale, exactly; fine patches on top of it, sampled."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.model.reading import of_parts
from pipeline.model.spec import ModelSpec
from pipeline.model.surveyed import SurveyedModel
from pipeline.model.values import AttentionMap, View
from stages.augmentation import augment_features
from stages.context import Whitening, neighbourhood, standardised
from stages.encoder.backbone import Backbone
from stages.encoder.feature_store import FeatureKey, FeatureStore
from stages.evidence import EvidenceHeads, directions_kept
from stages.sampling.estimate import smooth

SURVEY_BYTES = 2**30
"""Surveys kept in memory; they are made again from features that are kept on disk."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the coarse scale tells of the n tissue cells of a slide, or of a patient's slides.

    Attributes:
        context: (scales, n, r): standardised features of each cell and its neighbours.
        foretold: (n, q): fine features as the coarse ones foretell them, the control variate.
    """

    context: Tensor
    foretold: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.context.nbytes + self.foretold.nbytes


class EvidenceModel(SurveyedModel):
    """Evidence of each class from all tissue at a coarse scale, and from sampled patches what the fine scale adds.

    With member k of an ensemble, class c, attention ``a_i`` and scores ``s_i`` of `EvidenceHeads` from the coarse
    scale, and fine features ``f_i`` of n cells:

        ``logit = g sum_i a_i s_i + d + v . sum_i (a_i - 1 / n) f_i``.

    ``a - 1 / n`` takes the slide's own mean out of the fine features without reading all of them: stain moves that mean
    further than tissue does. The first sum is exact; the second is estimated around a control variate ``h``, which the
    coarse features foretell: ``sum_i (a_i - 1 / n) h_i + sum_m w_m (a_m - 1 / n) (f_m - h_m)``, unbiased whatever h is.
    One draw, from the mean of all members' attention and evenly over the tissue, serves all of them.

    Args:
        spec: its scales and sizes.
        backbone: the frozen encoder, for both scales.
        store: where features are kept; None: they are not.
    """

    control: Tensor
    store: FeatureStore | None

    def __init__(self, spec: ModelSpec, *, backbone: Backbone, store: FeatureStore | None = None, **known: Any) -> None:
        super().__init__(spec, backbone=backbone, store=store, **known)
        self.coarse_whitening = Whitening(backbone.dim, spec.components)
        self.whitening = Whitening(backbone.dim, spec.fine_components)
        r, q = len(self.coarse_whitening.basis), len(self.whitening.basis)
        self.register_buffer("control", torch.zeros(2 * r + 1, q))
        self.heads = EvidenceHeads(
            members=spec.members,
            classes=self.readout.outputs,
            components=r,
            fine=q,
            scales=len(spec.context) * len(spec.against),
        )
        self._surveys: OrderedDict[FeatureKey, Survey] = OrderedDict()

    # -- attention -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def survey(self, view: View) -> Survey:
        """What the coarse scale tells of a slide; kept in memory for slides of which features are kept.

        Of a patient's slides one after the other: no cell is compared, or seen, with those of another slide.
        """
        if view.parts:
            each = of_parts(view, self.survey)
            return Survey(torch.cat([one.context for one in each], 1), torch.cat([one.foretold for one in each]))
        key = None if view.coarse_key is None else view.coarse_key(self.coarse_backbone.card.identity, self.feature_dim)
        if key is not None and key in self._surveys:
            self._surveys.move_to_end(key)
            return self._surveys[key]
        found = self.coarse_whitening(self.encode_coarse(view))
        tissue = torch.from_numpy(view.tissue).to(self.device)
        beside = {"slide": standardised(found), "cohort": found}
        context = torch.cat([neighbourhood(beside[one], tissue, self.spec.context) for one in self.spec.against])
        survey = Survey(context, _beside(found) @ self.control)
        if key is not None:
            self._surveys[key] = survey
            while sum(one.nbytes for one in self._surveys.values()) > SURVEY_BYTES and len(self._surveys) > 1:
                self._surveys.popitem(last=False)
        return survey

    @torch.no_grad()
    def regressors(self, view: View) -> Tensor:
        """What the fine features of all tissue cells of one slide are foretold from, (n, 2 r + 1)."""
        return _beside(self.coarse_whitening(self.encode_coarse(view)))

    def attend(
        self, view: View, *, generator: torch.Generator | None = None, noise: float = 0.0, dropout: float = 0.0
    ) -> AttentionMap:
        """Attention of all members, and what they make of patches; in evaluation they speak with one voice."""
        return self.ask(view, each=self.training, generator=generator, noise=noise, dropout=dropout)

    def ask(
        self,
        view: View,
        *,
        each: bool,
        generator: torch.Generator | None = None,
        noise: float = 0.0,
        dropout: float = 0.0,
    ) -> AttentionMap:
        """As `attend`; ``each`` member for itself, or all with one voice."""
        survey, heads, there = self.survey(view), self.heads, self.drawing_device
        keep = None
        if self.training and generator is not None and dropout:
            keep = directions_kept(heads.members, heads.weight.shape[2], dropout, generator).to(self.device)
        varying = noise if self.training and generator is not None else 0.0

        def noisy(features: Tensor) -> Tensor:
            if not varying:
                return features
            assert generator is not None
            spread = features.new_ones(())  # of what is standardised
            return augment_features(features, spread, generator, noise=varying, dropout=0)

        scores = heads.scores(noisy(survey.context), keep)
        log_a = heads.log_attention(scores)
        attention, n = log_a.exp(), scores.shape[2]
        away = attention - 1 / n
        known = heads.known(scores, attention) + torch.einsum("kcn,nq,kcq->kc", away, survey.foretold, heads.fine)
        shares = heads.share.log()[:, None, None]
        mean = (log_a.detach() + shares).flatten(0, 1).to(there).double().logsumexp(0).log_softmax(0)
        shown, log_q = (self._on_grid(view, one) for one in (mean, smooth(mean[None], self.spec.uniform)[0]))
        place = torch.full((view.tissue.size,), -1, device=self.device)
        place[torch.from_numpy(np.flatnonzero(view.tissue)).to(self.device)] = torch.arange(n, device=self.device)

        def say(cells: Tensor, features: Tensor) -> Tensor:
            where = place[cells.to(self.device)]
            left = noisy(self.whitening(features.to(self.device))) - survey.foretold[where]
            ratio = away[..., where] / log_q[cells.to(there)].exp().to(away)  # (K, C, ...)
            said = torch.einsum("...q,kcq->kc...", left, heads.fine) * ratio
            said = said.movedim((0, 1), (-2, -1))
            return (said if each else self._together(said)).to(there)

        def by_cell() -> Tensor:
            out = torch.zeros(view.tissue.size, 1, known.shape[1], dtype=torch.float64, device=there)
            cells = torch.from_numpy(np.flatnonzero(view.tissue)).to(there)
            for k, share in enumerate(heads.share):  # one by one: together they would be as large as all scores again
                part = heads.log_gain[k].exp() * attention[k] * scores[k]
                part = part + away[k] * (survey.foretold @ heads.fine[k].T).T
                out[cells, 0] += (share * part).T.to(out)
            return out

        known_now = (known if each else self._together(known)).to(there)
        return AttentionMap(log_q, known_now, say, shown=shown, shares=None if each else by_cell)

    def _together(self, logits: Tensor) -> Tensor:
        """Members' logits (..., K, C) -> their mean, by their shares (..., 1, C)."""
        return (self.heads.share[:, None] * logits).sum(-2, keepdim=True)

    def forget(self) -> None:
        """Make surveys anew, after what they are made with has changed."""
        self._surveys.clear()


def _beside(found: Tensor) -> Tensor:
    """Coarse features (n, r) of a slide -> what its fine ones are foretold from, (n, 2 r + 1): each cell's standardised
    features, the slide's mean, and 1."""
    own = standardised(found)
    return torch.cat([own, found.mean(0).expand_as(own), own.new_ones(len(own), 1)], 1)
