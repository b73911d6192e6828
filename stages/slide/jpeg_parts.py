"""Decode parts of many JPEG tiles in one call, where what `native/jpeg_parts.c` compiles to is installed.

Of a tile only what some box asks for is made into pixels, straight in the box's memory, while other threads of Python
go on. Huffman codes follow each other, so all of them are read, to the stream's end: what is damaged is told of
wherever it lies.

`stages.slide.jpeg` decodes whole tiles without any of this, to the same pixels, and is what answers for every tile
that is not plainly in order.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.geometry import Box

LIBRARY = Path(__file__).with_name("libjpeg_parts.so")
"""Where an installation puts it (`native/hook.py`)."""

AT_ONCE = 32
"""Tiles of a call, at most: some milliseconds."""

BYTES_AT_ONCE = 2**22
"""Of the streams of a call; one that is longer is alone."""

Stream = tuple[tuple[int, int], bytes]
"""A tile's row and column, and its stream."""


class Parts:
    """Boxes of a level and the memory that is to hold their RGB.

    Args:
        prefix: what stands before every stream of the level.
        tile: (width, height) of a tile, in the level's pixels.
        boxes, targets: see `TileGrid.read_many`; as many of one as of the other.
    """

    def __init__(
        self, prefix: bytes, tile: tuple[int, int], boxes: Sequence[Box], targets: Sequence[NDArray[np.uint8]]
    ) -> None:
        self._prefix, self._tile, self._targets = prefix, tile, targets  # whose memory must stay
        self._boxes = np.array(
            [
                (box.x, box.y, box.width, box.height, target.ctypes.data, target.strides[0])
                for box, target in zip(boxes, targets, strict=True)
            ],
            np.int64,
        )

    def decode(self, streams: Sequence[Stream], touching: Sequence[Sequence[int]]) -> list[bool]:
        """Put what the boxes have of some tiles where it belongs; of each tile whether it was done.

        Args:
            streams: of the tiles.
            touching: indices of the boxes that touch each.
        """
        (width, height), count = self._tile, len(streams)
        pointers = (ctypes.c_char_p * count)(*(stream for _, stream in streams))
        rows, first = list[tuple[int, ...]](), 0
        for ((row, column), stream), boxes in zip(streams, touching, strict=True):
            rows.append((0, len(stream), column * width, row * height, first, len(boxes)))
            first += len(boxes)
        tiles = np.array(rows, np.int64)
        tiles[:, 0] = np.frombuffer(memoryview(pointers), np.int64)
        users = np.fromiter(chain.from_iterable(touching), np.int64, first)
        done = np.zeros(count, np.uint8)
        library = _library()
        assert library is not None
        library(
            *(self._prefix, len(self._prefix), width, height, tiles.ctypes.data, count),
            *(self._boxes.ctypes.data, len(self._boxes), users.ctypes.data, first, done.ctypes.data),
        )
        found: list[bool] = done.astype(bool).tolist()
        return found


def can_decode(boxes: Sequence[Box], targets: Sequence[NDArray[np.uint8]]) -> bool:
    """Whether there is a library for it, and the memory is as it writes it: RGB by RGB, line by line."""
    return _library() is not None and all(
        target.shape == (box.height, box.width, 3)
        and target.dtype == np.uint8
        and target.strides[1:] == (3, 1)
        and target.flags.writeable
        for box, target in zip(boxes, targets, strict=True)
    )


def is_installed() -> bool:
    """Whether there is a library for it."""
    return _library() is not None


@functools.cache
def _library() -> Any:
    """Its one function; None without it, or where it was compiled for another version."""
    with contextlib.suppress(OSError, AttributeError):
        function = ctypes.CDLL(str(LIBRARY)).decode_parts_1
        size, memory = ctypes.c_int64, ctypes.c_void_p
        function.argtypes = [ctypes.c_char_p, *[size] * 3, memory, size, memory, size, memory, size, memory]
        function.restype = None
        return function if ctypes.sizeof(memory) == ctypes.sizeof(size) else None
    return None
