"""Whether the arrays of an OME-Zarr image are levels of a slide, by pixels, place and chunks; or why they are not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from stages.geometry import Raster, level_raster
from stages.pyramid.arrays import Plane
from stages.pyramid.multiscales import Dataset, Multiscales
from stages.slide.channels import choose_channels, choose_place
from stages.slide.facts import MAX_PIXELS, MAX_SIDE, MAX_TILE_PIXELS, MAX_TILES, SlideError

WRITTEN = 1e-4
"""Share by which scales that were written in a few digits are off; a slide of 100 000 px then ends 10 px off."""
OFF = 0.02
"""Share of a slide's side by which a level's scale and its size may disagree, beside a pixel and a half of its own."""


def choose_plane(array: Any, said: Multiscales, warnings: list[str]) -> Plane:
    """What is read of an image: red, green and blue, or grey; the middle one of focal planes, the first point in time.

    Args:
        array: its finest level.
        said: what its metadata says of it.
        warnings: where what was chosen is added.

    Raises:
        SlideError: its samples are no colours of 8 bits, or it has axes that say nothing.
    """
    if array.dtype != np.uint8:
        raise SlideError(
            f"its samples are {array.dtype}, and RGB of 8 bits is read: convert it, scaled by its true range"
        )
    at: list[tuple[int, ...]] = []
    for axis, size in zip(said.axes, array.shape, strict=True):
        if axis in ("y", "x"):
            at.append(())
        elif axis == "c":
            at.append(choose_channels(size, said.channels, warnings))
        else:
            place = choose_place(axis, size, warnings)
            if place is None:
                raise SlideError(
                    f"it has {size} places along an axis {axis!r}: save the one to be read as an image of its own"
                )
            at.append((place,))
    return Plane(said.axes, tuple(at))


def place_level(first: Dataset, size: tuple[int, int], dataset: Dataset, own: tuple[int, int]) -> Raster | str:
    """A level in the frame of level 0, or why it is no level of it.

    Scales are as stated where they are. Translations are those of pixels' centres; writers that state none, or the same
    for all levels, mean levels that begin at one edge.

    Args:
        first, dataset: what is said of level 0 and of the level.
        size, own: (width, height) of both, in pixels of each.
    """
    if first.scale is None or dataset.scale is None:
        raster = level_raster(size, own)
        scale_x, scale_y, x, y = raster.scale_x, raster.scale_y, 0.0, 0.0
    else:
        scale_y, scale_x = (_whole(a / b) for a, b in zip(dataset.scale, first.scale, strict=True))
        x = y = 0.0
        if dataset.translation != first.translation:
            moves = zip(dataset.translation, first.translation, first.scale, strict=True)
            y, x = (
                round((there - here) / unit - (scale - 1) / 2, 6)
                for (there, here, unit), scale in zip(moves, (scale_y, scale_x), strict=True)
            )
    for full, part, scale in ((size[0], own[0], scale_x), (size[1], own[1], scale_y)):
        if abs(part * scale - full) > max(1.5 * scale, OFF * full):
            return f"its metadata says {scale:.4g} times coarser, its size {full / part:.4g} times"
    if abs(scale_x / scale_y - 1) > 0.1 and min(own) > 16:
        return f"it is {scale_x:.4g} times coarser along x and {scale_y:.4g} times along y"
    if abs(x) > 1.5 * scale_x or abs(y) > 1.5 * scale_y:
        return f"its metadata puts its corner at ({x:.4g}, {y:.4g}), not at that of the image"
    return Raster(x, y, scale_x, scale_y, *own)


def _whole(scale: float) -> float:
    """A factor without what was lost where it was written in a few digits."""
    return float(round(scale)) if abs(scale / max(1, round(scale)) - 1) < WRITTEN else scale


def refuse_absurd(name: str, level: Raster, array: Any, plane: Plane) -> None:
    """Raise `SlideError` where a level claims absurd dimensions, or chunks that are too large to read a part of."""
    width, height = array.chunks[plane.x], array.chunks[plane.y]
    if not (0 < level.width <= MAX_SIDE and 0 < level.height <= MAX_SIDE and level.width * level.height <= MAX_PIXELS):
        raise SlideError(f"level {name} claims {level.width} x {level.height} pixels: refused, damaged or hostile")
    if math.prod(-(-side // chunk) for side, chunk in zip(array.shape, array.chunks, strict=True)) > MAX_TILES:
        raise SlideError(f"level {name} claims more than {MAX_TILES} chunks: refused, damaged or hostile")
    if min(width, level.width) * min(height, level.height) > MAX_TILE_PIXELS:
        raise SlideError(
            f"level {name} has chunks of {width} x {height} pixels, each of which must be decoded whole: "
            "write it again in chunks of 256 to 1024 pixels"
        )


def warn_of_gaps(name: str, array: Any, files: int, warnings: list[str]) -> None:
    """Say which chunks are not there.

    Args:
        name: of the level.
        array: the level's.
        files: how many its folder holds.
        warnings: where that is added.

    Raises:
        SlideError: all of them are missing.
    """
    wanted = math.prod(-(-side // part) for side, part in zip(array.shape, array.shards or array.chunks, strict=True))
    if not files:
        raise SlideError(f"level {name} has none of its chunks: copy the folder again, with all that is in it")
    if files < wanted:
        warnings.append(
            f"level {name} lacks {wanted - files} of {wanted} chunks: what they hold is read as {array.fill_value}"
        )
