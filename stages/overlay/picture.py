"""Attention and sampled patches as a picture.

Everything is placed through `Raster`: an attention value and a patch outline reach the picture only by way of level-0
coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import Floats, times_uniform, under
from stages.overlay.jpeg import write_jpeg
from stages.overlay.text import pen_font, shortened, wrapped
from stages.tissue.thumbnail import Thumbnail

COLOURS = (
    *((53, 95, 141), (43, 117, 142), (35, 138, 141), (31, 160, 136), (47, 180, 124), (86, 198, 103)),
    *((139, 214, 70), (197, 224, 33), (253, 231, 37)),
)
"""From teal to yellow in even steps: viridis without its first 30 %, for its purple looks like haematoxylin."""
OPACITY = (0.30, 0.80)
"""Of the colour at uniform attention and at the highest; below uniform attention the tissue shows as it is."""
TITLE, TEXT, SMALL, SMALLEST = 15, 14, 12, 10
"""Heights of letters, pixels."""
SOFT = (64, 64, 64)
OWN_SCALE = "this slide's own scale"
"""The strongest colour is the slide's strongest, not the cohort's: slides are not to be compared by it."""
PATIENT_SCALE = "one scale for this patient's slides"
"""The strongest colour is the strongest of all slides that were predicted together."""
PICTURE_PX = (640, 1250)
"""A picture's longer side on the page: small thumbnails are enlarged to the first, large ones reduced to the second."""
MARGIN, FOOT, LEAST_WIDTH = 20, 86, 680
"""Of a page, pixels: around it, below the picture, and how wide it is at least."""
GLASS = 235
THIN = 16
"""Pixels along a patch below which its outline is thin."""


@dataclass(frozen=True, slots=True)
class Page:
    """A picture of a slide with all that explains it.

    Attributes:
        image: RGB.
        place: left, upper, right and lower edge of the slide in it, pixels.
    """

    image: Image.Image
    place: tuple[int, int, int, int]


Legend = Callable[[Image.Image, tuple[int, int], int], None]
"""Draws what colours mean onto a page, at (left, upper), so many pixels wide."""


def coloured(multiple: NDArray[np.floating], top: float) -> NDArray[np.uint8]:
    """Colour and opacity (..., 4) of attention (...): none below uniform, strongest at ``top`` times it, log scale."""
    height = np.log(np.clip(multiple, 1.0, top)) / math.log(top)
    low, high = OPACITY
    opacity = np.where(multiple > 1.0, low + (high - low) * height, 0.0)
    steps, ramp = np.linspace(0, 1, len(COLOURS)), np.array(COLOURS, float)
    channels = [np.interp(height, steps, ramp[:, k]) for k in range(3)]
    layer: NDArray[np.uint8] = np.rint(np.stack([*channels, 255 * opacity], axis=-1)).astype(np.uint8)
    return layer


def lay(picture: Image.Image, layer: NDArray[np.uint8]) -> None:
    """Lay colours with their opacities (H, W, 4) over a picture."""
    colours = Image.fromarray(layer)
    picture.paste(colours, mask=colours)


def picture_of(thumbnail: Thumbnail, mpp_level0: Mpp) -> tuple[Image.Image, Raster]:
    """The thumbnail as large as a page shows it, with square pixels, and their place."""
    return paged(Image.fromarray(thumbnail.rgb), thumbnail.raster, mpp_level0)


def paged(picture: Image.Image, raster: Raster, mpp_level0: Mpp) -> tuple[Image.Image, Raster]:
    """`picture_of` a thumbnail that is a picture already."""
    left, upper, right, lower = raster.extent_level0
    across_um, down_um = (right - left) * mpp_level0.x, (lower - upper) * mpp_level0.y
    longest = min(max(*picture.size, PICTURE_PX[0]), PICTURE_PX[1])
    width, height = (max(1, round(longest * side / max(across_um, down_um))) for side in (across_um, down_um))
    shown = picture.resize((width, height), Image.Resampling.HAMMING)
    return shown, Raster(left, upper, (right - left) / width, (lower - upper) / height, width, height)


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
    multiple = times_uniform(attention, cells)
    top = max(2.0, float(multiple.max(initial=0.0)) if top is None else top)
    lay(picture, under(raster, coloured(multiple, top), attention_raster))
    return picture, raster, top


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
) -> Page:
    """The overlay with title, scale bar and legend.

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
    """
    picture, raster, strongest = attention_picture(thumbnail, attention, attention_raster, mpp_level0, cells, top)

    def legend(image: Image.Image, place: tuple[int, int], width: int) -> None:
        _legend(image, place, width, strongest, OWN_SCALE if top is None else PATIENT_SCALE)

    return page(picture, raster, patch_boxes_level0, title=title, mpp_level0=mpp_level0, legend=legend)


def draw_overlay(path: Path, *parts: Any, **said: Any) -> None:
    """Write `overlay_page` to ``path`` as JPEG, whatever the path's ending; arguments as it has them."""
    write_jpeg(path, overlay_page(*parts, **said).image)


def page(
    picture: Image.Image,
    raster: Raster,
    patch_boxes_level0: ArrayLike,
    *,
    title: str,
    mpp_level0: Mpp,
    legend: Legend,
) -> Page:
    """A picture of a slide with the patches' outlines, title, scale bar and legend.

    Args:
        picture: drawn into.
        raster: its pixels' place on the level-0 frame.
        patch_boxes_level0: (N, 4), outlined.
        title: wrapped where it is long.
        mpp_level0: µm per level-0 pixel.
        legend: draws what colours mean.
    """
    boxes = np.asarray(patch_boxes_level0, np.float64).reshape(-1, 4)
    outline(ImageDraw.Draw(picture), raster, boxes)
    width, height = picture.size
    page_width = max(width + 2 * MARGIN, LEAST_WIDTH)
    inner = page_width - 2 * MARGIN
    lines = wrapped(title, inner, TITLE)
    left, upper = (page_width - width) // 2, 18 + 20 * len(lines)
    below = upper + height
    image = Image.new("RGB", (page_width, below + FOOT), "white")
    pen = ImageDraw.Draw(image)
    for n, line in enumerate(lines):
        pen.text((MARGIN, 24 + 20 * n), line, fill="black", font=pen_font(TITLE), anchor="ls")
    pen.rectangle((left - 1, upper - 1, left + width, below), outline=(191, 191, 191))
    image.paste(picture, (left, upper))
    third = inner // 3
    px_per_um = 1 / (raster.scale_x * mpp_level0.x)
    _scale_bar(pen, (MARGIN, below), min(third - 20, max(width, 60)), px_per_um)
    _patch_key(pen, (MARGIN + third, below), boxes, mpp_level0)
    legend(image, (MARGIN + 2 * third, below), third)
    return Page(image, (left, upper, left + width, below))


def outline(pen: ImageDraw.ImageDraw, raster: Raster, boxes: Floats) -> None:
    """Outline boxes (N, 4) on a picture: light on dark, which shows on glass, tissue and fluorescence alike."""
    corners = np.stack([raster.from_level0(boxes[:, :2]), raster.from_level0(boxes[:, :2] + boxes[:, 2:])], axis=1)
    for (left, upper), (right, lower) in np.rint(corners).astype(int).tolist():
        line = 2 if min(right - left, lower - upper) >= THIN else 1  # of small ones the inside is to be seen, too
        for around, width, colour in ((line, line + 2, "black"), (line - 1, line, "white")):
            ring = (left - 1 - around, upper - 1 - around, right + around, lower + around)
            pen.rectangle(ring, outline=colour, width=width)


def round_length(most: float) -> float:
    """The longest 1, 2 or 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return power * max(m for m in (1, 2, 5) if m * power <= most * (1 + 1e-9))


def _scale_bar(pen: ImageDraw.ImageDraw, place: tuple[int, int], most: float, px_per_um: float) -> None:
    (left, upper), length = place, round_length(most / px_per_um)
    pen.rectangle((left, upper + 35, left + round(length * px_per_um) - 1, upper + 39), fill="black")
    told = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    pen.text((left, upper + 62), told, fill="black", font=pen_font(TEXT), anchor="ls")


def _patch_key(pen: ImageDraw.ImageDraw, place: tuple[int, int], boxes: Floats, mpp_level0: Mpp) -> None:
    left, upper = place
    outline(pen, Raster(0, 0, 1, 1, 1, 1), np.array([[left + 2.0, upper + 30.0, 14.0, 14.0]]))
    told = f"{len(boxes)} patch{'' if len(boxes) == 1 else 'es'} read"
    pen.text((left + 26, upper + 42), told, fill="black", font=pen_font(TEXT), anchor="ls")
    if len(boxes):
        side = f"each {boxes[0, 2] * mpp_level0.x:.0f} µm wide"
        pen.text((left + 26, upper + 62), side, fill=SOFT, font=pen_font(SMALL), anchor="ls")


def colour_bar(
    image: Image.Image, place: tuple[int, int], layer: NDArray[np.uint8], title: str, width: int
) -> ImageDraw.ImageDraw:
    """Draw a legend's bar of colours (width, 4) as they are on glass, below its title, in two lines where it is wider
    than ``width``; more is drawn with the pen."""
    left, upper = place
    bar = Image.new("RGB", (len(layer), 14), (GLASS, GLASS, GLASS))
    lay(bar, np.repeat(layer[None], 14, axis=0))
    image.paste(bar, (left, upper + 30))
    pen = ImageDraw.Draw(image)
    size = TEXT if pen_font(TEXT).getlength(title) <= width else SMALL
    first, *others = wrapped(title, width, size)
    lines = [first, shortened(" ".join(others), width, size)] if others else [first]
    for line, below in zip(lines[::-1], (23, 11), strict=False):
        pen.text((left, upper + below), line, fill="black", font=pen_font(size), anchor="ls")
    return pen


def tick(pen: ImageDraw.ImageDraw, x: float, upper: int, told: str, *, first: bool) -> None:
    """Mark a value below a legend's bar; the first is written from its mark on, for there is no room to its left."""
    pen.line((x, upper + 44, x, upper + 48), fill="black")
    pen.text((x, upper + 60), told, fill="black", font=pen_font(SMALL), anchor="ls" if first else "ms")


def footnote(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str) -> None:
    """Write a legend's last line."""
    pen.text((place[0], place[1] + 76), text, fill=SOFT, font=pen_font(SMALLEST), anchor="ls")


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
