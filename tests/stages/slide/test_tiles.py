"""Tiles decoded directly are what OpenSlide shows, bit for bit, or they are not used."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray

from stages.geometry import Box
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.tiff import TiffTiles, find_level_tiles

ENCODINGS = {
    "ycbcr 4:2:0": {"photometric": "ycbcr", "subsampling": (2, 2)},
    "ycbcr 4:4:4": {"photometric": "ycbcr", "subsampling": (1, 1)},
    "rgb jpeg": {"photometric": "rgb"},
    "deflate": {"compression": "deflate"},
    "lzw, predicted": {"compression": "lzw", "predictor": True},
    "raw": {"compression": None},
}


def shown_by_openslide(handle: openslide.OpenSlide, level: int, box: Box) -> NDArray[np.uint8]:
    """RGB of a box in level pixels, at a level whose downsample is whole; transparent is white."""
    downsample = round(handle.level_downsamples[level])
    region = handle.read_region((box.x * downsample, box.y * downsample), level, (box.width, box.height))
    rgba = np.asarray(region)
    return np.where(rgba[..., 3:] == 0, 255, rgba[..., :3]).astype(np.uint8)


def some_boxes(width: int, height: int, count: int, seed: int) -> Iterator[Box]:
    """Random boxes, small and large, then the corners and the whole."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        w, h = (int(rng.integers(1, min(side, 700) + 1)) for side in (width, height))
        yield Box(int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h)
    yield from (Box(x, y, 1, 1) for x in (0, width - 1) for y in (0, height - 1))
    yield Box(0, 0, width, height)


@pytest.mark.parametrize(
    ("encoding", "tile"),
    # tifffile pads the last raw tile of this size, and OpenSlide refuses what is padded
    [(encoding, tile) for encoding in ENCODINGS for tile in (240, 256, 512) if (encoding, tile) != ("raw", 240)],
)
def test_direct_reads_equal_openslide(tmp_path: Path, encoding: str, tile: int) -> None:
    """Any box of any level, whatever the tiles' size and encoding, odd sizes and edges included."""
    image = tissue_pixels(1099, 903, margin=0.05)
    path = write_slide(tmp_path / "a.tif", image[:900, :1096], tile=tile, levels=2, **ENCODINGS[encoding])
    slide = open_slide(path)
    with openslide.OpenSlide(path) as handle:
        for level, raster in enumerate(slide.facts.levels):
            assert slide.direct(level)
            for box in some_boxes(raster.width, raster.height, 12, seed=tile + level):
                np.testing.assert_array_equal(slide.read_level(level, box), shown_by_openslide(handle, level, box))


@st.composite
def drawn_slides(draw: st.DrawFn) -> dict[str, Any]:
    """How a JPEG slide of up to two levels is stored: its size, tiles, colours, and which tiles it leaves out."""
    tile = draw(st.sampled_from([240, 256, 512]))
    width, height = draw(st.integers(1, 1100)), draw(st.integers(1, 1100))
    count = -(-width // tile) * -(-height // tile)
    return {
        "size": (width, height),
        "tile": tile,
        "colours": draw(
            st.sampled_from([("rgb", (1, 1)), ("ycbcr", (1, 1)), ("ycbcr", (2, 1)), ("ycbcr", (2, 2))]),
        ),
        "quality": draw(st.sampled_from([30, 75, 95])),
        "halved": draw(st.booleans()),
        "blank": draw(st.lists(st.integers(0, count - 1), max_size=count - 1, unique=True)),
    }


def write_drawn(path: Path, drawn: dict[str, Any]) -> None:
    """A generic TIFF as `drawn_slides` describes it; tiles that are left out are of level 0."""
    (width, height), (photometric, subsampling) = drawn["size"], drawn["colours"]
    image = tissue_pixels(width, height, margin=0)
    with tifffile.TiffWriter(path) as tiff:
        for level in range(2 if drawn["halved"] and min(width, height) > 1 else 1):
            tiff.write(
                np.ascontiguousarray(image[:: 2**level, :: 2**level][: height // 2**level, : width // 2**level]),
                tile=(drawn["tile"],) * 2,
                photometric=photometric if photometric == "rgb" else "ycbcr",
                subsampling=subsampling,
                compression="jpeg",
                compressionargs={"level": drawn["quality"], "outcolorspace": photometric},
                subfiletype=int(level > 0),
                metadata=None,
            )
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        assert page.photometric.name.lower() == photometric
        counts = [0 if i in drawn["blank"] else count for i, count in enumerate(page.databytecounts)]
        page.tags["TileByteCounts"].overwrite(counts if len(counts) > 1 else counts[0])


@settings(max_examples=60)
@given(drawn_slides(), st.integers(0, 2**32 - 1))
def test_any_jpeg_slide_reads_as_openslide_shows_it(
    tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, Any], seed: int
) -> None:
    """Random sizes, tiles, colours, qualities, blank tiles; random boxes of every level, one by one and together."""
    path = tmp_path_factory.mktemp("drawn") / "a.tif"
    write_drawn(path, drawn)
    slide = open_slide(path)
    with openslide.OpenSlide(path) as handle:
        for level, raster in enumerate(slide.facts.levels):
            if not handle.level_downsamples[level].is_integer():
                continue  # there it interpolates
            assert slide.direct(level)
            boxes = list(some_boxes(raster.width, raster.height, 6, seed=seed))
            for box, together in zip(boxes, slide.read_boxes(level, boxes), strict=True):
                shown = shown_by_openslide(handle, level, box)
                np.testing.assert_array_equal(together, shown)
                np.testing.assert_array_equal(slide.read_level(level, box), shown)


@pytest.mark.parametrize(
    ("x", "y", "width", "height"),
    [(295, 0, 10, 10), (0, 195, 10, 10), (300, 200, 5, 5), (-5, 0, 10, 10), (0, -5, 10, 10), (0, 0, 301, 200)],
)
@pytest.mark.parametrize("encoding", ["ycbcr 4:2:0", "deflate"])
def test_a_box_that_reaches_out_of_the_level_is_refused(
    tmp_path: Path, encoding: str, x: int, y: int, width: int, height: int
) -> None:
    """Tiles hold something there, and those before the first row would be the last row's."""
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(300, 200, margin=0), **ENCODINGS[encoding]))
    assert slide.direct(0)
    with pytest.raises(ValueError, match=r"is not inside the level's 300 x 200 pixels"):
        slide.read_boxes(0, [Box(0, 0, 300, 200), Box(x, y, width, height)])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (255, 257), (256, 256), (17, 1025)])
def test_levels_of_any_size_read_to_their_edges(tmp_path: Path, width: int, height: int) -> None:
    """A level smaller than a tile, a pixel short of one or a pixel past it."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(width, height, margin=0), levels=1)
    slide = open_slide(path)
    assert slide.direct(0)
    with openslide.OpenSlide(path) as handle:
        for box in some_boxes(width, height, 5, seed=1):
            np.testing.assert_array_equal(slide.read_level(0, box), shown_by_openslide(handle, 0, box))


def test_an_odd_level_is_read_from_its_own_grid(slides_folder: Path) -> None:
    """Off whole downsamples OpenSlide interpolates; the direct read gives the pixels as they are stored."""
    slide = open_slide(slides_folder / "odd.tif")
    assert slide.direct(1)
    with tifffile.TiffFile(slides_folder / "odd.tif") as tiff:
        stored = tiff.pages[1].asarray()
    np.testing.assert_array_equal(slide.read_level(1, Box(0, 0, 450, 600)), stored)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_tiles_of_no_bytes_are_blank(tmp_path: Path, compression: str) -> None:
    """A tile that was never scanned reads as background, costs nothing, and leaves its neighbours alone."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(768, 512, margin=0), levels=1, compression=compression)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        page.tags["TileByteCounts"].overwrite([0 if i == 4 else count for i, count in enumerate(page.databytecounts)])
    slide = open_slide(path)
    assert slide.direct(0)
    assert (slide.tile_bytes(0).ravel() > 0).tolist() == [True, True, True, True, False, True]
    whole = Box(0, 0, 768, 512)
    with openslide.OpenSlide(path) as handle:
        np.testing.assert_array_equal(slide.read_level(0, whole), shown_by_openslide(handle, 0, whole))
    assert (slide.read_level(0, Box(256, 256, 256, 256)) == 255).all()


def test_tile_bytes_are_those_of_the_file(slides_folder: Path) -> None:
    """What reads are said to cost is what the file holds for each tile, row by row."""
    path = slides_folder / "even.tif"
    slide = open_slide(path)
    with tifffile.TiffFile(path) as tiff:
        for level, shape in enumerate([(6, 8), (3, 4), (2, 2)]):
            counts = np.array(tiff.pages[level].aspage().databytecounts).reshape(shape)
            np.testing.assert_array_equal(slide.tile_bytes(level), counts)


def test_a_truncated_file_is_a_slide_error_where_it_ends(tmp_path: Path) -> None:
    """What the file still holds reads; past its end comes a clear error, not grey and not a crash."""
    image = tissue_pixels(1536, 1536, margin=0)  # above 5 MB; OpenSlide looks at all of a smaller one when it opens it
    path = write_slide(tmp_path / "a.tif", image, levels=1, compression=None)
    with tifffile.TiffFile(path) as tiff:
        end = tiff.pages[0].aspage().dataoffsets[20] + 100
    with path.open("r+b") as file:
        file.truncate(end)
    slide = open_slide(path)
    np.testing.assert_array_equal(slide.read_level(0, Box(0, 0, 1536, 768)), image[:768])
    for _ in range(2):
        with pytest.raises(SlideError, match=r"cannot read level 0 at \(512, 768\).*file is damaged"):
            slide.read_level(0, Box(512, 768, 256, 256))


def test_truncation_is_noticed_by_the_tile_itself(tmp_path: Path) -> None:
    """A tile that ends early says how much of it is there."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(512, 512, margin=0), levels=1)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    (tiles,) = find_level_tiles(path, [(512, 512)])
    assert tiles is not None
    with pytest.raises(ValueError, match=r"tile \(1, 1\) ends after \d+ of \d+ bytes: the file is truncated"):
        tiles.read(Box(300, 300, 10, 10))


def test_a_spoilt_tile_is_a_slide_error(tmp_path: Path) -> None:
    """Noise in the place of one compressed tile fails that tile; the others read."""
    image = tissue_pixels(1024, 1024, margin=0)
    path = write_slide(tmp_path / "a.tif", image, levels=1, compression="deflate")
    counts = open_slide(path).tile_bytes(0).ravel()
    by_size = np.argsort(counts)
    victim = next(int(i) for i in by_size[:7] if i != 15)  # not one of those that are compared when opened
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].aspage().dataoffsets[victim]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(range(256)))
    slide = open_slide(path)
    assert slide.direct(0)
    row, column = divmod(victim, 4)
    with pytest.raises(SlideError, match="does not decode"):
        slide.read_level(0, Box(column * 256, row * 256, 1, 1))
    intact = int(by_size[-1])
    y, x = intact // 4 * 256, intact % 4 * 256
    np.testing.assert_array_equal(slide.read_level(0, Box(x, y, 256, 256)), image[y : y + 256, x : x + 256])


def test_tiles_that_differ_from_openslide_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One grey level off in one channel, and OpenSlide reads that slide for good."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(512, 512), levels=2)
    read = TiffTiles.read_many

    def slightly_off(self: TiffTiles, boxes: Sequence[Box], **options: Any) -> Any:
        found = read(self, boxes, **options)
        found[0][7, 7, 1] ^= 1
        return found

    monkeypatch.setattr(TiffTiles, "read_many", slightly_off)
    slide = open_slide(path)
    whole = Box(0, 0, 512, 512)
    assert [slide.direct(level) for level in (0, 1)] == [False, False]
    with openslide.OpenSlide(path) as handle:
        np.testing.assert_array_equal(slide.read_level(0, whole), shown_by_openslide(handle, 0, whole))
    assert slide.tile_bytes(0).shape == (2, 2)
    assert 0 < slide.tile_bytes(0).sum() <= path.stat().st_size


def test_pages_of_one_size_are_not_guessed_between(tmp_path: Path) -> None:
    """Two focus planes: neither is taken for the level."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for _ in range(2):
            tiff.write(tissue_pixels(512, 512), tile=(256, 256), photometric="rgb", metadata=None)
        tiff.write(tissue_pixels(256, 256), tile=(256, 256), photometric="rgb", metadata=None)
    large, small = find_level_tiles(path, [(512, 512), (256, 256)])
    assert large is None
    assert small is not None


def test_what_is_no_tiled_rgb_has_no_tiles(tmp_path: Path) -> None:
    """Strips, grey, 16-bit and planar pages, and files that are no TIFF, are left to OpenSlide."""
    image = tissue_pixels(512, 512)
    variants: dict[str, tuple[Any, dict[str, Any]]] = {
        "strips": (image, {"photometric": "rgb"}),
        "grey": (image[..., 0], {"tile": (256, 256)}),
        "deep": (image.astype(np.uint16), {"tile": (256, 256), "photometric": "rgb"}),
        "planar": (np.moveaxis(image, -1, 0), {"tile": (256, 256), "photometric": "rgb", "planarconfig": "separate"}),
    }
    for name, (data, options) in variants.items():
        tifffile.imwrite(tmp_path / name, data, metadata=None, **options)
        assert find_level_tiles(tmp_path / name, [(512, 512)]) == [None], name
    (tmp_path / "text").write_text("no TIFF")
    assert find_level_tiles(tmp_path / "text", [(512, 512), (9, 9)]) == [None, None]


def test_threads_may_read_one_slide_at_once(slides_folder: Path) -> None:
    """Eight threads on one slide get what one thread gets."""
    slide = open_slide(slides_folder / "odd.tif")
    boxes = list(some_boxes(1803, 2401, 30, seed=5))
    alone = [slide.read_level(0, box) for box in boxes]
    fresh = open_slide(slides_folder / "odd.tif")
    with ThreadPoolExecutor(8) as pool:
        for expected, found in zip(alone, pool.map(lambda box: fresh.read_level(0, box), boxes), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "small.svs"])
def test_scanners_tiles_equal_openslide(shared_data: Path, name: str) -> None:
    """Aperio stores JPEG as RGB: decoding it as YCbCr would be far off."""
    slide = open_slide(shared_data / "slides" / name)
    raster = slide.facts.levels[0]
    assert slide.direct(0)
    with openslide.OpenSlide(slide.facts.path) as handle:
        for box in some_boxes(raster.width, raster.height, 20, seed=3):
            np.testing.assert_array_equal(slide.read_level(0, box), shown_by_openslide(handle, 0, box))


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", ["test3-DAPI-2-(387).ndpi", "multi_frame_jpeg_camelyon_challenge_image.dcm", "boxes.tiff"]
)
def test_other_formats_equal_openslide_too(shared_data: Path, name: str) -> None:
    """Where tiles are not decoded directly, or a downsample is odd, whole levels still read as OpenSlide shows them."""
    slide = open_slide(shared_data / "slides" / name)
    with openslide.OpenSlide(slide.facts.path) as handle:
        for level, raster in enumerate(slide.facts.levels):
            if not handle.level_downsamples[level].is_integer():
                continue
            for box in some_boxes(raster.width, raster.height, 4, seed=level):
                np.testing.assert_array_equal(slide.read_level(level, box), shown_by_openslide(handle, level, box))


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "none"])
def test_tiles_that_are_cropped_at_the_edge_are_read(tmp_path: Path, compression: str) -> None:
    """Some writers store what the level's edge leaves of a tile: no damage, though OpenSlide cannot read it."""
    image = tissue_pixels(1000, 700, margin=0)

    def stored(tile: NDArray[np.uint8]) -> bytes:
        if compression == "jpeg":
            return imagecodecs.jpeg8_encode(np.ascontiguousarray(tile), level=95, outcolorspace="ycbcr")
        return zlib.compress(tile.tobytes()) if compression == "deflate" else tile.tobytes()

    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level, picture in enumerate((image, image[::2, ::2])):
            height, width = picture.shape[:2]
            tiff.write(
                (
                    stored(picture[y : y + 256, x : x + 256])
                    for y in range(0, height, 256)
                    for x in range(0, width, 256)
                ),
                shape=picture.shape,
                dtype=np.uint8,
                tile=(256, 256),
                photometric="ycbcr" if compression == "jpeg" else "rgb",
                subsampling=(2, 2) if compression == "jpeg" else None,
                compression=None if compression == "none" else compression,
                subfiletype=level,
                metadata=None,
                resolution=(20000 / (level + 1),) * 2,
                resolutionunit="CENTIMETER",
            )
    slide = open_slide(path)
    assert [slide.direct(level) for level in range(2)] == [True, True]
    for level, picture in enumerate((image, image[::2, ::2])):
        shown = slide.read_level(level, Box(0, 0, picture.shape[1], picture.shape[0])).astype(int)
        assert np.abs(shown - picture).mean() < (6 if compression == "jpeg" else 1e-9)
    pyramid = open_pyramid(cache_pyramid(slide, tmp_path / "a.zarr", everything=True))
    np.testing.assert_array_equal(
        pyramid.read_level(0, Box(700, 500, 300, 200)), slide.read_level(0, Box(700, 500, 300, 200))
    )
