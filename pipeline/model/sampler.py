"""The model that learns end to end: attention from the thumbnail, an encoder of patches, a linear head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.model.reading import in_full, read_together, stored
from pipeline.model.regions import by_region
from pipeline.model.slide_model import ENCODER_BLOCK, SlideModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import AttentionMap, PlacedDraw, View
from stages.attention import ThumbnailAttention, build_attention, masked_log_softmax
from stages.encoder.build import build_encoder
from stages.encoder.load import load_backbone
from stages.encoder.patch_encoder import PatchEncoder
from stages.encoder.tuned import tuned_encoder

FEATURE_SCALE = 10.0
"""The head reads ``FEATURE_SCALE * Phi``: unit features alone would keep its logits, and its gradients, small."""


class AttentionSampler(SlideModel):
    """Attention sampling as it was published: unit features, attention from the thumbnail, all learned together.

    ``logits = W (10 Phi) + b`` with ``Phi = sum_i a_i f_i`` estimated from a draw (Katharopoulos & Fleuret, 2019). With
    two levels ``a_{ri} = A_r b_{i|r}``: A from the thumbnail, b from a second look that is taken in drawn regions only.
    Of a patient's slides attention is one softmax over the cells of all.
    """

    def __init__(self, spec: ModelSpec, *, encoder_weights: Path | None = None, **known: Any) -> None:
        super().__init__(spec, **known)
        side = spec.cell_px * (spec.region_cells if spec.inner_mpp else 1)
        self.attention = build_attention(spec.attention, cell_px=side)
        self.inner = None
        if spec.inner_mpp:
            self.inner = ThumbnailAttention(cell_px=spec.inner_cell_px, surrounded=spec.region_margin)
        self.encoder = _encoder(spec, encoder_weights)
        self.head = nn.Linear(spec.dim, self.readout.outputs)
        self.control = nn.Linear(self.attention.channels, spec.dim) if spec.control else None  # type: ignore[arg-type]
        self.feature_dim = spec.dim

    def attend(
        self, view: View, *, generator: torch.Generator | None = None, noise: float = 0.0, dropout: float = 0.0
    ) -> AttentionMap:
        """Attention that sums to one over the tissue, and the control variate, from the thumbnail."""
        return self.attend_all([view])[0]

    def attend_all(
        self,
        views: Sequence[View],
        *,
        generators: Sequence[torch.Generator | None] | None = None,
        noise: float = 0.0,
        dropout: float = 0.0,
    ) -> list[AttentionMap]:
        """`attend` of each; their thumbnails are looked at together, and where there is tissue only."""
        slides = [one for view in views for one in view.each]
        thumbnails = [stored(one.rgb, self.device) for one in slides]
        channels: list[Tensor] | None = None
        with in_full(self.device):
            if isinstance(self.attention, ThumbnailAttention):
                channels = self.attention.features_of(thumbnails, [self._units(one).to(self.device) for one in slides])
                logits = [self.attention.logits(one) for one in channels]
            else:
                logits = [self.attention(rgb) for rgb in thumbnails]
            foretold = None
            if self.control is not None and channels is not None:
                # detached: foretelling features must not bend where the model looks
                foretold = [self.control(one.detach().flatten(1).T).unflatten(0, one.shape[1:]) for one in channels]
        maps, first = [], 0
        for view in views:
            own = slice(first, first := first + len(view.each))
            log_attention = masked_log_softmax(
                self._joined(view, logits[own]), self._units(view).to(self.drawing_device)
            )
            control = None if foretold is None else self._joined(view, foretold[own]).flatten(0, 1)
            maps.append(self._map(log_attention.flatten(), control))
        return maps

    def _units(self, view: View) -> Tensor:
        """Which cells or, with two levels, regions have tissue, (rows, columns)."""
        tissue = torch.from_numpy(view.tissue)
        return tissue if self.inner is None else by_region(tissue, self.spec.region_cells).any(2)

    def _joined(self, view: View, values: Sequence[Tensor]) -> Tensor:
        """Of each slide's cells -> of all cells of a view, where draws are made; with two levels, of the regions of its
        one slide."""
        there = [one.to(self.drawing_device) for one in values]
        return there[0] if self.inner is not None else view.stack.joined(there)

    @torch.no_grad()
    def encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Features (M, D) of the cells' patches, in blocks that bound the encoder's memory."""
        blocks = []
        for part in np.array_split(cells, -(-len(cells) // ENCODER_BLOCK)):
            (patches,) = read_together([(view.patches, torch.from_numpy(part))], self.device)
            blocks.append(self.encoder(patches))
        return torch.cat(blocks).to(self.drawing_device)

    def features_of(
        self,
        views: Sequence[View],
        drawn: Sequence[PlacedDraw],
        vary: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None,
    ) -> list[Tensor]:
        """Features (N, D) of single draws, encoded together."""
        read = self.read_drawn(views, drawn)
        patches = torch.cat(list(read if vary is None else vary(read)))
        features: Tensor = self.encoder(patches).to(self.drawing_device)
        return list(features.split([one.cells.shape[1] for one in drawn]))

    @torch.no_grad()
    def standardise(self, views: Sequence[View], *, samples: int, generator: torch.Generator) -> None:
        """Set the encoder's centre and spread from one draw of each slide; see `PatchEncoder.standardise`."""
        maps = [self.attend(view) for view in views]
        drawn = self.draw(views, maps, samples=samples, generator=generator, judged=False)
        self.encoder.standardise(torch.cat(self.read_drawn(views, drawn)))

    def _map(self, log_attention: Tensor, control: Tensor | None) -> AttentionMap:
        """With the control variate (K, D), or None."""
        bias = self.head.bias.to(log_attention.device)[None]
        if control is None:
            return AttentionMap(log_attention, bias, lambda cells, features: self._said(features))

        def left(cells: Tensor, features: Tensor) -> Tensor:
            return features - control[cells]

        embedding = torch.einsum("k,kd->d", log_attention.double().exp(), control.double())
        return AttentionMap(
            log_attention,
            bias + self._said(embedding.to(control.dtype)[None])[0],
            lambda cells, features: self._said(left(cells, features)),
            lambda cells, features: left(cells, features.detach()).square().sum(1).mean(),
            shares=lambda: log_attention.double().exp()[:, None, None] * self._said(control).double(),
        )

    def _said(self, features: Tensor) -> Tensor:
        """Features (..., D) -> what they add to the logits, (..., 1, C): linear, so that it may be estimated."""
        weight: Tensor = self.head.weight
        with in_full(self.device):
            said = FEATURE_SCALE * features.to(weight.dtype).to(self.device) @ weight.T
        return said.unsqueeze(-2).to(features.device)


def _encoder(spec: ModelSpec, weights: Path | None) -> PatchEncoder:
    if spec.tune:
        return tuned_encoder(load_backbone(spec.encoder, weights=weights), spec.dim, last=spec.tune)
    return build_encoder(spec.encoder, dim=spec.dim, pretrained_path=weights)
