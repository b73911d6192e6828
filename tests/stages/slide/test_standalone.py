"""What is passed through is the picture that is rendered, to the pixel, and never one that rendering would refuse."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from makers import change_bytes, empty_tile, page_of, tissue_pixels, write_slide
from numpy.typing import NDArray
from PIL import Image

from stages.geometry import Raster
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide import jpeg
from stages.slide.facts import SlideError
from stages.slide.protocol import Slide
from stages.slide.render import render
from stages.slide.standalone import standalone, stored_jpeg

YCBCR = jpeg.prefix(None, "ycbcr")


def decoded(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def grid(slide: Slide, level: int) -> list[Raster]:
    """The rasters of all tiles of a level, those at its edges whole."""
    at, tiles = slide.facts.levels[level], slide.tiles(level)
    assert tiles is not None
    width, height = tiles.tile
    return [at.part(x, y, width, height) for y in range(0, at.height, height) for x in range(0, at.width, width)]


def assert_passed(slide: Slide) -> int:
    """Whole tiles are passed and show what is rendered; others are not. How many were."""
    passed = 0
    for level, raster in ((n, one) for n in range(len(slide.facts.levels)) for one in grid(slide, n)):
        at, found = slide.facts.levels[level], stored_jpeg(slide, raster)
        end = raster.within(at).extent_level0
        assert (found is not None) == (end[2] <= at.width and end[3] <= at.height)
        if found is not None:
            np.testing.assert_array_equal(decoded(found), render(slide, raster))
            passed += 1
    return passed


@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": (2, 2)},
        {"subsampling": (2, 1), "tile": 512},
        {"subsampling": (1, 1), "tile": 240},
        {"subsampling": (1, 1), "factor": 4, "levels": 2},
    ],
    ids=["4:2:0", "4:2:2, 512 px", "4:4:4, 240 px", "4 times coarser"],
)
def test_a_tile_that_is_passed_is_what_is_rendered(tmp_path: Path, options: dict[str, Any]) -> None:
    slide = open_pyramid(write_slide(tmp_path / "a.tif", tissue_pixels(1203, 1405, margin=0.1), **options))
    assert assert_passed(slide) > 4


def test_a_tile_of_rgb_is_passed_as_that(tmp_path: Path) -> None:
    image, how = tissue_pixels(1203, 1405, margin=0.1), {"level": 80, "outcolorspace": "rgb"}
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        options = {"photometric": "rgb", "compression": "jpeg", "compressionargs": how, "subsampling": (1, 1)}
        tiff.write(image, tile=(256, 256), resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **options)
    slide = open_pyramid(tmp_path / "a.tif")
    assert slide.tiles(0).jpeg.colour == "rgb"
    assert assert_passed(slide) > 4


@pytest.mark.realdata
def test_a_scanners_tiles_of_shared_tables_are_passed(shared_data: Path) -> None:
    assert assert_passed(open_pyramid(shared_data / "slides/CMU-1-Small-Region.svs")) == 9 * 12


def test_tiles_of_a_portable_pyramid_are_passed(tmp_path: Path) -> None:
    slide = open_pyramid(write_slide(tmp_path / "a.tif", tissue_pixels(1203, 1405, margin=0.1)))
    cache_pyramid(slide, tmp_path / "a.zarr")
    pyramid = open_pyramid(tmp_path / "a.zarr")
    assert pyramid.tiles(0).prefix
    assert assert_passed(pyramid) > 4


def test_what_is_not_just_a_tile_is_rendered(tmp_path: Path) -> None:
    slide = open_pyramid(write_slide(tmp_path / "a.tif", tissue_pixels(1024, 1024, margin=0)))
    assert stored_jpeg(slide, Raster(256, 256, 1, 1, 256, 256)) is not None
    for other in (
        Raster(257, 256, 1, 1, 256, 256),
        Raster(256, 256.5, 1, 1, 256, 256),
        Raster(256, 256, 1, 1.004, 256, 256),
        Raster(256, 256, 1, 1, 512, 512),
        Raster(256, 256, 1, 1, 128, 256),
        Raster(-256, 256, 1, 1, 256, 256),
        Raster(256, 1024, 1, 1, 256, 256),
        Raster(0, 0, 8, 8, 256, 256),
    ):
        assert stored_jpeg(slide, other) is None, other
    plain = open_pyramid(write_slide(tmp_path / "b.tif", tissue_pixels(1024, 1024), compression="deflate"))
    assert plain.direct(0)
    assert stored_jpeg(plain, Raster(256, 256, 1, 1, 256, 256)) is None
    blank = write_slide(tmp_path / "c.tif", tissue_pixels(1024, 1024, margin=0))
    empty_tile(blank, 0, 5)
    assert stored_jpeg(open_pyramid(blank), Raster(256, 256, 1, 1, 256, 256)) is None


def test_no_damage_that_rendering_tells_is_passed(tmp_path: Path) -> None:
    """Bytes of one tile are changed, lost or cut in many ways: what is passed is just what still renders."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(512, 512, margin=0), levels=1)
    at, size = page_of(path).dataoffsets[0], page_of(path).databytecounts[0]
    whole, rng = path.read_bytes()[at : at + size], np.random.default_rng(0)
    slide = open_pyramid(path)
    slide.tiles(0)
    refused = 0
    for trial in range(150):
        spoilt, where = bytearray(whole), int(rng.integers(size))
        if trial % 3 == 0:
            spoilt[where] ^= 1 << int(rng.integers(8))
        elif trial % 3 == 1:
            spoilt[where:] = bytes(size - where)
        else:
            some = min(200, size - where)
            spoilt[where : where + some] = rng.bytes(some)
        change_bytes(path, at, bytes(spoilt))
        slide = open_pyramid(path)
        try:
            rendered = render(slide, Raster(0, 0, 1, 1, 256, 256))
        except SlideError:
            rendered = None
        passed = stored_jpeg(slide, Raster(0, 0, 1, 1, 256, 256))
        refused += rendered is None
        if rendered is None:
            assert passed is None, (trial, where)
        elif passed is not None:
            np.testing.assert_array_equal(decoded(passed), rendered)
    assert 50 < refused < 150


def encoded(**options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tissue_pixels(256, 256, margin=0)).save(file, "JPEG", **options)
    return file.getvalue()


def test_only_plain_streams_are_passed() -> None:
    """An orientation, a profile of colours or another kind of JPEG would be shown otherwise, wherever it is said."""
    size, plain = (256, 256), encoded()
    assert standalone(plain, YCBCR, size) is not None
    assert standalone(encoded(comment=b"of a scanner"), YCBCR, size) is not None
    with_orientation = Image.Exif()
    with_orientation[0x0112] = 6
    turned = encoded(exif=with_orientation)
    passed = standalone(turned, YCBCR, size)
    assert passed is not None
    assert b"Exif" not in passed, "what stands in front is left out, as it is when a tile is decoded"
    np.testing.assert_array_equal(decoded(passed), jpeg.decode(turned, YCBCR, size))
    exif = turned[turned.index(b"\xff\xe1") :][: 2 + int.from_bytes(turned[turned.index(b"\xff\xe1") + 2 :][:2], "big")]
    table = plain.index(b"\xff\xc0")
    behind = plain[:table] + exif + plain[table:]
    np.testing.assert_array_equal(jpeg.decode(behind, YCBCR, size), decoded(plain))
    assert standalone(behind, YCBCR, size) is None
    progressive = encoded(progressive=True)
    np.testing.assert_array_equal(jpeg.decode(progressive, YCBCR, size), decoded(progressive))
    assert standalone(progressive, YCBCR, size) is None
    grey = io.BytesIO()
    Image.fromarray(tissue_pixels(256, 256)).convert("L").save(grey, "JPEG")
    assert standalone(grey.getvalue(), YCBCR, size) is None
