"""Attention and sampled patches as a picture.

Everything is placed through `Raster`: an attention value reaches the picture only by way of level-0 coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import times_uniform, under
from stages.overlay.insets import Inset
from stages.overlay.jpeg import write_jpeg
from stages.overlay.page import (
    OWN_SCALE,
    PATIENT_SCALE,
    Page,
    colour_bar,
    footnote,
    lay,
    page,
    picture_of,
    tick,
)
from stages.tissue.thumbnail import Thumbnail

COLOURS = (
    *((53, 95, 141), (43, 117, 142), (35, 138, 141), (31, 160, 136), (47, 180, 124), (86, 198, 103)),
    *((139, 214, 70), (197, 224, 33), (253, 231, 37)),
)
"""From teal to yellow in even steps: viridis without its first 30 %, for its purple looks like haematoxylin."""
OPACITY = (0.30, 0.80)
"""Of the colour at uniform attention and at the highest; below uniform attention the tissue shows as it is."""
NOTE = (
    "Colour: how likely a place was to be read, against an even share; that is where the model looked, not what it "
    "found. Squares: what was read."
)


def coloured(multiple: NDArray[np.floating], top: float) -> NDArray[np.uint8]:
    """Colour and opacity (..., 4) of attention (...): none below uniform, strongest at ``top`` times it, log scale."""
    height = np.log(np.clip(multiple, 1.0, top)) / math.log(top)
    low, high = OPACITY
    opacity = np.where(multiple > 1.0, low + (high - low) * height, 0.0)
    steps, ramp = np.linspace(0, 1, len(COLOURS)), np.array(COLOURS, float)
    channels = [np.interp(height, steps, ramp[:, k]) for k in range(3)]
    layer: NDArray[np.uint8] = np.rint(np.stack([*channels, 255 * opacity], axis=-1)).astype(np.uint8)
    return layer


def attention_picture(
    thumbnail: Thumbnail,
    attention: NDArray[np.floating],
    attention_raster: Raster,
    mpp_level0: Mpp,
    cells: int | None = None,
    top: float | None = None,
) -> tuple[Image.Image, Raster, float]:
    """The thumbnail with attention as colour, its pixels' place, and the multiple of the uniform attention that its
    strongest colour stands for; ``cells`` as `times_uniform` has it, ``top`` as `overlay_page`."""
    picture, raster = picture_of(thumbnail, mpp_level0)
    return picture, raster, _lay_attention(picture, raster, attention, attention_raster, cells, top)


def _lay_attention(
    picture: Image.Image,
    raster: Raster,
    attention: NDArray[np.floating],
    attention_raster: Raster,
    cells: int | None,
    top: float | None,
) -> float:
    multiple = times_uniform(attention, cells)
    top = max(2.0, float(multiple.max(initial=0.0)) if top is None else top)
    lay(picture, under(raster, coloured(multiple, top), attention_raster))
    return top


def overlay_page(
    thumbnail: Thumbnail,
    attention: NDArray[np.floating],
    attention_raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    title: str,
    mpp_level0: Mpp,
    cells: int | None = None,
    top: float | None = None,
    insets: Sequence[Inset] = (),
    insets_told: str = "",
    alone: bool = False,
    warned: Sequence[str] = (),
) -> Page:
    """The overlay beside the slide as it is, with title, scale bar and legend.

    Args:
        thumbnail: the slide at low resolution.
        attention: (rows, cols), summing to one over the tissue and 0 off it.
        attention_raster: its cells' place on the level-0 frame.
        patch_boxes_level0: (N, 4) x, y, width, height of the patches that were read, level-0 pixels.
        title: wrapped where it is long, such as the prediction with its interval.
        mpp_level0: µm per level-0 pixel.
        cells: see `times_uniform`.
        top: of slides that share a scale, the strongest attention on any, as `times_uniform` has it; None: the slide
            has its own.
        insets, insets_told, warned: see `stages.overlay.page.page`.
        alone: whether the slide is left out, as of a bag, which has no pixels to show.
    """
    plain, raster = picture_of(thumbnail, mpp_level0)
    picture = plain.copy()
    strongest = _lay_attention(picture, raster, attention, attention_raster, cells, top)

    def legend(image: Image.Image, place: tuple[int, int], width: int) -> None:
        _legend(image, place, width, strongest, OWN_SCALE if top is None else PATIENT_SCALE)

    return page(
        picture,
        raster,
        patch_boxes_level0,
        title=title,
        mpp_level0=mpp_level0,
        legend=legend,
        note=NOTE,
        plain=None if alone else plain,
        insets=insets,
        insets_told=insets_told,
        warned=warned,
    )


def draw_overlay(path: Path, *parts: Any, **said: Any) -> None:
    """Write `overlay_page` to ``path`` as JPEG, whatever the path's ending; arguments as it has them."""
    write_jpeg(path, overlay_page(*parts, **said).image)


def _legend(image: Image.Image, place: tuple[int, int], width: int, top: float, scale: str) -> None:
    (left, upper), inner = place, width - 24  # room for the last tick's label
    ramp = np.exp(np.linspace(0, math.log(top), inner)) * (1 + 1e-9)
    pen = colour_bar(image, place, coloured(ramp, top), "attention, times uniform", width)
    last = -math.inf
    for value in [*(m * 10.0**p for p in range(9) for m in (1, 2, 5)), top]:
        x = (inner - 1) * math.log(value) / math.log(top)
        if x - last >= 38 and (x <= inner - 38 or value == top):
            last = x
            text = f"{value:.0f}" if value >= 10 else f"{value:.2g}"
            tick(pen, left + x, upper, f"{text}\N{MULTIPLICATION SIGN}", first=x == 0)
    footnote(pen, place, scale)
