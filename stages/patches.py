"""From sampled cells to high-resolution patches, read lazily by dask.

Patches are read in blocks, one dask task each. A block's patches are neighbours on the slide and are read together, so
that no compressed tile is decoded twice for one block.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from dask.base import DaskMethodsMixin
from dask.highlevelgraph import HighLevelGraph
from dask.threaded import get as on_threads  # by its name dask would import distributed to find it
from dask.tokenize import tokenize
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Raster, choose_level, patch_rasters, tile_step
from stages.sampling.walk import hilbert_position
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.render import ReadCount, count_reads, render_into, source_pixels
from stages.slide.tiles import DamagedTilesError

if TYPE_CHECKING:
    import dask.array as da

BLOCK = 32
"""Patches per dask task, at most: the graph grows with their number, not with the slide."""

BLOCK_PIXELS = 2**24
"""Level pixels that a block's patches are made of, at most: 50 MB for each task at work."""


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
        snap: whether patches are moved onto the grid of the slide's own tiles (`tile_step`), by half a tile at most and
            not past the bounds. A patch then takes one tile to decode where it would take four. The price is a bias:
            attention is on the cell, the pixels are up to half a tile off; where cells are no multiple of the tiles,
            some tissue is seen in two cells and some in none. `boxes_level0` tells what is read.
        block: patches of a dask task, at most.
    """

    slide: Slide
    cells: Raster
    patch_px: int
    patch_mpp: float
    inside: bool = True
    snap: bool = False
    block: int = BLOCK
    features: ClassVar[None] = None
    """None that are known without encoding."""

    def rasters(self, cells: ArrayLike) -> list[Raster]:
        """The patch of each cell (row-major indices, (N,)): centred on the cell, but for ``inside`` and ``snap``."""
        centres = self.cells.centres_level0(cells)
        facts = self.slide.facts
        mpp, bounds = facts.require_mpp(), facts.bounds if self.inside else None
        step = self._level_and_step()[1] if self.snap else (1, 1)
        return patch_rasters(centres, mpp, self.patch_px, self.patch_mpp, bounds=bounds, step=step)

    @property
    def place(self) -> tuple[float, ...]:
        """What decides, beside size and resolution of a patch, which pixels of the slide a cell's index stands for.

        The cells' raster, the µm/px of level 0, the level that is read, and what ``inside`` and ``snap`` go by.
        """
        facts, grid = self.slide.facts, self.cells
        mpp, bounds = facts.require_mpp(), facts.bounds
        level, step = self._level_and_step()
        return (
            *(grid.x, grid.y, grid.scale_x, grid.scale_y, grid.width, grid.height),
            *(mpp.x, mpp.y, level.scale_x, level.scale_y),
            *((bounds.x, bounds.y, bounds.width, bounds.height) if self.inside else (-1, -1, -1, -1)),
            *(step if self.snap else (1, 1)),
        )

    def _level_and_step(self) -> tuple[Raster, tuple[int, int]]:
        facts = self.slide.facts
        mpp = facts.require_mpp()
        patch = Raster(0, 0, self.patch_mpp / mpp.x, self.patch_mpp / mpp.y, self.patch_px, self.patch_px)
        level = choose_level(facts.levels, patch)
        return facts.levels[level], tile_step(facts.levels[level], facts.tile_sizes[level], patch)

    def boxes_level0(self, cells: ArrayLike) -> NDArray[np.float64]:
        """(x, y, width, height) of each cell's patch in level-0 pixels, (N, 4); x and y are whole."""
        rows = [(r.x, r.y, r.scale_x * r.width, r.scale_y * r.height) for r in self.rasters(cells)]
        return np.array(rows, np.float64).reshape(-1, 4)

    def patches(self, cells: ArrayLike) -> da.Array:
        """`lazily`, as an array of dask: one chunk."""
        import dask.array as da  # brings xarray and pandas along where they are: a second

        found = self.lazily(cells)
        graph, name, chunks = found.graph, found.key[0], tuple((side,) for side in found.shape)
        return da.Array(graph, name, chunks, dtype=np.uint8)

    def lazily(self, cells: ArrayLike) -> LazyPatches:
        """Lazy RGB patches (N, patch_px, patch_px, 3) uint8 of the cells, in their order.

        Nothing is read until it is computed; then each block is one task on any dask scheduler, and puts its patches
        where they belong in the memory of the whole: who wants less memory asks for fewer cells. Blocks are cut from
        the cells in the order of a Hilbert curve. Computing raises `SlideError` where the slide cannot be read; it
        says how many patches of a block are lost, and by which tiles.
        """
        size, rasters = self.patch_px, self.rasters(cells)
        shape = (len(rasters), size, size, 3)
        corners = np.array([(r.x, r.y) for r in rasters], np.int64).reshape(-1, 2)
        scale = (rasters[0].scale_x, rasters[0].scale_y) if rasters else (1.0, 1.0)
        blocks = self.blocks(cells)
        name = f"patches-{tokenize(self.slide, corners, scale, size, blocks)}"
        tasks: dict[Any, Any] = {(memory := f"memory-{name}"): (_Memory, shape)}
        for number, places in enumerate(blocks):
            tasks[f"block-{name}", number] = (_read_block, memory, places, self.slide, corners[places], scale)
        tasks[key := (name, 0, 0, 0, 0)] = (_together, memory, [key for key in tasks if key != memory])
        return LazyPatches(HighLevelGraph.from_collections(name, tasks), key, shape)

    def count(self, cells: ArrayLike) -> ReadCount:
        """What reading these cells' patches costs: a tile counts once for every block that touches it."""
        rasters = self.rasters(cells)
        parts = ([rasters[i] for i in block] for block in self.blocks(cells))
        return sum((count_reads(self.slide, part) for part in parts), ReadCount())

    def blocks(self, cells: ArrayLike) -> list[NDArray[np.int64]]:
        """Which of the cells are read together: their places in ``cells``, block by block as they are read."""
        rows, columns = self.cells.shape
        order = np.argsort(hilbert_position(rows, columns, cells), kind="stable")
        if not len(order):
            return []
        (raster,) = self.rasters(np.asarray(cells)[:1])
        block = max(1, min(self.block, BLOCK_PIXELS // source_pixels(self.slide, raster)))
        return [order[begin : begin + block] for begin in range(0, len(order), block)]


class LazyPatches(DaskMethodsMixin):
    """Patches that dask reads when they are computed, or asked for as an array of numpy, and then on threads.

    As little of dask as that takes: importing its arrays would take longer than a slide does.

    Attributes:
        graph, key: what is to be done, and what of it these are.
        shape: (N, patch_px, patch_px, 3).
    """

    __dask_scheduler__ = staticmethod(on_threads)

    def __init__(self, graph: HighLevelGraph, key: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        self.graph, self.key, self.shape = graph, key, shape

    @property
    def nbytes(self) -> int:
        """Bytes that they take once they are read."""
        return math.prod(self.shape)

    def then(self, act: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> LazyPatches:
        """What an act, which is done after them, makes of them: as many patches."""
        key, before = (f"then-{os.urandom(16).hex()}", *self.key[1:]), cast(Any, [self])
        return LazyPatches(HighLevelGraph.from_collections(key[0], {key: (act, self.key)}, before), key, self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.compute(), dtype)  # type: ignore[no-untyped-call]

    def __dask_graph__(self) -> HighLevelGraph:
        return self.graph

    @staticmethod
    def __dask_optimize__(graph: HighLevelGraph, keys: Any, **options: Any) -> HighLevelGraph:
        return graph

    def __dask_keys__(self) -> list[tuple[Any, ...]]:
        return [self.key]

    def __dask_layers__(self) -> tuple[str]:
        return (self.key[0],)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return self.key

    def __dask_postcompute__(self) -> tuple[Callable[[list[Any]], Any], tuple[()]]:
        return itemgetter(0), ()

    def __dask_postpersist__(self) -> tuple[Callable[..., LazyPatches], tuple[Any, ...]]:
        return LazyPatches, (self.key, self.shape)


class _Memory:
    """Where the patches of one computation go. It is not shipped: another process puts its part into memory there."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.pixels = np.empty(shape, np.uint8)

    def __reduce__(self) -> tuple[type[_Memory], tuple[tuple[int, ...]]]:
        return _Memory, (self.pixels.shape,)


Block = list[tuple[int, NDArray[np.uint8]]]
"""Patches that were read together, and the place of each."""


def _read_block(
    memory: _Memory, places: NDArray[np.int64], slide: Slide, corners: NDArray[np.int64], scale: tuple[float, float]
) -> Block:
    """Patches at level-0 ``corners`` (n, 2), each a part of the memory."""
    size, out = memory.pixels.shape[1], [memory.pixels[place] for place in places]
    try:
        render_into(slide, [Raster(float(x), float(y), *scale, size, size) for x, y in corners], out)
    except SlideError as exc:
        damaged, lost = exc.__cause__, ""
        if isinstance(damaged, DamagedTilesError):
            lost = f"{len(damaged.boxes)} of {len(corners)} patches are lost: "
        raise SlideError(f"{slide.facts.path}: {lost}{exc}") from exc
    return list(zip(places.tolist(), out, strict=True))


def _together(memory: _Memory, blocks: list[Block]) -> NDArray[np.uint8]:
    """All patches: most are there, only what another process read is copied."""
    for place, patch in (found for block in blocks for found in block):
        if patch.base is not memory.pixels:
            memory.pixels[place] = patch
    return memory.pixels
