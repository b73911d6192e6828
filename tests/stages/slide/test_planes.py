"""A level as tifffile decodes it: JPEG tiles that can be copied, and streams that claim more than a tile."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from makers import change_bytes, change_tags, empty_tile, page_of, tissue_pixels
from numpy.typing import NDArray

from stages.geometry import Box
from stages.pyramid.cache import cache_pyramid
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.planes import PlaneTiles
from stages.slide.tiff import TiffTiles


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return tissue_pixels(500, 300, margin=0)


def write(path: Path, image: NDArray[Any], **options: Any) -> Path:
    tifffile.imwrite(path, image, photometric="rgb", tile=(128, 128), ome=True, **options)
    return path


@pytest.mark.parametrize("colour", ["rgb", "ycbcr"])
def test_jpeg_tiles_of_an_ome_tiff_are_its_own(tmp_path: Path, image: NDArray[np.uint8], colour: str) -> None:
    """They are decoded as those of any slide, to the same as tifffile does, and copied into a pyramid as they are."""
    space = {"outcolorspace": colour}
    path = write(tmp_path / "a.ome.tif", image, compression="jpeg", compressionargs={"level": 85, **space})
    slide = open_slide(path, mpp=0.5)
    tiles = slide.tiles(0)
    assert isinstance(tiles, TiffTiles)
    with tifffile.TiffFile(path) as tiff:
        np.testing.assert_array_equal(slide.read_level(0, Box(0, 0, 500, 300)), tiff.asarray())
    cache_pyramid(slide, tmp_path / "a.zarr", profile="native")
    assert tiles.stored(0, 0)[-100:] in b"".join(
        p.read_bytes() for p in (tmp_path / "a.zarr/0/c").rglob("*") if p.is_file()
    )


@pytest.mark.parametrize("compression", ["jpeg", "jpeg planes", "jpeg2000", "webp"])
def test_a_stream_that_claims_more_than_a_tile_is_not_decoded(
    tmp_path: Path, image: NDArray[np.uint8], compression: str
) -> None:
    """Decoders allocate what it claims, and a few bytes can claim all of a machine's memory."""
    path, stored, options = tmp_path / "a.ome.tif", image, {"compression": compression.split()[0]}
    if compression == "jpeg planes":
        stored = np.ascontiguousarray(image.transpose(2, 0, 1))
        options["planarconfig"] = "separate"
    write(path, stored, **options)
    page, data = page_of(path), path.read_bytes()
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        marker, skipped, claim = {
            "jpeg2000": (b"\xff\x4f\xff\x51", 8, struct.pack(">2I", 65500, 65500)),
            "webp": (b"VP8L", 9, struct.pack("<I", 15999 | 15999 << 14)),
        }.get(compression, (b"\xff\xc0", 5, struct.pack(">HH", 65500, 65500)))
        change_bytes(path, data.index(marker, offset, offset + size) + skipped, claim)
    slide = open_slide(path)
    assert isinstance(slide.tiles(0), PlaneTiles)
    with pytest.raises(SlideError, match=r"holds (65500 x 65500|16000 x 16000) pixels, not the file's"):
        slide.read_level(0, Box(0, 0, 10, 10))


def test_a_tile_that_is_not_there_is_background(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """In one of its planes is enough: of two colours no third can be made."""
    path = write(tmp_path / "a.tif", np.ascontiguousarray(image.transpose(2, 0, 1)), planarconfig="separate")
    empty_tile(path, 0, 12)  # the first of the second plane
    pixels = open_slide(path).read_level(0, Box(0, 0, 500, 300))
    assert (pixels[:128, :128] == 255).all()
    np.testing.assert_array_equal(pixels[128:], image[128:])


def test_a_compression_that_is_not_read_is_named(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    path = change_tags(write(tmp_path / "a.ome.tif", image, compression="zlib"), Compression=34676)
    with pytest.raises(SlideError, match=r"Unsupported TIFF compression: SGILOG; convert it to a tiled pyramid"):
        open_slide(path)
