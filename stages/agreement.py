"""Whether patches show what the thumbnail shows at their places, and are no noise.

Much damage decodes without an error: of tiles that are stored as they are, of JPEG 2000 and WebP, of chunks without a
checksum, of tiles in each other's places. But the thumbnail is made of a coarser level, which lies elsewhere in the
file, and both were made of one picture.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.geometry import Raster, choose_level
from stages.heap import put_aside
from stages.patches import LazyPatches, PatchReader
from stages.slide.protocol import Slide
from stages.tissue.thumbnail import Thumbnail

PARTS = 4
"""Squares along a side of a patch that are compared by their means, at most..."""
FEWEST = 2.0
"""... of at least so many thumbnail pixels a side: levels lie up to a pixel off each other."""
LEAST = 7.0
"""Grey levels by which squares differ in the mean from which a patch is doubted, at least: levels that were compressed
hard, sharpened or made of every k-th pixel stay below."""
TIMES = 6.0
"""... and so many times what is usual on the slide, whose levels may differ in brightness."""
MOST = 40.0
"""... but no more than that."""
MOST_OF_ONE = 10.0
"""Grey levels by which one square differs, from which its patch is doubted, at least: damage may be of a part..."""
TIMES_USUAL = 8.0
"""... and so many times what nine in ten patches stay below."""
NOISE = 25.0
"""Grey levels between neighbouring pixels in the mean, from which a patch is noise, at least: sharp scans of dense
tissue stay below. What damage makes of JPEG 2000 may be noise about the right mean."""
TIMES_SHARPEST = 2.5
"""... and so many times what the sharpest tenth of the patches has."""


class Agreement:
    """How far the patches that are read of a slide are off its thumbnail.

    Args:
        thumbnail: of the slide.
    """

    def __init__(self, thumbnail: Thumbnail) -> None:
        self._raster, self._rgb = thumbnail.raster, thumbnail.rgb
        self._off: dict[tuple[float, ...], tuple[float, float, float]] = {}

    def watched(self, reader: PatchReader) -> Callable[[ArrayLike], LazyPatches]:
        """`PatchReader.lazily` of a reader, each of which is compared when it is computed in this process."""

        def patches(cells: ArrayLike) -> LazyPatches:
            rasters = reader.rasters(cells)

            def compare(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
                for patch, raster in zip(pixels, rasters, strict=True):
                    self.add(patch, raster)
                put_aside(self._rgb)
                return pixels

            return reader.lazily(cells).then(compare)

        return patches

    def add(self, patch: NDArray[np.uint8], raster: Raster) -> None:
        """Compare a patch (height, width, 3) at a raster; not where the thumbnail does not hold all of it."""
        place = raster.within(self._raster)
        box = (place.x, place.y, place.x + place.scale_x * place.width, place.y + place.scale_y * place.height)
        (height, width), slack = self._rgb.shape[:2], 0.5
        if min(box[:2]) < -slack or box[2] > width + slack or box[3] > height + slack:
            return
        parts = max(1, min(PARTS, int(min(box[2] - box[0], box[3] - box[1]) / FEWEST)))
        theirs = _means(self._rgb, box, parts)
        mine = _means(patch, (0.0, 0.0, float(place.width), float(place.height)), parts)
        some = patch[::4].astype(np.int16)
        steps = float(np.abs(np.diff(some, axis=1)).mean()) if place.width > 1 else 0.0
        off = np.abs(mine - theirs).mean(2)
        self._off[raster.x, raster.y, raster.scale_x] = (float(off.mean()), float(off.max()), steps)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said of the patches so far, a line each; nothing where all of them agree."""
        if not self._off:
            return ()
        off, most, steps = np.array(list(self._off.values())).T
        wrong = off > min(MOST, max(LEAST, TIMES * float(np.median(off))))
        wrong |= most > max(MOST_OF_ONE, TIMES_USUAL * float(np.quantile(most, 0.9)))
        wrong |= steps > max(NOISE, TIMES_SHARPEST * float(np.quantile(steps, 0.9)))
        doubted = sorted((place for place, no in zip(self._off, wrong, strict=True) if no), key=lambda at: at[1::-1])
        if not doubted:
            return ()
        x, y, _ = doubted[0]
        return (
            f"{len(doubted)} of {len(self._off)} patches that were read do not show what the thumbnail shows there, "
            f"or are noise, the first at ({x:.0f}, {y:.0f}): the file may be damaged: compare it with its original, or "
            "copy it again",
        )


def missing_tiles(slide: Slide, thumbnail: Thumbnail) -> tuple[str, ...]:
    """What is to be said where a thumbnail is blank for want of tiles, and level 0 is not, a line each.

    Which tiles hold something is told by their bytes: those of level 0 that have more than most.
    """
    facts = slide.facts
    level = choose_level(facts.levels, thumbnail.raster)
    own = slide.tile_bytes(level) if level else np.ones((1, 1))
    if own.all():
        return ()
    finest, lost = slide.tile_bytes(0), 0
    rich = finest > np.median(finest[finest > 0])
    (width, height), (fine_width, fine_height) = facts.tile_sizes[level], facts.tile_sizes[0]
    for row, column in np.argwhere(own == 0).tolist():
        corners = [(column * width, row * height), ((column + 1) * width, (row + 1) * height)]
        (left, top), (right, bottom) = facts.levels[level].to_level0(corners).tolist()
        rows = slice(max(0, round(top / fine_height)), max(0, round(bottom / fine_height)))
        columns = slice(max(0, round(left / fine_width)), max(0, round(right / fine_width)))
        lost += bool(rich[rows, columns].any())
    if not lost:
        return ()
    return (
        f"{lost} of {own.size} tiles of level {level} are blank where level 0 is not, and so is the thumbnail: the "
        "file may be damaged: compare it with its original, or copy it again",
    )


def _means(pixels: NDArray[np.uint8], box: tuple[float, float, float, float], parts: int) -> NDArray[np.float32]:
    """Means by area of (height, width, 3) pixels over ``parts x parts`` squares of a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    x, y = max(0, int(left)), max(0, int(top))
    cut = pixels[y : int(np.ceil(bottom)), x : int(np.ceil(right))].astype(np.float32)
    height, width = cut.shape[:2]
    rows = _shares(top - y, bottom - y, parts, height) @ cut.reshape(height, width * 3)
    return np.asarray(_shares(left - x, right - x, parts, width) @ rows.reshape(parts, width, 3))


@lru_cache(maxsize=256)
def _shares(first: float, last: float, parts: int, count: int) -> NDArray[np.float32]:
    """(parts, count), how much of each of so many pixels the parts from ``first`` to ``last`` are, in rows of sum 1."""
    edges, at = np.linspace(first, last, parts + 1), np.arange(count)
    held = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    held = np.maximum(held, 0.0)
    return np.asarray(held / held.sum(1, keepdims=True), np.float32)
