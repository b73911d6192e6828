"""A model by its specification: which of the four it is, with what encoder."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.model.distilled_model import DistilledModel
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.fold_ensemble import FoldEnsemble
from pipeline.model.sampler import AttentionSampler
from pipeline.model.slide_model import SlideModel
from pipeline.model.spec import ModelSpec
from stages.encoder.backbone import Backbone
from stages.encoder.card import Precision
from stages.encoder.feature_store import default_feature_folder, feature_store
from stages.encoder.load import load_backbone
from stages.encoder.named import NamedEncoder

Ensemble = EvidenceModel | ExhaustiveModel
"""Models on a frozen encoder whose members learn from slide labels."""
OnFrozenEncoder = Ensemble | DistilledModel
"""Models whose encoder is no part of what they learn, nor of their checkpoints."""


def build_model(spec: ModelSpec, *, encoder_weights: Path | None = None, **known: Any) -> SlideModel:
    """An untrained model.

    Args:
        spec: what it is.
        encoder_weights: in place of the encoder's own.
        known: what else a model knows: see `SlideModel`.

    Raises:
        ValueError: no such encoder, or weights that are not here or do not fit.
        ImportError: the encoder needs what is not installed.
    """
    if not spec.frozen:
        return AttentionSampler(spec, encoder_weights=encoder_weights, **known)
    kinds = {ExhaustiveModel: spec.exhaustive, DistilledModel: spec.teacher is not None, EvidenceModel: True}
    kind = next(kind for kind, chosen in kinds.items() if chosen)
    if spec.bags is not None:
        backbone: Backbone = NamedEncoder(
            spec.encoder, spec.dim, px=spec.patch_px, weights=encoder_weights, precision=spec.precision
        )
    else:
        backbone = backbone_of(spec.encoder, encoder_weights, spec.precision)
    return kind(spec, backbone=backbone, **known)


def keep_features(model: SlideModel, folder: Path | None = None, *, gigabytes: float = 20.0) -> SlideModel:
    """Let a model on a frozen encoder keep what it encodes, so that no patch is encoded twice on a machine.

    Args:
        model: any.
        folder: None: `stages.encoder.feature_store.default_feature_folder`.
        gigabytes: that the folder may fill; 0: nothing is kept.
    """
    if isinstance(model, FoldEnsemble):
        for member in model.each:
            keep_features(member, folder, gigabytes=gigabytes)
    if isinstance(model, OnFrozenEncoder):
        model.store = feature_store(folder or default_feature_folder(), gigabytes=gigabytes) if gigabytes else None
    return model


def backbone_of(name: str, weights: Path | None, precision: Precision) -> Backbone:
    """The frozen encoder; folds and models of one process share it."""
    try:
        written = None if weights is None else weights.stat().st_mtime_ns
    except OSError:
        written = None  # who loads it says why
    return _backbone(name, weights, precision, written)


@lru_cache(maxsize=1)
def _backbone(name: str, weights: Path | None, precision: Precision, written: int | None) -> Backbone:
    return load_backbone(name, weights=weights, precision=precision)
