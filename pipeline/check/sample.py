"""A little of every level of a slide, read through the slide protocol as everything else reads it."""

from __future__ import annotations

from itertools import product

import numpy as np

from pipeline.check.values import Finding
from stages.geometry import Box
from stages.place import Url
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.tiff import describe_cut

TILES = 12
"""Of each level: all where it has no more, else the first, the last (what a broken copy lacks), and the others spread
evenly over what was scanned."""
HUGE = 2**24
"""Pixels of a tile from which one of a level is read: each is decoded whole."""
SIDE = 32
"""Pixels along a side of what is asked of a tile."""


def sample_levels(slide: Slide) -> list[Finding]:
    """What is wrong with a few tiles of each level, a finding for each level that has damaged ones."""
    found = []
    for level, raster in enumerate(slide.facts.levels):
        boxes = _boxes(slide, level)
        failed = []
        for box in boxes:
            try:
                slide.read_level(level, box)
            except SlideError as exc:
                failed.append(str(exc))
        if failed:
            lost = f"{len(failed)} of {len(boxes)} tiles that were tried of level {level}"
            found.append(Finding("tiles", f"{lost} ({raster.width} x {raster.height} px) are unreadable: {failed[0]}"))
    return found


def find_cut(slide: Slide) -> list[Finding]:
    """Whether a TIFF ends before its tiles do, of all of which the file says where they lie."""
    path = slide.facts.path
    if isinstance(path, Url) or not path.is_file():
        return []
    words = describe_cut(path)
    return [] if words is None else [Finding("truncated", words)]


def _boxes(slide: Slide, level: int) -> list[Box]:
    """Small boxes inside different tiles of a level, in the tiles' order."""
    raster, (width, height) = slide.facts.levels[level], slide.facts.tile_sizes[level]
    inside = Box(0, 0, raster.width, raster.height)
    boxes = []
    for row, column in sorted(set(_places(slide, level))):
        tile = Box(column * width, row * height, width, height).intersect(inside)
        side_x, side_y = min(SIDE, tile.width), min(SIDE, tile.height)
        boxes.append(Box(tile.x + (tile.width - side_x) // 2, tile.y + (tile.height - side_y) // 2, side_x, side_y))
    return boxes


def _places(slide: Slide, level: int) -> list[tuple[int, int]]:
    """(row, column) of the tiles of a level that are tried."""
    raster, (width, height) = slide.facts.levels[level], slide.facts.tile_sizes[level]
    rows, columns = -(-raster.height // height), -(-raster.width // width)
    if width * height > HUGE:
        return [(rows // 2, columns // 2)]
    if rows * columns <= TILES:
        return list(product(range(rows), range(columns)))
    bounds, n = slide.facts.bounds, np.arange(TILES - 2)
    # an additive recurrence fills the square evenly, however many of its points are taken
    u, v = (0.5 + n * 0.7548776662) % 1, (0.5 + n * 0.5698402910) % 1
    spread = raster.from_level0(np.stack([bounds.x + u * bounds.width, bounds.y + v * bounds.height], axis=1))
    places = [(int(y) // height, int(x) // width) for x, y in spread.tolist()]
    return [
        (0, 0),
        *((min(row, rows - 1), min(column, columns - 1)) for row, column in places),
        (rows - 1, columns - 1),
    ]
