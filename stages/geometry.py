"""Frames, sizes and micrometres: the only scale arithmetic in the project.

Everything that has pixels (a pyramid level, a thumbnail, a patch, an attention map whose pixels are cells) is a
`Raster`: a grid laid on the slide's *level-0 frame*, OpenSlide's reference frame. Coordinates are pixel edges: pixel
``(i, j)`` covers ``[i, i+1) x [j, j+1)`` of its own raster and its centre is at ``(i + 0.5, j + 0.5)``. Nobody else
divides by a downsample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL_TOLERANCE = 0.02
"""A level counts as fine enough when its pixels are at most this fraction coarser than asked for."""


class ResolutionError(ValueError):
    """A request is finer than anything the slide has."""


@dataclass(frozen=True, slots=True)
class Mpp:
    """Micrometres per pixel along x and y."""

    x: float
    y: float

    def __str__(self) -> str:
        return f"{self.x:.4g}" if math.isclose(self.x, self.y, rel_tol=1e-3) else f"{self.x:.4g} x {self.y:.4g}"


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of whole pixels: top-left corner (x, y) and size, in the frame that the context names."""

    x: int
    y: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Pixels inside."""
        return self.width * self.height

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns, of an array in the same frame."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def moved(self, right: int, down: int) -> Box:
        """The same size elsewhere."""
        return Box(self.x + right, self.y + down, self.width, self.height)

    def intersect(self, other: Box) -> Box:
        """The common part; width or height is 0 where there is none."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right = min(self.x + self.width, other.x + other.width)
        bottom = min(self.y + self.height, other.y + other.height)
        return Box(x, y, max(0, right - x), max(0, bottom - y))


def around(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds each of some."""
    if len(boxes) == 1:
        return boxes[0]
    x, y = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
    return Box(x, y, right - x, bottom - y)


@dataclass(frozen=True, slots=True)
class Raster:
    """A grid of ``width x height`` pixels placed on the level-0 frame.

    ``xy_level0 = origin + scale * uv`` with ``uv`` in this raster's pixel-edge coordinates.

    Attributes:
        x, y: level-0 position of this raster's top-left corner.
        scale_x, scale_y: level-0 pixels per pixel of this raster.
        width, height: size in pixels of this raster.
    """

    x: float
    y: float
    scale_x: float
    scale_y: float
    width: int
    height: int

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), as numpy counts."""
        return (self.height, self.width)

    @property
    def extent_level0(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) in level-0 pixels."""
        return (self.x, self.y, self.x + self.scale_x * self.width, self.y + self.scale_y * self.height)

    def to_level0(self, uv: ArrayLike) -> NDArray[np.float64]:
        """Pixel-edge coordinates (..., 2) of this raster -> level-0 coordinates (..., 2)."""
        return np.asarray(uv, np.float64) * (self.scale_x, self.scale_y) + (self.x, self.y)

    def from_level0(self, xy_level0: ArrayLike) -> NDArray[np.float64]:
        """Level-0 coordinates (..., 2) -> pixel-edge coordinates (..., 2) of this raster."""
        return (np.asarray(xy_level0, np.float64) - (self.x, self.y)) / (self.scale_x, self.scale_y)

    def centres_level0(self, flat: ArrayLike) -> NDArray[np.float64]:
        """Level-0 centres (N, 2) of the pixels with row-major indices ``flat`` (N,)."""
        index = np.asarray(flat, np.int64)
        return self.to_level0(np.stack([index % self.width, index // self.width], axis=-1) + 0.5)

    def within(self, other: Raster) -> Raster:
        """This raster in the frame of another: positions and scales in the other's pixels in place of level-0 ones."""
        sx, sy = other.scale_x, other.scale_y
        x, y = (self.x - other.x) / sx, (self.y - other.y) / sy
        return Raster(x, y, self.scale_x / sx, self.scale_y / sy, self.width, self.height)

    def part(self, left: int, top: int, width: int, height: int) -> Raster:
        """The raster of some of this one's pixels, or of those that it would have beyond its edges."""
        x, y = self.to_level0((left, top))
        return Raster(float(x), float(y), self.scale_x, self.scale_y, width, height)

    def pooled(self, stride: int, offset: float, width: int, height: int) -> Raster:
        """The raster of a network's output: its pixel ``i`` is centred on ``stride * i + offset`` of this raster.

        Args:
            stride: pixels of this raster between neighbouring outputs.
            offset: centre of output 0's receptive field, in this raster's pixel-edge coordinates.
            width, height: the output's size.
        """
        corner = self.to_level0((offset - stride / 2, offset - stride / 2))
        return Raster(float(corner[0]), float(corner[1]), self.scale_x * stride, self.scale_y * stride, width, height)

    def divided(self, parts: int) -> Raster:
        """The raster that cuts every pixel of this one into ``parts x parts``."""
        scale_x, scale_y = self.scale_x / parts, self.scale_y / parts
        return Raster(self.x, self.y, scale_x, scale_y, self.width * parts, self.height * parts)


def level_raster(size_level0: tuple[int, int], size: tuple[int, int]) -> Raster:
    """Place one pyramid level on the level-0 frame.

    Writers divide by a whole number and drop or pad the rest, so where a whole number explains both sizes it is the
    true downsample; the quotient of the sizes would drift towards the bottom right. Where several do, as in a level of
    few pixels, it is the power of two.

    Args:
        size_level0, size: (width, height) of level 0 and of this level, in pixels of each.
    """
    quotients = [full / part for full, part in zip(size_level0, size, strict=True)]
    wholes = [_wholes(full, part) for full, part in zip(size_level0, size, strict=True)]
    both = wholes[0] & wholes[1]

    def scale(axis: int) -> float:
        candidates = both or wholes[axis]
        best = min(candidates, key=lambda k: (k & (k - 1) != 0, abs(k - quotients[axis])), default=None)
        return quotients[axis] if best is None else float(best)

    return Raster(0.0, 0.0, scale(0), scale(1), *size)


def _wholes(full: int, part: int) -> set[int]:
    """The whole numbers that divide ``full`` into ``part``, rounded down or up."""
    span = range(max(1, full // (part + 1)), full // max(1, part - 1) + 2)
    return {k for k in span if part in (full // k, -(-full // k))}


def physical_raster(bounds: Box, mpp_level0: Mpp, target_mpp: float) -> Raster:
    """The raster that covers ``bounds`` (level-0 pixels) with square pixels of exactly ``target_mpp`` micrometres.

    The last column and row may reach past the bounds; what lies there reads as background.
    """
    sx, sy = target_mpp / mpp_level0.x, target_mpp / mpp_level0.y
    # 1e-6: a slide of exactly n pixels must not gain an empty column from rounding
    width, height = math.ceil(bounds.width / sx - 1e-6), math.ceil(bounds.height / sy - 1e-6)
    return Raster(float(bounds.x), float(bounds.y), sx, sy, max(1, width), max(1, height))


def patch_rasters(
    centres_level0: ArrayLike,
    mpp_level0: Mpp,
    patch_px: int,
    patch_mpp: float,
    *,
    bounds: Box | None = None,
    step: tuple[int, int] = (1, 1),
) -> list[Raster]:
    """Patches of ``patch_px`` square pixels at exactly ``patch_mpp`` centred on level-0 points (N, 2).

    The top-left corners are rounded to whole level-0 pixels, so that what is recorded is what was read. A patch that
    would reach past ``bounds`` (level-0 pixels) is moved inside: it still covers what its cell has of the slide, and
    shows tissue where it would have shown padding. With a ``step`` (level-0 pixels along x and y) corners go to the
    nearest multiple of it, along each axis where that stays inside the bounds.
    """
    scale = np.array([patch_mpp / mpp_level0.x, patch_mpp / mpp_level0.y])
    corners = np.rint(np.asarray(centres_level0, np.float64).reshape(-1, 2) - scale * (patch_px / 2))
    snapped = np.rint(corners / step) * step
    if bounds is not None:
        first = np.array([bounds.x, bounds.y])
        last = np.floor(first + np.array([bounds.width, bounds.height]) - scale * patch_px + 1e-6)
        corners = np.maximum(np.minimum(corners, last), first)  # a slide smaller than a patch begins with it
        snapped = np.rint(corners / step) * step
        snapped = np.where((first <= snapped) & (snapped <= last), snapped, corners)
    return [Raster(float(x), float(y), float(scale[0]), float(scale[1]), patch_px, patch_px) for x, y in snapped]


def tile_step(level: Raster, tile: tuple[int, int], patch: Raster) -> tuple[int, int]:
    """Level-0 pixels along x and y between corners at which patches cross no border of the level's tiles needlessly.

    It is a tile's side; of patches that fit a tile several times it is the whole fraction of that side which just holds
    one, so that neighbouring patches stay apart. 1 where it would not be whole level-0 pixels.

    Args:
        level: that is read.
        tile: (width, height) of its tiles, in its pixels.
        patch: of the patches' size and scale.
    """

    def along(side: int, level_scale: float, extent: float) -> int:
        fits = max(1, math.floor(side * level_scale / extent + 1e-6))
        parts = next(parts for parts in range(min(fits, side), 0, -1) if side % parts == 0)
        step = side // parts * level_scale
        return round(step) if step.is_integer() else 1

    return (
        along(tile[0], level.scale_x, patch.scale_x * patch.width),
        along(tile[1], level.scale_y, patch.scale_y * patch.height),
    )


def choose_level(levels: Sequence[Raster], target: Raster, tolerance: float = LEVEL_TOLERANCE) -> int:
    """Index of the coarsest level that is still fine enough for ``target``.

    Raises:
        ResolutionError: even the finest level is more than ``tolerance`` coarser than ``target``.
    """
    fit = [
        i
        for i, level in enumerate(levels)
        if level.scale_x <= target.scale_x * (1 + tolerance) and level.scale_y <= target.scale_y * (1 + tolerance)
    ]
    if not fit:
        finest = min(levels, key=lambda level: level.scale_x * level.scale_y)
        ratio = max(finest.scale_x / target.scale_x, finest.scale_y / target.scale_y)
        raise ResolutionError(f"asked for pixels {ratio:.3g}x finer than the slide's finest level")
    return max(fit, key=lambda i: levels[i].scale_x * levels[i].scale_y)
