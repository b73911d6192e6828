"""Models that the tests make for themselves."""

from __future__ import annotations

from pathlib import Path

import torch

from pipeline.model.checkpoint import save_model
from pipeline.model.sampler import AttentionSampler
from pipeline.model.values import ModelSpec

TINY = ModelSpec(
    classes=("a", "b", "c"),
    attention_mpp=8.0,
    patch_mpp=1.0,
    patch_px=32,
    attention="learned",
    encoder="small",
    dim=8,
    scheme="systematic",
    samples=12,
)
"""A model of few weights."""


def save_untrained(path: Path, *, classes: tuple[str, ...] = ("normal", "tumour")) -> Path:
    """Write a model whose attention differs from cell to cell, though nothing taught it."""
    spec = ModelSpec(
        classes=classes,
        attention_mpp=8.0,
        patch_mpp=0.5,
        patch_px=64,
        attention="learned",
        encoder="small",
        dim=16,
        scheme="systematic",
        samples=16,
    )
    torch.manual_seed(0)
    model = AttentionSampler(spec)
    for parameter in model.attention.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    save_model(model, path)
    return path
