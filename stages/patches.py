"""From sampled cells to high-resolution patches, read lazily by dask."""

from __future__ import annotations

from dataclasses import dataclass

import dask.array as da
import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Raster, patch_rasters
from stages.rasters import ReadCount, count_reads, render
from stages.slides import Slide, SlideError

BLOCK = 32
"""Patches per dask task: the graph has ceil(N / BLOCK) tasks whatever the slide's size."""


@dataclass(frozen=True, slots=True)
class PatchReader:
    """Reads the patches that the cells of an attention map own. Pickles by path: ship it, not pixels.

    Attributes:
        slide: where the pixels are.
        cells: the attention map's raster.
        patch_px: side of a patch in its own pixels.
        patch_mpp: µm per pixel of a patch, exact.
        inside: whether a patch that would reach past the slide's edge is moved inside; otherwise it stays centred on
            its cell, and what lies outside reads as background.
    """

    slide: Slide
    cells: Raster
    patch_px: int
    patch_mpp: float
    inside: bool = True

    def rasters(self, cells: ArrayLike) -> list[Raster]:
        """The patch of each cell (row-major indices, (N,)), centred on the cell."""
        centres = self.cells.centres_level0(cells)
        facts = self.slide.facts
        bounds = facts.bounds if self.inside else None
        return patch_rasters(centres, facts.require_mpp(), self.patch_px, self.patch_mpp, bounds=bounds)

    def boxes_level0(self, cells: ArrayLike) -> NDArray[np.float64]:
        """(x, y, width, height) of each cell's patch in level-0 pixels, (N, 4); x and y are whole."""
        rows = [(r.x, r.y, r.scale_x * r.width, r.scale_y * r.height) for r in self.rasters(cells)]
        return np.array(rows, np.float64).reshape(-1, 4)

    def patches(self, cells: ArrayLike) -> da.Array:
        """Lazy RGB patches (N, patch_px, patch_px, 3) uint8 of the cells, in their order.

        Nothing is read until it is computed; then each block of `BLOCK` patches is one task on any dask scheduler.
        Computing raises `SlideError` where the slide cannot be read.
        """
        rasters = self.rasters(cells)
        size = self.patch_px
        if not rasters:
            empty: da.Array = da.empty((0, size, size, 3), dtype=np.uint8)
            return empty
        corners = np.array([(r.x, r.y) for r in rasters], np.int64)
        coordinates = da.from_array(corners, chunks=(BLOCK, 2))
        patches: da.Array = coordinates.map_blocks(
            _read_block,
            slide=self.slide,
            scale=(rasters[0].scale_x, rasters[0].scale_y),
            size=size,
            drop_axis=1,
            new_axis=[1, 2, 3],
            chunks=(coordinates.chunks[0], (size,), (size,), (3,)),
            dtype=np.uint8,
            meta=np.empty((0, 0, 0, 0), np.uint8),
        )
        return patches

    def count(self, cells: ArrayLike) -> ReadCount:
        """What reading these cells' patches costs."""
        return count_reads(self.slide, self.rasters(cells))


def _read_block(corners: NDArray[np.int64], slide: Slide, scale: tuple[float, float], size: int) -> NDArray[np.uint8]:
    try:
        return np.stack([render(slide, Raster(float(x), float(y), *scale, size, size)) for x, y in corners])
    except SlideError as exc:
        raise SlideError(f"{slide.facts.path}: {exc}") from exc
