"""Where things of a slide lie on the screen, and which part of it is a tile.

The screen's coordinates are ``(u, v) = (fx x, -fy y)`` of level-0 pixels (x, y): v grows upwards, as plots have it, so
that the picture's y runs down. Where a slide's pixels are square, as nearly all are, ``fx = fy = 1`` and a unit is a
level-0 pixel; else the longer side of a pixel is the unit, so that nothing is shown finer than the slide has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stages.geometry import Mpp, Raster
from stages.slide.facts import SlideFacts

SIDE = 512
"""Pixels along a side of a tile, where the slide's own tiles suggest none."""
OWN_SIDES = range(200, 1025, 2)
"""Sides of a slide's own tiles that the screen's may have: of smaller ones a screen would ask for hundreds."""
SQUARE = 1e-3
"""How much a pixel's sides may differ, as a share, and count as alike: scanners' own differences stay below that."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame of one slide.

    Attributes:
        width, height: of the slide, level-0 pixels.
        fx, fy: units of the screen that a level-0 pixel is wide and high, 1 at most.
        side: pixels along a side of a tile.
    """

    width: int
    height: int
    fx: float = 1.0
    fy: float = 1.0
    side: int = SIDE

    @classmethod
    def of(cls, width: int, height: int, mpp: Mpp | None, tile: tuple[int, int] = (SIDE, SIDE)) -> Frame:
        """The frame of a slide.

        Args:
            width, height: level-0 pixels.
            mpp: µm of one; None where nobody knows.
            tile: (width, height) of the slide's own tiles, which the screen's then are, where that is sensible: many of
                them need nothing but to be read.
        """
        side = tile[0] if tile[0] == tile[1] and tile[0] in OWN_SIDES else SIDE
        if mpp is None or math.isclose(mpp.x, mpp.y, rel_tol=SQUARE):
            return cls(width, height, side=side)
        unit = max(mpp.x, mpp.y)
        return cls(width, height, mpp.x / unit, mpp.y / unit, side)

    @classmethod
    def of_slide(cls, facts: SlideFacts) -> Frame:
        """The frame that a slide's tiles are shown in."""
        level = facts.levels[0]
        return cls.of(level.width, level.height, facts.mpp, facts.tile_sizes[0])

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) of the slide in units of the screen."""
        return self.width * self.fx, self.height * self.fy

    @property
    def top(self) -> int:
        """The zoom whose tiles have a unit of the screen a pixel; at zoom 0 one tile holds all of the slide."""
        return max(0, math.ceil(math.log2(max(self.size) / self.side)))

    def tile(self, zoom: int, column: int, row: int) -> Raster | None:
        """The raster of a tile, counted from the upper left corner; None where it holds nothing of the slide."""
        if not 0 <= zoom <= self.top or column < 0 or row < 0:
            return None
        scale = float(2 ** (self.top - zoom))
        left, upper = column * self.side * scale, row * self.side * scale
        if left >= self.size[0] or upper >= self.size[1]:
            return None
        return Raster(left / self.fx, upper / self.fy, scale / self.fx, scale / self.fy, self.side, self.side)

    def extent(self, raster: Raster) -> tuple[float, float, float, float]:
        """(left, lower, right, upper) of a raster, in units of the screen."""
        left, upper, right, lower = raster.extent_level0
        return left * self.fx, -lower * self.fy, right * self.fx, -upper * self.fy
