"""The JPEG codec: chunks are the slide's own tiles, read exactly or not at all, under the name that others know."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import google_crc32c
import imagecodecs
import numpy as np
import pytest
import zarr
from makers import ROOT, tissue_pixels, write_slide
from numpy.typing import NDArray
from zarr.codecs import TransposeCodec

from stages.geometry import Box
from stages.pyramid.codec import JpegCodec
from stages.pyramid.jpeg_metadata import NAME, read_jpeg_metadata
from stages.slide.files import open_slide
from stages.slide.jpeg import JpegTiles
from stages.slide.tiff import TiffTiles, find_level_tiles


def tiles_of(path: Path) -> TiffTiles:
    """The finest level of a JPEG slide."""
    level = open_slide(path).facts.levels[0]
    (tiles,) = find_level_tiles(path, [(level.width, level.height)])
    assert tiles is not None
    assert tiles.jpeg is not None
    return tiles


def jpeg_chunks(tiles: TiffTiles) -> dict[str, Any]:
    """Arguments of `zarr.create_array` for an array (c, y, x) whose chunks are these tiles (y, x, c)."""
    assert tiles.jpeg is not None
    codec = JpegCodec(tiles.jpeg)
    transpose = TransposeCodec(order=(1, 2, 0))
    return {"dtype": "uint8", "filters": [transpose], "serializer": codec, "compressors": None}


def store_tiles(tiles: TiffTiles, folder: Path) -> Path:
    """The tiles, as they are, as the chunks of an array in a group; blank ones as files without a byte."""
    (width, height), (tile_width, tile_height) = tiles.size, tiles.tile
    zarr.create_array(
        zarr.open_group(folder, mode="w").store,
        name="0",
        shape=(3, height, width),
        chunks=(3, tile_height, tile_width),
        fill_value=255,
        zarr_format=3,
        **jpeg_chunks(tiles),
    )
    for row, column in np.ndindex(tiles.byte_counts.shape):
        path = folder / "0" / "c" / "0" / str(row) / str(column)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiles.stored(row, column) if tiles.byte_counts[row, column] else b"")
    return folder


def pixels_of(folder: Path) -> NDArray[np.uint8]:
    """RGB (height, width, 3) of the array in a group, by plain zarr."""
    array: Any = zarr.open_group(folder, mode="r")["0"]
    return np.moveaxis(array[:], 0, -1)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[TiffTiles, Path]:
    """A slide's tiles and the group that holds them, to be spoilt."""
    tiles = tiles_of(write_slide(tmp_path / "slide.tif", tissue_pixels(500, 300), tile=240, levels=1))
    return tiles, store_tiles(tiles, tmp_path / "slide.zarr")


@pytest.mark.parametrize("tile", [240, 256, 512])
def test_chunks_are_the_slides_pixels(tmp_path: Path, tile: int) -> None:
    """Full tiles at the far edges included; to the last bit."""
    tiles = tiles_of(write_slide(tmp_path / "slide.tif", tissue_pixels(701, 533), tile=tile, levels=1))
    folder = store_tiles(tiles, tmp_path / "slide.zarr")
    np.testing.assert_array_equal(pixels_of(folder), tiles.read(Box(0, 0, *tiles.size)))


@pytest.mark.realdata
def test_chunks_of_a_real_slide(shared_data: Path, tmp_path: Path) -> None:
    """Shared tables and components that are RGB, as Aperio stores them."""
    tiles = tiles_of(shared_data / "slides" / "CMU-1-Small-Region.svs")
    assert tiles.jpeg is not None
    assert tiles.jpeg.colour == "rgb"
    assert tiles.jpeg.tables
    folder = store_tiles(tiles, tmp_path / "slide.zarr")
    np.testing.assert_array_equal(pixels_of(folder), tiles.read(Box(0, 0, *tiles.size)))


def test_imagecodecs_reads_the_same_by_the_same_configuration(stored: tuple[TiffTiles, Path]) -> None:
    """The metadata holds what imagecodecs' own codec of this name needs, under its names, and no nulls."""
    tiles, folder = stored
    _, codec = json.loads((folder / "0" / "zarr.json").read_bytes())["codecs"]
    assert codec["name"] == "imagecodecs_jpeg"
    configuration = codec["configuration"]
    assert set(configuration) <= {"tables", "colorspace_data", "colorspace_jpeg"}
    decoded = imagecodecs.jpeg8_decode(
        tiles.stored(0, 0),
        tables=base64.b64decode(configuration["tables"]) if "tables" in configuration else None,
        colorspace=configuration["colorspace_jpeg"],
        outcolorspace=configuration["colorspace_data"],
    )
    np.testing.assert_array_equal(decoded, tiles.pixels(0, 0))


@pytest.mark.parametrize("colour", ["rgb", "ycbcr"])
@pytest.mark.parametrize("tables", [None, b"\xff\xd8\xff\xd9"])
def test_configurations_survive_metadata(tables: bytes | None, colour: Any) -> None:
    codec = JpegCodec(JpegTiles(tables, colour))
    assert JpegCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec


def test_nulls_and_what_only_an_encoder_needs_are_ignored() -> None:
    """As imagecodecs' numcodecs codec writes its configuration: every key, most of them null."""
    keys = ("bitspersample", "tables", "header", "optimize", "smoothing", "lossless", "predictor", "squeeze")
    configuration = {**dict.fromkeys(keys), "level": 90, "subsampling": [2, 2], "colorspace_data": "RGB"}
    named = {"name": NAME, "configuration": {**configuration, "colorspace_jpeg": "YCBCR"}}
    assert read_jpeg_metadata(named) == JpegTiles(None, "ycbcr")


@pytest.mark.parametrize(
    "wrong",
    [
        {"colorspace_jpeg": None},
        {"colorspace_jpeg": "CMYK"},
        {"colorspace_data": "GRAYSCALE"},
        {"bitspersample": 12},
        {"fancyupsampling": False},
        {"header": "AAAA"},
        {"tables": "not base64!"},
    ],
)
def test_configurations_that_mean_other_pixels_are_refused(wrong: dict[str, Any]) -> None:
    configuration = {"colorspace_data": "RGB", "colorspace_jpeg": "RGB", **wrong}
    with pytest.raises(ValueError, match=NAME):
        read_jpeg_metadata({"name": NAME, "configuration": configuration})


@pytest.mark.parametrize("colour", ["rgb", "ycbcr"])
def test_the_proposed_standard_is_read_by_its_own_configuration(colour: Any) -> None:
    named = {"name": "jpeg", "configuration": {"quality": 90, "encoded_color_space": colour}}
    assert read_jpeg_metadata(named) == JpegTiles(None, colour)


@pytest.mark.parametrize("configuration", [None, {"quality": 90}, {"encoded_color_space": "cmyk"}, {"tables": ""}])
def test_a_proposed_jpeg_that_does_not_say_its_colours_is_refused(configuration: Any) -> None:
    """The proposal requires it of colours; a decoder's guess is not what was meant."""
    with pytest.raises(ValueError, match="encoded_color_space is stated to be rgb or ycbcr"):
        read_jpeg_metadata({"name": "jpeg", "configuration": configuration})


def test_blank_and_missing_chunks_are_the_fill_value(stored: tuple[TiffTiles, Path]) -> None:
    tiles, folder = stored
    (folder / "0/c/0/0/0").write_bytes(b"")
    (folder / "0/c/0/1/1").unlink()
    pixels, expected = pixels_of(folder), tiles.read(Box(0, 0, *tiles.size))
    expected[:240, :240] = expected[240:, 240:480] = 255
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("damage", ["truncated", "other size", "no jpeg"])
def test_damage_is_an_error(stored: tuple[TiffTiles, Path], damage: str, tmp_path: Path) -> None:
    """libjpeg alone would give pixels for the first two."""
    tiles, folder = stored
    chunk = folder / "0/c/0/0/0"
    if damage == "truncated":
        chunk.write_bytes(chunk.read_bytes()[:2000])
    elif damage == "other size":
        other = write_slide(tmp_path / "other.tif", tissue_pixels(256, 256), tile=256, levels=1)
        chunk.write_bytes(tiles_of(other).stored(0, 0))
    else:
        chunk.write_bytes(bytes(1000))
    array: Any = zarr.open_group(folder, mode="r")["0"]
    with pytest.raises(ValueError, match=r"JPEG|[Pp]remature|pixels"):
        array[:, :240, :240]
    assert tiles.size[0] > 240
    np.testing.assert_array_equal(np.moveaxis(array[:, :240, 240:480], 0, -1), tiles.pixels(0, 1))


def test_nothing_is_encoded(stored: tuple[TiffTiles, Path]) -> None:
    array: Any = zarr.open_group(stored[1], mode="r+")["0"]
    with pytest.raises(TypeError, match="only reads"):
        array[:, :240, :240] = 0


def test_a_sharded_array_holds_the_tiles_as_they_are(stored: tuple[TiffTiles, Path], tmp_path: Path) -> None:
    """What a native pyramid is: the shard's index says where each tile lies, and zarr reads it from there."""
    tiles, _ = stored
    folder = tmp_path / "sharded.zarr"
    rows, columns = tiles.byte_counts.shape
    width, height = tiles.tile
    zarr.create_array(
        zarr.open_group(folder, mode="w").store,
        name="0",
        shape=(3, tiles.size[1], tiles.size[0]),
        chunks=(3, height, width),
        shards=(3, rows * height, columns * width),
        fill_value=255,
        zarr_format=3,
        **jpeg_chunks(tiles),
    )
    index, body = np.empty((rows * columns, 2), "<u8"), b""
    for i, (row, column) in enumerate(np.ndindex(rows, columns)):
        stored_tile = tiles.stored(row, column)
        index[i] = len(body), len(stored_tile)
        body += stored_tile
    index[0] = 2**64 - 1  # a blank tile
    shard = folder / "0/c/0/0/0"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(body + index.tobytes() + google_crc32c.value(index.tobytes()).to_bytes(4, "little"))
    expected = tiles.read(Box(0, 0, *tiles.size))
    expected[:height, :width] = 255
    np.testing.assert_array_equal(pixels_of(folder), expected)


HIDDEN = """
import importlib.metadata
importlib.metadata.entry_points = lambda **_: importlib.metadata.EntryPoints()
import stages.pyramid.codec
"""


@pytest.mark.parametrize("before", ["", HIDDEN], ids=["installed", "imported"])
def test_zarr_finds_the_codec(stored: tuple[TiffTiles, Path], before: str) -> None:
    """By its entry point where the project is installed, though nothing of it is imported; else once it is imported."""
    tiles, folder = stored
    code = f"{before}\nimport sys, zarr; print(zarr.open_group(sys.argv[1], mode='r')['0'][:].sum())"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) == int(tiles.read(Box(0, 0, *tiles.size)).sum())
