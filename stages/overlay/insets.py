"""Patches close up, below a map that is too coarse to show a cell: each has a mark, on it and on the map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from stages.geometry import Raster
from stages.overlay.text import pen_font

SHOWN = 6
"""Patches at most."""
SIDE, LEAST_SIDE, GAP, CAPTION, LETTERS = 256, 200, 8, 20, 13
"""Pixels along an inset at most, and at least where a page is that wide; between two; below one; of letters."""


@dataclass(frozen=True, slots=True)
class Inset:
    """A patch close up.

    Attributes:
        mark: that it is found by, here, on the map and in the slide's gallery.
        image: square, RGB.
        box_level0: x, y, width, height, level-0 pixels.
        width_um: how wide it is.
        told: what is said below it.
        colour: of that.
    """

    mark: str
    image: Image.Image
    box_level0: tuple[float, float, float, float]
    width_um: float
    told: str
    colour: tuple[int, int, int]


def draw_mark(pen: ImageDraw.ImageDraw, raster: Raster, inset: Inset, size: tuple[int, int]) -> None:
    """Write an inset's mark beside its patch on a map of (width, height) pixels."""
    x, y, w, _ = inset.box_level0
    right, upper = np.rint(raster.from_level0(np.array([x + w, y]))).astype(int).tolist()
    font, told = pen_font(LETTERS), inset.mark
    wide = math.ceil(font.getlength(told))
    at = (min(right + 4, size[0] - wide - 2), max(upper - 6, 1))
    pen.text(at, told, fill="black", font=font, stroke_width=2, stroke_fill="white")


def insets_height(insets: Sequence[Inset], width: int) -> int:
    """Pixels that they take on a page on which so many are free."""
    _, rows, side = _grid(len(insets), width)
    return rows * (side + CAPTION + GAP) + 16 if insets else 0


def lay_insets(page: Image.Image, place: tuple[int, int], insets: Sequence[Inset], width: int) -> None:
    """Draw them onto a page, at (left, upper), so many pixels wide, the first with a scale bar below."""
    columns, rows, side = _grid(len(insets), width)
    pen, font = ImageDraw.Draw(page), pen_font(LETTERS)
    for at, inset in enumerate(insets):
        x, y = place[0] + at % columns * (side + GAP), place[1] + at // columns * (side + CAPTION + GAP)
        page.paste(inset.image.resize((side, side), Image.Resampling.HAMMING), (x, y))
        pen.text((x + 5, y + 3), inset.mark, fill="black", font=font, stroke_width=2, stroke_fill="white")
        pen.text((x, y + side + 2), inset.told, fill=inset.colour, font=font)
    if insets:
        scale_bar(pen, (place[0], place[1] + rows * (side + CAPTION + GAP) + 2), insets[0].width_um, side)


def scale_bar(pen: ImageDraw.ImageDraw, place: tuple[int, int], across_um: float, side: int) -> None:
    """Draw a round length at (x, y) for patches of so many micrometres that are ``side`` pixels wide."""
    length = round_length(across_um / 2)
    x, y = place
    right = x + length / across_um * side
    pen.rectangle((x, y - 2, right, y + 1), fill="black")
    pen.text((right + 6, y - 9), f"{length:g} µm", fill="black", font=pen_font(LETTERS))


def round_length(most: float) -> float:
    """The longest 1, 2 or 5 times a power of ten that is at most ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return power * max(m for m in (1, 2, 5) if m * power <= most * (1 + 1e-9))


def _grid(count: int, width: int) -> tuple[int, int, int]:
    """Columns, rows and the pixels along each: as few rows as leave `LEAST_SIDE`, and these alike."""
    fit = max(1, min(SHOWN, (width + GAP) // (LEAST_SIDE + GAP)))
    rows = max(1, -(-count // fit))
    columns = max(1, -(-count // rows))
    return columns, rows, min(SIDE, (width - (columns - 1) * GAP) // columns)
