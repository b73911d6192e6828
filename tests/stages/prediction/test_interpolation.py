"""Cells that were not read are told from those that look like them."""

from __future__ import annotations

import numpy as np
import pytest

from stages.prediction import interpolation
from stages.prediction.interpolation import cell_looks, interpolate


def test_a_cell_is_told_from_those_of_its_colour() -> None:
    """A picture of two colours in stripes: what was read of each colour is what its other cells say."""
    rgb = np.full((64, 64, 3), (200, 60, 120), np.uint8)
    rgb[:, ::16] = rgb[:, 8:16] = (60, 60, 200)
    blue = (np.arange(64) // 8 == 1).repeat(8)[::8]
    looks = cell_looks(rgb, (8, 8), 8)
    columns = np.arange(64) % 8
    blue = columns == 1
    read = np.concatenate([np.flatnonzero(blue)[:5], np.flatnonzero(~blue & (columns > 2))[:9]])
    said = np.where(blue[read, None], [[2.0, 0.0]], [[-1.0, 0.0]])
    wanted = np.setdiff1d(np.arange(64), read)
    found = interpolate(looks, read, said, wanted)
    assert (found[blue[wanted], 0] > 1).all()
    assert (found[~blue[wanted] & (columns[wanted] > 2), 0] < -0.9).all()


def test_looks_reach_beyond_the_thumbnails_edge() -> None:
    assert cell_looks(np.zeros((10, 20, 3), np.uint8), (2, 3), 8).shape == (6, 8)


def test_one_read_cell_speaks_for_all_and_none_are_asked_for_none() -> None:
    looks = np.random.default_rng(0).normal(size=(5, 8))
    assert interpolate(looks, np.array([3]), np.array([[0.5]]), np.array([0, 1])).tolist() == [[0.5], [0.5]]
    assert interpolate(looks, np.array([3]), np.array([[0.5]]), np.array([], int)).shape == (0, 1)


def test_looks_are_the_same_strip_by_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (197, 301, 3), np.uint8)
    whole = cell_looks(rgb, (13, 19), 16)
    monkeypatch.setattr(interpolation, "STRIP", 20_000)
    np.testing.assert_array_equal(cell_looks(rgb, (13, 19), 16), whole)


@pytest.mark.parametrize("cell_px", [1, 7, 16])
def test_looks_are_mean_and_spread_of_each_cell_to_the_last_bit(cell_px: int) -> None:
    """Told by what adds one pixel of a cell after the other, colour by colour."""
    rgb = np.random.default_rng(0).integers(0, 256, (7 * cell_px, 5 * cell_px, 3), np.uint8)
    rgb[:, ::2] //= 3

    def mean(values: np.ndarray) -> np.ndarray:
        total = np.zeros((7, 5, 3), np.float32)
        for y in range(cell_px):
            for x in range(cell_px):
                total += values[y::cell_px, x::cell_px]
        return total / np.float32(cell_px**2)

    density = np.log(256 / (rgb.astype(np.float32) + 1))
    away = density - mean(density).repeat(cell_px, 0).repeat(cell_px, 1)
    plain = np.concatenate([mean(density), np.sqrt(mean(away * away))], -1)
    np.testing.assert_array_equal(interpolation._looks(rgb, (7, 5), cell_px), plain)
