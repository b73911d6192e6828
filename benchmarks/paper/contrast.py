"""A patch encoder's start without labels: two views of a patch are alike, those of different patches are not.

The product takes such a start as it takes any weights for its encoder; making one is no part of it.

T. Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.paper.colon_images import stain_matrices
from benchmarks.paper.layers import Convolutions, ink, read_patches
from benchmarks.paper.views import EncoderOnInk

SHIFT_PX = 12
"""Two views of a patch lie up to so many pixels apart."""
STAIN_JITTER = 0.2
PATCHES = 192
"""In a step; each is told from all others."""
TEMPERATURE = 0.2
LEARNING_RATE = 2e-3


def learn_to_tell_apart(
    encoder: Convolutions | EncoderOnInk, images: Tensor, items: Sequence[int], *, patch_px: int, steps: int, seed: int
) -> None:
    """Train ``encoder`` in place on patches of ``items`` of images (n, H, W, 3), whose labels are not used.

    The loss is the cross-entropy of finding a view's other view among all ``2 * PATCHES - 1``, by cosine similarity of
    a projection over `TEMPERATURE`. Views differ by a shift, a turn, a mirroring and the strengths of the stains.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        projection = nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.ReLU(), nn.Linear(encoder.dim, 32))
    encoder.standardise(_view(_windows(images, items, patch_px, generator), patch_px, None))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *projection.parameters()], lr=LEARNING_RATE)
    twins = torch.arange(2 * PATCHES).roll(PATCHES)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        windows = _windows(images, items, patch_px, generator)
        views = torch.cat([_view(windows, patch_px, generator) for _ in range(2)])
        points = functional.normalize(projection(encoder(views)), dim=1)
        likeness = (points @ points.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        loss = functional.cross_entropy(likeness, twins)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _windows(images: Tensor, items: Sequence[int], patch_px: int, generator: torch.Generator) -> Tensor:
    """`PATCHES` windows (PATCHES, 1, side, side, 3) with room for a shift, anywhere in the images."""
    side = patch_px + SHIFT_PX
    index = torch.tensor(items)[torch.randint(len(items), (PATCHES,), generator=generator)]
    room = torch.tensor(images.shape[1:3]) - side + 1
    corners = (torch.rand(PATCHES, 1, 2, generator=generator) * room).long()
    return read_patches(images, corners, side, index)


def _view(windows: Tensor, patch_px: int, generator: torch.Generator | None) -> Tensor:
    """Ink (PATCHES, 3, patch_px, patch_px) of one view of each window: one shift and turn for all, stains for each."""
    if generator is None:
        return ink(windows).flatten(0, 1)[..., :patch_px, :patch_px]
    colours = stain_matrices((STAIN_JITTER * torch.randn(len(windows), 3, generator=generator)).exp())
    y, x = torch.randint(SHIFT_PX + 1, (2,), generator=generator).tolist()
    quarter, mirrored = torch.randint(4, (1,), generator=generator).item(), torch.rand(1, generator=generator) < 0.5
    patches = torch.rot90(ink(windows, colours).flatten(0, 1)[..., y : y + patch_px, x : x + patch_px], quarter, (2, 3))
    return patches.flip(3) if mirrored else patches
