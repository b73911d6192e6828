"""Features of a frozen encoder: from the store where they are known, else read, encoded and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.reading import UnreadError, read_together
from pipeline.model.slide_model import ENCODER_BLOCK
from stages.encoder.backbone import Backbone
from stages.encoder.feature_store import FeatureKey
from stages.encoder.feature_table import rounded
from stages.slide.facts import SlideError


class Store(Protocol):
    """What knows features, or keeps them: a `FeatureStore`, or bags that somebody else wrote."""

    def features(
        self, key: FeatureKey, cells: NDArray[np.int64], encode: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Features (N, D) of cells (N,); those that it does not know by ``encode``."""
        ...


@torch.no_grad()
def frozen_features(
    backbone: Backbone,
    cells: NDArray[np.int64],
    read: Callable[[NDArray[np.int64]], Any],
    *,
    key: Callable[[str, int], FeatureKey] | None,
    store: Store | None,
    device: torch.device,
) -> Tensor:
    """Features (M, D) of the patches of cells (M,), as the encoder gives them.

    Args:
        backbone: the encoder.
        cells: row-major indices.
        read: gives their patches, lazy or real.
        key: (encoder, dim) -> what they are kept by; None: they are not.
        store: where; None: they are not.
        device: where they are wanted.
    """

    def encode(some: NDArray[np.int64]) -> NDArray[np.float32]:
        blocks = []
        for part in np.array_split(some, -(-len(some) // ENCODER_BLOCK)):
            (patches,) = read_together([(read, torch.from_numpy(part))], device)
            try:
                blocks.append(backbone(patches).cpu().numpy())
            except ValueError as exc:
                raise UnreadError({0: SlideError(str(exc))}) from exc
        return np.concatenate(blocks)

    if store is None or key is None:
        found = rounded(encode(cells))
    else:
        found = store.features(key(backbone.card.identity, backbone.dim), cells, encode)
    return torch.from_numpy(found).to(device)
