"""The slide's own compressed tiles, where its file is a plain tiled TIFF.

OpenSlide's cost is compositing, not decoding, and off whole downsamples it interpolates between pixels. A plain tiled
TIFF needs neither: its level *is* a grid of tiles. `find_level_tiles` finds those levels; whoever uses them compares
some tiles with OpenSlide first (`stages.slide.files` does) and falls back on any difference.
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

from stages.disk import open_to_read, read_at
from stages.slide import jpeg
from stages.slide.tiles import TileGrid

# Only where a tile is simply the level's pixels; JPEG 2000 is as fast through OpenSlide.
_CODECS = {
    tifffile.COMPRESSION.NONE,
    tifffile.COMPRESSION.LZW,
    tifffile.COMPRESSION.JPEG,
    tifffile.COMPRESSION.ADOBE_DEFLATE,
    tifffile.COMPRESSION.DEFLATE,
}
_COLOURS: dict[int, jpeg.Colour] = {tifffile.PHOTOMETRIC.RGB: "rgb", tifffile.PHOTOMETRIC.YCBCR: "ycbcr"}

MAX_PAGES = 1000
"""A slide has some ten; with focus planes, some hundred."""


class TiffTiles(TileGrid):
    """One level of a tiled TIFF, or of another file that holds tiles likewise.

    Args:
        path: the file.
        page: a `tifffile.TiffPage`, or what has those of its attributes that say where the tiles are.

    Attributes:
        jpeg: how its tiles are to be read, where they are JPEG streams.
    """

    def __init__(self, path: Path, page: Any) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._path = path
        self._opened = _version(path.stat())
        self.size = (page.imagewidth, page.imagelength)
        self.tile = (page.tilewidth, page.tilelength)
        self._most = 2 * 3 * page.tilewidth * page.tilelength + 2**16  # noise compresses to a little more than itself
        shape = (-(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth))
        self._offsets = np.array(page.dataoffsets, np.int64).reshape(shape)
        self.byte_counts = np.array(page.databytecounts, np.int64).reshape(shape)
        self.jpeg: jpeg.JpegTiles | None = None
        if page.compression == tifffile.COMPRESSION.JPEG:
            self.jpeg = jpeg.JpegTiles(page.jpegtables, _COLOURS[page.photometric])
            self._prefix = jpeg.prefix(page.jpegtables, self.jpeg.colour)
            self.scales = jpeg.scales(self.tile)
        else:
            self._decode: Callable[..., Any] = page.decode

    def __del__(self) -> None:
        if getattr(self, "_fd", None) is not None:
            os.close(self._fd)  # type: ignore[arg-type]

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`."""
        size, offset = int(self.byte_counts[row, column]), int(self._offsets[row, column])
        if offset < 0 or not 0 < size <= self._most:
            raise ValueError(f"claims {size} bytes at {offset}, which cannot be")
        descriptor = self._descriptor()
        if _version(os.fstat(descriptor)) != self._opened:
            raise ValueError("is not what it was: the file has changed since it was opened")
        data = read_at(descriptor, size, offset)
        if len(data) != size:
            raise ValueError(f"ends after {len(data)} of {size} bytes: the file is truncated")
        return data

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        try:
            if self.jpeg is not None:
                return jpeg.decode(data, self._prefix, self.tile, into=into)
            segment, _, _ = self._decode(data, row * self.byte_counts.shape[1] + column)
        except Exception as exc:  # codecs raise their own types; to the caller it is one thing: damage
            raise ValueError(f"does not decode: {exc}") from exc
        pixels: NDArray[np.uint8] = segment[0]
        return pixels

    def reduced(self, data: bytes, scale: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.reduced`."""
        try:
            return jpeg.decode(data, self._prefix, self.tile, scale=scale, into=into)
        except jpeg.JpegError as exc:
            raise ValueError(f"does not decode: {exc}") from exc

    def _descriptor(self) -> int:
        with self._lock:
            if self._fd is None:
                self._fd = open_to_read(self._path)
            return self._fd


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def find_level_tiles(path: Path, sizes: Sequence[tuple[int, int]]) -> list[TiffTiles | None]:
    """The tile grid of each level of ``sizes`` (width, height), or None where the file has no plain grid of that size.

    A level that two pages could be (focus planes, say) has none: guessing would show the wrong one.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in _all_pages(tiff) if _is_plain(page)]
            grids: list[TiffTiles | None] = []
            for size in sizes:
                same = [page for page in pages if (page.imagewidth, page.imagelength) == size]
                grids.append(TiffTiles(path, same[0]) if len(same) == 1 else None)
            for page in pages:  # tuples of millions, in a cycle of references that only the collector would find
                page.dataoffsets = page.databytecounts = ()
                for tag in ("TileOffsets", "TileByteCounts"):
                    del page.tags[tag]
            return grids
    except Exception:  # not a TIFF, or one that tifffile cannot follow: OpenSlide reads it instead
        return [None] * len(sizes)


def _all_pages(tiff: tifffile.TiffFile) -> list[Any]:
    pages: list[Any] = []
    for page in tiff.pages:
        pages.append(page)
        pages.extend(page.pages or ())
        if len(pages) > MAX_PAGES:
            raise ValueError("more pages than a slide has: a chain of them can be made to take hours")
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
        and (page.compression != tifffile.COMPRESSION.JPEG or page.photometric in _COLOURS)
        and len(page.dataoffsets) == len(page.databytecounts) == grid
    )
