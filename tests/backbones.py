"""A frozen encoder for tests, in place of whatever a configuration asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import tiny_backbone

import pipeline.model.build
from stages.encoder.backbone import Backbone

DIM = 12


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """Whatever encoder is asked for, models get the tiny one."""
    backbone = tiny_backbone(dim=DIM)

    def backbone_of(name: str, weights: Path | None, precision: str) -> Backbone:
        return backbone

    monkeypatch.setattr(pipeline.model.build, "backbone_of", backbone_of)
    return backbone
