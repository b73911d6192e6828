"""What models on a frozen encoder have in common that see all tissue at a coarse scale, and patches at a fine one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.frozen import fine_features, frozen_features
from pipeline.model.reading import by_part, of_each
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from pipeline.model.values import PlacedDraw, View
from stages.attention import UniformAttention
from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard
from stages.encoder.feature_store import FeatureStore


class SurveyedModel(SlideModel):
    """Features of both scales, which a frozen encoder gives.

    Args:
        spec: its scales and sizes.
        backbone: the frozen encoder, for both scales.
        store: where features are kept; None: they are not.

    Attributes:
        backbone, coarse_backbone: the encoder of fine and of coarse patches, which may be enlarged.
    """

    def __init__(self, spec: ModelSpec, *, backbone: Backbone, store: FeatureStore | None = None, **known: Any) -> None:
        super().__init__(spec, **known)
        self.attention = UniformAttention(cell_px=spec.cell_px)
        self.inner = None
        self.store = store
        self.feature_dim = backbone.dim
        # not modules of this one: their weights are another's, and no part of the checkpoint
        self._frozen = (backbone, backbone.enlarged(spec.coarse_px, spec.enlarge))

    @property
    def card(self) -> EncoderCard:
        """Of the encoder."""
        return self.backbone.card

    @property
    def backbone(self) -> Backbone:
        """The encoder of fine patches."""
        return self._frozen[0]

    @property
    def coarse_backbone(self) -> Backbone:
        """The encoder of coarse patches."""
        return self._frozen[1]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        for one in self._frozen:
            one._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.forget()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.forget()

    def forget(self) -> None:
        """Make what is kept of slides anew, after what it is made with has changed."""
        raise NotImplementedError

    def encode(self, view: View, cells: NDArray[np.int64]) -> Tensor:
        """Features (M, D) of the cells' fine patches, as the encoder gives them."""

        def own(one: View, some: NDArray[np.int64]) -> Tensor:
            return fine_features(self.backbone, one, some, store=self.store, device=self.device)

        return by_part(view, cells, own)

    def encode_coarse(self, view: View) -> Tensor:
        """Features (n, D) of all tissue cells of one slide at the coarse scale."""
        assert view.coarse is not None
        read, key, cells = view.coarse, view.coarse_key, np.flatnonzero(view.tissue)
        return frozen_features(self.coarse_backbone, cells, read, key=key, store=self.store, device=self.device)

    def features_of(
        self,
        views: Sequence[View],
        drawn: Sequence[PlacedDraw],
        vary: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None,
    ) -> list[Tensor]:
        """Features (N, D) of single draws; frozen, so that none is encoded twice."""
        return of_each(
            zip(views, drawn, strict=True), lambda pair: self.encode(pair[0], pair[1].cells[0].cpu().numpy())
        )

    def _on_grid(self, view: View, log_attention: Tensor) -> Tensor:
        """Of the tissue cells (n,) -> of all cells (rows * columns,), -inf off the tissue."""
        out = torch.full((view.tissue.size,), -torch.inf, dtype=torch.float64, device=log_attention.device)
        out[torch.from_numpy(np.flatnonzero(view.tissue)).to(out.device)] = log_attention
        return out
