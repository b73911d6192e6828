"""Heat maps as TIFFs lie on the slide at every level, for every reader."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from numpy.typing import NDArray

from stages.exports.heat_map import PARTS, pyramid_rasters, write_colours, write_ome_tiff
from stages.geometry import Mpp, Raster
from stages.overlay.attention_map import times_uniform

SPOT = (6, 4)
CASES = {
    "whole cells": ((4096, 3000), Raster(0, 0, 128, 128, 32, 24)),
    "cells of odd size, bounds that begin elsewhere": ((9001, 7703), Raster(600, 300, 127.3, 131.1, 33, 29)),
    "narrow": ((900, 3000), Raster(0, 0, 1024 / 3, 1024 / 3, 3, 9)),
    "large": ((26_021, 31_007), Raster(0, 0, 256, 256, 102, 122)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[tuple[int, int], Raster, NDArray[np.float64]]:
    size, raster = CASES[request.param]
    attention = np.ones(raster.shape)
    attention[SPOT if raster.width > SPOT[1] else (SPOT[0], 1)] = 40
    return size, raster, times_uniform(attention / attention.sum())


def _centre(raster: Raster, attention: NDArray[np.float64]) -> NDArray[np.float64]:
    return raster.centres_level0([int(attention.argmax())])[0]


def _weighted(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """Centre (x, y) of what stands out of a map, in its pixels."""
    extra = np.where(image > 2 * np.median(image[image > 0]), image, 0)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(columns * extra).sum(), (rows * extra).sum()]) / extra.sum()


def test_spot_is_at_its_place_in_each_level_by_tifffile(
    case: tuple[tuple[int, int], Raster, NDArray[np.float64]], tmp_path: Path
) -> None:
    """By what a reader knows: the physical size of a pixel, and the quotient of the levels' sizes."""
    size, raster, multiple = case
    evidence = np.random.default_rng(0).normal(size=raster.shape)
    mpp = Mpp(0.25, 0.5)
    path = tmp_path / "s.ome.tif"
    write_ome_tiff(path, {"attention": multiple, "evidence": evidence}, raster, size=size, mpp=mpp, name="s")
    with tifffile.TiffFile(path) as file:
        (series,) = file.series
        assert series.axes == "CYX"
        told = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        assert [channel["Name"] for channel in told["Channel"]] == ["attention", "evidence"]
        side = np.array([told["PhysicalSizeX"], told["PhysicalSizeY"]])
        full = np.array(series.levels[0].shape[:0:-1])
        for level in series.levels:
            assert level.dtype == np.float32
            factor = full / level.shape[:0:-1]
            found = _weighted(level.asarray()[0]) * factor * side / (mpp.x, mpp.y)
            assert (np.abs(found - _centre(raster, multiple)) <= (raster.scale_x / PARTS * factor)).all()
        values = series.levels[0].asarray()[1]
    first = pyramid_rasters(size, raster)[0]
    centres = raster.from_level0(first.centres_level0(np.arange(first.width * first.height)))
    j, i = np.floor(centres).astype(int).T
    inside = (i >= 0) & (j >= 0) & (i < raster.height) & (j < raster.width)
    np.testing.assert_allclose(values.ravel()[inside], evidence[i[inside], j[inside]], rtol=1e-6)
    assert not values.ravel()[~inside].any()


def test_colours_are_a_slide_to_openslide(
    case: tuple[tuple[int, int], Raster, NDArray[np.float64]], tmp_path: Path
) -> None:
    """The yellow of the highest attention is where that is, in each level as OpenSlide scales it."""
    size, raster, multiple = case
    path = tmp_path / "s.tif"
    write_colours(path, multiple, raster, size=size, mpp=Mpp(0.5, 0.5))
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == len(pyramid_rasters(size, raster))
        side = float(slide.properties["openslide.mpp-x"]) / 0.5
        for level, downsample in enumerate(slide.level_downsamples[:3]):
            whole = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[level]), float)[..., :3]
            scale = side * downsample * np.array([1, raster.scale_y / raster.scale_x])
            found = _weighted(1 + 255 - whole[..., 2]) * scale
            assert (np.abs(found - _centre(raster, multiple)) <= raster.scale_x / PARTS * downsample + 1).all()


def test_levels_halve_without_a_remainder(case: tuple[tuple[int, int], Raster, NDArray[np.float64]]) -> None:
    size, raster, _ = case
    levels = pyramid_rasters(size, raster)
    for fine, coarse in pairwise(levels):
        assert (fine.width, fine.height) == (2 * coarse.width, 2 * coarse.height)
    _, _, right, lower = levels[0].extent_level0
    assert right >= size[0] - 1e-6
    assert lower >= size[1] - 1e-6
    assert max(levels[-1].shape) <= 256


def test_libvips_opens_levels_of_both(
    case: tuple[tuple[int, int], Raster, NDArray[np.float64]], tmp_path: Path
) -> None:
    pyvips = pytest.importorskip("pyvips")
    size, raster, multiple = case
    write_ome_tiff(tmp_path / "a.ome.tif", {"attention": multiple}, raster, size=size, mpp=Mpp(0.5, 0.5), name="s")
    write_colours(tmp_path / "a.tif", multiple, raster, size=size, mpp=Mpp(0.5, 0.5))
    for number, level in enumerate(pyramid_rasters(size, raster)):
        floats = pyvips.Image.new_from_file(str(tmp_path / "a.ome.tif"), subifd=number - 1)
        colours = pyvips.Image.new_from_file(str(tmp_path / "a.tif"), page=number)
        assert (floats.width, floats.height) == (colours.width, colours.height) == (level.width, level.height)
        found = _weighted(floats.numpy()) * (level.scale_x, level.scale_y)
        assert (np.abs(found - _centre(raster, multiple)) <= max(level.scale_x, level.scale_y)).all()
