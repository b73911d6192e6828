"""The thumbnail that a run kept of a slide: whole, or the part of it that stands for a tile.

A slide without coarse levels would be read whole for the tiles that show much of it; the run has done that already.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.output.slide_folder import THUMBNAIL
from pipeline.view.tiles import jpeg
from stages.geometry import Raster

QUALITY = 85
"""Of small pictures as JPEG."""


def thumbnail_place(folder: Path, pictures: Mapping[str, Any]) -> Raster | None:
    """Where a slide's thumbnail lies; None where there is none.

    Args:
        folder: of the slide's results.
        pictures: what its commit mark says of pictures.
    """
    try:
        x, y, scale_x, scale_y, width, height = pictures["thumbnail"]
        place = Raster(float(x), float(y), float(scale_x), float(scale_y), int(width), int(height))
    except (KeyError, TypeError, ValueError):
        return None
    return place if (folder / THUMBNAIL).is_file() else None


def overview(folder: Path, most: int) -> bytes | None:
    """All of it as JPEG, at most so many pixels along a side; None where there is none."""
    shown = _read(folder, most)
    if shown is None:
        return None
    shown.thumbnail((most, most), Image.Resampling.BOX)
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def part(folder: Path, place: Raster, raster: Raster, background: tuple[int, int, int]) -> bytes | None:
    """The part of it that lies under ``raster``, as JPEG of the raster's size; None where there is none.

    Args:
        folder: of the slide's results.
        place: see `thumbnail_place`.
        raster: as coarse as the thumbnail, or coarser.
        background: RGB beyond it.
    """
    image = _read(folder)
    if image is None:
        return None
    tile = Image.new("RGB", (raster.width, raster.height), background)
    left, upper, right, lower = place.within(raster).extent_level0  # in the tile's pixels
    ends = [round(np.clip(end, 0, most)) for end, most in zip((left, upper, right, lower), tile.size * 2, strict=True)]
    if ends[2] > ends[0] and ends[3] > ends[1]:
        u, v = image.width / (right - left), image.height / (lower - upper)
        x, right_most = (float(np.clip((end - left) * u, 0, image.width)) for end in ends[::2])
        y, lowest = (float(np.clip((end - upper) * v, 0, image.height)) for end in ends[1::2])
        size = (ends[2] - ends[0], ends[3] - ends[1])
        tile.paste(image.resize(size, Image.Resampling.HAMMING, box=(x, y, right_most, lowest)), (ends[0], ends[1]))
    return jpeg(np.asarray(tile))


def _read(folder: Path, most: int | None = None) -> Image.Image | None:
    """It in RGB, decoded no larger than needed for so many pixels along a side."""
    try:
        with Image.open(folder / THUMBNAIL, formats=["JPEG"]) as image:
            if most is not None:
                image.draft("RGB", (most, most))
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
