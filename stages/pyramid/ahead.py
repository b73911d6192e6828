"""Tiles that are asked for while others are decoded: a store takes long to answer, but answers many at once."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from stages.object_store import AT_ONCE

AHEAD = 2 * AT_ONCE
"""Tiles that are in memory, or on their way, before they are wanted."""

_T = TypeVar("_T")
_Tile = tuple[int, int]


class Ahead(Generic[_T]):
    """What ``load`` returns of tiles, several at once.

    Args:
        load: reads a tile, by its row and column, in whatever thread.
    """

    def __init__(self, load: Callable[[int, int], _T]) -> None:
        self._load = load
        self._coming: dict[_Tile, Future[_T]] = {}

    def through(self, tiles: Sequence[_Tile]) -> Iterator[_Tile]:
        """Tiles in their order; those that follow are begun before each is handed out."""
        for i in range(-AHEAD, len(tiles)):
            if i + AHEAD < len(tiles):
                following = tiles[i + AHEAD]
                self._coming[following] = _threads(os.getpid()).submit(self._load, *following)
            if i >= 0:
                yield tiles[i]
                self._coming.pop(tiles[i], None)

    def take(self, row: int, column: int) -> _T:
        """A tile, once it is there; whoever does not go `through` it waits for it alone."""
        coming = self._coming.pop((row, column), None)
        return self._load(row, column) if coming is None else coming.result()


@functools.cache
def _threads(pid: int) -> ThreadPoolExecutor:
    """A process's own."""
    return ThreadPoolExecutor(AT_ONCE)
