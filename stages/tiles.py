"""The slide's own compressed tiles, decoded directly.

OpenSlide's cost is compositing, not decoding, and off whole downsamples it interpolates between pixels. A plain tiled
TIFF needs neither: its level *is* a grid of tiles. `find_level_tiles` finds those levels; whoever uses them compares
some tiles with OpenSlide first (`stages.slides` does) and falls back on any difference.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from stages.geometry import Box

# Only where a tile is simply the level's pixels; JPEG 2000 is as fast through OpenSlide.
_CODECS = {
    tifffile.COMPRESSION.NONE,
    tifffile.COMPRESSION.LZW,
    tifffile.COMPRESSION.JPEG,
    tifffile.COMPRESSION.ADOBE_DEFLATE,
    tifffile.COMPRESSION.DEFLATE,
}


class LevelTiles:
    """One level of a tiled TIFF as a grid of tiles read by offset; safe to use from several threads.

    Attributes:
        byte_counts: compressed bytes of each tile, (tile rows, tile columns); 0 is a blank tile.
    """

    def __init__(self, path: Path, page: tifffile.TiffPage) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._path = path
        self._size = (page.imagewidth, page.imagelength)
        self._tile = (page.tilewidth, page.tilelength)
        self._decode: Callable[..., Any] = page.decode
        self._tables: bytes | None = page.jpegtables
        shape = (-(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth))
        self._offsets = np.array(page.dataoffsets, np.int64).reshape(shape)
        self.byte_counts: NDArray[np.int64] = np.array(page.databytecounts, np.int64).reshape(shape)

    def __del__(self) -> None:
        if self._fd is not None:
            os.close(self._fd)

    def box(self, row: int, column: int) -> Box:
        """The tile's part of the level, in the level's pixels."""
        width, height = self._tile
        return Box(column * width, row * height, width, height).intersect(Box(0, 0, *self._size))

    def read(self, box: Box, *, blank: tuple[int, int, int] = (255, 255, 255)) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of ``box``, in the level's pixels; blank tiles are filled with ``blank``.

        Raises:
            OSError, ValueError: a tile cannot be read or does not decode.
        """
        out = np.empty((box.height, box.width, 3), np.uint8)
        width, height = self._tile
        for row in range(box.y // height, (box.y + box.height - 1) // height + 1):
            for column in range(box.x // width, (box.x + box.width - 1) // width + 1):
                tile = self.box(row, column)
                part = tile.intersect(box)
                target = out[part.y - box.y :, part.x - box.x :][: part.height, : part.width]
                pixels = self._tile_pixels(row, column)
                if pixels is None:
                    target[:] = blank
                else:
                    target[:] = pixels[part.y - tile.y :, part.x - tile.x :][: part.height, : part.width]
        return out

    def _tile_pixels(self, row: int, column: int) -> NDArray[np.uint8] | None:
        size, offset = int(self.byte_counts[row, column]), int(self._offsets[row, column])
        if size == 0:
            return None
        data = os.pread(self._descriptor(), size, offset)
        if len(data) != size:
            raise ValueError(f"tile ({row}, {column}) ends after {len(data)} of {size} bytes: the file is truncated")
        index = row * self.byte_counts.shape[1] + column
        tables = {"jpegtables": self._tables} if self._tables is not None else {}
        try:
            segment, _, _ = self._decode(data, index, **tables)
        except Exception as exc:  # codecs raise their own types; to the caller it is one thing: damage
            raise ValueError(f"tile ({row}, {column}) does not decode: {exc}") from exc
        box = self.box(row, column)
        pixels: NDArray[np.uint8] = segment[0]
        if pixels.shape[0] < box.height or pixels.shape[1] < box.width or pixels.shape[2] != 3:
            raise ValueError(f"tile ({row}, {column}) is {pixels.shape}, expected {box.height} x {box.width} x 3")
        return pixels

    def _descriptor(self) -> int:
        with self._lock:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            return self._fd


def find_level_tiles(path: Path, sizes: Sequence[tuple[int, int]]) -> list[LevelTiles | None]:
    """The tile grid of each level of ``sizes`` (width, height), or None where the file has no plain grid of that size.

    A level that two pages could be (focus planes, say) has none: guessing would show the wrong one.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in _all_pages(tiff) if _is_plain(page)]
            grids: list[LevelTiles | None] = []
            for size in sizes:
                same = [page for page in pages if (page.imagewidth, page.imagelength) == size]
                grids.append(LevelTiles(path, same[0]) if len(same) == 1 else None)
            return grids
    except Exception:  # not a TIFF, or one that tifffile cannot follow: OpenSlide reads it instead
        return [None] * len(sizes)


def _all_pages(tiff: tifffile.TiffFile) -> list[Any]:
    pages: list[Any] = []
    for page in tiff.pages:
        pages.append(page)
        pages.extend(page.pages or ())
    return [page.aspage() for page in pages]


def _is_plain(page: Any) -> bool:
    grid = -(-page.imagelength // page.tilelength) * -(-page.imagewidth // page.tilewidth) if page.is_tiled else 0
    return bool(
        page.is_tiled
        and page.imagedepth == 1
        and page.samplesperpixel == 3
        and page.bitspersample == 8
        and page.planarconfig == tifffile.PLANARCONFIG.CONTIG
        and page.compression in _CODECS
        and len(page.dataoffsets) == len(page.databytecounts) == grid
    )
