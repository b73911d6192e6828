"""Patches close up, below a map that is too coarse to show a cell: each has a mark, on it and on the map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from stages.geometry import Raster
from stages.overlay.attention_map import Floats
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


def draw_marks(
    pen: ImageDraw.ImageDraw, raster: Raster, insets: Sequence[Inset], boxes_level0: Floats, size: tuple[int, int]
) -> None:
    """Write insets' marks beside their patches, each where it covers least of other patches and of marks.

    Args:
        pen: draws on the map.
        raster: its pixels' place.
        insets: in the order in which they choose their places.
        boxes_level0: (N, 4), x, y, width, height of all patches that are outlined.
        size: width and height of the map, pixels.
    """
    taken, font = _on_map(raster, boxes_level0), pen_font(LETTERS)
    for inset in insets:
        [own] = _on_map(raster, [inset.box_level0])
        places = _around(own, math.ceil(font.getlength(inset.mark)), size)
        others = taken[(taken != own).any(1)]
        place = places[_covered(places, others).argmin()]  # of equal ones the first
        pen.text(tuple(place[:2]), inset.mark, fill="black", font=font, stroke_width=2, stroke_fill="white")
        taken = np.vstack([taken, place])


def _on_map(raster: Raster, boxes_level0: ArrayLike) -> Floats:
    """Left, upper, right and lower edge (N, 4) of boxes, pixels of the map."""
    boxes = np.asarray(boxes_level0, np.float64).reshape(-1, 4)
    corners = raster.from_level0(boxes[:, :2]), raster.from_level0(boxes[:, :2] + boxes[:, 2:])
    return np.rint(np.hstack(corners))


def _around(own: Floats, wide: int, size: tuple[int, int]) -> Floats:
    """Places (P, 4) of a mark so many pixels wide around its patch and, last, on it; the best first."""
    left, upper, right, lower = own.tolist()
    high, x, y = LETTERS + 3, (left + right - wide) / 2, (upper + lower - LETTERS) / 2
    above, below, before, after = upper - high - 2, lower + 2, left - wide - 5, right + 4
    sides = [(after, upper - 6), (before, upper - 6), (x, above), (x, below), (after, y), (before, y)]
    corners = [(after, above), (before, above), (after, below), (before, below)]
    found = np.array([*sides, *corners, (x, y)])
    found = np.clip(found, 1, [max(1, size[0] - wide - 2), max(1, size[1] - high)])
    return np.hstack([found, found + np.array([wide, high])])


def _covered(places: Floats, others: Floats) -> Floats:
    """How many pixels of others (N, 4) each place (P, 4) covers."""
    across, down = (
        np.minimum(places[:, None, i + 2], others[:, i + 2]) - np.maximum(places[:, None, i], others[:, i])
        for i in (0, 1)
    )
    return np.asarray((across.clip(0) * down.clip(0)).sum(1))


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
