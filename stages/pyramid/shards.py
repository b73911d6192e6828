"""Shards: files that each hold the compressed chunks of a square of a level, and an index of them at the end.

Chunks are written and read here without zarr-python, whose half millisecond a call is more than a chunk takes to
decode; what is written is what zarr reads, and a test ties the two.

Format: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import cached_property

import google_crc32c
import numpy as np
from imagecodecs import zstd_decode
from numpy.typing import NDArray

from stages.place import Opened, Place, Url, each, reading, write
from stages.pyramid.ahead import Ahead
from stages.pyramid.layout import LevelLayout
from stages.slide import jpeg
from stages.slide.tiles import TileGrid

OPEN_SHARDS = 64
"""Files of a level that are kept open, each with its index in memory: some 5 kB."""

_NO_CHUNK = 2**64 - 1


def write_shard(path: Place, chunks: Sequence[bytes | None]) -> int:
    """Write a shard in one step and return its size; the disk may hold it later only.

    Args:
        path: the shard's file, in a folder that is there, or object.
        chunks: row by row; None where there is none.

    Raises:
        OSError, UnreadableError: it cannot be written.
    """
    sizes = np.array([0 if chunk is None else len(chunk) for chunk in chunks], np.uint64)
    missing = np.array([chunk is None for chunk in chunks])
    index = np.stack([np.cumsum(sizes) - sizes, sizes], axis=-1).astype("<u8")
    index[missing] = _NO_CHUNK
    entries = index.tobytes()
    stored = (chunk for chunk in chunks if chunk is not None)
    write(path, b"".join((*stored, entries, crc32c(entries))), durable=False)
    return int(sizes.sum()) + len(entries) + 4


class ShardTiles(TileGrid):
    """A level of a pyramid of ours; what a pyramid does not hold is blank.

    Attributes:
        jpeg: how its chunks are to be read, where they are JPEG streams.
    """

    def __init__(self, layout: LevelLayout) -> None:
        self.size = (layout.size[1], layout.size[0])
        self.tile = (layout.chunk[1], layout.chunk[0])
        self.jpeg = layout.jpeg
        self._layout = layout
        self._ahead = Ahead(self._stored) if isinstance(layout.folder, Url) else None
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[int, int], _Shard] = OrderedDict()
        if layout.jpeg is not None:
            self.prefix = jpeg.prefix(layout.jpeg.tables, layout.jpeg.colour)
            self.scales = jpeg.scales(self.tile)

    @cached_property
    def byte_counts(self) -> NDArray[np.int64]:  # type: ignore[override]
        """As `TileGrid.byte_counts`; all indices are read for it, once."""
        layout = self._layout
        rows, columns = layout.chunks_per_shard
        counts = np.empty((layout.grid[0] * rows, layout.grid[1] * columns), np.int64)
        places = [(row, column) for row in range(layout.grid[0]) for column in range(layout.grid[1])]
        for (row, column), found in zip(places, each(layout.folder, self._chunk_bytes, places), strict=True):
            counts[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns] = found
        whole = counts[: -(-layout.size[0] // layout.chunk[0]), : -(-layout.size[1] // layout.chunk[1])]
        return np.ascontiguousarray(whole)

    def _chunk_bytes(self, place: tuple[int, int]) -> NDArray[np.int64]:
        """Of each chunk of a shard, (rows, columns)."""
        sizes: NDArray[np.int64] = _Shard(self._layout, *place).index[..., 1]
        return sizes

    def coming(self, tiles: Sequence[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        """As `TileGrid.coming`."""
        return tiles if self._ahead is None else self._ahead.through(tiles)

    def is_blank(self, row: int, column: int) -> bool:
        """As `TileGrid.is_blank`."""
        shard, place = self._find(row, column)
        return not shard.index[(*place, 1)]

    def stored(self, row: int, column: int) -> bytes:
        """As `TileGrid.stored`, without the checksum, which is compared."""
        return self._stored(row, column) if self._ahead is None else self._ahead.take(row, column)

    def _stored(self, row: int, column: int) -> bytes:
        shard, place = self._find(row, column)
        offset, size = (int(value) for value in shard.index[place])
        if not size:
            return b""  # blank: nobody asks for it but ahead of its turn
        with reading(shard.path):
            data = shard.file.read_at(size, offset)
        if len(data) != size:
            raise ValueError(f"ends after {len(data)} of {size} bytes")
        content = data[:-4]
        if crc32c(content) != data[-4:]:
            raise ValueError("does not have the checksum that was written")
        return content

    def decode(self, data: bytes, row: int, column: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.decode`."""
        if self.jpeg is not None:
            try:
                return jpeg.decode(data, self.prefix, self.tile, into=into)
            except jpeg.JpegError as exc:  # its checksum says that it is what was copied
                raise ValueError(f"does not decode, nor did it in the slide: {exc}") from exc
        try:
            target = np.empty((self.tile[1], self.tile[0], 3), np.uint8) if into is None else into
            pixels = zstd_decode(data, out=target.reshape(-1).data)
        except Exception as exc:  # codecs raise their own types; to the caller it is one thing: damage
            raise ValueError(f"does not decode: {exc}") from exc
        if len(pixels) != target.size:
            raise ValueError(f"decodes to {len(pixels)} bytes, expected {target.size}")
        return target

    def reduced(self, data: bytes, scale: int, into: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """As `TileGrid.reduced`."""
        try:
            return jpeg.decode(data, self.prefix, self.tile, scale=scale, into=into)
        except jpeg.JpegError as exc:
            raise ValueError(f"does not decode: {exc}") from exc

    def _find(self, row: int, column: int) -> tuple[_Shard, tuple[int, int]]:
        """The shard that holds a chunk, and the chunk's place in it."""
        rows, columns = self._layout.chunks_per_shard
        key = (row // rows, column // columns)
        with self._lock:
            shard = self._open.get(key)
            if shard is None:
                shard = self._open[key] = _Shard(self._layout, *key)
                if len(self._open) > OPEN_SHARDS:
                    self._open.popitem(last=False)
            else:
                self._open.move_to_end(key)
        return shard, (row % rows, column % columns)


class _Shard:
    """An open shard; whoever still reads from it keeps it open.

    Attributes:
        path: of the file or object.
        file: it, open.
        index: (offset, bytes) of each chunk, (rows, columns, 2) int64; 0 bytes where there is none.
    """

    def __init__(self, layout: LevelLayout, row: int, column: int) -> None:
        path = layout.shard_path(row, column)
        self.path = path
        with reading(path):
            self.file = Opened(path)
        rows, columns = layout.chunks_per_shard
        length = 16 * rows * columns + 4
        data, size = self.file.read_end(length)
        if len(data) == length and crc32c(data[:-4]) == data[-4:]:
            index = np.frombuffer(data[:-4], "<u8")
            self.index = np.where(index == _NO_CHUNK, 0, index).astype(np.int64).reshape(rows, columns, 2)
            # a file that lost its middle cannot account for its own length
            if size is None or int(self.index[..., 1].sum()) + length == size:
                return
        raise ValueError(f"is in a damaged shard: {layout.folder.name}/c/0/{row}/{column}")

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()


def crc32c(data: bytes) -> bytes:
    return int(google_crc32c.value(data)).to_bytes(4, "little")


def shard_damage(tiles: ShardTiles, layout: LevelLayout, row: int, column: int, *, decode: bool) -> list[str]:
    """What is wrong with the chunks of a shard, found by reading all of it.

    Args:
        tiles: the level.
        layout: the level's.
        row, column: of the shard.
        decode: whether chunks are decoded, too; else only their checksums are compared.
    """
    found = []
    for place in layout.chunks_in(row, column):
        if place is None:
            continue
        try:
            if decode:
                tiles.pixels(*place)
            elif not tiles.is_blank(*place):
                tiles.stored(*place)
        except (OSError, ValueError) as exc:
            found.append(f"level {layout.folder.name}, tile {place} {exc}")
    return found
