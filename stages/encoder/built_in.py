"""The encoder that needs nothing but this package: a small filter bank, trained end to end."""

from __future__ import annotations

import torch
from torch import nn

from stages.encoder.patch_encoder import PatchEncoder


def built_in_encoder(dim: int) -> PatchEncoder:
    """The filter bank with random weights, as an encoder of features of length ``dim``."""
    return PatchEncoder(filter_bank(dim), dim)


def filter_bank(dim: int, widths: tuple[int, int] = (16, 32)) -> nn.Module:
    """Two convolutions, the mean response over the patch, a linear map: (N, 3, P, P) -> (N, dim).

    No normalisation in between: how strongly a filter responds *is* the texture, and normalising would remove it.
    """
    first = nn.Conv2d(3, widths[0], 7, stride=4, padding=3)
    second = nn.Conv2d(widths[0], widths[1], 3, stride=2, padding=1)
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    # starts as contrast filters, blind to even colour: stain varies more from slide to slide than structure does
    with torch.no_grad():
        first.weight -= first.weight.mean(dim=(2, 3), keepdim=True)
    pool = nn.AdaptiveAvgPool2d(1)
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(first, relu, second, relu, pool, nn.Flatten(), nn.Linear(widths[1], dim))
