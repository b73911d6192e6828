"""A level lies where its metadata says, where that can be; what shows something else is no level."""

from __future__ import annotations

import pytest

from stages.geometry import Raster
from stages.pyramid.levels import place_level
from stages.pyramid.multiscales import Dataset

FIRST = Dataset("0", (0.25, 0.25), (0.0, 0.0))
SIZE = (1000, 800)


def placed(
    scale: tuple[float, float] | None, size: tuple[int, int], translation: tuple[float, float] = (0.0, 0.0)
) -> Raster | str:
    return place_level(FIRST, SIZE, Dataset("1", scale, translation), size)


def test_translations_are_of_centres_and_none_means_one_corner() -> None:
    """0.375 µm from the centre of a 0.25 µm pixel lies that of one of 1 µm whose corners are the same."""
    here = Raster(0, 0, 4, 4, 250, 200)
    assert placed((1.0, 1.0), (250, 200)) == placed((1.0, 1.0), (250, 200), (0.375, 0.375)) == here
    assert placed((1.0, 1.0), (250, 200), (0.875, 0.375)) == Raster(0, 2, 4, 4, 250, 200)


def test_any_factor_is_taken_and_digits_that_were_lost_are_not() -> None:
    assert placed((0.75, 0.75), (333, 266)) == Raster(0, 0, 3, 3, 333, 266)
    assert placed((0.3733333, 0.3738318), (669, 536)) == Raster(0, 0, 0.3738318 / 0.25, 0.3733333 / 0.25, 669, 536)
    assert placed((0.499999, 0.500001), (500, 400)) == Raster(0, 0, 2, 2, 500, 400)


def test_levels_may_be_padded_by_less_than_a_pixel_and_a_half() -> None:
    assert placed((16.0, 16.0), (16, 13)) == Raster(0, 0, 64, 64, 16, 13)
    assert isinstance(placed((16.0, 16.0), (15, 12)), Raster)


def test_without_scales_sizes_place_a_level() -> None:
    assert placed(None, (250, 200)) == Raster(0, 0, 4, 4, 250, 200)


@pytest.mark.parametrize(
    ("scale", "size", "translation", "why"),
    [
        ((0.25, 0.25), (500, 400), (0.0, 0.0), "its metadata says 1 times coarser, its size 2 times"),
        ((1.0, 1.0), (200, 200), (0.0, 0.0), "its metadata says 4 times coarser, its size 5 times"),
        ((0.5, 1.0), (250, 400), (0.0, 0.0), "it is 4 times coarser along x and 2 times along y"),
        ((1.0, 1.0), (250, 200), (0.375, 50.0), r"puts its corner at \(198.5, 0\)"),
    ],
)
def test_what_contradicts_itself_is_no_level(
    scale: tuple[float, float], size: tuple[int, int], translation: tuple[float, float], why: str
) -> None:
    found = placed(scale, size, translation)
    assert isinstance(found, str)
    assert why.replace("\\", "") in found
