"""Tiles decoded smaller give the area means of full decoding, closely enough, and only where that is worth it."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from makers import tissue_pixels, write_slide
from numpy.typing import NDArray

from benchmarks.mosaic import make_mosaic
from stages.geometry import Box, Raster
from stages.slide import jpeg, reduced
from stages.slide.facts import SlideError
from stages.slide.files import OpenSlideSlide, open_slide
from stages.slide.reduced import ReducedTiles, choose_scale
from stages.slide.render import count_reads, render


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small levels are reduced as large ones are."""
    monkeypatch.setattr(reduced, "EXACT_PIXELS", 0)


def thumbnail(slide: OpenSlideSlide, scale: float, x: float = 0.0, y: float = 0.0) -> Raster:
    """The raster over a slide whose pixels are ``scale`` of its own; the last ones may reach past it."""
    width, height = (int(np.ceil(side / scale)) for side in (slide.facts.bounds.width, slide.facts.bounds.height))
    return Raster(x, y, scale, scale, width, height)


def exact(slide: OpenSlideSlide, raster: Raster) -> NDArray[np.uint8]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduced, "EXACT_PIXELS", 2**62)
        assert choose_scale(slide, 0, raster) == 1
        return render(slide, raster)


def error(slide: OpenSlideSlide, raster: Raster) -> NDArray[np.float64]:
    return np.abs(render(slide, raster).astype(float) - exact(slide, raster))


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(("scale", "factor"), [(8, 4), (16, 8), (12, 4), (32, 8), (16.03, 2), (25.7, 4), (50.1, 8)])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": (2, 2)},
        {"subsampling": (2, 1), "tile": 512},
        {"subsampling": (1, 1), "tile": 240},
    ],
    ids=["4:2:0", "4:2:2, 512 px", "4:4:4, 240 px"],
)
def test_the_error_is_small(tmp_path: Path, scale: float, factor: int, options: dict[str, Any]) -> None:
    """Below 0.5 grey levels on average, 0.12 at 32 times coarser on the same grid; odd sizes, edges included."""
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(1203, 1405, margin=0.1), levels=1, **options))
    raster = thumbnail(slide, scale)
    assert choose_scale(slide, 0, raster) == factor
    off = error(slide, raster)
    assert off.mean() < (0.12 if scale == 32 else 0.5)
    assert off.max() <= 12


@pytest.mark.realdata
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("scale", [8, 16, 16.03, 32, 32.06])
def test_the_error_is_small_on_a_scanners_slide(shared_data: Path, scale: float) -> None:
    """Where quantisation is coarse, more is clipped at black and white: the bounds hold all the same."""
    slide = open_slide(shared_data / "slides/CMU-1-Small-Region.svs")
    off = error(slide, thumbnail(slide, scale))
    assert off.mean() < (0.12 if scale == 32 else 0.5)
    assert off.max() <= 12


@pytest.mark.usefixtures("everywhere")
def test_the_edge_is_the_slides_and_not_the_tiles(tmp_path: Path) -> None:
    """Tiles reach past a slide's edge with whatever their writer put there; the thumbnail has background there."""
    image = np.full((1203, 1405, 3), 60, np.uint8)
    slide = open_slide(write_slide(tmp_path / "a.tif", image, levels=1))
    raster = thumbnail(slide, 32)
    pixels = render(slide, raster)
    assert np.abs(pixels[:-1, :-1].astype(int) - 60).max() <= 1
    for last, side in ((pixels[:-1, -1], 1405), (pixels[-1, :-1], 1203)):
        share = side % 32 / 32
        assert np.abs(last - (60 * share + 255 * (1 - share))).max() <= 2
    assert error(slide, raster).max() <= 1


@pytest.mark.usefixtures("everywhere")
def test_blank_tiles_are_background(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.tif", tissue_pixels(1000, 700, margin=0), levels=1)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages[0].aspage()
        page.tags["TileByteCounts"].overwrite([0 if i in (5, 11) else n for i, n in enumerate(page.databytecounts)])
    slide = open_slide(path)
    raster = thumbnail(slide, 16)
    assert choose_scale(slide, 0, raster) == 8
    assert (render(slide, raster)[16:32, 16:32] == 255).all()
    assert error(slide, raster).mean() < 0.5


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("scale", [16, 16.03])
def test_a_pixel_is_the_same_in_every_cut(slides_folder: Path, scale: float) -> None:
    """A part of a thumbnail is that part of the thumbnail."""
    slide = open_slide(slides_folder / "odd.tif")
    slide.facts = replace(slide.facts, levels=slide.facts.levels[:1], tile_sizes=slide.facts.tile_sizes[:1])
    whole = render(slide, thumbnail(slide, scale))
    for x, y, width, height in ((0, 0, 7, 5), (13, 40, 50, 60), (100, 140, 12, 10)):
        part = render(slide, Raster(x * scale, y * scale, scale, scale, width, height))
        np.testing.assert_array_equal(part, whole[y : y + height, x : x + width])


@pytest.mark.usefixtures("everywhere")
def test_counted_is_what_is_read(slides_folder: Path) -> None:
    """The tiles are read whole, however small they are decoded."""
    slide = open_slide(slides_folder / "odd.tif")
    slide.facts = replace(slide.facts, levels=slide.facts.levels[:1], tile_sizes=slide.facts.tile_sizes[:1])
    count = count_reads(slide, [thumbnail(slide, 16)])
    assert (count.tiles, count.bytes) == (slide.tile_bytes(0).size, slide.tile_bytes(0).sum())


def test_only_where_it_is_worth_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small levels, patches, and tiles that are not JPEG are read in full."""
    image = tissue_pixels(900, 700)
    slide = open_slide(write_slide(tmp_path / "a.tif", image, levels=1))
    assert choose_scale(slide, 0, thumbnail(slide, 32)) == 1
    monkeypatch.setattr(reduced, "EXACT_PIXELS", 0)
    assert [choose_scale(slide, 0, thumbnail(slide, scale)) for scale in (1, 2, 4, 7.9, 8)] == [1, 1, 1, 1, 4]
    other = open_slide(write_slide(tmp_path / "b.tif", image, levels=1, compression="deflate"))
    assert other.direct(0)
    assert choose_scale(other, 0, thumbnail(other, 32)) == 1


@pytest.mark.parametrize("options", [{"subsampling": (2, 2)}, {"subsampling": (1, 1), "tile": 240}])
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_for_eyes_it_is_always_where_the_grids_coincide(tmp_path: Path, scale: int, options: dict[str, Any]) -> None:
    """Of small levels, and at twice the level's pixels: off by far less than encoding the picture as JPEG."""
    slide = open_slide(write_slide(tmp_path / "a.tif", tissue_pixels(1203, 1405, margin=0.1), levels=1, **options))
    raster = thumbnail(slide, scale)
    assert choose_scale(slide, 0, raster) == 1
    assert choose_scale(slide, 0, raster, quick=True) == scale
    off = np.abs(render(slide, raster, quick=True).astype(float) - render(slide, raster))
    assert 0 < off.mean() < 0.5
    assert off.max() <= 30
    beside = thumbnail(slide, scale, x=1.0)
    np.testing.assert_array_equal(render(slide, beside, quick=True), render(slide, beside))


def test_scales_divide_the_tile() -> None:
    sides = (240, 256, 244, 250, 255)
    assert [jpeg.scales((side, 256)) for side in sides] == [(8, 4, 2), (8, 4, 2), (4, 2), (2,), ()]


@pytest.mark.usefixtures("everywhere")
def test_a_damaged_tile_is_a_slide_error(tmp_path: Path) -> None:
    """A thumbnail over it is an error that names it; a thumbnail beside it is not."""
    path = write_slide(tmp_path / "a.tif", tissue_pixels(1024, 1024, margin=0), levels=1)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
    with path.open("r+b") as file:
        file.seek(page.dataoffsets[6] + page.databytecounts[6] // 2)
        file.write(np.random.default_rng(0).bytes(200))
    slide = open_slide(path)
    with pytest.raises(SlideError, match=r"level 0.*tile \(1, 2\) does not decode"):
        render(slide, thumbnail(slide, 16))
    assert render(slide, Raster(0, 0, 16, 16, 32, 64)).shape == (64, 32, 3)


def test_reduced_tiles_are_a_grid(slides_folder: Path) -> None:
    """Any box of it, odd edges included: the means of the squares, which at the edge hold background."""
    slide = open_slide(slides_folder / "odd.tif")
    tiles = slide.tiles(0)
    assert tiles is not None
    grid = ReducedTiles(tiles, 4, (1, 2, 3))
    assert (grid.size, grid.tile) == ((451, 601), (60, 60))
    full = np.empty((2404, 1804, 3), np.uint8)
    full[:] = (1, 2, 3)
    full[:2401, :1803] = slide.read_level(0, Box(0, 0, 1803, 2401))
    means = full.reshape(601, 4, 451, 4, 3).mean((1, 3))
    whole = grid.read(Box(0, 0, 451, 601))
    assert np.abs(whole - means).mean() < 0.5
    assert np.abs(whole[:, 450] - means[:, 450]).max() <= 0.5
    np.testing.assert_array_equal(grid.read(Box(400, 333, 51, 200)), whole[333:533, 400:451])


@pytest.mark.realdata
@pytest.mark.parametrize("gigapixels", [0.1, 0.4])
def test_memory_is_that_of_the_thumbnail(shared_data: Path, tmp_path: Path, gigapixels: float) -> None:
    """Some 25 MB for the blocks that it is made from, whatever the slide's size; its pixels would take gigabytes."""
    slide = open_slide(make_mosaic(tmp_path / "a.svs", gigapixels, flat=True))
    raster = thumbnail(slide, 32)
    assert choose_scale(slide, 0, raster) == 8
    slide.tiles(0)
    tracemalloc.start()
    render(slide, raster)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6
