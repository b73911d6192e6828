"""A Leica SCN slide that the tests make for themselves: the one format at hand whose files state bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

_NM = 500
"""Of a pixel."""


def write_scn(path: Path, image: NDArray[np.uint8], corner: tuple[int, int], slide: tuple[int, int]) -> Path:
    """Write a scan of two levels at ``corner`` (x, y) of a slide of (width, height), all in level-0 pixels."""
    height, width = image.shape[:2]
    small = image[: height // 4 * 4, : width // 4 * 4].reshape(height // 4, 4, width // 4, 4, 3).mean((1, 3))
    macro = np.full((slide[1] // 32, slide[0] // 32, 3), 235, np.uint8)
    pages = [(macro, 32), (image, 1), (small.round().astype(np.uint8), 4)]

    def part(
        name: str, pages: list[tuple[int, NDArray[np.uint8]]], box: tuple[int, int, int, int], power: float
    ) -> str:
        x, y, w, h = (side * _NM for side in box)
        levels = "".join(
            f'<dimension sizeX="{p.shape[1]}" sizeY="{p.shape[0]}" r="{r}" ifd="{i}"/>'
            for r, (i, p) in enumerate(pages)
        )
        full = pages[0][1]
        return (
            f'<image name="{name}" uuid="{name}"><creationDate>2020-01-01T00:00:00Z</creationDate>'
            '<device model="Leica SCN400;Leica SCN" version="1"/>'
            f'<pixels sizeX="{full.shape[1]}" sizeY="{full.shape[0]}">{levels}</pixels>'
            f'<view sizeX="{w}" sizeY="{h}" offsetX="{x}" offsetY="{y}" spacingZ="0"/><scanSettings>'
            f"<objectiveSettings><objective>{power}</objective></objectiveSettings><illuminationSettings>"
            "<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource>"
            "</illuminationSettings></scanSettings></image>"
        )

    images = part("macro", [(0, macro)], (0, 0, *slide), 0.6)
    images += part("scan", [(1, pages[1][0]), (2, pages[2][0])], (*corner, width, height), 20)
    text = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01" uuid="u">'
        f'<collection name="c" uuid="c" sizeX="{slide[0] * _NM}" sizeY="{slide[1] * _NM}"><barcode>x</barcode>'
        f"{images}</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, (picture, factor) in enumerate(pages):
            tiff.write(
                picture,
                photometric="rgb",
                tile=(256, 256),
                compression="jpeg",
                description=None if number else text,
                metadata=None,
                resolution=(1e7 / _NM / factor,) * 2,
                resolutionunit="CENTIMETER",
            )
    return path
