"""A slide's scanned bounds as one small picture, at a physical resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Raster, physical_raster
from stages.heap import give_back, large_image
from stages.slide.protocol import Slide
from stages.slide.render import render_into

MAX_THUMBNAIL_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A slide's scanned bounds at one physical resolution.

    Attributes:
        rgb: (H, W, 3) uint8; of a large slide a `large_image`.
        raster: its pixels' place on the level-0 frame; ``raster.shape == (H, W)``.
        mpp: µm per thumbnail pixel, along x and y alike.
    """

    rgb: NDArray[np.uint8]
    raster: Raster
    mpp: float


def read_thumbnail(slide: Slide, attention_mpp: float) -> Thumbnail:
    """The slide's bounds at exactly ``attention_mpp`` µm/px.

    Raises:
        ValueError: the thumbnail would have more than `MAX_THUMBNAIL_PIXELS`.
        SlideError: the slide's resolution is unknown, or it cannot be read.
        ResolutionError: the slide is coarser than ``attention_mpp``.
    """
    raster = physical_raster(slide.facts.bounds, slide.facts.require_mpp(), attention_mpp)
    pixels = raster.width * raster.height
    if pixels > MAX_THUMBNAIL_PIXELS:
        enough = 1.01 * attention_mpp * (pixels / MAX_THUMBNAIL_PIXELS) ** 0.5
        raise ValueError(
            f"a thumbnail at {attention_mpp:g} µm/px would be {raster.width} x {raster.height} pixels, more than "
            f"{MAX_THUMBNAIL_PIXELS // 10**6} million: raise attention_mpp to {enough:.3g} µm/px or more"
        )
    rgb = large_image((*raster.shape, 3))
    render_into(slide, [raster], [rgb])
    # the last column and row are averaged with what lies outside the slide, and white there would glow in dark fields
    _, _, right, bottom = raster.extent_level0
    _, _, slide_right, slide_bottom = slide.facts.levels[0].extent_level0
    if right > slide_right + 1e-6 * raster.scale_x and raster.width > 1:
        rgb[:, -1] = rgb[:, -2]
    if bottom > slide_bottom + 1e-6 * raster.scale_y and raster.height > 1:
        rgb[-1] = rgb[-2]
    give_back(rgb)
    return Thumbnail(rgb, raster, attention_mpp)
