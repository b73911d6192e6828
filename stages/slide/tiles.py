"""A level as a grid of compressed tiles: which tiles a region touches, and its pixels from them.

Where the tiles come from (a slide's file, a pyramid's shards) is the business of the grids; how regions are put
together from them is the same for all, and every tile that several regions touch is decoded once.
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box
from stages.slide.jpeg_parts import AT_ONCE, BYTES_AT_ONCE, Parts, can_decode

Place = tuple[int, int]
"""A tile's row and column."""

Background = tuple[int, int, int]
WHITE: Background = (255, 255, 255)

HUGE = 2**22
"""Pixels beyond which a tile is huge: such are decoded one at a time, whatever the number of threads."""
_ONE_AT_A_TIME = threading.Lock()

NAMED = 5
"""Tiles that a message names beside the first."""


class DamagedTilesError(ValueError):
    """Tiles that cannot be read or do not decode.

    Attributes:
        damage: (row, column) of each such tile -> what is wrong with it.
        boxes: indices of the requested boxes that touch one.
    """

    def __init__(self, damage: dict[tuple[int, int], str], boxes: Sequence[int] = ()) -> None:
        self.damage, self.boxes = damage, tuple(boxes)
        (first, what), *more = damage.items()
        named = ", ".join(f"{at}" for at, _ in more[:NAMED]) + (", ..." if len(more) > NAMED else "")
        super().__init__(f"tile {first} {what}" + (f" (and {len(more)} more tiles: {named})" if more else ""))

    def __reduce__(self) -> tuple[type[DamagedTilesError], tuple[Any, ...]]:
        return type(self), (self.damage, self.boxes)  # else it could not come back from another process


class TileGrid(ABC):
    """One level as a grid of tiles; safe to use from several threads.

    Attributes:
        size: (width, height) of the level, in its pixels.
        tile: (width, height) of a tile; the last column and row may reach past the level.
        byte_counts: compressed bytes of each tile, (tile rows, tile columns); 0 is a blank tile.
        scales: factors by which `reduced` can decode a tile smaller, largest first.
        prefix: what stands before each stored tile to make it a JPEG stream (`jpeg.prefix`); empty where it makes none.
    """

    size: tuple[int, int]
    tile: tuple[int, int]
    byte_counts: NDArray[np.int64]
    scales: tuple[int, ...] = ()
    prefix: bytes = b""

    @property
    def decoded_pixels(self) -> int:
        """Of a tile, while it is decoded."""
        return self.tile[0] * self.tile[1]

    @abstractmethod
    def stored(self, row: int, column: int) -> bytes:
        """A tile's bytes as they are stored.

        Raises:
            OSError, ValueError: they cannot be read whole.
        """

    @abstractmethod
    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """RGB of a tile from its stored bytes; at least the part that lies inside the level.

        Args:
            data: as `stored` gives them.
            row, column: of the tile.
            into: memory of a whole tile, (height, width, 3), where the pixels may be put; whoever does returns it.

        Raises:
            ValueError: they do not decode.
        """

    def reduced(self, data: bytes, scale: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """RGB of a whole tile from its stored bytes, one of ``scales`` times smaller: about the means of its squares.

        Raises:
            ValueError: they do not decode.
        """
        raise NotImplementedError

    def box(self, row: int, column: int) -> Box:
        """The tile's part of the level, in the level's pixels."""
        x, y = column * self.tile[0], row * self.tile[1]
        return Box(x, y, min(self.tile[0], self.size[0] - x), min(self.tile[1], self.size[1] - y))

    def touched(self, box: Box) -> tuple[slice, slice]:
        """Rows and columns of the tiles that a box of the level touches."""
        width, height = self.tile
        return (
            slice(box.y // height, (box.y + box.height - 1) // height + 1),
            slice(box.x // width, (box.x + box.width - 1) // width + 1),
        )

    def is_blank(self, row: int, column: int) -> bool:
        """Whether nothing is stored of a tile."""
        return not self.byte_counts[row, column]

    def pixels(self, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8] | None:
        """RGB (height, width, 3) of a tile's part of the level, or None where it is blank.

        Args:
            row, column: of the tile.
            into: see `decode`; fresh memory costs about as much as decoding a tile into it.

        Raises:
            OSError, ValueError: it cannot be read or does not decode.
        """
        if self.is_blank(row, column):
            return None
        return self._decoded(self.stored(row, column), row, column, into)

    def _decoded(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """A tile's part of the level, from its stored bytes."""
        found = self.decode(data, row, column, into)
        (across, down), (right, bottom) = self.tile, self.size
        width, height = min(across, right - column * across), min(down, bottom - row * down)
        if found.shape == (height, width, 3):
            return found
        if found.ndim != 3 or found.shape[0] < height or found.shape[1] < width or found.shape[2] != 3:
            raise ValueError(f"is {found.shape}, expected {height} x {width} x 3")
        return found[:height, :width]

    def coming(self, tiles: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        """Tiles that will be read, in their order; a grid that waits for its tiles begins with those that follow."""
        return tiles

    def read(self, box: Box, *, blank: Background = WHITE) -> NDArray[np.uint8]:
        """RGB (height, width, 3) of one box; see `read_many`."""
        return self.read_many([box], blank=blank)[0]

    def read_many(
        self, boxes: Sequence[Box], *, blank: Background = WHITE, out: Sequence[NDArray[np.uint8]] | None = None
    ) -> list[NDArray[np.uint8]]:
        """RGB (height, width, 3) of each box, in the level's pixels; each tile is decoded once, in the file's order.

        Args:
            boxes: inside the level.
            blank: what blank tiles are filled with.
            out: arrays to fill, one for each box; new ones by default.

        Raises:
            DamagedTilesError: tiles cannot be read or do not decode; all others were tried.
            ValueError: a box reaches out of the level, where tiles hold anything.
        """
        level = Box(0, 0, *self.size)
        for box in boxes:
            if box.intersect(level) != box:
                raise ValueError(f"{box} is not inside the level's {level.width} x {level.height} pixels")
        targets = box_arrays(boxes) if out is None else list(out)
        with _ONE_AT_A_TIME if self.decoded_pixels > HUGE else contextlib.nullcontext():
            self._fill(boxes, blank, targets)
        return targets

    def _fill(self, boxes: Sequence[Box], blank: Background, targets: Sequence[NDArray[np.uint8]]) -> None:
        """Read boxes into their targets."""
        wanted: dict[tuple[int, int], list[int]] = {}
        for i, box in enumerate(boxes):
            rows, columns = self.touched(box)
            for row in range(rows.start, rows.stop):
                for column in range(columns.start, columns.stop):
                    wanted.setdefault((row, column), []).append(i)
        width, height = self.tile
        scratch = np.empty((height, width, 3), np.uint8)
        damage: dict[tuple[int, int], str] = {}
        for (row, column), data in self._not_together(wanted, boxes, targets):
            users, x, y = wanted[row, column], column * width, row * height
            parts = [_part(boxes[i], x, y, width, height) for i in users]
            # a box that is a tile is decoded where it belongs
            whole = (targets[i] for i, part in zip(users, parts, strict=True) if part.area == width * height)
            same = (target for target in whole if target.shape == scratch.shape and target.flags.c_contiguous)
            into = next(same, scratch)
            try:
                pixels = self.pixels(row, column, into) if data is None else self._decoded(data, row, column, into)
            except (OSError, ValueError) as exc:
                damage[row, column] = str(exc)
                continue
            for i, part in zip(users, parts, strict=True):
                target, box = targets[i], boxes[i]
                if target is pixels:
                    continue
                top, left = y + part.y - box.y, x + part.x - box.x
                found = blank if pixels is None else pixels[part.slices]
                target[top : top + part.height, left : left + part.width] = found
        if damage:
            damage = dict(sorted(damage.items()))
            raise DamagedTilesError(damage, sorted({i for at in damage for i in wanted[at]}))

    def _not_together(
        self, wanted: dict[Place, list[int]], boxes: Sequence[Box], targets: Sequence[NDArray[np.uint8]]
    ) -> Iterator[tuple[Place, bytes | None]]:
        """Which of the wanted tiles are to be decoded one by one, and what is stored of each where that is read by now.

        All others are in their targets when this ends: JPEG tiles that are plainly in order, decoded by `Parts`.

        Args:
            wanted: which of the boxes touch each tile.
        """
        coming = self.coming(sorted(wanted))
        if not self.prefix or not can_decode(boxes, targets):
            yield from ((place, None) for place in coming)
            return
        parts, streams, size = Parts(self.prefix, self.tile, boxes, targets), list[tuple[Place, bytes]](), 0

        def left() -> list[tuple[Place, bytes]]:
            done = parts.decode(streams, [wanted[place] for place, _ in streams])
            return [stream for stream, is_done in zip(streams, done, strict=True) if not is_done]

        for row, column in coming:
            try:
                data = None if self.is_blank(row, column) else self.stored(row, column)
            except (OSError, ValueError):  # said where it is read once more
                data = None
            if data is None:
                yield (row, column), None
                continue
            streams.append(((row, column), data))
            size += len(data)
            if len(streams) == AT_ONCE or size > BYTES_AT_ONCE:
                yield from left()
                streams, size = [], 0
        if streams:
            yield from left()


def _part(box: Box, x: int, y: int, width: int, height: int) -> Box:
    """What a box of the level has of the tile at (x, y), in the tile's pixels."""
    left, top = max(0, box.x - x), max(0, box.y - y)
    return Box(left, top, min(width, box.x + box.width - x) - left, min(height, box.y + box.height - y) - top)


def box_arrays(boxes: Sequence[Box]) -> list[NDArray[np.uint8]]:
    """Memory for the RGB of each box, (height, width, 3), uninitialised."""
    return [np.empty((box.height, box.width, 3), np.uint8) for box in boxes]
