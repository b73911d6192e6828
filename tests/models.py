"""Models that the tests make for themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.model.checkpoint import save_model
from pipeline.model.evidence_model import EvidenceModel
from pipeline.model.exhaustive_model import ExhaustiveModel
from pipeline.model.sampler import AttentionSampler
from pipeline.model.spec import ModelSpec
from pipeline.model.values import View
from stages.encoder.backbone import Backbone
from stages.encoder.card import EncoderCard
from stages.encoder.feature_store import FeatureKey, FeatureStore
from stages.encoder.lite0 import Lite0

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
FROZEN = replace(
    TINY,
    attention="encoder",
    encoder="tiny",
    coarse_mpp=4.0,
    context=(1, 3),
    components=4,
    fine_components=3,
    members=4,
    uniform=0.25,
)
"""The same on a frozen encoder, in an ensemble."""

EXHAUSTIVE = replace(
    TINY,
    classes=("a", "b"),
    patch_mpp=0.5,
    attention="encoder",
    encoder="tiny",
    samples=0,
    context=(1, 3),
    components=8,
    members=2,
    head="evidence",
)
"""One that reads every cell."""


class Colours(nn.Module):
    """A network of next to nothing: the colours of a patch's quarters, mixed at random; counts what it is shown."""

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(dim, 12, generator=generator))
        self.shown = 0

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, S, S) -> (N, dim)."""
        self.shown += len(pixels)
        return torch.tanh(nn.functional.adaptive_avg_pool2d(pixels, 2).flatten(1) @ self.weight.T)


def tiny_backbone(*, dim: int = 6, seed: int = 0) -> Backbone:
    """A frozen encoder that takes no time."""
    card = EncoderCard(
        name="tiny", source="random", dim=dim, px=32, digest=f"{seed:064}", mean=(0.5,) * 3, std=(0.1,) * 3, step=1
    )
    return Backbone(Colours(dim, seed), card)


def frozen_model(
    spec: ModelSpec = FROZEN, *, seed: int = 1, store: FeatureStore | None = None, backbone: Backbone | None = None
) -> EvidenceModel:
    """A model on a frozen encoder, all of whose numbers are random: nothing in it is 0 by chance of a start."""
    return randomly(EvidenceModel(spec, backbone=backbone or tiny_backbone(), store=store), seed=seed)


def exhaustive_model(head: str) -> ExhaustiveModel:
    """A model of every cell, all of whose parameters are random."""
    torch.manual_seed(0)
    model = ExhaustiveModel(replace(EXHAUSTIVE, head=head), backbone=tiny_backbone(dim=12)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def sampler_model(spec: ModelSpec = TINY, *, spread: float = 20) -> AttentionSampler:
    """A model that draws, whose attention is not even and whose head is not near 0, as they are at first.

    Args:
        spread: standard deviation of the last layer of its attention.
    """
    torch.manual_seed(1)
    model = AttentionSampler(spec).eval()
    for parameter in list(model.attention.parameters())[-2:]:
        torch.nn.init.normal_(parameter, std=spread)
    torch.nn.init.normal_(model.head.weight, std=0.2)
    return model


def drawing_model(spec: ModelSpec, seed: int = 1) -> AttentionSampler:
    """A `sampler_model` of one or two levels, neither of whose attentions is even."""
    torch.manual_seed(seed)
    model = AttentionSampler(spec).eval()
    for attention in (model.attention, model.inner):
        if attention is not None:
            torch.nn.init.normal_(attention.logit.weight, std=20)
    torch.nn.init.normal_(model.head.weight, std=0.2)
    return model


def drawn_view(rows: int, columns: int, *, px: int = 4) -> View:
    """A slide that is an array, of cells of ``px`` thumbnail pixels, with patches and regions."""
    rng, cells = np.random.default_rng(0), rows * columns
    rgb = rng.integers(0, 256, (px * rows, px * columns, 3), np.uint8)
    patches = rng.integers(0, 256, (cells, 32, 32, 3), np.uint8) // rng.integers(1, 4, (cells, 1, 1, 3), np.uint8)
    regions = rng.integers(0, 256, (cells // 9, 38, 38, 3), np.uint8)
    return View(rgb, rng.random((rows, columns)) < 0.8, lambda cells: patches[cells], lambda found: regions[found])


def randomly(model: EvidenceModel, *, seed: int = 1) -> EvidenceModel:
    """The same, all of whose numbers are random from now on."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name != "heads.share":
                value.copy_(torch.randn(value.shape, generator=generator) * (0.3 if "log" in name else 1.0))
        share = torch.rand(model.spec.members, generator=generator)
        model.heads.share.copy_(share / share.sum())
    return model.eval()


def random_lite0(path: Path, *, seed: int = 0) -> Path:
    """Weights of the product's own encoder, which nothing taught it."""
    torch.manual_seed(seed)
    save_file(Lite0().state_dict(), path)
    return path


def frozen_view(rows: int = 5, columns: int = 6, *, seed: int = 0, tissue: float = 0.8, named: str = "") -> View:
    """A slide that is an array, with patches of two scales.

    Args:
        named: its fingerprint; without one no features are kept.
    """
    rng = np.random.default_rng(seed)
    cells = rows * columns
    fine, coarse = (
        rng.integers(0, 256, (cells, px, px, 3), np.uint8) // rng.integers(1, 4, (cells, 1, 1, 3), np.uint8)
        for px in (FROZEN.patch_px, FROZEN.coarse_px)
    )
    rgb = np.full((4 * rows, 4 * columns, 3), 200, np.uint8)

    def key(px: int, mpp: float) -> Any:
        return (lambda encoder, dim: FeatureKey(named, encoder, dim, mpp, px, (rows, columns))) if named else None

    return View(
        rgb,
        rng.random((rows, columns)) < tissue,
        lambda chosen: fine[chosen],
        coarse=lambda chosen: coarse[chosen],
        key=key(FROZEN.patch_px, FROZEN.patch_mpp),
        coarse_key=key(FROZEN.coarse_px, 4.0),
    )


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


def one_bag(model: EvidenceModel, slides: list[View]) -> Tensor:
    """Logits (K, C) of the members that read every patch of all slides, as the model's docstring writes them: each
    slide is standardised and seen by itself, attention is one over all."""
    heads = model.heads
    context = torch.cat([model.survey(one).context for one in slides], 1)
    fine = model.whitening(torch.cat([model.encode(one, np.flatnonzero(one.tissue)) for one in slides]))
    rows = []
    for k in range(heads.members):
        seen = context[k % len(context)]
        for c in range(len(model.spec.classes)):
            s = seen @ heads.weight[k, c]
            a = (heads.log_sharpness[k].exp() * s).softmax(0)
            beyond = (a - 1 / len(a)) @ fine @ heads.fine[k, c]
            rows.append(heads.log_gain[k].exp() * (a @ s) + heads.bias[k, c] + beyond)
    return torch.stack(rows).view(heads.members, -1)
