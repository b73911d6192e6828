"""Tiles that are begun before they are wanted."""

from __future__ import annotations

import threading

import pytest

from stages.pyramid.ahead import AHEAD, Ahead

TILES = [(0, column) for column in range(5 * AHEAD)]


def test_each_tile_is_loaded_once_and_no_more_of_them_than_stated_wait():
    loaded: list[tuple[int, int]] = []

    def load(row: int, column: int) -> int:
        loaded.append((row, column))
        return column

    ahead = Ahead(load)
    for count, (row, column) in enumerate(ahead.through(TILES), 1):
        assert ahead.take(row, column) == column
        assert len(loaded) <= count + AHEAD
    assert sorted(loaded) == TILES


def test_tiles_are_loaded_side_by_side():
    """Were they loaded one after the other, none would ever be."""
    both = threading.Barrier(2, timeout=20)
    ahead = Ahead(lambda row, column: both.wait() >= 0)
    assert all(ahead.take(*tile) for tile in ahead.through([(0, 0), (0, 1)]))


def test_what_fails_fails_where_it_is_wanted():
    def load(row: int, column: int) -> int:
        if column == 1:
            raise ValueError("torn")
        return column

    ahead = Ahead(load)
    found = []
    for tile in ahead.through(TILES[:3]):
        try:
            found.append(ahead.take(*tile))
        except ValueError as exc:
            found.append(str(exc))
    assert found == [0, "torn", 2]
    with pytest.raises(ValueError, match="torn"):
        ahead.take(0, 1)
