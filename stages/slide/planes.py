"""A level of a TIFF as tifffile decodes it: tiles or strips, with colours side by side or each in a plane."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from stages.slide.jpeg import frame_size
from stages.slide.overlaps import overlap_doubt
from stages.slide.samples import Samples
from stages.slide.tiff import TiffTiles
from stages.slide.tiles import TileGrid

_RAW = {
    tifffile.COMPRESSION.NONE,
    tifffile.COMPRESSION.LZW,
    tifffile.COMPRESSION.ADOBE_DEFLATE,
    tifffile.COMPRESSION.DEFLATE,
    tifffile.COMPRESSION.PACKBITS,
    tifffile.COMPRESSION.LZMA,
    tifffile.COMPRESSION.ZSTD,
    50000,  # zstd as it was first numbered
}
"""Compressions of bytes, decoded into as many as a tile holds."""


def _jpeg2000_size(data: bytes) -> tuple[int, int]:
    at = data.index(b"\xff\x4f\xff\x51") + 8
    right, bottom, left, top = struct.unpack_from(">4I", data, at)
    return right - left, bottom - top


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (both,) = struct.unpack_from("<I", data, 21)
        return 1 + (both & 0x3FFF), 1 + (both >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<2H", data, 26)
    return width & 0x3FFF, height & 0x3FFF


_SIZES: dict[int, Callable[[bytes], tuple[int, int]]] = {
    tifffile.COMPRESSION.JPEG: frame_size,
    33007: frame_size,  # the same, as Bio-Formats numbers it
    tifffile.COMPRESSION.JPEG2000: _jpeg2000_size,
    **dict.fromkeys((33003, 33004, 33005), _jpeg2000_size),  # Aperio's numbers, which Bio-Formats took for its own
    **dict.fromkeys((tifffile.COMPRESSION.WEBP, 34927), _webp_size),
}
"""Compressions of pictures, and where (width, height) stand in each: decoders allocate what a stream claims."""

READ = _RAW | _SIZES.keys()
"""TIFF's numbers of the compressions that are read."""


@dataclass(frozen=True, slots=True)
class _Plane:
    """Where a plane's tiles are, under the names that `TiffTiles` takes a page's by; the bytes are decoded here."""

    imagewidth: int
    imagelength: int
    tilewidth: int
    tilelength: int
    dataoffsets: Sequence[int]
    databytecounts: Sequence[int]
    compression: int = tifffile.COMPRESSION.NONE
    decode: None = None


class PlaneTiles(TileGrid):
    """One level; strips are tiles as wide as the level.

    Args:
        path: the file.
        pages: a `tifffile.TiffPage` that holds all colours, or one for each.
        samples: how what they hold becomes RGB.

    Attributes:
        samples: the same, where looking at the tiles had more to say of it.
        more: how many tiles are listed beyond those that its sizes make.
    """

    def __init__(self, path: Path, pages: Sequence[Any], samples: Samples) -> None:
        self.samples = samples
        page = pages[0]
        self.size = (page.imagewidth, page.imagelength)
        self.tile, self._tiled = self.tile_of(page), bool(page.is_tiled)
        tiles = -(-self.size[0] // self.tile[0]) * -(-self.size[1] // self.tile[1])
        apart = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        count = samples.colours + (samples.alpha > 0) if apart else 1  # planes of a page
        listed = page.tags.get("TileOffsets" if self._tiled else "StripOffsets")  # of strips tifffile cuts the list
        self.more = (listed.count if listed else 0) - tiles * (int(page.samplesperpixel) if apart else 1)
        self._planes: list[TiffTiles] = []
        self._decoders: list[tuple[Any, dict[str, Any], int]] = []
        for one in pages:
            if (one.imagewidth, one.imagelength) != self.size or self.tile_of(one) != self.tile:
                raise ValueError("planes of different sizes")
            if len(one.dataoffsets) != len(one.databytecounts) or len(one.dataoffsets) < count * tiles:
                raise ValueError(f"a list of {len(one.dataoffsets)} tiles, expected {count * tiles}")
            tables = {"jpegtables": one.jpegtables, "jpegheader": one.jpegheader}
            for first in range(0, count * tiles, tiles):
                part = slice(first, first + tiles)
                plane = _Plane(*self.size, *self.tile, one.dataoffsets[part], one.databytecounts[part])
                self._planes.append(TiffTiles(path, plane, pixel_bytes=samples.pixel_bytes))
                self._decoders.append((one.decode, tables if one.jpegtables or one.jpegheader else {}, first))
        counts = np.stack([plane.byte_counts for plane in self._planes])
        self._claims = _SIZES.get(int(page.compression))
        self.byte_counts = np.where(counts.all(0), counts.sum(0), 0)

    def overlap_doubt(self, level: int) -> str | None:
        """As `overlap_doubt`, of the first plane that has a tile to doubt."""
        for number, plane in enumerate(self._planes):
            place = plane.overlap()
            if place is None:
                continue
            try:
                pixels = self.samples_of(self.stored(*place), *place)
            except (OSError, ValueError):  # damage: said where it is read
                continue
            own = pixels[..., number : number + 1] if len(self._planes) > 1 else pixels
            if doubt := overlap_doubt(level, place, own):
                return doubt
        return None

    def is_blank(self, row: int, column: int) -> bool:
        """As `TileGrid.is_blank`: never of strips, which writers leave out none of."""
        return self._tiled and super().is_blank(row, column)

    @staticmethod
    def tile_of(page: Any) -> tuple[int, int]:
        """(width, height) of a page's tiles or strips."""
        if page.is_tiled:
            return page.tilewidth, page.tilelength
        return page.imagewidth, max(1, min(page.rowsperstrip, page.imagelength))

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`: of all planes, one after the other."""
        return b"".join(plane.stored(row, column) for plane in self._planes)

    def samples_of(self, data: bytes, row: int, column: int) -> NDArray[Any]:
        """What a tile holds, (height, width, samples of all planes), as it is stored.

        Raises:
            ValueError: it does not decode.
        """
        found, start, index = [], 0, row * self.byte_counts.shape[1] + column
        for plane, (decode, options, first) in zip(self._planes, self._decoders, strict=True):
            size = int(plane.byte_counts[row, column])
            part = data[start : start + size]
            try:
                if self._claims is not None and not self._fits(*self._claims(part)):
                    width, height = self._claims(part)
                    raise ValueError(f"it holds {width} x {height} pixels, not the file's")
                segment, _, _ = decode(part, first + index, **options)
            except Exception as exc:  # codecs raise their own types; to the caller it is one thing: damage
                raise ValueError(f"does not decode: {exc}") from exc
            found.append(segment[0])
            start += size
        return found[0] if len(found) == 1 else np.concatenate(found, axis=2)

    def _fits(self, width: int, height: int) -> bool:
        return 0 < width <= self.tile[0] and 0 < height <= self.tile[1]

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        return self.samples.rgb(self.samples_of(data, row, column))
