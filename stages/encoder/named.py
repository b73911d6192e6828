"""An encoder by its name and its features' length only: of models that learnt from features made elsewhere."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard, Precision
from stages.encoder.load import load_backbone
from stages.encoder.registry import UNNAMED


class NamedEncoder(Backbone):
    """An encoder that is loaded when pixels are first to be encoded, if ever.

    Args:
        name: see `load_backbone`; or `UNNAMED`.
        dim: length of the features that were made elsewhere.
        px: side of a patch in its own pixels.
        weights, precision: see `load_backbone`.
    """

    def __init__(self, name: str, dim: int, *, px: int, weights: Path | None, precision: Precision) -> None:
        none, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        card = EncoderCard(
            name=name, source="bags", dim=dim, px=px, mean=none, std=one, step=1, precision=precision, made="elsewhere"
        )
        super().__init__(nn.Identity(), card)
        self._weights = weights
        self._there: list[Backbone] = []  # no module of this one: it is moved when it is there

    def loaded(self) -> Backbone:
        """The encoder itself, where this one is.

        Raises:
            ValueError: it has no name, cannot be had here, or gives features of another length.
            ImportError: it needs what is not installed.
        """
        if not self._there:
            if self.card.name == UNNAMED:
                raise ValueError(
                    "the model learnt from bags of an encoder that nobody named: give bags, or train it with "
                    "encoder.name set to what made them"
                )
            found = load_backbone(self.card.name, weights=self._weights, precision=self.card.precision)
            if found.dim != self.dim:
                raise ValueError(
                    f"the model learnt from features of length {self.dim}, {self.card.name} gives {found.dim}: give "
                    "bags, or train it with encoder.name set to what made them"
                )
            self._there.append(found.to(self.mean.device))
        return self._there[0]

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """See `Backbone.forward`, of the encoder itself."""
        features: torch.Tensor = self.loaded()(patches)
        return features
