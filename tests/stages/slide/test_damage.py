"""Damaged and replaced slides: an error for the tile that is touched, and for it alone; no made-up pixels."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from makers import change_bytes, change_tags, page_of, small_slide, tissue_pixels, write_rgba, write_slide

from stages.geometry import Box
from stages.slide.facts import SlideError
from stages.slide.files import open_slide


def spoil_stream(path: Path, index: int, page: int = 0) -> None:
    """Noise in the middle of a tile's entropy-coded data, which libjpeg decodes with a warning and made-up pixels."""
    at = page_of(path, page)
    middle = at.dataoffsets[index] + at.databytecounts[index] // 2
    change_bytes(path, middle, np.random.default_rng(0).bytes(200))


def test_a_damaged_tile_that_would_be_compared_is_still_an_error(tmp_path: Path) -> None:
    """OpenSlide shows such a tile as if it were whole: others are compared in its stead, and it is not shown."""
    path = small_slide(tmp_path / "a.tif")
    counts = page_of(path).databytecounts
    largest = int(np.argmax(counts))
    spoil_stream(path, largest)
    row, column = divmod(largest, 4)
    box = Box(column * 256, row * 256, 256, 256)
    with openslide.OpenSlide(path) as handle:
        handle.read_region((box.x, box.y), 0, (256, 256))  # no error
    slide = open_slide(path)
    assert slide.direct(0)
    with pytest.raises(SlideError, match=rf"tile \({row}, {column}\) does not decode"):
        slide.read_level(0, box)
    intact = (row + 1) % 3
    assert slide.read_level(0, Box(0, intact * 256, 1024, 256)).shape == (256, 1024, 3)


def test_a_level_of_one_damaged_tile_is_an_error(tmp_path: Path) -> None:
    """Nothing of it can be compared, but how the file's tiles decode is known from its other levels."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(1024, 1024, margin=0))
    assert len(page_of(path, 2).dataoffsets) == 1
    spoil_stream(path, 0, page=2)
    slide = open_slide(path)
    with pytest.raises(SlideError, match=r"level 2 .*tile \(0, 0\) does not decode"):
        slide.read_level(2, Box(0, 0, 256, 256))
    assert slide.read_level(1, Box(0, 0, 512, 512)).shape == (512, 512, 3)


def test_where_most_tiles_are_refused_openslide_reads(tmp_path: Path) -> None:
    """A scanner whose every tile makes the decoder warn is not damaged: it has its ways, and OpenSlide knows them."""
    image = tissue_pixels(512, 512, margin=0)
    page, path = page_of(write_slide(tmp_path / "a.tif", image, levels=1)), tmp_path / "b.tif"
    data = (tmp_path / "a.tif").read_bytes()
    segments = zip(page.dataoffsets, page.databytecounts, strict=True)
    padded = (data[at : at + size - 2] + bytes(4) + data[at + size - 2 : at + size] for at, size in segments)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            padded,
            shape=image.shape,
            dtype=np.uint8,
            tile=(256, 256),
            photometric="rgb",
            compression="jpeg",
            metadata=None,
        )
    slide = open_slide(path)
    assert not slide.direct(0)
    whole = Box(0, 0, 512, 512)
    np.testing.assert_array_equal(slide.read_level(0, whole), open_slide(tmp_path / "a.tif").read_level(0, whole))


def test_a_lost_sector_is_noticed(tmp_path: Path) -> None:
    """libjpeg decodes zeros to coefficients and may find its way back without a warning; OpenSlide shows the result."""
    path = small_slide(tmp_path / "a.tif")
    page, rng, swallowed = page_of(path), np.random.default_rng(0), 0
    whole = path.read_bytes()
    for index, (offset, size) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        at = offset + int(rng.integers(700, size - 512))  # past the headers
        path.write_bytes(whole[:at] + bytes(512) + whole[at + 512 :])
        row, column = divmod(index, 4)
        box = Box(column * 256, row * 256, 256, 256)
        try:
            with openslide.OpenSlide(path) as handle:
                handle.read_region((box.x, box.y), 0, (256, 256))
            swallowed += 1
        except openslide.OpenSlideError:
            pass
        with pytest.raises(SlideError, match="does not decode"):
            open_slide(path).read_level(0, box)
    assert swallowed > 6


def test_a_slide_rewritten_in_place_is_an_error(tmp_path: Path) -> None:
    """Where its tiles were is known from the old file; what stands there now is none of that slide."""
    path = small_slide(tmp_path / "a.tif")
    slide = open_slide(path)
    slide.read_level(0, Box(0, 0, 256, 256))
    change_bytes(path, path.stat().st_size // 2, b"x")
    with pytest.raises(SlideError, match="it was changed or replaced while it was read"):
        slide.read_level(0, Box(0, 0, 256, 256))


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_slide_replaced_before_a_worker_opens_it_is_an_error(tmp_path: Path, compression: str) -> None:
    """What is shipped is the path and what the file was: another slide of the same size is not taken for it."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(600, 500), compression=compression)
    shipped = pickle.dumps(open_slide(path))
    write_slide(tmp_path / "b.tif", tissue_pixels(600, 500, margin=0.1), compression=compression)
    os.replace(tmp_path / "b.tif", path)
    with pytest.raises(SlideError, match="no longer the one that was opened"):
        pickle.loads(shipped).read_level(0, Box(0, 0, 256, 256))


def test_a_chain_of_pages_that_breaks_off_is_said(tmp_path: Path) -> None:
    """OpenSlide and tifffile take what comes before for all there is: a slide of fewer levels."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(600, 500, margin=0), compression=None)
    assert open_slide(path).facts.warnings == ()
    page = page_of(path, 1)
    change_bytes(path, page.offset, bytes(20 * len(page.tags)))
    facts = open_slide(path).facts
    assert len(facts.levels) == 1
    assert facts.warnings == (
        "its list of pictures breaks off after 1, so that levels may be missing: the file is damaged: copy it again",
    )


def test_a_strip_of_no_bytes_is_damage(tmp_path: Path) -> None:
    """A tile of none was never scanned; writers leave out no strip."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, tissue_pixels(600, 500, margin=0), photometric="rgb", rowsperstrip=64, compression="packbits"
    )
    counts = list(page_of(path).databytecounts)
    change_tags(path, StripByteCounts=[counts[0], 0, *counts[2:]])
    slide = open_slide(path)
    with pytest.raises(SlideError, match=r"tile \(1, 0\) claims 0 bytes at \d+, which cannot be"):
        slide.read_level(0, Box(0, 60, 100, 100))
    assert slide.read_level(0, Box(0, 0, 100, 60)).shape == (60, 100, 3)


@pytest.mark.parametrize("how", ["strips", "planes", "tiles"])
def test_a_tile_in_the_place_of_another_is_said(tmp_path: Path, how: str) -> None:
    """All of it or a part; blank ones may well be at one place."""
    path, image = tmp_path / "a.tif", tissue_pixels(512, 512, margin=0)
    image[:128] = 255
    if how == "tiles":  # as OpenSlide reads them
        write_slide(path, image, tile=128, levels=1)
    else:
        part = {"rowsperstrip": 64} if how == "strips" else {"tile": (128, 128), "planarconfig": "separate"}
        pixels = image if how == "strips" else np.ascontiguousarray(image.transpose(2, 0, 1))
        tifffile.imwrite(path, pixels, photometric="rgb", compression="deflate", **part)
    page, name = page_of(path), "Strip" if how == "strips" else "Tile"
    offsets, counts = list(page.dataoffsets), list(page.databytecounts)
    last = len(counts) - 1
    for there, here, shift, said in ((1, 0, 0, False), (last, last - 1, 0, True), (last, last - 1, 90, True)):
        where, sizes = offsets.copy(), counts.copy()
        where[here], sizes[here] = offsets[there] + shift, counts[there] - shift
        change_tags(path, **{f"{name}Offsets": where, f"{name}ByteCounts": sizes})
        warnings = [line for line in open_slide(path).facts.warnings if "at one place in the file" in line]
        assert len(warnings) == said


@pytest.mark.parametrize("tiled", [True, False])
def test_a_height_that_leaves_tiles_over_is_said(tmp_path: Path, tiled: bool) -> None:
    """The picture would be cut in two without an error."""
    path, image = tmp_path / "a.tif", tissue_pixels(512, 512, margin=0)
    part = {"tile": (128, 128)} if tiled else {"rowsperstrip": 64}
    tifffile.imwrite(path, image, photometric="rgb", compression="deflate", **part)
    assert not [line for line in open_slide(path).facts.warnings if "more than its sizes make" in line]
    change_tags(path, ImageLength=256)
    (warning,) = (line for line in open_slide(path).facts.warnings if "more than its sizes make" in line)
    assert warning.startswith(f"level 0 lists {8 if tiled else 4} tiles or strips more than its sizes make")


def test_a_slide_that_openslide_reads_is_not_read_on_once_another_is_in_its_place(tmp_path: Path) -> None:
    """It opens the file again by its name: pixels of two slides would be mixed without an error."""
    path = write_rgba(tmp_path / "a.tif", np.full((1024, 1024, 4), 200, np.uint8))
    slide = open_slide(path)
    assert not slide.direct(0)
    slide.read_level(0, Box(0, 0, 256, 256))
    write_rgba(tmp_path / "b.tif", np.full((1024, 1024, 4), 90, np.uint8))
    os.replace(tmp_path / "b.tif", path)
    with pytest.raises(SlideError, match="it was changed or replaced while it was read"):
        slide.read_level(0, Box(512, 512, 256, 256))


def test_a_slide_replaced_under_an_open_handle_stays_what_it_was(tmp_path: Path) -> None:
    """A new file under the old name leaves the open one untouched until it is let go."""
    path = small_slide(tmp_path / "a.tif")
    slide = open_slide(path)
    before = slide.read_level(0, Box(0, 0, 256, 256))
    write_slide(tmp_path / "b.tif", 255 - tissue_pixels(1024, 768, margin=0))
    os.replace(tmp_path / "b.tif", path)
    np.testing.assert_array_equal(slide.read_level(0, Box(0, 0, 256, 256)), before)
