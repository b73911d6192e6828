"""A model by its specification: which of the three it is, with what encoder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.values import ModelSpec
from stages.encoder.backbone import Backbone
from stages.encoder.feature_store import FeatureStore
from stages.encoder.load import load_backbone

OnFrozenEncoder = EvidenceModel | ExhaustiveModel
"""Models whose encoder is no part of what they learn, nor of their checkpoints."""


def build_model(
    spec: ModelSpec, *, encoder_weights: Path | None = None, store: FeatureStore | None = None, **known: Any
) -> SlideModel:
    """An untrained model.

    Args:
        spec: what it is.
        encoder_weights: in place of the encoder's own.
        store: where the features of a frozen encoder are kept; None: they are not.
        known: what else a model knows: see `SlideModel`.

    Raises:
        ValueError: no such encoder, or weights that are not here or do not fit.
        ImportError: the encoder needs what is not installed.
    """
    if not spec.frozen:
        return AttentionSampler(spec, encoder_weights=encoder_weights, **known)
    kind = ExhaustiveModel if spec.exhaustive else EvidenceModel
    return kind(spec, backbone=backbone_of(spec.encoder, encoder_weights), store=store, **known)


@lru_cache(maxsize=1)
def backbone_of(name: str, weights: Path | None) -> Backbone:
    """The frozen encoder; folds and models of one process share it."""
    return load_backbone(name, weights=weights)
