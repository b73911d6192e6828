"""A level that the slide lacks: the tiles of a finer one, decoded 2, 4 or 8 times smaller.

JPEG holds squares of 8 x 8 pixels by frequency, so a tile can be decoded smaller for little more than it takes to
unpack it. A pixel is then the mean of its square, but for rounding and for what full decoding clips at black and white.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box, Raster
from stages.passing import UnreadableError
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.tiles import Background, DamagedTilesError, TileGrid

EXACT_PIXELS = 2**26
"""Levels of up to so many pixels are always read in full: that takes half a second."""

COARSE = 8
"""A level is read reduced only for pixels at least so many times coarser: patches are always read in full."""

PIXELS_ACROSS = 6
"""Reduced pixels along one of the raster's, at least: a square that a border of these cuts counts on either side by its
area, as if it were of one colour. The mean error is below half a grey level on stained tissue at every scale."""

WHOLE_ACROSS = 2
"""The same where the two grids coincide and no square is cut; more than one, as colours may be stored at half width.
The mean error is about 0.1 grey levels at 32 times coarser."""

LINES_PIXELS = 2**22
"""Of an edge tile that are averaged together."""

THREADS = 2
ALONE_PIXELS = 2**20
"""Of a level that are read by one thread: starting others takes as long as a tile."""


class ReducedTiles(TileGrid):
    """A grid of the same tiles, whose pixels are the means of squares of ``scale x scale`` of theirs.

    Args:
        tiles: what is reduced.
        scale: one of ``tiles.scales``.
        background: what the squares at the right and lower edge hold beyond the level.
    """

    def __init__(self, tiles: TileGrid, scale: int, background: Background) -> None:
        self._tiles, self._scale, self._background = tiles, scale, background
        self.size = (-(-tiles.size[0] // scale), -(-tiles.size[1] // scale))
        self.tile = (tiles.tile[0] // scale, tiles.tile[1] // scale)
        self.byte_counts = tiles.byte_counts

    @property
    def decoded_pixels(self) -> int:
        """As `TileGrid.decoded_pixels`: at the level's edges tiles are decoded in full."""
        return self._tiles.decoded_pixels

    def coming(self, tiles: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        """As `TileGrid.coming`."""
        return self._tiles.coming(tiles)

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`."""
        return self._tiles.stored(row, column)

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        box, scale = self._tiles.box(row, column), self._scale
        if not box.width % scale and not box.height % scale:
            return self._tiles.reduced(data, scale, into)
        # an edge cuts through squares: what the tile holds beyond it is none of the slide's
        height, width = -(-box.height // scale), -(-box.width // scale)
        tile = self._tiles.decode(data, row, column)[: box.height, : box.width]
        pixels = np.empty((height, width, 3), np.uint8)
        lines = max(1, LINES_PIXELS // (width * scale**2))
        for y in range(0, height, lines):
            strip = tile[y * scale : (y + lines) * scale]
            whole = np.empty((min(lines, height - y) * scale, width * scale, 3), np.uint8)
            whole[:] = self._background
            whole[: strip.shape[0], : strip.shape[1]] = strip
            pixels[y : y + lines] = np.rint(whole.reshape(-1, scale, width, scale, 3).mean((1, 3)))
        return pixels


def choose_scale(slide: Slide, level: int, raster: Raster, *, quick: bool = False) -> int:
    """How many times smaller the tiles of a level are decoded for ``raster``; 1 is in full.

    It depends on the raster's grid alone, not on what part of the slide it covers, so that a pixel is the same in
    every cut.

    Args:
        quick: for eyes: where the grids coincide, however small the level or fine the raster. At pixels twice as coarse
            the mean error is about 0.13 grey levels on stained tissue.
    """
    own = slide.facts.levels[level]
    coarser = (raster.scale_x / own.scale_x, raster.scale_y / own.scale_y)
    if not quick and (own.width * own.height <= EXACT_PIXELS or min(coarser) < COARSE):
        return 1
    tiles = slide.tiles(level)
    places = (*own.from_level0((raster.x, raster.y)).tolist(), *coarser)
    for scale in tiles.scales if tiles is not None else ():
        coincide = all(abs(place / scale - round(place / scale)) <= 1e-6 for place in places)
        across = (1 if quick else WHOLE_ACROSS) if coincide else PIXELS_ACROSS
        if min(coarser) >= scale * across:
            return scale
    return 1


def reduced_raster(level: Raster, scale: int) -> Raster:
    """The raster of a level whose pixels are squares of ``scale x scale`` of its own."""
    width, height = -(-level.width // scale), -(-level.height // scale)
    return Raster(level.x, level.y, level.scale_x * scale, level.scale_y * scale, width, height)


def read_reduced(slide: Slide, level: int, scale: int, box: Box) -> NDArray[np.uint8]:
    """RGB (height, width, 3) of ``box``, which lies inside `reduced_raster` of a level and is in its pixels.

    Raises:
        SlideError: the region cannot be read.
    """
    tiles = slide.tiles(level)
    assert tiles is not None, "choose_scale says which levels can be reduced"
    reduced = ReducedTiles(tiles, scale, slide.facts.background)
    out = np.empty((box.height, box.width, 3), np.uint8)

    def read_row(row: int) -> None:
        strip = box.intersect(Box(box.x, row * reduced.tile[1], box.width, reduced.tile[1]))
        target = out[strip.y - box.y :][: strip.height]
        reduced.read_many([strip], blank=slide.facts.background, out=[target])

    rows, _ = reduced.touched(box)
    try:
        if box.area * scale**2 <= ALONE_PIXELS:
            reduced.read_many([box], blank=slide.facts.background, out=[out])
            return out
        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(read_row, range(rows.start, rows.stop)):
                pass
    except UnreadableError as exc:
        raise SlideError(str(exc)) from exc
    except DamagedTilesError as exc:
        raise SlideError(f"cannot read level {level}: {exc}; the file is damaged: copy it again") from exc
    return out
