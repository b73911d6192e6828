"""Render any `Raster` of a slide at its exact physical size, and count what that reads.

A thumbnail and a patch are the same request at different scales: the coarsest level that is fine enough is read and
resampled by area onto the raster's own pixels. What lies outside the slide is background.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from stages.geometry import Box, Raster, choose_level
from stages.slides import Slide

BLOCK_SIDE = 1024
"""Level pixels along a side of the blocks that a large raster is read by: 25 MB each while they are averaged."""

_SHARES = 2.0**22
"""Weights are whole multiples of 1/this: pixels (8 bits) weighed along two axes then fit a float64's 53 bits, every sum
is exact, and the result cannot depend on how the work was cut into blocks."""


@dataclass(frozen=True, slots=True)
class ReadCount:
    """What a set of reads costs: compressed bytes, tiles and decoded pixels of the tiles that they touch."""

    bytes: int = 0
    tiles: int = 0
    pixels: int = 0

    def __add__(self, other: ReadCount) -> ReadCount:
        return ReadCount(self.bytes + other.bytes, self.tiles + other.tiles, self.pixels + other.pixels)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a raster's pixels come from: a level and the raster's position in that level's pixels."""

    level: int
    x: float
    y: float
    scale_x: float
    scale_y: float
    box: Box
    """Whole level pixels that the raster touches; may reach outside the level."""


def _source(slide: Slide, raster: Raster) -> _Source:
    levels = slide.facts.levels
    index = choose_level(levels, raster)
    level = levels[index]
    left, top, right, bottom = raster.extent_level0
    (x0, y0), (x1, y1) = level.from_level0([(left, top), (right, bottom)])
    # 1e-6: an edge that rounding puts a hair past a pixel's border does not touch that pixel
    x, y = int(np.floor(x0 + 1e-6)), int(np.floor(y0 + 1e-6))
    box = Box(x, y, max(1, int(np.ceil(x1 - 1e-6)) - x), max(1, int(np.ceil(y1 - 1e-6)) - y))
    return _Source(index, float(x0), float(y0), (x1 - x0) / raster.width, (y1 - y0) / raster.height, box)


def render(slide: Slide, raster: Raster) -> NDArray[np.uint8]:
    """RGB (height, width, 3) of the slide on the raster's own pixels, averaged by area.

    Memory is that of the result plus one block of the source and a band of the result, whatever the slide's size; every
    tile of the source is read once.

    Raises:
        ResolutionError: the raster is finer than the slide.
        SlideError: the slide cannot be read there.
    """
    source = _source(slide, raster)
    box, start = source.box, (source.x - source.box.x, source.y - source.box.y)
    same_grid = np.allclose((*start, source.scale_x, source.scale_y), (0, 0, 1, 1), rtol=0, atol=1e-6)
    if same_grid and (box.height, box.width) == raster.shape:
        return _read_padded(slide, source.level, box)
    width, height = _block_size(slide.facts.tile_sizes[source.level])
    columns = list(_bands(area_weights(start[0], source.scale_x, raster.width, box.width), box.x, width))
    out = np.empty((*raster.shape, 3), np.uint8)
    begun = np.zeros((0, raster.width, 3))  # rows that a band began and the next one ends
    for down in _bands(area_weights(start[1], source.scale_y, raster.height, box.height), box.y, height):
        rows = np.zeros((down.weights.shape[0], raster.width, 3))
        rows[: len(begun)] = begun
        for across in columns:
            part = Box(across.start, down.start, across.weights.shape[1], down.weights.shape[1])
            pixels = _read_padded(slide, source.level, part)
            rows[:, across.first : across.first + across.weights.shape[0]] += resample(
                pixels, down.weights, across.weights
            )
        done = down.ended - down.first
        out[down.first : down.ended] = np.rint(rows[:done])
        begun = rows[done:]
    return out


@dataclass(frozen=True, slots=True)
class _Band:
    """A run of level pixels along one axis and the output pixels that it contributes to.

    Attributes:
        start: the run's first pixel, in the level's pixels.
        first: the first output that it touches.
        ended: outputs before this one need nothing of the runs that follow.
        weights: (outputs touched, pixels of the run).
    """

    start: int
    first: int
    ended: int
    weights: sparse.csr_array


def _block_size(tile: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the blocks that a level is read by: whole tiles, so that none is decoded twice."""
    width = max(1, BLOCK_SIDE // tile[0]) * tile[0]
    height = max(1, BLOCK_SIDE**2 // width // tile[1]) * tile[1]
    return width, height


def _bands(weights: sparse.csr_array, start: int, side: int) -> Iterator[_Band]:
    """Cut `area_weights` of the level pixels from ``start`` on at the multiples of ``side``."""
    outputs, inputs = weights.shape
    low, high = weights.indices[weights.indptr[:-1]], weights.indices[weights.indptr[1:] - 1]  # each output's span
    begin = 0
    while begin < inputs:
        end = min(inputs, ((start + begin) // side + 1) * side - start)
        first, last = int(np.searchsorted(high, begin)), int(np.searchsorted(low, end))
        ended = outputs if end == inputs else int(np.searchsorted(high, end))
        if last > first:
            yield _Band(start + begin, first, ended, weights[first:last, begin:end])
        begin = end


def _read_padded(slide: Slide, level: int, box: Box) -> NDArray[np.uint8]:
    raster = slide.facts.levels[level]
    inside = box.intersect(Box(0, 0, raster.width, raster.height))
    if inside == box:
        return slide.read_level(level, box)
    out = np.empty((box.height, box.width, 3), np.uint8)
    out[:] = slide.facts.background
    if inside.area:
        x, y = inside.x - box.x, inside.y - box.y
        out[y : y + inside.height, x : x + inside.width] = slide.read_level(level, inside)
    return out


def area_weights(start: float, scale: float, outputs: int, inputs: int) -> sparse.csr_array:
    """Weights (outputs, inputs) that average a line of pixels by area: output ``i`` covers
    ``[start + i*scale, start + (i+1)*scale)`` and weighs input ``j`` by the share of it that ``[j, j+1)`` covers.

    Rows sum to exactly 1: the cumulative shares are rounded, not the weights.
    """
    low = start + scale * np.arange(outputs)[:, None]
    first = np.clip(np.floor(low), 0, inputs - 1)
    borders = first + np.arange(int(np.ceil(scale)) + 2)  # (outputs, borders of the inputs that one may touch)
    shares = np.rint(np.clip((borders - low) / scale, 0, 1) * _SHARES) / _SHARES
    shares[:, 0] = 0
    shares[borders >= inputs] = 1  # what rounding puts past an end belongs to the last input
    weights = np.diff(shares, axis=1)
    kept = weights > 0
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    return sparse.csr_array((weights[kept], borders[:, :-1][kept].astype(np.int64), indptr), shape=(outputs, inputs))


def resample(pixels: NDArray[np.uint8], down: sparse.csr_array, across: sparse.csr_array) -> NDArray[np.float64]:
    """Apply weights (h, H) along the rows and (w, W) along the columns of an RGB image (H, W, 3) -> (h, w, 3)."""
    (h, H), (w, W) = down.shape, across.shape
    rows = (down @ pixels.reshape(H, W * 3)).reshape(h, W, 3)
    columns = across @ rows.transpose(1, 0, 2).reshape(W, h * 3)
    values: NDArray[np.float64] = columns.reshape(w, h, 3).transpose(1, 0, 2)
    return values


def count_reads(slide: Slide, rasters: Iterable[Raster]) -> ReadCount:
    """What rendering the rasters costs: a tile that two of them touch is read, and counted, twice.

    Computed from the slide's tile layout, so it holds wherever the reading happens.
    """
    total = ReadCount()
    for raster in rasters:
        source = _source(slide, raster)
        level = slide.facts.levels[source.level]
        inside = source.box.intersect(Box(0, 0, level.width, level.height))
        if not inside.area:
            continue
        width, height = slide.facts.tile_sizes[source.level]
        rows = slice(inside.y // height, (inside.y + inside.height - 1) // height + 1)
        columns = slice(inside.x // width, (inside.x + inside.width - 1) // width + 1)
        touched = slide.tile_bytes(source.level)[rows, columns]
        total += ReadCount(int(touched.sum()), touched.size, touched.size * width * height)
    return total
