"""A slide's map that somebody else made, in whichever form, as it lies on the slide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box, Mpp, Raster
from stages.given_map import SUFFIXES, by_mpp, edge_to_edge, in_cells, read_map, stated_mpp
from stages.given_places import SUFFIXES as PLACES
from stages.given_places import Places, places_on_cells, read_places
from stages.slide.facts import SlideFacts

MAPS = (*SUFFIXES, *PLACES)
"""How the names of files end that hold a slide's map."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What of a slide says where a map lies on it.

    Attributes:
        level0: its width and height in level-0 pixels.
        bounds: the scanned part, level-0 pixels.
        origin: level-0 point that QuPath counts from.
        mpp: µm per level-0 pixel; None where nobody says.
    """

    level0: tuple[int, int]
    bounds: Box
    origin: tuple[int, int]
    mpp: Mpp | None

    @classmethod
    def of(cls, facts: SlideFacts) -> Ground:
        """Of a slide that is opened."""
        return cls((facts.levels[0].width, facts.levels[0].height), facts.bounds, facts.origin, facts.mpp)


@dataclass(frozen=True, slots=True, eq=False)
class GivenMap:
    """Values on a slide, none negative.

    Attributes:
        level0: width and height of the slide in level-0 pixels.
        values: (H, W), each constant in a pixel of ``raster``; or places with a value each.
        raster: where pixels lie; None: these are places.
    """

    level0: tuple[int, int]
    values: NDArray[np.float64] | Places
    raster: Raster | None

    def on(self, cells: Raster) -> NDArray[np.float64]:
        """How much of it lies in each cell, (rows, columns): value times area, in some unit.

        Raises:
            MapError: it reaches beyond the slide.
        """
        if isinstance(self.values, Places):
            return places_on_cells(self.values, level0=self.level0, cells=cells)
        assert self.raster is not None, "pixels lie somewhere"
        return in_cells(self.values, self.raster, cells)

    def drawn(self, most: int) -> tuple[NDArray[np.float64], Raster]:
        """Its values as pixels, at most so many along a side, and where these lie: its own, or means of them; places on
        half as many, for they are drawn finer still.

        Raises:
            MapError: it reaches beyond the slide.
        """
        if self.raster is not None and max(self.raster.shape) <= most:
            assert not isinstance(self.values, Places), "places have no raster"
            return self.values, self.raster
        scale = max(1.0, max(self.level0) / (most if self.raster is not None else most / 2))
        width, height = (math.ceil(round(side / scale, 6)) for side in self.level0)
        pixels = Raster(0, 0, scale, scale, width, height)
        of_each = 1.0 if self.raster is None else self.raster.scale_x * self.raster.scale_y / scale**2
        return self.on(pixels) * of_each, pixels


def read_given(path: Path, ground: Ground, *, measurement: str = "") -> GivenMap:
    """The map of a slide in a file; which forms there are, `stages.given_map` and `stages.given_places` say.

    Args:
        path: one of `MAPS`.
        ground: of the slide.
        measurement: of QuPath's objects; "": their only one.

    Raises:
        MapError: it cannot be read, or is not this slide's.
    """
    level0 = ground.level0
    if path.name.endswith(PLACES):
        return GivenMap(level0, read_places(path, measurement=measurement, origin=ground.origin), None)
    values, stated = read_map(path), stated_mpp(path)
    if stated is None or ground.mpp is None:
        return GivenMap(level0, values, edge_to_edge(values.shape, level0=level0))
    raster = by_mpp(values.shape, stated, level0=level0, bounds=ground.bounds, mpp=ground.mpp)
    return GivenMap(level0, values, raster)
