"""A level as a grid of compressed tiles: which tiles a region touches, and its pixels from them.

Where the tiles come from (a slide's file, a pyramid's shards) is the business of the grids; how regions are put
together from them is the same for all, and every tile that several regions touch is decoded once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box

Background = tuple[int, int, int]
WHITE: Background = (255, 255, 255)


class DamagedTilesError(ValueError):
    """Tiles that cannot be read or do not decode.

    Attributes:
        damage: (row, column) of each such tile -> what is wrong with it.
        boxes: indices of the requested boxes that touch one.
    """

    def __init__(self, damage: dict[tuple[int, int], str], boxes: Sequence[int] = ()) -> None:
        self.damage, self.boxes = damage, tuple(boxes)
        (row, column), what = next(iter(damage.items()))
        others = f" (and {len(damage) - 1} more tiles)" if len(damage) > 1 else ""
        super().__init__(f"tile ({row}, {column}) {what}{others}")


class TileGrid(ABC):
    """One level as a grid of tiles; safe to use from several threads.

    Attributes:
        size: (width, height) of the level, in its pixels.
        tile: (width, height) of a tile; the last column and row may reach past the level.
        byte_counts: compressed bytes of each tile, (tile rows, tile columns); 0 is a blank tile.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    byte_counts: NDArray[np.int64]

    @abstractmethod
    def stored(self, row: int, column: int) -> bytes:
        """A tile's bytes as they are stored.

        Raises:
            OSError, ValueError: they cannot be read whole.
        """

    @abstractmethod
    def decode(self, data: bytes, row: int, column: int) -> NDArray[np.uint8]:
        """RGB of a tile from its stored bytes; at least the part that lies inside the level.

        Raises:
            ValueError: they do not decode.
        """

    def box(self, row: int, column: int) -> Box:
        """The tile's part of the level, in the level's pixels."""
        width, height = self.tile
        return Box(column * width, row * height, width, height).intersect(Box(0, 0, *self.size))

    def touched(self, box: Box) -> tuple[slice, slice]:
        """Rows and columns of the tiles that a box of the level touches."""
        width, height = self.tile
        return (
            slice(box.y // height, (box.y + box.height - 1) // height + 1),
            slice(box.x // width, (box.x + box.width - 1) // width + 1),
        )

    def pixels(self, row: int, column: int) -> NDArray[np.uint8] | None:
        """RGB (height, width, 3) of a tile's part of the level, or None where it is blank.

        Raises:
            OSError, ValueError: it cannot be read or does not decode.
        """
        if not self.byte_counts[row, column]:
            return None
        found, box = self.decode(self.stored(row, column), row, column), self.box(row, column)
        if found.ndim != 3 or found.shape[0] < box.height or found.shape[1] < box.width or found.shape[2] != 3:
            raise ValueError(f"is {found.shape}, expected {box.height} x {box.width} x 3")
        return found[: box.height, : box.width]

    def read(self, box: Box, *, blank: Background = WHITE) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of one box; see `read_many`."""
        return self.read_many([box], blank=blank)[0]

    def read_many(self, boxes: Sequence[Box], *, blank: Background = WHITE) -> list[NDArray[np.uint8]]:
        """RGB (height, width, 3) of each box, in the level's pixels; each tile is decoded once, in the file's order.

        Args:
            boxes: inside the level.
            blank: what blank tiles are filled with.

        Raises:
            DamagedTilesError: tiles cannot be read or do not decode; all others were tried.
        """
        wanted: dict[tuple[int, int], list[int]] = {}
        for i, box in enumerate(boxes):
            rows, columns = self.touched(box)
            for row in range(rows.start, rows.stop):
                for column in range(columns.start, columns.stop):
                    wanted.setdefault((row, column), []).append(i)
        out = [np.empty((box.height, box.width, 3), np.uint8) for box in boxes]
        damage: dict[tuple[int, int], str] = {}
        for row, column in sorted(wanted):
            try:
                pixels = self.pixels(row, column)
            except (OSError, ValueError) as exc:
                damage[row, column] = str(exc)
                continue
            tile = self.box(row, column)
            for i in wanted[row, column]:
                part, box = tile.intersect(boxes[i]), boxes[i]
                target = out[i][part.y - box.y :, part.x - box.x :][: part.height, : part.width]
                if pixels is None:
                    target[:] = blank
                else:
                    target[:] = pixels[part.y - tile.y :, part.x - tile.x :][: part.height, : part.width]
        if damage:
            raise DamagedTilesError(damage, sorted({i for at in damage for i in wanted[at]}))
        return out
