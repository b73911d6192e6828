"""Features of a frozen encoder: from the store where they are known, else read, encoded and kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.model.reading import UnreadError, read_together
from pipeline.model.slide_model import ENCODER_BLOCK
from pipeline.model.values import View
from stages.encoder.backbone import Backbone
from stages.encoder.feature_store import FeatureKey, FeatureStore
from stages.encoder.feature_table import rounded
from stages.slide.facts import SlideError


def fine_features(
    backbone: Backbone, view: View, cells: NDArray[np.int64], *, store: FeatureStore | None, device: torch.device
) -> Tensor:
    """Features (M, D) of the patches of cells (M,): those that the view knows, else `frozen_features`."""
    if view.features is None:
        return frozen_features(backbone, cells, view.patches, key=view.key, store=store, device=device)
    try:
        return torch.from_numpy(view.features(cells)).to(device)
    except SlideError as exc:
        raise UnreadError({0: exc}) from exc


@torch.no_grad()
def frozen_features(
    backbone: Backbone,
    cells: NDArray[np.int64],
    read: Callable[[NDArray[np.int64]], Any],
    *,
    key: Callable[[str, int], FeatureKey] | None,
    store: FeatureStore | None,
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
    try:
        backbone = backbone.loaded()
    except (ValueError, ImportError) as exc:
        raise UnreadError({0: SlideError(str(exc))}) from exc

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
