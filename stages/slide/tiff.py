"""The slide's own compressed tiles, where its file is a plain tiled TIFF.

OpenSlide's cost is compositing, not decoding, and off whole downsamples it interpolates between pixels. A plain tiled
TIFF needs neither: its level *is* a grid of tiles. `find_level_tiles` finds those levels; whoever uses them compares
some tiles with OpenSlide first (`stages.slide.files` does) and falls back on any difference.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from stages.disk import open_regular, open_to_read, read_at, reading, refuse_changed, version_of
from stages.geometry import Mpp
from stages.passing import UnreadableError, patiently
from stages.slide import jpeg
from stages.slide.facts import Page
from stages.slide.overlaps import find_overlap
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

_UNITS = {2: 25400.0, 3: 10000.0}
"""µm in an inch and in a centimetre, by the number of the unit in a TIFF."""

MAX_PAGES = 1000
"""A slide has some ten; with focus planes, some hundred."""


class TiffTiles(TileGrid):
    """One level of a tiled TIFF, or of another file that holds tiles likewise.

    Args:
        path: the file.
        page: a `tifffile.TiffPage`, or what has those of its attributes that say where the tiles are.
        pixel_bytes: of a pixel before it is compressed.

    Attributes:
        jpeg: how its tiles are to be read, where they are JPEG streams.
    """

    def __init__(self, path: Path, page: Any, *, pixel_bytes: int = 3) -> None:
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._path = path
        with reading(path):
            self._opened = version_of(patiently(path.stat))
        self.size = (page.imagewidth, page.imagelength)
        self.tile = (page.tilewidth, page.tilelength)
        self._most = (
            2 * pixel_bytes * page.tilewidth * page.tilelength + 2**16
        )  # noise compresses to a little more than itself
        shape = (-(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth))
        self._offsets = np.array(page.dataoffsets, np.int64).reshape(shape)
        self.byte_counts = np.array(page.databytecounts, np.int64).reshape(shape)
        self._plain = page.compression == tifffile.COMPRESSION.NONE
        self.jpeg: jpeg.JpegTiles | None = None
        if page.compression == tifffile.COMPRESSION.JPEG:
            self.jpeg = jpeg.JpegTiles(page.jpegtables, _COLOURS[page.photometric])
            self.prefix = jpeg.prefix(page.jpegtables, self.jpeg.colour)
            self.scales = jpeg.scales(self.tile)
        else:
            self._decode: Callable[..., Any] = page.decode

    def __del__(self) -> None:
        if getattr(self, "_fd", None) is not None:
            os.close(self._fd)  # type: ignore[arg-type]

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`."""
        size, offset = self.byte_counts.item(row, column), self._offsets.item(row, column)
        if offset < 0 or not 0 < size <= self._most:
            raise ValueError(f"claims {size} bytes at {offset}, which cannot be")
        try:
            descriptor = self._descriptor()
            refuse_changed(patiently(lambda: os.fstat(descriptor)), self._opened)
            data = read_at(descriptor, size, offset)
        except OSError:
            with reading(self._path):
                raise
        if len(data) != size:
            raise ValueError(f"ends after {len(data)} of {size} bytes: the file is truncated")
        return data

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        try:
            if self.jpeg is not None:
                return self._decode_jpeg(data, 1, into)
            segment, _, _ = self._decode(data, row * self.byte_counts.shape[1] + column)
        except Exception as exc:  # codecs raise their own types; to the caller it is one thing: damage
            raise ValueError(f"does not decode: {exc}") from exc
        pixels: NDArray[np.uint8] = segment[0]
        return pixels

    def reduced(self, data: bytes, scale: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.reduced`."""
        try:
            return self._decode_jpeg(data, scale, into)
        except jpeg.JpegError as exc:
            raise ValueError(f"does not decode: {exc}") from exc

    def _decode_jpeg(self, data: bytes, scale: int, into: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """A tile at its own size: whole, or what the level's edge leaves of it, as some writers store those."""
        size = jpeg.frame_size(data)
        if size == self.tile:
            return jpeg.decode(data, self.prefix, size, scale=scale, into=into)
        left = [full % side or side for full, side in zip(self.size, self.tile, strict=True)]
        if not all(n in (side, part) for n, side, part in zip(size, self.tile, left, strict=True)):
            return jpeg.decode(data, self.prefix, self.tile, scale=scale, into=into)
        return jpeg.decode(data, self.prefix, size, scale=scale)

    def is_cropped(self, row: int, column: int) -> bool:
        """Whether a tile of plain pixels is stored without what lies beyond the level; libtiff reads on behind it."""
        box = self.box(row, column)
        whole = (box.width, box.height) == self.tile
        return self._plain and not whole and int(self.byte_counts[row, column]) == 3 * box.area

    def overlap(self) -> tuple[int, int] | None:
        """(row, column) of the tile that `find_overlap` finds."""
        found = find_overlap(self._offsets, self.byte_counts)
        return None if found is None else divmod(found, self.byte_counts.shape[1])

    def crops_edges(self) -> bool:
        """Whether JPEG tiles at the level's right and lower edge are stored without what lies beyond it."""
        last = tuple(n - 1 for n in self.byte_counts.shape)
        for row, column in ((0, last[1]), (last[0], 0), last):
            try:
                if not self.is_blank(row, column) and jpeg.frame_size(self.stored(row, column)) != self.tile:
                    return True
            except (OSError, ValueError):
                continue  # damaged: said where it is read
        return False

    def _descriptor(self) -> int:
        if self._fd is None:
            with self._lock:
                if self._fd is None:
                    self._fd = open_to_read(self._path)
        return self._fd


@contextlib.contextmanager
def open_tiff_file(path: Path) -> Iterator[tifffile.TiffFile]:
    """A file as tifffile opens it, but for reads that are tried again where the disk or the network could not.

    Raises:
        UnreadableError: they could not, however often; or permission is missing.
        tifffile.TiffFileError, ValueError, ...: whatever tifffile makes of damage.
    """
    with reading(path), open_regular(path) as file, tifffile.TiffFile(file) as tiff:
        yield tiff


def find_level_tiles(path: Path, sizes: Sequence[tuple[int, int]]) -> list[TiffTiles | None]:
    """The tile grid of each level of ``sizes`` (width, height), or None where the file has no plain grid of that size.

    A level that two pages could be (focus planes, say) has none: guessing would show the wrong one.
    """
    try:
        with open_tiff_file(path) as tiff:
            pages = [page for page in _all_pages(tiff) if _is_plain(page)]
            grids: list[TiffTiles | None] = []
            for size in sizes:
                same = [page for page in pages if (page.imagewidth, page.imagelength) == size]
                grids.append(TiffTiles(path, same[0]) if len(same) == 1 else None)
            _release(pages)
            return grids
    except UnreadableError:
        raise
    except Exception:  # not a TIFF, or one that tifffile cannot follow: OpenSlide reads it instead
        return [None] * len(sizes)


def stored_bytes(path: Path, size: tuple[int, int]) -> NDArray[np.int64] | None:
    """Compressed bytes of each tile (rows, columns) of the one picture of a size (width, height), whatever its codec;
    None where there is none, or two."""
    try:
        with open_tiff_file(path) as tiff:
            pages = _all_pages(tiff)
            same = [page for page in pages if (page.imagewidth, page.imagelength) == size and page.is_tiled]
            counts = [np.array(page.databytecounts, np.int64) for page in same]
            shapes = [(-(-size[1] // page.tilelength), -(-size[0] // page.tilewidth)) for page in same]
            _release(pages)
        return counts[0].reshape(shapes[0]) if len(same) == 1 else None
    except UnreadableError:
        raise
    except Exception:  # as in `find_level_tiles`, or colours apart
        return None


def read_pages(path: Path) -> tuple[Page, ...]:
    """What each picture in a TIFF file says of itself, in the file's order; none of what is no TIFF."""
    try:
        with open_tiff_file(path) as tiff:
            pages = _all_pages(tiff)
            whole = [page for page in pages if page.tags]
            found = tuple(_page(page) for page in whole)
            if found and (len(whole) < len(pages) or _breaks_off(tiff)):
                found = (*found[:-1], replace(found[-1], torn=True))
            _release(pages)
            return found
    except UnreadableError:
        raise
    except Exception:  # as in `find_level_tiles`
        return ()


def _breaks_off(tiff: tifffile.TiffFile) -> bool:
    """Whether the last page that was found names another after it."""
    form, file, at = tiff.tiff, tiff.filehandle, tiff.pages[len(tiff.pages) - 1].offset
    file.seek(at)
    (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(at + form.tagnosize + tags * form.tagsize)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    return bool(following)


def cut_off(path: Path) -> dict[tuple[int, int], tuple[int, int]]:
    """Of each picture (width, height) of a TIFF that ends too early: how many of its tiles or strips lie beyond the
    file's end, and of how many; nothing of what is whole, or no TIFF."""
    try:
        end = path.stat().st_size
        with quiet(), tifffile.TiffFile(path) as tiff:
            pages, found = _all_pages(tiff), {}
            for page in pages:
                ends = np.array(page.dataoffsets, np.int64) + np.array(page.databytecounts, np.int64)
                if lost := int((ends > end).sum()):
                    found[int(page.imagewidth), int(page.imagelength)] = lost, len(ends)
            _release(pages)
            return found
    except Exception:  # as in `find_level_tiles`
        return {}


def describe_cut(path: Path) -> str | None:
    """`cut_off` in words, with the remedy; None where nothing of a TIFF lies beyond its end."""
    lost, words = cut_off(path), []
    for (width, height), (count, total) in lost.items():
        words.append(f"{count} of {total} tiles of its picture of {width} x {height} px")
    if not words:
        return None
    return f"cut off: it ends after {path.stat().st_size} bytes, before {', '.join(words)}: copy it again"


def _page(page: Any) -> Page:
    size, tile = (int(page.imagewidth), int(page.imagelength)), (int(page.tilewidth), int(page.tilelength))
    most, tiled = int(max(page.databytecounts, default=0)), page.is_tiled and min(tile) > 0
    needed, overlap = 0, None
    if tiled:
        columns, rows = -(-size[0] // tile[0]), -(-size[1] // tile[1])
        apart = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        needed = columns * rows * (int(page.samplesperpixel) if apart else 1)
        if len(page.dataoffsets) == len(page.databytecounts) == needed:
            index = find_overlap(page.dataoffsets, page.databytecounts)
            overlap = None if index is None else divmod(index % (columns * rows), columns)
    missing = needed - len(page.dataoffsets) if tiled else 0
    return Page(size, tile if page.is_tiled else None, _density(page), most, missing, overlap)


def _density(page: Any) -> Mpp | None:
    """µm/px by the page's own resolution tags."""
    um = _UNITS.get(int(page.tags.valueof("ResolutionUnit", default=2)))
    values = [page.tags.valueof(f"{axis}Resolution") for axis in "XY"]
    if um is None or not all(isinstance(value, tuple) and all(value) for value in values):
        return None
    x, y = (um * below / above for above, below in values)
    return Mpp(x, y)


def _all_pages(tiff: tifffile.TiffFile) -> list[Any]:
    pages: list[Any] = []
    for page in tiff.pages:
        pages.append(page)
        pages.extend(page.pages or ())
        if len(pages) > MAX_PAGES:
            raise ValueError("more pages than a slide has: a chain of them can be made to take hours")
    return [page.aspage() for page in pages]


def _release(pages: Sequence[Any]) -> None:
    """Let go of what pages say of their tiles: tuples of millions, in a cycle that only the collector would find."""
    for page in pages:
        page.dataoffsets = page.databytecounts = ()
        for tag in ("TileOffsets", "TileByteCounts", "StripOffsets", "StripByteCounts"):
            if tag in page.tags:
                del page.tags[tag]


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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """tifffile tells its log of every oddity; what matters of them is said here."""
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
