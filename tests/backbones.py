"""A frozen encoder for tests: a few random filters, in place of a network with weights of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import pipeline.model.build
from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard

DIM = 12


def tiny_backbone() -> Backbone:
    """Mean responses of random filters: the same ones each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, DIM, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    third = (0.5, 0.5, 0.5)
    card = EncoderCard(name="tiny", source="random", digest="0" * 64, dim=DIM, px=32, mean=third, std=third, step=1)
    return Backbone(body, card)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """Whatever encoder is asked for, models get the tiny one."""
    backbone = tiny_backbone()

    def backbone_of(name: str, weights: Path | None, precision: str) -> Backbone:
        return backbone

    monkeypatch.setattr(pipeline.model.build, "backbone_of", backbone_of)
    return backbone
