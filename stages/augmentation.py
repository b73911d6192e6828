"""Patches as other laboratories and scanners would have made them, for training.

Everything works on uint8 patches (N, P, P, 3) of any device and gives the same; what becomes of one patch depends on
its own pixels and random numbers alone. A frozen encoder's features are varied as features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

AT_ONCE = 4
"""Patches that are worked on at a time: so few stay in a processor's cache, which is three times as fast as 64."""
GLASS = 0.18
"""Optical density at which a pixel begins to count as stained: well below it, it is glass and stays as it is."""
BLUR_PX = 1.5
"""Standard deviation in pixels of the blur that ``focus`` mixes in or takes out."""

HEMATOXYLIN = (0.65, 0.70, 0.29)
EOSIN = (0.07, 0.99, 0.11)
"""Optical density of red, green and blue per amount of stain: Ruifrok & Johnston (2001)."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What is varied, and how far at most; each patch is varied by itself.

    The strengths make of hematoxylin and eosin, and of DAB, what still looks like a laboratory's; the amounts of stain
    in colon tissue of several laboratories vary by a standard deviation of ``exp(0.3)``, those here by ``exp(0.17)``.

    Attributes:
        turn: whether it is turned and mirrored, all eight ways alike: tissue has no up.
        stain: the amount of each stain is multiplied by ``exp(u)``, ``|u| <= stain``.
        shift: the amount of each stain where there is tissue is changed by ``|u| <= shift``, in optical density.
        scale: tissue is made up to so many times larger or smaller, in its place and size; at least 1.
        focus: share of the detail that is taken away or added, 0 to 1.
    """

    turn: bool = True
    stain: float = 0.3
    shift: float = 0.04
    scale: float = 1.25
    focus: float = 0.5

    def __post_init__(self) -> None:
        for name, low, high in (("stain", 0, 2), ("shift", 0, 1), ("scale", 1, 4), ("focus", 0, 1)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} must lie between {low} and {high}, found {getattr(self, name)}")

    @classmethod
    def none(cls) -> Augmentation:
        """Every patch as it is."""
        return cls(turn=False, stain=0.0, shift=0.0, scale=1.0, focus=0.0)

    def __call__(self, patches: Tensor, generator: torch.Generator) -> Tensor:
        """Patches (N, P, P, 3) uint8, varied: as many, of the same size and type.

        The generator may be of another device than the patches; the numbers that it gives are always as many, but
        where nothing is to be varied but the side up.
        """
        if replace(self, turn=False) == Augmentation.none():
            return turned(patches, generator) if self.turn else patches
        factors = 2 * torch.rand((len(patches), 8), generator=generator, device=generator.device) - 1
        if self.turn:
            patches = turned(patches, generator)
        parts = zip(patches.split(AT_ONCE), factors.to(patches.device).split(AT_ONCE), strict=True)
        return torch.cat([self._vary(some, u) for some, u in parts])

    def _vary(self, patches: Tensor, u: Tensor) -> Tensor:
        """Patches (n, P, P, 3) by factors (n, 8) in -1 to 1."""
        if self.scale > 1:
            patches = scaled(patches, torch.exp(u[:, 0] * math.log(self.scale)))
        if self.focus:
            patches = focused(patches, u[:, 1] * self.focus)
        if self.stain or self.shift:
            patches = stained(patches, torch.exp(u[:, 2:5] * self.stain), u[:, 5:8] * self.shift)
        return patches


def turned(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Patches (N, P, P, 3), each turned and mirrored at random, all eight ways alike."""
    ways = torch.randint(8, (len(patches),), generator=generator, device=generator.device).tolist()
    order = _orders(patches.shape[1], patches.device)
    out = torch.empty_like(patches).flatten(1, 2)
    # whole pixels are moved: turning tensors of bytes takes twice as long
    for new, old, way in zip(out, patches.flatten(1, 2), ways, strict=True):
        torch.index_select(old, 0, order[way], out=new)
    return out.view(patches.shape)


@lru_cache(maxsize=2)
def _orders(side: int, device: torch.device) -> list[Tensor]:
    """Which pixel of a square comes where, row by row, turned by no to three quarters, and the same mirrored."""
    turns = [torch.rot90(torch.arange(side * side, device=device).view(side, side), i) for i in range(4)]
    return [one.flatten() for one in (*turns, *(turn.flip(1) for turn in turns))]


def stained(patches: Tensor, times: Tensor, plus: Tensor) -> Tensor:
    """Patches (N, P, P, 3) uint8 with other amounts of stain.

    With the optical density ``o = ln(256 / (v + 1))`` of a pixel ``v``, split into amounts ``c = o S^-1`` of
    hematoxylin, eosin and a residual at right angles to both, the new density is ``o + t ((times - 1) c + plus) S``,
    where ``t`` rises from 0 on glass to 1 on tissue: glass has no stain to vary.

    Args:
        patches: what is varied.
        times, plus: (N, 3) for hematoxylin, eosin and the residual.

    Source: Tellez et al., "Quantifying the effects of data augmentation and stain color normalization in
    convolutional neural networks for computational pathology" (2019), whose additive part tints glass, too.
    """
    stains = torch.tensor([HEMATOXYLIN, EOSIN], dtype=torch.float64)
    stains = functional.normalize(torch.cat([stains, torch.linalg.cross(stains[:1], stains[1:])]), dim=1)
    # one matrix a patch: o S^-1 diag(times - 1) S
    change = (stains.inverse() * (times.cpu().double() - 1)[:, None]) @ stains
    offset = plus.cpu().double() @ stains
    pixels = patches.float() + 1
    density = (256 / pixels).log()
    tissue = 1 - torch.exp(-((density.mean(-1, keepdim=True) / GLASS) ** 2))
    more = torch.einsum("nhwc,ncd->nhwd", density, change.to(density)) + offset.to(density)[:, None, None]
    return _to_uint8(pixels * torch.exp(-tissue * more) - 1)


def scaled(patches: Tensor, times: Tensor) -> Tensor:
    """Patches (N, P, P, 3) uint8 with everything ``times`` (N,) larger about the middle; where that leaves an edge
    uncovered, what lies inside it is mirrored."""
    if not len(patches):
        return patches  # torch makes no grid of none
    theta = patches.new_zeros((len(patches), 2, 3), dtype=torch.float32)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / times.float()
    images = patches.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    found = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return _to_uint8(found.permute(0, 2, 3, 1))


def focused(patches: Tensor, more: Tensor) -> Tensor:
    """Patches (N, P, P, 3) uint8 with ``1 + more`` (N,) times the detail that a blur of `BLUR_PX` takes away."""
    radius = math.ceil(2 * BLUR_PX)
    at = torch.arange(-radius, radius + 1, dtype=torch.float32, device=patches.device)
    kernel = torch.exp(-(at**2) / (2 * BLUR_PX**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    images = patches.permute(0, 3, 1, 2).float()
    blurred = functional.conv2d(functional.pad(images, [radius] * 4, mode="replicate"), kernel, groups=3)
    blurred = functional.conv2d(blurred, kernel.transpose(2, 3), groups=3)
    return _to_uint8((images + more.float()[:, None, None, None] * (images - blurred)).permute(0, 2, 3, 1))


def augment_features(
    features: Tensor, spread: Tensor, generator: torch.Generator, *, noise: float = 0.1, dropout: float = 0.1
) -> Tensor:
    """Features (N, D), varied so that each is still right on average: ``k f / (1 - dropout) + noise spread e``.

    ``k`` is 0 with probability ``dropout``, else 1, and ``e`` is normal: for each number by itself. Dropping pulls
    towards 0, so features should be deviations from their slide's mean.

    Args:
        features: of a frozen encoder.
        spread: standard deviation of each over the slide, (D,) or (N, D).
        generator: of this or another device.
        noise: standard deviation of what is added, as a share of the spread.
        dropout: share of the numbers that are dropped, less than 1.
    """
    if dropout:
        kept = (torch.rand(features.shape, generator=generator, device=generator.device) >= dropout).to(features)
        features = features * kept / (1 - dropout)
    if noise:
        drawn = torch.randn(features.shape, generator=generator, device=generator.device)
        features = features + noise * spread * drawn.to(features)
    return features


def _to_uint8(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
