"""Render any `Raster` of a slide at its exact physical size, and count what that reads.

A thumbnail and a patch are the same request at different scales: the coarsest level that is fine enough is read and
resampled by area onto the raster's own pixels. What lies outside the slide is background.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box, Raster, choose_level
from stages.slide.area_means import Weights, area_weights, resample, round_into
from stages.slide.protocol import Slide
from stages.slide.reduced import choose_scale, read_reduced, reduced_raster

BLOCK_SIDE = 1024
"""Level pixels along a side of the blocks that a large raster is read by: 25 MB each while they are averaged."""


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
    """Where a raster's pixels come from: a level, as it is or reduced, and the raster's position in its pixels."""

    level: int
    scale: int
    """How many times smaller the level's tiles are decoded; 1 is in full."""
    grid: Raster
    """The pixels that are read: the level's, or those of its reduced tiles."""
    place: Raster
    """The raster in the grid's pixels."""
    box: Box
    """Whole pixels of the grid that the raster touches; may reach outside of it."""

    def tile(self, slide: Slide) -> tuple[int, int]:
        """(width, height) of the level's tiles as they are decoded."""
        width, height = slide.facts.tile_sizes[self.level]
        return width // self.scale, height // self.scale

    def same_grid(self) -> bool:
        """Whether the raster's pixels are the grid's own."""
        place, box = self.place, self.box
        off = (place.x - box.x, place.y - box.y, place.scale_x - 1, place.scale_y - 1)
        return max(map(abs, off)) < 1e-6 and (box.height, box.width) == place.shape

    def weights(self) -> tuple[Weights, Weights]:
        """What the box's pixels add to the raster's, along its rows and its columns."""
        place, box = self.place, self.box
        down = area_weights(place.y - box.y, place.scale_y, place.height, box.height)
        return down, area_weights(place.x - box.x, place.scale_x, place.width, box.width)


def _sources(slide: Slide, rasters: Sequence[Raster], quick: bool = False) -> list[_Source]:
    """The source of each of some rasters of one scale."""
    levels = slide.facts.levels
    index = choose_level(levels, rasters[0])
    scale = choose_scale(slide, index, rasters[0], quick=quick)
    grid = reduced_raster(levels[index], scale) if scale > 1 else levels[index]
    sources = []
    for raster in rasters:
        place = raster.within(grid)
        left, top, right, bottom = place.extent_level0
        # 1e-6: an edge that rounding puts a hair past a pixel's border does not touch that pixel
        x, y = math.floor(left + 1e-6), math.floor(top + 1e-6)
        box = Box(x, y, max(1, math.ceil(right - 1e-6) - x), max(1, math.ceil(bottom - 1e-6) - y))
        sources.append(_Source(index, scale, grid, place, box))
    return sources


def render(slide: Slide, raster: Raster, *, quick: bool = False) -> NDArray[np.uint8]:
    """RGB (height, width, 3) of the slide on the raster's own pixels, averaged by area.

    Memory is that of the result plus one block of the source and a band of the result, whatever the slide's size; every
    tile of the source is read once.

    Args:
        slide, raster: what is rendered.
        quick: for eyes alone: tiles are decoded smaller wherever that can be; see `choose_scale`.

    Raises:
        ResolutionError: the raster is finer than the slide.
        SlideError: the slide cannot be read there.
    """
    pixels = np.empty((*raster.shape, 3), np.uint8)
    render_into(slide, [raster], [pixels], quick=quick)
    return pixels


def render_many(slide: Slide, rasters: Sequence[Raster]) -> NDArray[np.uint8]:
    """RGB (N, height, width, 3) of rasters of one shape and scale, each as `render` gives it; see `render_into`."""
    out = np.empty((len(rasters), *rasters[0].shape, 3), np.uint8)
    render_into(slide, rasters, list(out))
    return out


def render_into(
    slide: Slide, rasters: Sequence[Raster], out: Sequence[NDArray[np.uint8]], *, quick: bool = False
) -> None:
    """Fill ``out``, a (height, width, 3) for each of some rasters of one shape and scale, which are read together.

    Every tile is read once where a raster's `source_pixels` are at most ``BLOCK_SIDE**2``; memory is then that of the
    sources. Larger rasters are read one after the other. ``quick``: see `render`.

    Raises:
        ResolutionError: the rasters are finer than the slide.
        SlideError: the slide cannot be read there; caused by `DamagedTilesError` where it is known which tiles.
    """
    sources = _sources(slide, rasters, quick)
    boxes = [source.box for source in sources]
    if all(source.same_grid() for source in sources):
        _read_padded(slide, sources[0], boxes, out)
    elif max(box.area for box in boxes) <= BLOCK_SIDE**2:
        height, width = max(box.height for box in boxes), max(box.width for box in boxes)
        memory = np.empty((len(rasters), height, width, 3), np.uint8)
        parts = [m[: box.height, : box.width] for m, box in zip(memory, boxes, strict=True)]
        _read_padded(slide, sources[0], boxes, parts)
        for source, part, pixels in zip(sources, parts, out, strict=True):
            round_into(resample(part, *source.weights()), pixels)
    else:
        for source, pixels in zip(sources, out, strict=True):
            _render_large(slide, source, pixels)


def source_pixels(slide: Slide, raster: Raster) -> int:
    """Pixels of the slide's level that a raster is made of."""
    return _sources(slide, [raster])[0].box.area


def _render_large(slide: Slide, source: _Source, out: NDArray[np.uint8]) -> None:
    """Fill ``out`` (height, width, 3) block by block of the source."""
    box, columns_out = source.box, source.place.width
    width, height = _block_size(source.tile(slide))
    # averaging takes eight times a block's memory: of a huge tile some lines at a time
    lines = height if width * height <= BLOCK_SIDE**2 else max(1, BLOCK_SIDE**2 // width)
    rows_weights, columns_weights = source.weights()
    columns = list(_bands(columns_weights, box.x, width))
    begun = np.zeros((0, columns_out, 3))  # rows that a band began and the next one ends
    for down in _bands(rows_weights, box.y, height):
        rows = np.zeros((down.weights.shape[0], columns_out, 3))
        rows[: len(begun)] = begun
        for across in columns:
            part = Box(across.start, down.start, across.weights.shape[1], down.weights.shape[1])
            pixels = np.empty((part.height, part.width, 3), np.uint8)
            _read_padded(slide, source, [part], [pixels])
            columns_touched = slice(across.first, across.first + across.weights.shape[0])
            for some in _bands(down.weights, down.start, lines):
                strip = pixels[some.start - down.start :][: some.weights.shape[1]]
                touched = rows[some.first : some.first + some.weights.shape[0], columns_touched]
                touched += resample(strip, some.weights, across.weights)
        done = down.ended - down.first
        out[down.first : down.ended] = np.rint(rows[:done])
        begun = rows[done:]


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
    weights: Weights


def _block_size(tile: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the blocks that a level is read by: whole tiles, so that none is decoded twice."""
    width = max(1, BLOCK_SIDE // tile[0]) * tile[0]
    height = max(1, BLOCK_SIDE**2 // width // tile[1]) * tile[1]
    return width, height


def _bands(weights: Weights, start: int, side: int) -> Iterator[_Band]:
    """Cut `area_weights` of the level pixels from ``start`` on at the multiples of ``side``."""
    (outputs, inputs), matrix = weights.shape, weights.matrix
    low, high = matrix.indices[matrix.indptr[:-1]], matrix.indices[matrix.indptr[1:] - 1]  # each output's span
    begin = 0
    while begin < inputs:
        end = min(inputs, ((start + begin) // side + 1) * side - start)
        first, last = int(np.searchsorted(high, begin)), int(np.searchsorted(low, end))
        ended = outputs if end == inputs else int(np.searchsorted(high, end))
        if last > first:
            factor = weights.factor if weights.factor and not (begin % weights.factor or end % weights.factor) else 0
            yield _Band(start + begin, first, ended, Weights(matrix[first:last, begin:end], factor))
        begin = end


def _read_padded(slide: Slide, source: _Source, boxes: Sequence[Box], out: Sequence[NDArray[np.uint8]]) -> None:
    """Fill ``out`` with boxes of the source's grid; what lies outside it is background."""
    whole = Box(0, 0, source.grid.width, source.grid.height)
    parts, targets = [], []
    for box, pixels in zip(boxes, out, strict=True):
        part = box.intersect(whole)
        if part != box:
            pixels[:] = slide.facts.background
        if part.area:
            x, y = part.x - box.x, part.y - box.y
            parts.append(part)
            targets.append(pixels if part == box else pixels[y : y + part.height, x : x + part.width])
    if source.scale == 1:
        slide.read_boxes(source.level, parts, out=targets)
        return
    for part, target in zip(parts, targets, strict=True):
        target[:] = read_reduced(slide, source.level, source.scale, part)


def count_reads(slide: Slide, rasters: Sequence[Raster]) -> ReadCount:
    """What rendering rasters of one scale together costs: a tile that several of them touch is read, and counted, once.

    Computed from the slide's tile layout, so it holds wherever the reading happens.
    """
    if not rasters:
        return ReadCount()
    sources = _sources(slide, rasters)
    touched: set[tuple[int, int]] = set()
    level, grid, (width, height) = sources[0].level, sources[0].grid, sources[0].tile(slide)
    for source in sources:
        inside = source.box.intersect(Box(0, 0, grid.width, grid.height))
        if inside.area:
            rows = range(inside.y // height, (inside.y + inside.height - 1) // height + 1)
            columns = range(inside.x // width, (inside.x + inside.width - 1) // width + 1)
            touched.update(product(rows, columns))
    if not touched:
        return ReadCount()
    at = np.array(sorted(touched))
    stored = int(slide.tile_bytes(level)[at[:, 0], at[:, 1]].sum())
    return ReadCount(stored, len(at), len(at) * math.prod(slide.facts.tile_sizes[level]))
