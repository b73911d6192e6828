"""The scanned part of a slide as a slide of its own, as QuPath shows it: pixel (0, 0) is the corner of the bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box, Raster
from stages.slide.facts import SlideFacts
from stages.slide.protocol import Slide
from stages.slide.tiles import box_arrays


def scanned_box(facts: SlideFacts) -> Box:
    """The scanned part in level-0 pixels, from the corner that QuPath counts from: left of the slide where that is."""
    (x, y), bounds = facts.origin, facts.bounds
    return Box(x, y, bounds.x + bounds.width - x, bounds.y + bounds.height - y)


def scanned(slide: Slide) -> Slide:
    """A slide's scanned part; the slide itself where that is all of it."""
    full = slide.facts.levels[0]
    return slide if scanned_box(slide.facts) == Box(0, 0, full.width, full.height) else _Scanned(slide)


class _Scanned(Slide):
    """Levels begin at the last of their pixels before the corner, and stay where they are on the level-0 frame."""

    def __init__(self, slide: Slide) -> None:
        self._slide, box = slide, scanned_box(slide.facts)
        corners = ((box.x, box.y), (box.x + box.width, box.y + box.height))
        self._parts = []
        for level in slide.facts.levels:
            (left, top), (right, bottom) = level.from_level0(corners).tolist()
            x, y = math.floor(left + 1e-6), math.floor(top + 1e-6)
            self._parts.append(Box(x, y, math.ceil(right - 1e-6) - x, math.ceil(bottom - 1e-6) - y))
        self.facts = replace(
            slide.facts,
            levels=tuple(_part_of(level, part) for level, part in zip(slide.facts.levels, self._parts, strict=True)),
        )

    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """See `Slide.read_boxes`; what lies outside the slide is background."""
        own, part = self._slide.facts.levels[level], self._parts[level]
        whole, targets = Box(0, 0, own.width, own.height), box_arrays(boxes) if out is None else list(out)
        for box, target in zip(boxes, targets, strict=True):
            there = Box(box.x + part.x, box.y + part.y, box.width, box.height)
            inside = there.intersect(whole)
            if inside != there:
                target[:] = self.facts.background
            if inside.area:
                rows, columns = inside.y - there.y, inside.x - there.x
                into = target[rows : rows + inside.height, columns : columns + inside.width]
                into[:] = self._slide.read_level(level, inside)
        return targets

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`: of the whole slide's tiles, which are not this one's."""
        return self._slide.tile_bytes(level)

    def direct(self, level: int) -> bool:
        """See `Slide.direct`."""
        return False


def _part_of(level: Raster, part: Box) -> Raster:
    x, y = level.to_level0((part.x, part.y)).tolist()
    return Raster(x, y, level.scale_x, level.scale_y, part.width, part.height)
