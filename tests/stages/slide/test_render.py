"""Rasters are rendered at their exact physical size, averaged by area, at a cost that is known beforehand."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from makers import measured_reads, tissue_pixels, write_slide
from numpy.typing import NDArray

import stages.slide.render
from stages.geometry import Mpp, Raster, ResolutionError, patch_rasters, physical_raster
from stages.slide.area_means import Weights, area_weights, resample
from stages.slide.files import OpenSlideSlide, open_slide
from stages.slide.protocol import Slide
from stages.slide.render import ReadCount, count_reads, render, render_many

SIZES = [(1024, 1024), (4096, 4096), (16384, 8192)]


def write_repeated_slide(path: Path, width: int, height: int, *, levels: int, factor: int = 4) -> Path:
    """A slide of any size whose tiles are all the same one: what it costs is then known to the byte.

    The tile is pale: of stained tissue, no level would show what the level before it shows.
    """
    tile = imagecodecs.jpeg8_encode(200 + tissue_pixels(256, 256, margin=0) // 16, level=90, outcolorspace="ycbcr")
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for level in range(levels):
            w, h = width // factor**level, height // factor**level
            tiff.write(
                (tile for _ in range(-(-w // 256) * -(-h // 256))),
                shape=(h, w, 3),
                dtype=np.uint8,
                tile=(256, 256),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=int(level > 0),
                metadata=None,
                resolution=(20000 / factor**level,) * 2,
                resolutionunit="CENTIMETER",
            )
    return path


def averaged(image: NDArray[np.uint8], raster: Raster) -> NDArray[np.float64]:
    """The area average by its definition, pixel by pixel: ``raster`` is in the image's pixels, white lies around it."""
    out = np.zeros((*raster.shape, 3))
    for row, column in np.ndindex(raster.shape):
        (left, top), (right, bottom) = raster.to_level0([(column, row), (column + 1, row + 1)])
        for y in range(math.floor(top), math.ceil(bottom)):
            for x in range(math.floor(left), math.ceil(right)):
                share = (min(right, x + 1) - max(left, x)) * (min(bottom, y + 1) - max(top, y))
                inside = 0 <= y < image.shape[0] and 0 <= x < image.shape[1]
                out[row, column] += share * (image[y, x] if inside else np.full(3, 255.0))
    return out / (raster.scale_x * raster.scale_y)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenSlideSlide, NDArray[np.uint8]]:
    """A slide of one lossless level, and its pixels."""
    image = tissue_pixels(701, 577, margin=0.02)
    path = write_slide(tmp_path_factory.mktemp("flat") / "flat.tif", image, levels=1, compression="deflate")
    return open_slide(path), image


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> list[OpenSlideSlide]:
    """Slides of the same tiles and growing size."""
    folder = tmp_path_factory.mktemp("repeated")
    return [open_slide(write_repeated_slide(folder / f"{w}.tif", w, h, levels=3)) for w, h in SIZES]


@given(st.floats(0, 5), st.floats(0.9, 40), st.integers(1, 60))
def test_area_weights_are_the_shares_of_area(start: float, scale: float, outputs: int) -> None:
    """Each row sums to exactly 1 and weighs every input by how much of it the output covers."""
    inputs = math.ceil(start + scale * outputs)
    weights = area_weights(start, scale, outputs, inputs).matrix.toarray()
    assert (weights.sum(axis=1) == 1).all()
    for i, row in enumerate(weights):
        low, high = start + i * scale, start + (i + 1) * scale
        shares = [max(0.0, min(high, j + 1) - max(low, j)) / scale for j in range(inputs)]
        np.testing.assert_allclose(row, shares, rtol=0, atol=3e-7)


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4, 8, 16]), st.integers(1, 9), st.integers(1, 9))
def test_sums_over_whole_factors_equal_the_weights(down: int, across: int, height: int, width: int) -> None:
    """The quick way through whole factors gives what the weights give, to the last bit."""
    rng = np.random.default_rng(height * 100 + width)
    pixels = rng.integers(0, 256, (down * height, across * width, 3), np.uint8)
    rows = area_weights(0.0, float(down), height, down * height)
    columns = area_weights(0.0, float(across), width, across * width)
    assert (rows.factor, columns.factor) == (down, across)
    slowly = resample(pixels, Weights(rows.matrix), Weights(columns.matrix))
    np.testing.assert_array_equal(resample(pixels, rows, columns), slowly)
    np.testing.assert_allclose(slowly, pixels.reshape(height, down, width, across, 3).mean((1, 3)), rtol=1e-12)


@pytest.mark.parametrize(("start", "scale"), [(0.0, 3.0), (0.5, 2.0), (0.0, 2.0001), (0.0, 32.0)])
def test_other_scales_go_by_their_weights(start: float, scale: float) -> None:
    """Off the grid, off whole numbers and off powers of two there is no quick way."""
    assert area_weights(start, scale, 20, math.ceil(start + scale * 20)).factor == 0


def test_rasters_read_together_are_those_read_alone(slides_folder: Path) -> None:
    """Inside, across the edges and outside, on the level's grid and off it, large and small."""
    slide = open_slide(slides_folder / "odd.tif")
    corners = [(0.0, 0.0), (-30.0, 700.0), (1700.0, 2300.0), (512.0, 512.0), (513.0, 517.0), (5000.0, 0.0)]
    for scale, side in [(1.0, 96), (2.0, 96), (1.37, 96), (4.0, 50), (3.3, 400)]:
        rasters = [Raster(x, y, scale, scale, side, side) for x, y in corners]
        together = render_many(slide, rasters)
        for raster, pixels in zip(rasters, together, strict=True):
            np.testing.assert_array_equal(pixels, render(slide, raster))


def test_rendered_pixels_are_area_averages(flat: tuple[OpenSlideSlide, NDArray[np.uint8]]) -> None:
    """Any position and scale, whole or not, inside the slide and across its edges, against the definition."""
    slide, image = flat
    rng = np.random.default_rng(0)
    for i in range(25):
        x, y = rng.uniform(-30, 700), rng.uniform(-30, 570)
        scale_x, scale_y = rng.uniform(0.985, 9, 2) if i % 5 else (float(rng.integers(1, 9)), 3.0)
        raster = Raster(float(x), float(y), float(scale_x), float(scale_y), 9, 7)
        error = np.abs(render(slide, raster) - averaged(image, raster))
        assert error.max() <= 0.5 + 1e-3, raster  # half a grey level is rounding


def test_a_raster_on_the_levels_own_grid_is_passed_through(flat: tuple[OpenSlideSlide, NDArray[np.uint8]]) -> None:
    """Where nothing needs resampling the slide's pixels come back untouched."""
    slide, image = flat
    raster = Raster(100, 50, 1, 1, 256, 200)
    np.testing.assert_array_equal(render(slide, raster), image[50:250, 100:356])


def test_averaging_keeps_the_mean(flat: tuple[OpenSlideSlide, NDArray[np.uint8]]) -> None:
    """A thumbnail is as bright as the slide: rounding averages out over its pixels."""
    slide, image = flat
    raster = physical_raster(slide.facts.bounds, Mpp(0.5, 0.5), 0.5 * 5)
    thumbnail = render(slide, raster)[: 575 // 5, : 700 // 5].astype(float)
    # rounding errors are uniform in +-0.5, so their mean over n pixels has a standard error of 1 / sqrt(12 n)
    tolerance = 5 / math.sqrt(12 * thumbnail[..., 0].size)
    np.testing.assert_allclose(thumbnail.mean((0, 1)), image[:575, :700].mean((0, 1)), atol=tolerance)


def test_a_flat_field_stays_flat(tmp_path: Path) -> None:
    """Weights sum to exactly 1, so a single colour comes out as itself at any scale."""
    image = np.full((300, 300, 3), (253, 17, 130), np.uint8)
    slide = open_slide(write_slide(tmp_path / "a.tif", image, levels=1, compression="deflate"))
    for scale in (1.0, 1.7, 3.0, 7.3, 49.9):
        pixels = render(slide, Raster(0.25, 0.5, scale, scale, int(299 / scale), int(299 / scale)))
        assert (pixels == image[0, 0]).all()


def test_outside_the_slide_is_background(flat: tuple[OpenSlideSlide, NDArray[np.uint8]]) -> None:
    """Wholly outside, on any side, and however far: background, without reading anything."""
    slide, _ = flat
    for x, y in [(-500, 0), (0, -500), (900, 0), (0, 900), (1e6, 1e6)]:
        raster = Raster(x, y, 2.5, 2.5, 20, 20)
        assert (render(slide, raster) == 255).all()
        assert count_reads(slide, [raster]) == ReadCount()


@pytest.mark.parametrize("side", [16, 100, 256])
def test_the_result_does_not_depend_on_the_blocks(
    slides_folder: Path, side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read in small blocks or at one go, a raster has exactly the same pixels."""
    rasters = [
        Raster(0, 0, 16, 16, 112, 150),
        Raster(-20.5, 3.25, 7.3, 3.1, 200, 300),
        Raster(300, 200, 1, 1.5, 300, 200),
        Raster(300, 200, 1.003, 0.997, 256, 256),
    ]
    slide = open_slide(slides_folder / "odd.tif")
    monkeypatch.setattr(stages.slide.render, "BLOCK_SIDE", 10**6)
    at_one_go = [render(slide, raster) for raster in rasters]
    monkeypatch.setattr(stages.slide.render, "BLOCK_SIDE", side)
    for raster, expected in zip(rasters, at_one_go, strict=True):
        np.testing.assert_array_equal(render(slide, raster), expected)


def test_the_coarsest_fitting_level_is_averaged(slides_folder: Path) -> None:
    """Where a level with an odd size is read, it is placed by its true downsample: no drift to the bottom right."""
    slide = open_slide(slides_folder / "odd.tif")
    with tifffile.TiffFile(slide.facts.path) as tiff:
        coarse = tiff.pages[1].asarray()
    raster = Raster(1500, 2100, 17, 17, 17, 17)
    in_level = Raster(1500 / 4, 2100 / 4, 17 / 4, 17 / 4, 17, 17)
    # 255 lies around the image in both
    error = np.abs(render(slide, raster) - averaged(coarse, in_level))
    assert error.max() <= 0.5 + 1e-3


@pytest.mark.parametrize("compression", ["deflate", "packbits"])
def test_the_coarse_level_of_a_long_strip_lies_where_it_is(tmp_path: Path, compression: str) -> None:
    """OpenSlide places it by one downsample for both axes, wrong for each (findings/openslide-one-downsample.sh)."""
    strip = np.full((527, 8192, 3), 255, np.uint8)
    strip[:, 7680:7808] = 0
    slide = open_slide(write_slide(tmp_path / "a.tif", strip, levels=2, factor=64, compression=compression))
    assert slide.direct(1) == (compression == "deflate")
    shown = render(slide, Raster(7680 - 5 * 64, 0, 64, 64, 12, 8))
    assert shown[:, 5:7].max() <= 2  # through OpenSlide a pixel is mixed with a hundredth of its neighbour
    assert np.delete(shown, [5, 6], axis=1).min() >= 253


def test_finer_than_the_slide_is_refused(flat: tuple[OpenSlideSlide, NDArray[np.uint8]]) -> None:
    """Nothing is upsampled silently, nor counted."""
    slide, _ = flat
    raster = Raster(0, 0, 0.5, 0.5, 64, 64)
    with pytest.raises(ResolutionError, match="2x finer"):
        render(slide, raster)
    with pytest.raises(ResolutionError, match="2x finer"):
        count_reads(slide, [raster])


def test_memory_does_not_hold_the_level(tmp_path: Path) -> None:
    """A thumbnail of a slide without a pyramid holds a block of it at a time: 100 MB of pixels in a third of that."""
    slide = open_slide(write_repeated_slide(tmp_path / "a.tif", 8192, 4096, levels=1))
    raster = physical_raster(slide.facts.bounds, Mpp(0.5, 0.5), 16)
    tracemalloc.start()
    try:
        assert render(slide, raster).shape == (128, 256, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 35e6


def some_patches(slide: Slide, count: int) -> list[Raster]:
    """Patches of 256 px at 0.5 µm/px, each 37 px off the tiles' grid: four tiles apiece."""
    width, height = slide.facts.levels[0].width // 256 - 2, slide.facts.levels[0].height // 256 - 2
    rng = np.random.default_rng(0)
    corners = np.stack([rng.integers(0, width, count), rng.integers(0, height, count)], axis=1) * 256 + 37
    return patch_rasters(corners + 128, slide.facts.require_mpp(), 256, 0.5)


def test_patches_cost_the_same_whatever_the_slides_size(repeated: list[OpenSlideSlide]) -> None:
    """A patch of a slide 128 times larger costs the same bytes, tiles and pixels; together they never cost more."""
    tile = int(repeated[0].tile_bytes(0)[0, 0])
    for slide in repeated:
        patches = some_patches(slide, 20)
        for patch in patches:
            assert count_reads(slide, [patch]) == ReadCount(4 * tile, 4, 4 * 256 * 256)
        assert count_reads(slide, patches).tiles <= 80
        assert count_reads(slide, patches[:1] * 20) == count_reads(slide, patches[:1])


def test_a_thumbnail_costs_exactly_the_level_that_it_is_made_of(repeated: list[OpenSlideSlide]) -> None:
    """Every tile of the chosen level once, and nothing of any other."""
    for slide in repeated:
        for mpp, level in [(2.0, 1), (8.0, 2), (16.0, 2)]:
            counts = slide.tile_bytes(level)
            raster = physical_raster(slide.facts.bounds, slide.facts.require_mpp(), mpp)
            expected = ReadCount(int(counts.sum()), counts.size, counts.size * math.prod(slide.facts.tile_sizes[level]))
            assert count_reads(slide, [raster]) == expected


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count a process's reads")
def test_counted_bytes_are_the_bytes_really_read(repeated: list[OpenSlideSlide], slides_folder: Path) -> None:
    """The operating system's count of what was read agrees, for patches and thumbnails of slides of every size."""
    requests = [(slide.facts.path, some_patches(slide, 20)) for slide in repeated]
    requests += [(slide.facts.path, [physical_raster(slide.facts.bounds, Mpp(0.5, 0.5), 8)]) for slide in repeated]
    odd = open_slide(slides_folder / "odd.tif")
    requests += [(odd.facts.path, [Raster(0, 0, 3, 3, 601, 800)]), (odd.facts.path, some_patches(odd, 10))]
    measured = list(measured_reads(requests))
    assert len(measured) == len(requests)
    for counted, read in measured:
        assert counted <= read <= counted + 200  # reading the system's counter counts too


def test_tiles_inside_the_box_only(flat: tuple[OpenSlideSlide, NDArray[np.uint8]]) -> None:
    """A raster that ends on a tile's border does not touch the next tile."""
    slide, _ = flat
    assert count_reads(slide, [Raster(0, 0, 2, 2, 128, 128)]).tiles == 1
    assert count_reads(slide, [Raster(0, 0, 2, 2, 129, 128)]).tiles == 2
    assert count_reads(slide, [Raster(255.9999999, 256, 1, 1, 10, 10)]).tiles == 1
