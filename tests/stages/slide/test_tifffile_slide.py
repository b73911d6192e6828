"""TIFFs through tifffile: turned upright, in every process, as lazily as their tiles allow."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from makers import spoil, tissue_pixels
from numpy.typing import NDArray

from stages.geometry import Box, Raster
from stages.pyramid.cache import cache_pyramid
from stages.pyramid.open import open_pyramid
from stages.slide.facts import SlideError
from stages.slide.files import open_slide
from stages.slide.render import count_reads, render
from stages.slide.tifffile_slide import TifffileSlide

UPRIGHT = {  # TIFF 6.0: where the first row and the first column of what is stored are seen
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}


def write_turned(path: Path, image: NDArray[np.uint8], orientation: int, **options: Any) -> Path:
    """Two levels, 0.5 x 0.25 µm per stored pixel."""
    with tifffile.TiffWriter(path) as tiff:
        for level, part in enumerate((image, np.ascontiguousarray(image[::2, ::2]))):
            tiff.write(
                part,
                photometric="rgb",
                subfiletype=level,
                tile=(64, 128),
                metadata=None,
                resolution=(2e4 / (level + 1), 4e4 / (level + 1)),
                resolutionunit="CENTIMETER",
                extratags=[(274, "H", 1, orientation, True)],
                **options,
            )
    return path


@pytest.fixture(scope="module")
def image() -> NDArray[np.uint8]:
    return tissue_pixels(500, 300, margin=0)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_slide_is_shown_upright(tmp_path: Path, image: NDArray[np.uint8], orientation: int) -> None:
    """Every level whole and in parts, with the resolution of each side, and the size that a thumbnail counts."""
    slide = open_slide(write_turned(tmp_path / "a.tif", image, orientation))
    assert slide.facts.mpp is not None
    assert (slide.facts.mpp.x, slide.facts.mpp.y) == ((0.5, 0.25) if orientation < 5 else (0.25, 0.5))
    rng = np.random.default_rng(orientation)
    for level, raster in enumerate(slide.facts.levels):
        expected = UPRIGHT[orientation](image[:: level + 1, :: level + 1])
        assert raster.shape == expected.shape[:2]
        np.testing.assert_array_equal(slide.read_level(level, Box(0, 0, raster.width, raster.height)), expected)
        for _ in range(5):
            x, y = int(rng.integers(0, raster.width)), int(rng.integers(0, raster.height))
            box = Box(x, y, int(rng.integers(1, raster.width - x + 1)), int(rng.integers(1, raster.height - y + 1)))
            part = expected[y : y + box.height, x : x + box.width]
            np.testing.assert_array_equal(slide.read_level(level, box), part)
    thumbnail = Raster(0, 0, 4, 4, slide.facts.levels[0].width // 4, slide.facts.levels[0].height // 4)
    assert count_reads(slide, [thumbnail]).tiles == slide.tile_bytes(1).size


def test_levels_that_are_turned_differently_are_refused(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """Which of the tags is wrong cannot be told."""
    path = write_turned(tmp_path / "a.tif", image, 3)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[1].aspage().tags["Orientation"].overwrite(1)
    with pytest.raises(SlideError, match=r"levels are turned differently \(tag Orientation: \[1, 3\]\)"):
        open_slide(path)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_level_that_shows_something_else_is_left_out(tmp_path: Path, orientation: int) -> None:
    """As of any slide; the levels behind it are read in its stead, in other processes, too."""
    image = tissue_pixels(1000, 600, margin=0)
    tags = [(274, "H", 1, orientation, True)]
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(image, subifds=2, tile=(64, 128), photometric="rgb", extratags=tags)
        for part in (image[::-2, ::2], image[::4, ::4]):
            tiff.write(part, subfiletype=1, tile=(64, 128), photometric="rgb", extratags=tags)
    slide = open_slide(tmp_path / "a.ome.tif")
    (warning,) = slide.facts.warnings
    assert warning.endswith("is left out: what it shows is not what level 0 shows there")
    upright = UPRIGHT[orientation](image[::4, ::4])
    for one in (slide, pickle.loads(pickle.dumps(slide))):
        np.testing.assert_array_equal(one.read_level(1, Box(0, 0, *upright.shape[1::-1])), upright)


def _mean(slide: TifffileSlide) -> float:
    return float(slide.read_level(0, Box(10, 20, 100, 90)).mean())


def test_it_reads_the_same_in_another_process(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """What travels is the path and the facts; a file that was replaced is not read in its place."""
    path = tmp_path / "a.tif"
    write_turned(path, image.astype(np.uint16) * 257, 6)  # type: ignore[arg-type]
    slide = open_slide(path)
    assert isinstance(slide, TifffileSlide)
    shipped = pickle.dumps(slide)
    assert len(shipped) < 3000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_mean, slide).result(timeout=60) == _mean(slide)
    write_turned(path, 255 - image, 6)
    with pytest.raises(SlideError, match="no longer the one that was opened"):
        _mean(pickle.loads(shipped))


@pytest.mark.parametrize("orientation", [1, 6])
def test_its_pyramid_holds_its_pixels(tmp_path: Path, image: NDArray[np.uint8], orientation: int) -> None:
    """And what was chosen in reading it is still said."""
    path = tmp_path / "a.tif"
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(path, planes, photometric="minisblack", tile=(64, 64), metadata=None, extratags=tags)
    slide = open_slide(path, mpp=0.5)
    pyramid = open_pyramid(cache_pyramid(slide, tmp_path / "a.zarr", everything=True))
    assert pyramid.facts.warnings == slide.facts.warnings != ()
    for factor in (1, 3.3):
        raster = Raster(7, 9, factor, factor, 60, 50)
        np.testing.assert_array_equal(render(pyramid, raster), render(slide, raster))


def test_damage_is_named_where_it_is(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    """One bad tile fails what touches it; the rest of the slide reads."""
    path = write_turned(tmp_path / "a.tif", image, 3, compression="deflate")
    spoil(path, 0, 0)
    slide = open_slide(path)
    with pytest.raises(SlideError, match=r"cannot read level 0 at \(450, 260\): tile \(0, 0\) does not decode"):
        slide.read_level(0, Box(450, 260, 50, 40))
    np.testing.assert_array_equal(slide.read_level(0, Box(0, 0, 50, 40)), image[::-1, ::-1][:40, :50])
