"""The slides that benchmarks make of a scanner's tiles are what they claim to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from benchmarks.mosaic import SLIDE, make_mosaic, read_piece
from stages.geometry import Box, Mpp
from stages.slide.files import open_slide

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def mosaic(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_mosaic(tmp_path_factory.mktemp("mosaic") / "a.svs", 0.03, mpp=0.25)


def test_a_mosaic_opens_as_a_pyramid(mosaic: Path) -> None:
    """Whole downsamples, the claimed resolution, and every level's own tiles decode to what OpenSlide shows."""
    slide = open_slide(mosaic)
    assert (slide.facts.vendor, slide.facts.mpp) == ("aperio", Mpp(0.25, 0.25))
    assert [level.scale_x for level in slide.facts.levels] == [1, 4, 16, 32]
    assert slide.facts.bounds.area >= 0.03e9
    assert slide.facts.tile_sizes[:3] == ((240, 240),) * 3
    assert all(slide.direct(level) for level in range(4))


def test_level_0_is_the_scanners_tiles_untouched(mosaic: Path, shared_data: Path) -> None:
    """Byte for byte, over more than one period either way."""
    source = shared_data / SLIDE
    piece = read_piece(source)
    assert (len(piece.tiles), len(piece.tiles[0])) == (12, 9)
    with tifffile.TiffFile(mosaic) as tiff, mosaic.open("rb") as file:
        page = tiff.pages[0].aspage()
        across = page.imagewidth // 240
        assert page.jpegtables == piece.tables
        for row, column in [(0, 0), (11, 8), (12, 9), (across - 1, across - 1), (5, 20)]:
            file.seek(page.dataoffsets[row * across + column])
            stored = file.read(page.databytecounts[row * across + column])
            assert stored == piece.tiles[row % 12][column % 9]
    with openslide.OpenSlide(source) as scanned, openslide.OpenSlide(mosaic) as made:
        expected = np.asarray(scanned.read_region((100, 200), 0, (900, 700)))
        found = np.asarray(made.read_region((2160 + 100, 2880 + 200), 0, (900, 700)))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_coarser_levels_are_means_of_level_0(mosaic: Path, level: int) -> None:
    """Up to what the scanner's coarse quantisation loses, and nowhere shifted by a pixel."""
    slide = open_slide(mosaic)
    raster = slide.facts.levels[level]
    factor, side = int(raster.scale_x), slide.facts.levels[0].width
    fine = slide.read_level(0, Box(0, 0, side, 960))
    mean = fine.reshape(960 // factor, factor, raster.width, factor, 3).mean((1, 3))
    found = slide.read_level(level, Box(0, 0, raster.width, 960 // factor)).astype(float)
    assert np.abs((found - mean).mean((0, 1))).max() < 0.5
    error = np.abs(found - mean).mean()
    for shift, axis in [(1, 0), (-1, 0), (1, 1), (-1, 1)]:
        assert error < 0.7 * np.abs(np.roll(found, shift, axis) - mean).mean()


def test_a_flat_mosaic_has_one_level(shared_data: Path, tmp_path: Path) -> None:
    slide = open_slide(make_mosaic(tmp_path / "a.svs", 0.01, flat=True))
    assert len(slide.facts.levels) == 1
    assert slide.facts.mpp == Mpp(0.5, 0.5)
    assert slide.direct(0)
