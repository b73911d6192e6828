"""Scale arithmetic: what writers drop or pad, what pooling leaves over, where patches really are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.geometry import (
    Box,
    Mpp,
    Raster,
    ResolutionError,
    choose_level,
    level_raster,
    patch_rasters,
    physical_raster,
)

LEVEL_0 = Raster(0, 0, 1, 1, 1000, 800)
sides = st.integers(1, 5000)
rasters = st.builds(
    Raster,
    st.floats(-1e5, 1e5),
    st.floats(-1e5, 1e5),
    st.floats(0.1, 500),
    st.floats(0.1, 500),
    st.integers(1, 5000),
    st.integers(1, 5000),
)


@given(rasters, st.lists(st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4)), min_size=1))
def test_the_two_frames_are_each_others_inverse(raster: Raster, points: list[tuple[float, float]]) -> None:
    """From a raster to level 0 and back is where one started."""
    np.testing.assert_allclose(raster.from_level0(raster.to_level0(points)), points, rtol=0, atol=1e-5)


def test_centres_follow_numpys_order() -> None:
    """The flat index of a pixel is row-major and its centre half a pixel in, along each axis's own scale."""
    raster = Raster(10, 20, 4, 8, width=3, height=2)
    np.testing.assert_array_equal(raster.centres_level0([0, 2, 3]), [[12, 24], [20, 24], [12, 32]])
    assert raster.shape == (2, 3)
    assert raster.extent_level0 == (10, 20, 22, 36)


@given(st.integers(4, 5000), st.integers(4, 5000), st.sampled_from([2, 4, 8, 16, 32]), st.integers(0, 31))
def test_a_whole_downsample_is_found_where_pixels_were_dropped_or_padded(
    width: int, height: int, factor: int, rest: int
) -> None:
    """Floored and ceiled levels alike lie at exactly the writer's factor, so nothing drifts towards the far corner."""
    full = (width * factor + rest % factor, height * factor + factor // 2)
    floor = (full[0] // factor, full[1] // factor)
    ceil = (-(-full[0] // factor), -(-full[1] // factor))
    assert level_raster(full, floor) == Raster(0, 0, factor, factor, *floor)
    assert level_raster(full, ceil) == Raster(0, 0, factor, factor, *ceil)


@given(st.integers(50, 500), st.integers(50, 500), st.sampled_from([3, 5, 6]))
def test_a_downsample_need_not_be_a_power_of_two(width: int, height: int, factor: int) -> None:
    """Three-fold levels are placed three-fold."""
    assert level_raster((width * factor + 1, height * factor + 2), (width, height)).scale_x == factor


def test_a_downsample_that_is_no_whole_number_is_the_quotient() -> None:
    """A 2.5 times smaller level is taken as such, axis by axis."""
    assert level_raster((1000, 800), (400, 200)) == Raster(0, 0, 2.5, 4, 400, 200)


def test_a_level_larger_than_level_0_does_not_divide_by_zero() -> None:
    """Nonsense sizes give a nonsense scale, not a crash."""
    assert level_raster((10, 10), (100, 10)).scale_x == pytest.approx(0.1)


@given(st.integers(1, 9), st.integers(0, 8), st.integers(20, 200))
def test_pooled_cells_are_centred_where_their_windows_are(stride: int, extra: int, size: int) -> None:
    """A pooling window of any size and stride, with any remainder, maps to its own centre in level-0 pixels."""
    window = stride + extra
    raster = Raster(5, -7, 16.5, 15.25, size, size)
    outputs = (size - window) // stride + 1
    if outputs < 1:
        return
    cells = raster.pooled(stride, window / 2, outputs, outputs)
    starts = np.arange(outputs) * stride
    expected = raster.to_level0(np.stack([starts, starts], axis=1) + window / 2)
    np.testing.assert_allclose(cells.centres_level0(np.arange(outputs) * (outputs + 1)), expected, atol=1e-9)


@given(st.integers(0, 500), st.integers(0, 500), sides, sides, st.floats(0.2, 0.6), st.floats(0.2, 0.6))
def test_a_physical_raster_covers_its_bounds_and_no_more(
    x: int, y: int, width: int, height: int, mpp_x: float, mpp_y: float
) -> None:
    """Pixels are exactly as large as asked for, along both axes, and less than one of them reaches past the bounds."""
    raster = physical_raster(Box(x, y, width, height), Mpp(mpp_x, mpp_y), 8.0)
    assert (raster.scale_x * mpp_x, raster.scale_y * mpp_y) == (pytest.approx(8), pytest.approx(8))
    left, top, right, bottom = raster.extent_level0
    assert (left, top) == (x, y)
    slack = 1e-4  # of a pixel that rounding may save
    assert x + width - slack * raster.scale_x <= right < x + width + raster.scale_x
    assert y + height - slack * raster.scale_y <= bottom < y + height + raster.scale_y


def test_a_slide_of_a_whole_number_of_pixels_gains_none_by_rounding() -> None:
    """0.1 + 0.2 is not 0.3, and a thumbnail must not get an empty column from it."""
    assert physical_raster(Box(0, 0, 3000, 3000), Mpp(0.1, 0.1), 0.3).shape == (1000, 1000)


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5)), min_size=1, max_size=9), st.floats(0.2, 1.5))
def test_patches_start_on_whole_pixels_within_half_a_pixel_of_where_they_belong(
    centres: list[tuple[float, float]], mpp: float
) -> None:
    """A patch is of the size asked for in µm and centred on its point to half a level-0 pixel."""
    for centre, patch in zip(centres, patch_rasters(centres, Mpp(mpp, mpp / 1.25), 256, 1.6), strict=True):
        assert (patch.scale_x * mpp * 256, patch.scale_y * mpp / 1.25 * 256) == (pytest.approx(409.6),) * 2
        assert patch.x.is_integer()
        assert patch.y.is_integer()
        middle = patch.to_level0((128, 128))
        assert np.abs(middle - centre).max() <= 0.5 + 1e-9


@given(st.lists(st.tuples(st.floats(-50, 1050), st.floats(-50, 850)), min_size=1, max_size=5), st.integers(1, 900))
def test_patches_are_moved_inside_the_bounds_and_no_further(centres: list[tuple[float, float]], side: int) -> None:
    """No patch shows padding where the slide could fill it; one that fits stays where it was."""
    bounds = Box(20, 10, 960, 780)
    free = patch_rasters(centres, Mpp(0.5, 0.5), side, 0.5)
    for patch, moved in zip(free, patch_rasters(centres, Mpp(0.5, 0.5), side, 0.5, bounds=bounds), strict=True):
        left, top, right, bottom = moved.extent_level0
        assert left >= 20
        assert top >= 10
        if side <= 780:
            assert right <= 980
            assert bottom <= 790
        if patch.x >= 20 and patch.y >= 10 and patch.x + side <= 980 and patch.y + side <= 790:
            assert moved == patch


@pytest.mark.parametrize(
    ("scale", "level"), [(1, 0), (0.985, 0), (1.9, 0), (2, 1), (1.97, 1), (3.99, 2), (100, 2), (31.9, 2)]
)
def test_the_coarsest_level_that_is_fine_enough_is_chosen(scale: float, level: int) -> None:
    """A level up to 2 % too coarse will do: true downsamples are 4.0016 where 4 was meant."""
    levels = [LEVEL_0, Raster(0, 0, 2, 2, 500, 400), Raster(0, 0, 4.0016, 4.0016, 250, 200)]
    assert choose_level(levels, Raster(0, 0, scale, scale, 10, 10)) == level


def test_both_axes_must_be_fine_enough() -> None:
    """A level that is too coarse along one axis only is too coarse."""
    levels = [LEVEL_0, Raster(0, 0, 2, 4, 500, 200)]
    assert choose_level(levels, Raster(0, 0, 4, 3, 10, 10)) == 0


def test_finer_than_the_slide_is_refused() -> None:
    """Nothing is upsampled: the error says by how much the slide falls short."""
    with pytest.raises(ResolutionError, match="2x finer"):
        choose_level([LEVEL_0], Raster(0, 0, 1, 0.5, 10, 10))


@given(st.tuples(sides, sides, sides, sides), st.tuples(sides, sides, sides, sides))
def test_boxes_intersect_in_the_pixels_they_share(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    """The common part counts as many columns and rows as the two have in common; it may be empty, never negative."""
    common = Box(*a).intersect(Box(*b))
    columns = len(set(range(a[0], a[0] + a[2])) & set(range(b[0], b[0] + b[2])))
    rows = len(set(range(a[1], a[1] + a[3])) & set(range(b[1], b[1] + b[3])))
    assert common.area == columns * rows
    assert min(common.width, common.height) >= 0
