"""A slide's own tiles as JPEG files: what a viewer shows without anything being decoded and encoded again."""

from __future__ import annotations

from functools import lru_cache

from stages.geometry import Raster, choose_level
from stages.slide import jpeg
from stages.slide.protocol import Slide

_SCAN, _BASELINE = 0xDA, 0xC0
_PLAIN = {0xDB, 0xC4, 0xDD, 0xFE, _BASELINE, _SCAN}
"""Markers of tables, restarts, comments, a baseline frame and its scan: by others a browser might turn the picture, or
change its colours, which decoding here does not."""


def stored_jpeg(slide: Slide, raster: Raster) -> bytes | None:
    """The slide's own JPEG of a raster, which decodes to what `stages.slide.render.render` gives of it.

    None where the raster is not just one whole tile of a level, where that is stored otherwise, and where it is blank,
    damaged or cannot be read, which rendering tells.
    """
    level = choose_level(slide.facts.levels, raster)
    tiles, place = slide.tiles(level), raster.within(slide.facts.levels[level])
    if tiles is None or not tiles.prefix or tiles.tile != (raster.width, raster.height):
        return None
    column, row = round(place.x / raster.width), round(place.y / raster.height)
    off = (place.x - column * raster.width, place.y - row * raster.height, place.scale_x - 1, place.scale_y - 1)
    right, lower = (column + 1) * raster.width, (row + 1) * raster.height
    if max(map(abs, off)) > 1e-6 or min(column, row) < 0 or right > tiles.size[0] or lower > tiles.size[1]:
        return None  # what a tile holds beyond the level is none of the slide's
    try:
        return standalone(tiles.stored(row, column), tiles.prefix, tiles.tile)
    except (OSError, ValueError):
        return None


def standalone(stream: bytes, before: bytes, size: tuple[int, int]) -> bytes | None:
    """A tile with its file's tables and colours in front; None where browsers might not show what `jpeg.decode` gives.

    Args:
        stream, before, size: see `jpeg.decode`.

    Raises:
        JpegError: it is damaged: all of its codes are read for that, though few pixels are made of them.
    """
    whole = jpeg.complete(stream, before)
    start, scan = len(jpeg.prefix(None, "rgb")), whole.find(bytes((0xFF, _SCAN)))
    if not _is_plain(whole[start : scan + 2]):
        return None
    jpeg.decode(stream, before, size, scale=next(iter(jpeg.scales(size)), 1))
    return whole


@lru_cache(maxsize=64)
def _is_plain(head: bytes) -> bool:
    """Whether these segments, up to a scan, begin a baseline JPEG of three components of 8 bits and nothing else."""
    at, baseline = 0, False
    while at + 2 <= len(head) and head[at] == 0xFF and head[at + 1] in _PLAIN:
        if head[at + 1] == _SCAN:
            return baseline
        if head[at + 1] == _BASELINE:
            baseline = head[at + 4 : at + 5] == b"\x08" and head[at + 9 : at + 10] == b"\x03"
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return False
