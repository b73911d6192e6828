"""Tiles lie where Bokeh shows them, and each place of a slide is in one tile of each zoom."""

from __future__ import annotations

import pytest

from pipeline.view.figure import import_bokeh, tile_source
from pipeline.view.frame import SIDE, Frame
from stages.geometry import Mpp

SIZES = [(100, 80), (512, 512), (513, 512), (40_001, 37_502), (3, 200_000)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mpp", [None, Mpp(0.25, 0.25), Mpp(0.25, 0.2501), Mpp(0.5, 0.25), Mpp(0.25, 0.5)])
def test_tiles_of_a_zoom_cover_the_slide_and_nothing_twice(size: tuple[int, int], mpp: Mpp | None) -> None:
    frame = Frame.of(*size, mpp)
    for zoom in {0, frame.top // 2, frame.top}:
        across = next(c for c in range(10**6) if frame.tile(zoom, c, 0) is None)
        down = next(r for r in range(10**6) if frame.tile(zoom, 0, r) is None)
        last = frame.tile(zoom, across - 1, down - 1)
        first = frame.tile(zoom, 0, 0)
        assert first is not None
        assert last is not None
        assert (first.x, first.y) == (0, 0)
        assert last.x < size[0] <= last.extent_level0[2] * (1 + 1e-12)
        assert last.y < size[1] <= last.extent_level0[3] * (1 + 1e-12)
        assert last.x == pytest.approx((across - 1) * SIDE * first.scale_x)
        assert frame.tile(zoom, across, down - 1) is None
    assert frame.tile(0, 0, 0) is not None, "zoom 0 is one tile"
    assert frame.tile(0, 1, 0) is None
    assert frame.tile(frame.top + 1, 0, 0) is None


@pytest.mark.parametrize("bad", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (99, 0, 0), (3, 10**9, 0)])
def test_there_is_no_tile_elsewhere(bad: tuple[int, int, int]) -> None:
    assert Frame.of(5000, 5000, None).tile(*bad) is None


def test_no_tile_is_finer_than_the_slide_and_pixels_are_square_in_micrometres() -> None:
    mpp = Mpp(0.5, 0.25)
    frame = Frame.of(4000, 4000, mpp)
    tile = frame.tile(frame.top, 0, 0)
    assert tile is not None
    assert (tile.scale_x, tile.scale_y) == (1, 2)
    assert tile.scale_x * mpp.x == tile.scale_y * mpp.y
    assert frame.size == (4000, 2000)


@pytest.mark.parametrize(
    ("tile", "side"),
    [
        *[((240, 240), 240), ((256, 256), 256), ((1024, 1024), 1024), ((512, 256), SIDE)],
        *[((128, 128), SIDE), ((2048, 2048), SIDE), ((255, 255), SIDE), ((40_000, 1), SIDE)],
    ],
)
def test_tiles_are_the_slide_s_own_where_these_are_squares_of_a_sensible_size(tile: tuple[int, int], side: int) -> None:
    frame = Frame.of(10_000, 7_000, None, tile)
    assert frame.side == side
    found = frame.tile(frame.top, 3, 2)
    assert found is not None
    assert (found.x, found.y, found.scale_x, found.width, found.height) == (3 * side, 2 * side, 1, side, side)


@pytest.mark.parametrize("side", [240, SIDE])
@pytest.mark.parametrize("size", SIZES)
def test_a_tile_lies_where_bokeh_shows_it(size: tuple[int, int], side: int) -> None:
    """By the formulas of its MercatorTileSource, `get_tile_meter_bounds` and `tms_to_wmts`."""
    pytest.importorskip("bokeh")
    frame = Frame.of(*size, None, (side, side))
    source = tile_source(import_bokeh(), frame, "{Z}/{X}/{Y}")
    for zoom in range(frame.top + 1):
        resolution = source.initial_resolution / 2**zoom
        for column, row in ((0, 0), (1, 0), (0, 1), (5, 3)):
            raster = frame.tile(zoom, column, row)
            if raster is None:
                continue
            tms = 2**zoom - 1 - row
            ends = (column, tms, column + 1, tms + 1)
            offsets = (source.x_origin_offset, source.y_origin_offset) * 2
            bounds = [end * source.tile_size * resolution - off for end, off in zip(ends, offsets, strict=True)]
            assert frame.extent(raster) == pytest.approx(tuple(bounds))
            assert raster.width == 2 * source.tile_size, "twice as fine as it is said to be"
