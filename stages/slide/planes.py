"""A level of a TIFF as tifffile decodes it: tiles or strips, with colours side by side or each in a plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from stages.slide.samples import Samples
from stages.slide.tiff import TiffTiles
from stages.slide.tiles import TileGrid


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
    """

    def __init__(self, path: Path, pages: Sequence[Any], samples: Samples) -> None:
        self.samples = samples
        page = pages[0]
        self.size = (page.imagewidth, page.imagelength)
        self.tile = self.tile_of(page)
        tiles = -(-self.size[0] // self.tile[0]) * -(-self.size[1] // self.tile[1])
        apart = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        count = samples.colours + (samples.alpha > 0) if apart else 1  # planes of a page
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
        self.byte_counts = np.where(counts.all(0), counts.sum(0), 0)

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
            try:
                segment, _, _ = decode(data[start : start + size], first + index, **options)
            except Exception as exc:  # codecs raise their own types; to the caller it is one thing: damage
                raise ValueError(f"does not decode: {exc}") from exc
            found.append(segment[0])
            start += size
        return found[0] if len(found) == 1 else np.concatenate(found, axis=2)

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        return self.samples.rgb(self.samples_of(data, row, column))
