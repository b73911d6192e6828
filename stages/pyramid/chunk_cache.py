"""The chunk cache, for slides that are slow to read: what was read once comes from a folder the next time.

For training, which reads the same slides epoch after epoch, in formats whose tiles only OpenSlide can decode. Each
chunk of a level is a file of its own, its pixels as LZ4, in a `FileCache`: at worst two processes read the same chunk
from the slide.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from stages.file_cache import FileCache
from stages.geometry import Box
from stages.place import Url
from stages.pyramid.ahead import Ahead
from stages.pyramid.layout import level_layouts
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.tiles import TileGrid

FORMAT = 1
"""Version of what lies in the folder; files of another one are never read."""


class ChunkCache(FileCache):
    """A `FileCache` of chunks, by the slide's content, level and place.

    Use `chunk_cache`, which keeps one for each folder and process.

    Args:
        folder, limit: as of `FileCache`.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        names = r"[^/]+/\d+/\d[^/]*"
        super().__init__(folder, limit, inner=f"saccade-chunks-{FORMAT}", names=names, title="read cache")

    def __reduce__(self) -> tuple[Callable[[Path, int], ChunkCache], tuple[Path, int]]:
        return chunk_cache, (self.folder, self.limit)


@functools.cache
def chunk_cache(folder: Path, limit: int) -> ChunkCache:
    """This process's `ChunkCache` of a folder and limit in bytes."""
    return ChunkCache(folder, limit)


class CachedTiles(TileGrid):
    """One level as a grid of chunks that come from the cache, or else from the slide and are then kept.

    Args:
        slide, level: where the pixels are.
        chunk: (height, width) in the level's pixels.
        cache: what is kept of them.
    """

    def __init__(self, slide: Slide, level: int, chunk: tuple[int, int], cache: ChunkCache) -> None:
        self._slide, self._level, self._cache = slide, level, cache
        self._ahead = Ahead(self._stored) if isinstance(slide.facts.path, Url) else None
        raster = slide.facts.levels[level]
        self.size, self.tile = (raster.width, raster.height), (chunk[1], chunk[0])
        # how long they are shows only when they are made; none is blank
        self.byte_counts = np.broadcast_to(np.int64(1), (-(-raster.height // chunk[0]), -(-raster.width // chunk[1])))

    def coming(self, tiles: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        """As `TileGrid.coming`."""
        return tiles if self._ahead is None else self._ahead.through(tiles)

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`; raises `SlideError` where the slide cannot be read."""
        return self._stored(row, column) if self._ahead is None else self._ahead.take(row, column)

    def _stored(self, row: int, column: int) -> bytes:
        box = self.box(row, column)
        place = f"{row}_{column}_{box.height}x{box.width}"  # chunks of another size are other chunks
        name = f"{self._slide.facts.content}/{self._level}/{place}"
        payload = self._cache.read(name)
        if payload is None:
            pixels = self._slide.read_level(self._level, box)
            # zstd saves a tenth on stained tissue and takes several times as long to unpack
            payload = bytes(imagecodecs.lz4_encode(pixels.tobytes()))
            self._cache.write(name, payload)
        return payload

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        box = self.box(row, column)
        shape = (box.height, box.width, 3)
        pixels = into if into is not None and into.shape == shape else np.empty(shape, np.uint8)
        imagecodecs.lz4_decode(data, out=pixels.reshape(-1).data)
        return pixels


class CachedSlide(Slide):
    """A slide whose slow levels are read through a `ChunkCache`; pixel for pixel the slide.

    Levels that are read from the slide's own tiles on a disk are left alone: nothing is faster.

    Args:
        slide: what is read.
        cache: what is kept of it.
    """

    def __init__(self, slide: Slide, cache: ChunkCache) -> None:
        self.facts = slide.facts
        self._slide, self._cache = slide, cache
        layouts = level_layouts(slide.facts.path, slide.facts)
        self._chunks = [CachedTiles(slide, level, layout.chunk, cache) for level, layout in enumerate(layouts)]

    def __reduce__(self) -> tuple[type[CachedSlide], tuple[Slide, ChunkCache]]:
        return CachedSlide, (self._slide, self._cache)

    def read_boxes(
        self, level: int, boxes: Sequence[Box], *, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """See `Slide.read_boxes`."""
        if self._slow(level):
            # what cannot be read may lie beside what was asked for: then the slide's own answer counts
            with contextlib.suppress(SlideError):
                return self._chunks[level].read_many(boxes, out=out)
        return self._slide.read_boxes(level, boxes, out=out)

    def tile_bytes(self, level: int) -> NDArray[np.int64]:
        """See `Slide.tile_bytes`: of the slide's own tiles, cached or not."""
        return self._slide.tile_bytes(level)

    def tiles(self, level: int) -> TileGrid | None:
        """See `Slide.tiles`."""
        return None if self._slow(level) else self._slide.tiles(level)

    def _slow(self, level: int) -> bool:
        """Whether reading it costs more than from the cache: tiles that OpenSlide decodes, or a store sends."""
        return not self.direct(level) or isinstance(self.facts.path, Url)

    def direct(self, level: int) -> bool:
        """See `Slide.direct`."""
        return self._slide.direct(level)
