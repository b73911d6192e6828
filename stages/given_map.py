"""Maps of a slide that somebody else made, as a share for each cell: where to look, by another network or by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box, Mpp, Raster
from stages.slide.ome import read_ome

SUFFIXES = (".npy", ".png", ".tif", ".tiff", ".ome.tif", ".ome.tiff")
ASPECT = 0.02
"""How far a map's aspect may be from the slide's beside the rounding of its own sides."""


class MapError(ValueError):
    """A map that is not there, or that cannot be one of this slide."""


def find_map(folder: Path, slide_id: str, suffixes: Sequence[str] = SUFFIXES) -> Path:
    """The map of a slide in a folder of them: ``<slide_id>`` and one of these suffixes.

    Raises:
        MapError: there is none, or more than one.
    """
    found = [path for suffix in suffixes if (path := folder / f"{slide_id}{suffix}").is_file()]
    if len(found) != 1:
        told = " and ".join(path.name for path in found) or "none"
        raise MapError(f"expected one map {slide_id}{suffixes[0]}, {', '.join(suffixes[1:])} in {folder}, found {told}")
    return found[0]


def read_map(path: Path) -> NDArray[np.float64]:
    """Values (H, W) of a map: one channel, of any scale, none negative and not all 0.

    Raises:
        MapError: it cannot be read, or is not that.
    """
    try:
        values = _values(path)
    except Exception as exc:  # Pillow, tifffile and codecs raise their own types; to the caller it is one thing
        raise MapError(f"cannot read the map {path}: {exc}; give a file .npy, .png or .tif of one channel") from exc
    if values.ndim != 2 or not values.size or values.dtype.kind not in "buif":
        raise MapError(
            f"the map {path} has values of shape {values.shape} and type {values.dtype}, expected numbers (H, W)"
        )
    found = values.astype(np.float64)
    bad = ~(found >= 0) | np.isinf(found)  # NaN compares false
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        raise MapError(
            f"the map {path} has {int(bad.sum())} values that are negative or not finite, the first "
            f"{found[row, column]} at row {row}, column {column}: shares of attention are numbers from 0 up"
        )
    if not found.any():
        raise MapError(f"the map {path} is 0 everywhere: it does not say where to look")
    return found


def stated_mpp(path: Path) -> Mpp | None:
    """µm per pixel of a map as OME-TIFFs state them; None where none are.

    Raises:
        MapError: it cannot be read.
    """
    if not path.name.endswith((".tif", ".tiff")):
        return None
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            images = read_ome(tiff.ome_metadata or "")
    except (OSError, ValueError) as exc:
        raise MapError(f"cannot read the map {path}: {exc}; give a file .npy, .png or .tif of one channel") from exc
    return images[0].mpp if images else None


def by_mpp(shape: tuple[int, ...], stated: Mpp, *, level0: tuple[int, int], bounds: Box, mpp: Mpp) -> Raster:
    """Where the pixels of a map lie that states its µm per pixel: by them it covers the whole slide, or what was
    scanned of it, as programs show it that crop slides to their bounds.

    Args:
        shape: (H, W) of the map.
        stated: its µm per pixel.
        level0: see `edge_to_edge`.
        bounds: of what was scanned, level-0 pixels.
        mpp: µm per level-0 pixel.

    Raises:
        MapError: it covers neither.
    """
    height, width = shape
    own = np.array([width * stated.x / mpp.x, height * stated.y / mpp.y])
    slack = np.array([stated.x / mpp.x, stated.y / mpp.y])  # sides are rounded to whole pixels
    for corner, size in (((0, 0), level0), ((bounds.x, bounds.y), (bounds.width, bounds.height))):
        if (np.abs(own - size) <= ASPECT * np.array(size) + slack).all():
            scale_x, scale_y = (float(v) for v in slack)
            return Raster(*corner, scale_x, scale_y, width, height)
    raise MapError(
        f"the map is of {own[0]:.0f} x {own[1]:.0f} level-0 px by its {stated} µm/px, the slide of {level0[0]} x "
        f"{level0[1]} px, scanned are {bounds.width} x {bounds.height} px: it is another slide's, or states another "
        "resolution; give one that covers either"
    )


def edge_to_edge(shape: tuple[int, ...], *, level0: tuple[int, int]) -> Raster:
    """Where the pixels of a map lie that covers all of level 0.

    Args:
        shape: (H, W) of the map.
        level0: width and height of the slide in level-0 pixels.

    Raises:
        MapError: the map's sides do not have the slide's aspect.
    """
    (height, width), (across, down) = shape, level0
    # a side may be rounded by a pixel
    off = abs(math.log(width / height) - math.log(across / down))
    if off > ASPECT + 1 / width + 1 / height:
        raise MapError(
            f"the map is of {width} x {height} px, aspect {width / height:.4g}, the slide of {across} x {down} px, "
            f"aspect {across / down:.4g}: give a map that covers the whole slide, and nothing else"
        )
    return Raster(0, 0, across / width, down / height, width, height)


def in_cells(values: NDArray[np.float64], pixels: Raster, cells: Raster) -> NDArray[np.float64]:
    """How much of values (H, W), none negative, constant in each of ``pixels``, lies in each cell, (rows, columns)."""
    total = np.zeros((pixels.height + 1, pixels.width + 1))
    total[1:, 1:] = values.cumsum(0).cumsum(1)
    place = cells.within(pixels)
    rows = _between(total, [place.y + i * place.scale_y for i in range(cells.height + 1)])
    sums = _between(rows.T, [place.x + i * place.scale_x for i in range(cells.width + 1)]).T  # of all above and left
    within: NDArray[np.float64] = np.diff(np.diff(sums, axis=0), axis=1).clip(min=0)
    return within


def _between(total: NDArray[np.float64], places: list[float]) -> NDArray[np.float64]:
    """Rows of a table at places between them; the first and the last beyond its ends."""
    at = np.array(places).clip(0, len(total) - 1)
    low = np.floor(at).astype(np.int64).clip(max=len(total) - 2)
    share = (at - low)[:, None]
    found: NDArray[np.float64] = (1 - share) * total[low] + share * total[low + 1]
    return found


def _values(path: Path) -> NDArray[np.generic]:
    if path.suffix == ".npy":
        loaded: NDArray[np.generic] = np.load(path, allow_pickle=False)
        return loaded
    if path.suffix in (".tif", ".tiff"):
        import tifffile

        return np.asarray(tifffile.imread(path))
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)
