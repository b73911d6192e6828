"""Maps of a slide as pyramidal TIFFs: OME-TIFF of 32-bit floats, and colours for what opens nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import on_raster
from stages.overlay.picture import coloured

if TYPE_CHECKING:
    from tifffile import TiffWriter

PARTS = 8
"""Pixels along a cell, so that programs that smooth what they show smooth its edges only."""
TILE = 256
GLASS = 255


def pyramid_rasters(size: tuple[int, int], raster: Raster) -> list[Raster]:
    """The rasters of a map's levels: a cell is `PARTS` pixels of the first, each is half as large as the one before.

    The first pixel's outer corner is level 0's. All reach past the right and lower edge of the slide as far as sizes
    that halve without a remainder do: readers take a level's scale for the quotient of sizes.

    Args:
        size: (width, height) of level 0.
        raster: of the cells.
    """
    fine = raster.divided(PARTS)
    sides = [full / scale for full, scale in zip(size, (fine.scale_x, fine.scale_y), strict=True)]
    halvings = 0
    while max(sides) / 2**halvings > TILE:
        halvings += 1
    width, height = (2**halvings * max(1, int(np.ceil(side / 2**halvings - 1e-6))) for side in sides)
    return [
        Raster(0.0, 0.0, fine.scale_x * 2**k, fine.scale_y * 2**k, width >> k, height >> k) for k in range(halvings + 1)
    ]


def write_ome_tiff(
    path: Path, maps: Mapping[str, NDArray[np.floating]], raster: Raster, *, size: tuple[int, int], mpp: Mpp, name: str
) -> None:
    """Write maps (rows, cols) as the channels of an OME-TIFF of float32, whose levels are SubIFDs.

    Its pixels are squares of the slide of `PARTS` to a cell, its corner is the slide's, and the physical size of a
    pixel is in µm, so that ``µm = pixel * size`` holds of it and of the slide.

    Args:
        path: the file.
        maps: by name; their cells lie on ``raster``.
        size: (width, height) of level 0.
        mpp: µm per level-0 pixel.
        name: of the image.
    """
    import tifffile

    levels = pyramid_rasters(size, raster)
    first = levels[0]
    metadata = {
        "axes": "CYX",
        "Name": name,
        "PhysicalSizeX": first.scale_x * mpp.x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": first.scale_y * mpp.y,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": list(maps)},
    }
    with tifffile.TiffWriter(path, ome=True) as tiff:  # no predictor: Bio-Formats knows none of floats
        for number, level in enumerate(levels):
            values = np.stack([on_raster(one, raster, level) for one in maps.values()]).astype(np.float32)
            how: dict[str, Any] = (
                {"subifds": len(levels) - 1, "metadata": metadata} if number == 0 else {"subfiletype": 1}
            )
            _write(tiff, values, level, mpp, photometric="minisblack", predictor=False, **how)


def write_colours(
    path: Path, multiple: NDArray[np.floating], raster: Raster, *, size: tuple[int, int], mpp: Mpp
) -> None:
    """Write attention in multiples of uniform attention (rows, cols) in the overlay's colours on white, as a TIFF that
    OpenSlide and libvips take for a slide: RGB, tiles, each level a page that is half as large as the one before.

    Args:
        path: the file.
        multiple: the map.
        raster: of its cells.
        size: (width, height) of level 0.
        mpp: µm per level-0 pixel.
    """
    import tifffile

    top = max(2.0, float(multiple.max(initial=0.0)))
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(pyramid_rasters(size, raster)):
            layer = coloured(on_raster(multiple, raster, level), top).astype(np.float64)
            opacity = layer[..., 3:] / 255
            rgb = np.rint(layer[..., :3] * opacity + GLASS * (1 - opacity)).astype(np.uint8)
            _write(tiff, rgb, level, mpp, photometric="rgb", predictor=2, metadata=None, subfiletype=int(number > 0))


def _write(tiff: TiffWriter, pixels: NDArray[np.generic], level: Raster, mpp: Mpp, **how: Any) -> None:
    tiff.write(
        pixels,
        tile=(TILE, TILE),
        compression="zlib",
        resolution=(1e4 / (level.scale_x * mpp.x), 1e4 / (level.scale_y * mpp.y)),
        resolutionunit="CENTIMETER",
        **how,
    )
