"""The patches that say most for and against a class, as a person sees them: at full resolution, with what each says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from stages.geometry import Mpp, Raster
from stages.overlay.evidence_picture import AGAINST, FOR
from stages.overlay.picture import round_length
from stages.slide.protocol import Slide
from stages.slide.render import render_many

SIDE = 256
"""Pixels along a patch in the gallery, at most: level 0's own, or fewer."""
SHOWN = 6
"""Patches of either kind."""
MARGIN, CAPTION, HEAD = 6, 20, 24


@dataclass(frozen=True, slots=True)
class Shown:
    """A patch of a gallery.

    Attributes:
        number: its place among the patches that were read.
        contribution, half_width: to the log-odds of the class.
        row, column: of the gallery.
    """

    number: int
    contribution: float
    half_width: float
    row: int
    column: int


def choose(contributions: ArrayLike, half_widths: ArrayLike, most: int = SHOWN) -> list[Shown]:
    """The patches that say most for a class, first row, and most against it, second row, the strongest first.

    Args:
        contributions, half_widths: (N,), in log-odds.
        most: in each row.
    """
    values, half = np.asarray(contributions, np.float64), np.asarray(half_widths, np.float64)
    order = np.argsort(-values, kind="stable")
    rows = ([i for i in order if values[i] > 0][:most], [i for i in order[::-1] if values[i] < 0][:most])
    return [
        Shown(int(i), float(values[i]), float(half[i]), row, column)
        for row, chosen in enumerate(rows)
        for column, i in enumerate(chosen)
    ]


def render_gallery(
    slide: Slide, boxes_level0: ArrayLike, shown: Sequence[Shown], *, name: str, mpp: Mpp
) -> Image.Image:
    """A gallery: patches by contribution at full resolution, each with what it adds to the log-odds, and a scale bar.

    Args:
        slide: opened.
        boxes_level0: (N, 4) x, y, width, height of all patches that were read, level-0 pixels.
        shown: which of them, and where.
        name: of the class.
        mpp: µm per level-0 pixel.

    Raises:
        SlideError: the slide cannot be read there.
    """
    boxes = np.asarray(boxes_level0, np.float64).reshape(-1, 4)
    side, font = SIDE, ImageFont.load_default(13)
    rows = max((one.row for one in shown), default=0) + 1
    columns = max((one.column for one in shown), default=0) + 1
    step = side + MARGIN
    width, height = max(MARGIN + columns * step, 420), rows * (HEAD + step + CAPTION) + 2 * CAPTION
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    pixels = _pixels(slide, boxes, shown, side)
    for row in range(rows):
        top = row * (HEAD + step + CAPTION)
        own = [(one, rgb) for one, rgb in zip(shown, pixels, strict=True) if one.row == row]
        said = (
            ("say most for" if row == 0 else "say most against")
            if own
            else ("none speaks for", "none speaks against")[row]
        )
        pen.text((MARGIN, top + 4), f"{said} {name}", fill=FOR if row == 0 else AGAINST, font=font)
        for one, rgb in own:
            x, y = corner(row, one.column)
            page.paste(Image.fromarray(rgb), (x, y))
            spread = f" ± {one.half_width:.2g}" if math.isfinite(one.half_width) and one.half_width > 0 else ""
            pen.text((x, y + side + 2), f"{one.contribution:+.3g}{spread}", fill="black", font=font)
    if len(boxes):
        across_um = float(boxes[0, 2]) * mpp.x
        length = round_length(across_um / 2)
        x, y = MARGIN, height - CAPTION
        pen.rectangle((x, y, x + length / across_um * side, y + 3), fill="black")
        pen.text((x + length / across_um * side + 6, y - 8), f"{length:g} µm; log-odds", fill="black", font=font)
    return page


def corner(row: int, column: int) -> tuple[int, int]:
    """(x, y) of a patch's upper left pixel in a gallery."""
    return MARGIN + column * (SIDE + MARGIN), row * (HEAD + SIDE + MARGIN + CAPTION) + HEAD


def _pixels(slide: Slide, boxes: NDArray[np.float64], shown: Sequence[Shown], side: int) -> list[NDArray[np.uint8]]:
    """Each patch (side, side, 3): from as many of level 0's pixels as there are, enlarged where they are fewer."""
    if not shown:
        return []
    fine = [min(side, max(1, int(boxes[one.number, 2])), max(1, int(boxes[one.number, 3]))) for one in shown]
    rasters = []
    for one, px in zip(shown, fine, strict=True):
        x, y, w, h = boxes[one.number]
        rasters.append(Raster(x, y, w / px, h / px, px, px))
    found = render_many(slide, rasters) if len(set(fine)) == 1 else [render_many(slide, [r])[0] for r in rasters]
    return [np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BICUBIC)) for rgb in found]
