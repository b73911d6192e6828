"""A grid for tiles: each its own cell, where it lies if that is free."""

from __future__ import annotations

import numpy as np
import pytest
from bags import SIDE, corners_of
from hypothesis import given
from hypothesis import strategies as st

from stages.bags.bag import BagError
from stages.bags.grid import lay

SQUARE = (float(SIDE), float(SIDE))


def test_tiles_on_a_grid_lie_in_the_middle_of_their_cells() -> None:
    corners = corners_of(20, at=700).astype(float)
    raster, cells = lay(corners, SQUARE)
    assert (raster.x, raster.y, raster.scale_x, raster.shape) == (700, 700, SIDE, (4, 6))
    assert np.allclose(raster.centres_level0(cells), corners + SIDE / 2)


def test_overlapping_tiles_have_cells_as_large_as_their_step() -> None:
    corners = corners_of(20, step=SIDE // 2).astype(float)
    raster, cells = lay(corners, SQUARE)
    assert (raster.scale_x, raster.shape) == (SIDE / 2, (4, 6))
    assert np.allclose(raster.centres_level0(cells), corners + SIDE / 2)


def test_the_larger_piece_of_tissue_decides_where_the_grid_lies_and_the_other_is_near_it() -> None:
    """As CLAM has it: each contour's tiles begin at its own corner."""
    first, second = corners_of(20, at=0).astype(float), corners_of(9, at=2051, columns=3).astype(float)
    raster, cells = lay(np.concatenate([second, first]), SQUARE)
    assert len(set(cells.tolist())) == 29
    away = np.abs(raster.centres_level0(cells) - SIDE / 2 - np.concatenate([second, first]))
    assert away[9:].max() == 0
    assert away[:9].max() <= SIDE / 2


def test_sides_of_no_whole_pixels_do_not_drift() -> None:
    side = 455.4
    corners = np.rint(corners_of(900, columns=30, step=1, at=0) * side)
    raster, cells = lay(corners, (side, side))
    assert raster.shape == (30, 30)
    assert np.abs(raster.centres_level0(cells) - side / 2 - corners).max() <= 1


@given(st.lists(st.tuples(st.integers(-200, 9000), st.integers(-200, 9000)), min_size=1, max_size=80, unique=True))
def test_whatever_lies_where_has_a_cell_of_its_own(places: list[tuple[int, int]]) -> None:
    corners = np.array(places, np.float64)
    raster, cells = lay(corners, SQUARE)
    assert len(set(cells.tolist())) == len(places)
    assert cells.min() >= 0
    assert cells.max() < raster.width * raster.height


@pytest.mark.parametrize(
    ("corners", "said"),
    [
        (np.array([[0, 0], [10**7, 10**7]]), "lie as far apart as 39063 x 39063 of them"),
        (np.stack(np.divmod(np.arange(1200), 40), 1), "more than 1089 tiles lie around"),
    ],
)
def test_coordinates_of_other_units_are_refused(corners: np.ndarray, said: str) -> None:
    with pytest.raises(BagError, match=said):
        lay(corners.astype(float), SQUARE)
