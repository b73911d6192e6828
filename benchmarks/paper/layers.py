"""What the compared models share: ink, the convolutions over it, gated attention, the grid of patches."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


def ink(pixels: Tensor, colours: Tensor | None = None) -> Tensor:
    """Pixels (B, ..., H, W, C) of 0 to 255 -> (B, ..., C, H, W) float, such that the background is 0.

    Colour becomes optical density ``ln(256 / (p + 1))``, in which stains add up; grey is bright on black: ``p / 255``.

    Args:
        colours: (B, C, C), multiplied to every pixel's ink (a row vector): the stain of an augmented image.
    """
    values = pixels.movedim(-1, -3).float(memory_format=torch.contiguous_format)
    # not in place at first: where no copy was needed these are still the caller's pixels
    values = (values + 1).log_().neg_().add_(math.log(256)) if pixels.shape[-1] == 3 else values / 255
    if colours is None:
        return values
    # the matrix from the left and the pixels along rows: several times faster than (pixels, 3) @ (3, 3)
    channels = values.reshape(len(values), -1, pixels.shape[-1], math.prod(pixels.shape[-3:-1]))
    return (colours.transpose(1, 2).unsqueeze(1) @ channels).reshape(values.shape)


def area_average(images: Tensor, factor: int) -> Tensor:
    """Means over squares of ``factor`` pixels: (B, H, W, C) -> (B, H // factor, W // factor, C) float32."""
    return functional.avg_pool2d(images.movedim(-1, 1).float(), factor).movedim(1, -1).contiguous()


def read_patches(images: Tensor, corners: Tensor, px: int, index: Tensor | None = None) -> Tensor:
    """Patches (B, N, px, px, C) of images (n, H, W, C) at top-left pixels ``corners`` (B, N, 2), as (y, x).

    Args:
        index: (B,), which of the images; by default all, one after the other.
    """
    windows = images.unfold(1, px, 1).unfold(2, px, 1)  # a view: (n, H - px + 1, W - px + 1, C, px, px)
    index = torch.arange(len(images), device=images.device) if index is None else index
    return windows[index.unsqueeze(1), corners[..., 0], corners[..., 1]].movedim(2, -1)


class Convolutions(nn.Module):
    """Convolutions without padding, pooled over all positions, standardised: ``f = (pool g(x) - c) / s``.

    Without padding the map of a whole image is the map of its patches, so that the same network serves every row.
    ``pool`` is ``mean``, or ``max`` for objects that fill a small part of a patch.
    ``c`` and ``s`` are set once from training images (`standardise`): at the start, what all patches share would be
    most of every feature (data-dependent initialisation: Salimans & Kingma, 2016). The product's encoder has its own.
    """

    stride = 4
    """Pixels between neighbouring positions of the map."""
    centre: Tensor
    spread: Tensor

    def __init__(
        self, *, channels: int = 3, widths: tuple[int, int, int] = (8, 16, 32), pool: Literal["mean", "max"] = "mean"
    ) -> None:
        super().__init__()
        a, b, c = widths
        self.channels, self.dim, self.pool = channels, c, pool
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, a, 4, stride=2), nn.ReLU(inplace=True)),
            *(nn.Conv2d(a, b, 3), nn.MaxPool2d(2), nn.ReLU(inplace=True)),
            *(nn.Conv2d(b, c, 3), nn.ReLU(inplace=True)),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.register_buffer("centre", torch.zeros(c))
        self.register_buffer("spread", torch.ones(c))

    def forward(self, x: Tensor) -> Tensor:
        """Ink (M, C, H, W) -> (M, dim)."""
        return (self.pooled(x) - self.centre) / self.spread

    def pooled(self, x: Tensor) -> Tensor:
        """The same before it is standardised."""
        responses: Tensor = self.layers(x)
        return responses.mean((2, 3)) if self.pool == "mean" else responses.amax((2, 3))

    def windows(self, x: Tensor, px: int, step: int) -> Tensor:
        """Features (M, N, dim) of all patches of ``px`` pixels in (M, C, H, W), ``step`` apart, a multiple of `stride`:
        the same as `forward` of each patch, but what overlapping patches share is computed once."""
        side = ((px - 4) // 2 - 1) // 2 - 2  # of a patch's map
        pooling = functional.avg_pool2d if self.pool == "mean" else functional.max_pool2d
        pooled = pooling(self.layers(x), side, step // self.stride)
        return (pooled.flatten(2).transpose(1, 2) - self.centre) / self.spread

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Set ``c`` and ``s`` to the mean and standard deviation of what (M, C, H, W) give."""
        responses = self.pooled(x)
        self.centre.copy_(responses.mean(0))
        self.spread.copy_(responses.std(0).clamp(min=1e-6))


class GatedAttention(nn.Module):
    """Score of a feature by gated attention: ``w . (tanh(V f) * sigmoid(U f))`` (Ilse et al., ICML 2018)."""

    def __init__(self, dim: int, hidden: int = 32) -> None:
        super().__init__()
        self.content = nn.Linear(dim, hidden)
        self.gate = nn.Linear(dim, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, D) -> (B, N)."""
        gated = torch.tanh(self.content(features)) * torch.sigmoid(self.gate(features))
        scores: Tensor = self.score(gated)
        return scores[..., 0]


def grid_corners(shape: tuple[int, ...], px: int, stride: int, device: torch.device) -> Tensor:
    """Top-left pixels (N, 2) of all patches of a grid on images (B, H, W, C), as (y, x); what is left over is shared
    between both ends."""
    axes = []
    for size in shape[1:3]:
        count = (size - px) // stride + 1
        first = (size - px - (count - 1) * stride) // 2
        axes.append(first + stride * torch.arange(count, device=device))
    return torch.cartesian_prod(*axes)
