"""Whether the arrays of an OME-Zarr image are levels of a slide, by pixels, place and chunks; or why they are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from stages.geometry import Raster, level_raster
from stages.pyramid.multiscales import Dataset, Multiscales
from stages.slide.facts import MAX_PIXELS, MAX_SIDE, MAX_TILE_PIXELS, MAX_TILES, SlideError

SLOW_PIXELS = 2**22
"""A chunk of more is named: each must be decoded whole, however little of it is wanted."""
WRITTEN = 1e-4
"""Share by which scales that were written in a few digits are off; a slide of 100 000 px then ends 10 px off."""
OFF = 0.02
"""Share of a slide's side by which a level's scale and its size may disagree, beside a pixel and a half of its own."""


def pixel_remarks(array: Any, said: Multiscales) -> list[str]:
    """What to know of an image whose pixels can be shown as RGB.

    Raises:
        SlideError: they cannot.
    """
    for axis, length in zip(said.axes, array.shape, strict=True):
        if axis not in ("c", "y", "x") and length > 1:
            what = {"z": "focal planes (z)", "t": "time points (t)"}.get(axis, f"places along its axis {axis}")
            raise SlideError(f"it has {length} {what}, and a slide is one plane: write the one that is meant by itself")
    if array.dtype != np.uint8:
        raise SlideError(
            f"its samples are {array.dtype}, and a slide is read as RGB of 8 bits: convert it, scaled by its true range"
        )
    count = array.shape[said.axes.index("c")] if "c" in said.axes else 1
    if count == 1:
        return ["it has one channel: it is read as grey"]
    labels = ", ".join(label or colour or "?" for label, colour in said.channels[:8])
    named = f" ({labels})" if labels else ""
    if count not in (3, 4) or (count == 4 and not _is_rgb(said, stated=True)):
        raise SlideError(
            f"it has {count} channels{named}, and a slide is read as RGB: write the three that are red, green and blue"
        )
    if not _is_rgb(said, stated=False):
        raise SlideError(
            f"its three channels{named} are not red, green and blue in this order: write an RGB image of it"
        )
    return ["its fourth channel is not read"] if count == 4 else []


def _is_rgb(said: Multiscales, *, stated: bool) -> bool:
    """Whether the first three channels are said to be red, green and blue; where nothing is said, not ``stated``."""
    labels, colours = zip(*said.channels[:3], strict=True) if len(said.channels) >= 3 else ((), ())
    if colours == ("ff0000", "00ff00", "0000ff") or labels in (("red", "green", "blue"), ("r", "g", "b")):
        return True
    return not stated and len(set(colours)) <= 1  # writers give every channel white or grey where they know nothing


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


def chunk_remarks(name: str, level: Raster, array: Any, axes: Sequence[str]) -> list[str]:
    """What to know of how a level is stored.

    Raises:
        SlideError: it claims absurd dimensions, or has chunks that cannot be read for a part of them.
    """
    width, height = (array.chunks[axes.index(axis)] for axis in "xy")
    if not (0 < level.width <= MAX_SIDE and 0 < level.height <= MAX_SIDE and level.width * level.height <= MAX_PIXELS):
        raise SlideError(f"level {name} claims {level.width} x {level.height} pixels: refused, damaged or hostile")
    if math.prod(-(-side // chunk) for side, chunk in zip(array.shape, array.chunks, strict=True)) > MAX_TILES:
        raise SlideError(f"level {name} claims more than {MAX_TILES} chunks: refused, damaged or hostile")
    used = min(width, level.width) * min(height, level.height)
    if used > MAX_TILE_PIXELS:
        raise SlideError(
            f"level {name} has chunks of {width} x {height} pixels, each of which must be decoded whole: "
            "write it again in chunks of 256 to 1024 pixels"
        )
    if used > SLOW_PIXELS:
        return [
            f"level {name} has chunks of {width} x {height} pixels, each of which is decoded whole: slow; "
            "`saccade cache` makes a pyramid of it that is not"
        ]
    return []


def gap_remarks(name: str, array: Any, files: int) -> list[str]:
    """What to know of chunks that are not there.

    Args:
        name: of the level.
        array: the level's.
        files: how many its folder holds.

    Raises:
        SlideError: all of them are missing.
    """
    wanted = math.prod(-(-side // part) for side, part in zip(array.shape, array.shards or array.chunks, strict=True))
    if not files:
        raise SlideError(f"level {name} has none of its chunks: copy the folder again, with all that is in it")
    if files < wanted:
        return [f"level {name} lacks {wanted - files} of {wanted} chunks: what they hold is read as {array.fill_value}"]
    return []
